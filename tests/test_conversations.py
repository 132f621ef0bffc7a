"""A single conversation is left quiet where the provider or the silence says so, and each rule can be off or only speak."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linepicker import (
    ChatHealthChanged,
    Delivered,
    Failed,
    Held,
    LineChanged,
    LinePickerError,
    MessageRead,
    NotNow,
    Policy,
    Replied,
)

NOW, TTL, MINUTE, HOUR, DAY = 1_790_000_000.0, 60.0, 60.0, 3600.0, 86400.0
A, B = "+12025550100", "+12025550101"
ANN, BOB, CAT = "+14155550101", "+14155550102", "cat@example.com"
HOLDS = "in shadow: would be held as quiet: "
SLOWS = "in shadow: would be slowed as quiet: "


def loose(**conversation) -> Policy:
    """A policy that limits nothing, with these rules for conversations."""
    off = ("new_per_day", "new_per_hour", "messages_per_day", "pair_per_minute", "moves_per_day")
    return Policy.from_dict(
        {
            "limits": dict.fromkeys(off, "off"),
            "pace": {"new_gap": 0, "message_gap": 0, "spread": "off"},
            "learn": {"enabled": False},
            "conversation": conversation,
        }
    )


async def refusal(kind: type[LinePickerError], router, to=ANN, **more):
    """The decision of the refusal that this request meets."""
    with pytest.raises(kind) as caught:
        await router.reserve(to, **more)
    return caught.value.decision


async def outcomes(router, number: str = A) -> dict[str, int]:
    """What became of a line's messages."""
    shown = next(each for each in await router.lines() if each.line.number == number)
    return dict(shown.outcomes)


async def begun(world, router, to=ANN, chat_id="c1", **more) -> None:
    """A conversation on line A, a message ago."""
    made = await router.reserve(to, line=A, **more)
    await made.settle("SENT", chat_id=chat_id, message_id=f"of {chat_id}")
    world.clock.advance(1)


async def feels(world, router, health, to=ANN, **more) -> bool:
    """The provider has another view of a conversation."""
    return await router.report(
        ChatHealthChanged(to, health, **{"at": world.clock.now(), "number": A, **more})
    )


# What the provider thinks of a conversation


async def test_a_critical_conversation_is_held_until_it_is_not(world):
    """Everywhere, on that line and for that recipient alone; the decision's notes say why, and when to ask again."""
    router = world.router()
    await begun(world, router)
    await begun(world, router, BOB, "c2")
    assert await feels(world, router, "CRITICAL")
    other = world.router()
    decision = await refusal(Held, other)
    assert (decision.reason, decision.number, decision.kind) == ("quiet", A, "known")
    assert "CRITICAL" in decision.notes[0]
    assert decision.retry_at == world.clock.now() + TTL
    assert (await other.reserve(BOB)).number == A
    world.clock.advance(1)
    assert await feels(world, router, "HEALTHY")
    assert (await other.reserve(ANN)).decision.notes == ()


async def test_an_at_risk_conversation_is_slowed(world):
    """An hour after the message before, whatever the line has room for; a delay that the caller allows is a delay."""
    router = world.router()
    await begun(world, router)
    await feels(world, router, "AT_RISK")
    now = world.clock.now()
    decision = await refusal(NotNow, router)
    assert (decision.reason, decision.retry_at) == ("quiet", now - 1 + HOUR - 300)
    assert (await router.preview(ANN)).retry_at == decision.retry_at
    made = await router.reserve(ANN, max_delay=HOUR)
    assert made.send_at == now - 1 + HOUR
    assert (await refusal(NotNow, router)).retry_at == now - 1 + 2 * HOUR - 300
    world.clock.set(made.send_at + HOUR)
    assert (await router.reserve(ANN, max_delay=0)).delay == 0
    world.clock.set((await refusal(NotNow, router)).retry_at)
    assert (await router.reserve(ANN)).delay == 300


async def test_a_first_message_has_nothing_to_be_slow_after(world):
    """AT_RISK says nothing against the first message this deployment sends them; CRITICAL does."""
    router = world.router()
    assert (await router.reserve(ANN, chat_health="AT_RISK")).delay == 0
    decision = await refusal(Held, router, BOB, chat_health="CRITICAL")
    assert (decision.reason, decision.kind) == ("quiet", "new")
    assert await router.assignment(BOB) is None


@pytest.mark.parametrize("health", ["CRITICAL", "AT_RISK"])
async def test_the_rule_in_shadow_says_what_it_would_do(world, health):
    """In the decision's notes, in its JSON, and in the line's counts; nothing is held."""
    router = world.router(loose(chat_health="shadow"))
    await begun(world, router)
    await feels(world, router, health)
    expected = (HOLDS if health == "CRITICAL" else SLOWS) + "the provider calls"
    before = world.stored()
    preview = await router.preview(ANN)
    assert world.stored() == before
    made = await router.reserve(ANN)
    for decision in (preview, made.decision):
        assert decision.outcome == "reserved"
        assert len(decision.notes) == 1
        assert decision.notes[0].startswith(expected)
        assert health in decision.notes[0]
        assert json.loads(decision.to_json())["notes"] == list(decision.notes)
        assert ANN not in decision.to_json()
    assert (await outcomes(router))["shadow"] == 1


@pytest.mark.parametrize("health", ["CRITICAL", "AT_RISK", "HEALTHY", "OPTED_OUT"])
async def test_the_rule_that_is_off_says_nothing(world, health):
    """Nor does a conversation that reads OPTED_OUT but whose person wrote since: the block is theirs, not the chat's."""
    router = world.router(loose(chat_health="off"))
    await begun(world, router)
    await feels(world, router, health)
    world.clock.advance(1)
    await router.report(Replied(A, ANN, at=world.clock.now(), text="hello"))
    assert (await router.reserve(ANN)).decision.notes == ()
    assert "shadow" not in await outcomes(router)


@pytest.mark.parametrize(
    "bring",
    [
        lambda at: ChatHealthChanged(ANN, "CRITICAL", at=at),
        lambda at: ChatHealthChanged(None, "CRITICAL", chat_id="c1", at=at),
        lambda at: Delivered(message_id="of c1", chat_health="CRITICAL", at=at),
        lambda at: MessageRead(number=A, to=ANN, chat_health="CRITICAL", at=at),
        lambda at: Failed(chat_id="c1", chat_health="CRITICAL", recipient_fault=True, at=at),
        lambda at: Replied(A, ANN, chat_health="CRITICAL", at=at),
        lambda at: Replied(A, None, chat_id="c1", chat_health="CRITICAL", at=at),
    ],
)
async def test_every_report_may_bring_it(world, bring):
    """With the recipient, the conversation's id, or the message's."""
    router = world.router()
    await begun(world, router)
    assert await router.report(bring(world.clock.now()))
    assert (await refusal(Held, router)).reason == "quiet"


async def test_what_the_caller_knows_outweighs_what_was_reported(world):
    """Either way, for that call, and for the check of what it reserved; and writes nothing down."""
    router = world.router()
    await begun(world, router)
    await begun(world, router, BOB, "c2")
    await feels(world, router, "CRITICAL")
    world.clock.advance(1)
    made = await router.reserve(ANN, chat_health="HEALTHY")
    await made.check()
    assert made.outcome is None
    assert (await refusal(Held, router)).reason == "quiet"
    assert (await refusal(Held, router, BOB, chat_health="CRITICAL")).reason == "quiet"
    assert (await router.reserve(BOB)).number == A
    with pytest.raises(ValueError, match="ChatHealth"):
        await router.reserve(BOB, chat_health="POORLY")


@pytest.mark.parametrize(
    "story",
    [
        [(10, "CRITICAL"), (5, "HEALTHY")],
        [(5, "HEALTHY"), (10, "CRITICAL")],
        [(10, "HEALTHY"), (10, "CRITICAL")],
        [(10, "CRITICAL"), (10, "AT_RISK")],
    ],
)
async def test_the_latest_view_holds_whichever_comes_first(world, story):
    """By the moment it is of; of two of one moment the worse."""
    router = world.router()
    await begun(world, router)
    world.clock.advance(20)
    for at, health in story:
        await feels(world, router, health, at=NOW + at)
    assert (await refusal(Held, router)).reason == "quiet"


@given(
    st.lists(
        st.tuples(
            st.integers(1, 9), st.sampled_from(["HEALTHY", "AT_RISK", "CRITICAL", "OPTED_OUT"])
        ),
        min_size=1,
        max_size=8,
    ),
    st.data(),
)
@settings(max_examples=100)
async def test_views_in_any_order_and_number_come_to_the_same(new_world, story, data):
    """The latest is what counts, however late and often the others come, and whichever report brings them."""
    world = new_world()
    router = world.router(loose(at_risk_gap=HOUR))
    await begun(world, router)
    world.clock.advance(20)
    badness = ["HEALTHY", "AT_RISK", "CRITICAL", "OPTED_OUT"]
    _, last = max(story, key=lambda each: (each[0], badness.index(each[1])))
    for at, health in data.draw(st.permutations([*story, data.draw(st.sampled_from(story))])):
        if data.draw(st.booleans()):
            await feels(world, router, health, at=NOW + at)
        else:
            more = {"chat_health": health, "chat_health_at": NOW + at}
            await router.report(Delivered(message_id="of c1", at=world.clock.now(), **more))
    preview = await router.preview(ANN)
    if any(health == "OPTED_OUT" for _, health in story):
        assert (preview.outcome, preview.reason) == ("blocked", "opted_out")
        preview = await router.preview(ANN, override_optout=True)
    expected = {"CRITICAL": "held", "AT_RISK": "not_now"}.get(last, "reserved")
    assert preview.outcome == expected


async def test_a_view_that_is_repeated_or_outdated_changes_nothing(world):
    """The report says so."""
    router = world.router()
    await begun(world, router)
    assert await feels(world, router, "AT_RISK")
    before = world.stored()
    assert not await feels(world, router, "AT_RISK")
    assert not await feels(world, router, "HEALTHY", at=NOW)
    assert not await feels(world, router, "CRITICAL", CAT)
    assert not await feels(world, router, "CRITICAL", None, number=None, chat_id="unheard of")
    assert world.stored() == before


async def test_a_view_of_another_conversation_of_theirs_is_no_matter(world):
    """On a line they belong to no more, or with a chat that is not the one on this line."""
    router = world.router()
    await begun(world, router)
    await router.move(ANN, B)
    await begun_on_b(world, router)
    assert not await feels(world, router, "CRITICAL")
    assert not await feels(world, router, "CRITICAL", number=None, chat_id="c1")
    assert not await feels(world, router, "CRITICAL", number=None, chat_id="unheard of")
    assert not await feels(world, router, "CRITICAL", None, number=None, chat_id="c1")
    made = await router.reserve(ANN)
    assert (made.number, made.chat_id) == (B, "c2")
    assert await feels(world, router, "CRITICAL", None, number=None, chat_id="c2")
    assert (await refusal(Held, router)).reason == "quiet"


async def begun_on_b(world, router) -> None:
    """Their conversation goes on, on line B."""
    await (await router.reserve(ANN)).settle("SENT", chat_id="c2", message_id="of c2")
    world.clock.advance(1)


async def test_on_another_line_the_old_conversation_is_forgotten(world):
    """CRITICAL was that of the chat on the line they left."""
    router = world.router()
    await begun(world, router)
    await feels(world, router, "CRITICAL")
    await router.move(ANN, B)
    made = await router.reserve(ANN)
    assert (made.number, made.chat_id) == (B, None)


async def test_a_conversation_that_turns_critical_while_its_message_waits_is_not_sent_into(world):
    """check() raises Held, and the reservation is given back."""
    router = world.router()
    await begun(world, router)
    made = await router.reserve(ANN)
    await feels(world, router, "CRITICAL")
    with pytest.raises(Held) as caught:
        await made.check()
    assert caught.value.decision.reason == "quiet"
    assert made.outcome == "NOT_SENT"
    assert (await outcomes(router))["sent"] == 1


async def test_what_waits_is_checked_in_shadow_too_and_goes(world):
    """A rule in shadow holds nothing at any time."""
    router = world.router(loose(chat_health="shadow"))
    await begun(world, router)
    made = await router.reserve(ANN)
    await feels(world, router, "CRITICAL")
    await made.check()
    assert made.outcome is None


async def test_a_groups_conversation_is_held_by_its_chat(world):
    """The provider names the chat and not who is in it; its members' own conversations go on."""
    router = world.router()
    await begun(world, router, (BOB, ANN), "g1")
    await begun(world, router, ANN, "c1")
    assert await feels(world, router, "CRITICAL", None, chat_id="g1")
    assert (await refusal(Held, router, [ANN, BOB])).reason == "quiet"
    assert (await router.reserve(ANN)).number == A


async def test_a_chat_that_was_imported_is_known_by_its_id(world):
    """From the moment it is assigned, before anything is sent into it."""
    router = world.router()
    await router.assign_many([((ANN, BOB), A, NOW - DAY, "g1"), (CAT, A, NOW - DAY, "c1")])
    assert await feels(world, router, "CRITICAL", None, number=None, chat_id="g1")
    assert (await refusal(Held, router, (ANN, BOB))).reason == "quiet"
    assert (await router.reserve(CAT)).chat_id == "c1"


async def test_another_pools_conversation_is_held_there(world):
    """Whose chat it is, its id tells, whichever pool hears of it."""
    one, two = world.router(pool="one"), world.router(pool="two")
    await begun(world, one)
    await begun(world, two, BOB, "c2")
    assert await feels(world, two, "CRITICAL", None, chat_id="c1")
    assert await feels(world, one, "CRITICAL", BOB, chat_id="c2")
    assert (await refusal(Held, one)).reason == "quiet"
    assert (await refusal(Held, two, BOB)).reason == "quiet"
    assert await one.assignment(BOB) is None


async def test_a_conversation_that_is_held_moves_to_no_other_line(world):
    """Not even when its line is FLAGGED: another number would only make it worse."""
    router = world.router()
    await begun(world, router)
    await feels(world, router, "CRITICAL")
    await router.report(LineChanged(A, status="FLAGGED", at=world.clock.now()))
    assert (await refusal(Held, router)).reason == "quiet"
    assert (await router.assignment(ANN)).number == A


# How long nobody has answered


async def unanswered(world, router, count: int, to=ANN) -> None:
    """So many messages, an hour apart."""
    for _ in range(count):
        await (await router.reserve(to)).settle("SENT")
        world.clock.advance(HOUR)


async def test_after_three_messages_without_a_reply_the_conversation_is_held(world):
    """The fourth waits until they write; then they may be written to three times again."""
    router = world.router(loose(unanswered="enforce"))
    for _ in range(2):
        await unanswered(world, router, 3)
        decision = await refusal(Held, world.router(loose(unanswered="enforce")))
        assert decision.reason == "quiet"
        assert "3 messages without a reply" in decision.notes[0]
        assert decision.retry_at > world.clock.now()
        number = (await router.assignment(ANN)).number
        await router.report(Replied(number, ANN, at=world.clock.now()))
        world.clock.advance(1)
    assert (await router.reserve(ANN)).number == number


async def test_how_many_is_the_policys(world):
    """One, say."""
    router = world.router(loose(unanswered="enforce", unanswered_after=1))
    await unanswered(world, router, 1)
    await refusal(Held, router)
    assert (await router.reserve(BOB)).kind == "new"


async def test_by_default_silence_is_only_remarked_upon(world):
    """The rule starts in shadow: notes and counts, for the preview as for the reservation."""
    router = world.router()
    await unanswered(world, router, 3)
    preview = await router.preview(ANN)
    made = await router.reserve(ANN)
    assert preview.notes == made.decision.notes == (HOLDS + "3 messages without a reply",)
    assert (await router.reserve(ANN)).decision.notes == (HOLDS + "4 messages without a reply",)
    number = made.number
    assert (await outcomes(router, number))["shadow"] == 2
    assert any("would have held" in each for each in await told(router, number)) is False
    await router.report(Replied(number, ANN, at=world.clock.now()))
    world.clock.advance(1)
    assert (await router.reserve(ANN)).decision.notes == ()


async def told(router, number: str):
    """A line's reasons."""
    return next(each for each in await router.lines() if each.line.number == number).reasons


async def test_the_silence_rule_that_is_off_says_nothing(world):
    """Twenty messages into the void."""
    router = world.router(loose(unanswered="off"))
    await unanswered(world, router, 20)
    assert (await router.reserve(ANN)).decision.notes == ()


async def test_who_has_just_written_is_answered(world):
    """inbound=True: nothing is unanswered, before the reply is reported and after."""
    router = world.router(loose(unanswered="enforce"))
    await unanswered(world, router, 3)
    made = await router.reserve(ANN, inbound=True)
    assert made.decision.notes == ()
    await made.check()
    await unanswered(world, router, 2)
    await refusal(Held, router)


async def test_a_message_that_was_given_back_was_not_unanswered(world):
    """Released, refused, or not sent: they never saw it."""
    router = world.router(loose(unanswered="enforce"))
    await unanswered(world, router, 2)
    for outcome in ("NOT_SENT", "LINE_REFUSED", "NOT_SENT"):
        await (await router.reserve(ANN)).settle(outcome, retry_after=0.0)
    await unanswered(world, router, 1)
    await refusal(Held, router)


async def test_a_message_given_back_after_the_reply_takes_nothing_from_the_next(world):
    """What left since is unanswered still."""
    router = world.router(loose(unanswered="enforce", unanswered_after=1))
    made = await router.reserve(ANN)
    world.clock.advance(5)
    await router.report(Replied(made.number, ANN, at=world.clock.now()))
    world.clock.advance(1)
    await router.reserve(ANN)
    await made.release()
    await refusal(Held, router)


async def test_a_reply_that_is_told_again_answers_nothing_new(world):
    """Late, twice, without an id to tell it by: what they wrote before the last messages is no reply to them."""
    router = world.router(loose(unanswered="enforce"))
    made = await router.reserve(ANN)
    world.clock.advance(10)
    reply = Replied(made.number, ANN, at=world.clock.now())
    await router.report(reply)
    world.clock.advance(100)
    await unanswered(world, router, 3)
    await refusal(Held, router)
    await router.report(reply)
    await refusal(Held, router)


async def test_a_reply_answers_what_left_before_it_was_written(world):
    """Reported late, it leaves the message that crossed it unanswered."""
    router = world.router(loose(unanswered="enforce", unanswered_after=2))
    made = await router.reserve(ANN)
    world.clock.advance(10)
    written = world.clock.now()
    world.clock.advance(10)
    await router.reserve(ANN)
    await router.report(Replied(made.number, ANN, at=written))
    await router.reserve(ANN)
    await refusal(Held, router)


async def test_a_group_has_answered_when_one_of_it_has(world):
    """The provider tells the chat and not who is in it."""
    router = world.router(loose(unanswered="enforce"))
    group = (ANN, BOB)
    await begun(world, router, group, "g1")
    await unanswered(world, router, 2, group)
    await refusal(Held, router, group)
    assert await router.report(Replied(A, None, chat_id="g1", at=world.clock.now()))
    world.clock.advance(1)
    assert (await router.reserve(group)).number == A
    assert await router.assignment(ANN) is None


async def test_a_reply_is_the_pools_that_had_the_conversation(world):
    """Whichever pool hears of it, and whether or not it says who wrote: nobody is assigned anew, and nothing counts twice."""
    one, two = world.router(loose(unanswered="enforce"), pool="one"), world.router(pool="two")
    await begun(world, one)
    await unanswered(world, one, 2)
    await refusal(Held, one)
    for to in (ANN, None):
        reply = Replied(A, to, chat_id="c1", at=world.clock.now(), event_id=f"to {to}")
        assert await two.report(reply)
        before = world.stored()
        assert not await two.report(reply)
        assert world.stored() == before
        assert await two.assignment(ANN) is None
        await unanswered(world, one, 3)
        await refusal(Held, one)
    assert (await outcomes(one))["answered"] == 1


async def test_what_is_reported_after_the_caller_spoke_outweighs_it(world):
    """The check before the send goes by the latest word."""
    router = world.router()
    await begun(world, router)
    made = await router.reserve(ANN, chat_health="HEALTHY")
    world.clock.advance(1)
    await feels(world, router, "CRITICAL")
    with pytest.raises(Held):
        await made.check()


async def test_what_the_caller_knows_holds_for_a_repeated_key_too(world):
    """As for any other reservation."""
    router = world.router()
    made = await router.reserve(ANN, line=A, key="k")
    await feels(world, router, "CRITICAL")
    again = await router.reserve(ANN, key="k", chat_health="HEALTHY")
    assert again.id == made.id


async def test_both_rules_speak_for_themselves(world):
    """One enforced, one in shadow: held by the one, with the other's note; the other way round likewise."""
    for modes in (("enforce", "shadow"), ("shadow", "enforce")):
        router = world.router(loose(chat_health=modes[0], unanswered=modes[1]), pool=modes[0])
        await unanswered(world, router, 3)
        number = (await router.assignment(ANN)).number
        await feels(world, router, "CRITICAL", number=number)
        notes = (await refusal(Held, router)).notes
        assert len(notes) == 2
        assert [each.startswith("in shadow") for each in notes].count(True) == 1


async def test_what_would_have_been_held_and_was_given_back_is_counted_no_more(world):
    """The line's counts are of what left."""
    router = world.router(loose(unanswered_after=1))
    made = await router.reserve(ANN, line=A)
    await (await router.reserve(ANN)).release()
    assert await outcomes(router) == {"sent": 1, "opened": 1}
    assert made.number == A


async def test_an_at_risk_conversation_stays_slow_after_a_give_back(world):
    """What was given back does not make the message before it be forgotten."""
    router = world.router()
    await begun(world, router)
    await feels(world, router, "AT_RISK")
    world.clock.advance(10 * MINUTE)
    await (await router.reserve(ANN, max_delay=HOUR)).release()
    assert (await refusal(NotNow, router)).reason == "quiet"


async def test_a_repeated_key_gets_past_no_conversation_gate(world):
    """A reservation that is open is checked like any other, the first message of a conversation too."""
    router = world.router()
    made = await router.reserve(ANN, line=A, key="k")
    await made.settle("UNKNOWN", chat_id="c1")
    world.clock.advance(1)
    await feels(world, router, "CRITICAL")
    assert (await refusal(Held, router, key="k")).reason == "quiet"
