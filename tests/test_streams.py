"""What the provider says of its lines may come late, twice, in any order, or not at all.

    python tests/test_streams.py --streams 10000 --seed 0 --processes 2

A stream is the true history of some lines, the status events the provider sent of it, and the polls of its list. It is
played twice: *as it happened* (one router; each event at once, and once; each poll answered at once), and *as it came* (one to
three routers of either kind over one store of either kind; each event up to 300 s after its `changed_at`, up to three times,
the last half an hour later; each poll's answer up to 290 s after the poll was issued). What holds at the end:

- **Exact** streams: nothing is lost, a poll shows the truth of its moment, and the provider's clock is ours. Whenever
  everything so far has come, both stand the same, and so at the end and after every further poll (standing, and the budget,
  which tells AT_RISK and the return from CRITICAL). For the service status this needs a list that shows it. Where none does
  (Linq's), ACTIVE is confirmed by polls answered after it was heard: a line as it came is never ACTIVE where the one as it
  happened is FLAGGED, and both stand the same after the next poll that is `(confirmations - 1) * ttl` later than the report.
- **Lagging** streams: polls show what was true up to 50 s before, and the provider's clock is up to 200 s behind (with the
  delay, 300 s in all). A poll issued after bad news was *heard* may contradict it, and late news was heard later: so a line
  as it came never stands better than as it happened, and both stand the same after the next `recovery.confirmations` polls,
  `health.ttl` apart, that show the truth, if that is HEALTHY, CRITICAL or FLAGGED.
- **Lossy** streams: events and polls are lost, events come up to an hour late, polls lag, the provider's clock is behind, the
  last line is released and comes back. After the next `recovery.confirmations` polls, `health.ttl` apart, that show the truth,
  every router knows it: which lines there are, and which are HEALTHY (in use, at full weight), CRITICAL and FLAGGED. A line
  that is AT_RISK by then counts as such; it is recovering besides only if something that came called it CRITICAL: nobody can
  know what was lost. A reputation without a name counts as AT_RISK, or still as CRITICAL.

An event that was taken once is answered False when it comes again.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import Pool
from pathlib import Path
from typing import Any, Protocol

import attrs
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from linepicker import (
    AsyncRouter,
    Decision,
    Line,
    LineAssigned,
    LineChanged,
    LineReleased,
    LineView,
    Policy,
    Router,
    SourceError,
)
from linepicker.stores import Handle
from linepicker.stores import open as open_store
from linepicker.testing import ManualClock

EXAMPLES = int(os.environ.get("LINEPICKER_EXAMPLES", "60"))
NOW = 1_790_000_000.0
TTL = 60.0
LATE = 300  # seconds: what the design answers for
ANN = "+14155550100"
NUMBERS = ("+12025550000", "+12025550001", "+12025550002")
DOORS = tuple(itertools.product(("memory", "sqlite"), ("sync", "async")))


# A stream


@attrs.frozen
class Truth:
    """A line as its provider has it. *reputation* UNKNOWN: a word this library has no name for."""

    reputation: str = "HEALTHY"
    status: str = "ACTIVE"
    listed: bool = True


@attrs.frozen
class Change:
    """A line is something else from *at* on; which pairs the event tells, and how long after *at* it came each time."""

    line: int
    at: float
    truth: Truth
    told: str
    delays: tuple[float, ...]
    door: int


@attrs.frozen
class Poll:
    """A poll that *door* issued at *at*: how long its answer took, and how old it was."""

    door: int
    at: float
    took: float = 0.0
    lag: float = 0.0


@attrs.frozen
class Stream:
    """All that happened, and how it came. Moments are seconds from the start."""

    start: tuple[Truth, ...]
    changes: tuple[Change, ...]
    polls: tuple[Poll, ...]
    tail: tuple[float, ...]
    confirmations: int
    shows_status: bool
    behind: float
    lossless: bool
    store: str
    kind: str
    doors: int

    def truth(self, line: int, moment: float) -> Truth:
        """A line at a moment."""
        truths = [each.truth for each in self.changes if each.line == line and each.at <= moment]
        return truths[-1] if truths else self.start[line]

    def listed(self, moment: float) -> list[Line]:
        """The provider's list at a moment."""
        found = []
        for n in range(len(self.start)):
            truth = self.truth(n, moment)
            if truth.listed:
                status = truth.status if self.shows_status else None
                found.append(Line(NUMBERS[n], status=status, **_word(truth.reputation)))
        return found

    def event(self, n: int) -> LineChanged | LineAssigned | LineReleased:
        """What the provider sent of the n-th change."""
        change = self.changes[n]
        number, at, name = NUMBERS[change.line], NOW + change.at - self.behind, f"e{n}"
        if change.told in ("released", "assigned"):
            what = {"released": LineReleased, "assigned": LineAssigned}[change.told]
            return what(number, at=at, event_id=name)
        word = _word(change.truth.reputation) if change.told != "status" else {}
        status = change.truth.status if change.told != "reputation" else None
        return LineChanged(number, at=at, status=status, event_id=name, **word)

    @property
    def quiet(self) -> list[float]:
        """The moments at which something came and nothing more was under way; at the last one all has come."""
        spans = [(each.at, each.at + min(each.delays, default=0.0)) for each in self.changes]
        spans += [(each.at, each.at + each.took) for each in self.polls]
        ends = sorted({0.0, *(end for _, end in spans)})
        return [m for m in ends if not any(began <= m < ended for began, ended in spans)]


def _word(reputation: str) -> dict[str, Any]:
    return {"unrecognised": "SHINY"} if reputation == "UNKNOWN" else {"reputation": reputation}


REPUTATIONS = st.sampled_from(["HEALTHY"] * 4 + ["CRITICAL"] * 4 + ["AT_RISK"] * 2 + ["UNKNOWN"])
STATUSES = st.sampled_from(["ACTIVE", "FLAGGED"])
GAPS = st.one_of(st.integers(1, 15), st.sampled_from([5, 10, 20, 40, 60, 90, 200, 300]))
POLLED = st.sampled_from([0, 5, 20, 30, 30, 60, 60, 60])
TOOK = st.sampled_from([0, 0, 0, 0, 20, 61, 150, 290])


@st.composite
def streams(draw: Callable[[Any], Any], kind: str) -> Stream:
    """A stream of a kind: exact, lagging or lossy."""
    lossy, lagging = kind == "lossy", kind == "lagging"
    count = draw(st.sampled_from([1, 1, 1, 2, 3]))
    start = tuple(Truth(draw(REPUTATIONS)) for _ in range(count))
    doors = draw(st.integers(1, 3))
    behind = float(draw(st.sampled_from([0, 30, 200]))) if lossy or lagging else 0.0
    late = 3600 if lossy else LATE - int(behind)
    delay = st.one_of(st.sampled_from([0, 0, late]), st.integers(0, min(late, LATE)))
    changes: list[Change] = []

    def change(line: int, at: int, truth: Truth, told: str, first: int) -> Truth:
        again = draw(st.lists(st.integers(0, 1800), max_size=2))
        delays = tuple(float(each) for each in (first, *(first + each for each in again)))
        if lossy and draw(st.integers(0, 3)) == 0:
            delays = ()
        door = draw(st.integers(0, doors - 1))
        changes.append(Change(line, float(at), truth, told, delays, door))
        return truth

    for n in range(count):
        at, truth = 0, start[n]
        for _ in range(draw(st.integers(0, 6))):
            at += draw(GAPS)
            what = draw(st.integers(0, 9))
            told = draw(st.sampled_from(["both", "both", "pair"]))
            if lossy and what == 0 and n == count - 1 > 0:
                truth = attrs.evolve(truth, listed=not truth.listed)
                told = "assigned" if truth.listed else "released"
            elif what in (1, 2, 3):
                truth = attrs.evolve(truth, status=draw(STATUSES))
                told = told if told == "both" else "status"
            elif what in (4, 5):  # trouble so short that no poll may see it, told last
                bad = attrs.evolve(truth, reputation=draw(st.sampled_from(["CRITICAL", "AT_RISK"])))
                change(n, at, bad, "both", late)
                at += draw(st.integers(1, 10))
                truth = attrs.evolve(truth, reputation="HEALTHY")
            else:
                truth = attrs.evolve(truth, reputation=draw(REPUTATIONS))
                told = told if told == "both" else "reputation"
            change(n, at, truth, told, draw(delay))
    polls: list[Poll] = []
    free = [0.0] * doors
    at = 0
    for _ in range(draw(st.integers(0, 14))):
        at += draw(POLLED if not lossy else st.one_of(POLLED, st.integers(60, 900)))
        door, took = draw(st.integers(0, doors - 1)), float(draw(TOOK))
        lag = float(draw(st.integers(0, 50))) if lossy or lagging else 0.0
        if free[door] <= at:
            polls.append(Poll(door, float(at), took, lag))
            free[door] = at + took + 0.5
    store, door_kind = draw(st.sampled_from(DOORS))
    return Stream(
        start,
        tuple(sorted(changes, key=lambda each: each.at)),
        tuple(polls),
        tuple(float(draw(st.integers(1, 90))) for _ in range(draw(st.integers(0, 4)))),
        draw(st.sampled_from([2, 2, 2, 1, 3])),
        draw(st.booleans()) or lossy or lagging,
        behind,
        not lossy,
        store,
        door_kind,
        doors,
    )


# Routers of either kind, behind the same verbs


class Door(Protocol):
    """A router whose polls happen when they are told to, and are answered when they are told to."""

    account: Any

    def tell(self, report: Any) -> bool:
        """A report comes."""
        ...

    def poll(self, lines: list[Line]) -> None:
        """A poll that is answered at once."""
        ...

    def issue(self, lines: list[Line]) -> None:
        """A poll whose answer takes its time."""
        ...

    def answered(self) -> None:
        """The answer is there."""
        ...

    def lines(self) -> list[LineView]:
        """How the lines stand."""
        ...

    def preview(self) -> Decision:
        """How somebody new would fare."""
        ...


class Account:
    """A list that can be read only when it was told what to show; *gate*: and only when it opens."""

    def __init__(self) -> None:
        self.shows: list[Line] | None = None
        self.gate: threading.Event | None = None
        self.entered = threading.Event()

    def fetch(self) -> list[Line]:
        """What it shows, once."""
        lines, gate = self.shows, self.gate
        if lines is None:
            raise SourceError("nobody is there between polls")
        self.shows = self.gate = None
        if gate is not None:
            self.entered.set()
            assert gate.wait(60)
        return lines


class Threads:
    """A `Router`."""

    def __init__(self, threads: ThreadPoolExecutor, policy: Policy, **parts: Any) -> None:
        self.account = Account()
        self.threads = threads
        self.pending: Future[None] | None = None
        self.gate = threading.Event()
        self.router = Router(self.account, policy=policy, **parts)
        self.tell, self.lines = self.router.report, self.router.lines

    def poll(self, lines: list[Line]) -> None:
        """As `Door.poll`."""
        self.account.shows = lines
        self.router.refresh()

    def issue(self, lines: list[Line]) -> None:
        """As `Door.issue`."""
        self.gate.clear()
        self.account.entered.clear()
        self.account.shows, self.account.gate = lines, self.gate
        self.pending = self.threads.submit(self.router.refresh)
        assert self.account.entered.wait(60)

    def answered(self) -> None:
        """As `Door.answered`."""
        assert self.pending is not None
        self.gate.set()
        self.pending.result(60)

    def preview(self) -> Decision:
        """As `Door.preview`."""
        return self.router.preview(ANN)


class AsyncAccount:
    """The same for coroutines."""

    def __init__(self) -> None:
        self.shows: list[Line] | None = None
        self.gate: asyncio.Event | None = None
        self.entered = asyncio.Event()

    async def fetch(self) -> list[Line]:
        """What it shows, once."""
        lines, gate = self.shows, self.gate
        if lines is None:
            raise SourceError("nobody is there between polls")
        self.shows = self.gate = None
        if gate is not None:
            self.entered.set()
            await asyncio.wait_for(gate.wait(), 60)
        return lines


class Tasks:
    """An `AsyncRouter`."""

    def __init__(self, run: Callable[[Any], Any], policy: Policy, **parts: Any) -> None:
        self.account = AsyncAccount()
        self.run = run
        self.pending: asyncio.Task[None] | None = None
        self.gate = asyncio.Event()
        self.router = AsyncRouter(self.account, policy=policy, **parts)

    def tell(self, report: Any) -> bool:
        """As `Door.tell`."""
        return self.run(self.router.report(report))

    def poll(self, lines: list[Line]) -> None:
        """As `Door.poll`."""
        self.account.shows = lines
        self.run(self.router.refresh())

    def issue(self, lines: list[Line]) -> None:
        """As `Door.issue`."""
        self.gate.clear()
        self.account.entered.clear()
        self.account.shows, self.account.gate = lines, self.gate

        async def begin() -> None:
            self.pending = asyncio.ensure_future(self.router.refresh())
            await asyncio.wait_for(self.account.entered.wait(), 60)

        self.run(begin())

    def answered(self) -> None:
        """As `Door.answered`."""

        async def end() -> None:
            assert self.pending is not None
            self.gate.set()
            await self.pending

        self.run(end())

    def lines(self) -> list[LineView]:
        """As `Door.lines`."""
        return self.run(self.router.lines())

    def preview(self) -> Decision:
        """As `Door.preview`."""
        return self.run(self.router.preview(ANN))


NAMESPACES = itertools.count()


def opened(store: str, folder: str) -> Handle:
    """An empty store; the ones below a folder share a file."""
    if store == "memory":
        return open_store("memory://")
    name = f"s{next(NAMESPACES)}"
    return open_store(f"sqlite:///{folder}/streams.db?synchronous=normal&namespace={name}")


def rules(confirmations: int) -> Policy:
    """Budgets tell an AT_RISK line (10), one back from CRITICAL (20), both (5) and none of it (40); nothing is ever stale."""
    return Policy.from_dict(
        {
            "limits": {"new_per_day": 40, "new_per_hour": "off"},
            "recovery": {"confirmations": confirmations, "share": 0.5},
            "health": {"ttl": TTL, "max_age": 1e6, "max_age_hard": 1e6},
            "learn": {"enabled": False},
        }
    )


@contextlib.contextmanager
def routers(
    store: str, kind: str, count: int, folder: str, confirmations: int = 2
) -> Iterator[Fleet]:
    """So many of a kind over one empty store."""
    clock, policy = ManualClock(NOW), rules(confirmations)
    handle = opened(store, folder)
    parts = {"store": handle, "clock": clock}
    with contextlib.ExitStack() as stack:
        stack.callback(handle.close)
        doors: list[Door]
        if kind == "sync":
            threads = stack.enter_context(ThreadPoolExecutor(count))
            doors = [Threads(threads, policy, **parts) for _ in range(count)]
        else:
            run = stack.enter_context(asyncio.Runner()).run
            doors = [Tasks(run, policy, **parts) for _ in range(count)]
            stack.callback(lambda: run(handle.aclose()))
        yield Fleet(clock, doors, handle)


@attrs.frozen
class Fleet:
    """Routers over one store, and their clock."""

    clock: ManualClock
    doors: list[Door]
    store: Handle

    def records(self) -> dict[str, bytes]:
        """All that is remembered of lines."""
        return {key: record.value or b"" for key, record in self.store.store().scan("line/")}

    def seen(self) -> list[tuple[Any, ...]]:
        """How the lines stand; every router says the same."""
        views = [[_seen(view) for view in door.lines()] for door in self.doors]
        assert all(each == views[0] for each in views), "two routers see it differently"
        return views[0]

    def candidates(self) -> dict[str, tuple[str | None, float]]:
        """Why each line is out of the question for a new recipient, and the factor of its tier; the same by all routers."""
        found = []
        for door in self.doors:
            told = door.preview().candidates
            found.append({each.number: (each.excluded, each.terms["tier"]) for each in told})
        assert all(each == found[0] for each in found), "two routers choose differently"
        return found[0]


def _seen(view: LineView) -> tuple[Any, ...]:
    return view.line.number, view.standing, view.budget, view.remaining


# Playing a stream

Look = list[tuple[Any, ...]]
Step = tuple[float, int, Callable[[], object]]


class Play:
    """A stream, told to routers step by step."""

    def __init__(self, stream: Stream, world: Fleet, *, came: bool) -> None:
        self.stream, self.world, self.came = stream, world, came
        self.looks: list[Look] = []
        self.taken: set[int] = set()
        self.heard: list[set[str]] = [set() for _ in stream.start]
        self.steps: list[Step] = []

    def play(self) -> Play:
        """All of it; `looks` are what was seen from the moment on at which everything had come."""
        stream, doors = self.stream, self.world.doors
        for door in doors:
            self.poll(door, 0.0)
        for n, change in enumerate(stream.changes):
            for delay in change.delays if self.came else change.delays[:1] and (0.0,):
                self.add(change.at + delay, -n if self.came else n, self.tell, n)
        for poll in stream.polls:
            door, lines = doors[poll.door % len(doors)], self.shown(poll.at - poll.lag)
            if self.came and poll.took:
                self.add(poll.at, 100, door.issue, lines)
                self.add(poll.at + poll.took, 100, door.answered)
            else:
                self.add(poll.at, 100, door.poll, lines)
        at = stream.quiet[-1]
        for moment in stream.quiet if stream.lossless else ():
            self.add(
                moment, 1000, self.look
            )  # where lines come and go, each router has to poll first
        for n, gap in enumerate(stream.tail if stream.lossless else ()):
            at += gap
            self.add(at, 100, self.poll, doors[n % len(doors)], at)
            self.add(at, 1000, self.look)
        at += 1
        for _ in range(stream.confirmations):
            for door in doors:
                self.add(at, 100, self.poll, door, at)
            at += TTL
        self.add(at, 1000, self.look)
        again = [each.at + delay for each in stream.changes for delay in each.delays]
        self.add(max([at, *again]), 2000, self.look)
        for moment, _, act in sorted(self.steps, key=lambda step: step[:2]):
            self.world.clock.set(NOW + moment)
            act()
        return self

    def add(self, moment: float, order: int, act: Callable[..., object], *given: Any) -> None:
        """Do that then."""
        self.steps.append((moment, order, lambda: act(*given)))

    def tell(self, n: int) -> None:
        """The event of a change comes; what was taken before is not taken again."""
        change = self.stream.changes[n]
        door = self.world.doors[change.door % len(self.world.doors)]
        event = self.stream.event(n)
        answer = door.tell(event)
        if not isinstance(event, LineAssigned):
            assert not (answer and n in self.taken), f"a duplicate was taken: {event}"
        if isinstance(event, LineChanged):
            self.heard[change.line].add(change.truth.reputation)
        if answer:
            self.taken.add(n)

    def shown(self, moment: float) -> list[Line]:
        """The list as a poll sees it."""
        lines = self.stream.listed(moment)
        for line in lines:
            self.heard[NUMBERS.index(line.number)].add(line.reputation)
        return lines

    def poll(self, door: Door, moment: float) -> None:
        """A poll that is answered at once, with the truth."""
        door.poll(self.shown(moment))

    def look(self) -> None:
        """See how the lines stand."""
        self.looks.append(self.world.seen())

    def demand(self) -> None:
        """After the last polls, every line stands as the truth demands."""
        stream, candidates = self.stream, self.world.candidates()
        end = self.world.clock.now() - NOW
        found = {number: standing for number, standing, *_ in self.looks[-1]}
        listed = {line.number for line in stream.listed(end)}
        assert found.keys() == candidates.keys() == listed, "the list is another one"
        for n, number in enumerate(NUMBERS[: len(stream.start)]):
            if number not in listed:
                continue
            truth, standing = stream.truth(n, end), found[number]
            excluded, tier = candidates[number]
            assert (excluded or "ok") == standing
            if truth.status == "FLAGGED":
                allowed = {"flagged"}
            elif truth.reputation in ("HEALTHY", "CRITICAL"):
                allowed = {"ok" if truth.reputation == "HEALTHY" else "critical"}
            else:
                allowed = {"ok"}
                if "CRITICAL" in self.heard[n]:
                    allowed |= (
                        {"recovering"}
                        if truth.reputation == "AT_RISK"
                        else {"recovering", "critical"}
                    )
            assert standing in allowed, f"{number} is {truth} and stands {standing}"
            assert tier == (1.0 if truth.reputation == "HEALTHY" else 0.25), f"{number} is {truth}"


BADNESS = {"ok": 0, "recovering": 1, "critical": 2, "flagged": 3}


def judge(stream: Stream, kind: str, folder: str) -> None:
    """Play it, and complain of what the module's text does not allow."""
    with routers(stream.store, stream.kind, stream.doors, folder, stream.confirmations) as world:
        came = Play(stream, world, came=True).play()
        came.demand()
    if kind == "lossy":
        return
    with routers("memory", "sync", 1, folder, stream.confirmations) as world:
        happened = Play(stream, world, came=False).play()
        happened.demand()
    for n, (was, now) in enumerate(zip(happened.looks, came.looks, strict=True)):
        settled = n >= len(happened.looks) - 2
        for true, seen in zip(was, now, strict=True):
            line = NUMBERS.index(true[0])
            text = f"look {n}: as it happened {true}, as it came {seen}"
            assert BADNESS[seen[1]] >= BADNESS[true[1]], text
            if kind == "lagging":
                named = stream.truth(line, 1e9).reputation in ("HEALTHY", "CRITICAL")
                assert seen == true or not (settled and named), text
                assert seen[2] <= true[2] or not (seen[1] == true[1] == "ok"), text
            elif stream.shows_status or settled or seen[1] != "flagged":
                assert seen == true, text
            else:
                assert seen[2:] == true[2:], text


KINDS = ("exact", "lagging", "lossy")
QUICK = settings(
    max_examples=2 * EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@pytest.mark.parametrize("kind", KINDS)
def test_lines_end_as_the_provider_has_them_however_it_was_told(kind, tmp_path):
    """What the module's text says of each kind of stream holds."""

    @QUICK
    @given(streams(kind))
    def holds(stream):
        judge(stream, kind, str(tmp_path))

    holds()


# What each event and poll does


class Scene:
    """Lines of one fleet, and what is told of the first one. Moments are seconds before now."""

    def __init__(self, world: Fleet) -> None:
        self.world = world
        self.door, self.other = world.doors
        for door in world.doors:
            door.poll([Line(number) for number in NUMBERS])

    @property
    def now(self) -> float:
        """The moment."""
        return self.world.clock.now()

    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.world.clock.advance(seconds)

    def poll(self, reputation: str = "HEALTHY", status: str | None = None) -> None:
        """A poll, answered at once."""
        self.door.poll(self.list(reputation, status))

    def list(self, reputation: str = "HEALTHY", status: str | None = None) -> list[Line]:
        """What the provider's list shows."""
        first = Line(NUMBERS[0], status=status, **_word(reputation))
        return [first, *(Line(number) for number in NUMBERS[1:])]

    def event(self, reputation: str | None = None, *, ago: float = 0.0, **more: Any) -> LineChanged:
        """A status event."""
        word = {} if reputation is None else _word(reputation)
        return LineChanged(NUMBERS[0], at=self.now - ago, **word, **more)

    def tell(self, reputation: str | None = None, *, ago: float = 0.0, **more: Any) -> bool:
        """It comes."""
        return self.door.tell(self.event(reputation, ago=ago, **more))

    @property
    def standing(self) -> str:
        """How the first line stands."""
        return self.world.seen()[0][1]

    @property
    def tier(self) -> float:
        """1.0, or 0.25 where it counts as AT_RISK."""
        return self.world.candidates()[NUMBERS[0]][1]

    def unmoved(self, report: Any) -> bool:
        """Whether a report is answered False by both routers and leaves every record of a line as it is."""
        before = self.world.records()
        answers = [door.tell(report) for door in self.world.doors]
        return answers == [False, False] and self.world.records() == before


@pytest.fixture(params=DOORS, ids="-".join)
def scene(request, tmp_path):
    """Two routers of a kind over a store of a kind, which know three healthy lines."""
    with routers(*request.param, 2, str(tmp_path)) as world:
        yield Scene(world)


@pytest.mark.parametrize("said", ["CRITICAL", "AT_RISK", "UNKNOWN"])
def test_bad_news_older_than_five_minutes_is_out_of_date_once_a_poll_says_better(scene, said):
    """It is answered False and changes nothing; a second younger, it counts."""
    scene.wait(1000)
    scene.poll()
    assert scene.unmoved(scene.event(said, ago=301))
    assert scene.standing == "ok"
    assert scene.tell(said, ago=300)
    assert (scene.standing, scene.tier) == ("critical" if said == "CRITICAL" else "ok", 0.25)


def test_flagged_older_than_five_minutes_is_out_of_date_once_a_list_says_active(scene):
    """As with the reputation; both halves of an old event are refused together."""
    scene.wait(1000)
    scene.poll(status="ACTIVE")
    assert scene.unmoved(scene.event("CRITICAL", ago=301, status="FLAGGED"))
    assert scene.tell(ago=300, status="FLAGGED")
    assert scene.standing == "flagged"


def test_bad_news_of_any_age_counts_where_no_poll_says_better(scene):
    """The list was not read since."""
    scene.wait(5000)
    assert scene.tell("CRITICAL", ago=4000)
    assert scene.standing == "critical"


def test_good_news_older_than_the_bad_is_out_of_date(scene):
    """Whether an event or a poll brought the bad news."""
    scene.wait(100)
    assert scene.tell("CRITICAL", ago=10)
    assert scene.unmoved(scene.event("HEALTHY", ago=11))
    scene.wait(100)
    scene.poll("CRITICAL")
    assert scene.unmoved(scene.event("HEALTHY", ago=1))
    assert scene.standing == "critical"


@pytest.mark.parametrize("late", [0, 10])
def test_what_is_out_of_date_by_a_poll_counts_for_nothing_though_it_came_first(scene, late):
    """By good news a poll that was issued before the bad would outlast it: what a CRITICAL poll overtook does no such thing."""
    critical = scene.list("CRITICAL")
    scene.wait(1000)
    bad = scene.event("CRITICAL", ago=30)
    good = scene.event("HEALTHY", ago=29)
    scene.door.issue(critical)
    if not late:
        scene.door.answered()
        assert not scene.door.tell(good)
    scene.wait(5)
    scene.other.poll(scene.list())
    scene.wait(TTL)
    scene.other.poll(scene.list())
    if late:
        assert scene.door.tell(good)
        scene.door.answered()
    scene.wait(10)
    assert scene.door.tell(bad)
    assert scene.standing == "critical"


def test_a_poll_issued_before_the_bad_news_never_contradicts_it(scene):
    """However many answers are still under way when it comes, a line comes back with polls issued after it alone."""
    healthy = scene.list()
    scene.wait(10)
    scene.other.issue(healthy)
    scene.wait(61)
    scene.door.issue(healthy)
    scene.wait(1)
    assert scene.other.tell(scene.event("CRITICAL"))
    scene.wait(100)
    for door in (scene.door, scene.other):
        door.answered()
        assert scene.standing == "critical"
    scene.poll()
    scene.wait(TTL - 1)
    scene.poll()
    assert scene.standing == "critical"
    scene.wait(1)
    scene.poll()
    assert scene.standing == "ok"


@pytest.mark.parametrize("how", ["its answer took so long", "only a preview had seen it"])
def test_a_poll_that_is_written_after_six_minutes_revives_nothing(scene, how):
    """What others saw meanwhile stays later than it."""
    scene.wait(TTL + 1)
    if how.startswith("its"):
        scene.other.issue(scene.list())
    else:
        scene.other.account.shows = scene.list()
        scene.other.preview()
    for seconds in (60, 60, 60, 60, 55):
        scene.wait(seconds)
        scene.poll()
    scene.wait(30)
    scene.poll("CRITICAL")
    scene.wait(30)
    if how.startswith("its"):
        scene.other.answered()
    else:
        assert scene.other.tell(LineAssigned("+12025559999", at=scene.now))
    assert scene.standing == "critical"
    scene.wait(1)
    scene.poll()
    assert scene.standing in {"critical", "recovering"}


def test_polls_that_repeated_what_is_known_count_when_bad_news_comes_late_and_is_over(scene):
    """They wrote nothing of the line at their time."""
    scene.wait(100)
    worse = scene.event("CRITICAL")
    scene.wait(10)
    assert scene.tell("HEALTHY")
    before = scene.world.records()
    for seconds in (30, 60, 60):
        scene.wait(seconds)
        scene.poll()
    assert scene.world.records() == before
    scene.wait(10)
    assert scene.door.tell(worse)
    assert scene.standing == "ok"


def test_a_list_without_status_confirms_active_only_if_it_was_read_after_that_was_heard(scene):
    """An answer that was under way meanwhile says nothing."""
    scene.wait(100)
    assert scene.tell(status="FLAGGED")
    scene.wait(1)
    scene.other.issue(scene.list())
    scene.wait(TTL)
    assert scene.tell(status="ACTIVE")
    scene.wait(1)
    scene.other.answered()
    scene.wait(TTL - 2)
    scene.poll()
    assert scene.standing == "flagged"
    scene.wait(1)
    scene.poll()
    assert scene.standing == "ok"


def test_active_lists_count_whenever_the_answer_flagged_arrives(scene):
    """Those that were issued later and wrote nothing are remembered."""
    scene.wait(100)
    scene.poll(status="ACTIVE")
    scene.wait(1)
    scene.other.issue(scene.list(status="FLAGGED"))
    for _ in range(2):
        scene.wait(TTL)
        scene.poll(status="ACTIVE")
    scene.other.answered()
    assert scene.standing == "ok"


def test_polls_issued_before_late_bad_news_was_heard_do_not_contradict_it(scene):
    """The provider's clock may be behind: only a poll issued after it was received says better."""
    for _ in range(4):
        scene.wait(60)
        scene.poll()
    assert scene.tell("CRITICAL", ago=200)
    assert scene.standing == "critical"
    for _ in range(2):
        scene.wait(60)
        scene.poll()
    assert scene.standing == "ok"


@pytest.mark.parametrize(
    "what",
    [
        {"reputation": "CRITICAL", "status": "FLAGGED"},
        {"reputation": "CRITICAL"},
        {"status": "FLAGGED"},
        {"unrecognised": "SHINY"},
        {"reputation": "HEALTHY", "status": "ACTIVE"},
    ],
    ids=str,
)
def test_a_duplicate_is_false_and_changes_nothing(scene, what):
    """At once, minutes later and half an hour later; through the same router and through another."""
    scene.wait(100)
    event = LineChanged(NUMBERS[0], at=scene.now - 5, event_id="e1", **what)
    assert scene.door.tell(event)
    for seconds in (0, 1, TTL, 300, 1800):
        scene.wait(seconds)
        assert scene.unmoved(event)
        assert scene.unmoved(attrs.evolve(event, event_id="e2"))


def test_an_event_from_a_fast_clock_that_comes_again_confirms_nothing(scene):
    """It counts for the moment it was first heard, however far ahead of that it is dated."""
    scene.wait(100)
    assert scene.tell("CRITICAL")
    scene.wait(1)
    healthy = scene.event("HEALTHY", ago=-200)
    assert scene.door.tell(healthy)
    for _ in range(10):
        scene.wait(30)
        assert scene.unmoved(healthy)
        assert scene.standing != "ok"
    assert scene.tell("HEALTHY", ago=-200)
    assert scene.standing == "ok"


def test_good_news_twice_confirms_nothing(scene):
    """One event that came again and again is one observation; the next one, the hold later, confirms it."""
    scene.wait(100)
    assert scene.tell("CRITICAL")
    scene.wait(1)
    healthy = scene.event("HEALTHY")
    assert scene.door.tell(healthy)
    for _ in range(10):
        scene.wait(20)
        assert scene.unmoved(healthy)
        assert scene.standing in {"recovering", "critical"}
    assert scene.tell("HEALTHY")
    assert scene.standing == "ok"


def test_two_routers_that_poll_at_one_moment_confirm_nothing(scene):
    """What both saw is one observation."""
    scene.wait(100)
    scene.poll("CRITICAL")
    scene.wait(10)
    for door in scene.world.doors:
        door.poll(scene.list())
    assert scene.standing == "critical"
    scene.wait(TTL)
    scene.poll()
    assert scene.standing == "ok"


def test_both_pairs_of_an_event_are_applied(scene):
    """The line stays out until both are better."""
    scene.wait(100)
    assert scene.tell("CRITICAL", status="FLAGGED")
    assert scene.standing == "flagged"
    for _ in range(3):
        scene.wait(TTL)
        assert scene.tell(status="ACTIVE")
    assert scene.standing == "critical"
    for _ in range(2):
        scene.wait(TTL)
        assert scene.tell("HEALTHY", status="ACTIVE")
    assert scene.standing == "ok"


@pytest.mark.parametrize("pair", ["reputation", "status"])
def test_an_event_that_lacks_a_pair_says_nothing_of_it(scene, pair):
    """What was known of the other one stays."""
    scene.wait(100)
    assert scene.tell("CRITICAL", status="FLAGGED")
    for _ in range(3):
        scene.wait(TTL)
        good = {"reputation": "HEALTHY", "status": "ACTIVE"}
        assert scene.tell(**{pair: good[pair]})
    assert scene.standing == ("flagged" if pair == "reputation" else "critical")


def test_an_event_without_either_pair_changes_nothing(scene):
    """There is nothing in it."""
    scene.wait(100)
    assert scene.unmoved(scene.event())


@pytest.mark.parametrize(
    ("was", "standing"), [("HEALTHY", "ok"), ("AT_RISK", "ok"), ("CRITICAL", "critical")]
)
def test_a_reputation_without_a_name_keeps_the_last_one_but_at_most_at_risk(scene, was, standing):
    """However often an event or a poll repeats it; it ends when HEALTHY is seen and confirmed."""
    scene.wait(100)
    scene.poll(was)
    for _ in range(3):
        scene.wait(TTL)
        assert scene.tell("UNKNOWN")
        assert (scene.standing, scene.tier) == (standing, 0.25)
        scene.poll("UNKNOWN")
        assert (scene.standing, scene.tier) == (standing, 0.25)
    for _ in range(2):
        scene.wait(TTL)
        assert (scene.standing, scene.tier) == (standing, 0.25)
        scene.poll()
    assert (scene.standing, scene.tier) == ("ok", 1.0)


def test_a_released_line_is_out_until_a_later_list_has_it(scene):
    """A poll issued before the release was heard does not bring it back; a release older than five minutes is out of date."""
    scene.wait(100)
    lines = scene.list()
    scene.door.issue(lines)
    scene.wait(1)
    released = LineReleased(NUMBERS[0], at=scene.now, event_id="e1")
    assert scene.other.tell(released)
    assert scene.unmoved(released)
    scene.wait(1)
    scene.door.answered()
    assert scene.standing == "not_in_fleet"
    scene.wait(1)
    scene.poll()
    scene.other.poll(lines)
    assert scene.standing == "ok"
    for seconds in (0, 1, 400, 1800):
        scene.wait(seconds)
        assert scene.unmoved(released)
        scene.poll()
        scene.other.poll(lines)
    assert scene.unmoved(LineReleased(NUMBERS[0], at=scene.now - 301, event_id="e2"))


def test_a_release_that_a_later_one_had_overtaken_is_known_when_it_comes_again(scene):
    """It changed nothing the first time; a list that ends the later one does not make it news."""
    scene.wait(100)
    first = LineReleased(NUMBERS[0], at=scene.now - 2, event_id="e1")
    assert scene.door.tell(LineReleased(NUMBERS[0], at=scene.now, event_id="e2"))
    assert not scene.door.tell(first)
    scene.wait(1)
    scene.poll()
    assert scene.standing == "ok"
    assert scene.unmoved(first)


def test_an_assigned_line_is_not_believed_before_a_list_has_it(scene):
    """The event alone changes no record."""
    before = scene.world.records()
    assert scene.door.tell(LineAssigned("+12025559999", at=scene.now))
    assert scene.world.records() == before
    assert len(scene.world.seen()) == len(NUMBERS)


# The streams find what a tired developer might do

FAULTS = {
    "an old poll revives a line": (
        "_observations.py",
        "since.extend(moment for moment in moments if moment > after_poll)",
        "since.extend(moments)",
    ),
    "a poll counts from its answer on": (
        "router.py",
        "limited=desk.takes_limits), issued)",
        "limited=desk.takes_limits), self._clock.now())",
    ),
    "a duplicate confirms": (
        "_observations.py",
        "if at in known:\n            return None",
        "if at in known:\n            at = received",
    ),
    "an event counts from its receipt on": (
        "_observations.py",
        "(min(at, heard), heard) for at, heard in pairs",
        "(heard, heard) for at, heard in pairs",
    ),
    "late bad news outlasts the good that followed it": (
        "_observations.py",
        "min(received, at + DRIFT, ended)",
        "min(received, at + DRIFT)",
    ),
    "polls that wrote nothing never were": (
        "_observations.py",
        "if last is None or not polls or polls[-1] <= last[1]:",
        "if True:",
    ),
    "only one pair of an event is read": (
        "_upkeep.py",
        "if report.status is not None:",
        "if report.status is not None and said is None:",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault, tmp_path):
    """Some hundred streams find it in a copy of the library."""
    name, old, new = FAULTS[fault]
    library = Path(__file__).parent.parent / "linepicker"
    shutil.copytree(library, tmp_path / "linepicker", ignore=shutil.ignore_patterns("__pycache__"))
    file = tmp_path / "linepicker" / name
    source = file.read_text(encoding="utf-8")
    assert source.count(old) == 1, f"{name} has changed: plant it anew"
    file.write_text(source.replace(old, new), encoding="utf-8")
    verdict = subprocess.run(
        [sys.executable, __file__, "--streams=2000", "--seed=1000", "--first"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert verdict.returncode == 1, verdict.stdout + verdict.stderr
    assert " 1 violations" in verdict.stdout


# The command line


def judged(task: tuple[str, int, int, bool]) -> tuple[int, str]:
    """So many streams of a kind: how many were played, and what was wrong."""
    kind, count, number, first = task
    logging.disable()
    played = 0
    phases = [Phase.generate] if first else [Phase.generate, Phase.shrink]

    @seeded(number)
    @settings(
        QUICK,
        max_examples=count,
        database=None,
        phases=phases,
        suppress_health_check=list(HealthCheck),
    )
    @given(streams(kind))
    def holds(stream):
        nonlocal played
        played += 1
        judge(stream, kind, folder)

    with tempfile.TemporaryDirectory() as folder:
        try:
            holds()
        except Exception as error:  # noqa: BLE001  whatever it is, a stream must not cause it
            notes = "\n".join(getattr(error, "__notes__", ()))
            return played, f"{kind} {number}: {type(error).__name__}: {error}\n{notes}"
    return played, ""


def main() -> int:
    """Half of the streams are exact; a quarter each have polls that lag, and losses."""
    parser = argparse.ArgumentParser(description="Tell routers of lines late, twice, in any order.")
    parser.add_argument("--streams", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--kinds", nargs="+", default=("exact", *KINDS), choices=KINDS)
    parser.add_argument("--first", action="store_true", help="do not look for a smaller stream")
    given_ = parser.parse_args()
    began, batch = time.monotonic(), 100
    tasks = [
        (given_.kinds[n % len(given_.kinds)], batch, given_.seed + n, given_.first)
        for n in range(-(-given_.streams // batch))
    ]
    done, wrong = 0, []
    with Pool(given_.processes) as pool:
        for played, what in pool.imap(judged, tasks):
            done += played
            wrong += [what] if what else []
            if wrong and given_.first:
                break
    for each in wrong:
        print(each)  # noqa: T201  a command prints
    print(  # noqa: T201
        f"{done} streams from seed {given_.seed} on, {len(wrong)} violations, "
        f"{time.monotonic() - began:.0f} s"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
