"""Linq's own account of a line's reputation: asked for, waited for, and not asked for again before Linq takes another."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

import attrs
import tenacity

from linepicker.providers.linq.classify import read_reply

if TYPE_CHECKING:
    from linq import AsyncLinqAPIV3, LinqAPIV3

__all__ = ["Action", "AsyncLinqAudits", "Audit", "CoolingDown", "Driver", "LinqAudits", "Stopped"]

_UNTOLD: Final = 60.0
"""How long, in seconds, a line's audit is not asked for again where a 429 names no time. Linq publishes no cooldown."""
_EVERY: Final = 2.0
_WAIT: Final = 60.0


@attrs.frozen
class Driver:
    """What moves a line's reputation, in Linq's words: new_conversation_rate, volume_spike, overall_conversation_health,
    opt_out_handling, flagged, other. The most important one comes first."""

    key: str
    metric: str = ""
    summary: str = ""


@attrs.frozen
class Action:
    """What Linq advises; 1 first. `expected_impact`: high, medium or low."""

    priority: int
    title: str
    detail: str = ""
    expected_impact: str = ""


@attrs.frozen
class Stopped:
    """A conversation whose recipient opted out, and how many messages they got after that."""

    chat_id: str
    messages_after_stop: int


@attrs.frozen
class Audit:
    """A line's reputation audit. `status`: "pending", "complete" or "error" (then `error` says why).

    When complete: `severity` (HEALTHY, AT_RISK, CRITICAL), what drives it (`primary_driver` is "" where there is nothing to act
    on), what to do, up to 15 conversations that are not HEALTHY (chat id, their state), those that opted out, `generated_at` in
    epoch seconds UTC, and all of it as `summary` in Markdown. An audit can be read for 24 hours.
    """

    number: str
    id: str
    status: str
    error: str | None = None
    generated_at: float | None = None
    severity: str | None = None
    primary_driver: str = ""
    drivers: tuple[Driver, ...] = ()
    actions: tuple[Action, ...] = ()
    unhealthy_chats: tuple[tuple[str, str], ...] = ()
    stopped_chats: tuple[Stopped, ...] = ()
    summary: str = ""


@attrs.frozen
class CoolingDown:
    """Linq takes no audit of this line yet: for `retry_after` more seconds, None where it does not say. `last`: the latest
    audit that was read here, None if there is none."""

    number: str
    retry_after: float | None
    last: Audit | None = None


class LinqAudits:
    """Audits with an SDK client. It is told once that a line is cooling down, and asks no more until that is over.

    *now* (any steady clock) and *sleep* are for tests. The SDK's own retries are off: one `start` is one request.
    """

    def __init__(
        self,
        client: LinqAPIV3,
        *,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client.with_options(max_retries=0)
        self._memory = _Memory(now)
        self._sleep = sleep

    def start(self, number: str) -> Audit | CoolingDown:
        """Begin an audit of a line, or join the one that runs. Raises the SDK's exceptions, but for a 429."""
        cooling = self._memory.cooling(number)
        if cooling is not None:
            return cooling
        try:
            started = self._client.phone_numbers.start_reputation_audit(number)
        except Exception as error:
            cooling = self._memory.refused(number, error)
            if cooling is None:
                raise
            return cooling
        return self._memory.began(number, started)

    def read(self, number: str, audit_id: str) -> Audit:
        """An audit as it stands. Raises the SDK's exceptions: NotFoundError for one that is too old or another line's."""
        found = self._client.phone_numbers.get_reputation_audit(audit_id, phone_number=number)
        return self._memory.read(number, found)

    def run(
        self, number: str, *, wait: float = _WAIT, every: float = _EVERY
    ) -> Audit | CoolingDown:
        """Begin an audit and wait for it, at most *wait* seconds, looking every so many; still pending then, it is answered as
        that, and `read` takes its id. A look that fails as the network or the server may is another look later. Raises the
        SDK's exceptions."""
        begun = self.start(number)
        if isinstance(begun, CoolingDown):
            return begun
        self._sleep(every)
        looking = tenacity.Retrying(**_looking(wait - every, every), sleep=self._sleep)
        found: Audit = looking(self.read, number, begun.id)
        return found


class AsyncLinqAudits:
    """As `LinqAudits`, with an SDK `AsyncLinqAPIV3`."""

    def __init__(
        self,
        client: AsyncLinqAPIV3,
        *,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client = client.with_options(max_retries=0)
        self._memory = _Memory(now)
        self._sleep = sleep

    async def start(self, number: str) -> Audit | CoolingDown:
        """As `LinqAudits.start`."""
        cooling = self._memory.cooling(number)
        if cooling is not None:
            return cooling
        try:
            started = await self._client.phone_numbers.start_reputation_audit(number)
        except Exception as error:
            cooling = self._memory.refused(number, error)
            if cooling is None:
                raise
            return cooling
        return self._memory.began(number, started)

    async def read(self, number: str, audit_id: str) -> Audit:
        """As `LinqAudits.read`."""
        found = await self._client.phone_numbers.get_reputation_audit(audit_id, phone_number=number)
        return self._memory.read(number, found)

    async def run(
        self, number: str, *, wait: float = _WAIT, every: float = _EVERY
    ) -> Audit | CoolingDown:
        """As `LinqAudits.run`."""
        begun = await self.start(number)
        if isinstance(begun, CoolingDown):
            return begun
        await self._sleep(every)
        looking = tenacity.AsyncRetrying(**_looking(wait - every, every), sleep=self._sleep)
        found: Audit = await looking(self.read, number, begun.id)
        return found


class _Memory:
    """What both doors remember: until when which line is cooling down, and the latest audit of each."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._until: dict[str, tuple[float, bool]] = {}
        self._last: dict[str, Audit] = {}

    def cooling(self, number: str) -> CoolingDown | None:
        until, told = self._until.get(number, (0.0, False))
        left = until - self._now()
        if number not in self._until or left <= 0:
            return None
        return CoolingDown(number, left if told else None, self._last.get(number))

    def refused(self, number: str, error: Exception) -> CoolingDown | None:
        """The answer to a 429, None for any other error."""
        reply = read_reply(error)
        if reply is None or reply.status != 429:
            return None
        wait = reply.retry_after
        self._until[number] = self._now() + (_UNTOLD if wait is None else wait), wait is not None
        return CoolingDown(number, wait, self._last.get(number))

    def began(self, number: str, started: Any) -> Audit:
        return Audit(number, started.audit_id, str(started.status or "pending"))

    def read(self, number: str, found: Any) -> Audit:
        audit = _audit(number, found)
        if audit.status == "complete":
            self._last[number] = audit
        return audit


def _looking(wait: float, every: float) -> dict[str, Any]:
    """Look again while an audit is pending or could not be read, until *wait* seconds of it are over."""

    def over(state: tenacity.RetryCallState) -> bool:
        return state.idle_for + state.upcoming_sleep > wait

    def last(state: tenacity.RetryCallState) -> Any:
        assert state.outcome is not None
        return state.outcome.result()  # or what it raised

    def pause(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome is not None else None
        reply = read_reply(error) if error is not None else None
        return max(every, (reply and reply.retry_after) or 0.0)

    return {
        "retry": tenacity.retry_if_result(lambda audit: audit.status == "pending")
        | tenacity.retry_if_exception(_passes),
        "wait": pause,
        "stop": over,
        "retry_error_callback": last,
    }


def _passes(error: BaseException) -> bool:
    """Whether it may pass by itself: no answer at all, 408, 429, 5xx."""
    reply = read_reply(error)
    if reply is None:
        return type(error).__name__ in ("APIConnectionError", "APITimeoutError")
    return reply.status in (408, 429) or reply.status >= 500


def _audit(number: str, found: Any) -> Audit:
    report = found.report
    made = Audit(
        number,
        found.audit_id,
        str(found.status),
        found.error,
        None if found.generated_at is None else found.generated_at.timestamp(),
    )
    if report is None:
        return made
    evidence = report.evidence
    return attrs.evolve(
        made,
        severity=report.severity,
        primary_driver=report.primary_driver or "",
        drivers=tuple(
            Driver(str(each.key), each.metric or "", each.summary or "")
            for each in _listed(report.drivers)
        ),
        actions=tuple(
            Action(
                each.priority or 0,
                each.title or "",
                each.detail or "",
                str(each.expected_impact or ""),
            )
            for each in _listed(report.action_items)
        ),
        unhealthy_chats=tuple(
            (each.chat_id or "", str(each.status))
            for each in _listed(evidence and evidence.unhealthy_chats)
        ),
        stopped_chats=tuple(
            Stopped(each.chat_id or "", each.messages_after_stop or 0)
            for each in _listed(evidence and evidence.opt_out_chats)
        ),
        summary=report.summary_markdown or "",
    )


def _listed(values: Iterable[Any] | None) -> Iterable[Any]:
    return values or ()
