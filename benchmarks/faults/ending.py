"""How a story ends well: the faults are over, calls end, and whoever may be served is served."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from benchmarks.faults.deployment import REFUSALS, Faults, Process, World
from benchmarks.faults.written import Violation
from linepicker import Blocked, ChatHealthChanged, LineChanged, OptedIn, Replied
from linepicker import _upkeep as upkeep
from linepicker._polls import refresh_now

TRIES: Final = 25
STRANGER: Final = "+14165550001"


def end_well(world: World, people: Sequence[Any], now: float) -> None:
    """Let the faults be over at *now*, which is later than all there was. Raises Violation."""
    provider = world.provider
    world.dice.seed(7)
    world.faults, world.wrong, world.now = Faults(), None, now
    for process in world.processes:
        shown = now + max(0.0, process.skew)
        process.stepped_at, process.skew = max(process.stepped_at, shown), 0.0
    provider.mode, provider.flagged, provider.refusing = "ok", set(), set()
    provider.opted_out.clear()
    provider.listed = set(provider.names)
    _finish(world)
    for turn in range(7):
        world.now += 301.0
        if turn == 2:  # a second list was needed for all lines to be there: now they are heard of
            for number in provider.names:
                provider.reputation[number] = "HEALTHY"
                world.emit(LineChanged(number, reputation="HEALTHY", status="ACTIVE", at=world.now))
                _finish(world)
        for process in world.processes:
            task = world.begin(process, "refresh")
            task.flow = refresh_now(process.desk.fleet, world.now)
            _finish(world)
    for number in provider.names:
        task = world.begin(world.processes[0], "operate")
        task.flow = upkeep.operate(task.process.desk.fleet, number, "", "", world.now)
    _finish(world)
    for process in world.processes:
        for to in (*people[:3], STRANGER):
            for report in (
                OptedIn(to, at=world.now),
                ChatHealthChanged(to, "HEALTHY", at=world.now),
            ):
                task = world.begin(process, "report", report=report)
                world.ledger.reporting(report)
                task.flow = process.desk.report(report, world.now)
    _finish(world)
    world.ledger.audit()
    for process in world.processes:
        world.ledger.must(not process.desk.fleet.debts, "what went out in an outage is not charged")
    for n, to in enumerate([*people[:3], STRANGER]):
        _served(world, world.processes[n % len(world.processes)], to)
    world.ledger.audit()


def _answers(world: World, process: Process, to: Any) -> None:
    """They write, which ends what waits for an answer."""
    owner = world.ledger.owners.get(f"to/{process.pool}/{to}")
    if owner is not None:
        report = Replied(owner.number, to, text="hello", at=world.now, event_id=world.new_id())
        task = world.begin(process, "report", report=report)
        world.ledger.reporting(report)
        task.flow = process.desk.report(report, world.now)
        _finish(world)


def _served(world: World, process: Process, to: Any) -> None:
    _answers(world, process, to)
    error: Any = None
    for _ in range(TRIES):
        task = world.begin(process, "reserve", message=f"end {to}")
        desk = process.desk
        task.flow = desk.reserve(
            desk.who(to),
            desk.request(None, None, (), (), None, None, False, False, None),
            world.now,
            world.new_id(),
            key=None,
            begun=task.begun,
        )
        _finish(world)
        error = task.error
        if error is None:
            return
        if not isinstance(error, REFUSALS) or isinstance(error, Blocked):
            break
        world.now = max(world.now, error.retry_at)
    raise Violation(f"{to} is never served: {type(error).__name__} {error}")


def _finish(world: World) -> None:
    """Let all calls come to their end, and all webhooks arrive."""
    for _ in range(2_000):
        if not world.go_on(200):
            continue
        later = world.next_moment()
        if later is None:
            world.ledger.must(not world.tasks, "calls wait for each other")
            return
        world.now = max(world.now, later)
    raise Violation("calls go on for ever")
