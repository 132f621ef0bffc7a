"""The N-th call of store or source fails: for every N and every verb, once and for ever, before and after its work is done.

As SQLite tests itself: N = 1, 2, 3, … until the verb no longer reaches N. After each run no budget is overspent and nobody has
two lines; once the faults stop, repeating the verb leads to where it leads without them.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import pytest

from linepicker import (
    AlreadySent,
    AsyncRouter,
    Blocked,
    Held,
    Line,
    LineAssigned,
    LineChanged,
    LineReleased,
    OptedIn,
    OptedOut,
    Outcome,
    Policy,
    Replied,
    Reservation,
    Router,
    SourceError,
    StaleHealth,
    StoreError,
    Verdict,
)
from linepicker.stores import Answer
from linepicker.stores.memory import MemoryStore
from linepicker.testing import ManualClock

NOW, TTL, HOUR = 1_790_000_000.0, 60.0, 3600.0
A, B, C = "+12025550100", "+12025550101", "+12025550102"
LINES = (A, B, C)
ANN, BOB, CAT, DAN, EVE = (f"+1415555010{n}" for n in range(5))
PEOPLE = (ANN, BOB, CAT, DAN, EVE)
GROUP = (ANN, BOB)
BUDGET = 4
RULES = Policy.from_dict(
    {
        "limits": {"new_per_day": BUDGET, "moves_per_day": 2, "new_per_hour": "off"},
        "pace": {"new_gap": 10, "new_burst": 2, "spread": "off", "max_delay": 60},
        "learn": {"enabled": False},
    }
)


class Told(Exception):
    """What the provider said, which its source can classify."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.verdict = Verdict(outcome)


@attrs.define
class Fault:
    """When calls fail. *mode*: "before" the work, "unknown" (before it, but nobody knows), or "after" it (nobody knows)."""

    nth: int = 0
    mode: str = "before"
    forever: bool = False
    calls: int = 0

    def strikes(self) -> bool:
        """Whether this call fails."""
        if not self.nth:
            return False
        self.calls += 1
        return self.calls == self.nth or (self.forever and self.calls > self.nth)

    @property
    def reached(self) -> bool:
        """Whether a call has failed."""
        return bool(self.nth) and self.calls >= self.nth

    def read(self, work: Callable[[], Any]) -> Any:
        """A call that changes nothing."""
        if self.strikes():
            raise StoreError("injected")
        return work()

    def swap(self, work: Callable[[], Any]) -> Any:
        """A call that may have changed something."""
        if not self.strikes():
            return work()
        if self.mode == "after" and self.calls == self.nth:
            work()
        raise StoreError("injected", unknown=self.mode != "before")

    def fetch(self) -> None:
        """A call of the source."""
        if self.strikes():
            raise SourceError("injected")


class FaultyStore:
    """A memory store whose calls can fail."""

    def __init__(self, inner: MemoryStore, fault: Fault) -> None:
        self.inner, self.fault = inner, fault

    def read(self, keys) -> Answer:
        """As the port says, or a fault."""
        return self.fault.read(lambda: self.inner.read(keys))

    def swap(self, writes, *, seen={}) -> Answer:  # noqa: B006  as the port has it
        """As the port says, or a fault."""
        return self.fault.swap(lambda: self.inner.swap(writes, seen=seen))

    def scan(self, prefix):
        """As the port says, or a fault."""
        return self.fault.read(lambda: self.inner.scan(prefix))

    def close(self) -> None:
        """Nothing: others use the memory too."""


class AsyncFaultyStore(FaultyStore):
    """The coroutine twin."""

    async def read(self, keys) -> Answer:
        """As the port says, or a fault."""
        await asyncio.sleep(0)
        return super().read(keys)

    async def swap(self, writes, *, seen={}) -> Answer:  # noqa: B006  as the port has it
        """As the port says, or a fault."""
        await asyncio.sleep(0)
        return super().swap(writes, seen=seen)

    async def scan(self, prefix):
        """As the port says, or a fault."""
        return list(super().scan(prefix))

    async def close(self) -> None:
        """Nothing: others use the memory too."""


class Source:
    """An account of three lines, whose list can fail."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault

    def fetch(self):
        """All lines, or a fault."""
        self.fault.fetch()
        return [Line(each) for each in LINES]

    def classify(self, result):
        """Only `Told` is known."""
        return result.verdict if isinstance(result, Told) else None


class AsyncSource(Source):
    """The coroutine twin."""

    async def fetch(self):
        """All lines, or a fault."""
        await asyncio.sleep(0)
        return super().fetch()


def at_once(coroutine) -> Any:
    """The result of a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits")


class Awaited:
    """A Router, or one of its reservations, with the verbs of an AsyncRouter."""

    def __init__(self, owner: Any) -> None:
        self._owner = owner

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._owner, name)
        if not callable(value):
            return value

        async def verb(*arguments, **keywords):
            if name == "send":
                to, call = arguments
                arguments = (to, lambda made: at_once(call(Awaited(made))))
            result = value(*arguments, **keywords)
            return Awaited(result) if isinstance(result, Reservation) else result

        return verb

    async def __aenter__(self):
        """As the owner's."""
        self._owner.__enter__()
        return self

    async def __aexit__(self, *exc_info) -> None:
        """As the owner's."""
        self._owner.__exit__(*exc_info)


class Stage:
    """One world for one run: a store in memory, a clock, a faultless router, and the one that meets the faults."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.clock = ManualClock(NOW)
        self.memory = MemoryStore()
        self.fault = Fault()
        self.sent: list[tuple[object, str, str]] = []
        self.steady = Router(Source(Fault()), policy=RULES, store=self.memory, clock=self.clock)
        self.router: Any = self.door(self.fault)
        self.kept: dict[str, Any] = {}

    def door(self, fault: Fault) -> Any:
        """A router whose calls may fail, to be awaited whichever kind it is."""
        more = {"policy": RULES, "clock": self.clock}
        if self.kind == "sync":
            return Awaited(Router(Source(fault), store=FaultyStore(self.memory, fault), **more))
        return AsyncRouter(AsyncSource(fault), store=AsyncFaultyStore(self.memory, fault), **more)

    async def call(self, made) -> str:
        """The provider accepts."""
        self.sent.append((made.to, made.number, made.id))
        return "accepted"

    def state(self) -> dict[str, object]:
        """Everything a person can see, by a router of its own."""
        looker = Router(Source(Fault()), policy=RULES, store=self.memory, clock=self.clock)
        owners = {}
        for to in (*PEOPLE, GROUP):
            found = looker.assignment(to)
            owners[to] = found and found.number
        views = {
            view.line.number: (view.standing, view.used, view.budget) for view in looker.lines()
        }
        wanted = {to: looker.preview(to).reason in {"opted_out", "blocked"} for to in PEOPLE}
        return {"owners": owners, "lines": views, "blocked": wanted}


Verb = Callable[[Stage], Awaitable[Any]]


@attrs.frozen
class Case:
    """A verb, what comes before it (without faults), and whether its router has done something before.

    *costly*: where the answer to its reservation and then the store are lost, the charge and the assignment that nobody
    holds stay, as after a crash.
    """

    act: Verb
    before: Verb | None = None
    warm: bool = False
    costly: bool = False


CASES: dict[str, Case] = {}


def case(*, before: Verb | None = None, warm: bool | None = None, costly: bool = False):
    """Register a verb: with a router that has just been made, with one that has worked before, or with both."""

    def register(act: Verb) -> Verb:
        for heat in (False, True) if warm is None else (warm,):
            name = f"{act.__name__.strip('_')}-{'warm' if heat else 'cold'}"
            CASES[name] = Case(act, before, heat, costly)
        return act

    return register


async def known(stage: Stage) -> None:
    """Ann and Bob belong to A, the line is in use, and Eve opted out."""
    for to in (ANN, BOB):
        stage.steady.assign(to, A)
    stage.steady.reserve(DAN, line=B)
    stage.steady.report(OptedOut(EVE, at=NOW))


async def flagged(stage: Stage) -> None:
    """As `known`, and A is FLAGGED."""
    await known(stage)
    stage.steady.report(LineChanged(A, at=NOW, status="FLAGGED"))


async def reserved(stage: Stage) -> None:
    """The router has reserved for Ann."""
    await known(stage)
    stage.kept["made"] = await stage.router.reserve(CAT, line=C)


async def keyed(stage: Stage) -> None:
    """The router has reserved for Ann, with a key."""
    await known(stage)
    stage.kept["made"] = await stage.router.reserve(CAT, line=C, key="k")


@case(before=known)
async def _reserve_new(stage):
    return (await stage.router.reserve(CAT)).number


@case(before=known)
async def _reserve_with_key(stage):
    return (await stage.router.reserve(CAT, key="k")).number


@case(before=known)
async def _reserve_pinned(stage):
    return (await stage.router.reserve(CAT, line=C)).number


@case(before=known)
async def _reserve_group(stage):
    return (await stage.router.reserve(GROUP)).number


@case(before=known)
async def _reserve_known(stage):
    return (await stage.router.reserve(ANN)).number


@case(before=known)
async def _reserve_inbound(stage):
    return (await stage.router.reserve(CAT, inbound=True, line=B)).number


@case(before=flagged)
async def _reserve_moved(stage):
    return (await stage.router.reserve(ANN)).number


@case(before=known)
async def _reserve_blocked(stage):
    try:
        await stage.router.reserve(EVE)
    except Blocked:
        return
    raise AssertionError("reserved for somebody who opted out")


@case(before=known)
async def _preview(stage):
    return (await stage.router.preview(CAT)).outcome


@case(before=known)
async def _send_new(stage):
    return await stage.router.send(CAT, stage.call)


@case(before=known)
async def _send_with_key(stage):
    try:
        return await stage.router.send(CAT, stage.call, key="k")
    except AlreadySent:
        return "accepted"


@case(before=known)
async def _send_known(stage):
    return await stage.router.send(ANN, stage.call)


@case(before=known, costly=True)
async def _send_failing_over(stage):
    async def call(made):
        if made.number != C:
            raise Told(Outcome.LINE_REFUSED)
        return await stage.call(made)

    return await stage.router.send(CAT, call)


@case(before=known, costly=True)
async def _send_not_sent(stage):
    async def call(made):
        raise Told(Outcome.NOT_SENT)

    try:
        await stage.router.send(CAT, call)
    except Told:
        return


@case(before=known, costly=True)
async def _send_recipient_refused(stage):
    async def call(made):
        raise Told(Outcome.RECIPIENT_REFUSED)

    try:
        await stage.router.send(CAT, call)
    except (Told, Blocked):
        return


@case(before=known, warm=True)
async def _send_after_a_wait(stage):
    stage.steady.assign_many([])
    return await stage.router.send(CAT, stage.call, line=B, max_wait=60)


@case(before=known)
async def _report_critical(stage):
    await stage.router.report(LineChanged(B, at=NOW, reputation="CRITICAL"))


@case(before=known)
async def _report_flagged(stage):
    await stage.router.report(LineChanged(B, at=NOW, status="FLAGGED"))


@case(before=known)
async def _report_released(stage):
    await stage.router.report(LineReleased(B, at=NOW + TTL + 2))


@case(before=known)
async def _report_assigned(stage):
    await stage.router.report(LineAssigned(B, at=NOW))


@case(before=known)
async def _report_reply(stage):
    await stage.router.report(Replied(B, to=CAT, at=NOW, event_id="e"))


@case(before=known)
async def _report_stop(stage):
    await stage.router.report(Replied(A, to=ANN, at=NOW, text="STOP", event_id="e"))


@case(before=known)
async def _report_opt_out(stage):
    await stage.router.report(OptedOut(ANN, at=NOW))


@case(before=known)
async def _report_opt_in(stage):
    await stage.router.report(OptedIn(EVE, at=NOW + 1))


@case(before=known)
async def _refresh(stage):
    await stage.router.refresh()


@case(before=known)
async def _lines(stage):
    return len(await stage.router.lines())


@case(before=known)
async def _assignment(stage):
    return (await stage.router.assignment(ANN)).number


@case(before=known)
async def _assign(stage):
    await stage.router.assign(CAT, B)


@case(before=known)
async def _assign_many(stage):
    await stage.router.assign_many([(CAT, B), (GROUP, C), (ANN, A)])


@case(before=known)
async def _move_there(stage):
    await stage.router.move(ANN, C)


@case(before=known)
async def _forget(stage):
    await stage.router.forget(ANN)


@case(before=known)
async def _pause(stage):
    await stage.router.pause(B)


@case(before=known)
async def _drain(stage):
    await stage.router.drain(B)


async def paused(stage: Stage) -> None:
    """As `known`, and B is paused."""
    await known(stage)
    stage.steady.pause(B)


@case(before=paused)
async def _resume(stage):
    await stage.router.resume(B)


@case(before=known)
async def _capacity(stage):
    return (await stage.router.capacity(horizon=HOUR)).total


@case(before=known)
async def _plan(stage):
    return len((await stage.router.plan([ANN, CAT], deadline=NOW + HOUR)).slots)


def settling(outcome: Outcome, before: Verb) -> None:
    """Register the settling of a reservation, with and without a key."""

    async def settle(stage):
        await stage.kept["made"].settle(outcome, chat_id="c", retry_after=5.0)

    settle.__name__ = f"settle_{outcome.lower()}_{before.__name__}"
    case(before=before, warm=True)(settle)


for each in Outcome:
    settling(each, reserved)
    settling(each, keyed)


@case(before=reserved, warm=True)
async def _release(stage):
    await stage.kept["made"].release()


@case(before=reserved, warm=True)
async def _check(stage):
    await stage.kept["made"].check()


@case(before=reserved, warm=True)
async def _check_in_vain(stage):
    stage.steady.pause(C)
    try:
        await stage.kept["made"].check()
    except Held:
        return
    raise AssertionError("went through a closed gate")


@case(before=reserved, warm=True)
async def _context(stage):
    made = stage.kept["made"]
    if made.outcome is None:
        async with made:
            await stage.call(made)


@case(before=reserved, warm=True)
async def _close(stage):
    await stage.router.close()


async def run(kind: str, name: str, fault: Fault) -> tuple[Stage, bool]:
    """The verb, with these faults, to the first answer; the world after it, and whether it gave one."""
    stage, told = Stage(kind), CASES[name]
    if told.warm:
        await stage.router.lines()
    if told.before is not None:
        await told.before(stage)
    stage.clock.advance(TTL + 1)
    for field in ("nth", "mode", "forever"):
        setattr(stage.fault, field, getattr(fault, field))
    try:
        await told.act(stage)
    except (StoreError, SourceError, StaleHealth, Told):
        return stage, False
    return stage, True


def check_the_world(stage: Stage, name: str, reference: dict[str, object]) -> dict[str, object]:
    """No overspending, one line each, every message that went out charged."""
    state = stage.state()
    for _, spent, budget in state["lines"].values():
        assert spent <= BUDGET
        assert budget is None or budget <= BUDGET
    for to, number, _ in stage.sent:
        owner = state["owners"][to]
        assert owner == number, f"{name}: sent from {number}, belongs to {owner}"
    assert len({(to, ident) for to, _, ident in stage.sent}) == len(stage.sent)
    charges = sum(used for _, used, _ in state["lines"].values())
    most = sum(used for _, used, _ in reference["lines"].values())
    assert charges <= most + 1
    return state


async def repeat(stage: Stage, name: str, *, lost: bool) -> None:
    """The verb again, without faults. Where an assignment was lost on the way, its line may refuse first."""
    for left in (lost, False):
        stage.clock.advance(TTL + 1)
        try:
            await CASES[name].act(stage)
        except Told:
            if not left:
                raise
        else:
            return


FORMS = [(mode, forever) for mode in ("before", "unknown", "after") for forever in (False, True)]


async def sweep(kind: str, name: str) -> int:
    """Every N in every form; how many runs met a fault."""
    expected, answered = await run(kind, name, Fault())
    assert answered
    reference, met = expected.state(), 0
    for mode, forever in FORMS:
        for nth in range(1, 60):
            stage, answered = await run(kind, name, Fault(nth, mode, forever))
            reached = stage.fault.reached
            stage.fault.nth = 0
            check_the_world(stage, name, reference)
            lost = CASES[name].costly and mode == "after" and forever and not answered
            if not answered:
                assert reached, "an error without a fault"
                await repeat(stage, name, lost=lost)
            else:
                await stage.router.lines()  # what was left over is written with the next call
            state = check_the_world(stage, name, reference)
            assert len(stage.sent) == len(expected.sent), "sent once too often, or not at all"
            if not lost:
                assert state == reference, f"{name}: call {nth} failing {mode}, forever: {forever}"
            assert state["blocked"] == reference["blocked"]
            met += reached
            if not reached:
                break
        else:
            pytest.fail("too many calls")
    return met


@pytest.mark.parametrize("name", CASES)
def test_the_nth_failure_of_a_sync_call_leaves_nothing_half_done(name):
    """For Router: after any one failed call, or an outage from there on, the verb can be repeated and ends as it should."""
    met = at_once(sweep("sync", name))
    assert met or name.startswith(("close", "check_in", "settle_sent", "settle_unknown"))


@pytest.mark.parametrize("name", CASES)
async def test_the_nth_failure_of_an_async_call_leaves_nothing_half_done(name):
    """For AsyncRouter the same."""
    met = await sweep("async", name)
    assert met or name.startswith(("close", "check_in", "settle_sent", "settle_unknown"))


def test_every_public_verb_is_among_them():
    """No verb of a router or a reservation is left out."""
    verbs = {name for name in vars(Router) if not name.startswith("_")}
    verbs |= {
        name for name, value in vars(Reservation).items() if callable(value) and name[0] != "_"
    }
    named = {name.split("-")[0] for name in CASES}
    missing = {verb for verb in verbs if not any(verb in name for name in named)}
    assert missing == {"keep_fresh", "reload", "shadowed"}
