"""A whole deployment in one thread: several routers over one store, their calls under way, webhooks on their way; one clock.

Nothing here waits or runs at the same time as anything else: a call of a router is a flow that asks questions, and the `World`
answers one question of one flow at a time, in an order that the seed chooses. Between any two questions anything may happen:
another flow goes on, the process is gone, the clock steps.
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Collection, Mapping
from hashlib import blake2b
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any, Final

import attrs

from benchmarks.faults.ledger import Ledger
from benchmarks.faults.observed import NEVER
from benchmarks.faults.provider import SEND_FAULTS, Provider, SendFailed, sure
from linepicker import (
    AlreadySent,
    Blocked,
    Delivered,
    Failed,
    Held,
    Line,
    LinePickerError,
    MessageRead,
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
from linepicker._record import EPOCH
from linepicker._settle import undo
from linepicker.model import Report, Verdict
from linepicker.stores import Answer
from linepicker.stores.memory import MemoryStore

START: Final = 1_800_000_000.0
REFUSALS: Final = (NoLine, Held, NotNow, Blocked, StaleHealth)
_DOCUMENTED: Final = (*REFUSALS, AlreadySent, StoreError, SourceError, SendFailed)
_UNDECIDED: Final = (*REFUSALS, StoreError, SourceError)
"""What a call ends with whose decision was counted when it refused, or that made none."""
_MAY_REFUSE_ARGUMENTS: Final = frozenset({"operate", "move", "assign", "inbound"})
_OF_STORE: Final = frozenset({asks.Read, asks.Swap, asks.Scan})
_LATER: Final = object()


@attrs.define
class Faults:
    """How likely each fault is, at each occasion; all 0 once the world is calm."""

    store_before: float = 0.0
    store_after: float = 0.0
    store_slow: float = 0.0
    source: float = 0.0
    send: float = 0.0
    lost: float = 0.0
    doubled: float = 0.0
    late: float = 0.0


class Flight:
    """The right to poll of one process, and which of its calls wait for it."""

    def __init__(self, ready: list[Task]) -> None:
        self.taken = False
        self.waiting: list[Task] = []
        self._ready = ready

    def release(self) -> None:
        """As the port says."""
        self.taken = False
        self._ready.extend(task for task in self.waiting if not task.gone)
        self.waiting.clear()


class Source:
    """What makes a desk ask for lists; the world answers."""

    def fetch(self) -> list[Line]:
        """Never called."""
        raise NotImplementedError


class Process:
    """One process with one router; a crash makes another one of it. `skew`: how far its clock is ahead; `stepped_at`: what it
    showed when that changed."""

    stepped_at = NEVER

    def __init__(self, name: int, policy: Policy, pool: str, skew: float) -> None:
        self.name, self.policy, self.pool, self.skew = name, policy, pool, skew

    def start(self, ready: list[Task], epoch: str) -> None:
        """Begin with nothing remembered but which store it was."""
        self.desk = Desk(Source(), self.policy, self.pool, None, None)
        self.flight = self.desk.fleet.flight = Flight(ready)
        self.desk.fleet.epoch = epoch
        self.desk.fleet.shows_seen = True


@attrs.define(eq=False)
class Task:
    """One call of one router, as far as it has come. `held`: what its question is answered, once it hears of it."""

    name: int
    process: Process
    what: str
    flow: Any
    ask: Any = None
    held: Any = _LATER
    made: Made | None = None
    calling: bool = False
    fetched: Any = None
    message: str = ""
    key: str | None = None
    report: Report | None = None
    tries: int = 0
    looked: int = 0
    asked: int = 0
    """Until which write it has read lines, and what its recipient wants."""
    called: SendFailed | None = None
    """What its last call of the provider raised."""
    misled: bool = False
    """Whether it was another store that told it something last."""
    several: dict[str, Made] | None = None
    refuted: Mapping[str, int] = attrs.field(factory=dict)
    """The versions that its last swap demanded in vain."""
    policy: Policy = attrs.field(init=False)
    asked_under: Policy = attrs.field(init=False)
    """By what its last choice was made, and by what it was asked for."""
    gone: bool = False
    result: Any = None
    error: BaseException | None = None

    def __attrs_post_init__(self) -> None:
        self.policy = self.asked_under = self.process.policy

    @property
    def policies(self) -> tuple[Policy, ...]:
        """Any that may have been in force when something was decided for it."""
        return self.asked_under, self.policy, self.process.policy

    def begun(self, made: Made) -> None:
        """A reservation is about to be written."""
        self.made, self.calling = made, False


@attrs.frozen
class _Raised:
    """An answer that is an error."""

    error: LinePickerError


@attrs.frozen
class Event:
    """A webhook on its way."""

    report: Report
    tries: int = 0


class World:
    """Everything there is. What happens is decided by whoever calls `begin` and `go_on`."""

    def __init__(
        self, dice: random.Random, policy: Policy, *, processes: int, lines: int, pools: int
    ) -> None:
        self.now = START
        self.dice, self.roll = dice, dice.random
        self.faults = Faults()
        self.seen: Counter[str] = Counter()
        self.store = MemoryStore(time=lambda: self.now)
        self.wrong: MemoryStore | None = None
        self.provider = Provider(
            dice, shows_status=dice.random() < 0.3, lines=lines, seen=self.seen
        )
        self.ready: list[Task] = []
        self.tasks: dict[int, Task] = {}
        self.due: list[tuple[float, int, Task | Event]] = []
        self.ledger = Ledger(self.store, self.seen)
        self.names = count()
        self.decisions = 0
        self.trace = blake2b(digest_size=16)
        skewed = dice.random() < 0.3
        self.processes = [
            Process(
                n,
                policy,
                f"pool{n % pools}",
                dice.choice((0.0, 2.0, -30.0, 60.0)) if skewed else 0.0,
            )
            for n in range(processes)
        ]
        for process in self.processes:
            process.start(self.ready, "")
            self.ledger.slowest = min(self.ledger.slowest, process.skew)
        self._answers = {
            asks.Read: self._read,
            asks.Swap: self._swap,
            asks.Scan: self._scan,
            asks.Fetch: self._fetch,
            asks.Lead: self._lead,
            asks.Now: lambda task, _: self.now + task.process.skew,
            asks.Sleep: lambda task, ask: self._later(task, ask.seconds, None),
            asks.Dice: lambda *_: self.roll(),
            asks.NewId: lambda *_: self.new_id(),
            asks.Call: self._call,
            asks.Say: lambda *_: None,
            asks.Refused: self._refused,
            asks.Tell: lambda *_: None,
        }

    def tell(self, *words: object) -> None:
        """One line of the trace, by which two runs are compared."""
        self.trace.update(f"{self.now!r} {words!r}\n".encode())

    # Calls

    def begin(self, process: Process, what: str, **more: Any) -> Task:
        """A call that has not asked anything yet. Its flow is to be set by the caller."""
        task = Task(next(self.names), process, what, None, **more)
        self.tasks[task.name] = task
        self.ready.append(task)
        self.seen[f"call {what}"] += 1
        return task

    def new_id(self) -> str:
        """An id for a reservation."""
        return f"{self.dice.getrandbits(96):024x}"

    def go_on(self, most: int) -> int:
        """Let calls go on to their next question, so many times at most; how many are left."""
        ready = self.ready
        while most:
            if self.due and self.due[0][0] <= self.now:
                self._wake()
            if not ready:
                break
            most -= 1
            place = int(self.roll() * len(ready))
            task = ready[place]
            ready[place] = ready[-1]
            ready.pop()
            self._advance(task)
        return most

    def next_moment(self) -> float | None:
        """When something is due that does not happen by itself before; None: nothing is."""
        while self.due and isinstance(self.due[0][2], Task) and self.due[0][2].gone:
            heappop(self.due)
        return self.due[0][0] if self.due else None

    def _wake(self) -> None:
        while self.due and self.due[0][0] <= self.now:
            _, _, item = heappop(self.due)
            if isinstance(item, Event):
                self._deliver(item)
            elif not item.gone:
                self.ready.append(item)

    def _advance(self, task: Task) -> None:
        """One question answered, and the next one asked."""
        try:
            if task.ask is None:
                task.policy = task.process.policy
                task.ask = next(task.flow)
            else:
                answer = task.held
                if answer is _LATER:
                    try:
                        answer = self._answers[type(task.ask)](task, task.ask)
                    except LinePickerError as error:
                        answer = _Raised(error)
                    if answer is _LATER:
                        return
                    slow = self.faults.store_slow
                    if slow and type(task.ask) in _OF_STORE and self.roll() < slow:
                        self.seen["answer that came late"] += 1
                        self._later(task, self.dice.choice((0.0, 0.0, 0.3, 5.0)), answer)
                        return
                else:
                    task.held = _LATER
                    if type(task.ask) is asks.Sleep:
                        task.asked = self.ledger.moment  # who waited must look again
                task.policy = task.process.policy  # by which it decides on its next question
                if type(answer) is _Raised:
                    task.ask = task.flow.throw(answer.error)
                else:
                    task.ask = task.flow.send(answer)
        except StopIteration as stop:
            self._finish(task, stop.value, None)
        except _DOCUMENTED as error:
            self._finish(task, None, error)
        except ValueError as error:
            if task.what not in _MAY_REFUSE_ARGUMENTS:
                raise
            self._finish(task, None, error)
        else:
            self.ready.append(task)
        if task.process.desk.fleet.debts:
            self._owing(task.process)

    def _owing(self, process: Process) -> None:
        """What it holds of lines is its own: an older answer counts again."""
        for each in self.tasks.values():
            if each.process is process:
                each.refuted = {}

    def _finish(self, task: Task, result: Any, error: BaseException | None) -> None:
        task.gone, task.result, task.error = True, result, error
        del self.tasks[task.name]
        made = result if isinstance(result, Made) else task.made
        self.seen[f"{task.what}: {type(error).__name__ if error else 'done'}"] += 1
        self.tell(
            task.name,
            task.what,
            type(error).__name__,
            made and (made.id, made.number, made.kind, made.send_at),
        )
        if task.what in ("reserve", "send", "preview") and not isinstance(error, _UNDECIDED):
            self.decisions += 1
        self.ledger.finished(task)
        if isinstance(error, REFUSALS) and not isinstance(error, Blocked):
            decided = error.decision
            mine = not task.misled or isinstance(error, StaleHealth)  # which rests on no record
            self.ledger.must(mine, f"{task.what} took another store for its own: {error}")
            self.ledger.must(
                decided is None or error.retry_at > decided.at,
                f"a refusal asks to come back at once or before: {error}",
            )
            if decided is not None:
                self.ledger.refused(task, decided.reason, error.retry_at - decided.at)
        if task.report is not None and error is not None:
            self._deliver_again(task)

    def _refused(self, task: Task, ask: asks.Refused) -> None:
        self.decisions += 1
        self.seen[f"refused: {ask.decision.outcome} {ask.decision.reason}"] += 1

    def crash(self, process: Process) -> None:
        """The process is gone between two questions, and starts anew."""
        for task in [each for each in self.tasks.values() if each.process is process]:
            self._tear(task, "crashed")
        process.start(self.ready, self.ledger.epoch)

    def cancel(self, task: Task) -> None:
        """A call is torn away by whoever awaited it; as a router does, what it had begun is taken back."""
        self._tear(task, "cancelled")
        begun = dict(task.several or {})
        if task.made is not None and task.what in ("reserve", "send") and not task.calling:
            begun[task.made.id] = task.made
        for made in begun.values():
            fleet = task.process.desk.fleet
            back = self.begin(task.process, "undo", made=made)
            back.flow = undo(fleet, made, self.now + task.process.skew)

    def _tear(self, task: Task, how: str) -> None:
        asked = "nothing yet" if task.ask is None else type(task.ask).__name__
        self.seen[f"{how} at {asked}"] += 1
        self.ledger.leapt.discard(task.name)
        del self.tasks[task.name]
        if task in self.ready:
            self.ready.remove(task)
        task.gone = True
        self.tell(task.name, how)
        with contextlib.suppress(RuntimeError):  # it would still ask something
            task.flow.close()
        if task.report is not None:
            self._deliver_again(task)

    def step_back(self) -> None:
        """The clock has stepped back: what waits for the time before does not wait for ever."""
        late = self.now + 30.0
        self.due = [(min(at, late), name, item) for at, name, item in self.due]
        heapify(self.due)
        for process in self.processes:
            shown = self.ledger.latest + process.skew
            process.stepped_at = max(process.stepped_at, shown)
        self.ledger.stepped(self.now)

    # Answers

    def _later(self, task: Task, seconds: float, answer: Any) -> Any:
        task.held = answer
        heappush(self.due, (self.now + seconds, next(self.names), task))
        return _LATER

    def _read(self, task: Task, ask: asks.Read) -> Answer:
        if self.roll() < self.faults.store_before:
            self.seen["store out: read"] += 1
            raise StoreError("the store is out")
        self._looks(task, ask.keys)
        return (self.wrong or self.store).read(ask.keys)

    def _looks(self, task: Task, keys: Collection[str]) -> None:
        """It gets to know what there is at these keys."""
        task.looked = self.ledger.moment
        for key in keys:
            if key[:6] == "block/":
                task.asked = task.looked
            elif key == EPOCH:
                task.misled = self.wrong is not None and len(keys) > 1

    def _scan(self, task: Task, ask: asks.Scan) -> Any:
        if self.roll() < self.faults.store_before:
            self.seen["store out: scan"] += 1
            raise StoreError("the store is out")
        return list((self.wrong or self.store).scan(ask.prefix))

    def _swap(self, task: Task, ask: asks.Swap) -> Answer:
        faults = self.faults
        if faults.store_before and self.roll() < faults.store_before:
            unknown = self.roll() < 0.5
            self.seen["store out before a write" + ", unseen" * unknown] += 1
            raise StoreError("the store is out", unknown=unknown)
        self._learned(task, ask)
        answer = (self.wrong or self.store).swap(ask.writes, seen=ask.seen)
        if answer.applied:
            self.ledger.must(self.wrong is None, f"{task.what} wrote to another store")
            self.ledger.applied(task, ask.writes, self.now)
        self._looks(task, [write.key for write in ask.writes])
        if answer.applied:
            if faults.store_after and self.roll() < faults.store_after:
                self.seen["store out after a write"] += 1
                raise StoreError("the answer was lost", unknown=True)
        else:
            self.seen["store conflict"] += 1
            found = {} if self.wrong is not None else answer.records
            task.refuted = {
                write.key: write.version
                for write in ask.writes
                # 0: it may have been taken away again meanwhile; below: another call made a debt
                if write.version > 0
                and write.key[:5] == "line/"  # of a person another call may hear older news
                and write.key in found
                and found[write.key].version != write.version
            }
        return answer

    def _learned(self, task: Task, ask: asks.Swap) -> None:
        """Nobody asks again for what they were just told is not so."""
        refuted, task.refuted = task.refuted, {}
        for write in ask.writes:
            again = self.wrong is None and refuted.get(write.key) == write.version
            self.ledger.must(not again, f"{task.what} learned nothing of {write.key}")

    def _lead(self, task: Task, ask: asks.Lead) -> Any:
        flight = task.process.flight
        if not flight.taken:
            flight.taken = True
            return True
        if ask.wait:
            flight.waiting.append(task)
            return _LATER
        return False

    def _fetch(self, task: Task, ask: asks.Fetch) -> Any:
        found, took = self.provider.answer(fault=self.roll() < self.faults.source)
        issued = self.now + task.process.skew
        if not ask.patient:
            if took > 2.0:
                found = SourceError("did not arrive in the time allowed")
            took = min(took, 2.0)
        if isinstance(found, SourceError):
            return self._later(task, took, _Raised(found))
        task.fetched = (found, issued)
        self.ledger.polled(found, issued)
        return self._later(task, took, Fetched(found, issued))

    def _call(self, task: Task, ask: asks.Call) -> Any:
        made, dice = ask.made, self.dice
        self.ledger.must(sure(task.called), f"{task.message} was tried again, though it may be out")
        task.made, task.calling = made, True
        self.ledger.called(task, made, self.now)
        fault = dice.choice(SEND_FAULTS) if self.roll() < self.faults.send else None
        verdict, took = Verdict(Outcome.UNKNOWN), dice.choice((0.0, 0.1, 2.0))
        if fault is None or self.roll() < fault.arrives:
            had = made.id in self.provider.accepted
            verdict = self.provider.take(made)
            if verdict.outcome is Outcome.SENT:
                self.ledger.accepted(task, made, self.now)
                if not had:
                    self._receipts(made)
        if fault is not None:
            verdict, took = fault.verdict, fault.took
            self.seen[f"send {fault.name}"] += 1
        task.called = None if verdict.outcome is Outcome.SENT else SendFailed(verdict)
        return self._later(task, took, Called(verdict, task.called, verdict))

    # Webhooks

    def emit(self, report: Report) -> None:
        """The provider sends a webhook: late, twice, or never."""
        faults, seen = self.faults, self.seen
        if self.roll() < faults.lost:
            seen["webhook lost"] += 1
            return
        doubled = self.roll() < faults.doubled
        seen["webhook doubled"] += doubled
        for _ in range(1 + doubled):
            late = self.roll()
            if self.roll() < faults.late:
                late = self.dice.choice((5.0, 60.0, 290.0, 1800.0))
                seen["webhook late, and out of order"] += 1
            heappush(self.due, (self.now + late, next(self.names), Event(report)))

    def _receipts(self, made: Made) -> None:
        name, to, at = self.new_id(), f"m-{made.id}", self.now
        chance = self.roll()
        if chance < 0.1:
            self.emit(Failed(at=at, event_id=name, message_id=to, code=3000))
        elif chance < 0.5:
            self.emit(Delivered(at=at, event_id=name, message_id=to))
        elif chance < 0.55:
            self.emit(MessageRead(at=at, event_id=name, message_id=to))

    def _deliver(self, event: Event) -> None:
        process = self.dice.choice(self.processes)
        task = self.begin(process, "report", report=event.report, tries=event.tries)
        self.seen[f"report {type(event.report).__name__}"] += 1
        task.flow = process.desk.report(event.report, self.now + process.skew)
        self.ledger.reporting(event.report)

    def _deliver_again(self, task: Task) -> None:
        if task.tries < 8 and task.report is not None:
            self.seen["webhook tried again"] += 1
            event = Event(task.report, task.tries + 1)
            heappush(self.due, (self.now + 2.0**task.tries, next(self.names), event))
