"""What is compared: the protocol of a chooser, and linepicker itself behind it, through the router's public verbs alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeAlias

import attrs

from linepicker.errors import Blocked, Held, NoLine, NotNow, SourceError, StaleHealth
from linepicker.model import Line, Outcome, Report
from linepicker.policy import Policy
from linepicker.router import Reservation, Router
from linepicker.simulate.clock import SimulatedClock
from linepicker.simulate.provider import Provider

__all__ = ["Answer", "Chooser", "Gone", "Linepicker", "Make", "Offer", "Setting", "Source", "Wait"]


@attrs.frozen
class Offer:
    """A message may leave on a line at a moment. `ticket` is the chooser's own."""

    number: str
    send_at: float
    ticket: Reservation | None = None


@attrs.frozen
class Wait:
    """Not now: ask again at `until`. `number`: the line that holds everybody it knows; None: it is about new people, or about
    this one alone."""

    until: float
    number: str | None = None


@attrs.frozen
class Gone:
    """Never: the person wants no messages."""


Answer: TypeAlias = Offer | Wait | Gone


class Source(Protocol):
    """Where the list of lines is read."""

    def fetch(self) -> Sequence[Line]:
        """The list as it is shown now. Raises SourceError."""
        ...


@attrs.frozen
class Setting:
    """What a chooser is given. `policy` is linepicker's, whose caps the oracle obeys as well; `seed` is for rules that draw
    lots. `provider` tells the hidden truth: only an oracle may ask it for more than `fetch`."""

    source: Source
    clock: SimulatedClock
    policy: Policy
    seed: int
    provider: Provider


class Chooser(Protocol):
    """Says from which line a message may go out, and when."""

    def choose(self, to: str) -> Answer:
        """A line for a message to this person, now."""
        ...

    def confirm(self, to: str, offer: Offer) -> Answer:
        """Asked when the moment of an offer that lay ahead has come: it, or what holds instead. Raises nothing."""
        ...

    def settle(self, to: str, offer: Offer, *, sent: bool) -> None:
        """What became of an offer: sent, or refused by its line."""
        ...

    def report(self, report: Report) -> None:
        """A webhook: a line changed, somebody answered or opted out."""
        ...

    def budgets(self) -> Mapping[str, int | None]:
        """New conversations a day that it grants each line now, where it has such a notion."""
        ...

    def close(self) -> None:
        """The simulation is over."""
        ...


Make: TypeAlias = Callable[[Setting], Chooser]


class _Fated(Router):
    """A router whose chance, too, is the seed's."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(
            setting.source, policy=setting.policy, clock=setting.clock, seed=setting.seed
        )
        self._dice = random.Random(f"router {setting.seed}")


class Linepicker:
    """The real router, driven as an application would: reserve, check when the slot has come, settle, report."""

    def __init__(self, setting: Setting) -> None:
        self._clock = setting.clock
        self.router = _Fated(setting)

    def choose(self, to: str) -> Answer:
        """What `reserve` says."""
        try:
            reservation = self.router.reserve(to)
        except Blocked:
            return Gone()
        except (NoLine, Held, NotNow, StaleHealth) as refusal:
            return self._wait(refusal)
        return Offer(reservation.number, reservation.send_at, reservation)

    def confirm(self, to: str, offer: Offer) -> Answer:
        """What `check` says, as `send` asks it after any wait."""
        assert offer.ticket is not None
        try:
            offer.ticket.check()
        except Blocked:
            return Gone()
        except Held as refusal:
            return self._wait(refusal)
        return offer

    def settle(self, to: str, offer: Offer, *, sent: bool) -> None:
        """SENT or LINE_REFUSED."""
        assert offer.ticket is not None
        offer.ticket.settle(Outcome.SENT if sent else Outcome.LINE_REFUSED)

    def report(self, report: Report) -> None:
        """The same to the router, which may not know the lines yet."""
        try:
            self.router.report(report)
        except SourceError:
            return

    def budgets(self) -> Mapping[str, int | None]:
        """What `lines` shows."""
        try:
            return {view.line.number: view.budget for view in self.router.lines()}
        except SourceError:
            return {}

    def close(self) -> None:
        """Close the router."""
        self.router.close()

    def _wait(self, refusal: NoLine | Held | NotNow | StaleHealth) -> Wait:
        decision = refusal.decision
        all_of_them = decision.reason not in {"quiet", "pair"}
        until = max(refusal.retry_at, self._clock.moment + 1.0)
        return Wait(until, decision.number if all_of_them else None)
