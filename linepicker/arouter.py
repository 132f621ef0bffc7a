"""The door for coroutines: AsyncRouter and its AsyncReservation. As `linepicker.router`, awaited; bound to no event loop."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Self, TypeVar

import attrs

from linepicker import _asks as asks
from linepicker import _upkeep as upkeep
from linepicker._arguments import check_key, check_max_wait
from linepicker._asks import Ask, Called, Fetched, Flow, Made
from linepicker._desk import Begun, Desk
from linepicker._hosttime import AsyncClock, HostTime, asking, new_id, on_host_time
from linepicker._logbook import Logbook
from linepicker._move import move
from linepicker._polls import left_over, ready, refresh_now
from linepicker._process import process
from linepicker._promise import AsyncReservation
from linepicker._send import send
from linepicker._settle import undo
from linepicker._shadow import ShadowCounts
from linepicker._source import afetch
from linepicker.errors import AlreadySent, SourceError, StoreError
from linepicker.model import Assignment, Decision, LineView, Report, StandingChanged
from linepicker.plans import Capacity, Plan
from linepicker.policy import Policy
from linepicker.stores import Answer, AsyncStore, Handle
from linepicker.stores import open as open_store

__all__ = ["AsyncReservation", "AsyncRouter"]

T = TypeVar("T")
R = TypeVar("R")


class AsyncRouter:
    """As `linepicker.Router`, its verbs coroutines. Takes what Router takes, but source.fetch and on_standing are coroutine
    functions, and clock has `asleep` in the place of `sleep`. For one event loop at a time; every await may be cancelled.

    >>> import asyncio
    >>> from linepicker import AsyncRouter, Line
    >>> async def main() -> str:
    ...     async with AsyncRouter([Line("+12025550100")]) as router:
    ...         async with await router.reserve("+12125550123") as reservation:
    ...             return reservation.number  # and send from there
    >>> asyncio.run(main())
    '+12025550100'
    """

    def __init__(
        self,
        source: object,
        *,
        policy: Policy | None = None,
        store: str | Handle | AsyncStore | None = None,
        pool: str = "default",
        clock: AsyncClock | None = None,
        seed: int | str | bytes | None = None,
        shadow: Policy | None = None,
        record: object = None,
        on_standing: Callable[[StandingChanged], Awaitable[object]] | None = None,
        full_handles: bool = False,
    ) -> None:
        self._owned = (
            open_store(store or "memory://") if store is None or isinstance(store, str) else None
        )
        given = self._owned or store
        handle = given if isinstance(given, Handle) else None
        self._store: AsyncStore = handle.astore() if handle is not None else given  # type: ignore[assignment]  # an AsyncStore as it is
        self._source: Any = source
        self._desk = Desk(source, policy, pool, seed, handle, shadow=shadow, record=record)
        host = HostTime()
        self._host = host if clock is None else None
        self._clock: AsyncClock = clock or host
        self._logbook = Logbook(pool, on_standing, full_handles=full_handles)
        self._pid = process()
        self._begin()
        self._answers: dict[type[Ask], Callable[[Any], Awaitable[Any]]] = {
            asks.Read: self._read,
            asks.Swap: self._swap,
            asks.Scan: lambda ask: self._store.scan(ask.prefix),
            asks.Lead: self._lead,
            asks.Fetch: self._fetch,
            asks.Tell: self._logbook.atell,
            asks.Sleep: lambda ask: self._clock.asleep(ask.seconds),
        }
        self._at_once: dict[type[Ask], Callable[[Any], Any]] = {
            asks.Now: lambda _: self._clock.now(),
            asks.Dice: lambda _: self._dice.random(),
            asks.NewId: lambda _: new_id(self._dice),
            asks.Say: self._logbook.say,
            asks.Refused: self._logbook.refused,
        }

    def _begin(self) -> None:
        self._dice = random.Random()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._flight = self._desk.fleet.flight = asyncio.Lock()
        self._desk.fleet.lives_in(self._store)

    # The verbs

    async def reserve(
        self,
        to: str | Iterable[str],
        *,
        text: str | None = None,
        line_type: str | None = None,
        tags: Iterable[str] = (),
        exclude: Iterable[str] = (),
        line: str | None = None,
        max_delay: float | None = None,
        inbound: bool = False,
        key: str | None = None,
        override_optout: bool = False,
        chat_health: str | None = None,
        priority: str = "normal",
    ) -> AsyncReservation:
        """As `Router.reserve`."""
        self._alive()
        who = self._desk.who(to)
        request = self._desk.request(
            text, line_type, tags, exclude, line, max_delay, inbound, override_optout, chat_health
        )
        request = request if priority == "normal" else self._desk.urgent(request, priority)
        begun = Begun()
        async with self._undoing(begun):
            now, made_id = self._clock.now(), new_id(self._dice)
            flow = self._desk.reserve(who, request, now, made_id, key=key, begun=begun)
            return AsyncReservation(self, await self._drive(flow))

    async def preview(
        self,
        to: str | Iterable[str],
        *,
        text: str | None = None,
        line_type: str | None = None,
        tags: Iterable[str] = (),
        exclude: Iterable[str] = (),
        line: str | None = None,
        max_delay: float | None = None,
        inbound: bool = False,
        key: str | None = None,
        override_optout: bool = False,
        chat_health: str | None = None,
        priority: str = "normal",
    ) -> Decision:
        """As `Router.preview`."""
        check_key(key)
        self._alive()
        who = self._desk.who(to)
        request = self._desk.request(
            text, line_type, tags, exclude, line, max_delay, inbound, override_optout, chat_health
        )
        request = request if priority == "normal" else self._desk.urgent(request, priority)
        return await self._drive(self._desk.preview(who, request, self._clock.now()))

    async def send(
        self,
        to: str | Iterable[str],
        call: Callable[[AsyncReservation], Awaitable[R]],
        *,
        max_wait: float | None = None,
        text: str | None = None,
        line_type: str | None = None,
        tags: Iterable[str] = (),
        exclude: Iterable[str] = (),
        line: str | None = None,
        max_delay: float | None = None,
        inbound: bool = False,
        key: str | None = None,
        override_optout: bool = False,
        chat_health: str | None = None,
        priority: str = "normal",
    ) -> R:
        """As `Router.send`."""
        check_key(key)
        self._alive()
        who = self._desk.who(to)
        request = self._desk.request(
            text, line_type, tags, exclude, line, max_delay, inbound, override_optout, chat_health
        )
        request = request if priority == "normal" else self._desk.urgent(request, priority)
        check_max_wait(max_wait)
        begun = Begun()

        async def answer(ask: asks.Call) -> Called:
            begun.calling = True
            return await self._call(call, ask.made)

        fleet, reserving, now = self._desk.fleet, self._desk.reserve, self._clock.now()
        flow = send(
            fleet, request, who, now, reserving=reserving, key=key, max_wait=max_wait, begun=begun
        )
        async with self._undoing(begun):
            try:
                result: R = await self._drive(flow, {**self._answers, asks.Call: answer})
            except AlreadySent as error:
                if isinstance(error.reservation, Made):
                    error.reservation = AsyncReservation(self, error.reservation)
                raise
            return result

    async def report(self, report: Report) -> bool:
        """As `Router.report`."""
        self._alive()
        flow = self._desk.report(report, self._clock.now())
        return await self._drive(flow)

    async def refresh(self) -> None:
        """As `Router.refresh`."""
        self._alive()
        await self._drive(refresh_now(self._desk.fleet, self._clock.now()))

    @contextlib.asynccontextmanager
    async def keep_fresh(self) -> AsyncIterator[None]:
        """As `Router.keep_fresh`, with a task."""

        async def keep() -> None:
            while True:
                await self._clock.asleep(self._desk.policy.health.ttl / 4)
                with contextlib.suppress(SourceError, StoreError):
                    await self._drive(ready(self._desk.fleet, self._clock.now()))

        task = asyncio.create_task(keep(), name="linepicker-keep-fresh")
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def lines(self) -> list[LineView]:
        """As `Router.lines`."""
        self._alive()
        return await self._drive(self._desk.lines(self._clock.now()))

    async def assignment(self, to: str | Iterable[str]) -> Assignment | None:
        """As `Router.assignment`."""
        self._alive()
        who = self._desk.who(to)
        return await self._drive(self._desk.assignment(who, self._clock.now()))

    async def assign(
        self,
        to: str | Iterable[str],
        number: str,
        *,
        since: float | None = None,
        chat_id: str | None = None,
    ) -> None:
        """As `Router.assign`."""
        await self.assign_many([(to, number, since, chat_id)])

    async def assign_many(self, pairs: Iterable[tuple[Any, ...]], *, keep: bool = False) -> int:
        """As `Router.assign_many`."""
        self._alive()
        return await self._drive(self._desk.assign(pairs, self._clock.now(), keep=keep))

    async def move(
        self, to: str | Iterable[str], number: str | None = None, *, reason: str = ""
    ) -> None:
        """Give a recipient another line: this one, or the best. Charged there as a new conversation, within its moves per
        day. reason: for the log. Raises ValueError if they have no line, NoLine, Held, NotNow, StoreError."""
        self._alive()
        who = self._desk.who(to)
        request = self._desk.request(None, None, (), (), number, None, False, False, None)
        now = self._clock.now()
        await self._drive(move(self._desk.fleet, request, who, now, new_id(self._dice)))
        self._logbook.moved(who, reason)

    async def forget(self, to: str | Iterable[str]) -> None:
        """As `Router.forget`."""
        self._alive()
        who = self._desk.who(to)
        await self._drive(upkeep.forget(self._desk.fleet, who))

    async def pause(self, number: str, *, reason: str = "") -> None:
        """Let nothing out on a line until `resume`. Raises ValueError if it is not in the fleet."""
        await self._operate(number, "paused", reason)

    async def drain(self, number: str, *, reason: str = "") -> None:
        """Open no new conversations on a line; its known recipients are served. Raises ValueError as `pause`."""
        await self._operate(number, "draining", reason)

    async def resume(self, number: str) -> None:
        """As `Router.resume`."""
        await self._operate(number, "", "")

    async def capacity(self, *, horizon: float = 86400.0) -> Capacity:
        """As `Router.capacity`."""
        self._alive()
        return await self._drive(self._desk.capacity(self._clock.now(), horizon))

    async def plan(
        self, recipients: Iterable[str | Iterable[str]], *, deadline: float, hold: bool = False
    ) -> Plan:
        """As `Router.plan`. Cancelled, it gives back what it held."""
        self._alive()
        everybody, held = list(recipients), dict[str, Made]() if hold else None
        try:
            plan = await self._drive(self._desk.plan(everybody, self._clock.now(), deadline, held))
        except asyncio.CancelledError:
            for made in (held or {}).values():
                await self._undo(made)
            raise
        return attrs.evolve(plan, held=tuple(AsyncReservation(self, made) for made in plan.held))

    async def reload(self, policy: Policy) -> None:
        """As `Router.reload`."""
        self._desk.reload(policy)

    async def shadowed(self, seconds: float = 3600.0) -> ShadowCounts:
        """As `Router.shadowed`."""
        return self._desk.shadowed(seconds)

    async def close(self) -> None:
        """As `Router.close`."""
        with contextlib.suppress(StoreError):
            if self._desk.fleet.late and self._pid == process():
                await self._drive(left_over(self._desk.fleet, self._clock.now()))
        self._desk.close()
        if self._owned is not None:
            await self._owned.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    # Answering the flows

    async def _drive(
        self,
        flow: Flow[T],
        answers: dict[type[Ask], Callable[[Any], Awaitable[Any]]] | None = None,
    ) -> T:
        answers = answers or self._answers
        try:
            ask = next(flow)
            while True:
                at_once = self._at_once.get(type(ask))
                try:
                    answer = at_once(ask) if at_once else await answers[type(ask)](ask)
                except Exception as error:  # noqa: BLE001  every error is the flow's to hear
                    ask = flow.throw(error)
                else:
                    ask = flow.send(answer)
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            flow.close()

    async def _read(self, ask: asks.Read) -> Answer:
        asked = asking()
        answer = await self._store.read(ask.keys)
        if answer.now is not None and self._host is not None:
            self._host.heard(answer.now, asked)
        return answer

    async def _swap(self, ask: asks.Swap) -> Answer:
        writes = ask.writes if self._host else on_host_time(ask.writes, self._clock.now())
        asked = asking()
        answer = await self._store.swap(writes, seen=ask.seen)
        if answer.now is not None and self._host is not None:
            self._host.heard(answer.now, asked)
        return answer

    async def _lead(self, ask: asks.Lead) -> bool:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # a lock belongs to the loop that waited on it
            self._begin()
            self._loop = loop
        if self._flight.locked() and not ask.wait:
            return False
        return await self._flight.acquire()

    async def _fetch(self, ask: asks.Fetch) -> Fetched:
        desk, issued = self._desk, self._clock.now()
        if desk.static is not None:
            return Fetched(desk.static, issued)
        lines = await afetch(self._source, patient=ask.patient, limited=desk.takes_limits)
        return Fetched(lines, issued)

    async def _call(self, call: Callable[[AsyncReservation], Awaitable[R]], made: Made) -> Called:
        reservation = AsyncReservation(self, made)
        try:
            value = await call(reservation)
        except Exception as error:  # noqa: BLE001  which is classified, and raised on
            return Called(None, error, self._desk.verdict(None, error))
        return Called(value, None, self._desk.verdict(value, None))

    # Small things

    @contextlib.asynccontextmanager
    async def _undoing(self, begun: Begun) -> AsyncIterator[None]:
        """Take a reservation back that a cancellation tore away before the caller's function ran."""
        try:
            yield
        except Exception:
            raise
        except BaseException:
            if begun.made is not None and not begun.calling:
                await self._undo(begun.made)
            raise

    async def _undo(self, made: Made) -> None:
        """Finishes even if cancelled once more."""
        flow = undo(self._desk.fleet, made, self._clock.now())
        task = asyncio.ensure_future(self._drive(flow))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        with contextlib.suppress(StoreError):
            await asyncio.shield(task)

    async def _operate(self, number: str, state: str, reason: str) -> None:
        self._alive()
        flow = upkeep.operate(self._desk.fleet, number, state, reason, self._clock.now())
        await self._drive(flow)

    def _alive(self) -> None:
        """After a fork, begin anew: what the parent's threads were doing can't be known."""
        if self._pid != process():
            self._pid = process()
            self._desk.fleet = self._desk.new_fleet()
            self._begin()
