"""Who does not want messages gets none, from any line and pool, until they write again; and who is to be forgotten is."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linepicker import (
    Blocked,
    ChatHealthChanged,
    Delivered,
    Failed,
    LinePickerError,
    MessageRead,
    OptedIn,
    OptedOut,
    Policy,
    Replied,
)
from linepicker._replies import is_opt_out

NOW, MINUTE, HOUR, DAY = 1_790_000_000.0, 60.0, 3600.0, 86400.0
A, B = "+12025550100", "+12025550101"
ANN, BOB, CAT = "+14155550101", "+14155550102", "cat@example.com"
KEYWORDS = ("STOP", "UNSUBSCRIBE", "OPTOUT", "CANCEL", "END", "QUIT")


def loose() -> Policy:
    """A policy that limits nothing."""
    off = ("new_per_day", "new_per_hour", "messages_per_day", "pair_per_minute", "moves_per_day")
    return Policy.from_dict(
        {
            "limits": dict.fromkeys(off, "off"),
            "pace": {"new_gap": 0, "message_gap": 0, "spread": "off"},
        }
    )


async def refusal(kind: type[LinePickerError], router, to=ANN, **more):
    """The decision of the refusal that this request meets."""
    with pytest.raises(kind) as caught:
        await router.reserve(to, **more)
    return caught.value.decision


async def writes(world, router, text, to=ANN, number=A, **more) -> bool:
    """A person writes."""
    world.clock.advance(1)
    more = {"at": world.clock.now(), "text": text, **more}
    return await router.report(Replied(number, to, **more))


# The keywords


@pytest.mark.parametrize("word", KEYWORDS)
@pytest.mark.parametrize("around", ["{}", " {}", "{} ", "\n{}\t ", "\u00a0{}\u2003"])
def test_a_keyword_is_the_whole_trimmed_message(word, around):
    """White space around it is no matter."""
    assert is_opt_out(around.format(word))


@pytest.mark.parametrize("word", KEYWORDS)
@pytest.mark.parametrize("around", ["{}.", "please {}", "{} {}", "{}!", '"{}"', "{}\n{}", "A{}"])
def test_a_keyword_with_anything_else_is_none(word, around):
    """One more letter or point, and the provider does not take it for one."""
    assert not is_opt_out(around.format(word, word))


@pytest.mark.parametrize("word", [each for each in KEYWORDS if each != "OPTOUT"])
def test_a_keyword_counts_in_upper_case_alone(word):
    """Linq: exact upper case."""
    for other in (word.lower(), word.title(), word[0].lower() + word[1:]):
        assert not is_opt_out(other)


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("opt out", True),
        ("OPT-OUT", True),
        ("oPtOuT", True),
        ("Opt Out ", True),
        ("opt  out", False),
        ("opt--out", False),
        ("opt_out", False),
        ("opt\nout", False),
        ("opted out", False),
        ("opt out please", False),
        ("OPTIN", False),
        ("START", False),
        ("", False),
        ("STOPP", False),
        ("\u0421TOP", False),
        ("ＳＴＯＰ", False),
    ],
)
def test_opt_out_counts_in_any_case_with_a_space_or_hyphen_or_none(text, counts):
    """And looks-like is not is."""
    assert is_opt_out(text) is counts


@given(st.text(max_size=12))
def test_nothing_else_is_a_keyword(text):
    """Whatever people write."""
    said = text.strip()
    folded = said.lower().replace("-", " ", 1).replace(" ", "", 1)
    spelled = folded == "optout" and said.isascii() and len(said) in {6, 7}
    assert is_opt_out(text) == (said in KEYWORDS or spelled)


# For whom it holds


async def test_an_opt_out_holds_on_every_line_and_in_every_pool(world):
    """For who is known there and who is not; before any line is touched."""
    one, two = world.router(pool="one"), world.router(pool="two")
    await two.reserve(ANN, line=B)
    await one.reserve(ANN, line=A)
    assert await writes(world, one, "STOP")
    before = world.stored()
    for router in (one, two, world.router(pool="three")):
        for more in ({}, {"line": A}, {"line": B}, {"inbound": True, "line": A}, {"key": "k"}):
            decision = await refusal(Blocked, router, **more)
            assert (decision.reason, decision.retry_at) == ("opted_out", None)
        assert (await router.preview(ANN)).outcome == "blocked"
        assert (await router.reserve(BOB)).number in {A, B}
    assert {key: world.stored()[key] for key in before if ANN in key} == {
        key: value for key, value in before.items() if ANN in key
    }


async def test_an_opt_out_is_heard_whoever_is_written_to(world):
    """On a line of another pool, on one that is in no fleet, and from somebody nobody knows."""
    router = world.router()
    await router.lines()
    assert await writes(world, router, "QUIT", number="+12025550199")
    assert await writes(world, router, "opt-out", BOB)
    for to in (ANN, BOB):
        assert (await refusal(Blocked, router, to)).reason == "opted_out"


@pytest.mark.parametrize("how", ["OptedOut", "STOP", "chat health", "refused"])
async def test_an_opt_out_is_heard_after_the_clock_stepped_back(world, how):
    """A return that is later than now was heard before the step: it does not outrank who opts out after it."""
    router = world.router()
    await router.lines()
    world.clock.advance(DAY)
    assert await writes(world, router, "hello", number=A)
    world.clock.advance(-DAY / 2)
    await router.refresh()
    at = world.clock.now()
    world.clock.advance(90)  # it is on its way
    if how == "OptedOut":
        assert await router.report(OptedOut(ANN, at=at))
    elif how == "STOP":
        assert await router.report(Replied(A, ANN, text="STOP", at=at))
    elif how == "chat health":
        assert await router.report(ChatHealthChanged(ANN, "OPTED_OUT", at=at))
    else:
        await (await router.reserve(ANN)).settle("RECIPIENT_REFUSED")
    await refusal(Blocked, router)
    world.clock.advance(1)
    assert await router.report(OptedIn(ANN, at=world.clock.now()))
    assert (await router.reserve(ANN)).number == A


async def test_a_group_is_never_blocked(world):
    """Whoever of it writes a keyword there, opted out before, or is refused; and its word is not the person's."""
    router = world.router()
    group = (ANN, BOB)
    made = await router.reserve(group, line=A)
    await made.settle("SENT", chat_id="g")
    await router.report(OptedOut(ANN, at=NOW))
    assert await writes(world, router, "STOP", group)
    assert await writes(world, router, "STOP", None, chat_id="g")
    await router.report(ChatHealthChanged(group, "OPTED_OUT", number=A, at=NOW + 9))
    await (await router.reserve(group)).settle("RECIPIENT_REFUSED")
    assert (await router.reserve(group)).number == A
    assert (await router.reserve(group, chat_health="OPTED_OUT")).number == A
    assert (await router.reserve(BOB)).kind == "new"
    await refusal(Blocked, router, ANN)


@pytest.mark.parametrize(
    "report",
    [
        lambda at: ChatHealthChanged(ANN, "OPTED_OUT", at=at, number=B),
        lambda at: ChatHealthChanged(None, "OPTED_OUT", at=at, chat_id="c"),
        lambda at: Delivered(message_id="m", chat_health="OPTED_OUT", at=at),
        lambda at: Replied(A, ANN, chat_health="OPTED_OUT", at=at),
    ],
)
async def test_a_conversation_marked_opted_out_is_an_opt_out(world, report):
    """Whichever report brings the mark, on whatever line; a reply whose text is kept back is no return then."""
    router = world.router()
    await (await router.reserve(ANN, line=A)).settle("SENT", chat_id="c", message_id="m")
    assert await router.report(report(NOW))
    assert (await refusal(Blocked, world.router(pool="other"))).reason == "opted_out"
    world.clock.advance(1)
    await router.report(report(NOW + 1))
    await refusal(Blocked, router)


async def test_what_the_caller_says_of_an_opt_out_holds_for_that_call(world):
    """chat_health="OPTED_OUT": Blocked, nothing written down, and no more than that."""
    router = world.router()
    await router.reserve(ANN)
    before = world.stored()
    assert (await refusal(Blocked, router, chat_health="OPTED_OUT")).reason == "opted_out"
    assert world.stored() == before
    assert (await router.reserve(ANN)).kind == "known"


async def test_what_waits_is_not_sent_to_who_has_opted_out_meanwhile(world):
    """check() raises Blocked, and the reservation is given back."""
    router = world.router()
    made = await router.reserve(ANN)
    await writes(world, router, "STOP", number=made.number)
    with pytest.raises(Blocked):
        await made.check()
    assert made.outcome == "NOT_SENT"


# How it ends


@pytest.mark.parametrize("text", ["hello", "please stop", "", None])
async def test_any_later_message_that_is_no_keyword_ends_it(world, text):
    """On any line, in any pool, known to it or not; with its text kept back too."""
    one, two = world.router(pool="one"), world.router(pool="two")
    await writes(world, one, "STOP")
    await writes(world, two, text, number=B)
    assert (await one.reserve(ANN, line=A)).number == A


async def test_another_keyword_ends_nothing(world):
    """They still don't want any."""
    router = world.router()
    for text in ("STOP", "CANCEL", "opt out"):
        await writes(world, router, text)
    await refusal(Blocked, router)


@pytest.mark.parametrize("text", ["hello", None])
async def test_what_they_wrote_before_they_opted_out_ends_nothing(world, text):
    """However late it is reported."""
    router = world.router()
    world.clock.advance(100)
    await writes(world, router, "STOP")
    assert await writes(world, router, text, at=NOW + 50) in (True, False)
    await refusal(Blocked, router)


async def test_what_they_write_into_a_group_is_about_the_group(world):
    """A group's message names nobody who could be blocked or unblocked by it."""
    router = world.router()
    await (await router.reserve((ANN, BOB), line=A)).settle("SENT", chat_id="g")
    await writes(world, router, "STOP")
    await writes(world, router, "hello", None, chat_id="g")
    await refusal(Blocked, router)


async def test_an_opt_out_in_a_chat_known_by_its_id_alone_is_theirs(world):
    """The report may name nobody where the conversation tells who it is."""
    router = world.router()
    await (await router.reserve(ANN, line=A)).settle("SENT", chat_id="c")
    assert await writes(world, router, "STOP", None, chat_id="c")
    await refusal(Blocked, router)
    assert await writes(world, router, "hello", None, chat_id="c")
    assert (await router.reserve(ANN)).number == A


async def test_the_provider_has_the_last_word(world):
    """A refusal of the recipient blocks where our own state says they are back, until they write or opt in after it."""
    router = world.router()
    await writes(world, router, "STOP")
    await writes(world, router, "hello")
    made = await router.reserve(ANN)
    world.clock.advance(5)
    await made.settle("RECIPIENT_REFUSED")
    for pool in ("default", "other"):
        assert (await refusal(Blocked, world.router(pool=pool))).reason == "blocked"
    await router.report(OptedIn(ANN, at=world.clock.now() - 4))
    await router.report(OptedIn(ANN, at=world.clock.now()))
    await writes(world, router, "hello", at=world.clock.now() - 3)
    await refusal(Blocked, router)
    await writes(world, router, "hello")
    assert (await router.reserve(ANN)).number == A


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["out", "in"])), min_size=1, max_size=8),
    st.data(),
)
async def test_opt_outs_and_returns_in_any_order_and_number_come_to_the_latest(
    new_world, story, data
):
    """By their own moments; of two of one moment the opt-out."""
    world = new_world()
    router = world.router()
    world.clock.advance(20)
    for at, what in data.draw(st.permutations([*story, data.draw(st.sampled_from(story))])):
        await router.report({"out": OptedOut, "in": OptedIn}[what](ANN, at=NOW + at))
    last = max(at for at, _ in story)
    expected = "blocked" if (last, "out") in story else "reserved"
    assert (await router.preview(ANN)).outcome == expected


# Sending all the same


async def test_an_override_is_explicit_for_one_call_and_recorded(world):
    """It ends nothing; the decision's notes tell what it went past."""
    router = world.router()
    await router.reserve(ANN, line=A)
    await writes(world, router, "STOP")
    assert "opted_out" in (await router.preview(ANN, override_optout=True)).notes[0]
    made = await router.reserve(ANN, override_optout=True)
    assert len(made.decision.notes) == 1
    assert "opted_out" in made.decision.notes[0]
    assert "opted_out" in made.decision.to_json()
    await made.check()
    await made.settle("SENT")
    await refusal(Blocked, router)
    assert (await router.reserve(BOB, override_optout=True)).decision.notes == ()


async def test_an_override_goes_past_a_refusal_and_what_the_caller_said_too(world):
    """Each is named."""
    router = world.router()
    await (await router.reserve(ANN, line=A)).settle("RECIPIENT_REFUSED")
    made = await router.reserve(ANN, override_optout=True)
    assert "blocked" in made.decision.notes[0]
    made = await router.reserve(BOB, override_optout=True, chat_health="OPTED_OUT")
    assert "opted_out" in made.decision.notes[0]


async def test_an_override_is_counted_as_nothing_but_a_message(world):
    """No rule in shadow mode would have held it."""
    router = world.router()
    await writes(world, router, "STOP")
    await router.reserve(ANN, line=A, override_optout=True)
    seen = next(each for each in await router.lines() if each.line.number == A).outcomes
    assert dict(seen) == {"sent": 1, "opted_out": 1}


# Being forgotten


def of_ann(world) -> list[str]:
    """The keys under which anything tells of Ann."""
    return sorted(
        key
        for key, value in world.stored().items()
        if ANN in key or (value is not None and ANN.encode() in value)
    )


async def test_to_forget_erases_in_all_pools_what_tells_of_a_person(world):
    """Assignments, messages and conversations, from pools that ever had a list of lines and pools that were only filled."""
    pools = [world.router(pool=name) for name in ("one", "two", "default")]
    for n, router in enumerate(pools[:2]):
        made = await router.reserve(ANN, line=A)
        await made.settle("SENT", chat_id=f"c{n}", message_id=f"m{n}")
        await writes(world, router, "hello", chat_id=f"c{n}", event_id=f"e{n}")
        await router.report(Delivered(message_id=f"m{n}", at=NOW))
    await pools[2].assign(ANN, B, chat_id="c9")
    assert {key.split("/")[0] for key in of_ann(world)} >= {"to", "chat", "message"}
    assert len(of_ann(world)) >= 8
    await pools[0].forget(ANN)
    assert of_ann(world) == []
    for router in pools:
        assert await router.assignment(ANN) is None
    made = await pools[1].reserve(ANN)
    assert (made.kind, made.chat_id) == ("new", None)


async def test_to_forget_leaves_everybody_else(world):
    """Also the groups they are in."""
    router = world.router()
    for to in (BOB, (ANN, BOB)):
        made = await router.reserve(to, line=A)
        await made.settle("SENT", chat_id=f"c{len(to)}", message_id=f"m{len(to)}")
    before = world.stored()
    await router.forget(ANN)
    assert world.stored() == before


@pytest.mark.parametrize("out", ["STOP", "refused"])
async def test_to_forget_keeps_the_opt_out(world, out):
    """Nothing else: they are strangers who are not to be written to."""
    router = world.router()
    made = await router.reserve(ANN, line=A)
    await made.settle("SENT", chat_id="c", message_id="m")
    if out == "STOP":
        await writes(world, router, "STOP")
    else:
        await (await router.reserve(ANN)).settle("RECIPIENT_REFUSED")
    await router.forget(ANN)
    assert of_ann(world) == [f"block/{ANN}"]
    await refusal(Blocked, router)
    await refusal(Blocked, world.router(pool="other"))
    await writes(world, router, "hello")
    assert (await router.reserve(ANN)).kind == "known"


async def test_an_opt_out_that_has_ended_is_forgotten_with_the_rest(world):
    """Who came back and is forgotten leaves nothing."""
    router = world.router()
    await writes(world, router, "STOP")
    await writes(world, router, "hello")
    await router.forget(ANN)
    assert of_ann(world) == []


async def test_to_forget_twice_or_a_stranger_is_nothing(world):
    """It changes nothing."""
    router = world.router()
    await router.lines()
    before = world.stored()
    for to in (ANN, CAT, (ANN, BOB)):
        await router.forget(to)
    assert world.stored() == before


async def test_receipts_that_come_after_bring_nobody_back(world):
    """What they tell is counted for the line; whose message it was is not known any more."""
    router = world.router()
    await (await router.reserve(ANN, line=A)).settle("SENT", chat_id="c", message_id="m")
    await router.forget(ANN)
    at = world.clock.now()
    for kind in (Delivered, MessageRead, Failed):
        more = {"number": A, "to": ANN, "chat_id": "c", "chat_health": "AT_RISK"}
        await router.report(kind(message_id="m", at=at, **more))
        await router.report(kind(message_id="n", at=at, event_id=kind.__name__, **more))
    await router.report(ChatHealthChanged(ANN, "CRITICAL", number=A, chat_id="c", at=at))
    assert of_ann(world) == []
    seen = next(each for each in await router.lines() if each.line.number == A).outcomes
    assert seen["delivered"] == 2


async def test_a_settlement_that_comes_after_teaches_nothing(world):
    """The conversation it tells of is not written down."""
    router = world.router()
    made = await router.reserve(ANN, line=A)
    await router.forget(ANN)
    await made.settle("SENT", chat_id="c", message_id="m")
    assert of_ann(world) == []


async def test_keys_stand_for_their_message_after_it_was_forgotten(world):
    """For 24 hours, or the same message would go out twice."""
    router = world.router()
    made = await router.reserve(ANN, line=A, key="k")
    await made.settle("SENT")
    await router.forget(ANN)
    assert of_ann(world) == ["key/default/k"]
    assert (await router.reserve(ANN, key="k")).id == made.id
