"""A known recipient who must leave their line does so once, within the day's moves, with a word to them, and may come home."""

import math
from typing import Any

import attrs
import pytest

from linepicker import (
    ChatHealthChanged,
    Delivered,
    Failed,
    Held,
    Line,
    LineChanged,
    LinePickerError,
    LineReleased,
    NoLine,
    NotNow,
    Policy,
    Replied,
)
from linepicker.stores import open as open_store

NOW, TTL, MINUTE, HOUR, DAY = 1_790_000_000.0, 60.0, 60.0, 3600.0, 86400.0
A, B, C = "+12025550100", "+12025550101", "+12025550102"
ANN, BOB, CAT = "+14155550101", "+14155550102", "cat@example.com"
TEXT = "It's us, on our second number."


def loose(limits=None, **stickiness) -> Policy:
    """A policy that limits nothing, with these rules for those who have a line."""
    off = ("new_per_day", "new_per_hour", "messages_per_day", "pair_per_minute", "moves_per_day")
    return Policy.from_dict(
        {
            "limits": {**dict.fromkeys(off, "off"), **(limits or {})},
            "pace": {"new_gap": 0, "message_gap": 0, "spread": "off"},
            "learn": {"enabled": False},
            "conversation": {"unanswered": "off"},
            "stickiness": stickiness,
        }
    )


HOME = {"return_home": 2 * HOUR, "mid_conversation": HOUR, "continuation": TEXT}


async def refusal(kind: type[LinePickerError], router, to=ANN, **more):
    """The decision of the refusal that this request meets."""
    with pytest.raises(kind) as caught:
        await router.reserve(to, **more)
    return caught.value.decision


async def passes(world, router, seconds: float) -> None:
    """Time, in which the list of lines is read now and then; at its end twice, a minute apart."""
    until = world.clock.now() + seconds
    for _ in range(min(5, math.ceil(seconds / 200))):
        world.clock.advance(seconds / 10)
        await router.lines()
    world.clock.set(max(world.clock.now(), until - TTL - 1))
    await router.lines()
    world.clock.set(until)
    await router.lines()


async def becomes(world, router, number: str, **more) -> bool:
    """The provider says something of a line now."""
    return await router.report(LineChanged(number, at=world.clock.now(), **more))


async def moved(world, router, to=ANN):
    """A person whose line A was FLAGGED a minute after their first message there, and who is on another now."""
    await (await router.reserve(to, line=A)).settle("SENT", chat_id=f"a {to}")
    world.clock.advance(MINUTE)
    await becomes(world, router, A, status="FLAGGED")
    made = await router.reserve(to)
    await made.settle("SENT", chat_id=f"b {to}")
    return made


async def well_again(world, router, number: str = A) -> float:
    """The provider says ACTIVE, and two polls confirm it; since when that is."""
    world.clock.advance(1)
    since = world.clock.now()
    await becomes(world, router, number, status="ACTIVE")
    await passes(world, router, 2 * TTL + 2)
    return since


async def shown(router, number: str = A):
    """A line's view."""
    return next(each for each in await router.lines() if each.line.number == number)


# Away


async def refuse(world, router) -> None:
    """Line A refuses a message."""
    await (await router.reserve(BOB, line=A)).settle("LINE_REFUSED")


async def flag(world, router) -> None:
    """Line A is FLAGGED."""
    await becomes(world, router, A, status="FLAGGED")


async def release(world, router) -> None:
    """Line A leaves the account, as a webhook tells."""
    await router.report(LineReleased(A, at=world.clock.now()))


async def vanish(world, router) -> None:
    """Line A leaves the account, as the list shows."""
    world.account.lines = [Line(B)]
    await router.refresh()
    await router.refresh()


@pytest.mark.parametrize("leave", [refuse, flag, release, vanish])
async def test_who_must_leave_is_moved_once_and_told(world, leave):
    """The reservation says where from and carries the policy's text; the one after it is an ordinary one."""
    router = world.router(loose(**HOME))
    await (await router.reserve(ANN, line=A)).settle("SENT", chat_id="c1")
    world.clock.advance(MINUTE)
    await leave(world, router)
    preview = await router.preview(ANN)
    made = await router.reserve(ANN)
    assert (made.number, made.kind, made.moved_from) == (B, "moved", A)
    assert (made.continuation, made.chat_id, made.decision.moved_from) == (TEXT, None, A)
    assert (preview.number, preview.kind, preview.moved_from) == (B, "moved", A)
    belongs = await world.router(loose()).assignment(ANN)
    assert (belongs.number, belongs.since) == (B, world.clock.now())
    assert belongs.history == ((A, NOW),)
    after = await router.reserve(ANN)
    assert (after.number, after.kind) == (B, "known")
    assert after.moved_from is after.continuation is None
    assert (await shown(router, B)).used == 1


async def test_without_a_text_there_is_none_to_say(world):
    """The policy's default."""
    router = world.router(loose())
    made = await moved(world, router)
    assert (made.kind, made.continuation) == ("moved", None)


async def test_a_repeated_key_says_the_same(world):
    """Where from, and the text, until it was sent."""
    router = world.router(loose(**HOME))
    await (await router.reserve(ANN, line=A)).settle("SENT")
    await flag(world, router)
    made = await router.reserve(ANN, key="k")
    again = await world.router(loose(**HOME)).reserve(ANN, key="k")
    assert (again.id, again.kind) == (made.id, "moved")
    assert (again.moved_from, again.continuation) == (A, TEXT)


async def test_a_line_takes_so_many_moves_a_day(world):
    """The rest is held until it may take one more; new conversations go on."""
    router = world.router(loose({"moves_per_day": 2}, **HOME))
    people = [f"+1415{n:07d}" for n in range(4)]
    for to in people:
        await (await router.reserve(to, line=A)).settle("SENT")
    await flag(world, router)
    for to in people[:2]:
        assert (await router.reserve(to)).kind == "moved"
        world.clock.advance(MINUTE)
    for to in people[2:]:
        decision = await refusal(Held, router, to)
        assert (decision.reason, decision.number) == ("flagged", A)
        assert decision.retry_at == NOW + DAY
        assert (await router.assignment(to)).number == A
    assert (await router.reserve(CAT)).number == B
    world.clock.set(NOW + DAY)
    assert (await router.reserve(people[2])).kind == "moved"
    await refusal(Held, router, people[3])


async def test_an_operators_move_keeps_the_history_and_the_budget(world):
    """And says no more than that: the moves of the day are counted together."""
    router = world.router(loose({"moves_per_day": 1}))
    for to in (ANN, BOB):
        await (await router.reserve(to, line=A)).settle("SENT")
    await router.move(ANN, B)
    assert (await router.assignment(ANN)).history == ((A, NOW),)
    with pytest.raises(NotNow) as caught:
        await router.move(BOB, B)
    assert caught.value.decision.reason == "moves"
    await flag(world, router)
    assert (await refusal(Held, router, BOB)).retry_at == NOW + DAY


async def test_a_move_that_nobody_takes_says_why_of_each_line(world):
    """Their own is no answer, and another has taken its moves: the account is of this move, not of a new conversation."""
    router = world.router(loose({"moves_per_day": 1}))
    for to in (ANN, BOB):
        await (await router.reserve(to, line=A)).settle("SENT")
    await router.move(ANN, B)
    with pytest.raises(NoLine) as caught:
        await router.move(BOB)
    found = {
        each.number: (each.excluded, each.opens_at) for each in caught.value.decision.candidates
    }
    assert found == {A: ("excluded", None), B: ("moves", NOW + DAY)}
    assert caught.value.retry_at == NOW + DAY


@pytest.mark.parametrize("outcome", ["NOT_SENT", "LINE_REFUSED", "RECIPIENT_REFUSED"])
async def test_a_move_that_did_not_happen_is_taken_back(world, outcome):
    """They belong where they were, with that conversation; the next message moves them, with the text again."""
    router = world.router(loose({"moves_per_day": 1}, **HOME))
    await (await router.reserve(ANN, line=A)).settle("SENT", chat_id="c1")
    await flag(world, router)
    before = await router.assignment(ANN)
    await (await router.reserve(ANN)).settle(outcome, retry_after=0.0)
    assert await router.assignment(ANN) == before
    again = await router.reserve(ANN, override_optout=True)
    assert (again.kind, again.moved_from, again.continuation) == ("moved", A, TEXT)


@pytest.mark.parametrize("health", ["AT_RISK", "CRITICAL"])
async def test_a_move_that_did_not_happen_leaves_the_conversation_as_it_was(world, health):
    """What the provider thinks of it, and when its last message left."""
    router = world.router(loose())
    await (await router.reserve(ANN, line=A)).settle("SENT", chat_id="c1")
    await router.report(ChatHealthChanged(ANN, health, number=A, at=NOW))
    world.clock.advance(1)
    await flag(world, router)
    made = await router.reserve(ANN, chat_health="HEALTHY")
    assert made.kind == "moved"
    await made.release()
    await well_again(world, router)
    expected = {"AT_RISK": NotNow, "CRITICAL": Held}[health]
    assert (await refusal(expected, router)).reason == "quiet"


# Home


async def test_by_default_nobody_goes_home(world):
    """However long their old line has been well."""
    router = world.router(loose())
    await moved(world, router)
    await well_again(world, router)
    await passes(world, router, 30 * DAY)
    made = await router.reserve(ANN)
    assert (made.number, made.kind) == (B, "known")


async def test_who_was_moved_goes_home_when_their_line_has_long_been_well(world):
    """As a move, charged there as one, without the text: they know that number."""
    router = world.router(loose(**HOME))
    await moved(world, router)
    await well_again(world, router)
    await passes(world, router, 2 * HOUR)
    assert (await router.preview(ANN)).number == A
    made = await router.reserve(ANN)
    assert (made.number, made.kind, made.moved_from) == (A, "moved", B)
    assert (made.continuation, made.chat_id) == (None, f"a {ANN}")
    assert [line for line, _ in (await router.assignment(ANN)).history] == [A, B]
    assert (await shown(router)).used == 2
    after = await router.reserve(ANN)
    assert (after.number, after.kind) == (A, "known")


@pytest.mark.parametrize(("short_of", "number"), [(1.0, B), (0.0, A)])
async def test_how_long_it_has_been_well_counts_from_when_it_was(world, short_of, number):
    """Not from when it was last seen FLAGGED, a day before."""
    router = world.router(loose(**HOME))
    await moved(world, router)
    await passes(world, router, DAY)
    assert (await router.reserve(ANN)).number == B
    well_at = await well_again(world, router)
    await passes(world, router, well_at + 2 * HOUR - short_of - world.clock.now())
    assert (await router.reserve(ANN)).number == number


@pytest.mark.parametrize("worse", [{"reputation": "AT_RISK"}, {"reputation": "CRITICAL"}])
async def test_whatever_speaks_against_it_meanwhile_begins_the_time_anew(world, worse):
    """AT_RISK is not HEALTHY."""
    router = world.router(loose(**HOME))
    await moved(world, router)
    await well_again(world, router)
    await passes(world, router, HOUR)
    world.account.lines[0] = attrs.evolve(world.account.lines[0], **worse)
    await passes(world, router, 2 * HOUR)
    assert (await router.reserve(ANN)).number == B
    world.account.lines[0] = attrs.evolve(world.account.lines[0], reputation="HEALTHY")
    await passes(world, router, HOUR)
    assert (await router.reserve(ANN)).number == B
    await passes(world, router, 3 * HOUR)
    assert (await router.reserve(ANN)).number == A


async def test_a_line_that_refused_is_well_from_the_end_of_its_refusal(world):
    """The message that shows it does not make it long ago."""
    router = world.router(loose(**HOME))
    await (await router.reserve(ANN, line=A)).settle("SENT")
    await refuse(world, router)
    assert (await router.reserve(ANN)).number == B
    await passes(world, router, DAY + MINUTE)
    await (await router.reserve(CAT, line=A)).settle("SENT")
    assert (await router.reserve(ANN)).number == B
    await passes(world, router, 2 * HOUR)
    assert (await router.reserve(ANN)).number == A


async def test_a_line_whose_messages_failed_has_not_long_been_well(world):
    """Its time out and trial are over, and not yet long ago."""
    router = world.router(loose(**HOME))
    await moved(world, router)
    await well_again(world, router)
    await passes(world, router, 3 * HOUR)
    for n in range(6):
        made = await router.reserve(f"+1415{n:07d}", line=A)
        await made.settle("SENT", message_id=f"m{n}")
        kind = Failed if n < 5 else Delivered
        await router.report(kind(message_id=f"m{n}", at=world.clock.now()))
        await passes(world, router, 6 * MINUTE)
    assert (await shown(router)).standing == "ok"
    assert (await router.reserve(ANN)).number == B
    await passes(world, router, 2 * HOUR)
    assert (await router.reserve(ANN)).number == A


@pytest.mark.parametrize("told", [True, False])
async def test_a_line_that_left_is_well_from_when_it_came_back(world, told):
    """Whether its leaving was told, or only seen in the list."""
    router = world.router(loose(**HOME))
    await (await router.reserve(ANN, line=A)).settle("SENT")
    world.clock.advance(MINUTE)
    if told:
        await release(world, router)
    await vanish(world, router)
    assert (await router.reserve(ANN)).number == B
    await passes(world, router, DAY)
    world.account.lines = [Line(A), Line(B)]
    await passes(world, router, HOUR)
    assert (await router.reserve(CAT, line=A)).number == A
    assert (await router.reserve(ANN)).number == B
    await passes(world, router, 2 * HOUR)
    assert (await router.reserve(ANN)).number == A


@pytest.mark.parametrize("who", ["we", "they"])
async def test_nobody_goes_home_in_the_middle_of_a_conversation(world, who):
    """Not within the policy's time of the last message, of either side; a message that was given back is none."""
    router = world.router(loose(**HOME))
    await moved(world, router)
    await well_again(world, router)
    await passes(world, router, HOUR)
    await passes(world, router, HOUR / 2)
    if who == "we":
        await (await router.reserve(ANN)).settle("SENT")
    else:
        await router.report(Replied(B, ANN, at=world.clock.now()))
    last = world.clock.now()
    await passes(world, router, HOUR - 1)
    made = await router.reserve(ANN)
    assert made.number == B
    await made.release()
    assert (await router.reserve(ANN, inbound=True)).number == B
    await passes(world, router, HOUR - 1)
    assert world.clock.now() > last + HOUR
    assert (await router.reserve(ANN)).number == B
    await passes(world, router, HOUR)
    assert (await router.reserve(ANN)).number == A


async def test_a_give_back_does_not_hide_the_message_before_it(world):
    """A conversation of ten minutes ago is one, whatever was tried since."""
    router = world.router(loose(**HOME))
    await moved(world, router)
    await well_again(world, router)
    await passes(world, router, 2 * HOUR)
    world.account.lines.append(Line(C))
    await router.refresh()
    await router.pause(A)
    await (await router.reserve(ANN)).settle("SENT")
    await router.resume(A)
    world.clock.advance(10 * MINUTE)
    await (await router.reserve(ANN)).release()
    assert (await router.reserve(ANN)).number == B


async def test_an_answer_goes_out_where_they_wrote(world):
    """inbound=True takes nobody home, nor does line=."""
    router = world.router(loose(**HOME))
    await moved(world, router)
    await well_again(world, router)
    await passes(world, router, 3 * HOUR)
    assert (await router.reserve(ANN, line=B)).number == B
    await passes(world, router, 3 * HOUR)
    assert (await router.reserve(ANN, inbound=True)).number == B


async def test_an_operators_move_is_not_undone(world):
    """Not by going home to where they were before; and it ends a way home that was open."""
    router = world.router(loose(**HOME))
    await (await router.reserve(BOB, line=A)).settle("SENT")
    await router.move(BOB, B)
    await moved(world, router, ANN)
    world.account.lines.append(Line(C))
    await router.refresh()
    await router.move(ANN, C)
    await well_again(world, router)
    await passes(world, router, 30 * DAY)
    assert (await router.reserve(BOB)).number == B
    assert (await router.reserve(ANN)).number == C


async def no_room(world, router) -> dict[str, Any]:
    """Home's conversations of the day are used up."""
    for n in range(3):
        await router.reserve(f"+1415{n:07d}", line=A)
    return {}


async def paused(world, router) -> dict[str, Any]:
    """Home is paused."""
    await router.pause(A)
    return {}


async def drained(world, router) -> dict[str, Any]:
    """Home opens no conversations."""
    await router.drain(A)
    return {}


async def gone(world, router) -> dict[str, Any]:
    """Home is no line of the account."""
    await vanish(world, router)
    return {}


async def excluded(world, router) -> dict[str, Any]:
    """The caller rules it out."""
    return {"exclude": [A]}


async def critical(world, router) -> dict[str, Any]:
    """Home has just become CRITICAL."""
    await becomes(world, router, A, reputation="CRITICAL")
    return {}


@pytest.mark.parametrize("obstacle", [no_room, paused, drained, gone, excluded, critical])
async def test_who_can_not_go_home_stays_where_they_are(world, obstacle):
    """As an ordinary message of theirs: nobody is held for want of a way home."""
    router = world.router(loose({"new_per_day": 3}, **HOME))
    await moved(world, router)
    await well_again(world, router)
    await passes(world, router, DAY)
    more = await obstacle(world, router)
    made = await router.reserve(ANN, **more)
    assert (made.number, made.kind) == (B, "known")


@pytest.mark.parametrize(("health", "number"), [("CRITICAL", B), ("AT_RISK", A)])
async def test_nobody_goes_home_into_a_conversation_that_is_held(world, health, number):
    """What the provider thought of the one they left is remembered."""
    router = world.router(loose(**HOME))
    await (await router.reserve(ANN, line=A)).settle("SENT", chat_id="c1")
    await router.report(ChatHealthChanged(ANN, health, number=A, at=NOW))
    world.clock.advance(1)
    await flag(world, router)
    await (await router.reserve(ANN, chat_health="HEALTHY")).settle("SENT")
    await well_again(world, router)
    await passes(world, router, 3 * HOUR)
    made = await router.reserve(ANN)
    assert made.number == number
    await made.check()


async def test_the_first_message_after_an_operators_move_tells_of_it(world):
    """As one that a gate moved: where from, and the policy's text, once."""
    router = world.router(loose(**HOME))
    await (await router.reserve(ANN, line=A)).settle("SENT")
    await router.move(ANN, B)
    made = await router.reserve(ANN)
    assert (made.number, made.kind) == (B, "known")
    assert (made.moved_from, made.continuation) == (A, TEXT)
    assert made.decision.moved_from == A
    made = await router.reserve(ANN)
    assert made.moved_from is made.continuation is None


async def test_a_first_message_that_was_given_back_leaves_the_word_to_the_next(world):
    """It never left, so the next one after the operator's move is the first, and tells of it; an older one changes nothing."""
    router = world.router(loose(**HOME))
    older = await router.reserve(ANN, line=A)
    await router.move(ANN, B)
    for _ in range(2):
        made = await router.reserve(ANN)
        assert (made.moved_from, made.continuation) == (A, TEXT)
        await made.release()
    made = await router.reserve(ANN)
    assert (made.moved_from, made.continuation) == (A, TEXT)
    await made.settle("SENT")
    await older.release()
    made = await router.reserve(ANN)
    assert made.moved_from is made.continuation is None
    await made.release()
    assert (await router.reserve(ANN)).continuation is None


async def test_a_first_message_that_was_given_back_is_not_taken_for_one_on_another_line(world):
    """After an operator's move they were moved again, by a message that never left: they go back all the same."""
    router = world.router(loose(**HOME))
    await (await router.reserve(ANN, line=A)).settle("SENT")
    await router.move(ANN, B)
    first = await router.reserve(ANN)
    await becomes(world, router, B, status="FLAGGED")
    second = await router.reserve(ANN)
    assert (second.kind, second.number) == ("moved", A)
    await first.release()
    await second.release()
    assert (await router.assignment(ANN)).number == B


async def test_a_line_takes_so_many_home_a_day(world):
    """Going home is a move, within that line's moves of the day."""
    router = world.router(loose({"moves_per_day": 2}, **HOME))
    for n in range(2):
        world.account.lines.append(Line(f"+1202555020{n}"))
    people = [f"+1415{n:07d}" for n in range(4)]
    for to in people:
        await (await router.reserve(to, line=A)).settle("SENT")
    await flag(world, router)
    for to in people:
        await (await router.reserve(to)).settle("SENT")
    await well_again(world, router)
    await passes(world, router, 3 * HOUR)
    assert [(await router.reserve(to)).number == A for to in people] == [True, True, False, False]
    await passes(world, router, DAY + 1)
    assert (await router.reserve(people[2])).number == A


async def test_home_is_where_they_were_first(world):
    """Moved twice by the provider's doing, they go back to the first line, not to the second."""
    world.account.lines.append(Line(C))
    router = world.router(loose(**HOME))
    made = await moved(world, router)
    world.clock.advance(MINUTE)
    await becomes(world, router, made.number, status="FLAGGED")
    second = await router.reserve(ANN)
    assert second.kind == "moved"
    assert second.number not in {A, made.number}
    await well_again(world, router, A)
    await well_again(world, router, made.number)
    await passes(world, router, 3 * HOUR)
    assert (await router.reserve(ANN)).number == A


async def at_home(world, router) -> None:
    """On line A for good, which is nobody's home any more: an ordinary message is an ordinary one."""
    await passes(world, router, 3 * HOUR)
    charged = (await shown(router)).used
    made = await router.reserve(ANN)
    assert (made.number, made.kind, made.moved_from) == (A, "known", None)
    assert (await shown(router)).used == charged


async def test_who_is_at_home_does_not_go_there(world):
    """Moved away and back by gates alone, they are where they were."""
    router = world.router(loose(**HOME))
    await moved(world, router)
    await well_again(world, router)
    await becomes(world, router, B, status="FLAGGED")
    assert (await router.reserve(ANN)).number == A
    await at_home(world, router)


async def test_who_was_not_moved_after_all_is_at_home(world):
    """The move was given back: there is no way home from home."""
    router = world.router(loose(**HOME))
    await (await router.reserve(ANN, line=A)).settle("SENT")
    world.clock.advance(MINUTE)
    await flag(world, router)
    await (await router.reserve(ANN)).release()
    await well_again(world, router)
    await at_home(world, router)


async def test_whom_the_provider_wrote_from_home_is_at_home(world):
    """settle(number=…): it left from the old line, so that is theirs again."""
    router = world.router(loose(**HOME))
    await moved(world, router)
    await (await router.reserve(ANN)).settle("SENT", number=A)
    assert (await router.assignment(ANN)).number == A
    await well_again(world, router)
    await at_home(world, router)


async def test_a_way_home_that_was_not_taken_after_all_is_still_open(world):
    """Given back, it is offered again."""
    router = world.router(loose(**HOME))
    await moved(world, router)
    await well_again(world, router)
    await passes(world, router, 3 * HOUR)
    made = await router.reserve(ANN)
    assert made.number == A
    await made.release()
    assert (await router.assignment(ANN)).number == B
    await passes(world, router, 3 * HOUR)
    assert (await router.reserve(ANN)).number == A


async def test_who_goes_home_is_known_there_after_a_restart(new_world, tmp_path):
    """The way home is the store's."""
    world = new_world("sync sqlite", tmp_path)
    router = world.router(loose(**HOME))
    await moved(world, router)
    await well_again(world, router)
    world.handle.close()
    world.handle = open_store(world.url)
    router = world.router(loose(**HOME))
    await passes(world, router, 3 * HOUR)
    assert (await router.reserve(ANN)).moved_from == B
    world.handle.close()
