"""Both doors, side by side: whatever is asked of Router and of AsyncRouter, they answer and end alike; and what only a
coroutine can do, being cancelled at every await, leaves nothing half done."""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import attrs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from linepicker import (
    AlreadySent,
    AsyncRouter,
    Blocked,
    Delivered,
    Held,
    Line,
    LineChanged,
    LinePickerError,
    LineReleased,
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
    StoreError,
    Verdict,
)
from linepicker._asks import Dice
from linepicker.stores import SAME, Answer, Handle
from linepicker.stores import open as open_store
from linepicker.stores.memory import AsyncMemoryStore, MemoryStore
from linepicker.testing import ManualClock

EXAMPLES = int(os.environ.get("LINEPICKER_EXAMPLES", "60"))
NOW, TTL, HOUR, DAY = 1_790_000_000.0, 60.0, 3600.0, 86400.0
A, B, C = "+12025550100", "+12025550101", "+12025550102"
LINES = (A, B, C)
ANN, BOB, CAT = "+14155550101", "+14155550102", "+14155550103"
RULES = {
    "limits": {"new_per_day": 6, "new_per_hour": 4, "pair_per_minute": 4, "moves_per_day": 2},
    "pace": {"new_gap": 20, "new_burst": 2, "message_gap": 2, "message_burst": 3, "spread": "off"},
    "stickiness": {"on_critical": "move"},
    "learn": {"enabled": False},
}


def person(n: int) -> str:
    """The n-th recipient."""
    return f"+1415{n:07d}"


def policy(**tables) -> Policy:
    """RULES with these tables laid over."""
    return Policy.from_dict(
        {name: {**RULES.get(name, {}), **tables.get(name, {})} for name in RULES}
    )


FREE = Policy.from_dict(
    {
        "limits": dict.fromkeys(("new_per_day", "new_per_hour", "pair_per_minute"), "off"),
        "pace": {"new_gap": 0, "message_gap": 0},
        "learn": {"enabled": False},
    }
)


class Told(Exception):
    """What the provider said, which its source can classify."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.verdict = Verdict(outcome, retry_after=30.0)


class Account:
    """A provider whose list can be changed, and can fail."""

    def __init__(self) -> None:
        self.lines = {number: Line(number) for number in LINES}
        self.error: Exception | None = None
        self.fetches = 0

    def list(self) -> list[Line]:
        """What is answered."""
        self.fetches += 1
        if self.error is not None:
            raise self.error
        return list(self.lines.values())

    def classify(self, result):
        """Only `Told` is known."""
        return result.verdict if isinstance(result, Told) else None


class SyncAccount(Account):
    """For Router."""

    def fetch(self):
        """The list."""
        return self.list()


class AsyncAccount(Account):
    """For AsyncRouter; it suspends, as a request does."""

    async def fetch(self):
        """The list."""
        await asyncio.sleep(0)
        return self.list()


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


# The same story at both doors


class Theatre:
    """Two routers of one kind over one store, and what they answered."""

    def __init__(self, kind: str, handle: Handle | None = None) -> None:
        self.clock = ManualClock(NOW)
        self.handle = handle or open_store("memory://")
        self.account = SyncAccount() if kind == "sync" else AsyncAccount()
        self.routers: list[Any] = []
        for _ in range(2):
            more = {"policy": policy(), "store": self.handle, "clock": self.clock}
            if kind == "sync":
                router = Router(self.account, **more)
                self.routers.append(Awaited(router))
            else:
                self.routers.append(router := AsyncRouter(self.account, **more))
            # Who meets another writer throws no dice, and loses no time.
            vars(router).get("_at_once", router._answers)[Dice] = lambda _: 0.0
        self.made: list[Any] = []
        self.ids: dict[str, int] = {}

    def told(self, made) -> tuple:
        """A reservation, without what chance gave it."""
        name = self.ids.setdefault(made.id, len(self.ids))
        return (name, made.to, made.number, made.kind, made.send_at, made.moved_from, made.outcome)

    async def play(self, script) -> list[object]:
        """What each step of the script answered or raised."""
        trace = []
        for verb, *arguments in script:
            try:
                answer = await getattr(self, verb)(*arguments)
            except (LinePickerError, ValueError, Told) as error:
                decision = getattr(error, "decision", None)
                answer = (
                    type(error).__name__,
                    decision and (decision.reason, decision.number, decision.retry_at),
                )
            trace.append((verb, answer))
        return trace

    async def end(self) -> dict[str, object]:
        """How things stand, with the provider there."""
        self.account.error = None
        self.clock.advance(HOUR)
        router = self.routers[0]
        people = [person(n) for n in range(4)]
        return {
            "lines": await router.lines(),
            "people": [await router.assignment(to) for to in people],
            "previews": [(await router.preview(to)).to_json() for to in people],
            "capacity": (await router.capacity(horizon=HOUR)).moments,
            "plan": await router.plan(people, deadline=self.clock.now() + HOUR),
            "now": self.clock.now(),
            "fetches": self.account.fetches,
        }

    async def reserve(self, which, to, wishes):
        """A reservation."""
        made = await self.routers[which].reserve(to, **dict(wishes))
        self.made.append(made)
        return self.told(made)

    async def preview(self, which, to, wishes):
        """A preview."""
        return (await self.routers[which].preview(to, **dict(wishes))).to_json()

    async def settle(self, n, outcome):
        """One of the reservations ends."""
        if n < len(self.made):
            await self.made[n].settle(outcome, chat_id="chat", retry_after=40.0)
            return self.told(self.made[n])
        return None

    async def check(self, n):
        """One of the reservations is checked."""
        if n < len(self.made):
            await self.made[n].check()
            return self.told(self.made[n])
        return None

    async def enter(self, n, outcome):
        """One of the reservations is used as a context manager."""
        if n >= len(self.made):
            return None
        async with self.made[n]:
            if outcome is not None:
                raise Told(outcome)
        return self.told(self.made[n])

    async def send(self, which, to, outcomes, key, max_wait):
        """A send whose calls end so."""
        calls = []

        async def call(made):
            calls.append(self.told(made))
            outcome = outcomes[min(len(calls), len(outcomes)) - 1]
            if outcome is not None:
                raise Told(outcome)
            return "sent"

        try:
            answer = await self.routers[which].send(to, call, key=key, max_wait=max_wait)
        except AlreadySent as error:
            return "already", self.told(error.reservation), calls
        except Told as told:
            answer = told.verdict.outcome
        return answer, calls, self.clock.now()

    async def wait(self, seconds):
        """Time passes."""
        self.clock.advance(seconds)

    async def says(self, number, reputation):
        """The list changes."""
        if number in self.account.lines:
            line = self.account.lines[number]
            self.account.lines[number] = attrs.evolve(line, reputation=reputation)

    async def outage(self, down):
        """The provider goes, or comes back."""
        self.account.error = SourceError("down") if down else None

    async def report(self, which, kind, number, to):
        """A report of now."""
        at = self.clock.now()
        report = {
            "critical": LineChanged(number, at=at, reputation=Reputation.CRITICAL),
            "healthy": LineChanged(number, at=at, reputation=Reputation.HEALTHY),
            "flagged": LineChanged(number, at=at, status="FLAGGED"),
            "active": LineChanged(number, at=at, status="ACTIVE"),
            "released": LineReleased(number, at=at),
            "out": OptedOut(to, at=at),
            "in": OptedIn(to, at=at),
            "reply": Replied(number, to=to, at=at),
            "stop": Replied(number, to=to, at=at, text="STOP", event_id=f"e{at}"),
            "delivered": Delivered(at=at, number=number, to=to),
        }[kind]
        return await self.routers[which].report(report)

    async def operate(self, which, verb, number):
        """The operator acts."""
        return await getattr(self.routers[which], verb)(number)

    async def people(self, which, verb, to, number):
        """The importer acts."""
        router = self.routers[which]
        if verb == "forget":
            return await router.forget(to)
        if verb == "assign_many":
            return await router.assign_many([(to, number), (person(3), number)])
        return await getattr(router, verb)(to, number)

    async def refresh(self, which):
        """The list is read now."""
        return await self.routers[which].refresh()

    async def reload(self, which, day):
        """Another policy."""
        return await self.routers[which].reload(policy(limits={"new_per_day": day}))


WHICH = st.integers(0, 1)
WHO = st.integers(0, 3).map(person)
LINE = st.sampled_from(LINES)
OUTCOME = st.sampled_from(Outcome)
KEY = st.sampled_from([None, None, "k1", "k2"])
WISHES = st.fixed_dictionaries(
    {},
    optional={
        "line": LINE,
        "exclude": st.lists(LINE, max_size=2).map(tuple),
        "max_delay": st.sampled_from([0.0, 30.0, 500.0]),
        "key": KEY,
        "inbound": st.booleans(),
        "override_optout": st.booleans(),
        "tags": st.sampled_from([(), ("gold",)]),
    },
).map(lambda wishes: tuple(wishes.items()))
STEPS = st.one_of(
    st.tuples(st.just("reserve"), WHICH, WHO, WISHES),
    st.tuples(st.just("reserve"), WHICH, st.integers(50, 10**6).map(person), st.just(())),
    st.tuples(st.just("preview"), WHICH, WHO, WISHES),
    st.tuples(st.just("settle"), st.integers(0, 5), OUTCOME),
    st.tuples(st.just("check"), st.integers(0, 5)),
    st.tuples(st.just("enter"), st.integers(0, 5), st.none() | OUTCOME),
    st.tuples(
        st.just("send"),
        WHICH,
        WHO,
        st.lists(st.none() | OUTCOME, min_size=1, max_size=3),
        KEY,
        st.sampled_from([None, 100.0, 5000.0]),
    ),
    st.tuples(st.just("wait"), st.sampled_from([1.0, 19.0, 61.0, 1000.0, 4000.0, 90000.0])),
    st.tuples(st.just("says"), LINE, st.sampled_from(Reputation)),
    st.tuples(st.just("outage"), st.booleans()),
    st.tuples(
        st.just("report"),
        WHICH,
        st.sampled_from(
            [
                "critical",
                "healthy",
                "flagged",
                "active",
                "released",
                "out",
                "in",
                "reply",
                "stop",
                "delivered",
            ]
        ),
        LINE,
        WHO,
    ),
    st.tuples(
        st.just("operate"), WHICH, st.sampled_from(["pause", "drain", "resume", "resume"]), LINE
    ),
    st.tuples(
        st.just("people"),
        WHICH,
        st.sampled_from(["assign", "move", "forget", "assign_many"]),
        WHO,
        LINE,
    ),
    st.tuples(st.just("refresh"), WHICH),
    st.tuples(st.just("reload"), WHICH, st.sampled_from([1, 6, 50])),
)

FAILING_OVER = [
    ("send", 0, person(0), [Outcome.LINE_REFUSED, Outcome.LINE_REFUSED, None], "k1", None),
    ("send", 1, person(0), [None], "k1", None),
    ("report", 1, "out", A, person(0)),
    ("send", 0, person(0), [None], None, None),
    ("wait", 90000.0),
    ("send", 1, person(1), [Outcome.UNKNOWN], "k2", 5000.0),
    ("send", 0, person(1), [None], "k2", None),
]
WAITING = [
    *(("reserve", n % 2, person(n), (("line", A), ("max_delay", 500.0))) for n in range(4)),
    ("enter", 3, None),
    ("enter", 2, Outcome.NOT_SENT),
    ("operate", 1, "pause", A),
    ("check", 1),
    ("enter", 0, None),
    ("operate", 0, "resume", A),
    ("people", 1, "move", person(3), B),
    ("report", 0, "flagged", B, person(3)),
    ("reserve", 1, person(3), ()),
]
OUTAGE = [
    ("outage", True),
    ("reserve", 0, person(0), ()),
    ("outage", False),
    ("reserve", 0, person(0), ()),
    ("outage", True),
    ("wait", 1000.0),
    ("reserve", 1, person(1), ()),
    ("wait", 90000.0),
    ("reserve", 0, person(0), ()),
    ("refresh", 0),
    ("outage", False),
    ("refresh", 0),
    ("reserve", 0, person(0), ()),
]


@settings(max_examples=EXAMPLES)
@given(st.lists(STEPS, max_size=30))
@example(FAILING_OVER)
@example(WAITING)
@example(OUTAGE)
def test_both_doors_tell_the_same_story(script):
    """Step for step the same answers and refusals, and at the end the same lines, people, plans and moment."""
    sync = Theatre("sync")
    trace, end = at_once(sync.play(script)), at_once(sync.end())

    async def play():
        theatre = Theatre("async")
        return await theatre.play(script), await theatre.end()

    assert asyncio.run(play()) == (trace, end)


@pytest.mark.parametrize("script", [FAILING_OVER, WAITING, OUTAGE])
def test_both_doors_tell_the_same_story_on_sqlite(tmp_path, script):
    """On a file as in memory, and with each door on its own side of the same handle."""
    ends = []
    for kind in ("sync", "async"):
        handle = open_store(f"sqlite:///{tmp_path}/{kind}.db?synchronous=normal")
        theatre = Theatre(kind, handle)

        async def play(theatre=theatre):
            return await theatre.play(script), await theatre.end()

        ends.append(at_once(play()) if kind == "sync" else asyncio.run(play()))
        handle.close()
    theatre = Theatre("sync")
    memory = at_once(theatre.play(script)), at_once(theatre.end())
    for _, end in (*ends, memory):
        del end["fetches"]  # routers on one file share what they read
    assert ends == [memory, memory]


def test_both_doors_may_share_one_store(tmp_path):
    """A Router and an AsyncRouter over one handle know the same people and spend the same budgets."""
    clock, handle = ManualClock(NOW), open_store(f"sqlite:///{tmp_path}/x.db?synchronous=normal")
    rules = policy(limits={"new_per_hour": "off"}, pace={"new_gap": 0})
    sync = Router(SyncAccount(), policy=rules, clock=clock, store=handle)

    async def scene():
        router = AsyncRouter(AsyncAccount(), policy=rules, clock=clock, store=handle)
        made = await router.reserve(ANN, key="k")
        assert sync.reserve(ANN, key="k").id == made.id
        await router.pause(A)
        with pytest.raises(Held):
            sync.reserve(BOB, line=A)
        served = 1
        with suppress(NoLine):
            for n in range(100):
                if n % 2:
                    sync.reserve(person(n))
                else:
                    await router.reserve(person(n))
                served += 1
        assert served - 1 == 2 * 6 - (made.number != A)
        sync.report(OptedOut(ANN, at=NOW))
        with pytest.raises(Blocked):
            await router.reserve(ANN)

    asyncio.run(scene())
    handle.close()


# Cancelled at every await


class Suspending:
    """An async store over memory that suspends before and after each call, so that every await can be hit."""

    def __init__(self, inner: MemoryStore) -> None:
        self.inner = inner

    async def read(self, keys) -> Answer:
        """As the memory."""
        await asyncio.sleep(0)
        answer = self.inner.read(keys)
        await asyncio.sleep(0)
        return answer

    async def swap(self, writes, *, seen={}) -> Answer:  # noqa: B006  as the port has it
        """As the memory."""
        await asyncio.sleep(0)
        answer = self.inner.swap(writes, seen=seen)
        await asyncio.sleep(0)
        return answer

    async def scan(self, prefix):
        """As the memory."""
        return list(self.inner.scan(prefix))

    async def close(self) -> None:
        """Others use the memory too."""


class Cutting:
    """An async store over SQLite that cancels a task when a call is made (with its work begun), or has been answered."""

    def __init__(self, handle: Handle) -> None:
        self.inner = handle.astore()
        self.task: asyncio.Task | None = None
        self.at = 0
        self.after = False
        self.calls = 0

    async def _cut(self, work: Callable[[], Awaitable[Any]]) -> Any:
        self.calls += 1
        hit = self.calls == self.at and self.task is not None
        if hit and not self.after:
            self.task.cancel()
        answer = await work()
        if hit and self.after:
            self.task.cancel()
            await asyncio.sleep(0)
        return answer

    async def read(self, keys) -> Answer:
        """As the inner store."""
        return await self._cut(lambda: self.inner.read(keys))

    async def swap(self, writes, *, seen={}) -> Answer:  # noqa: B006  as the port has it
        """As the inner store."""
        held = dict(seen)
        return await self._cut(lambda: self.inner.swap(writes, seen=held))

    async def scan(self, prefix):
        """As the inner store."""
        return await self.inner.scan(prefix)

    async def close(self) -> None:
        """Others use the file too."""


class Scene:
    """One verb to be torn away: its router, and a look at what is stored by another."""

    def __init__(self, store: Any, looker: Any) -> None:
        self.clock = ManualClock(NOW)
        self.router = AsyncRouter(AsyncAccount(), policy=FREE, clock=self.clock, store=store)
        self.looker = Router(SyncAccount(), policy=FREE, clock=self.clock, store=looker)
        self.looker.lines()
        self.sent: list[str] = []
        self.calling = False

    async def call(self, made) -> str:
        """The provider takes its time, and accepts."""
        self.calling = True
        await asyncio.sleep(0)
        self.sent.append(made.id)
        await asyncio.sleep(0)
        self.calling = False
        return "accepted"

    @property
    def charges(self) -> int:
        """All charges."""
        return sum(view.used for view in self.looker.lines())

    @property
    def owner(self) -> str | None:
        """Ann's line."""
        found = self.looker.assignment(ANN)
        return found and found.number


async def torn(task: asyncio.Task) -> bool:
    """Whether the task ended by being cancelled; the clean-up that goes on is waited for."""
    try:
        await task
    except asyncio.CancelledError:
        cancelled = True
    else:
        cancelled = False
    for other in asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait([other])
    return cancelled


Act = Callable[[Scene], Awaitable[Any]]


def cuts(tmp_path, *, twice: bool = False) -> Iterator[Callable]:
    """Ways to run a verb and cancel it: at the n-th step in memory; at or after the n-th call on SQLite."""

    async def in_memory(n: int, before: Act, act: Act):
        memory = MemoryStore()
        scene = Scene(Suspending(memory), memory)
        await before(scene)
        task = asyncio.ensure_future(act(scene))
        for _ in range(n):
            await asyncio.sleep(0)
        reached = not task.done()
        calling = scene.calling
        task.cancel()
        if twice:
            await asyncio.sleep(0)
            task.cancel()
        return scene, task, await torn(task), reached, calling

    yield in_memory

    for after in (False, True):

        async def on_sqlite(n: int, before: Act, act: Act, after=after):
            path = tmp_path / f"{after}-{n}-{len(list(tmp_path.iterdir()))}.db"
            handle = open_store(f"sqlite:///{path}?synchronous=normal")
            store = Cutting(handle)
            scene = Scene(store, handle)
            await before(scene)
            store.calls, store.at, store.after = 0, n, after
            task = asyncio.ensure_future(act(scene))
            store.task = task
            cancelled = await torn(task)
            reached = store.calls >= n
            store.task = None
            return scene, task, cancelled, reached, False

        yield on_sqlite


async def nothing(scene: Scene) -> None:
    """No story before."""


async def everywhere(tmp_path, before: Act, act: Act, look: Callable, *, twice=False) -> int:
    """*act* cancelled at each point until it is not reached; *look* judges each end. How often it was cancelled."""
    hits = 0
    for cut in cuts(tmp_path, twice=twice):
        for n in range(1 if cut.__name__ == "on_sqlite" else 0, 200):
            scene, task, cancelled, reached, calling = await cut(n, before, act)
            hits += cancelled
            await look(scene, task, cancelled=cancelled, calling=calling)
            if not reached:
                break
        else:
            pytest.fail("it never ends")
    return hits


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("key", [None, "k"])
async def test_a_cancelled_reserve_did_nothing(tmp_path, key, twice):
    """Wherever it is cancelled, even twice: no charge, no assignment, and the next one is the first."""

    async def act(scene):
        return await scene.router.reserve(ANN, key=key)

    async def look(scene, task, *, cancelled, calling):
        assert (scene.charges, scene.owner is None) == ((0, True) if cancelled else (1, False))
        made = await scene.router.reserve(ANN, key=key)
        assert scene.charges == 1
        assert made.number == scene.owner
        assert cancelled == (made.kind == "new") or key

    assert await everywhere(tmp_path, nothing, act, look, twice=twice) > 8


async def test_a_cancelled_move_of_a_known_recipient_did_nothing(tmp_path):
    """Torn out of a reserve that would have moved them, they are where they were."""

    async def before(scene):
        scene.looker.assign(ANN, A)
        scene.looker.report(LineChanged(A, at=NOW, status="FLAGGED"))

    async def act(scene):
        return await scene.router.reserve(ANN)

    async def look(scene, task, *, cancelled, calling):
        assert scene.charges == (0 if cancelled else 1)
        assert (scene.owner == A) == cancelled

    assert await everywhere(tmp_path, before, act, look) > 8


async def test_a_reserve_cancelled_while_its_key_is_known_keeps_the_key(tmp_path):
    """The earlier reservation is not given back by a torn repetition."""

    async def before(scene):
        scene.first = scene.looker.reserve(ANN, key="k")

    async def act(scene):
        return await scene.router.reserve(ANN, key="k")

    async def look(scene, task, *, cancelled, calling):
        assert (scene.charges, scene.owner) == (1, scene.first.number)
        assert (await scene.router.reserve(ANN, key="k")).id == scene.first.id

    assert await everywhere(tmp_path, before, act, look) > 8


@pytest.mark.parametrize("key", [None, "k"])
async def test_a_cancelled_send_is_all_or_nothing(tmp_path, key):
    """Before the call nothing happened; from the call on it counts as sent, and with a key is never sent under another id."""

    async def act(scene):
        return await scene.router.send(ANN, scene.call, key=key)

    async def look(scene, task, *, cancelled, calling):
        called = bool(scene.sent) or calling
        assert scene.charges == called
        assert (scene.owner is not None) == called
        if not cancelled:
            assert task.result() == "accepted"
        before = list(scene.sent)
        with suppress(AlreadySent):
            await scene.router.send(ANN, scene.call, key=key)
        assert scene.charges == 1
        if key and before:
            assert scene.sent == before or (len(set(scene.sent)) == 1 and cancelled)

    assert await everywhere(tmp_path, nothing, act, look) > 10


async def test_a_send_whose_message_went_out_is_known_to_be_sent_even_if_cancelled(tmp_path):
    """Cancelled while the outcome is being written, the outcome is written all the same: the key is not sent again."""

    async def act(scene):
        return await scene.router.send(ANN, scene.call, key="k")

    async def look(scene, task, *, cancelled, calling):
        if not scene.sent or calling:
            return
        await scene.router.lines()
        other = AsyncRouter(
            AsyncAccount(), policy=FREE, clock=scene.clock, store=scene.router._store
        )
        with pytest.raises(AlreadySent):
            await other.send(ANN, scene.call, key="k")
        assert len(scene.sent) == 1

    assert await everywhere(tmp_path, nothing, act, look) > 10


@pytest.mark.parametrize("outcome", list(Outcome))
@pytest.mark.parametrize("key", [None, "k"])
async def test_a_cancelled_settle_can_be_repeated(tmp_path, outcome, key):
    """It is given back once or still there; repeated, it ends as if it had never been cancelled."""
    gone = outcome in {Outcome.NOT_SENT, Outcome.LINE_REFUSED, Outcome.RECIPIENT_REFUSED}

    async def before(scene):
        await scene.router.reserve(BOB, line=A)
        scene.made = await scene.router.reserve(ANN, line=A, key=key)

    async def act(scene):
        await scene.made.settle(outcome, retry_after=30.0)

    async def look(scene, task, *, cancelled, calling):
        assert scene.charges in ({1, 2} if gone else {2})
        await scene.made.settle(outcome, retry_after=30.0)
        await scene.router.lines()
        assert scene.made.outcome == outcome
        assert scene.charges == (1 if gone else 2)
        assert scene.owner == (None if gone else A)
        if key and outcome is Outcome.SENT:
            with pytest.raises(AlreadySent):
                await scene.router.send(ANN, scene.call, key=key)
        standing = next(each.standing for each in scene.looker.lines() if each.line.number == A)
        assert standing == ("ineligible" if outcome is Outcome.LINE_REFUSED else "ok")

    await everywhere(tmp_path, before, act, look)


async def test_a_cancelled_block_counts_as_unknown(tmp_path):
    """Torn out of `async with`, the message may have gone: charged. Torn while entering, it is given back."""

    async def before(scene):
        scene.made = await scene.router.reserve(ANN, line=A)
        scene.entered = False

    async def act(scene):
        async with scene.made:
            scene.entered = True
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    async def look(scene, task, *, cancelled, calling):
        assert scene.charges == 1 or not scene.entered
        if scene.entered:
            assert scene.made.outcome in {Outcome.UNKNOWN, Outcome.SENT}

    assert await everywhere(tmp_path, before, act, look) > 3


async def test_a_send_cancelled_while_it_waits_for_its_slot_is_given_back(tmp_path):
    """During the sleep before send_at nothing has gone out."""
    gate = asyncio.Event()

    class Sleepless(ManualClock):
        async def asleep(self, seconds):
            gate.set()
            await asyncio.Event().wait()

    rules = policy(pace={"new_burst": 1})
    router = AsyncRouter([Line(A)], policy=rules, clock=Sleepless(NOW))
    await router.reserve(BOB)
    calls = []

    async def call(made):
        calls.append(made)

    task = asyncio.ensure_future(router.send(ANN, call))
    await gate.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not calls
    assert await router.assignment(ANN) is None
    assert (await router.lines())[0].used == 1


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("report", (LineChanged(A, at=NOW, reputation="CRITICAL"),)),
        ("report", (Replied(A, to=BOB, at=NOW, event_id="e"),)),
        ("report", (OptedOut(ANN, at=NOW),)),
        ("pause", (A,)),
        ("assign", (CAT, A)),
        ("move", (BOB, A)),
        ("forget", (BOB,)),
        ("refresh", ()),
        ("lines", ()),
        ("preview", (ANN,)),
        ("capacity", ()),
        ("assignment", (BOB,)),
    ],
)
async def test_a_cancelled_verb_can_be_repeated(tmp_path, monkeypatch, verb, arguments):
    """Whatever was torn away, the next call goes through, and what is stored is whole."""
    monkeypatch.setattr("linepicker._plan.FORECAST_AT_MOST", 100)  # nothing limits these lines
    ends = []

    async def before(scene):
        scene.looker.assign(BOB, B)

    async def act(scene):
        return await getattr(scene.router, verb)(*arguments)

    async def look(scene, task, *, cancelled, calling):
        await getattr(scene.router, verb)(*arguments)
        owners = [scene.looker.assignment(to) for to in (ANN, BOB, CAT)]
        ends.append(
            (
                [each and each.number for each in owners],
                [(each.standing, each.used) for each in scene.looker.lines()],
                scene.looker.preview(ANN).outcome,
            )
        )

    assert await everywhere(tmp_path, before, act, look) > 2
    assert all(end == ends[0] for end in ends)


# Event loops, many at once, keeping fresh


@pytest.mark.parametrize("url", ["memory://", "sqlite:///{}/x.db?synchronous=normal"])
def test_a_reservation_outlives_its_event_loop(tmp_path, url):
    """Reserved in one loop, settled in the next, checked in a third."""
    clock = ManualClock(NOW)
    handle = open_store(url.format(tmp_path))
    router = AsyncRouter(AsyncAccount(), policy=FREE, clock=clock, store=handle)
    one, two = (asyncio.run(router.reserve(to, key=to)) for to in (ANN, BOB))
    asyncio.run(one.release())
    asyncio.run(two.check())

    async def used():
        return sum(view.used for view in await router.lines())

    assert asyncio.run(used()) == 1
    handle.close()


@pytest.mark.parametrize("fails", [False, True])
async def test_fifty_reserves_at_once_cause_one_fetch(fails):
    """Whether it succeeds or fails, all of them share its answer."""
    account = AsyncAccount()
    account.error = SourceError("down") if fails else None
    router = AsyncRouter(account, policy=FREE, clock=ManualClock(NOW))
    done = await asyncio.gather(
        *(router.reserve(person(n)) for n in range(50)), return_exceptions=True
    )
    assert account.fetches == 1
    kinds = {type(each) for each in done}
    assert kinds == {StaleHealth} if fails else not any(issubclass(k, Exception) for k in kinds)


async def test_fifty_reserves_on_an_old_list_cause_one_fetch():
    """When the list is old, one of them reads it anew, and nobody waits for it who does not have to."""
    account, clock = AsyncAccount(), ManualClock(NOW)
    router = AsyncRouter(account, policy=FREE, clock=clock)
    await router.lines()
    clock.advance(TTL + 1)
    await asyncio.gather(*(router.reserve(person(n)) for n in range(50)))
    assert account.fetches == 2


async def test_calls_that_arrive_while_the_list_is_being_written_do_not_fetch_again(tmp_path):
    """Who finds a list on its way into the store waits for it, or goes on, and asks for no second one."""
    account, handle = AsyncAccount(), open_store(f"sqlite:///{tmp_path}/x.db?synchronous=normal")
    router = AsyncRouter(account, policy=FREE, store=handle)
    tasks = []
    for n in range(100):
        tasks.append(asyncio.ensure_future(router.reserve(person(n))))
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert account.fetches == 1
    await handle.aclose()


async def test_a_list_is_taken_while_another_call_changes_the_fleets_record():
    """The first reply ever, while a list is being written that changed nothing in that record since the clock stepped back."""
    clock = ManualClock(NOW)

    class Stepping:
        async def fetch(self):
            clock.advance(-DAY)
            return [Line(A), Line(B)]

    class Meanwhile(AsyncMemoryStore):
        reply = False

        async def swap(self, writes, *, seen):
            keys = {write.key for write in writes if write.value is not SAME}
            if self.reply and keys == {f"line/{A}/standing", f"line/{B}/standing"}:
                self.reply = False
                assert await router.report(Replied(A, ANN, at=clock.now()))
            return await super().swap(writes, seen=seen)

    store = Meanwhile(MemoryStore())
    router = AsyncRouter(Stepping(), store=store, clock=clock, policy=FREE)
    for _ in range(3):
        clock.advance(DAY + 100)
        await router.refresh()
    clock.advance(DAY + 100)
    assert await router.report(LineChanged(A, reputation="AT_RISK", at=clock.now() - 50))
    store.reply = True
    await router.refresh()
    assert not store.reply
    assert (await router.assignment(ANN)).number == A


@pytest.mark.parametrize("url", ["memory://", "sqlite:///{}/x.db?synchronous=normal"])
async def test_many_tasks_never_overspend_nor_split_a_recipient(tmp_path, url):
    """Eighty tasks, two routers, twenty recipients, nine places."""
    clock, handle = ManualClock(NOW), open_store(url.format(tmp_path))
    rules = policy(limits={"new_per_day": 3, "pair_per_minute": "off"}, pace={"new_gap": 0})
    routers = [
        AsyncRouter(AsyncAccount(), policy=rules, clock=clock, store=handle) for _ in range(2)
    ]
    done = await asyncio.gather(
        *(routers[n % 2].reserve(person(n // 4), max_delay=900.0) for n in range(80)),
        return_exceptions=True,
    )
    got: dict[str, set[str]] = {}
    for each in done:
        if isinstance(each, Exception):
            assert isinstance(each, NoLine | NotNow)
        else:
            got.setdefault(each.to, set()).add(each.number)
    assert len(got) == 9
    assert all(len(numbers) == 1 for numbers in got.values())
    assert [view.used for view in await routers[0].lines()] == [3, 3, 3]
    await handle.aclose()


async def reads(account: Account, count: int) -> None:
    """Return once the list was read so often."""
    while account.fetches < count:  # noqa: ASYNC110  a manual clock's sleeps end at once
        await asyncio.sleep(0)


async def test_keep_fresh_reads_the_list_each_ttl_until_it_ends():
    """A task reads it while the block runs, bears failures, and is gone afterwards."""
    account, clock = AsyncAccount(), ManualClock(NOW)
    router = AsyncRouter(account, policy=FREE, clock=clock)
    before = asyncio.all_tasks()
    async with router.keep_fresh():
        await reads(account, 3)
        account.error = SourceError("down")
        await reads(account, 6)
        account.error = None
    fetches = account.fetches
    assert clock.now() >= NOW + 3 * TTL  # failed ones are repeated sooner
    assert asyncio.all_tasks() == before
    for _ in range(10):
        await asyncio.sleep(0)
    assert account.fetches == fetches


def test_keep_fresh_in_a_thread_reads_the_list_until_it_ends():
    """As above, with a thread, in real time."""
    account, enough = SyncAccount(), threading.Event()
    fetch = account.list

    def counted():
        if account.fetches >= 3:
            enough.set()
        return fetch()

    account.list = counted
    rules = Policy.from_dict({"health": {"ttl": 0.01, "max_age": 10.0}})
    router = Router(account, policy=rules)
    with router.keep_fresh():
        assert enough.wait(30)
    assert not any("keep-fresh" in thread.name for thread in threading.enumerate())
    assert router.reserve(ANN).kind == "new"


async def test_a_slow_source_is_left_after_a_short_while(monkeypatch):
    """A source that takes no limits is cancelled when a call has waited long enough, and the old list serves."""
    monkeypatch.setattr("linepicker._source.SHORT_FETCH", 0.05)
    cancelled = []

    class Slow(AsyncAccount):
        async def fetch(self):
            if self.fetches:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    cancelled.append(1)
                    raise
            return self.list()

    clock = ManualClock(NOW)
    router = AsyncRouter(Slow(), policy=FREE, clock=clock)
    await router.reserve(ANN)
    clock.advance(TTL + 1)
    assert (await router.reserve(ANN)).kind == "known"
    assert cancelled == [1]


async def test_async_stores_that_fail_raise_store_error_only(tmp_path):
    """A closed store is told, in every verb, and nothing else."""
    handle = open_store(f"sqlite:///{tmp_path}/x.db")
    router = AsyncRouter(AsyncAccount(), policy=FREE, clock=ManualClock(NOW), store=handle)
    made = await router.reserve(ANN)
    await handle.aclose()
    for verb in (
        lambda: router.reserve(BOB),
        lambda: router.pause(A),
        router.lines,
        made.release,
        made.check,
    ):
        with pytest.raises(StoreError):
            await verb()
    await made.settle("SENT")
    assert made.outcome is Outcome.SENT
    await router.close()
