"""A made-up working day on a fast clock: who is written to, what becomes of the lines, and how it is told."""

from __future__ import annotations

import heapq
import itertools
import random
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any, Final, TypeVar

import attrs

from linepicker import _words as words
from linepicker.cli.screen import Entry, Frame, Screen
from linepicker.errors import Blocked, Held, NoLine, NotNow, StaleHealth
from linepicker.model import LineChanged, LineView, Outcome, Replied, ServiceStatus
from linepicker.providers.linq import LinqMessenger
from linepicker.providers.linq.classify import Reply, read_reply
from linepicker.recipients import mask
from linepicker.router import Reservation, Router
from linepicker.testing import FakeLinq

__all__ = ["Day", "FastClock", "Watched"]

T = TypeVar("T")

_FRAME: Final = 0.08  # seconds of the host between two looks at the lines
_GRACE: Final = 2.0  # seconds of the host that a slow machine may take longer
_PATIENCE: Final = 600.0  # seconds of the day between two questions about a held message
_TOLD: Final = 3  # how many of the like are told one by one; the others are counted
_CAMPAIGN: Final = (0.6, 0.65)  # of the day; every fifth person is written to within it
_MEANINGS: Final = {2024: "opted out", 2027: "ineligible"}


class FastClock:
    """The host's time, from now on `speed` times faster."""

    def __init__(self, speed: float) -> None:
        self.speed = speed
        self._start, self._begun = time.time(), time.monotonic()

    def now(self) -> float:
        """Epoch seconds UTC, by this clock."""
        return self._start + (time.monotonic() - self._begun) * self.speed

    def sleep(self, seconds: float) -> None:
        """Return that much later, by this clock."""
        time.sleep(max(0.0, seconds) / self.speed)


@attrs.define
class Attempt:
    """One call to the provider: the reservation it was made on, and the answer, if that was an error."""

    reservation: Reservation
    reply: Reply | None = None


class Watched:
    """A router's `send` that remembers the reservations of the last message, and tells *before* of each before its call."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self.attempts: list[Attempt] = []
        self.before: Callable[[Reservation], None] | None = None
        self.report = router.report

    def send(
        self,
        to: str | Collection[str],
        call: Callable[[Any], T],
        *,
        text: str | None,
        key: str | None,
        max_wait: float | None,
        line_type: str | None,
        tags: Collection[str],
        exclude: Collection[str],
        line: str | None,
        max_delay: float | None,
        inbound: bool,
        override_optout: bool,
        chat_health: str | None,
        priority: str,
    ) -> T:
        """As `Router.send`."""
        self.attempts = []

        def watched(reservation: Reservation) -> T:
            attempt = Attempt(reservation)
            self.attempts.append(attempt)
            if self.before is not None:
                self.before(reservation)
            try:
                return call(reservation)
            except Exception as error:
                attempt.reply = read_reply(error)
                raise

        return self._router.send(
            to,
            watched,
            text=text,
            key=key,
            max_wait=max_wait,
            line_type=line_type,
            tags=tags,
            exclude=exclude,
            line=line,
            max_delay=max_delay,
            inbound=inbound,
            override_optout=override_optout,
            chat_health=chat_health,
            priority=priority,
        )


@attrs.define
class Day:
    """What happens, and when. Moments are the clock's; `length` is the day's, in its seconds."""

    clock: FastClock
    fake: FakeLinq
    router: Router
    messenger: LinqMessenger
    watched: Watched
    screen: Screen
    chance: random.Random
    length: float
    frame: Frame = attrs.field(init=False)
    begun: float = attrs.field(init=False)
    agenda: list[tuple[float, int, Callable[[], object]]] = attrs.Factory(list)
    numbers: Iterator[int] = attrs.Factory(itertools.count)
    newcomers: list[str] = attrs.Factory(list)
    line_of: dict[str, str] = attrs.Factory(dict)
    held_since: dict[str, float] = attrs.Factory(dict)
    waiting: deque[str] = attrs.Factory(deque)
    views: dict[str, LineView] = attrs.Factory(dict)
    looked: float = -1.0
    flagging: bool = False
    rushes: int = 0

    # The course of the day

    def plan(self, recipients: int) -> None:
        """Put on the agenda who is written to, and what becomes of the lines."""
        self.begun = self.clock.now()
        self.watched.before = self._flag
        self.frame = Frame(
            f"{len(self.fake.numbers)} lines, {recipients} people, a clock {self.clock.speed:,.0f} times faster"
        )
        self.newcomers = _people(self.chance, recipients)
        for n in range(recipients):
            begin, end = (0.0, 0.9) if n % 5 else _CAMPAIGN
            self._at(self.chance.uniform(begin, end) * self.length, self._arrive)
        slow, sick, _ = self.chance.sample(self.fake.numbers, 3)
        for share, event in (
            (0.15, lambda: self._turns(slow, "AT_RISK")),
            (0.25, self._stop),
            (0.32, lambda: self._turns(sick, "CRITICAL")),
            (0.33, lambda: self._follow_up_on(sick)),
            (0.52, self._due),
            (_CAMPAIGN[0], lambda: self._tell("A campaign begins.", "sent")),
            (0.72, lambda: self._turns(sick, "HEALTHY")),
        ):
            self._at(share * self.length, event)

    def live(self) -> None:
        """Go through the agenda, each thing at its time; on a machine too slow for that, until the day is long over."""
        end = self.begun + self.length
        late = end + 0.3 * self.length + _GRACE * self.clock.speed
        while self.agenda and self.agenda[0][0] < end:
            at, _, event = self.agenda[0]
            now = self.clock.now()
            if now > late:
                break
            self._look(now)
            if at > now:
                self.clock.sleep(min(at - now, _FRAME * self.clock.speed))
                continue
            heapq.heappop(self.agenda)
            event()
        self.frame.tally.still_held = len(self.held_since)
        self.frame.tally.refused = len(self.waiting)
        self.frame.tally.unreached = len(self.newcomers)
        self._look(self.clock.now(), always=True)

    def _at(self, after: float, event: Callable[[], object]) -> None:
        heapq.heappush(self.agenda, (self.begun + after, next(self.numbers), event))

    def _soon(self, least: float, most: float, event: Callable[[], object]) -> None:
        self._at(self.clock.now() - self.begun + self.chance.uniform(least, most), event)

    # What happens to the lines

    def _turns(self, number: str, reputation: str) -> None:
        self.fake.set_reputation(number, reputation)
        self._tell(f"Linq calls {number} {reputation} from now on.", reputation)

    def _flag(self, made: Reservation) -> None:
        """A line is flagged between a newcomer's reservation and the send, if there is another one to go to."""
        lines = [each for each in made.decision.candidates if each.excluded is None]
        if not self.flagging or made.kind != "new" or len(lines) < 2:
            return
        self.flagging, number = False, made.number
        self.fake.set_status(number, "FLAGGED")
        self._tell(
            f"Linq flags {number}. Its list of lines can't say so: a send has to find out.",
            "FLAGGED",
        )
        self._soon(900.0, 900.0, lambda: self._webhook(number))
        self._soon(1000.0, 1000.0, lambda: self._follow_up_on(number))

    def _due(self) -> None:
        self.flagging = True

    def _webhook(self, number: str) -> None:
        now = self.clock.now()
        self.router.report(LineChanged(number, status=ServiceStatus.FLAGGED, at=now))
        self._tell(f"A webhook says that {number} is FLAGGED.", "FLAGGED")

    # Whom we write to

    def _arrive(self) -> None:
        if self.newcomers:
            self._write(self.newcomers.pop())

    def _follow_up_on(self, number: str) -> None:
        known = sorted(to for to, line in self.line_of.items() if line == number)
        for to in self.chance.sample(known, min(6, len(known))):
            self._soon(0.0, 900.0, partial(self._write, to))

    def _stop(self) -> None:
        if self.line_of:
            to = self.chance.choice(sorted(self.line_of))
            self.fake.opt_out(to)
            self._tell(f"{mask(to)} writes STOP.", "AT_RISK")
            self._write(to)
            self._soon(300.0, 600.0, partial(self._write, to))

    def _replies(self, to: str, number: str) -> None:
        self.router.report(Replied(number, to, at=self.clock.now()))
        self.frame.tally.replies += 1
        self._soon(60.0, 600.0, partial(self._write, to))

    def _write(self, to: str) -> None:
        """Write to somebody; whoever there is no room for waits in line until the moment that the refusal names."""
        retry_at = self._try(to)
        if retry_at is not None:
            self.waiting.append(to)
            self.frame.tally.postponed += 1
            if len(self.waiting) == 1:
                self._wake_at(retry_at)

    def _wake_at(self, moment: float) -> None:
        self._at(moment - self.begun, self._wake)

    def _wake(self) -> None:
        while self.waiting:
            sent = self.frame.tally.sent
            retry_at = self._try(self.waiting[0])
            if retry_at is not None:
                self._wake_at(retry_at)
                return
            self.waiting.popleft()
            self.frame.tally.came_back += self.frame.tally.sent - sent
        self.rushes += 1
        if self.rushes <= _TOLD:
            self._tell("There is room again: nobody waits any more.", "sent")

    def _try(self, to: str) -> float | None:
        """Send a message. None if there is no more to be done about it, else when there may be room for it."""
        try:
            self.messenger.send(to, "Hello from the demo.")
        except Blocked as refusal:
            self.frame.tally.blocked += 1
            self._tell(f"{mask(to)}: {words.refusal(refusal.decision)}", "AT_RISK")
        except Held as refusal:
            self._held(to, refusal)
        except (NoLine, NotNow, StaleHealth) as refusal:
            if not self.waiting and self.rushes < _TOLD:
                self._tell(f"{mask(to)}: {words.refusal(refusal.decision, date=False)}", "held")
            self.frame.tally.retry_at = refusal.retry_at
            return refusal.retry_at
        except Exception as error:
            if read_reply(error) is None:
                raise
            self._refused(to)
        else:
            self._sent(to)
        return None

    # What comes of it

    def _sent(self, to: str) -> None:
        *refused, last = self.watched.attempts
        made, tally = last.reservation, self.frame.tally
        if made.outcome is not Outcome.SENT:
            return
        tally.sent += 1
        tally.by_kind[made.kind] += 1
        tally.by_line[made.number] += 1
        self.line_of[to] = made.number
        self.frame.latest = f"{mask(to)}, {made.kind}, from {made.number}"
        for each in refused:
            tally.rerouted += 1
            self._tell(
                f"{mask(to)}: line {each.reservation.number} refused ({_meaning(each.reply)}), sent from {made.number} instead",
                "rerouted",
            )
        if made.kind == "moved" and tally.by_kind["moved"] <= _TOLD:
            self._tell(
                f"{mask(to)}: {made.moved_from} can't send, moved to {made.number}, charged there as new",
                "moved",
            )
        since = self.held_since.pop(to, None)
        if since is not None:
            tally.held_then_sent += 1
            if tally.held_then_sent <= _TOLD:
                waited = words.duration(self.clock.now() - since)
                self._tell(
                    f"{mask(to)}: held for {waited}, sent from {made.number} after all", "sent"
                )
        elif made.kind == "new" and self.chance.random() < 0.45:
            self._soon(120.0, 1200.0, lambda: self._replies(to, made.number))
        elif made.kind == "new" and self.chance.random() < 0.25:
            self._soon(1800.0, 3600.0, partial(self._write, to))

    def _refused(self, to: str) -> None:
        """The provider refused, and no other line was, or may be, tried."""
        last = self.watched.attempts[-1]
        meaning, number = _meaning(last.reply), last.reservation.number
        if last.reservation.outcome is Outcome.RECIPIENT_REFUSED:
            self.frame.tally.blocked += 1
            self._tell(
                f"{mask(to)}: refused on {number} ({meaning}), so not tried from another line",
                "AT_RISK",
            )
        else:
            self._tell(
                f"{mask(to)}: {number} refused ({meaning}); their next message moves", "moved"
            )
            self._soon(60.0, 300.0, partial(self._write, to))

    def _held(self, to: str, refusal: Held) -> None:
        now, made = self.clock.now(), refusal.decision
        if to not in self.held_since:
            self.frame.tally.held += 1
            self.held_since[to] = now
            if self.frame.tally.held <= _TOLD:
                why = words.because(made.reason).partition(":")[0]
                line = made.number or "their line"
                moving = made.reason in ("flagged", "ineligible", "not_in_fleet")
                then = (
                    "no other line may take them over yet" if moving else "no other line is tried"
                )
                self._tell(f"{mask(to)}: held, because {line} {why}; {then}", "held")
        again = max(refusal.retry_at - now, _PATIENCE)
        self._soon(again, again + 60.0, partial(self._write, to))

    # Looking

    def _tell(self, text: str, kind: str) -> None:
        self.frame.entries.append(Entry(self.clock.now() - self.begun, text, kind))
        self.screen.show(self.frame)

    def _look(self, now: float, *, always: bool = False) -> None:
        if now - self.looked < _FRAME * self.clock.speed and not always:
            return
        self.looked, frame = now, self.frame
        frame.views = self.router.lines()
        frame.now, frame.elapsed = self.clock.now(), self.clock.now() - self.begun
        for view in frame.views:
            before = self.views.get(view.line.number)
            self.views[view.line.number] = view
            if before is not None and (change := _change(before, view)):
                self._tell(change, "FLAGGED" if view.standing != "ok" else view.line.reputation)
        self.screen.show(frame)


def _change(before: LineView, view: LineView) -> str | None:
    """What became of a line between two looks at it, None if nothing worth telling."""
    number, budget = view.line.number, ""
    if view.budget != before.budget:
        budget = f", {view.budget} new people a day instead of {before.budget}"
    if view.standing not in ("ok", before.standing):
        return f"The router: {number} {words.because(view.standing)}"
    if view.standing != before.standing:
        return f"The router: {number} is open again{budget}"
    if view.line.reputation != before.line.reputation:
        return f"The router: {number} is {view.line.reputation}{budget}"
    return f"The router: {number} may take{budget[1:]}" if budget else None


def _meaning(reply: Reply | None) -> str:
    if reply is None:
        return "no answer"
    return f"{reply.status}/{reply.code} {_MEANINGS.get(reply.code or 0, '')}".strip()


def _people(chance: random.Random, count: int) -> list[str]:
    """Numbers that nobody has: 555-0100 to 555-0199, in areas other than the fake's."""
    people = [f"+1{300 + n // 100}555{100 + n % 100:04d}" for n in range(count)]
    chance.shuffle(people)
    return people
