"""Reservations, as both routers hand them out."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from linepicker._asks import Made
from linepicker._check import check
from linepicker._desk import Begun
from linepicker._settle import settle_once, settle_or_keep
from linepicker.model import Decision, Kind, Line, Outcome, To, Verdict

if TYPE_CHECKING:
    from linepicker.arouter import AsyncRouter
    from linepicker.router import Router


class Promise:
    """What both kinds of reservation tell."""

    _made: Made

    @property
    def line(self) -> Line:
        """The sending line, as the fleet showed it when the reservation was made."""
        return self._made.line

    @property
    def number(self) -> str:
        """The line's E.164 number: send from here."""
        return self._made.number

    @property
    def to(self) -> To:
        """The recipient, normalised: a str, or a sorted tuple for a group."""
        return self._made.who.recipient.to

    @property
    def kind(self) -> Kind:
        """ "new", "known" or "moved"."""
        return self._made.kind

    @property
    def send_at(self) -> float:
        """From when the message may leave, epoch seconds UTC."""
        return self._made.send_at

    @property
    def delay(self) -> float:
        """How long after the reservation that is, in seconds."""
        return self._made.decision.delay

    @property
    def moved_from(self) -> str | None:
        """The line this recipient came from, if the reservation moved them."""
        return self._made.moved_from

    @property
    def continuation(self) -> str | None:
        """The policy's text for the first message after such a move, None where there is none to say."""
        return self._made.continuation

    @property
    def decision(self) -> Decision:
        """The record of the choice."""
        return self._made.decision

    @property
    def id(self) -> str:
        """Stable, at most 64 characters, one per message and line: the provider's idempotency key."""
        return self._made.id

    @property
    def chat_id(self) -> str | None:
        """The provider's chat with this recipient on this line, if one was learned."""
        return self._made.chat_id

    @property
    def outcome(self) -> Outcome | None:
        """What became of it; None until settled."""
        return self._made.outcome

    def __repr__(self) -> str:
        made = self._made
        what = f"{made.kind} {made.who.masked} from {made.number} at {made.send_at:.3f}"
        return f"<{type(self).__name__} {what}: {made.outcome or 'open'}>"


class Reservation(Promise):
    """An atomic promise that this message may leave on this line at this moment, already charged.

    Lives until it is settled; never settled, it counts as sent. As a context manager: entering waits until `send_at` and
    checks; a clean exit settles SENT; an exception is classified, settled, and raised on.

    >>> from linepicker import Line, Router
    >>> router = Router([Line("+12025550100")])
    >>> with router.reserve("+12125550123") as reservation:
    ...     print("send from", reservation.number, "with the idempotency key", len(reservation.id) > 0)
    send from +12025550100 with the idempotency key True
    >>> reservation.outcome
    <Outcome.SENT: 'SENT'>
    >>> given_back = router.reserve("+12125550124")
    >>> given_back.release()
    >>> router.lines()[0].used
    1
    """

    __slots__ = ("_made", "_router")

    def __init__(self, router: Router, made: Made) -> None:
        self._router = router
        self._made = made

    def settle(
        self,
        outcome: Outcome | str,
        *,
        number: str | None = None,
        chat_id: str | None = None,
        message_id: str | None = None,
        retry_after: float | None = None,
        trace_id: str | None = None,
    ) -> None:
        """Tell what became of it; the first time counts.

        `number`: the line it left from, where the provider says so. `chat_id`, `message_id`: the provider's ids.
        `retry_after`: seconds, for RATE_LIMITED and LINE_REFUSED. `trace_id`: the provider's, for traces.
        Raises StoreError where something must be given back and
        the store is out (then it is still open); never for SENT and UNKNOWN, whose charge already stands.
        """
        made = self._made
        if trace_id is not None:
            made.trace_id = trace_id
        if outcome == "SENT" and made.plain and chat_id is message_id is number is None:
            made.outcome = Outcome.SENT  # the charge stands already, and nothing was learned
            return
        verdict = Verdict(
            Outcome(outcome),
            number=number,
            chat_id=chat_id,
            message_id=message_id,
            retry_after=retry_after,
        )
        router = self._router
        router._drive(settle_once(router._desk.fleet, made, verdict, router._clock.now()))

    def release(self) -> None:
        """Give it back: the message will not be sent. As `settle("NOT_SENT")`."""
        self.settle(Outcome.NOT_SENT)

    def check(self) -> None:
        """Read line and recipient anew. Raises Held or Blocked, after releasing, if a gate now forbids the send."""
        router = self._router
        router._drive(check(router._desk.fleet, self._made))

    def __enter__(self) -> Self:
        clock = self._router._clock
        wait = self._made.send_at - clock.now()
        if wait > 0:
            clock.sleep(wait)
        self.check()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        router, made = self._router, self._made
        if made.outcome is None:
            verdict = router._desk.left(error)
            router._drive(settle_or_keep(router._desk.fleet, made, verdict, router._clock.now()))


class AsyncReservation(Promise):
    """As Reservation, awaited."""

    __slots__ = ("_made", "_router")

    def __init__(self, router: AsyncRouter, made: Made) -> None:
        self._router = router
        self._made = made

    async def settle(
        self,
        outcome: Outcome | str,
        *,
        number: str | None = None,
        chat_id: str | None = None,
        message_id: str | None = None,
        retry_after: float | None = None,
        trace_id: str | None = None,
    ) -> None:
        """As `Reservation.settle`."""
        made = self._made
        if trace_id is not None:
            made.trace_id = trace_id
        if outcome == "SENT" and made.plain and chat_id is message_id is number is None:
            made.outcome = Outcome.SENT  # the charge stands already, and nothing was learned
            return
        verdict = Verdict(
            Outcome(outcome),
            number=number,
            chat_id=chat_id,
            message_id=message_id,
            retry_after=retry_after,
        )
        router = self._router
        await router._drive(settle_once(router._desk.fleet, made, verdict, router._clock.now()))

    async def release(self) -> None:
        """As `Reservation.release`."""
        await self.settle(Outcome.NOT_SENT)

    async def check(self) -> None:
        """As `Reservation.check`."""
        router = self._router
        await router._drive(check(router._desk.fleet, self._made))

    async def __aenter__(self) -> Self:
        router = self._router
        wait = self._made.send_at - router._clock.now()
        if wait > 0:
            async with router._undoing(Begun(self._made)):
                await router._clock.asleep(wait)
        await self.check()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        router, made = self._router, self._made
        if made.outcome is None:
            verdict, now = router._desk.left(error), router._clock.now()
            await router._drive(settle_or_keep(router._desk.fleet, made, verdict, now))
