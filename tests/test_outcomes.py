"""What became of messages: every receipt counts once, and a line whose messages fail rests, is tried, and comes back."""

import logging
import random
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from linepicker import (
    Delivered,
    Failed,
    Held,
    Line,
    LinePickerError,
    MessageRead,
    NoLine,
    OptedOut,
    Policy,
    Replied,
    Router,
    StoreError,
)
from linepicker.stores import open as open_store
from linepicker.stores.memory import MemoryStore
from linepicker.testing import ManualClock

NOW, MINUTE, HOUR, DAY = 1_790_000_000.0, 60.0, 3600.0, 86400.0
A, B = "+12025550100", "+12025550101"
ANN, BOB, CAT = "+14155550101", "+14155550102", "cat@example.com"
LEASE = 600.0


def loose(**tables) -> Policy:
    """A policy that limits nothing, with these tables laid over it."""
    off = ("new_per_day", "new_per_hour", "messages_per_day", "pair_per_minute", "moves_per_day")
    base = {
        "limits": dict.fromkeys(off, "off"),
        "pace": {"new_gap": 0, "message_gap": 0, "spread": "off"},
    }
    merged = {name: {**base.get(name, {}), **tables.get(name, {})} for name in {*base, *tables}}
    return Policy.from_dict(merged)


async def send(world, router, to=None, **more) -> str:
    """A message that is accepted; its id."""
    number = next(world.numbers)
    made = await router.reserve(to or person(number), **{"line": A, **more})
    await made.settle("SENT", message_id=f"m{number}")
    return f"m{number}"


async def report(world, router, kind, message_id=None, **more) -> bool:
    """A report of what happens to a message now."""
    return await router.report(kind(**{"at": world.clock.now(), "message_id": message_id, **more}))


async def fail(world, router, count: int, gap: float = 1.0, **more) -> None:
    """So many messages of line A are accepted and fail, one after the other."""
    for _ in range(count):
        message_id = await send(world, router)
        world.clock.advance(gap)
        await report(world, router, Failed, message_id, code=4001, **more)


@pytest.fixture
def plain(new_world, tmp_path):
    """A new world behind one door: for what no door can make a difference to."""
    return new_world("sync memory", tmp_path)


def person(n: int) -> str:
    """The n-th recipient."""
    return f"+1415{n:07d}"


async def view(router, number: str = A):
    """One line's view."""
    return next(each for each in await router.lines() if each.line.number == number)


async def outcomes(router, number: str = A) -> dict[str, int]:
    """What became of a line's messages."""
    return dict((await view(router, number)).outcomes)


async def refusal(kind: type[LinePickerError], router, to=ANN, **more):
    """The decision of the refusal that this request meets."""
    with pytest.raises(kind) as caught:
        await router.reserve(to, **more)
    return caught.value.decision


# Counting


async def test_what_became_of_a_message_is_counted_by_name(world):
    """Sent, delivered, read, and failed by code, on the line it left from and no other."""
    router = world.router()
    ids = [await send(world, router) for _ in range(4)]
    assert await report(world, router, Delivered, ids[0])
    assert await report(world, router, Delivered, ids[1])
    assert await report(world, router, MessageRead, ids[1])
    assert await report(world, router, Failed, ids[2], code=4001)
    assert await report(world, router, Failed, ids[3])
    seen = {"sent": 4, "opened": 4, "delivered": 2, "read": 1, "failed:4001": 1, "failed:": 1}
    assert await outcomes(router) == seen
    assert await outcomes(router, B) == {}
    assert await outcomes(world.router()) == seen


async def test_a_message_that_was_read_was_delivered(world):
    """Whether or not the delivery is told, before or after."""
    router = world.router()
    message_id = await send(world, router)
    assert await report(world, router, MessageRead, message_id)
    assert not await report(world, router, Delivered, message_id)
    assert await outcomes(router) == {"sent": 1, "opened": 1, "delivered": 1, "read": 1}


@pytest.mark.parametrize("known_by", ["message_id", "chat_id", "to", "group"])
async def test_a_receipt_that_names_no_line_finds_it(world, known_by):
    """By the message, the conversation, or the recipient; a group by its conversation."""
    router = world.router()
    to = (ANN, BOB) if known_by == "group" else ANN
    made = await router.reserve(to, line=B)
    await made.settle("SENT", message_id="m", chat_id="c")
    names = {
        "message_id": {"message_id": "m"},
        "chat_id": {"chat_id": "c", "message_id": "another"},
        "to": {"to": ANN, "message_id": "another"},
        "group": {"chat_id": "c"},
    }
    assert await report(world, world.router(), Failed, **names[known_by])
    assert (await outcomes(router, B))["failed:"] == 1


async def test_a_receipt_of_nobody_known_changes_nothing(world):
    """No line that it names, no message or conversation of ours: False."""
    router = world.router()
    await router.lines()
    before = world.stored()
    for more in ({"message_id": "m"}, {"chat_id": "c"}, {"to": ANN}, {"number": "+12025550199"}):
        for kind in (Delivered, MessageRead, Failed):
            assert not await report(world, router, kind, **more)
    assert world.stored() == before


async def test_a_receipt_that_is_repeated_changes_nothing(world):
    """The message's own record tells, with and without an event id, and days later: False."""
    router = world.router()
    gone, lost = await send(world, router), await send(world, router)
    first = [(Delivered, gone, "e1"), (MessageRead, gone, "e2"), (Failed, lost, "e3")]
    for kind, message_id, event_id in first:
        assert await report(world, router, kind, message_id, event_id=event_id)
    before = world.stored()
    for wait in (0.0, 2 * DAY):
        world.clock.advance(wait)
        for kind, message_id, event_id in first:
            for again in (event_id, None, "other"):
                assert not await report(world, router, kind, message_id, event_id=again)
    counted = {k: v for k, v in before.items() if k.endswith("/tally") or k[:8] == "message/"}
    assert {key: world.stored()[key] for key in counted} == counted


async def test_a_receipt_without_a_message_counts_once_per_event(world):
    """The event is all there is to tell it by; with no id at all, each counts."""
    router = world.router()
    await send(world, router)
    for event_id, new in (("e1", True), ("e1", False), ("e2", True), (None, True), (None, True)):
        assert await report(world, router, Delivered, number=A, event_id=event_id) is new
    assert (await outcomes(router))["delivered"] == 4


@pytest.mark.parametrize("event_id", [None, "e1"])
async def test_a_receipt_that_overtakes_the_settlement_counts_once(world, event_id):
    """Whatever came before the message was known to be ours, and comes again after."""
    router = world.router()
    made = await router.reserve(ANN, line=A)
    said = {"number": A, "to": ANN, "message_id": "m"}
    assert await report(world, router, Delivered, event_id=event_id, **said)
    await made.settle("SENT", message_id="m", chat_id="c")
    assert not await report(world, router, Delivered, event_id=event_id, **said)
    assert await report(world, router, MessageRead, **said)
    assert not await report(world, router, MessageRead, **said)
    assert await outcomes(router) == {"sent": 1, "opened": 1, "delivered": 1, "read": 1}


async def test_a_settlement_keeps_what_receipts_told_before(world):
    """A failure that came first is corrected by a delivery that comes after the settlement, and is found by chat or message."""
    router = world.router()
    first = await router.reserve(ANN, line=A)
    await first.settle("SENT", chat_id="c")
    made = await router.reserve(ANN)
    assert made.chat_id == "c"
    assert await report(world, router, Failed, "m", chat_id="c", code=4001)
    assert (await outcomes(router))["failed:4001"] == 1
    await made.settle("SENT", message_id="m", chat_id="c")
    assert await report(world, router, Delivered, "m")
    assert await outcomes(router) == {"sent": 2, "opened": 1, "delivered": 1}
    assert await report(world, world.router(), MessageRead, "m", chat_health="CRITICAL")
    assert (await refusal(Held, router)).reason == "quiet"


async def test_a_delivery_after_a_failure_corrects_it(world):
    """Linq: a `message.delivered` for the same message may still follow a `message.failed`."""
    router = world.router()
    message_id = await send(world, router)
    assert await report(world, router, Failed, message_id, code=4001)
    assert await report(world, router, Delivered, message_id)
    assert await outcomes(router) == {"sent": 1, "opened": 1, "delivered": 1}


async def test_a_failure_after_a_delivery_is_ignored(world):
    """It arrived: nothing that is told later makes it a failure."""
    router = world.router()
    message_id = await send(world, router)
    await report(world, router, Delivered, message_id)
    assert not await report(world, router, Failed, message_id, code=4001)
    assert await outcomes(router) == {"sent": 1, "opened": 1, "delivered": 1}


async def test_what_is_the_recipients_fault_is_not_the_lines(world):
    """It counts nowhere, however often; a delivery after it counts."""
    router = world.router()
    await fail(world, router, 30, recipient_fault=True)
    assert await outcomes(router) == {"sent": 30, "opened": 30}
    assert (await view(router)).standing == "ok"
    assert await report(world, router, Delivered, "m1")
    assert (await outcomes(router))["delivered"] == 1


async def test_the_correction_of_one_failure_leaves_the_others(plain):
    """Also where it was no outcome, as with SMS: the streak is as long as before."""
    router = plain.router()
    await fail(plain, router, 4)
    sms = await send(plain, router)
    await report(plain, router, Failed, sms, unreceipted=True)
    await report(plain, router, Delivered, sms)
    assert (await outcomes(router))["failed:4001"] == 4
    assert "The last 4 outcomes all failed." not in (await view(router)).reasons
    sms = await send(plain, router)
    await report(plain, router, Failed, sms, unreceipted=True)
    await fail(plain, router, 4)
    assert (await view(router)).standing == "ok"
    await fail(plain, router, 1)
    assert (await view(router)).standing == "failing"


async def test_a_correction_takes_no_other_failure_from_the_share(plain):
    """Six of ten failed, whatever became of a message that owes no receipts."""
    router = plain.router(loose(failures={"streak": 50, "share": 0.6, "sample": 10}))
    await fail(plain, router, 5)
    sms = await send(plain, router)
    await report(plain, router, Failed, sms, code=4001, unreceipted=True)
    for message_id in (sms, *[await send(plain, router) for _ in range(3)]):
        await report(plain, router, Delivered, message_id)
    await fail(plain, router, 1)
    assert (await view(router)).standing == "failing"


async def test_what_tells_whose_a_message_was_is_kept_for_a_while(plain):
    """Messages 3 days from the last word of them, events 2, conversations half a year from the last time somebody wrote; what
    belongs to a line or an assignment for good."""
    router, kept = plain.router(), plain.handle.store()._expires

    def days(key: str) -> float:
        return (kept[key] - time.time()) / DAY

    made = await router.reserve(ANN, line=A)
    await made.settle("SENT", message_id="m", chat_id="c")
    await report(plain, router, Delivered, "m")
    await report(plain, router, Delivered, "of another deployment", number=A)
    await report(plain, router, Delivered, number=A, event_id="e1")
    await router.report(Replied(A, ANN, at=NOW, event_id="e2", chat_id="c"))
    expected = {"message/m": 3, "message/of another deployment": 3, "chat/c": 180}
    expected |= {"event/e1": 2, "event/e2": 2}
    assert {key: round(days(key), 1) for key in expected} == expected
    assert not [key for key in kept if key.startswith(("line/", "to/", "fleet/"))]
    plain.clock.advance(100 * DAY)
    await router.report(Replied(A, ANN, at=plain.clock.now(), chat_id="c"))
    assert round(days("chat/c"), 1) == 180


async def test_what_is_older_than_a_week_counts_no_more(plain):
    """Seven days, the oldest six hours counted whole."""
    router = plain.router()
    message_id = await send(plain, router)
    await report(plain, router, Delivered, message_id)
    plain.clock.advance(7 * DAY)
    assert (await outcomes(router))["delivered"] == 1
    plain.clock.advance(6 * HOUR)
    assert await outcomes(router) == {}


async def test_what_was_given_back_was_not_sent(world):
    """Neither as a message nor as a conversation."""
    router = world.router()
    await (await router.reserve(ANN, line=A)).release()
    await (await router.reserve(BOB, line=A)).settle("LINE_REFUSED", retry_after=0.0)
    await (await router.reserve(CAT, line=A)).settle("RECIPIENT_REFUSED")
    assert await outcomes(router) == {}


async def test_an_answered_conversation_is_counted_once(world):
    """However often they write; a known recipient's and a stranger's first word open nothing and answer nothing."""
    router = world.router()
    await send(world, router, ANN)
    await router.assign(BOB, A)
    for to in (ANN, ANN, BOB, CAT):
        world.clock.advance(1)
        assert await router.report(Replied(A, to, at=world.clock.now()))
    assert await outcomes(router) == {"sent": 1, "opened": 1, "answered": 1}


@pytest.mark.parametrize("behind", [0.0, 200.0])
async def test_who_answers_at_once_has_answered_though_the_providers_clock_is_behind(world, behind):
    """By up to five minutes; and only once."""
    router = world.router()
    await send(world, router, ANN)
    for n in range(2):
        world.clock.advance(1)
        await router.report(Replied(A, ANN, at=world.clock.now() - behind, event_id=f"e{n}"))
    assert (await outcomes(router))["answered"] == 1


async def test_a_reply_that_is_an_opt_out_is_counted_as_one(world):
    """Once a person, by the line it was written to; who is told by others to have opted out counts for no line."""
    router = world.router()
    for n in range(2):
        await router.report(Replied(A, ANN, at=NOW + n, text="STOP"))
    await router.report(OptedOut(BOB, at=NOW))
    assert (await outcomes(router))["opted_out"] == 1
    assert await outcomes(router, B) == {}


HAPPENS = st.sampled_from(["delivered", "read", "failed"])


@settings(max_examples=150)
@given(
    st.lists(st.tuples(st.sets(HAPPENS, min_size=1), st.booleans()), min_size=1, max_size=5),
    st.data(),
)
@example([({"failed", "delivered", "read"}, False)], None)
async def test_receipts_in_any_order_and_number_come_to_the_same_counts(new_world, story, data):
    """Before or after the settlement, once or many times, with or without event ids: what happened is what counts."""
    world = new_world()
    router = world.router(loose(failures={"mode": "off"}))
    made = {}
    steps: list[tuple[int, str]] = []
    for n, (happened, _) in enumerate(story):
        made[n] = await router.reserve(person(n), line=A)
        steps += [(n, "settled"), *((n, each) for each in sorted(happened))]
    if data is not None:
        steps += data.draw(st.lists(st.sampled_from(steps), max_size=10))
        steps = data.draw(st.permutations(steps))
    for n, what in steps:
        world.clock.advance(1.0)
        if what == "settled":
            await made[n].settle("SENT", message_id=f"m{n}")
            continue
        kind = {"delivered": Delivered, "read": MessageRead, "failed": Failed}[what]
        more = {"code": 4001, "recipient_fault": story[n][1]} if kind is Failed else {}
        event_id = None if data is None else data.draw(st.sampled_from([None, f"{n}{what}"]))
        await report(world, router, kind, f"m{n}", number=A, event_id=event_id, **more)
    arrived = [happened & {"delivered", "read"} for happened, _ in story]
    expected = {
        "sent": len(story),
        "opened": len(story),
        "delivered": sum(map(bool, arrived)),
        "read": sum("read" in each for each in arrived),
        "failed:4001": sum(
            not come and not fault for come, (_, fault) in zip(arrived, story, strict=True)
        ),
    }
    assert await outcomes(router) == {name: count for name, count in expected.items() if count}


class Lossy:
    """A store whose answer to every other swap is lost, though it was applied."""

    def __init__(self) -> None:
        self.inner = MemoryStore()
        self.swaps, self.losing = 0, False
        self.read, self.scan, self.close = self.inner.read, self.inner.scan, self.inner.close

    def swap(self, writes, *, seen=None):
        """Applied, whatever is said of it."""
        self.swaps += 1
        answer = self.inner.swap(writes, seen=seen or {})
        if not self.losing or self.swaps % 2:
            return answer
        raise StoreError("the answer was lost", unknown=True)


def insisting(verb, *arguments, **keywords):
    """The verb's answer, asked for until there is one."""
    while True:
        try:
            return verb(*arguments, **keywords)
        except StoreError:
            continue


@pytest.mark.parametrize("by", ["message", "event"])
def test_a_report_whose_answer_was_lost_is_counted_once_when_it_is_made_again(new_world, by):
    """The message tells, or the event: a webhook that was not acknowledged comes again."""
    clock = ManualClock(NOW)
    store = Lossy()
    router = Router(new_world().account, policy=loose(), store=store, clock=clock)
    router.lines()
    store.losing = True
    for n in range(20):
        made = insisting(router.reserve, person(n), line=A, key=f"k{n}")
        made.settle("SENT", message_id=f"m{n}")
        ids = {"message_id": f"m{n}"} if by == "message" else {"event_id": f"e{n}"}
        kind = Failed if n % 4 == 0 else Delivered
        insisting(router.report, kind(number=A, at=NOW, **ids))
        reply = Replied(A, person(n), at=NOW, event_id=f"r{n}")
        insisting(router.report, reply)
    seen = insisting(router.lines)[0].outcomes
    assert dict(seen) == {
        "sent": 20,
        "opened": 20,
        "delivered": 15,
        "failed:": 5,
        "answered": 20,
    }


@pytest.mark.parametrize("store", ["memory", "sqlite"])
def test_receipts_told_by_many_at_once_count_once(new_world, store, tmp_path):
    """Four webhook workers over one store, each told everything, while the messages are still being settled."""
    world = new_world(f"sync {store}", tmp_path)
    router = Router(
        world.account, policy=loose(failures={"mode": "off"}), store=world.handle, clock=world.clock
    )
    made = [router.reserve(person(n), line=A) for n in range(12)]
    story = [(Delivered, n) for n in range(12)] + [(MessageRead, n) for n in range(0, 12, 2)]
    story += [(Failed, n) for n in range(0, 12, 3)]

    def work(seed: int) -> None:
        mine = Router(
            world.account,
            policy=loose(failures={"mode": "off"}),
            store=world.handle,
            clock=world.clock,
        )
        for kind, n in random.Random(seed).sample(story, len(story)):
            more = {"code": 4001} if kind is Failed else {}
            mine.report(kind(number=A, message_id=f"m{n}", at=NOW, **more))

    with ThreadPoolExecutor(4) as pool:
        workers = [pool.submit(work, seed) for seed in range(4)]
        for n, each in enumerate(made):
            each.settle("SENT", message_id=f"m{n}")
        for worker in workers:
            worker.result()
    seen = next(each for each in router.lines() if each.line.number == A).outcomes
    assert dict(seen) == {"sent": 12, "opened": 12, "delivered": 12, "read": 6}
    world.handle.close()


# Time outs


async def test_five_failures_in_a_row_are_a_time_out(world, caplog):
    """New conversations go elsewhere, known recipients wait for its end, and the log and the view say why."""
    router = world.router()
    await send(world, router, ANN)
    await fail(world, router, 4)
    assert (await view(router)).standing == "ok"
    with caplog.at_level(logging.WARNING, "linepicker"):
        await fail(world, router, 1)
    assert "fail (streak)" in caplog.text
    shown = await view(router)
    assert shown.standing == "failing"
    assert any(each.startswith("Its messages failed too often in a row") for each in shown.reasons)
    assert "The last 5 outcomes all failed." in shown.reasons
    other = world.router()
    assert {(await other.reserve(person(n))).number for n in range(900, 920)} == {B}
    decision = await refusal(Held, other, ANN)
    assert (decision.reason, decision.number) == ("failing", A)
    assert 0.9 * 300 <= decision.retry_at - world.clock.now() <= 1.1 * 300
    assert (await refusal(Held, other, CAT, line=A)).reason == "failing"


async def test_a_delivery_in_between_ends_the_streak(world):
    """Four, one that arrives, four: no time out."""
    router = world.router()
    await fail(world, router, 4)
    await report(world, router, Delivered, await send(world, router))
    world.clock.advance(1)
    await fail(world, router, 4)
    assert (await view(router)).standing == "ok"


@pytest.mark.parametrize(("good", "standing"), [(14, "failing"), (13, "ok"), (15, "ok")])
async def test_a_share_of_failures_is_a_time_out_from_the_sample_on(plain, good, standing):
    """30 % of 20 are; of 19 nothing is said, and 6 of 21 are less."""
    router = plain.router()
    for n in range(good):
        await report(plain, router, Delivered, await send(plain, router))
        plain.clock.advance(1)
        if n in {0, 3, 6, 9, 12}:
            await fail(plain, router, 1)
    await fail(plain, router, 1)
    assert (await view(router)).standing == standing


async def test_failures_older_than_the_window_are_no_reason(plain):
    """Five in a row over more than an hour."""
    router = plain.router()
    await fail(plain, router, 5, gap=901)
    assert (await view(router)).standing == "ok"


async def test_failures_without_receipts_are_no_reason_for_a_time_out(world):
    """SMS and groups: a delivery is never told, so that only failures would be seen. They are counted all the same."""
    router = world.router()
    await fail(world, router, 30, unreceipted=True)
    for n in range(30):
        made = await router.reserve((person(n), BOB), line=A)
        await made.settle("SENT", message_id=f"g{n}")
        await report(world, router, Failed, f"g{n}", code=4001)
    shown = await view(router)
    assert (shown.standing, shown.outcomes["failed:4001"]) == ("ok", 60)


@pytest.mark.parametrize("outcome", ["NOT_SENT", "RECIPIENT_REFUSED", "RATE_LIMITED", "UNKNOWN"])
async def test_what_the_line_is_not_to_blame_for_is_no_failure(world, outcome):
    """Our own refusals, the recipients', rate limits and doubt, a hundred of them."""
    router = world.router(loose(limits={"pair_per_minute": 1}))
    for n in range(100):
        await (await router.reserve(person(n), line=A)).settle(outcome, retry_after=60.0)
        with suppress(LinePickerError):
            await router.reserve(person(n))
    shown = await view(router)
    assert shown.standing == "ok"
    assert not [name for name in shown.outcomes if name.startswith("failed")]


async def test_a_time_out_survives_a_restart(new_world, tmp_path):
    """It is the store's: a process that begins later, on the same file, finds it, and when it ends."""
    world = new_world("sync sqlite", tmp_path)
    await fail(world, world.router(), 5)
    retry_at = (await refusal(Held, world.router(), line=A)).retry_at
    world.handle.close()
    world.handle = open_store(world.url)
    again = world.router()
    assert (await refusal(Held, again, line=A)).retry_at == retry_at
    world.clock.set(retry_at)
    assert (await again.reserve(ANN, line=A)).number == A
    world.handle.close()


async def time_out(world, router) -> float:
    """For how long line A is out."""
    decision = await refusal(Held, router, person(9999), line=A)
    assert decision.reason == "failing"
    return decision.retry_at - world.clock.now()


async def test_time_outs_grow_while_the_probes_fail_and_begin_anew_after_a_week(world):
    """Doubled each time, give or take a tenth, up to six hours; and for a line that was good for a week as at first."""
    router = world.router()
    await fail(world, router, 5)
    for base in (300, 600, 1200, 2400, 4800, 9600, 19200, 21600, 21600):
        pause = await time_out(world, router)
        assert 0.9 * base <= pause <= min(1.1 * base, 21600)
        world.clock.advance(pause)
        probe = await send(world, router)
        world.clock.advance(1)
        await report(world, router, Failed, probe)
    world.clock.advance(await time_out(world, router))
    await report(world, router, Delivered, await send(world, router))
    world.clock.advance(7 * DAY)
    await fail(world, router, 5)
    assert 270 <= await time_out(world, router) <= 330


async def test_lines_that_failed_together_come_back_apart(plain):
    """The time out of each is its own, and the same wherever it is worked out."""
    plain.account.lines = [Line(f"+1202555{n:04}") for n in range(20)]
    router = plain.router()
    for line in plain.account.lines:
        for n in range(5):
            report = Failed(at=NOW, number=line.number, message_id=f"{line.number}{n}")
            await router.report(report)
    ends = {each.next_slot_at for each in await router.lines()}
    assert len(ends) == 20
    assert max(ends) - min(ends) > 30


async def on_trial(world, policy: Policy | None = None):
    """A router whose line A has just come to the end of its first time out."""
    router = world.router(policy)
    await fail(world, router, 5)
    world.clock.advance(await time_out(world, router))
    return router


async def test_after_a_time_out_one_message_at_a_time_is_tried(world):
    """Until it is delivered: then the line is as before."""
    router = await on_trial(world)
    assert any(each.startswith("On trial") for each in (await view(router)).reasons)
    made = await router.reserve(ANN, line=A)
    for wait in (0.0, 300.0):
        world.clock.advance(wait)
        decision = await refusal(Held, world.router(), BOB, line=A)
        assert (decision.reason, decision.retry_at) == ("failing", made.send_at + LEASE)
    await made.settle("SENT", message_id="probe")
    await refusal(Held, router, BOB, line=A)
    assert await report(world, router, Delivered, "probe")
    for n in range(3):
        assert (await world.router().reserve(person(500 + n), line=A)).number == A
    assert (await view(router)).standing == "ok"


async def test_the_probe_may_pass_its_own_check(world):
    """It is not kept off by itself."""
    router = await on_trial(world)
    made = await router.reserve(ANN, line=A)
    await made.check()
    assert made.outcome is None


@pytest.mark.parametrize(
    "outcome", ["RATE_LIMITED", "NOT_SENT", "RECIPIENT_REFUSED", "LINE_REFUSED"]
)
async def test_a_probe_that_did_not_go_out_is_no_recovery(world, outcome):
    """The line is still on trial: the next message may try, and only one, however often that happens."""
    router = await on_trial(world)
    for n in range(3):
        made = await router.reserve(person(600 + n), line=A)
        await refusal(Held, router, BOB, line=A)
        await made.settle(outcome, retry_after=0.0)
    made = await router.reserve(CAT, line=A)
    assert (await refusal(Held, router, BOB, line=A)).reason == "failing"
    await made.settle("SENT", message_id="probe")
    await report(world, router, Delivered, "probe")
    assert (await router.reserve(BOB, line=A)).number == A


@pytest.mark.parametrize("outcome", ["UNKNOWN", None])
async def test_a_probe_of_which_nothing_is_known_holds_the_line_for_its_lease(world, outcome):
    """Then the next one is tried: no probe lasts for ever."""
    router = await on_trial(world)
    for n in range(3):
        made = await router.reserve(person(600 + n), line=A)
        if outcome is not None:
            await made.settle(outcome)
        world.clock.advance(LEASE - 1)
        await refusal(Held, router, BOB, line=A)
        world.clock.advance(1)
    assert any(each.startswith("On trial") for each in (await view(router)).reasons)


async def test_a_line_without_receipts_recovers_by_its_second_accepted_probe(world):
    """One that the provider took says little; a second one, when the first has not failed within ten minutes, ends the trial.
    How long the provider took to answer is no matter."""
    router = await on_trial(world)
    made = await router.reserve(ANN, line=A)
    world.clock.advance(2.5)
    await made.settle("SENT")
    world.clock.set(made.send_at + LEASE)
    made = await router.reserve(BOB, line=A)
    await refusal(Held, router, CAT, line=A)
    world.clock.advance(0.5)
    await made.settle("SENT")
    for n in range(3):
        assert (await router.reserve(person(600 + n), line=A)).number == A


async def test_the_failure_of_the_probe_outruns_its_settlement(world):
    """Told before the message is known to be ours, it puts the line out again, and that settlement is no first step back."""
    router = await on_trial(world)
    made = await router.reserve(ANN, line=A)
    await report(world, router, Failed, "probe", number=A)
    await made.settle("SENT", message_id="probe")
    world.clock.advance(await time_out(world, router))
    made = await router.reserve(BOB, line=A)
    await made.settle("SENT", message_id="second")
    assert (await refusal(Held, router, CAT, line=A)).reason == "failing"


async def test_the_delivery_of_the_probe_outruns_its_settlement(world):
    """The line is back at once, and stays."""
    router = await on_trial(world)
    made = await router.reserve(ANN, line=A)
    await report(world, router, Delivered, "probe", number=A)
    assert (await router.reserve(BOB, line=A)).number == A
    await made.settle("SENT", message_id="probe")
    assert (await router.reserve(CAT, line=A)).number == A


async def test_a_short_time_out_is_not_lengthened_by_its_probe(world):
    """What the failed probe held, it holds no more: the line is out for its time out and not for the probe's lease."""
    rules = {"failures": {"time_out": 10.0, "longest": 20.0, "growth": 1.0}}
    router = await on_trial(world, loose(**rules))
    probe = await send(world, router)
    await report(world, router, Failed, probe)
    pause = await time_out(world, router)
    assert 9 <= pause <= 11
    world.clock.advance(pause)
    assert (await router.reserve(ANN, line=A)).number == A


async def test_a_delivery_of_what_left_before_ends_no_time_out(world):
    """Neither during it nor on trial: it tells nothing of the line as it is now."""
    router = world.router()
    early = [await send(world, router) for _ in range(2)]
    await fail(world, router, 5)
    await report(world, router, Delivered, early[0])
    world.clock.advance(await time_out(world, router))
    await report(world, router, Delivered, early[1])
    await router.reserve(ANN, line=A)
    assert (await refusal(Held, router, BOB, line=A)).reason == "failing"


async def test_a_late_failure_of_what_left_before_is_not_the_probes(world):
    """It is counted; the line stays on trial, and its next time out is not longer for it."""
    router = world.router()
    early = await send(world, router)
    await fail(world, router, 5)
    world.clock.advance(await time_out(world, router) + 1)
    await report(world, router, Failed, early, code=4001)
    assert (await outcomes(router))["failed:4001"] == 6
    probe = await send(world, router)
    await report(world, router, Delivered, probe)
    assert (await view(router)).standing == "ok"


async def test_failures_that_led_to_a_time_out_lead_to_no_second_one(world):
    """After the trial it takes five more in a row."""
    router = await on_trial(world)
    await report(world, router, Delivered, await send(world, router))
    world.clock.advance(1)
    await fail(world, router, 4)
    assert (await view(router)).standing == "ok"
    await fail(world, router, 1)
    assert (await view(router)).standing == "failing"
    assert 540 <= await time_out(world, router) <= 660


async def test_repeated_receipts_lead_to_no_time_out(world):
    """One failure told five times is one."""
    router = world.router()
    message_id = await send(world, router)
    for n in range(10):
        await report(world, router, Failed, message_id, event_id=f"e{n}")
    assert (await view(router)).standing == "ok"


@pytest.mark.parametrize("mode", ["off", "shadow"])
async def test_the_rule_can_be_off_or_only_say_what_it_would_do(world, caplog, mode):
    """Fifty failures change no choice; in shadow the log tells of them."""
    router = world.router(loose(failures={"mode": mode}))
    with caplog.at_level(logging.WARNING, "linepicker"):
        await fail(world, router, 50)
    assert (await view(router)).standing == "ok"
    assert (await outcomes(router))["failed:4001"] == 50
    assert ("fail (streak): shadow" in caplog.text) == (mode == "shadow")


@pytest.mark.parametrize("mode", ["off", "shadow"])
async def test_a_rule_that_is_no_longer_enforced_ends_the_time_outs_it_began(world, mode):
    """From the new policy's first call on, and no trial follows; enforced again, the line is on trial."""
    router = world.router()
    await fail(world, router, 5)
    await refusal(Held, router, line=A)
    for each in (router, world.router()):
        await each.reload(loose(failures={"mode": mode}))
        assert (await view(each)).standing == "ok"
        for n in range(3):  # one after the other, none of them settled
            assert (await each.reserve(person(500 + n), line=A)).number == A
    await router.reload(loose())
    assert (await view(router)).standing == "failing"


STEPS = st.one_of(
    st.tuples(st.just("send"), st.sampled_from(["SENT", "UNKNOWN", "NOT_SENT", "RATE_LIMITED"])),
    st.tuples(st.just("send"), st.sampled_from(["RECIPIENT_REFUSED", "LINE_REFUSED", None])),
    st.tuples(st.just("fail"), st.integers(0, 8)),
    st.tuples(st.just("deliver"), st.integers(0, 8)),
    st.tuples(st.just("fails"), st.integers(1, 6)),
    st.tuples(st.just("wait"), st.sampled_from([1.0, 299.0, 301.0, 599.0, 601.0, 7200.0])),
)


@settings(max_examples=100)
@given(st.lists(STEPS, max_size=25), st.booleans())
@example([("fails", 5), ("wait", 301.0), ("send", "UNKNOWN"), ("fail", 0)], False)
async def test_whatever_happened_a_line_that_works_again_comes_back(new_world, story, receipts):
    """While it is on trial never two messages are under way within a lease; and when nothing fails any more, two accepted
    messages at their time bring it back, or one that is delivered."""
    world = new_world()
    world.account.lines = [Line(A)]
    policy = loose(recovery={"ineligible": 60.0})
    router = world.router(policy)
    await fail(world, router, 5)
    sent, fresh = [], 1000
    for what, how in story:
        fresh += 1
        if what == "wait":
            world.clock.advance(how)
        elif what in {"fail", "deliver"} and sent:
            kind = Failed if what == "fail" else Delivered
            await report(world, router, kind, sent[-1 - how % len(sent)], number=A)
        elif what == "fails":
            for n in range(how):
                await report(world, router, Failed, f"x{fresh}-{n}", number=A)
        elif what == "send":
            with suppress(NoLine):
                made = await router.reserve(person(fresh))
                trial = any(r.startswith("On trial") for r in (await view(router)).reasons)
                if trial or (await view(router)).standing == "failing":
                    await refusal(NoLine, world.router(policy), person(fresh + 5000))
                if how is not None:
                    sent.append(f"m{fresh}")
                    await made.settle(how, message_id=sent[-1], retry_after=0.0)
    other = world.router(policy)
    for n in range(6):
        try:
            made = await other.reserve(person(90_000 + n))
        except NoLine as refused:
            world.clock.set(refused.decision.retry_at)
            made = await other.reserve(person(90_000 + n))
        await made.settle("SENT", message_id=f"end{n}")
        if receipts:
            await report(world, other, Delivered, f"end{n}")
    made = [await other.reserve(person(91_000 + n)) for n in range(3)]
    assert {each.number for each in made} == {A}
    assert (await view(router)).standing == "ok"


# Vitality


async def test_a_line_that_is_answered_gets_more_than_one_that_is_not(world):
    """20 conversations each; of the one nobody answers, of the other all do: the next go to that one."""
    router = world.router()
    for number in (A, B):
        for n in range(20):
            await router.reserve(to := f"+1415{number[-1]}{n:06d}", line=number)
            world.clock.advance(1)
            if number == B or n == 19:
                await router.report(Replied(number, to, at=world.clock.now()))
    for n in range(20):
        assert (await router.reserve(person(800 + n))).number == B
    poor, good = await view(router, A), await view(router, B)
    assert good.outcomes["answered"] == 20
    assert any("conversations answered: under 15 %" in each for each in poor.reasons)
    assert any(each.startswith("Vitality 0.1") for each in poor.reasons)  # 0.15, less its jump
    assert not good.reasons


async def test_failures_lower_a_lines_vitality(world):
    """Four in ten of 30, told in any order, without a time out: new conversations go elsewhere."""
    router = world.router(loose(failures={"mode": "off"}, learn={"reply_rate": 0.0}))
    for n in range(30):
        kind = Failed if n % 5 < 2 else Delivered
        await report(world, router, kind, await send(world, router))
    assert (
        "Vitality 0.6: new conversations rather go to other lines." in (await view(router)).reasons
    )
    assert {(await router.reserve(person(800 + n))).number for n in range(20)} == {B}


async def test_what_spoke_against_a_line_is_forgotten_with_its_week(world):
    """It got no message since that could tell otherwise: a week later it is chosen like any other."""
    router = world.router(loose(failures={"mode": "off"}))
    await fail(world, router, 40)
    assert {(await router.reserve(person(800 + n))).number for n in range(20)} == {B}
    world.clock.advance(8 * DAY)
    shown = await view(router)
    assert (dict(shown.outcomes), shown.reasons) == ({}, ())
    for process in (router, world.router(loose(failures={"mode": "off"}))):
        assert A in {(await process.reserve(person(900 + n))).number for n in range(20)}


async def test_who_writes_first_opens_and_answers_nothing(world):
    """inbound=True on a line they wrote to; what they write later is no answer to a conversation of ours."""
    router = world.router()
    await router.reserve(ANN, line=A, inbound=True)
    world.clock.advance(10)
    await router.report(Replied(A, ANN, at=world.clock.now()))
    assert await outcomes(router) == {"sent": 1}


async def test_an_answer_is_counted_whether_we_answer_it_first_or_hear_of_it_first(world):
    """The message that answers them may be reserved before their own is reported."""
    router = world.router()
    for n, to in enumerate((ANN, BOB)):
        await router.reserve(to, line=A)
        world.clock.advance(10)
        written = world.clock.now()
        world.clock.advance(1)
        if n:
            await router.report(Replied(A, to, at=written))
        await router.reserve(to, inbound=True)
        if not n:
            await router.report(Replied(A, to, at=written))
    assert await outcomes(router) == {"sent": 4, "opened": 2, "answered": 2}


async def test_in_shadow_each_time_out_is_told_once(world, caplog):
    """Not at every failure that follows."""
    router = world.router(loose(failures={"mode": "shadow"}))
    with caplog.at_level(logging.WARNING, "linepicker"):
        await fail(world, router, 12)
        assert caplog.text.count("shadow") == 1
        await report(world, router, Delivered, await send(world, router))
        world.clock.advance(1)
        await fail(world, router, 5)
    assert caplog.text.count("shadow") == 2


async def test_without_learning_a_lines_record_is_told_and_weighs_nothing(world):
    """learn.enabled = false."""
    router = world.router(loose(failures={"mode": "off"}, learn={"enabled": False}))
    await fail(world, router, 40)
    shown = await view(router)
    assert shown.outcomes["failed:4001"] == 40
    assert not any(each.startswith("Vitality") for each in shown.reasons)
    assert {(await router.reserve(person(800 + n))).number for n in range(20)} == {A, B}


async def test_nobody_is_out_where_nobody_has_room(world):
    """The last line that fails is out all the same: NoLine says which and until when."""
    world.account.lines = [Line(A)]
    router = world.router()
    await fail(world, router, 5)
    decision = await refusal(NoLine, router, ANN)
    assert [each.excluded for each in decision.candidates] == ["failing"]
    assert decision.reason == "failing"
    assert decision.retry_at == decision.candidates[0].opens_at > world.clock.now()
