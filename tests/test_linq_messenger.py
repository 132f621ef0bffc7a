"""Sending with the official client through the router to a provider on a socket: once, and from the right line."""

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import linq
import pytest

from linepicker import (
    AlreadySent,
    AsyncRouter,
    Blocked,
    ChatHealthChanged,
    Held,
    LineChanged,
    NoLine,
    NotNow,
    Policy,
    Router,
    ServiceStatus,
    StoreError,
)
from linepicker.providers.linq import (
    AsyncLinqMessenger,
    AsyncLinqSource,
    LinqMessenger,
    LinqSource,
)
from linepicker.testing import FakeLinq, ManualClock

PERSON, OTHER = "+12125550177", "ada@example.com"
START = 1_790_000_000.0
HELLO_AGAIN = "This is Ada's shop, from a new number."


class Door:
    """A router and a messenger of either kind before one provider; `pauses` are the messenger's own waits."""

    def __init__(self, kind: str, fake: FakeLinq, clock: ManualClock, **options: Any) -> None:
        self.kind, self.pauses = kind, []
        self._runner = asyncio.Runner()
        account = {"base_url": fake.base_url}
        sdk = {"api_key": fake.token, "timeout": 5.0, **account, **options}
        policy = Policy.from_dict({"stickiness": {"continuation": HELLO_AGAIN}})
        if kind == "sync":
            self.client: Any = linq.LinqAPIV3(**sdk)
            self.router: Any = Router(LinqSource(fake.token, **account), policy=policy, clock=clock)
            self.messenger: Any = LinqMessenger(self.client, self.router, sleep=self.pauses.append)
        else:
            self.client = linq.AsyncLinqAPIV3(**sdk)
            self.router = AsyncRouter(
                AsyncLinqSource(fake.token, **account), policy=policy, clock=clock
            )
            self.messenger = AsyncLinqMessenger(self.client, self.router, sleep=self._asleep)

    async def _asleep(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def run(self, method: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        """Call *method*, and wait for it if it is a coroutine."""
        if self.kind == "sync":
            return method(*arguments, **keywords)

        async def call() -> Any:
            return await method(*arguments, **keywords)

        return self._runner.run(call())

    def send(self, *arguments: Any, **keywords: Any) -> Any:
        """Send a message."""
        return self.run(self.messenger.send, *arguments, **keywords)

    def line_of(self, to: Any) -> str | None:
        """The line that *to* is assigned to."""
        assignment = self.run(self.router.assignment, to)
        return assignment and assignment.number

    def next_line(self, to: str) -> str:
        """The line that *to*, a new recipient, would get now."""
        return self.run(self.router.preview, to).number

    def flag(self, line: str, at: float) -> None:
        """Tell the router that a line is flagged, so that its recipients move."""
        report = LineChanged(line, status=ServiceStatus.FLAGGED, at=at)
        assert self.run(self.router.report, report)

    def close(self) -> None:
        """Close everything."""
        self.run(self.router.close)
        self.run(self.client.close)
        self._runner.close()


@pytest.fixture
def clock() -> ManualClock:
    """The time of router and provider."""
    return ManualClock(START)


@pytest.fixture
def fake(clock) -> Iterator[FakeLinq]:
    """A provider with four lines."""
    with FakeLinq(4, clock=clock) as provider:
        yield provider


@pytest.fixture(params=["sync", "async"])
def kind(request) -> str:
    """Sync and async in turn."""
    return request.param


@pytest.fixture
def door(kind, fake, clock) -> Iterator[Door]:
    """Router and messenger before the provider."""
    opened = Door(kind, fake, clock)
    yield opened
    opened.close()


def posts(fake: FakeLinq) -> list[tuple[str, dict[str, Any]]]:
    """Path and body of each attempt to send, oldest first."""
    return [(each.path, json.loads(each.body)) for each in fake.requests if each.method == "POST"]


def keys(fake: FakeLinq) -> list[str]:
    """The idempotency key of each attempt to send."""
    return [body["message"]["idempotency_key"] for _, body in posts(fake)]


def test_a_new_recipient_is_written_to_from_the_line_that_was_reserved(fake, door):
    """The chat is opened on that line, and the router learns chat and assignment."""
    line = door.next_line(PERSON)
    response = door.send(PERSON, "Hello")
    (sent,) = fake.sent
    assert (sent.number, sent.to, sent.text) == (line, PERSON, "Hello")
    assert sent.message_id == response.chat.message.id
    assert sent.idempotency_key
    assert door.line_of(PERSON) == line


def test_a_known_recipient_is_written_to_in_the_known_chat(fake, door):
    """The second message goes into the chat of the first, by its id, with a key of its own."""
    chat = door.send(PERSON, "Hello").chat
    response = door.send(PERSON, "Again")
    assert response.chat_id == chat.id
    assert [path for path, _ in posts(fake)] == ["/v3/chats", f"/v3/chats/{chat.id}/messages"]
    assert len(set(keys(fake))) == 2
    assert len({sent.number for sent in fake.sent}) == 1


def test_a_group_is_written_to_as_one(fake, door):
    """All handles go into one chat, whatever their order, and the next message into the same."""
    door.send([PERSON, OTHER], "Hello")
    door.send([OTHER, PERSON], "Again")
    assert [sent.to for sent in fake.sent] == [(PERSON, OTHER)] * 2
    assert len({sent.chat_id for sent in fake.sent}) == 1


def test_a_line_that_turned_ineligible_is_replaced_for_a_new_recipient(fake, door):
    """The message goes out once, from another line, with another key, and that is the recipient's line from then on."""
    refused = door.next_line(PERSON)
    fake.set_eligible(refused, False)
    door.send(PERSON, "Hello")
    (sent,) = fake.sent
    assert sent.number != refused
    assert [body["from"] for _, body in posts(fake)] == [refused, sent.number]
    assert len(set(keys(fake))) == 2
    assert door.line_of(PERSON) == sent.number
    assert door.next_line(OTHER) != refused


def test_a_line_that_left_the_account_is_replaced_for_a_new_recipient(fake, door):
    """403/2006 is the line's refusal too."""
    gone = door.next_line(PERSON)
    fake.remove_line(gone)
    door.send(PERSON, "Hello")
    assert [sent.number == gone for sent in fake.sent] == [False]


def test_three_lines_that_refuse_are_enough(fake, door):
    """Then the provider's own error is raised, and the recipient has no line."""
    door.next_line(PERSON)
    for number in fake.numbers:
        fake.set_eligible(number, False)
    with pytest.raises(linq.PermissionDeniedError) as caught:
        door.send(PERSON, "Hello")
    assert caught.value.code == 2027
    assert len({body["from"] for _, body in posts(fake)}) == 3
    assert door.line_of(PERSON) is None


def test_a_known_recipient_is_not_moved_in_flight(fake, door):
    """The refusal of their line is raised as it is; nothing goes out from anywhere."""
    door.send(PERSON, "Hello")
    line = door.line_of(PERSON)
    fake.set_eligible(line, False)
    with pytest.raises(linq.PermissionDeniedError):
        door.send(PERSON, "Again")
    assert [sent.text for sent in fake.sent] == ["Hello"]
    assert len(posts(fake)) == 2


def test_an_answer_that_never_comes_is_not_sent_again(kind, fake, clock):
    """It may have gone out: one request, one line, and with the same key it is the same message on the same line."""
    door = Door(kind, fake, clock, timeout=0.3)
    line = door.next_line(PERSON)
    fake.hang_next(1, path="/v3/chats", after=True)
    with pytest.raises(linq.APITimeoutError):
        door.send(PERSON, "Hello", key="order-1")
    assert [body["from"] for _, body in posts(fake)] == [line]
    assert door.line_of(PERSON) == line
    fake.set_eligible(line, True)
    door.send(PERSON, "Hello", key="order-1")
    assert [sent.number for sent in fake.sent] == [line]
    assert len(set(keys(fake))) == 1
    with pytest.raises(AlreadySent):
        door.send(PERSON, "Hello", key="order-1")
    assert len(posts(fake)) == 2
    door.close()


@pytest.mark.parametrize(("status", "code"), [(500, 3001), (500, 4002), (503, 4004), (504, 3005)])
def test_a_server_error_is_not_tried_elsewhere(fake, door, status, code):
    """It may have gone out, even if the sender's phone is said to be unavailable."""
    line = door.next_line(PERSON)
    fake.fail_next(9, status=status, code=code, path="/v3/chats")
    with pytest.raises(linq.InternalServerError):
        door.send(PERSON, "Hello")
    assert [body["from"] for _, body in posts(fake)] == [line]
    assert door.line_of(PERSON) == line


def test_the_sdk_does_not_retry_underneath(kind, fake, clock):
    """Whatever the caller's client would do by itself; that client stays as it was."""
    door = Door(kind, fake, clock, max_retries=5)
    door.next_line(PERSON)
    fake.fail_next(9, status=409, code=2015, path="/v3/chats")
    with pytest.raises(linq.ConflictError):
        door.send(PERSON, "Hello")
    assert len(posts(fake)) == 1
    assert door.client.max_retries == 5
    door.close()


def test_a_rate_limited_pair_waits_and_keeps_its_line(fake, door, clock):
    """429 is raised; until the time named the router refuses, and then the same line serves."""
    door.send(PERSON, "Hello")
    line = door.line_of(PERSON)
    fake.fail_next(1, status=429, code=1007, retry_after=45, path="/v3/chats")
    with pytest.raises(linq.RateLimitError):
        door.send(PERSON, "Again")
    before = len(posts(fake))
    with pytest.raises(NotNow) as caught:
        door.send(PERSON, "Again", max_delay=0)
    assert caught.value.retry_at == pytest.approx(clock.now() + 45, abs=1)
    assert len(posts(fake)) == before
    clock.advance(46)
    door.send(PERSON, "Again")
    assert [sent.number for sent in fake.sent] == [line, line]


def test_a_rate_limited_new_recipient_gets_no_other_line(fake, door):
    """A pair limit says nothing of the line."""
    line = door.next_line(PERSON)
    fake.fail_next(1, status=429, code=1007, retry_after=5, path="/v3/chats")
    with pytest.raises(linq.RateLimitError):
        door.send(PERSON, "Hello")
    assert [body["from"] for _, body in posts(fake)] == [line]
    assert fake.sent == []


@pytest.mark.parametrize("refuse", [FakeLinq.opt_out, FakeLinq.block, FakeLinq.disallow])
def test_a_recipient_who_does_not_want_to_is_remembered(fake, door, refuse):
    """The provider's error once; no other line is tried; from then on the router refuses by itself."""
    refuse(fake, PERSON)
    with pytest.raises(linq.PermissionDeniedError):
        door.send(PERSON, "Hello")
    assert len(posts(fake)) == 1
    with pytest.raises(Blocked):
        door.send(PERSON, "Hello")
    assert len(posts(fake)) == 1
    assert fake.sent == []


def test_an_override_is_told_to_the_provider_and_nobody_else(fake, door):
    """`override_optout` is in the body only where it was asked for, in a new chat and in a known one."""
    fake.opt_out(PERSON)
    door.send(PERSON, "Your code is 1234", override_optout=True)
    door.send(PERSON, "Your code is 5678", override_optout=True)
    door.send(OTHER, "Hello")
    assert [body.get("override_optout") for _, body in posts(fake)] == [True, True, None]
    assert [sent.override_optout for sent in fake.sent] == [True, True, False]


def test_a_chat_that_is_being_created_is_waited_for(fake, door):
    """The same request on the same line with the same key, until it works."""
    line = door.next_line(PERSON)
    fake.fail_next(3, status=409, code=2009, path="/v3/chats")
    door.send(PERSON, "Hello")
    assert door.pauses == [1.0, 2.0, 4.0]
    assert [body["from"] for _, body in posts(fake)] == [line] * 4
    assert len(set(keys(fake))) == 1
    assert [sent.number for sent in fake.sent] == [line]


def test_a_chat_that_is_created_for_ever_is_not_waited_for_longer(fake, door):
    """After four requests the conflict is raised, and the recipient stays on that line."""
    line = door.next_line(PERSON)
    fake.fail_next(9, status=409, code=2009, path="/v3/chats")
    with pytest.raises(linq.ConflictError):
        door.send(PERSON, "Hello")
    assert len(posts(fake)) == 4
    assert door.line_of(PERSON) == line


@pytest.mark.parametrize(("status", "code"), [(404, 2001), (409, 2013)])
def test_a_chat_that_is_gone_is_opened_anew(fake, door, status, code):
    """On the same line, with the same key, and the router learns the chat."""
    chat = door.send(PERSON, "Hello").chat
    fake.fail_next(1, status=status, code=code, path="/messages")
    door.send(PERSON, "Again")
    door.send(PERSON, "And again")
    assert [path for path, _ in posts(fake)] == [
        "/v3/chats",
        f"/v3/chats/{chat.id}/messages",
        "/v3/chats",
        f"/v3/chats/{chat.id}/messages",
    ]
    assert keys(fake)[1] == keys(fake)[2]
    assert len({sent.number for sent in fake.sent}) == 1
    assert [sent.text for sent in fake.sent] == ["Hello", "Again", "And again"]


@pytest.mark.parametrize(("status", "code"), [(404, 2002), (404, None), (409, 2015), (409, None)])
def test_other_refusals_of_a_known_chat_are_raised(fake, door, status, code):
    """Only a chat that is gone is opened anew."""
    door.send(PERSON, "Hello")
    fake.fail_next(1, status=status, code=code, path="/messages")
    with pytest.raises(linq.APIStatusError) as caught:
        door.send(PERSON, "Again")
    assert (caught.value.status_code, caught.value.code) == (status, code)
    assert len(posts(fake)) == 2


def test_a_first_message_with_a_link_is_the_caller_s_to_mend(fake, door):
    """400/1005 is raised, and the recipient is as new as before."""
    with pytest.raises(linq.BadRequestError) as caught:
        door.send(PERSON, "See https://example.com")
    assert caught.value.code == 1005
    assert door.line_of(PERSON) is None
    assert len(posts(fake)) == 1
    door.send(PERSON, "Hello")
    assert len(fake.sent) == 1


def test_a_token_that_expired_is_nobody_s_fault(fake, door):
    """401 is raised as it is, no line is blamed, and the promise is given back."""
    line = door.next_line(PERSON)
    fake.fail_next(1, status=401, code=2004, path="/v3/chats")
    with pytest.raises(linq.AuthenticationError):
        door.send(PERSON, "Hello")
    assert door.line_of(PERSON) is None
    assert door.next_line(PERSON) == line


def test_a_provider_that_is_not_there_got_nothing(fake, door):
    """A connection that could not be made gives the promise back."""
    door.next_line(PERSON)
    fake.close()
    with pytest.raises(linq.APIConnectionError):
        door.send(PERSON, "Hello")
    assert door.line_of(PERSON) is None
    fake.start()
    door.send(PERSON, "Hello")
    assert len(fake.sent) == 1


def test_a_message_may_be_all_that_the_sdk_takes(fake, door):
    """Its parts may come from any iterable, even where they are posted twice."""
    fake.set_eligible(door.next_line(PERSON), False)
    parts = ({"type": "text", "value": value} for value in ["Hello"])
    door.send(PERSON, {"parts": parts, "preferred_service": "SMS"})
    assert [body["message"]["parts"] for _, body in posts(fake)] == [
        [{"type": "text", "value": "Hello"}]
    ] * 2
    assert {body["message"]["preferred_service"] for _, body in posts(fake)} == {"SMS"}


TEXT = {"type": "text", "value": "Your order 🎁 is here"}
MEDIUM = {"type": "media", "url": "https://example.com/a.png"}
CARD = {"type": "imessage_app", "app": {"bundle_id": "b", "name": "n", "team_id": "t"}}
JOINED = f"{HELLO_AGAIN}\n\n{TEXT['value']}"
AHEAD = len(HELLO_AGAIN) + 2


@pytest.mark.parametrize(
    ("message", "posted"),
    [
        (TEXT["value"], [{**TEXT, "value": JOINED}]),
        ({"parts": [TEXT, MEDIUM]}, [{**TEXT, "value": JOINED}, MEDIUM]),
        ({"parts": [MEDIUM, TEXT]}, [{"type": "text", "value": HELLO_AGAIN}, MEDIUM, TEXT]),
        ({"parts": [MEDIUM] * 99}, [{"type": "text", "value": HELLO_AGAIN}, *[MEDIUM] * 99]),
        ({"parts": [MEDIUM] * 100}, [MEDIUM] * 100),
        ({"parts": [CARD]}, [CARD]),
        ({"parts": [{"type": "text"}]}, [{"type": "text"}]),
        ({"parts": []}, []),
        ({"experience": {"name": "a", "action": "b"}}, None),
        (
            {"parts": [{**TEXT, "text_decorations": [{"range": (11, 13), "style": "bold"}]}]},
            [
                {
                    **TEXT,
                    "value": JOINED,
                    "text_decorations": [{"range": [AHEAD + 11, AHEAD + 13], "style": "bold"}],
                }
            ],
        ),
        (
            {"parts": [{**TEXT, "inline_stickers": [{"range": [11, 13], "attachment_id": "a"}]}]},
            [
                {
                    **TEXT,
                    "value": JOINED,
                    "inline_stickers": [{"range": [AHEAD + 11, AHEAD + 13], "attachment_id": "a"}],
                }
            ],
        ),
        (
            {"parts": [{**TEXT, "mention": PERSON}]},
            [{**TEXT, "value": JOINED, "mention": PERSON, "mention_range": [AHEAD, AHEAD + 21]}],
        ),
        (
            {"parts": [{**TEXT, "mention": PERSON, "mention_range": [0, 4]}]},
            [{**TEXT, "value": JOINED, "mention": PERSON, "mention_range": [AHEAD, AHEAD + 4]}],
        ),
    ],
)
def test_who_was_moved_is_told_so_first(fake, door, clock, message, posted):
    """The continuation comes before the message, in one that Linq takes; nothing of the caller's is lost."""
    door.send(PERSON, "Hello")
    door.flag(door.line_of(PERSON), clock.now())
    try:
        door.send(PERSON, message)
    except linq.BadRequestError:  # what the fake has not got
        assert fake.sent[-1].text == "Hello"
    (_, first), (path, moved) = posts(fake)
    assert path == "/v3/chats"
    assert moved["from"] != first["from"]
    assert moved["message"].get("parts") == posted
    assert moved["message"].get("experience") == (
        None if isinstance(message, str) else message.get("experience")
    )


def test_a_move_is_told_of_once(fake, door, clock):
    """The next message on the new line, and any to people who were not moved, are as they were given."""
    door.send(PERSON, "One")
    door.flag(door.line_of(PERSON), clock.now())
    for text in ("Two", "Three"):
        door.send(PERSON, text)
    door.send(OTHER, "Four")
    told = [f"{HELLO_AGAIN}\n\nTwo", "Three", "Four"]
    assert [sent.text for sent in fake.sent] == ["One", *told]
    assert fake.sent[1].idempotency_key != fake.sent[2].idempotency_key


def test_a_move_that_did_not_happen_is_told_of_when_it_does(fake, door, clock):
    """A message that Linq would not take is given back with the move, which the next one makes; the same one is told."""
    door.send(PERSON, "One")
    home = door.line_of(PERSON)
    door.flag(home, clock.now())
    with pytest.raises(linq.BadRequestError):
        door.send(PERSON, "See https://example.com")
    assert door.line_of(PERSON) == home
    door.send(PERSON, "Two")
    assert [sent.text for sent in fake.sent] == ["One", f"{HELLO_AGAIN}\n\nTwo"]


def test_a_moved_message_that_is_posted_again_is_the_same(fake, door, clock):
    """While the chat is being created, the same text goes out with the same key."""
    door.send(PERSON, "One")
    door.flag(door.line_of(PERSON), clock.now())
    fake.fail_next(2, status=409, code=2009, path="/v3/chats")
    door.send(PERSON, "Two")
    messages = [body["message"] for _, body in posts(fake)[1:]]
    assert len(messages) == 3
    assert messages[0] == messages[1] == messages[2]


@pytest.mark.parametrize(
    ("health", "refusal"), [("CRITICAL", Held), ("AT_RISK", NotNow), ("OPTED_OUT", Blocked)]
)
def test_what_linq_thinks_of_a_chat_is_learned_from_the_send(fake, door, clock, health, refusal):
    """A chat that another program had opened is not well: the message that found it was the last one for now."""
    fake.receive(fake.numbers[0], PERSON, "hi")
    door.run(door.router.assign, PERSON, fake.numbers[0])
    (chat,) = door.run(door.client.chats.list_chats).chats
    fake.set_chat_health(chat.id, health)
    clock.advance(3600)
    door.send(PERSON, "Hello")
    before = len(posts(fake))
    with pytest.raises(refusal):
        door.send(PERSON, "Again")
    assert len(posts(fake)) == before


def test_a_message_with_a_key_of_its_own_is_refused(fake, door):
    """There is one key, the reservation's; the caller's goes into key=."""
    with pytest.raises(ValueError, match="key="):
        door.send(PERSON, {"parts": [], "idempotency_key": "mine"})
    assert posts(fake) == []


def test_the_router_s_keywords_reach_it(fake, door):
    """Line, exclusions, line type, tags and waiting are what they are for the router."""
    first, second, *_ = fake.numbers
    door.send(PERSON, "Hello", line=second, max_wait=1)
    assert door.line_of(PERSON) == second
    door.send(OTHER, "Hello", exclude=set(fake.numbers) - {first}, line_type="imessage")
    assert door.line_of(OTHER) == first
    with pytest.raises(NoLine):
        door.send("+12125550178", "Hello", tags=["vip"])
    door.send("+12125550179", "Hello", line=first, inbound=True)
    assert door.line_of("+12125550179") == first


def test_an_urgent_message_goes_before_the_others(door, clock):
    """The messenger passes the priority on: it uses what the policy keeps, and waits for nobody."""
    door.run(door.router.reload, Policy.from_dict({"priority": {"urgent_share": 0.2}}))
    line = door.next_line(PERSON)
    for n in range(10):
        door.run(door.router.reserve, f"+1303555{n:04d}", line=line)
    before = clock.now()
    door.send(PERSON, "Your code is 1234", line=line, priority="urgent")
    assert clock.now() == before
    door.send(OTHER, "Hello", line=line)
    assert clock.now() > before


class Nowhere:
    """A router whose store is gone when a reservation is to be settled."""

    id, number, to, chat_id = "r-1", "+12025550100", PERSON, None
    send_at, continuation = START, None

    def send(self, to, call, **keywords):
        """Call with this as the reservation."""
        return call(self)

    def settle(self, outcome, **keywords):
        """Fail."""
        raise StoreError("the store is gone")


class AsyncNowhere(Nowhere):
    """The same, for coroutines."""

    async def send(self, to, call, **keywords):
        """Call with this as the reservation."""
        return await call(self)

    async def settle(self, outcome, **keywords):
        """Fail."""
        raise StoreError("the store is gone")


def test_the_provider_s_error_is_raised_even_if_the_store_is_gone(fake, door):
    """What the caller has to know first is what became of the message."""
    fake.opt_out(PERSON)
    if door.kind == "sync":
        messenger = LinqMessenger(door.client, Nowhere())
    else:
        messenger = AsyncLinqMessenger(door.client, AsyncNowhere())
    with pytest.raises(linq.PermissionDeniedError):
        door.run(messenger.send, PERSON, "Hello")


class Forgetful(Nowhere):
    """A router whose store is gone when it is told of a chat."""

    def __init__(self) -> None:
        self.told = []

    def settle(self, outcome, **keywords):
        """Take it."""

    def report(self, report):
        """Fail."""
        self.told.append(report)
        raise StoreError("the store is gone")


class AsyncForgetful(Forgetful):
    """The same, for coroutines."""

    async def send(self, to, call, **keywords):
        """Call with this as the reservation."""
        return await call(self)

    async def settle(self, outcome, **keywords):
        """Take it."""

    async def report(self, report):
        """Fail."""
        super().report(report)


@pytest.mark.parametrize(
    ("health", "told"), [("HEALTHY", 0), ("SPLENDID", 0), ("AT_RISK", 1), ("CRITICAL", 1)]
)
def test_only_a_chat_in_trouble_is_told_of_and_never_fails_the_send(
    fake, door, clock, health, told
):
    """A write is not worth more than that; the message went out, whether or not the store could be told."""
    fake.receive(Nowhere.number, PERSON, "hi")
    (chat,) = door.run(door.client.chats.list_chats).chats
    fake.set_chat_health(chat.id, health)
    clock.advance(60)
    if door.kind == "sync":
        router = Forgetful()
        messenger = LinqMessenger(door.client, router)
    else:
        router = AsyncForgetful()
        messenger = AsyncLinqMessenger(door.client, router)
    assert door.run(messenger.send, PERSON, "Hello").chat.id == chat.id
    report = (
        ChatHealthChanged(PERSON, health, number=Nowhere.number, chat_id=chat.id, at=clock.now())
        if told
        else None
    )
    assert router.told == [report] * told


async def test_a_send_that_is_cancelled_may_have_gone_out(fake, clock):
    """It is not sent from elsewhere: the recipient stays on the line, CancelledError comes out as it is."""
    asked = asyncio.Event()

    async def never(request):
        asked.set()
        await asyncio.Event().wait()

    silent = httpx.AsyncClient(transport=httpx.MockTransport(never))
    source = AsyncLinqSource(fake.token, base_url=fake.base_url)
    async with (
        AsyncRouter(source, clock=clock) as router,
        linq.AsyncLinqAPIV3(api_key=fake.token, http_client=silent) as client,
    ):
        line = (await router.preview(PERSON)).number
        task = asyncio.create_task(AsyncLinqMessenger(client, router).send(PERSON, "Hello"))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await router.assignment(PERSON)).number == line


async def test_a_wait_for_a_chat_can_be_cancelled(fake, clock):
    """While another request creates the chat, nothing is sent any more once the caller has left."""
    waiting = asyncio.Event()

    async def wait(seconds):
        waiting.set()
        await asyncio.Event().wait()

    fake.fail_next(1, status=409, code=2009, path="/v3/chats")
    source = AsyncLinqSource(fake.token, base_url=fake.base_url)
    async with (
        AsyncRouter(source, clock=clock) as router,
        linq.AsyncLinqAPIV3(api_key=fake.token, base_url=fake.base_url) as client,
    ):
        messenger = AsyncLinqMessenger(client, router, sleep=wait)
        task = asyncio.create_task(messenger.send(PERSON, "Hello"))
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert fake.sent == []
    assert len(posts(fake)) == 1


def test_the_text_reaches_the_router(fake):
    """Of a text, of parts, and of a message that has none."""
    seen = []

    class Listening(Nowhere):
        def send(self, to, call, **keywords):
            seen.append(keywords["text"])

    with linq.LinqAPIV3(api_key=fake.token, base_url=fake.base_url) as client:
        messenger = LinqMessenger(client, Listening())
        media = {"type": "media", "url": "https://example.com/a.png"}
        texts = [{"type": "text", "value": "One"}, media, {"type": "text", "value": "Two"}]
        messenger.send(PERSON, "Hello")
        messenger.send(PERSON, {"parts": texts})
        messenger.send(PERSON, {"parts": [{"type": "link", "value": "https://example.com"}]})
        messenger.send(PERSON, {"parts": [media]})
        messenger.send(PERSON, {"experience": {"name": "agentpay", "action": "request_payment"}})
    assert seen == ["Hello", "One\nTwo", "https://example.com", None, None]
