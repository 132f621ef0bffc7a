"""A whole deployment in one thread: several routers over one store, a provider, its webhooks, people; one clock, one seed.

Nothing here waits or runs at the same time as anything else: a call of a router is a flow that asks questions, and the
`World` answers one question of one flow at a time, in an order that the seed chooses. Between any two questions anything may
happen: another flow goes on, the process is gone, the clock steps. What is promised is checked by `benchmarks.ledger`.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from itertools import count
from typing import Any, Final

import attrs

from benchmarks.ledger import Ledger
from linepicker import (
    AlreadySent,
    Blocked,
    Delivered,
    Failed,
    Held,
    Line,
    LinePickerError,
    NoLine,
    NotNow,
    Outcome,
    Policy,
    SourceError,
    StaleHealth,
    StoreError,
)
from linepicker import _asks as asks
from linepicker._asks import Called, Fetched, Made
from linepicker._desk import Desk
from linepicker.model import Report, Verdict
from linepicker.stores import Answer, Record, Write
from linepicker.stores.memory import MemoryStore

DAY: Final = 86400.0
START: Final = 1_800_000_000.0
REFUSALS: Final = (NoLine, Held, NotNow, Blocked, StaleHealth)


class SendFailed(Exception):
    """What a send call raises: a timeout, a 5xx, a refusal. `verdict` is what it means."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.outcome)
        self.verdict = verdict


@attrs.define
class Faults:
    """How likely each fault is, at each occasion; all 0 once the world is calm."""

    store_before: float = 0.0
    store_after: float = 0.0
    source: float = 0.0
    send: float = 0.0
    lost: float = 0.0
    doubled: float = 0.0
    late: float = 0.0


class Flight:
    """The right to poll of one process."""

    def __init__(self) -> None:
        self.taken = False

    def release(self) -> None:
        """As the port says."""
        self.taken = False


class Source:
    """What makes a desk ask for lists; the world answers."""

    def fetch(self) -> list[Line]:
        """Never called."""
        raise NotImplementedError


class Process:
    """One process with one router; a crash makes another one of it."""

    def __init__(self, name: int, policy: Policy) -> None:
        self.name = name
        self.policy = policy
        self.start()

    def start(self) -> None:
        """Begin with nothing remembered."""
        self.desk = Desk(Source(), self.policy, "default", None, None)
        self.flight = Flight()
        self.desk.fleet.flight = self.flight
        self.desk.fleet.shows_seen = True


@attrs.define
class Task:
    """One call of one router, as far as it has come. `waiting`: what a question that takes time is answered in the end."""

    name: int
    process: Process
    what: str
    flow: Any
    ask: Any = None
    made: Made | None = None
    wake_at: float = 0.0
    waiting: Any = None
    message: str = ""
    report: Report | None = None
    tries: int = 0
    number: str = ""
    done: bool = False
    result: Any = None
    error: BaseException | None = None

    def begun(self, made: Made) -> None:
        """A reservation is about to be written."""
        self.made = made


class Provider:
    """The provider's side: the lines as they are, what was accepted, and whom nobody may write to."""

    def __init__(self, dice: random.Random, *, shows_status: bool, lines: int) -> None:
        self.shows_status = shows_status
        self.names = [f"+1212555{n:04d}" for n in range(lines + 2)]
        self.listed = set(self.names[:lines])
        self.reputation = dict.fromkeys(self.names, "HEALTHY")
        self.flagged: set[str] = set()
        self.refusing: set[str] = set()
        self.opted_out: set[str] = set()
        self.accepted: dict[str, tuple[float, str, str]] = {}
        self.mode = "ok"
        self.dice = dice

    def lines(self) -> list[Line]:
        """The list as it is."""
        found = []
        for number in self.names:
            if number in self.listed:
                status = (
                    ("FLAGGED" if number in self.flagged else "ACTIVE")
                    if self.shows_status
                    else None
                )
                found.append(Line(number, reputation=self.reputation[number], status=status))
        self.dice.shuffle(found)
        return found

    def answer(self) -> list[Line] | SourceError:
        """What the list's endpoint answers."""
        match self.mode:
            case "ok":
                return self.lines()
            case "empty":
                return []
            case "half":
                return self.lines()[: len(self.listed) // 3]
            case "limited":
                return SourceError("429", status=429, retry_after=30.0)
            case "forbidden":
                return SourceError("401", status=401, fatal=True)
        return SourceError(self.mode, status=500)

    def take(self, made: Made, now: float) -> Verdict:
        """A message arrives. An id that was accepted is not accepted again."""
        to, number = made.who.recipient.key, made.number
        if made.id in self.accepted:
            return Verdict(Outcome.SENT, message_id=f"m-{made.id}", chat_id=f"c-{number}-{to}")
        if to in self.opted_out:
            return Verdict(Outcome.RECIPIENT_REFUSED)
        if number in self.flagged | self.refusing or number not in self.listed:
            return Verdict(Outcome.LINE_REFUSED, retry_after=self.dice.choice((None, 600.0)))
        if self.dice.random() < 0.02:
            return Verdict(Outcome.RATE_LIMITED, retry_after=self.dice.choice((None, 30.0)))
        self.accepted[made.id] = (now, number, to)
        return Verdict(Outcome.SENT, message_id=f"m-{made.id}", chat_id=f"c-{number}-{to}")


@attrs.define
class Event:
    """A webhook on its way."""

    at: float
    report: Report
    tries: int = 0


class World:
    """Everything there is. What happens is decided by whoever calls `begin_…` and `step`."""

    def __init__(self, dice: random.Random, policy: Policy, *, processes: int, lines: int) -> None:
        self.now = START
        self.dice = dice
        self.faults = Faults()
        self.store = MemoryStore(time=lambda: self.now)
        self.provider = Provider(dice, shows_status=dice.random() < 0.3, lines=lines)
        self.processes = [Process(n, policy) for n in range(processes)]
        self.tasks: list[Task] = []
        self.events: list[Event] = []
        self.ledger = Ledger(self.store)
        self.names = count()
        self.decisions = 0
        self.trace = blake2b(digest_size=16)

    def tell(self, *words: object) -> None:
        """One line of the trace, by which two runs are compared."""
        self.trace.update(f"{self.now!r} {words!r}\n".encode())

    # Calls

    def begin(self, process: Process, what: str, **more: Any) -> Task:
        """A call that has not asked anything yet. Its flow is to be set by the caller."""
        task = Task(next(self.names), process, what, None, **more)
        self.tasks.append(task)
        return task

    def new_id(self) -> str:
        """An id for a reservation."""
        return self.dice.randbytes(12).hex()

    def runnable(self) -> list[Task]:
        """The calls that can go on now."""
        return [
            task
            for task in self.tasks
            if task.wake_at <= self.now
            and not (type(task.ask) is asks.Lead and task.ask.wait and task.process.flight.taken)
        ]

    def step(self) -> bool:
        """Let one call go on to its next question. False: none can."""
        able = self.runnable()
        if not able:
            return False
        task = self.dice.choice(able)
        try:
            if task.ask is None:
                task.ask = next(task.flow)
            else:
                try:
                    answer, ready = self._answer(task, task.ask)
                except LinePickerError as error:
                    task.waiting = None
                    task.ask = task.flow.throw(error)
                else:
                    if ready:
                        task.waiting = None
                        task.ask = task.flow.send(answer)
        except StopIteration as stop:
            self._finish(task, stop.value, None)
        except (*REFUSALS, AlreadySent, StoreError, SourceError, SendFailed) as error:
            self._finish(task, None, error)
        return True

    def _finish(self, task: Task, result: Any, error: BaseException | None) -> None:
        task.done, task.result, task.error = True, result, error
        self.tasks.remove(task)
        if task.what in ("reserve", "send"):
            self.decisions += 1
        made = result if isinstance(result, Made) else task.made
        self.tell(
            task.name,
            task.what,
            type(error).__name__,
            made and (made.id, made.number, made.kind, made.send_at),
        )
        self.ledger.finished(task, self.now)
        if isinstance(error, REFUSALS) and not isinstance(error, Blocked):
            decided = error.decision
            self.ledger.must(
                decided is None or error.retry_at > decided.at,
                f"a refusal asks to come back at once or before: {error}",
            )
        if task.report is not None and error is not None:
            self._deliver_again(task)

    def crash(self, process: Process) -> None:
        """The process is gone between two questions, and starts anew."""
        for task in [each for each in self.tasks if each.process is process]:
            self.tasks.remove(task)
            self.tell(task.name, "torn")
            task.flow = None  # what it still would write reaches no store
            if task.report is not None:
                self._deliver_again(task)
        process.start()

    # Answers

    def _answer(self, task: Task, ask: Any) -> tuple[Any, bool]:
        """What a question is answered, and whether that is now."""
        kind = type(ask)
        if kind is asks.Swap:
            return self._swap(task, ask), True
        if kind is asks.Read:
            if self.dice.random() < self.faults.store_before:
                raise StoreError("the store is out")
            return self.store.read(ask.keys), True
        if kind is asks.Now:
            return self.now, True
        if kind is asks.Dice:
            return self.dice.random(), True
        if kind is asks.NewId:
            return self.new_id(), True
        if kind is asks.Sleep:
            return self._later(task, ask.seconds, None)
        if kind is asks.Lead:
            flight = task.process.flight
            if flight.taken:
                return False, True
            flight.taken = True
            return True, True
        if kind is asks.Fetch:
            return self._fetch(task)
        if kind is asks.Call:
            return self._call(task, ask.made)
        if kind is asks.Say:
            return None, True
        if kind is asks.Scan:
            return list(self.store.scan(ask.prefix)), True
        raise TypeError(kind)

    def _later(self, task: Task, seconds: float, answer: Any) -> tuple[Any, bool]:
        if task.waiting is None:
            task.waiting, task.wake_at = (answer,), self.now + seconds
            return None, False
        return task.waiting[0], True

    def _swap(self, task: Task, ask: asks.Swap) -> Answer:
        if self.dice.random() < self.faults.store_before:
            raise StoreError("the store is out")
        before = self._before(ask.writes)
        answer = self.store.swap(ask.writes, seen=ask.seen)
        if answer.applied:
            self.ledger.applied(task, ask.writes, before, self.now)
            if self.dice.random() < self.faults.store_after:
                raise StoreError("the answer was lost", unknown=True)
        return answer

    def _before(self, writes: Sequence[Write]) -> Mapping[str, Record]:
        return self.store.read([write.key for write in writes]).records

    def _fetch(self, task: Task) -> tuple[Any, bool]:
        if task.waiting is None:
            found = self.provider.answer()
            if self.dice.random() < self.faults.source:
                found = SourceError("timed out")
            return self._later(task, self.dice.choice((0.0, 0.2, 1.5)), (found, self.now))
        found, issued = task.waiting[0]
        if isinstance(found, SourceError):
            raise found
        self.ledger.polled(found, issued)
        return Fetched(found, issued), True

    def _call(self, task: Task, made: Made) -> tuple[Any, bool]:
        if task.waiting is None:
            task.made = made
            self.ledger.called(task, made, self.now)
            fault = self.dice.random() < self.faults.send
            if fault and self.dice.random() < 0.5:
                verdict = Verdict(Outcome.UNKNOWN)  # it never arrived, and nobody knows
            else:
                had = made.id in self.provider.accepted
                verdict = self.provider.take(made, self.now)
                if verdict.outcome is Outcome.SENT:
                    self.ledger.accepted(task, made, self.now)
                    if not had:
                        self._receipts(made)
                if fault:
                    verdict = Verdict(Outcome.UNKNOWN)
            return self._later(task, self.dice.choice((0.0, 0.1, 2.0)), verdict)
        verdict = task.waiting[0]
        good = verdict.outcome is Outcome.SENT
        return Called(verdict, None if good else SendFailed(verdict), verdict), True

    # Webhooks

    def emit(self, report: Report) -> None:
        """The provider sends a webhook: late, twice, or never."""
        dice, faults = self.dice, self.faults
        if dice.random() < faults.lost:
            return
        for _ in range(1 + (dice.random() < faults.doubled)):
            late = dice.choice((5.0, 60.0, 290.0)) if dice.random() < faults.late else dice.random()
            self.events.append(Event(self.now + late, report))

    def _receipts(self, made: Made) -> None:
        name = self.new_id()
        if self.dice.random() < 0.06:
            self.emit(Failed(at=self.now, event_id=name, message_id=f"m-{made.id}", code=3000))
        elif self.dice.random() < 0.5:
            self.emit(Delivered(at=self.now, event_id=name, message_id=f"m-{made.id}"))

    def deliver(self) -> None:
        """What has arrived is reported to some process each."""
        due = [event for event in self.events if event.at <= self.now]
        for event in due:
            self.events.remove(event)
            process = self.dice.choice(self.processes)
            task = self.begin(process, "report", report=event.report, tries=event.tries)
            task.flow = process.desk.report(event.report, self.now)
            self.ledger.reporting(task, self.now)

    def _deliver_again(self, task: Task) -> None:
        if task.tries < 8 and task.report is not None:
            self.events.append(Event(self.now + 2.0**task.tries, task.report, task.tries + 1))
