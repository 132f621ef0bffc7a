"""A router whose provider fails and whose clock steps: whatever happens, nothing is overspent and nothing is stuck for ever."""

from __future__ import annotations

import math
from typing import Any

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from linepicker import (
    Blocked,
    Held,
    Line,
    LineChanged,
    NoLine,
    NotNow,
    Outcome,
    Policy,
    Reservation,
    Router,
    SourceError,
    StaleHealth,
)
from linepicker.testing import ManualClock

DAY, HOUR = 86400.0, 3600.0
PER_DAY, PER_HOUR = 6, 3
NUMBERS = tuple(f"+1212555100{i}" for i in range(4))
PEOPLE = tuple(f"+1415555200{i}" for i in range(6))
GARBAGE: tuple[object, ...] = (
    None,
    5,
    "no list",
    ["+12125551000"],
    [Line(NUMBERS[0]), Line(NUMBERS[0])],
    [Line(NUMBERS[0]), None],
)


class Source:
    """A provider's list that fails, lies and shrinks on demand."""

    def __init__(self) -> None:
        self.lines = {number: Line(number) for number in NUMBERS[:2]}
        self.failure: Exception | None = None
        self.garbage: object = ()
        self.read: list[dict[str, Line]] = []

    def fetch(self) -> Any:
        """The list, or what is there instead."""
        if self.failure is not None:
            raise self.failure
        if self.garbage != ():
            return self.garbage
        self.read.append(dict(self.lines))
        return list(self.lines.values())


@attrs.define(eq=False)
class Spent:
    """A new conversation as the machine counts it: at the earliest moment any clock since may have called its own."""

    number: str
    at: float


class Machine(RuleBasedStateMachine):
    """One router, and everything that may happen to it."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock(1_700_000_000.0)
        self.source = Source()
        self.router = Router(
            self.source,
            policy=Policy.from_dict(
                {
                    "limits": {"new_per_day": PER_DAY, "new_per_hour": PER_HOUR},
                    "pace": {"new_gap": 30, "new_burst": 2, "max_delay": 60, "spread": "off"},
                    "warmup": {"start": 2},
                }
            ),
            clock=self.clock,
        )
        self.steps = 0
        self.strangers = 0
        self.paused: set[str] = set()
        self.last_word: dict[str, str] = {}
        self.belongs: dict[str, str] = {}
        self.spent: list[Spent] = []
        self.open: list[tuple[Reservation, Spent | None]] = []
        self.fleet: set[str] = set()
        self.suspect: set[str] | None = None

    def teardown(self) -> None:
        """All faults stop, time passes: then every line serves again."""
        self._recover()
        self.router.close()

    # What happens

    @rule(stranger=st.booleans(), who=st.integers(0, 5), delay=st.sampled_from([None, 0.0, 600.0]))
    def reserve(self, stranger: bool, who: int, delay: float | None) -> None:
        """A message is to go out."""
        if stranger:
            self.strangers += 1
        to = f"+1646555{self.strangers:04d}" if stranger else PEOPLE[who]
        self._reserve(to, max_delay=delay)

    @precondition(lambda self: self.open)
    @rule(outcome=st.sampled_from(Outcome), which=st.integers(0, 3))
    def settle(self, outcome: Outcome, which: int) -> None:
        """What became of one."""
        made, spent = self.open.pop(-1 - which % len(self.open))
        made.settle(outcome, retry_after=120.0 if outcome is Outcome.RATE_LIMITED else None)
        if spent in self.spent and outcome in ("NOT_SENT", "LINE_REFUSED", "RECIPIENT_REFUSED"):
            self.spent.remove(spent)
        self.belongs = {}  # who still belongs where is not this test's matter

    @rule(seconds=st.sampled_from([1.0, 30.0, 61.0, 300.0, 901.0, HOUR, 6 * HOUR, DAY]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.clock.advance(seconds)
        self._forget()

    @rule(days=st.sampled_from([-1, 1]))
    def step(self, days: int) -> None:
        """Somebody sets the clock, a day wrong or right again."""
        if abs(self.steps + days) > 1:
            days = -days
        self.steps += days
        self.clock.advance(days * DAY)
        now = self.clock.now()
        for each in self.spent:
            each.at = min(each.at, now)
        self._forget()

    @rule(failure=st.sampled_from([None, SourceError("down", retry_after=1e9), OSError("gone")]))
    def fail(self, failure: Exception | None) -> None:
        """The provider fails, or works again."""
        self.source.failure = failure

    @rule(garbage=st.sampled_from(((), (), *GARBAGE)))
    def lie(self, garbage: object) -> None:
        """The provider answers with something else, or with a list again."""
        self.source.garbage = garbage

    @rule(numbers=st.sets(st.sampled_from(NUMBERS)))
    def list_others(self, numbers: set[str]) -> None:
        """Lines come and go."""
        lines = self.source.lines
        self.source.lines = {number: lines.get(number, Line(number)) for number in sorted(numbers)}

    @rule(
        number=st.sampled_from(NUMBERS), value=st.sampled_from(["HEALTHY", "AT_RISK", "CRITICAL"])
    )
    def turn(self, number: str, value: str) -> None:
        """The list says something else of a line."""
        if number in self.source.lines:
            self.source.lines[number] = Line(number, reputation=value)

    @rule(
        number=st.sampled_from(NUMBERS), value=st.sampled_from(["HEALTHY", "AT_RISK", "CRITICAL"])
    )
    def report(self, number: str, value: str) -> None:
        """The provider reports on a line."""
        change = LineChanged(number, reputation=value, at=self.clock.now())
        known = self.router.report(change)
        self._listen()
        if known or value == "CRITICAL":
            self.last_word[number] = value

    @rule(number=st.sampled_from(NUMBERS), pause=st.booleans())
    def operate(self, number: str, pause: bool) -> None:
        """The operator pauses or resumes a line."""
        try:
            (self.router.pause if pause else self.router.resume)(number)
        except ValueError:
            return
        (self.paused.add if pause else self.paused.discard)(number)

    # What has to hold

    @invariant()
    def nothing_is_overspent(self) -> None:
        """No line shows more than its day's budget."""
        try:
            views = self.router.lines()
        except SourceError:
            return
        finally:
            self._listen()
        for view in views:
            assert view.used <= PER_DAY, view

    def _reserve(self, to: str, **options: Any) -> Reservation | None:
        made, retry_at = None, math.inf
        try:
            made = self.router.reserve(to, **options)
        except (NoLine, Held, NotNow, StaleHealth) as refusal:
            retry_at = refusal.retry_at
        except Blocked:
            pass
        self._listen()
        now = self.clock.now()
        if made is None:
            assert retry_at > now
            return None
        assert made.number not in self.paused
        assert self.last_word.get(made.number) != "CRITICAL"
        assert now <= made.send_at <= now + 600.0
        if made.kind == "known":
            assert self.belongs.get(to, made.number) == made.number
        spent = None
        if made.kind != "known":
            mine = [each.at for each in self.spent if each.number == made.number]
            assert sum(at + DAY > now for at in mine) < PER_DAY
            assert sum(at + HOUR > now for at in mine) < PER_HOUR
            spent = Spent(made.number, made.send_at)
            self.spent.append(spent)
        self.belongs[to] = made.number
        self.open.append((made, spent))
        return made

    def _forget(self) -> None:
        """What is a day old is gone, even if a clock steps back behind it."""
        self.spent = [each for each in self.spent if each.at + DAY > self.clock.now()]

    def _listen(self) -> None:
        """What the router has read by now. A list that lost more than half of the lines counts when it comes again."""
        for lines in self.source.read:
            lost = not lines or 2 * len(lines.keys() & self.fleet) < len(self.fleet)
            if lost and lines.keys() != self.suspect:
                self.suspect = set(lines)
                continue
            self.fleet, self.suspect = set(lines), None
            self.last_word |= {number: str(line.reputation) for number, line in lines.items()}
        self.source.read.clear()

    def _recover(self) -> None:
        self.source.failure, self.source.garbage = None, ()
        self.source.lines = {number: Line(number) for number in NUMBERS}
        self.last_word = {}
        for _ in range(2):
            self.clock.advance(100.0)
            self.router.refresh()
        for number in NUMBERS:
            self.router.resume(number)
        self.paused = set()
        waiting = set(NUMBERS)
        for hour in range(24 * 5):
            self.clock.advance(HOUR)
            self.router.refresh()
            self.clock.advance(100.0)
            for number in sorted(waiting):
                made = self._reserve(f"+1917555{hour:04d}", line=number)
                if made is not None:
                    made.settle("SENT")
                    waiting.discard(number)
                    break
        assert not waiting, f"still not serving after five good days: {waiting}"


Machine.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
TestRouterMachine = Machine.TestCase
