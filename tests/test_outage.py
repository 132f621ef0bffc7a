"""While the store is out nobody new is written to; whom this process knows may be, where the policy says so, and is charged."""

import asyncio
import contextlib

import pytest

from linepicker import (
    AsyncRouter,
    Held,
    Line,
    LineChanged,
    NotNow,
    OptedOut,
    Policy,
    Router,
    StoreError,
)
from linepicker._asks import Swap
from linepicker._decode import decode
from linepicker._outage import pay
from linepicker._settle import flush
from linepicker.stores.memory import AsyncMemoryStore, MemoryStore
from linepicker.testing import ManualClock

NOW = 1_790_000_000.0
A, B = "+12025550100", "+12025550101"
ANN, BOB, CAT = "+14155550101", "+14155550102", "+14155550103"


class Flaky:
    """A store that can be away."""

    def __init__(self, store):
        self.store, self.away = store, False

    def read(self, keys):
        """Read, or fail."""
        self._there()
        return self.store.read(keys)

    def swap(self, writes, *, seen={}):  # noqa: B006  the port's default
        """Swap, or fail."""
        self._there()
        return self.store.swap(writes, seen=seen)

    def scan(self, prefix):
        """Scan, or fail."""
        self._there()
        return self.store.scan(prefix)

    def close(self):
        """Nothing is held."""

    def _there(self):
        if self.away:
            raise StoreError("the store is away")


def world(**policy):
    """A router on a store that can be away, ANN known on A."""
    clock = ManualClock(NOW)
    store = Flaky(MemoryStore(time=clock.now))
    rules = Policy.from_dict({"on_store_error": "known_only", **policy})
    router = Router([Line(A), Line(B)], policy=rules, store=store, clock=clock)
    router.assign(ANN, A)
    router.reserve(ANN).settle("SENT")
    return router, store, clock


def sent(router, number=A):
    """How many messages a line's record counts."""
    return {view.line.number: view.outcomes.get("sent", 0) for view in router.lines()}[number]


def test_by_default_nothing_goes_out_without_the_store():
    """Known or not, the answer is StoreError."""
    router, store, _ = world(on_store_error="refuse")
    store.away = True
    for to in (ANN, BOB):
        with pytest.raises(StoreError):
            router.reserve(to)


def test_whom_the_process_knows_is_served_and_charged_afterwards():
    """Each of their messages is on record once when the store is back; nobody new gets a line."""
    router, store, _ = world()
    store.away = True
    for _ in range(3):
        made = router.reserve(ANN)
        assert (made.number, made.kind) == (A, "known")
        made.settle("SENT")
    with pytest.raises(StoreError):
        router.reserve(BOB)
    store.away = False
    assert sent(router) == 4
    assert router.reserve(BOB).kind == "new"
    assert sent(router) + sent(router, B) == 5


def test_what_went_in_unseen_as_new_and_was_carried_on_as_known_is_given_back_whole():
    """The answer to a swap was lost, another call met the person meanwhile, and the store was away as it was to be asked."""
    router, store, clock = world(limits={"new_per_day": 1})
    clock.advance(3600)
    swap, met = store.swap, []

    def lost(writes, *, seen={}):  # noqa: B006  the port's default
        store.swap = swap
        assert swap(writes, seen=seen).applied
        met.append(router.reserve(BOB))
        store.away = True
        raise StoreError("the answer was lost", unknown=True)

    store.swap = lost
    made = router.reserve(BOB)
    assert (made.kind, met[0].kind, made.number) == ("known", "known", met[0].number)
    store.away = False
    used = {view.line.number: view.used for view in router.lines()}
    assert used == {A: 0, B: 0} | {made.number: 1}
    made.release()
    met[0].release()
    assert not any(view.used for view in router.lines())


def test_what_was_not_sent_is_not_charged():
    """Released in the outage, or after it, it leaves no trace."""
    router, store, _ = world()
    store.away = True
    router.reserve(ANN).release()
    later = router.reserve(ANN)
    store.away = False
    assert sent(router) == 2
    later.release()
    assert sent(router) == 1


def test_another_process_does_not_lose_its_charges():
    """What others wrote when the store was back before us stays, and ours is added to it."""
    router, store, clock = world()
    other = Router([Line(A), Line(B)], store=store.store, clock=clock)
    store.away = True
    router.reserve(ANN).settle("SENT")
    other.reserve(ANN).settle("SENT")
    store.away = False
    assert sent(router) == sent(other) == 3


def test_the_pace_is_that_of_a_line_at_risk():
    """`at_risk.pace` halves the burst: a HEALTHY line's twentieth message at once has to wait."""
    router, store, _ = world()
    store.away = True
    delays = [router.reserve(ANN, max_delay=500.0).delay for _ in range(12)]
    assert delays[0] == 0
    assert delays[-1] > 0


def test_it_ends_after_a_while():
    """`store_outage` seconds after the first failure everything is refused; a later outage has its own time."""
    router, store, clock = world(store_outage=100.0)
    store.away = True
    router.reserve(ANN).settle("SENT")
    clock.advance(50)
    router.reserve(ANN).settle("SENT")
    clock.advance(51)
    with pytest.raises(StoreError):
        router.reserve(ANN)
    store.away = False
    assert sent(router) == 3
    clock.advance(1000)
    store.away = True
    assert router.reserve(ANN).number == A


def test_a_clock_that_steps_back_makes_it_no_longer():
    """It counts from the step on, and not from a time that is yet to come."""
    router, store, clock = world(store_outage=100.0)
    store.away = True
    router.reserve(ANN).settle("SENT")
    clock.advance(-86400)
    router.reserve(ANN).settle("SENT")
    clock.advance(101)
    with pytest.raises(StoreError):
        router.reserve(ANN)


def test_outcomes_that_could_not_all_be_kept_are_told_of(monkeypatch, caplog):
    """Once, when the store is back, and how many they were."""
    monkeypatch.setattr("linepicker.fleet.LATE_AT_MOST", 2)
    router, store, _ = world()
    store.away = True
    for n in range(5):
        router.reserve(ANN).settle("SENT", message_id=f"m{n}")
    store.away = False
    router.lines()
    router.lines()
    assert caplog.text.count("what became of 3 messages was forgotten") == 1


@pytest.mark.parametrize("what", ["key", "critical", "stranger", "moved"])
def test_what_needs_the_store_waits_for_it(what):
    """Keys, people of a line that may not send, and people this process never met: StoreError."""
    router, store, clock = world()
    if what == "critical":
        router.report(LineChanged(A, reputation="CRITICAL", at=NOW))
    if what == "moved":
        router.report(LineChanged(A, status="FLAGGED", at=NOW))
    if what == "stranger":
        Router([Line(A), Line(B)], store=store.store, clock=clock).assign(CAT, A)
    store.away = True
    with pytest.raises(StoreError):
        router.reserve(CAT if what == "stranger" else ANN, key="k" if what == "key" else None)


def test_whose_opt_out_was_never_looked_up_is_not_written_to():
    """To know somebody's line is not to know that they want messages."""
    router, store, clock = world()
    rules = Policy.from_dict({"on_store_error": "known_only"})
    other = Router([Line(A), Line(B)], policy=rules, store=store, clock=clock)
    router.report(OptedOut(ANN, at=NOW))
    other.lines()
    other.assignment(ANN)
    store.away = True
    with pytest.raises(StoreError):
        other.reserve(ANN)


def test_a_store_that_answers_is_no_outage():
    """A store that was wiped is never taken for one that is away."""
    router, store, clock = world()
    store.store = MemoryStore(time=clock.now)
    for _ in range(2):
        with pytest.raises(StoreError, match="not the one"):
            router.reserve(ANN)


def test_send_goes_on_too():
    """The whole story, with a wait and a check, works without the store."""
    router, store, _ = world(pace={"message_gap": 10.0, "message_burst": 1})
    store.away = True
    assert router.send(ANN, lambda made: made.number, max_wait=100.0) == A
    assert router.send(ANN, lambda made: made.number, max_wait=100.0) == A
    store.away = False
    assert sent(router) == 3


def test_a_refusal_of_the_line_is_kept_until_the_store_is_back():
    """Then the line is out, and nothing was charged."""
    router, store, _ = world()
    store.away = True
    made = router.reserve(ANN)
    made.settle("LINE_REFUSED")
    store.away = False
    assert sent(router) == 1
    assert {view.line.number: view.standing for view in router.lines()}[A] == "ineligible"


def test_gates_that_this_process_knows_hold_all_the_same():
    """The pair's limit, for one, refuses in an outage as ever; the refusal rests on what is known, so the error stands."""
    router, store, _ = world(limits={"pair_per_minute": 2})
    store.away = True
    router.reserve(ANN).settle("SENT")
    with pytest.raises((NotNow, Held, StoreError)):
        router.reserve(ANN)


def test_the_async_door_goes_on_as_well():
    """As the sync one."""

    class AsyncFlaky(Flaky):
        async def read(self, keys):
            self._there()
            return await self.store.read(keys)

        async def swap(self, writes, *, seen={}):  # noqa: B006  the port's default
            self._there()
            return await self.store.swap(writes, seen=seen)

        async def scan(self, prefix):
            self._there()
            return await self.store.scan(prefix)

        async def close(self):
            """Nothing is held."""

    async def play():
        clock = ManualClock(NOW)
        store = AsyncFlaky(AsyncMemoryStore(MemoryStore(time=clock.now)))
        rules = Policy.from_dict({"on_store_error": "known_only"})
        router = AsyncRouter([Line(A), Line(B)], policy=rules, store=store, clock=clock)
        await router.assign(ANN, A)
        await (await router.reserve(ANN)).settle("SENT")
        store.away = True
        made = await router.reserve(ANN)
        await made.settle("SENT")
        with pytest.raises(StoreError):
            await router.reserve(BOB)
        store.away = False
        return [view.outcomes.get("sent", 0) for view in await router.lines()]

    assert asyncio.run(play()) == [2, 0]


def test_two_calls_write_what_an_outage_left_behind_between_them():
    """Each settlement that was kept is written by one of them, and one that is torn away leaves its own to the next."""
    router, store, clock = world()
    with router:
        made = [router.reserve(to) for to in (BOB, CAT)]
        store.away = True
        for n, each in enumerate(made):
            each.settle("SENT", chat_id=f"chat-{n}")
        store.away = False
        fleet = router._desk.fleet
        one, other, third = (flush(fleet, clock.now()) for _ in range(3))
        ask = next(one)
        next(other)
        other.close()  # its call is cancelled
        assert len(fleet.late) == 1
        router._drive(third)
        finish(router, one, ask)
        assert not fleet.late
        assert {fleet_chat(store, n) for n in range(2)} == {BOB, CAT}


def test_what_was_given_back_is_not_charged_by_a_call_that_was_slower():
    """Two calls put on record what left in an outage; the provider refuses it before the second one is through."""
    router, store, _ = world()
    with router:
        store.away = True
        made = router.reserve(ANN)
        store.away = False
        slow = pay(router._desk.fleet)
        ask = next(slow)
        while not isinstance(ask, Swap):
            ask = slow.send(router._answers[type(ask)](ask))
        assert sent(router) == 2
        made.settle("RECIPIENT_REFUSED")
        assert sent(router) == 1
        finish(router, slow, ask)
        assert sent(router) == 1


def finish(router, flow, ask):
    """Let a flow that has asked go on to its end."""
    with contextlib.suppress(StopIteration):
        while True:
            ask = flow.send(router._answers[type(ask)](ask))


def fleet_chat(store, n):
    """Whose a chat is, by the store."""
    key = f"chat/chat-{n}"
    return decode(key, store.read([key]).records[key]).to
