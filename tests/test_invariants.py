"""The thirty invariants of routing, each on lines, people and moments that Hypothesis draws.

11 to 19 are laws of a single choice, on a fleet in any state; 20 to 22 compare whole runs; the others watch a run of random
calls, made by two processes over one store, against a model of a few lines.
"""

import asyncio
import itertools
import os
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from contextlib import suppress
from pathlib import Path

import attrs
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from linepicker import (
    AlreadySent,
    AsyncRouter,
    Blocked,
    Held,
    Line,
    LineChanged,
    NoLine,
    NotNow,
    OptedIn,
    OptedOut,
    Outcome,
    Policy,
    Replied,
    Reputation,
    Reservation,
    Router,
    SourceError,
    StaleHealth,
    Verdict,
)
from linepicker._asks import Dice
from linepicker.stores import open as open_store
from linepicker.stores.memory import MemoryStore
from linepicker.testing import ManualClock

EXAMPLES = int(os.environ.get("LINEPICKER_EXAMPLES", "60"))
SOME = settings(max_examples=EXAMPLES)
FEW = settings(max_examples=max(1, EXAMPLES // 4))

NOW = 1_790_000_000.0
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
TTL = 60.0
H, R, X = Reputation.HEALTHY, Reputation.AT_RISK, Reputation.CRITICAL
REFUSALS = (NoLine, Held, NotNow, Blocked, StaleHealth)
OFF = dict.fromkeys(
    ("new_per_day", "new_per_hour", "messages_per_day", "pair_per_minute", "moves_per_day"), "off"
)
NO_PACE = {"new_gap": 0, "message_gap": 0, "spread": "off"}


def number(n: int) -> str:
    """The n-th line."""
    return f"+1202555{n:04d}"


def person(n: int) -> str:
    """The n-th recipient."""
    return f"+1415{n:07d}"


def policy(**tables) -> Policy:
    """A policy that limits nothing but what *tables* say."""
    base = {"limits": OFF, "pace": NO_PACE, "learn": {"enabled": False}}
    for name, table in tables.items():
        base[name] = {**base.get(name, {}), **table} if isinstance(table, dict) else table
    return Policy.from_dict(base)


class Account:
    """A provider whose list can be changed, and can fail."""

    def __init__(self, *lines: Line) -> None:
        self.lines = {line.number: line for line in lines}
        self.error: Exception | None = None

    def fetch(self):
        """The list as it is."""
        if self.error is not None:
            raise self.error
        return list(self.lines.values())

    def calls(self, line: str, reputation: Reputation) -> None:
        """Another reputation from now on."""
        self.lines[line] = attrs.evolve(self.lines[line], reputation=reputation)

    def classify(self, result):
        """A send's result is its verdict."""
        return result if isinstance(result, Verdict) else getattr(result, "verdict", None)


class Told(Exception):
    """What a call raises that the account can classify."""

    def __init__(self, outcome: Outcome, **more) -> None:
        super().__init__(outcome)
        self.verdict = Verdict(outcome, **more)


# A single choice: a fleet in any state


@attrs.frozen
class State:
    """One line: what the provider says of it, what may leave on it and what did, and the operator."""

    budget: int = 8
    used: int = 0
    reputation: Reputation = H
    weight: float = 1.0
    flagged: bool = False
    paused: bool = False

    @property
    def limit(self) -> int:
        """What of the budget its reputation leaves it."""
        return self.budget if self.reputation is H else max(1, self.budget // 2)

    @property
    def remaining(self) -> int:
        """New conversations still to be had."""
        return self.limit - self.used

    @property
    def eligible(self) -> bool:
        """Whether a new recipient may go there at all."""
        return (
            self.reputation is not X and not self.flagged and not self.paused and self.remaining > 0
        )

    @property
    def share(self) -> float:
        """The unspent share."""
        return self.remaining / self.limit


@st.composite
def states(draw, reputations=(H, H, R, X)) -> State:
    """A line in any state."""
    budget = draw(st.sampled_from([4, 8, 12]))
    return State(
        budget,
        draw(st.integers(0, budget)),
        draw(st.sampled_from(reputations)),
        draw(st.sampled_from([1.0, 1.0, 2.0, 0.5])),
        draw(st.sampled_from([False] * 7 + [True])),
        draw(st.sampled_from([False] * 7 + [True])),
    )


FLEETS = st.dictionaries(st.integers(0, 99).map(number), states(), min_size=1, max_size=6)
PREFERENCES = st.sampled_from(["healthiest", "weighted"])
PEOPLE = st.integers(0, 9999).map(person)


def settled(
    fleet: dict[str, State], prefer: str = "healthiest", *, order=None, seed=None, scale: int = 1
) -> Router:
    """A router before which the lines are in these states, listed in this order."""
    clock, store = ManualClock(NOW), MemoryStore()
    numbers = list(order or fleet)
    first = Router([Line(each) for each in numbers], policy=policy(), store=store, clock=clock)
    ids = itertools.count(50_000)
    for each, state in fleet.items():
        for _ in range(state.used * scale):
            first.reserve(person(next(ids)), line=each)
        if state.flagged:
            first.report(LineChanged(each, at=NOW, status="FLAGGED"))
        if state.paused:
            first.pause(each)
    clock.advance(1)
    limits = {
        each: {"limits": {"new_per_day": state.budget * scale}} for each, state in fleet.items()
    }
    lines = [
        Line(each, reputation=fleet[each].reputation, weight=fleet[each].weight) for each in numbers
    ]
    return Router(
        Account(*lines),
        policy=policy(line=limits, prefer=prefer),
        store=store,
        clock=clock,
        seed=seed,
    )


def choice(fleet: dict[str, State], to: str, prefer: str = "healthiest", **more) -> str | None:
    """Which line *to* is given, None for none."""
    if not fleet:
        return None
    try:
        return settled(fleet, prefer, **more).reserve(to).number
    except NoLine:
        return None


LAW = settings(max_examples=EXAMPLES, deadline=None)


@LAW
@given(FLEETS, PEOPLE, PREFERENCES)
def test_invariant_11_equal_records_give_equal_choices(fleet, to, prefer):
    """Two routers before equal fleets choose alike; the second half is below."""
    assert choice(fleet, to, prefer) == choice(fleet, to, prefer)


def test_invariant_11_choices_are_equal_in_every_process():
    """Whatever seed Python hashes with, hundred recipients get the same lines."""
    script = """
from linepicker import Line, Router
router = Router([Line(f"+1202555{n:04d}") for n in range(40)])
print([router.reserve(f"+1415{n:07d}").number for n in range(100)])
"""
    answers = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("0", "1", "4711")
    }
    assert len(answers) == 1


@LAW
@given(FLEETS, PEOPLE, PREFERENCES, st.randoms(use_true_random=False))
def test_invariant_12_the_order_of_the_list_does_not_matter(fleet, to, prefer, random):
    """Any permutation of the lines gives the same choice."""
    order = list(fleet)
    random.shuffle(order)
    assert choice(fleet, to, prefer, order=order) == choice(fleet, to, prefer)


@LAW
@given(FLEETS, PEOPLE, PREFERENCES, st.sampled_from([2, 3]), st.sampled_from([0.25, 2.0, 1024.0]))
def test_invariant_13_only_proportions_matter(fleet, to, prefer, times, factor):
    """All budgets and uses times n, or all weights times c, change nothing."""
    same = choice(fleet, to, prefer)
    assert choice(fleet, to, prefer, scale=times) == same
    heavier = {each: attrs.evolve(s, weight=s.weight * factor) for each, s in fleet.items()}
    assert choice(heavier, to, prefer) == same


@LAW
@given(FLEETS, PEOPLE, PREFERENCES, st.data())
def test_invariant_14_removing_a_line_that_was_not_chosen_changes_nothing(fleet, to, prefer, data):
    """Independence of irrelevant alternatives, ties included."""
    chosen = choice(fleet, to, prefer)
    others = sorted(set(fleet) - {chosen})
    assume(others)
    gone = data.draw(st.sets(st.sampled_from(others), min_size=1))
    rest = {each: state for each, state in fleet.items() if each not in gone}
    assert choice(rest, to, prefer) == chosen


@LAW
@given(FLEETS, PEOPLE, PREFERENCES, st.integers(100, 199).map(number), st.integers(0, 3))
def test_invariant_15_lines_that_are_out_are_inert(fleet, to, prefer, other, why):
    """A CRITICAL, FLAGGED, paused or spent line more or less changes nothing."""
    dead = [State(reputation=X), State(flagged=True), State(paused=True), State(used=8)][why]
    assert choice({**fleet, other: dead}, to, prefer) == choice(fleet, to, prefer)


@LAW
@given(FLEETS, PEOPLE, PREFERENCES, st.integers(0, 3))
def test_invariant_16_the_chosen_line_stays_chosen_when_it_gets_better(fleet, to, prefer, how):
    """In health, in what is unspent, in budget or in weight."""
    chosen = choice(fleet, to, prefer)
    assume(chosen is not None)
    was = fleet[chosen]
    better = [
        attrs.evolve(was, reputation=H),
        attrs.evolve(was, used=was.used // 2),
        attrs.evolve(was, budget=was.budget * 2),
        attrs.evolve(was, weight=was.weight * 2),
    ][how]
    assert choice({**fleet, chosen: better}, to, prefer) == chosen


@LAW
@given(FLEETS, PEOPLE, PREFERENCES, st.data(), st.integers(0, 4))
def test_invariant_17_a_line_that_was_not_chosen_may_get_worse(fleet, to, prefer, data, how):
    """Without any effect on the choice."""
    chosen = choice(fleet, to, prefer)
    others = sorted(set(fleet) - {chosen})
    assume(others)
    loser = data.draw(st.sampled_from(others))
    was = fleet[loser]
    worse = [
        attrs.evolve(was, reputation=R if was.reputation is H else X),
        attrs.evolve(was, used=min(was.budget, was.used + 2)),
        attrs.evolve(was, budget=max(4, was.budget - 4), used=min(was.used, was.budget - 4))
        if was.budget > 4 and was.used <= was.budget - 4
        else attrs.evolve(was, weight=was.weight / 4),
        attrs.evolve(was, weight=was.weight / 2),
        attrs.evolve(was, flagged=True),
    ][how]
    assert choice({**fleet, loser: worse}, to, prefer) == chosen


@LAW
@given(FLEETS, PEOPLE, PREFERENCES, st.data(), st.integers(0, 3))
def test_invariant_18_a_better_line_takes_the_choice_or_leaves_it(fleet, to, prefer, data, how):
    """Improving one line never moves the choice to a third."""
    chosen = choice(fleet, to, prefer)
    one = data.draw(st.sampled_from(sorted(fleet)))
    was = fleet[one]
    better = [
        attrs.evolve(was, reputation=H, flagged=False, paused=False),
        attrs.evolve(was, used=was.used // 2),
        attrs.evolve(was, budget=was.budget * 2),
        attrs.evolve(was, weight=was.weight * 4),
    ][how]
    assert choice({**fleet, one: better}, to, prefer) in {chosen, one}


@LAW
@given(FLEETS, PEOPLE, PREFERENCES)
def test_invariant_19_no_eligible_line_is_better_in_everything(fleet, to, prefer):
    """The chosen one is eligible, none beats it in health, share and weight at once, and AT_RISK gives way to HEALTHY."""
    chosen = choice(fleet, to, prefer)
    eligible = {each for each, state in fleet.items() if state.eligible}
    if chosen is None:
        assert not eligible
        return
    assert chosen in eligible
    won = fleet[chosen]
    for each in eligible:
        other = fleet[each]
        if (other.reputation is H) >= (won.reputation is H) and other.weight >= won.weight:
            at_least = other.share >= won.share
            better = other.share > won.share or other.weight > won.weight
            better = better or (other.reputation is H) > (won.reputation is H)
            assert not (at_least and better)
        if prefer == "healthiest":
            assert not (won.reputation is R and other.reputation is H)


# Whole runs, compared


RUNS = st.dictionaries(
    st.integers(0, 99).map(number),
    st.builds(
        State,
        budget=st.sampled_from([4, 8, 12, 20]),
        reputation=st.sampled_from([H, H, H, R]),
    ),
    min_size=1,
    max_size=5,
)


def run(fleet: dict[str, State], count: int, prefer: str = "healthiest") -> Counter[str]:
    """How many of so many recipients each line gets."""
    router, got = settled(fleet, prefer), Counter()
    for n in range(count):
        try:
            got[router.reserve(person(n)).number] += 1
        except NoLine:
            break
    return got


@SOME
@given(RUNS, st.integers(1, 40), PREFERENCES, st.data())
def test_invariant_20_a_better_line_never_gets_fewer(fleet, count, prefer, data):
    """With the same recipients, better health or more budget never lowers a line's count."""
    one = data.draw(st.sampled_from(sorted(fleet)))
    was = fleet[one]
    better = data.draw(
        st.sampled_from([attrs.evolve(was, reputation=H), attrs.evolve(was, budget=was.budget + 4)])
    )
    assert run({**fleet, one: better}, count, prefer)[one] >= run(fleet, count, prefer)[one]


@SOME
@given(RUNS, st.integers(1, 40))
def test_invariant_21_lines_fill_in_proportion(fleet, count):
    """From nothing, at equal health, used shares differ by at most one conversation of the smaller budget."""
    equal = {each: attrs.evolve(state, reputation=H) for each, state in fleet.items()}
    router, got = settled(equal), Counter()
    for n in range(min(count, sum(state.budget for state in equal.values()))):
        got[router.reserve(person(n)).number] += 1
        for one, other in itertools.combinations(equal, 2):
            b, c = equal[one].budget, equal[other].budget
            assert abs(got[one] / b - got[other] / c) <= max(1 / b, 1 / c) + 1e-9


@SOME
@given(RUNS, st.integers(1, 40), st.data())
def test_invariant_22_splitting_a_line_gains_at_most_one(fleet, count, data):
    """Two halves of a line together get what the whole got, give or take one."""
    equal = {each: attrs.evolve(state, reputation=H) for each, state in fleet.items()}
    one = data.draw(st.sampled_from(sorted(equal)))
    half = attrs.evolve(equal[one], budget=equal[one].budget // 2)
    split = {**equal, one: half, number(150): half}
    whole, halves = run(equal, count), run(split, count)
    assert abs(whole[one] - halves[one] - halves[number(150)]) <= 1


# A run of random calls


LINES = [number(n) for n in range(3)]
PERSONS = [person(n) for n in range(6)]
PROCESS = st.integers(0, 1)
LINE = st.sampled_from(LINES)
WHO = st.sampled_from(PERSONS)
KEY = st.sampled_from([None, None, "k1", "k2"])
CALLS = st.one_of(
    st.tuples(st.just("reserve"), PROCESS, WHO, st.sampled_from([None, 0.0, 30.0, 1000.0])),
    st.tuples(st.just("reserve"), PROCESS, st.integers(100, 10**6).map(person), st.none()),
    st.tuples(st.just("reserve"), PROCESS, st.integers(100, 10**6).map(person), st.just(600.0)),
    st.tuples(st.just("settle"), st.integers(0, 7), st.sampled_from(Outcome)),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 1.0, 19.0, 61.0, 700.0, 3600.0, 40000.0])),
    st.tuples(st.just("says"), PROCESS, LINE, st.sampled_from(Reputation)),
    st.tuples(st.just("status"), PROCESS, LINE, st.sampled_from(["ACTIVE", "FLAGGED"])),
    st.tuples(st.just("operate"), PROCESS, LINE, st.sampled_from(["pause", "drain", "resume"])),
    st.tuples(st.just("wish"), PROCESS, WHO, st.sampled_from(["out", "in", "reply"]), LINE),
    st.tuples(st.just("move"), PROCESS, WHO),
)
STORIES = st.lists(CALLS, max_size=40)

LIVELY = policy(
    limits={
        "new_per_day": 6,
        "new_per_hour": 3,
        "messages_per_day": 60,
        "pair_per_minute": 4,
        "moves_per_day": 2,
    },
    pace={"new_gap": 20, "new_burst": 2, "message_gap": 2, "message_burst": 3, "spread": 0.5},
    stickiness={"on_critical": "hold", "on_flagged": "move", "on_released": "move"},
)


@attrs.define
class Charge:
    """One reservation, as the model remembers it."""

    made: Reservation
    to: str
    at: float
    only: bool = True


class Story:
    """Plays calls on two processes over one store, keeping a model, and lets each test look on."""

    def __init__(self, rules: Policy = LIVELY, store=None, base: float = NOW) -> None:
        self.clock = ManualClock(base)
        self.base = base
        self.rules = rules
        self.account = Account(*map(Line, LINES))
        self.store = store or MemoryStore()
        self.routers = [self.router(), self.router()]
        self.charges: list[Charge] = []
        self.open: list[Charge] = []
        self.owner: dict[str, str] = {}
        self.reputation = dict.fromkeys(LINES, H)
        self.since = dict.fromkeys(LINES, base - DAY)
        self.worst = dict.fromkeys(LINES, H)
        self.flagged = dict.fromkeys(LINES, False)
        self.operator = dict.fromkeys(LINES, "resume")
        self.out: set[str] = set()
        self.trace: list[object] = []
        for router in self.routers:
            router.lines()

    def router(self) -> Router:
        """A process. It throws no dice, so that meeting another writer takes no time."""
        made = Router(self.account, policy=self.rules, store=self.store, clock=self.clock)
        made._answers[Dice] = lambda _: 0.0
        return made

    def play(self, story) -> None:
        """All calls, one after the other."""
        for verb, *arguments in story:
            self.trace.append(getattr(self, verb)(*arguments))

    def reserve(self, process: int, to: str, max_delay: float | None):
        """A reservation, or the refusal's name and reason."""
        try:
            made = self.routers[process].reserve(to, max_delay=max_delay)
        except REFUSALS as refusal:
            self.refused(to, refusal)
            decision = refusal.decision
            retry = None if decision.retry_at is None else decision.retry_at - self.base
            return type(refusal).__name__, decision.reason, retry
        charge = Charge(made, to, self.clock.now())
        self.reserved(charge)
        for other in self.charges:
            if other.to == to:
                other.only = False
        charge.only = made.kind != "known"
        self.charges.append(charge)
        self.open.append(charge)
        self.owner[to] = made.number
        return made.number, made.kind, made.send_at - self.base, made.moved_from

    def reserved(self, charge: Charge) -> None:
        """What a test checks of each reservation, before the model takes it in."""

    def refused(self, to: str, refusal) -> None:
        """What a test checks of each refusal."""

    def settle(self, which: int, outcome: Outcome):
        """One of the open reservations ends."""
        if which >= len(self.open):
            return None
        charge = self.open.pop(which)
        charge.made.settle(outcome)
        if outcome in {Outcome.NOT_SENT, Outcome.LINE_REFUSED, Outcome.RECIPIENT_REFUSED}:
            self.charges.remove(charge)
            if charge.only:
                if charge.made.moved_from:
                    self.owner[charge.to] = charge.made.moved_from
                else:
                    del self.owner[charge.to]
        if outcome is Outcome.RECIPIENT_REFUSED:
            self.out.add(charge.to)
        return outcome

    def wait(self, seconds: float):
        """Time passes, and both processes poll."""
        self.clock.advance(seconds)
        for router in self.routers:
            router.lines()

    def says(self, process: int, line: str, reputation: Reputation):
        """The provider changes its mind, in the list and by a report."""
        self.account.calls(line, reputation)
        at = self.clock.now()
        told = self.routers[process].report(LineChanged(line, at=at, reputation=reputation))
        if self.reputation[line] != reputation:
            self.since[line] = at
        self.reputation[line] = reputation
        order = [H, R, X]
        if reputation is H:
            self.worst[line] = H
        else:
            self.worst[line] = max(self.worst[line], reputation, key=order.index)
        return told

    def status(self, process: int, line: str, status: str):
        """The provider reports a service status."""
        told = self.routers[process].report(LineChanged(line, at=self.clock.now(), status=status))
        if told:
            self.flagged[line] = status == "FLAGGED"
        return told

    def operate(self, process: int, line: str, verb: str):
        """The operator acts."""
        getattr(self.routers[process], verb)(line)
        self.operator[line] = verb

    def wish(self, process: int, to: str, what: str, line: str):
        """A person opts out or in, or writes."""
        router, at = self.routers[process], self.clock.now()
        self.clock.advance(1)
        if what == "out":
            router.report(OptedOut(to, at=at))
            self.out.add(to)
        elif what == "in":
            router.report(OptedIn(to, at=self.clock.now()))
            self.out.discard(to)
        else:
            router.report(Replied(line, to=to, at=self.clock.now()))
            self.out.discard(to)
            self.owner.setdefault(to, line)

    def move(self, process: int, to: str):
        """The operator moves a person."""
        router = self.routers[process]
        before = router.assignment(to)
        try:
            router.move(to)
        except (*REFUSALS, ValueError) as error:
            return type(error).__name__
        after = router.assignment(to)
        assert before.number != after.number
        self.owner[to] = after.number
        for charge in self.charges:
            if charge.to == to:
                charge.only = False
        return after.number

    def every_used(self) -> dict[str, int]:
        """The charges of the day, as a third process sees them."""
        return {view.line.number: view.used for view in self.router().lines()}


def watch(**methods):
    """A Story that also does this."""
    return type("Watch", (Story,), methods)


@SOME
@given(STORIES)
def test_invariant_01_a_new_assignment_goes_to_an_eligible_line(story):
    """Never to one that is CRITICAL or recovering, FLAGGED, paused, draining or without room, whoever learned that."""

    def reserved(self, charge):
        made, line = charge.made, charge.made.number
        if made.kind == "known":
            assert self.operator[line] != "pause"
        else:
            assert self.operator[line] == "resume"
        assert self.worst[line] is not X
        assert not self.flagged[line]
        assert self.reputation[line] is not X

    watch(reserved=reserved)().play(story)


@SOME
@given(STORIES)
def test_invariant_02_a_recipient_has_one_line(story):
    """All reservations of a recipient, in all processes, are on one line, but for recorded moves."""

    def reserved(self, charge):
        made, owner = charge.made, self.owner.get(charge.to)
        if made.kind == "moved":
            assert made.moved_from == owner != made.number
        elif made.kind == "known":
            assert made.number == owner
        else:
            assert owner is None

    run = watch(reserved=reserved)()
    run.play(story)
    for process in run.routers:
        for to in PERSONS:
            found = process.assignment(to)
            assert (found and found.number) == run.owner.get(to)


@SOME
@given(STORIES)
def test_invariant_03_a_known_recipient_never_changes_lines_silently(story):
    """Their reservation is on their line, or says where it moved from, and only for a cause the policy moves on."""

    def reserved(self, charge):
        owner, made = self.owner.get(charge.to), charge.made
        if owner is not None and made.number != owner:
            assert made.kind == "moved"
            assert made.moved_from == owner
            assert self.operator[owner] != "pause"
            view = next(v for v in self.router().lines() if v.line.number == owner)
            assert view.standing in {"flagged", "ineligible", "draining"}

    def refused(self, to, refusal):
        if to in self.owner:
            assert not isinstance(refusal, NoLine)

    watch(reserved=reserved, refused=refused)().play(story)


@FEW
@given(st.lists(CALLS, max_size=25), st.sets(st.integers(0, 24)))
def test_invariant_04_what_was_answered_survives_a_crash(story, crashes):
    """A process that vanishes without a word loses nothing: the next finds each line and each charge."""

    def crash(self):
        self.routers = [self.router(), self.router()]

    run = watch(crash=crash)()
    for n, call in enumerate(story):
        run.play([call])
        if n in crashes:
            before = run.every_used()
            run.crash()
            assert run.every_used() == before
        for to, line in run.owner.items():
            assert run.routers[0].assignment(to).number == line


@SOME
@given(STORIES)
def test_invariant_05_budgets_hold_in_every_window_and_charges_are_conserved(story):
    """No rolling day, hour or six hours has more new conversations than its limit, and used counts what is live."""
    moves: dict[str, list[float]] = defaultdict(list)

    def move(self, process, to):
        answer = Story.move(self, process, to)
        if answer in LINES:
            moves[answer].append(self.clock.now())
        return answer

    run = watch(move=move)()
    for call in story:
        run.play([call])
        times = defaultdict(list, {line: list(at) for line, at in moves.items()})
        for charge in run.charges:
            if charge.made.kind != "known":
                times[charge.made.number].append(charge.made.send_at)
        now = run.clock.now()
        used = run.every_used()
        for line in LINES:
            assert used[line] == sum(at + DAY > now for at in times[line])
            for window, limit in ((DAY, 6), (HOUR, 3), (6 * HOUR, 3)):
                for end in times[line]:
                    assert sum(end - window < at <= end for at in times[line]) <= limit


TALK = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 3), st.sampled_from([0.0, 40.0])),
        st.tuples(st.just("release"), st.integers(0, 5)),
        st.tuples(st.just("reply"), st.integers(0, 3)),
        st.tuples(st.just("wait"), st.sampled_from([1.0, 20.0, 59.0, 301.0, 20_000.0, 80_000.0])),
    ),
    max_size=60,
)


@SOME
@given(TALK, st.sampled_from([0.0, 137.0, 299.0]))
def test_invariant_05_messages_of_the_day_and_of_a_pair_s_minute_hold_too(story, offset):
    """Never more than the limit, and a message is refused at most five minutes longer than it must be."""
    clock, line = ManualClock(NOW + offset), number(0)
    rules = policy(
        limits={"messages_per_day": 10, "pair_per_minute": 3},
        pace={"message_gap": 5, "message_burst": 2},
    )
    router = Router(Account(Line(line)), policy=rules, clock=clock)
    sent: list[tuple[float, str, Reservation]] = []
    replies: list[float] = []
    for verb, *arguments in story:
        now = clock.now()
        if verb == "wait":
            clock.advance(arguments[0])
        elif verb == "reply":
            router.report(Replied(line, to=person(arguments[0]), at=now))
            replies.append(now)
        elif verb == "release" and arguments[0] < len(sent) and now - sent[arguments[0]][0] < 50:
            sent.pop(arguments[0])[2].release()
        elif verb == "send":
            to = person(arguments[0])
            try:
                made = router.reserve(to, max_delay=arguments[1])
            except (NotNow, NoLine) as refusal:
                reason = refusal.decision.reason
            else:
                reason = None
            if reason is not None:
                within = sum(at > now - DAY - 300 for at in (*replies, *(at for at, *_ in sent)))
                mine = sum(at > now - MINUTE and who == to for at, who, _ in sent)
                assert {"messages": within >= 10, "pair": mine >= 3, "pace": True}[reason]
                continue
            sent.append((made.send_at, to, made))
            for end, who, _ in sent:
                day = [at for at, _, _ in sent if end - DAY < at <= end]
                minute = [at for at, other, _ in sent if other == who and end - MINUTE < at <= end]
                assert len(day) <= 10
                assert len(minute) <= 3


BUSY = st.lists(
    st.one_of(
        st.tuples(st.just("new"), st.sampled_from([0.0, 30.0, 300.0])),
        st.tuples(st.just("known"), st.integers(1, 60)),
        st.tuples(st.just("wait"), st.sampled_from([1.0, 7.0, 20.0, 40.0, 333.0])),
    ),
    max_size=40,
)


@SOME
@given(BUSY, st.sampled_from([H, R]))
@example([("known", 60)] * 5 + [("new", 300.0), ("wait", 20.0)] * 14, H)
def test_invariant_06_new_conversations_leave_no_faster_than_the_pace(story, reputation):
    """In any interval at most burst + 1 + length / gap leave, however many replies are waiting."""
    clock, line = ManualClock(NOW), number(0)
    rules = policy(
        pace={"new_gap": 20, "new_burst": 4, "message_gap": 1, "message_burst": 20, "spread": "off"}
    )
    router = Router(Account(Line(line, reputation=reputation)), policy=rules, clock=clock)
    router.assign(person(0), line)
    leaving: list[float] = []
    for verb, value in story:
        with suppress(NoLine, NotNow):
            if verb == "wait":
                clock.advance(value)
            elif verb == "new":
                to = person(100 + len(leaving))
                leaving.append(router.reserve(to, max_delay=value).send_at)
            else:
                for _ in range(value):
                    router.reserve(person(0))
    gap, burst = (20.0, 4) if reputation is H else (40.0, 2)
    leaving.sort()
    for first, a in enumerate(leaving):
        for last, b in enumerate(leaving[first:], first):
            assert last - first + 1 <= burst + 1 + (b - a) // gap


@SOME
@given(
    st.lists(
        st.tuples(
            PROCESS,
            st.sampled_from(
                ["reserve", "send", "check", "out", "in", "reply", "stop", "refused", "release"]
            ),
            st.sampled_from(PERSONS[:2]),
            KEY,
        ),
        max_size=30,
    )
)
def test_invariant_07_nothing_goes_out_after_an_opt_out(story):
    """On no line, in no process or pool, not for a key's open reservation either, until they come back."""
    clock, store = ManualClock(NOW), MemoryStore()
    account = Account(*map(Line, LINES))
    routers = [
        Router(account, policy=policy(), store=store, clock=clock, pool=pool) for pool in "ab"
    ]
    out: set[str] = set()
    held: dict[str, Reservation] = {}

    def leaves(to):
        assert to not in out

    for which, verb, to, prefix in story:
        router, at = routers[which], clock.now()
        clock.advance(1)
        key = prefix and f"{prefix}{to}"
        with suppress(Blocked, Held, AlreadySent):
            match verb:
                case "reserve":
                    held[to] = router.reserve(to, key=key)
                    if held[to].outcome is None:  # else it tells what went out before
                        leaves(to)
                case "send":
                    router.send(to, lambda made, to=to: leaves(to), key=key)
                case "check" if to in held:
                    held[to].check()
                    if held[to].outcome is None:
                        leaves(to)
                case "release" if to in held:
                    held[to].release()
                case "refused":
                    router.reserve(to).settle("RECIPIENT_REFUSED")
                    out.add(to)
                case "out":
                    router.report(OptedOut(to, at=at))
                    out.add(to)
                case "stop":
                    router.report(Replied(LINES[0], to=to, at=at, text="STOP"))
                    out.add(to)
                case "in":
                    router.report(OptedIn(to, at=at))
                    out.discard(to)
                case "reply":
                    router.report(Replied(LINES[0], to=to, at=at, text="hello"))
                    out.discard(to)


@SOME
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["k1", "k2"]),
            st.sampled_from([*Outcome, "crash", "crash before", "lost"]),
            st.sampled_from([0.0, 5.0, 300.0]),
        ),
        max_size=25,
    )
)
def test_invariant_08_one_key_has_one_effect(tries):
    """Over retries, processes and restarts what may have gone out under a key has one id, one line, and is never sent again."""
    clock, store = ManualClock(NOW), MemoryStore()
    account = Account(*map(Line, LINES))
    went: dict[str, set[tuple[str, str]]] = defaultdict(set)
    sent: set[str] = set()

    class Crash(BaseException):
        pass

    for key, what, later in tries:
        router = Router(account, policy=policy(), store=store, clock=clock)

        def call(made, key=key, what=what):
            assert key not in sent, "a message that is known to be sent was sent again"
            if what == "crash before":
                raise Crash
            if what in {"crash", "lost", Outcome.UNKNOWN, Outcome.SENT}:
                went[key].add((made.id, made.number))
            if what == "crash":
                raise Crash
            if what == "lost":
                raise RuntimeError("no answer")
            if what is not Outcome.SENT:
                raise Told(what, retry_after=5.0)

        to = person(1 if key == "k1" else 2)
        with suppress(Crash, Told, RuntimeError, AlreadySent, *REFUSALS):
            router.send(to, call, key=key)
            sent.add(key)
        clock.advance(later)
        router.report(OptedIn(to, at=clock.now()))
        clock.advance(1)
        if len(went[key]) > 1:
            pytest.fail(f"two effects of one key: {went[key]}")


@SOME
@given(STORIES)
def test_invariant_09_every_request_is_answered(story):
    """With a reservation, or a refusal that says why and when; a refusal's moment is ahead."""

    def refused(self, to, refusal):
        assert refusal.decision.reason
        if not isinstance(refusal, Blocked):
            assert refusal.retry_at == refusal.decision.retry_at > self.clock.now()
            assert refusal.decision.outcome in {"no_line", "held", "not_now"}
        if isinstance(refusal, NoLine):
            assert all(each.excluded for each in refusal.decision.candidates)

    def reserved(self, charge):
        assert charge.made.send_at >= self.clock.now()
        assert charge.made.decision.delay == charge.made.delay >= 0

    watch(refused=refused, reserved=reserved)().play(story)


@SOME
@given(STORIES)
def test_invariant_09_asking_again_when_told_ends(story):
    """After any story, with everybody healthy, who asks at each retry_at is served."""
    run = Story()
    run.play(story)
    for line in LINES:
        run.operate(0, line, "resume")
        run.says(0, line, H)
        run.clock.advance(1)
        run.status(0, line, "ACTIVE")
    for _ in range(8):
        run.wait(TTL + 1)
    to = person(10**6 + 1)
    for _ in range(12):
        try:
            run.routers[0].reserve(to)
            break
        except REFUSALS as refusal:
            for line in LINES:
                with suppress(*REFUSALS):
                    run.routers[0].reserve(person(7_000_000), line=line).settle("SENT")
            run.clock.set(max(refusal.retry_at, run.clock.now()))
    else:
        pytest.fail("never served")


@SOME
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["NOT_SENT", "RECIPIENT_REFUSED", "RATE_LIMITED", "refused", "blocked"]
            ),
            WHO,
        ),
        max_size=12,
    )
)
def test_invariant_10_what_is_the_recipient_s_fault_costs_the_line_nothing(faults):
    """Refused and opted out recipients, rate-limited pairs and our own refusals leave each line's standing as it was."""
    clock = ManualClock(NOW)
    rules = policy(limits={"new_per_day": 50, "pair_per_minute": 100})
    router = Router(Account(*map(Line, LINES)), policy=rules, clock=clock)

    def seen():
        terms = router.preview(person(5000)).candidates
        return sorted((each.number, each.score) for each in terms), [
            (v.standing, v.budget, v.used, v.next_slot_at, v.reasons) for v in router.lines()
        ]

    for to in PERSONS:
        router.assign(to, LINES[PERSONS.index(to) % 3])
    before = seen()
    for what, to in faults:
        with suppress(*REFUSALS):
            match what:
                case "refused":
                    router.reserve(to, exclude=LINES)
                case "blocked":
                    router.report(OptedOut(to, at=NOW))
                    router.reserve(to)
                case _:
                    router.reserve(to).settle(what, retry_after=5.0)
    assert seen() == before


# Time, state, concurrency

QUIET = policy(
    limits={"new_per_day": 6, "new_per_hour": 3, "pair_per_minute": 4, "moves_per_day": 2},
    pace={"new_gap": 20, "new_burst": 2, "message_gap": 2, "message_burst": 3, "spread": 0.5},
)
"""LIVELY without the day's messages, which are counted in buckets of the clock's five minutes."""


@SOME
@given(STORIES, st.sampled_from([0.0, 12345.0, DAY / 2, 2e9]))
def test_invariant_23_all_moments_may_be_shifted(story, base):
    """The same story at another time of day, or of the century, goes the same way."""
    there, here = Story(QUIET, base=base), Story(QUIET)
    there.play(story)
    here.play(story)
    assert there.trace == here.trace


EVENTS = st.lists(
    st.tuples(
        st.integers(0, 280).map(float),
        st.sampled_from(
            [{"reputation": r} for r in Reputation] + [{"status": s} for s in ("ACTIVE", "FLAGGED")]
        ),
    ),
    min_size=1,
    max_size=6,
)


@st.composite
def orders(draw) -> tuple[list, list]:
    """Reports in one order, and each twice in another."""
    events = draw(EVENTS)
    return events, draw(st.permutations(events * 2))


CRITICAL_0, HEALTHY_1, AT_RISK_1 = (
    (at, {"reputation": reputation}) for at, reputation in ((0.0, X), (1.0, H), (1.0, R))
)


@SOME
@given(orders(), st.sampled_from(Reputation))
@example(([CRITICAL_0, HEALTHY_1, AT_RISK_1], [CRITICAL_0, AT_RISK_1, HEALTHY_1]), H)
def test_invariant_24_reports_are_a_join(both, listed):
    """Whatever their order, and however often each arrives, the lines come to stand the same."""
    line = number(0)
    answers = []
    for order in both:
        clock, store = ManualClock(NOW), MemoryStore()
        account = Account(Line(line))
        routers = [Router(account, policy=policy(), store=store, clock=clock) for _ in "ab"]
        for router in routers:
            router.lines()
        account.calls(line, listed)
        clock.advance(290)
        for n, (at, what) in enumerate(order):
            routers[n % 2].report(LineChanged(line, at=NOW + at, **what))
        seen = []
        for _ in range(5):
            views = [router.lines()[0] for router in routers]
            assert views[0] == views[1]
            seen.append((views[0].standing, views[0].reasons))
            clock.advance(TTL / 2)
        answers.append(seen)
    assert answers[0] == answers[1]


@FEW
@given(st.lists(st.sampled_from(Reputation), min_size=4, max_size=4), st.permutations([0, 1, 2, 3]))
@example([X, H, H, H], [1, 2, 3, 0])
@example([H, H, H, X], [3, 0, 1, 2])
def test_invariant_24_an_older_poll_never_replaces_a_newer_one(said, order):
    """A poll counts by the moment it was issued, whenever its answer arrives."""

    async def scene(arriving):
        clock, handle = ManualClock(NOW), open_store("memory://")
        line = Line(number(0))
        gates = [asyncio.Event() for _ in said]

        class Slow:
            def __init__(self, n):
                self.n = n

            async def fetch(self):
                await gates[self.n].wait()
                return [attrs.evolve(line, reputation=said[self.n])]

        def router(source):
            return AsyncRouter(source, policy=policy(), store=handle, clock=clock)

        await router([line]).lines()
        polls = []
        for n in range(len(said)):
            polls.append(asyncio.ensure_future(router(Slow(n)).refresh()))
            for _ in range(5):
                await asyncio.sleep(0)
            clock.advance(TTL + 1)
        for n in arriving:
            gates[n].set()
            await polls[n]
        (view,) = await router([line]).lines()
        return view.standing, view.reasons

    assert asyncio.run(scene(order)) == asyncio.run(scene(range(4)))


@SOME
@given(st.lists(st.tuples(st.integers(1, 40), st.sampled_from(Reputation)), max_size=60))
def test_invariant_25_bad_news_counts_at_once_and_good_news_later(flaps):
    """A worse word holds from the next decision; a line comes back at most once per hold, whatever is said."""
    clock, line = ManualClock(NOW), number(0)
    account = Account(Line(line))
    router = Router(account, policy=policy(), clock=clock)
    router.lines()
    eligible, returns, began = True, 0, clock.now()
    for seconds, said in flaps:
        clock.advance(seconds)
        account.calls(line, said)
        router.report(LineChanged(line, at=clock.now(), reputation=said))
        preview = router.preview(person(0))
        now_eligible = preview.outcome == "reserved"
        if said is X:
            assert not now_eligible
        if said is R and now_eligible:
            assert preview.candidates[0].terms["tier"] == 0.25
        returns += now_eligible and not eligible
        eligible = now_eligible
    assert returns <= 1 + (clock.now() - began) // TTL


@SOME
@given(
    FLEETS,
    st.lists(st.integers(1, 9000), min_size=2, max_size=8),
    st.sampled_from(["slow", "refuse"]),
)
def test_invariant_26_age_alone_only_tightens(fleet, steps, on_stale):
    """With the provider silent, no line becomes eligible and no line's tier rises."""
    router = settled(fleet)
    router.reload(policy(health={"on_stale": on_stale}))
    seen = {each.number: each for each in router.preview(person(0)).candidates}
    router._source.error = SourceError("silent")
    stale = False
    for step in steps:
        router._clock.advance(step)
        preview = router.preview(person(0))
        assert preview.outcome == "stale" or not stale
        stale = preview.outcome == "stale"
        if stale:
            continue
        fresh = {each.number: each for each in preview.candidates}
        for each, was in seen.items():
            assert was.excluded is None or fresh[each].excluded
            assert fresh[each].terms["tier"] <= was.terms["tier"]
        assert preview.outcome != "reserved" or any(s.excluded is None for s in seen.values())
        seen = fresh


async def test_invariant_27_many_readers_cause_one_request():
    """Fifty at once, some cancelled: one fetch, and the others are served."""
    started, go = asyncio.Event(), asyncio.Event()

    class Slow:
        fetches = 0

        async def fetch(self):
            self.fetches += 1
            started.set()
            await go.wait()
            return [Line(number(0)), Line(number(1))]

    source = Slow()
    router = AsyncRouter(source, policy=policy(), clock=ManualClock(NOW))
    tasks = [asyncio.ensure_future(router.reserve(person(n))) for n in range(50)]
    await started.wait()
    for task in tasks[10:30]:
        task.cancel()
    await asyncio.sleep(0)
    go.set()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert source.fetches == 1
    assert sum(isinstance(each, asyncio.CancelledError) for each in done) == 20
    assert sum(view.used for view in await router.lines()) == 30


async def test_invariant_27_a_cancelled_leader_is_replaced():
    """When the call that polls is cancelled, the next one polls, and nobody else is hurt."""
    started = asyncio.Event()

    class Slow:
        fetches = 0
        go = asyncio.Event()

        async def fetch(self):
            self.fetches += 1
            started.set()
            await self.go.wait()
            return [Line(number(0))]

    source = Slow()
    router = AsyncRouter(source, policy=policy(), clock=ManualClock(NOW))
    tasks = [asyncio.ensure_future(router.reserve(person(n))) for n in range(5)]
    await started.wait()
    tasks[0].cancel()
    source.go.set()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(done[0], asyncio.CancelledError)
    assert [each.number for each in done[1:]] == [number(0)] * 4
    assert source.fetches == 2


def test_invariant_27_threads_share_one_request():
    """Sixteen threads that find nothing kept cause one fetch."""
    barrier, fetches = threading.Barrier(16), []

    class Counting:
        def fetch(self):
            fetches.append(threading.get_ident())
            return [Line(number(0))]

    router = Router(Counting(), policy=policy(), clock=ManualClock(NOW))

    def reserve(n):
        barrier.wait()
        router.reserve(person(n))

    threads = [threading.Thread(target=reserve, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fetches) == 1
    assert router.lines()[0].used == 16


@SOME
@given(
    st.integers(0, 12),
    st.sampled_from([-1.0, -59.0, -HOUR, -DAY, -400 * DAY]),
    st.sampled_from([0.0, 50.0, 300.0]),
)
def test_invariant_28_a_clock_that_steps_back_freezes_nothing(count, jump, max_delay):
    """A line that pace alone held opens within one gap and the longest delay; nobody loses their line."""
    clock, line = ManualClock(NOW), number(0)
    rules = policy(pace={"new_gap": 20, "new_burst": 3, "spread": "off", "max_delay": 100})
    router = Router(Account(Line(line)), policy=rules, clock=clock)
    for n in range(count):
        with suppress(NoLine):
            router.reserve(person(n), max_delay=max_delay)
    owners = {n: router.assignment(person(n)) for n in range(count)}
    clock.advance(jump)
    made = router.reserve(person(100), max_delay=1000.0)
    assert made.delay <= 20 + max(100, max_delay)
    assert {n: router.assignment(person(n)) for n in range(count)} == owners


@SOME
@given(st.sampled_from([HOUR, DAY]), st.sampled_from([-HOUR, -DAY, -30 * DAY]))
def test_invariant_28_a_budget_is_not_frozen_longer_than_its_window(window, jump):
    """After a step back a spent line is out for one window at most, as if all of it had been spent just now."""
    clock, line = ManualClock(NOW), number(0)
    name = "new_per_hour" if window == HOUR else "new_per_day"
    router = Router(Account(Line(line)), policy=policy(limits={name: 2}), clock=clock)
    router.reserve(person(0))
    router.reserve(person(1))
    clock.advance(jump)
    with pytest.raises(NoLine) as caught:
        router.reserve(person(2))
    assert caught.value.retry_at <= clock.now() + window
    clock.set(caught.value.retry_at)
    router.reserve(person(2))


@SOME
@given(st.integers(0, 12), st.sampled_from([61.0, HOUR, DAY, 400 * DAY]))
def test_invariant_28_a_clock_that_steps_forward_lets_one_burst_through(count, jump):
    """At most one burst may go at once after it."""
    clock, line = ManualClock(NOW), number(0)
    rules = policy(pace={"new_gap": 20, "new_burst": 3, "spread": "off"})
    router = Router(Account(Line(line)), policy=rules, clock=clock)
    for n in range(count):
        router.reserve(person(n))
    clock.advance(jump)
    at_once = 0
    for n in range(10):
        with suppress(NoLine):
            at_once += router.reserve(person(100 + n)).delay == 0
    assert at_once <= 3 + 1


@FEW
@given(st.lists(CALLS, max_size=20), st.sets(st.integers(0, 19)))
def test_invariant_29_restarts_and_backends_make_no_difference(tmp_path_factory, story, restarts):
    """Memory without restarts and SQLite with them answer each call alike."""
    memory = Story()
    folder = tmp_path_factory.mktemp("x")
    handle = open_store(f"sqlite:///{folder}/x.db?synchronous=normal")
    sqlite = Story(store=handle)
    for n, call in enumerate(story):
        memory.play([call])
        sqlite.play([call])
        if n in restarts:
            handle.close()
            handle = open_store(f"sqlite:///{folder}/x.db?synchronous=normal")
            sqlite.store = handle
            sqlite.routers = [sqlite.router(), sqlite.router()]
            for router in sqlite.routers:
                router.lines()
            for router in memory.routers:
                router.refresh()  # a process that starts reads the list
            for charge in sqlite.charges:
                charge.made._router = sqlite.routers[0]
    assert sqlite.trace == memory.trace
    assert sqlite.every_used() == memory.every_used()
    handle.close()
    for each in Path(folder).iterdir():
        each.unlink()


@SOME
@given(STORIES)
def test_invariant_30_what_is_learned_stays_within_bounds(story):
    """A line's budget is at least 1 and at most the policy's; it falls with bad news, and a repeated word changes nothing."""
    run = Story()
    for call in story:
        before = {view.line.number: view.budget for view in run.router().lines()}
        run.play([call])
        after = {view.line.number: view.budget for view in run.router().lines()}
        assert all(1 <= budget <= 6 for budget in after.values())
        if call[0] == "says" and call[3] is not H:
            assert after[call[2]] <= before[call[2]]
        if call[0] == "says":
            stored = dict(run.store.scan(""))
            report = LineChanged(call[2], at=run.clock.now(), reputation=call[3])
            assert not run.routers[call[1]].report(report)
            assert dict(run.store.scan("")) == stored
