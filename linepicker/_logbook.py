"""What a router writes to its log: one record for each thing that happened, its facts beside the text, handles masked."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, Final

from linepicker._asks import Refused, Say, Tell, Who
from linepicker.model import StandingChanged
from linepicker.recipients import mask_all

log = logging.getLogger("linepicker")

EVERY: Final = 60.0
"""Seconds within which one class of refusals, those with the same outcome and reason, is written once."""
_WARNED: Final = frozenset({"no_line", "stale"})
_CALM: Final = frozenset({"ok", "paused", "draining"})


class Logbook:
    """One router's. Every record has `.linepicker`, a dict: `event`, `pool`, and what there is to say of it.

    on_standing: called for each line that comes to stand otherwise; what it raises is written, and goes no further.
    full_handles: recipients are written out. Their handles are then in the log, and wherever that is sent and kept.
    """

    def __init__(
        self, pool: str, on_standing: Callable[[StandingChanged], Any] | None, *, full_handles: bool
    ) -> None:
        self._pool, self._full, self._on_standing = pool, full_handles, on_standing
        self._lock = threading.Lock()
        self._refused: dict[tuple[str, str | None], tuple[float, int]] = {}
        if full_handles:
            self._write(
                logging.WARNING,
                "full_handles=True: recipients are written to the log in clear",
                "full_handles",
            )

    def say(self, ask: Say) -> None:
        """What a flow has to say."""
        to = None if ask.who is None else self.name(ask.who)
        text = ask.text if to is None else ask.text.replace("{to}", to)
        facts = {} if to is None else {"to": to}
        self._write(ask.level, text, ask.event, **facts)

    def refused(self, ask: Refused) -> None:
        """A refusal: the first of its class, and then one in a minute, which tells how many there were since."""
        decision = ask.decision
        kind = decision.outcome, decision.reason
        with self._lock:
            at, more = self._refused.get(kind, (-EVERY, 0))
            if 0.0 <= decision.at - at < EVERY:
                self._refused[kind] = at, more + 1
                return
            self._refused[kind] = decision.at, 0
        to = self.name(ask.who)
        where = "" if decision.number is None else f" on {decision.number}"
        since = f"; {more} more of these since the last that was told" if more else ""
        self._write(
            logging.WARNING if decision.outcome in _WARNED else logging.INFO,
            f"refused: {to}{where}: {decision.outcome} ({decision.reason}){since}",
            "refused",
            to=to,
            outcome=decision.outcome,
            reason=decision.reason,
            line=decision.number,
            kind=decision.kind,
            retry_at=decision.retry_at,
            more=more,
        )

    def tell(self, ask: Tell) -> None:
        """A line came to stand otherwise: in the log, and to who asked to be called."""
        self._stands(ask.change)
        if self._on_standing is not None:
            try:
                self._on_standing(ask.change)
            except Exception as error:  # noqa: BLE001  which is no fault of who sends
                self._deaf(error)

    async def atell(self, ask: Tell) -> None:
        """As `tell`, where who asked is a coroutine function."""
        self._stands(ask.change)
        if self._on_standing is not None:
            try:
                await self._on_standing(ask.change)
            except Exception as error:  # noqa: BLE001  as there
                self._deaf(error)

    def _stands(self, change: StandingChanged) -> None:
        """A line came to stand otherwise. A warning, unless it is better, or the operator's own doing."""
        worse = change.standing not in _CALM and change.standing != change.was
        sinks = list(type(change.reputation))
        worse = worse or sinks.index(change.reputation) > sinks.index(change.was_reputation)
        reason = (
            f' ("{change.reason}")'
            if change.standing in ("paused", "draining") and change.reason
            else ""
        )
        self._write(
            logging.WARNING if worse else logging.INFO,
            f"{change.number} stands {change.standing}{reason}, {change.reputation}; "
            f"before: {change.was}, {change.was_reputation}",
            "standing",
            line=change.number,
            standing=change.standing,
            was=change.was,
            reputation=str(change.reputation),
            was_reputation=str(change.was_reputation),
        )

    def moved(self, who: Who, reason: str) -> None:
        """Somebody was given another line by hand."""
        to = self.name(who)
        self._write(logging.INFO, f"{to} moved to another line ({reason})", "moved", to=to)

    def _deaf(self, error: Exception) -> None:
        text, facts = f"on_standing failed: {type(error).__name__}", self._facts("on_standing")
        log.error("%s", text, exc_info=error, extra=facts)

    def name(self, who: Who) -> str:
        """A recipient, as the log may know them."""
        if not self._full:
            return mask_all(who.recipient.to)
        return ", ".join(who.recipient.handles)

    def _write(self, level: int, text: str, event: str, **facts: object) -> None:
        log.log(level, "%s", text, extra=self._facts(event, **facts))

    def _facts(self, event: str, **facts: object) -> dict[str, object]:
        return {"linepicker": {"event": event, "pool": self._pool, **facts}}
