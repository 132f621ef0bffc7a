"""One seed's deployment, and what happens to it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Final

import attrs

from benchmarks.faults.deployment import REFUSALS, Faults, Process, Task, World
from benchmarks.faults.ending import end_well
from benchmarks.faults.lines import DAY
from benchmarks.faults.policies import policy_of
from benchmarks.faults.provider import MODES
from benchmarks.faults.purpose import purpose
from benchmarks.faults.written import UNDONE
from linepicker import (
    ChatHealthChanged,
    LineAssigned,
    LineChanged,
    LineReleased,
    OptedIn,
    OptedOut,
    Outcome,
    Replied,
    Verdict,
)
from linepicker import _upkeep as upkeep
from linepicker._asks import Made
from linepicker._check import check
from linepicker._move import move
from linepicker._polls import ready, refresh_now
from linepicker._send import send
from linepicker._settle import settle_once
from linepicker.stores.memory import MemoryStore

KINDS: Final = {
    "reserve": 45,
    "send": 38,
    "settle": 26,
    "wait": 14,
    "turn": 5,
    "flag": 3,
    "refuse": 2,
    "release": 2,
    "list": 3,
    "reply": 8,
    "opt": 3,
    "feel": 2,
    "operate": 4,
    "move": 4,
    "assign": 1,
    "forget": 1,
    "look": 2,
    "plan": 1,
    "refresh": 3,
    "crash": 3,
    "cancel": 3,
    "reload": 2,
    "step_clock": 1,
    "skew": 1,
    "storm": 1,
    "wipe": 1,
}
_WORDS: Final = (*["HEALTHY"] * 7, "AT_RISK", "AT_RISK", "CRITICAL", "CRITICAL", "SHINY")
_GROUP: Final = ("+14155559001", "+14155559002", "someone@example.com")


@attrs.frozen
class Step:
    """One thing that happens, with the chance that belongs to it: a story without some of its steps is still the same story."""

    kind: str
    seed: int


class Story:
    """One seed's deployment, and what happens to it. *stalls*: calls may be suspended for hours between two questions."""

    def __init__(self, seed: int, *, stalls: bool = False) -> None:
        dice, self.stalls = random.Random(seed), stalls
        count = dice.choice((6, 20, 40, 200))
        self.people: list[Any] = [f"+1415555{n:04d}" for n in range(count)]
        self.people += [f"person{n}@example.com" for n in range(count // 6)]
        self.people += [_GROUP, _GROUP[:2]]
        self.policies = [policy_of(dice) for _ in range(2)]
        self.world = World(
            dice,
            self.policies[0],
            processes=dice.randint(1, 4),
            lines=dice.randint(1, 5),
            pools=dice.choice((1, 1, 2)),
        )
        world = self.world
        world.ledger.paced = not any(each.priority.urgent_share for each in self.policies)
        self.fearful = Faults(
            *(dice.choice((0.0, 0.01, 0.05)) for _ in range(3)),
            source=dice.choice((0.0, 0.05, 0.2)),
            send=dice.choice((0.0, 0.2, 0.6)),
            lost=dice.choice((0.0, 0.1, 0.3)),
            doubled=dice.choice((0.0, 0.1, 0.3)),
            late=dice.choice((0.0, 0.1, 0.3)),
        )
        self.stepping = dice.random() < 0.4
        world.faults = self.fearful
        self.open: list[tuple[Process, Made]] = []
        self.unsure: dict[str, list[tuple[str, Any]]] = {"reserve": [], "send": []}
        self.messages = 0
        self.latest = 0.0
        self.told = 0
        """How many steps have been taken."""
        self.over: dict[str, int] = {}
        """After which step what is out is back."""

    def tell(self, steps: Sequence[Step]) -> None:
        """Let it all happen, and end well. Raises Violation."""
        world, dice = self.world, self.world.dice
        for step in steps:
            dice.seed(step.seed)
            self.told += 1
            if self.over:
                self._calm()
            world.seen[f"step {step.kind}"] += 1
            getattr(self, f"_{step.kind}")(dice)
            world.go_on(dice.choice((1, 3, 10, 30, 60)))
            self.latest = max(self.latest, world.now)
        end_well(world, self.people, max(self.latest, world.now) + 1.0)

    # Messages

    def _begin(self, dice: random.Random, what: str, **more: Any) -> Task:
        process = more.pop("process", None) or dice.choice(self.world.processes)
        return self.world.begin(process, what, **more)

    def _asked(self, dice: random.Random, process: Process, to: Any) -> tuple[Any, Any, str]:
        """Whom, how, and what the call is called: most callers ask for nothing but a line."""
        desk, names, name = process.desk, self.world.provider.names, ""
        line, delay, exclude, inbound, override, health = None, None, (), False, False, None
        chance = dice.random()
        if chance < 0.2:
            delay = dice.choice((0.0, 10.0, 1000.0))
        elif chance < 0.25:
            override, name = True, "override"
        elif chance < 0.3:
            line, name = dice.choice(names), "pinned"
        elif chance < 0.35:
            exclude, name = (dice.choice(names),), "exclude"
        elif chance < 0.4:
            line, inbound, name = dice.choice(names), True, "inbound"
        elif chance < 0.43:
            health, name = dice.choice(("HEALTHY", "AT_RISK", "CRITICAL", "OPTED_OUT")), "health"
        if name:
            self.world.seen[f"asked {name}"] += 1
        request = desk.request(None, None, (), exclude, line, delay, inbound, override, health)
        if dice.random() < 0.1:
            self.world.seen["asked urgent"] += 1
            request = desk.urgent(request, "urgent")
        return desk.who(to), request, name

    def _reserve(self, dice: random.Random) -> None:
        """Some are reserved for, and settled later or never; some have a key, under which it may be asked for again."""
        for _ in range(dice.choice((1, 1, 2, 4, 8))):
            process = dice.choice(self.world.processes)
            to, key = dice.choice(self.people), None
            if dice.random() < 0.2:
                key, to = self._key(dice, "reserve", process, to)
            self._reserve_for(dice, process, to, key)

    def _key(self, dice: random.Random, what: str, process: Process, to: Any) -> tuple[str, Any]:
        """A key of this pool's, used before or new, and for whom."""
        known = self.unsure[what]
        if known and dice.random() < 0.6:
            name, whom = dice.choice(known)
            if name.startswith(process.pool):
                self.world.seen["key again"] += 1
                return name, whom
        name = f"{process.pool}-{what}-{self.messages}"
        known.append((name, to))
        if len(known) > 12:
            del known[0]
        return name, to

    def _reserve_for(self, dice: random.Random, process: Process, to: Any, key: str | None) -> None:
        world = self.world
        task = self._begin(dice, "reserve", process=process, message=f"r{self.messages}", key=key)
        self.messages += 1
        who, request, _ = self._asked(dice, process, to)
        now = world.now + process.skew
        made_id = world.new_id()

        def flow() -> Any:
            made = yield from process.desk.reserve(
                who, request, now, made_id, key=key, begun=task.begun
            )
            if not made.resumed:
                self.open.append((process, made))
            return made

        task.flow = flow()

    def _send(self, dice: random.Random) -> None:
        """The whole story of one message; some have a key, under which another process may try again."""
        for _ in range(dice.choice((1, 1, 2, 4))):
            process = dice.choice(self.world.processes)
            to, key = dice.choice(self.people), None
            if dice.random() < 0.5:
                key, to = self._key(dice, "send", process, to)
            message = key or f"s{self.messages}"
            self.messages += 1
            task = self._begin(dice, "send", process=process, message=message, key=key)
            who, request, _ = self._asked(dice, process, to)
            task.flow = send(
                process.desk.fleet,
                request,
                who,
                self.world.now + process.skew,
                reserving=process.desk.reserve,
                key=key,
                max_wait=dice.choice((None, None, 100.0)),
                begun=task.begun,
            )

    def _settle(self, dice: random.Random) -> None:
        """What was reserved is settled, checked, or given back; some of it twice."""
        for _ in range(dice.choice((1, 1, 3))):
            if not self.open:
                return
            process, made = self.open.pop(dice.randrange(len(self.open)))
            if process.desk.fleet.flight is not process.flight or made.who is None:
                continue
            task = self._begin(dice, "settle", process=process, made=made)
            now = self.world.now + process.skew
            if dice.random() < 0.2:
                task.what = "check"
                task.flow = check(process.desk.fleet, made)
                self.open.append((process, made))
                continue
            outcome = dice.choice((*Outcome, Outcome.SENT, Outcome.NOT_SENT))
            wait, chat = dice.choice((None, 30.0, 600.0)), None
            if outcome is Outcome.SENT and dice.random() < 0.5:
                chat = f"c-{made.number}-{made.who.recipient.key}"[:60]
            if outcome not in UNDONE and outcome is not Outcome.RATE_LIMITED:
                wait = None
            verdict = Verdict(outcome, retry_after=wait, chat_id=chat)
            task.flow = settle_once(process.desk.fleet, made, verdict, now)
            if dice.random() < 0.1:
                self.world.seen["settled again"] += 1
                again = self._begin(dice, "settle", process=process, made=made)
                other = Verdict(dice.choice(tuple(Outcome)))
                again.flow = settle_once(process.desk.fleet, made, other, now)

    def _wait(self, dice: random.Random) -> None:
        """Time passes; where it is long, what is due meanwhile happens when it is, as far as a few calls go."""
        world = self.world
        seconds = dice.choice((0.5, 5.0, 30.0, 61.0, 61.0, 300.0, 1200.0, 4000.0, 30000.0))
        until = world.now + seconds
        if seconds > 200.0 and not self.stalls:
            for _ in range(200):
                world.go_on(500)
                due = world.next_moment()
                if due is None or due >= until:
                    break
                world.now = max(world.now, due)
        world.now = until

    # The provider, and people

    def _turn(self, dice: random.Random) -> None:
        """The provider thinks otherwise of a line."""
        world, provider = self.world, self.world.provider
        number, value = dice.choice(provider.names), dice.choice(_WORDS)
        provider.reputation[number] = value
        world.seen[f"turned {value}"] += 1
        word: Any = {"reputation": value} if value != "SHINY" else {"unrecognised": value}
        world.emit(LineChanged(number, at=world.now, event_id=world.new_id(), **word))

    def _flag(self, dice: random.Random) -> None:
        """A line is flagged, or is not any more."""
        world, provider = self.world, self.world.provider
        number = dice.choice(sorted(provider.flagged) or provider.names)
        provider.flagged ^= {number}
        status = "FLAGGED" if number in provider.flagged else "ACTIVE"
        world.emit(LineChanged(number, status=status, at=world.now, event_id=world.new_id()))

    def _refuse(self, dice: random.Random) -> None:
        """A line can't send, or can again, and nobody says so."""
        provider = self.world.provider
        provider.refusing ^= {dice.choice(sorted(provider.refusing) or provider.names)}

    def _release(self, dice: random.Random) -> None:
        """A line leaves the account, or joins it."""
        world, provider = self.world, self.world.provider
        away = sorted(set(provider.names) - provider.listed)
        number = dice.choice(away if len(away) > 1 else provider.names)
        provider.listed ^= {number}
        kind = LineAssigned if number in provider.listed else LineReleased
        world.emit(kind(number, at=world.now, event_id=world.new_id()))

    def _list(self, dice: random.Random) -> None:
        """The list's endpoint behaves otherwise."""
        self.world.provider.mode = dice.choice(MODES)
        self.over["list"] = self.told + dice.choice((1, 2, 5))

    def _reply(self, dice: random.Random) -> None:
        """Somebody writes, perhaps STOP."""
        world, to = self.world, dice.choice(self.people)
        owner = None
        if isinstance(to, str):
            pool = dice.choice(world.processes).pool
            owner = world.ledger.owners.get(f"to/{pool}/{to}")
        number = owner.number if owner is not None else dice.choice(world.provider.names)
        text = dice.choice(("hello", "ok", "yes", "no", "STOP"))
        if isinstance(to, str):
            (world.provider.opted_out.add if text == "STOP" else world.provider.opted_out.discard)(
                to
            )
        world.emit(Replied(number, to, text=text, at=world.now, event_id=world.new_id()))

    def _opt(self, dice: random.Random) -> None:
        """Somebody opts out or in by another way."""
        world, to = self.world, dice.choice([each for each in self.people if isinstance(each, str)])
        out = dice.random() < 0.3
        (world.provider.opted_out.add if out else world.provider.opted_out.discard)(to)
        world.emit((OptedOut if out else OptedIn)(to, at=world.now, event_id=world.new_id()))

    def _feel(self, dice: random.Random) -> None:
        """The provider thinks otherwise of a conversation."""
        world, to = self.world, dice.choice(self.people)
        health = dice.choice((*["HEALTHY"] * 4, "AT_RISK", "CRITICAL", "CRITICAL", "OPTED_OUT"))
        world.seen[f"felt {health}"] += 1
        world.emit(ChatHealthChanged(to, health, at=world.now, event_id=world.new_id()))

    # The operator, and the host

    def _operate(self, dice: random.Random) -> None:
        """The operator pauses, drains or resumes a line."""
        state = dice.choice(("paused", "draining", "", "", ""))
        books = self.world.ledger.books
        held = sorted(number for number, book in books.items() if book.operator)
        number = dice.choice((not state and held) or self.world.provider.names)
        self.world.seen[f"operate {state or 'resumed'}"] += 1
        task = self._begin(dice, "operate")
        now = self.world.now + task.process.skew
        task.flow = upkeep.operate(task.process.desk.fleet, number, state, "because", now)

    def _move(self, dice: random.Random) -> None:
        """The operator moves somebody, to the best line or to one."""
        task = self._begin(dice, "move")
        desk, world = task.process.desk, self.world
        who = desk.who(dice.choice(self.people))
        line = dice.choice((None, *world.provider.names)) if dice.random() < 0.5 else None
        request = desk.request(None, None, (), (), line, None, False, False, None)
        task.flow = move(desk.fleet, request, who, world.now + task.process.skew, world.new_id())

    def _assign(self, dice: random.Random) -> None:
        """Somebody says whose line is which."""
        task = self._begin(dice, "assign")
        pairs = [
            (dice.choice(self.people), dice.choice(self.world.provider.names)) for _ in range(3)
        ]
        keep = dice.random() < 0.7
        task.flow = task.process.desk.assign(pairs, self.world.now + task.process.skew, keep=keep)

    def _forget(self, dice: random.Random) -> None:
        """Somebody is to be forgotten."""
        task = self._begin(dice, "forget")
        desk = task.process.desk
        task.flow = upkeep.forget(desk.fleet, desk.who(dice.choice(self.people)))

    def _look(self, dice: random.Random) -> None:
        """Somebody looks: what would be, how the lines stand, whose line is whose, what fits."""
        what = dice.choice(("preview", "lines", "assignment", "capacity"))
        task = self._begin(dice, what)
        desk, now = task.process.desk, self.world.now + task.process.skew
        who = desk.who(dice.choice(self.people))
        if what == "preview":
            request = desk.request(None, None, (), (), None, None, False, False, None)
            task.flow = desk.preview(who, request, now)
        elif what == "lines":
            task.flow = desk.lines(now)
        elif what == "assignment":
            task.flow = desk.assignment(who, now)
        else:
            task.flow = desk.capacity(now, 7200.0)

    def _plan(self, dice: random.Random) -> None:
        """A campaign is planned, and what has room is held."""
        held: dict[str, Made] = {}
        task = self._begin(dice, "plan", several=held)
        process, now = task.process, self.world.now + task.process.skew
        people = dice.sample(self.people, min(5, len(self.people)))

        def flow() -> Any:
            yield from process.desk.plan(people, now, now + 600.0, held)
            self.open.extend((process, made) for made in held.values())

        task.flow = flow()

    def _refresh(self, dice: random.Random) -> None:
        """Somebody reads the list, or keeps it fresh."""
        task = self._begin(dice, "refresh")
        fleet, now = task.process.desk.fleet, self.world.now + task.process.skew
        task.flow = refresh_now(fleet, now) if dice.random() < 0.5 else ready(fleet, now)

    def _crash(self, dice: random.Random) -> None:
        """A process is killed between two questions."""
        process = dice.choice(self.world.processes)
        self.open = [each for each in self.open if each[0] is not process]
        self.world.crash(process)

    def _cancel(self, dice: random.Random) -> None:
        """A call is torn away."""
        tasks = [each for each in self.world.tasks.values() if each.what != "undo"]
        if tasks:
            self.world.cancel(dice.choice(tasks))

    def _reload(self, dice: random.Random) -> None:
        """A process gets the other policy."""
        process = dice.choice(self.world.processes)
        process.policy = dice.choice(self.policies)
        process.desk.reload(process.policy)

    def _step_clock(self, dice: random.Random) -> None:
        """The host's clock steps, and with it every process's."""
        if not self.stepping:
            return
        world = self.world
        self.latest = max(self.latest, world.now)
        step = dice.choice((-DAY, -3600.0, -30.0, 3600.0, DAY))
        world.seen[f"clock stepped {step:+g} s"] += 1
        world.now += step
        if step < 0:
            world.ledger.latest = max(world.ledger.latest, self.latest)
            world.step_back()
        else:
            world.ledger.leaps(world.tasks, world.now - step)

    def _skew(self, dice: random.Random) -> None:
        """One process's clock steps a little."""
        if self.stepping:
            process = dice.choice(self.world.processes)
            process.stepped_at = max(process.stepped_at, self.world.now + process.skew)
            process.skew = dice.choice((0.0, 2.0, -30.0, 60.0))
            self.world.ledger.slowest = min(self.world.ledger.slowest, process.skew)
            self.world.seen["a process's clock stepped"] += 1

    def _storm(self, dice: random.Random) -> None:
        """The store is out for a while."""
        self.world.faults = attrs.evolve(self.fearful, store_before=1.0)
        self.over["store"] = self.told + dice.choice((1, 3, 10))

    def _wipe(self, dice: random.Random) -> None:
        """The store's place is taken by an empty one for a while."""
        world = self.world
        opening = any(purpose(task.flow)[0] == "open" for task in world.tasks.values())
        if not opening and all(each.desk.fleet.same.version for each in world.processes):
            world.wrong = MemoryStore(time=lambda: world.now)
            self.over["place"] = self.told + dice.choice((1, 2, 5))

    def _calm(self) -> None:
        """What was out long enough is back."""
        world = self.world
        for what in [each for each, until in self.over.items() if until <= self.told]:
            del self.over[what]
            if what == "store":
                world.faults = self.fearful
            elif what == "place":
                world.wrong = None
            else:
                world.provider.mode = "ok"


__all__ = ["KINDS", "REFUSALS", "Step", "Story"]
