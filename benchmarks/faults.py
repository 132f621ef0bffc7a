"""Deployments with every fault that was thought of, in one thread under one clock: does any order of events break a promise?

    python -m benchmarks.faults --seeds 1000 --seed 0 --processes 2

A seed is a story of so many steps: calls of several routers over one store, crashes between any two of their questions, the
store out before or after it has written, lists that fail, shrink or lie, webhooks lost, late, doubled and out of order, sends
that time out, clocks that step, policies that are swapped. After every step the promises of `benchmarks.ledger` hold; in the
end, with the faults over, whoever may be served is served. A seed replays identically (its trace has a hash); the story of one
that fails is made as short as it gets while it still fails.

Each step has a seed of its own, so that a story without some of its steps is still the same story.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing import Pool
from typing import Any, Final

import attrs

from benchmarks.deployment import DAY, REFUSALS, Faults, Process, Task, World
from benchmarks.ledger import UNDONE, Violation
from linepicker import (
    AlreadySent,
    Blocked,
    LineAssigned,
    LineChanged,
    LineReleased,
    OptedIn,
    OptedOut,
    Outcome,
    Policy,
    Replied,
    Verdict,
)
from linepicker import _upkeep as upkeep
from linepicker._asks import Made
from linepicker._flow import check
from linepicker._move import move
from linepicker._polls import ready, refresh_now
from linepicker._send import send
from linepicker._settle import settle_once

STEPS: Final = 400
TRIES: Final = 25


@attrs.frozen
class Step:
    """One thing that happens, with the chance that belongs to it."""

    kind: str
    seed: int


@attrs.frozen
class Verdicts:
    """What a seed came to. `steps`: what is left of its story, if it failed."""

    seed: int
    decisions: int
    reserved: int
    trace: str
    violation: str = ""
    steps: tuple[Step, ...] = ()


class Story:
    """One seed's deployment, and what happens to it."""

    def __init__(self, seed: int) -> None:
        dice = random.Random(seed)
        self.people = [f"+1415555{n:04d}" for n in range(dice.choice((6, 20, 40)))]
        self.policies = [_policy(dice) for _ in range(2)]
        self.world = World(
            dice, self.policies[0], processes=dice.randint(1, 4), lines=dice.randint(1, 5)
        )
        self.fearful = Faults(
            *(dice.choice((0.0, 0.01, 0.05)) for _ in range(3)),
            *(dice.choice((0.0, 0.1, 0.3)) for _ in range(4)),
        )
        self.world.faults = self.fearful
        self.open: list[tuple[Process, Made]] = []
        self.unsure: list[tuple[str, str]] = []
        self.messages = 0
        self.latest = 0.0

    def tell(self, steps: Sequence[Step]) -> None:
        """Let it all happen, and end well. Raises Violation."""
        for step in steps:
            self.world.dice.seed(step.seed)
            getattr(self, f"_{step.kind}")(random.Random(step.seed))
            self._go_on(random.Random(step.seed ^ 1).choice((1, 3, 10, 30)))
            self.latest = max(self.latest, self.world.now)
        self._end_well()

    def _go_on(self, most: int) -> None:
        world = self.world
        for _ in range(most):
            world.deliver()
            if not world.step():
                break

    # What happens

    def _begin(self, dice: random.Random, what: str, **more: Any) -> Task:
        process = more.pop("process", None) or dice.choice(self.world.processes)
        return self.world.begin(process, what, **more)

    def _asked(self, dice: random.Random, process: Process, to: str) -> Any:
        more: dict[str, Any] = {}
        if dice.random() < 0.2:
            more["max_delay"] = dice.choice((0.0, 10.0, 1000.0))
        if dice.random() < 0.1:
            more["override"] = True
        who = process.desk.who(to)
        request = process.desk.request(
            None,
            None,
            (),
            (),
            None,
            more.get("max_delay"),
            False,
            more.get("override", False),
            None,
        )
        return who, request

    def _reserve(self, dice: random.Random) -> None:
        """Somebody is reserved for, and settled later or never."""
        task = self._begin(dice, "reserve", message=f"r{self.messages}")
        self.messages += 1
        process, world = task.process, self.world
        who, request = self._asked(dice, process, dice.choice(self.people))

        def flow() -> Any:
            made = yield from process.desk.reserve(
                who, request, world.now, world.new_id(), key=None, begun=task.begun
            )
            self.open.append((process, made))
            return made

        task.flow = flow()

    def _send(self, dice: random.Random) -> None:
        """The whole story of one message; some have a key, under which another process may try again."""
        key, to = None, dice.choice(self.people)
        if self.unsure and dice.random() < 0.5:
            key, to = self.unsure.pop(dice.randrange(len(self.unsure)))
        elif dice.random() < 0.5:
            key = f"key-{self.messages}"
            self.unsure.append((key, to))
        message = key or f"s{self.messages}"
        self.messages += 1
        task = self._begin(dice, "send", message=message)
        process, world = task.process, self.world
        who, request = self._asked(dice, process, to)

        def reserving(*args: Any, **more: Any) -> Any:
            return process.desk.reserve(*args, **{**more, "begun": task.begun})

        task.flow = send(
            process.desk.fleet,
            request,
            who,
            world.now,
            reserving=reserving,
            key=key,
            max_wait=dice.choice((None, None, 100.0)),
        )

    def _settle(self, dice: random.Random) -> None:
        """What was reserved is settled, checked, or given back."""
        if not self.open:
            return
        process, made = self.open.pop(dice.randrange(len(self.open)))
        if process.desk.fleet.flight is not process.flight:
            return  # its process is gone: never settled
        task = self._begin(dice, "settle", process=process, made=made)
        now = self.world.now
        if dice.random() < 0.2:
            task.flow = check(process.desk.fleet, made, now)
            self.open.append((process, made))
            return
        outcome = dice.choice((*Outcome, Outcome.SENT, Outcome.NOT_SENT))
        verdict = Verdict(outcome, retry_after=dice.choice((None, 30.0, 600.0)))
        if outcome in UNDONE or outcome is Outcome.RATE_LIMITED:
            verdict = attrs.evolve(verdict, retry_after=dice.choice((None, 30.0, 600.0)))
        task.flow = settle_once(process.desk.fleet, made, verdict, now)

    def _wait(self, dice: random.Random) -> None:
        """Time passes."""
        self.world.now += dice.choice((0.5, 5.0, 30.0, 61.0, 300.0, 1200.0, 4000.0, 30000.0))

    def _turn(self, dice: random.Random) -> None:
        """The provider thinks otherwise of a line."""
        world, provider = self.world, self.world.provider
        number = dice.choice(provider.names)
        value = dice.choice(("HEALTHY", "HEALTHY", "AT_RISK", "CRITICAL"))
        provider.reputation[number] = value
        world.emit(LineChanged(number, reputation=value, at=world.now, event_id=world.new_id()))

    def _flag(self, dice: random.Random) -> None:
        """A line is flagged, or is not any more."""
        world, provider = self.world, self.world.provider
        number = dice.choice(provider.names)
        flagged = number not in provider.flagged
        (provider.flagged.add if flagged else provider.flagged.discard)(number)
        status = "FLAGGED" if flagged else "ACTIVE"
        world.emit(LineChanged(number, status=status, at=world.now, event_id=world.new_id()))

    def _refuse(self, dice: random.Random) -> None:
        """A line can't send, or can again, and nobody says so."""
        provider = self.world.provider
        provider.refusing ^= {dice.choice(provider.names)}

    def _release(self, dice: random.Random) -> None:
        """A line leaves the account, or joins it."""
        world, provider = self.world, self.world.provider
        number = dice.choice(provider.names)
        provider.listed ^= {number}
        kind = LineAssigned if number in provider.listed else LineReleased
        world.emit(kind(number, at=world.now, event_id=world.new_id()))

    def _list(self, dice: random.Random) -> None:
        """The list's endpoint behaves otherwise."""
        modes = ("ok", "ok", "ok", "error", "empty", "half", "limited", "forbidden")
        self.world.provider.mode = dice.choice(modes)

    def _reply(self, dice: random.Random) -> None:
        """Somebody writes, perhaps STOP."""
        world, to = self.world, dice.choice(self.people)
        owner = world.ledger.owners.get(to)
        number = owner.number if owner is not None else dice.choice(world.provider.names)
        text = dice.choice(("hello", "ok", "STOP"))
        if text == "STOP":
            world.provider.opted_out.add(to)
        else:
            world.provider.opted_out.discard(to)
        world.emit(Replied(number, to, text=text, at=world.now, event_id=world.new_id()))

    def _opt(self, dice: random.Random) -> None:
        """Somebody opts out or in by another way."""
        world, to = self.world, dice.choice(self.people)
        out = dice.random() < 0.5
        (world.provider.opted_out.add if out else world.provider.opted_out.discard)(to)
        world.emit((OptedOut if out else OptedIn)(to, at=world.now, event_id=world.new_id()))

    def _operate(self, dice: random.Random) -> None:
        """The operator pauses, drains or resumes a line."""
        state = dice.choice(("paused", "draining", "resumed"))
        number = dice.choice(self.world.provider.names)
        task = self._begin(dice, state, number=number)

        def flow() -> Any:
            word = "" if state == "resumed" else state
            try:
                yield from upkeep.operate(
                    task.process.desk.fleet, number, word, "because", self.world.now
                )
            except ValueError:
                return  # not a line of the fleet

        task.flow = flow()

    def _move(self, dice: random.Random) -> None:
        """The operator moves somebody."""
        to = dice.choice(self.people)
        task = self._begin(dice, "move")
        desk, world = task.process.desk, self.world
        who = desk.who(to)
        request = desk.request(None, None, (), (), None, None, False, False, None)

        def flow() -> Any:
            try:
                yield from move(desk.fleet, request, who, world.now, world.new_id())
            except ValueError:
                return  # they have no line

        task.flow = flow()

    def _refresh(self, dice: random.Random) -> None:
        """Somebody reads the list, or keeps it fresh."""
        task = self._begin(dice, "refresh")
        fleet = task.process.desk.fleet
        if dice.random() < 0.5:
            task.flow = refresh_now(fleet, self.world.now)
        else:
            task.flow = ready(fleet, self.world.now)

    def _crash(self, dice: random.Random) -> None:
        """A process is killed between two questions."""
        process = dice.choice(self.world.processes)
        self.open = [each for each in self.open if each[0] is not process]
        self.world.crash(process)

    def _reload(self, dice: random.Random) -> None:
        """A process gets the other policy."""
        process = dice.choice(self.world.processes)
        process.policy = dice.choice(self.policies)
        process.desk.reload(process.policy)

    def _step_clock(self, dice: random.Random) -> None:
        """The clock steps, and with it every process's."""
        world = self.world
        self.latest = max(self.latest, world.now)
        step = dice.choice((-DAY, -3600.0, -30.0, 3600.0, DAY))
        world.now += step
        if step < 0:
            for task in world.tasks:
                task.wake_at = min(task.wake_at, world.now + 30.0)
            for event in world.events:
                event.at = min(event.at, world.now + 30.0)
            world.ledger.stepped(world.now)

    def _storm(self, dice: random.Random) -> None:
        """The store is out for a while, or back."""
        out = self.world.faults.store_before < 1.0 and dice.random() < 0.5
        self.world.faults = attrs.evolve(
            self.fearful, store_before=1.0 if out else self.fearful.store_before
        )

    # The end

    def _end_well(self) -> None:
        """The faults are over: calls end, and whoever may be served is served."""
        world, provider = self.world, self.world.provider
        world.dice.seed(7)
        world.faults = Faults()
        world.now = self.latest = (
            max(self.latest, world.now) + 1.0
        )  # what a step back left behind is over
        provider.mode, provider.flagged, provider.refusing = "ok", set(), set()
        provider.opted_out.clear()
        provider.listed = set(provider.names)
        self._finish()
        for number in provider.names:
            provider.reputation[number] = "HEALTHY"
            world.emit(LineChanged(number, reputation="HEALTHY", status="ACTIVE", at=world.now))
        self._finish()
        for _ in range(4):
            world.now += 301.0
            for process in world.processes:
                world.begin(process, "refresh").flow = refresh_now(process.desk.fleet, world.now)
                self._finish()
        for number in provider.names:
            task = world.begin(world.processes[0], "resumed", number=number)
            task.flow = upkeep.operate(task.process.desk.fleet, number, "", "", world.now)
        self._finish()
        for to in self.people:
            task = world.begin(world.processes[0], "report", report=OptedIn(to, at=world.now))
            world.ledger.reporting(task, world.now)
            assert task.report is not None
            task.flow = task.process.desk.report(task.report, world.now)
        self._finish()
        world.ledger.audit(world.now)
        for n, to in enumerate([*self.people[:3], "+14165550001"]):
            self._served(world.processes[n % len(world.processes)], to)
        world.ledger.audit(world.now)

    def _served(self, process: Process, to: str) -> None:
        world = self.world
        error: Any = None
        for _ in range(TRIES):
            task = world.begin(process, "reserve", message=f"end {to}")
            task.flow = process.desk.reserve(
                process.desk.who(to),
                process.desk.request(None, None, (), (), None, None, False, False, None),
                world.now,
                world.new_id(),
                key=None,
                begun=task.begun,
            )
            self._finish()
            error = task.error
            if error is None:
                return
            if not isinstance(error, REFUSALS) or isinstance(error, Blocked):
                break
            world.now = max(world.now, error.retry_at)
        raise Violation(f"{to} is never served: {type(error).__name__} {error}")

    def _finish(self) -> None:
        world = self.world
        for _ in range(20_000):
            world.deliver()
            if world.step():
                continue
            moments = [task.wake_at for task in world.tasks] + [event.at for event in world.events]
            later = [moment for moment in moments if moment > world.now]
            if not later and not world.tasks:
                return
            if not later:
                raise Violation("calls wait for each other")
            world.now = min(later)
        raise Violation("calls go on for ever")


KINDS: Final = {
    "reserve": 30,
    "send": 25,
    "settle": 15,
    "wait": 12,
    "turn": 4,
    "flag": 2,
    "refuse": 2,
    "release": 2,
    "list": 3,
    "reply": 4,
    "opt": 2,
    "operate": 3,
    "move": 3,
    "refresh": 3,
    "crash": 2,
    "reload": 1,
    "step_clock": 1,
    "storm": 1,
}


def _policy(dice: random.Random) -> Policy:
    return Policy.from_dict(
        {
            "limits": {
                "new_per_day": dice.choice((1, 3, 10, 30)),
                "new_per_hour": dice.choice(("off", 1, 5)),
                "messages_per_day": dice.choice((7000, 20)),
                "pair_per_minute": dice.choice((30, 2)),
                "moves_per_day": dice.choice((1, 20)),
            },
            "pace": {
                "new_gap": dice.choice((0.0, 20.0)),
                "new_burst": dice.choice((1, 5)),
                "message_gap": dice.choice((0.0, 1.0)),
                "spread": dice.choice(("off", 0.35)),
            },
            "recovery": {"confirmations": dice.choice((1, 2, 3))},
            "health": {"on_stale": dice.choice(("slow", "refuse"))},
            "conversation": {"unanswered": "off"},
            "on_store_error": dice.choice(("refuse", "refuse", "known_only")),
            "stickiness": {
                "on_critical": dice.choice(("hold", "hold", "move")),
                "return_home": dice.choice(("off", 3600.0)),
            },
            "learn": {"enabled": dice.random() < 0.5},
        }
    )


def story_of(seed: int, steps: int = STEPS) -> list[Step]:
    """What happens in a seed's story."""
    dice = random.Random(seed * 2 + 1)
    kinds = dice.choices(list(KINDS), list(KINDS.values()), k=steps)
    return [Step(kind, dice.getrandbits(48)) for kind in kinds]


def tell(seed: int, steps: Sequence[Step] | None = None) -> Verdicts:
    """One seed's story, or what *steps* leave of it."""
    mine = story_of(seed) if steps is None else steps
    story, broken = Story(seed), ""
    try:
        story.tell(mine)
    except Violation as error:
        broken = str(error)
    except Exception as error:  # noqa: BLE001  an error that is not documented breaks a promise, too
        broken = f"{type(error).__name__}: {error}"
    world = story.world
    left = tuple(mine) if broken else ()
    return Verdicts(
        seed, world.decisions, world.ledger.reserved, world.trace.hexdigest(), broken, left
    )


def shortened(found: Verdicts, say: Callable[[str], None] = lambda _: None) -> Verdicts:
    """The same failure with as few steps as can be found by leaving some out."""
    size = max(1, len(found.steps) // 2)
    while True:
        start, less = 0, False
        while start < len(found.steps):
            tried = tell(found.seed, found.steps[:start] + found.steps[start + size :])
            if tried.violation:
                found, less = tried, True
                say(f"{len(found.steps)} steps")
            else:
                start += size
        if size == 1 and not less:
            return found
        size = max(1, size // 2)


__all__ = ["AlreadySent", "Step", "Verdicts", "shortened", "story_of", "tell"]


def main() -> int:
    """Tell many seeds' stories; 1 where a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--processes", type=int, default=1)
    asked = parser.parse_args()
    start, decisions, reserved, broken = time.perf_counter(), 0, 0, 0
    with Pool(asked.processes) as pool:
        for each in pool.imap_unordered(tell, range(asked.seed, asked.seed + asked.seeds), 4):
            decisions, reserved = decisions + each.decisions, reserved + each.reserved
            if each.violation:
                broken += 1
                short = shortened(each)
                steps = ", ".join(step.kind for step in short.steps)
                print(
                    f"seed {each.seed}: {each.violation}; with {len(short.steps)} steps: {short.violation} ({steps})"
                )
    took = time.perf_counter() - start
    print(
        f"{asked.seeds} seeds, {decisions:,} decisions, {reserved:,} reserved, {broken} broken, {took:.0f} s"
    )
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
