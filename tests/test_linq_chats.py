"""Taking over the conversations that an account has: each recipient stays on the line they know."""

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import linq
import pytest

from linepicker import AsyncRouter, LineChanged, Router, ServiceStatus, SourceError
from linepicker.providers.linq import (
    AsyncLinqMessenger,
    AsyncLinqSource,
    LinqMessenger,
    LinqSource,
    aimport_chats,
    import_chats,
)
from linepicker.testing import FakeLinq, ManualClock

ONE, TWO, GONE = "+12025550100", "+12025550101", "+12025550199"
PERSON, OTHER, THIRD = "+12125550177", "ada@example.com", "+12125550178"
START = 1_790_000_000.0


class Door:
    """A router and an importer of either kind before one provider."""

    def __init__(self, kind: str, fake: FakeLinq, clock: ManualClock) -> None:
        self.kind = kind
        self._runner = asyncio.Runner()
        sdk = {"api_key": fake.token, "base_url": fake.base_url, "timeout": 5.0, "max_retries": 0}
        if kind == "sync":
            self.client: Any = linq.LinqAPIV3(**sdk)
            source: Any = LinqSource(fake.token, base_url=fake.base_url)
            self.router: Any = Router(source, clock=clock)
            self.messenger: Any = LinqMessenger(self.client, self.router)
        else:
            self.client = linq.AsyncLinqAPIV3(**sdk)
            source = AsyncLinqSource(fake.token, base_url=fake.base_url)
            self.router = AsyncRouter(source, clock=clock)
            self.messenger = AsyncLinqMessenger(self.client, self.router)

    def run(self, method: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        """Call *method*, and wait for it if it is a coroutine."""
        if self.kind == "sync":
            return method(*arguments, **keywords)

        async def call() -> Any:
            return await method(*arguments, **keywords)

        return self._runner.run(call())

    def take_over(self, **keywords: Any) -> int:
        """Import the account's chats."""
        method = import_chats if self.kind == "sync" else aimport_chats
        return self.run(method, self.client, self.router, **keywords)

    def line_of(self, to: Any) -> str | None:
        """The line that *to* is assigned to."""
        assignment = self.run(self.router.assignment, to)
        return assignment and assignment.number

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
    """A provider with two lines."""
    with FakeLinq([ONE, TWO], clock=clock) as provider:
        yield provider


@pytest.fixture(params=["sync", "async"])
def door(request, fake, clock) -> Iterator[Door]:
    """Router and importer before the provider, sync and async in turn."""
    opened = Door(request.param, fake, clock)
    yield opened
    opened.close()


@pytest.fixture
def written(fake) -> Iterator[Callable[..., str]]:
    """Writes from a line to people, as somebody did before; gives the chat's id."""
    with linq.LinqAPIV3(api_key=fake.token, base_url=fake.base_url) as official:

        def write(line: str, *to: str) -> str:
            message = {"parts": [{"type": "text", "value": "Hello"}]}
            return official.chats.create(from_=line, to=list(to), message=message).chat.id

        yield write


def handle(name: str | None, **fields: Any) -> dict[str, Any]:
    """A participant as Linq lists one."""
    return {
        "id": f"id of {name}",
        "handle": name,
        "joined_at": "2026-01-01T00:00:00Z",
        "service": "iMessage",
        "is_me": False,
        "status": "active",
        **fields,
    }


def chat(chat_id: str, *handles: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A chat as Linq lists one."""
    return {
        "id": chat_id,
        "created_at": "2026-01-01T00:00:00Z",
        "updated_at": "2026-02-01T00:00:00Z",
        "handles": list(handles),
        "is_archived": False,
        "is_group": len(handles) > 2,
        "health_status": {"status": "HEALTHY"},
        **fields,
    }


def listed(fake: FakeLinq, *chats: dict[str, Any], cursor: str | None = None) -> None:
    """Make the next page of chats this one."""
    body = json.dumps({"chats": chats, "next_cursor": cursor}).encode()
    fake.garbage_next(1, body=body, path="/v3/chats")


def me(number: str, **fields: Any) -> dict[str, Any]:
    """One of our lines as a participant."""
    return handle(number, is_me=True, **fields)


def test_each_recipient_keeps_the_line_they_know(fake, door, written):
    """People and groups; the next message goes into the very chat that was there."""
    first = written(TWO, PERSON)
    written(ONE, OTHER)
    written(ONE, PERSON, OTHER)
    assert door.take_over() == 3
    assert door.line_of(PERSON) == TWO
    assert door.line_of(OTHER) == ONE
    assert door.line_of([OTHER, PERSON]) == ONE
    assert door.line_of(THIRD) is None
    assert door.run(door.messenger.send, PERSON, "Again").chat_id == first


def test_every_page_is_read(fake, door, written):
    """250 chats are three pages, and are told of as they are assigned."""
    people = [f"+1212555{n:04d}" for n in range(250)]
    for person in people:
        written(TWO, person)
    told: list[int] = []
    assert door.take_over(progress=told.append) == 250
    assert told == [250]
    assert {door.line_of(person) for person in people} == {TWO}
    pages = [each for each in fake.requests if (each.method, each.path) == ("GET", "/v3/chats")]
    assert len(pages) == 3


def test_progress_is_told_after_each_batch(fake, door):
    """500 at a time."""
    chats = [chat(f"c{n}", me(ONE), handle(f"+1212555{n:04d}")) for n in range(1200)]
    listed(fake, *chats)
    told: list[int] = []
    assert door.take_over(progress=told.append) == 1200
    assert told == [500, 1000, 1200]


def test_the_chat_active_last_counts(fake, door, written, clock):
    """Of two lines that wrote to the same person, the later."""
    written(ONE, PERSON)
    clock.advance(60)
    written(TWO, PERSON)
    written(TWO, OTHER)
    clock.advance(60)
    written(ONE, OTHER)
    assert door.take_over() == 2
    assert (door.line_of(PERSON), door.line_of(OTHER)) == (TWO, ONE)


def test_a_chat_without_an_update_is_as_old_as_it_is(fake, door):
    """`created_at` stands in, and decides between equals."""
    listed(
        fake,
        chat("a", me(ONE), handle(PERSON), updated_at=None, created_at="2026-03-01T00:00:00Z"),
        chat("b", me(TWO), handle(PERSON)),
        chat("c", me(TWO), handle(OTHER), created_at="2026-01-02T00:00:00Z"),
        chat("d", me(ONE), handle(OTHER)),
        chat("e", me(ONE), handle(THIRD), updated_at="long ago", created_at=None),
    )
    assert door.take_over() == 3
    assert (door.line_of(PERSON), door.line_of(OTHER), door.line_of(THIRD)) == (ONE, TWO, ONE)


def test_the_moment_a_chat_began_is_kept(fake, door):
    """The assignment is since the chat was created."""
    listed(fake, chat("a", me(ONE), handle(PERSON)))
    door.take_over()
    since = door.run(door.router.assignment, PERSON).since
    assert since == datetime(2026, 1, 1, tzinfo=UTC).timestamp()


def test_chats_of_lines_that_are_gone_do_not_count(fake, door, clock):
    """Nor do archived ones, those the line left, and groups of which one person remains."""
    listed(
        fake,
        chat("a", me(GONE), handle(PERSON), updated_at="2026-05-01T00:00:00Z"),
        chat("b", me(ONE), handle(PERSON)),
        chat("c", me(ONE), handle(OTHER), is_archived=True),
        chat("d", me(ONE, status="left"), handle(PERSON), handle(OTHER)),
        chat("e", me(ONE, left_at="2026-01-02T00:00:00Z"), handle(PERSON), handle(THIRD)),
        chat("f", me(ONE), handle(THIRD), handle(OTHER, status="removed")),
        chat("g", me(ONE)),
    )
    assert door.take_over() == 1
    assert door.line_of(PERSON) == ONE
    assert door.line_of(OTHER) is None
    assert door.line_of(THIRD) is None


def test_who_left_a_group_is_not_of_it(fake, door):
    """The recipients are those who are there."""
    listed(
        fake,
        chat(
            "a",
            me(ONE),
            handle(PERSON),
            handle(OTHER),
            handle(THIRD, status="left"),
            handle("+12125550179", left_at="2026-01-02T00:00:00Z"),
        ),
    )
    assert door.take_over() == 1
    assert door.line_of([PERSON, OTHER]) == ONE


def test_a_line_that_is_not_marked_is_known_by_its_number(fake, door):
    """`is_me` may be missing or null: then the line list tells."""
    listed(
        fake,
        chat("a", handle(TWO, is_me=None), handle(PERSON, is_me=None)),
        chat("b", handle(OTHER, is_me=None), handle("+12125550179", is_me=None), is_group=False),
    )
    assert door.take_over() == 1
    assert door.line_of(PERSON) == TWO


def test_a_line_that_can_send_comes_first(fake, door, written, clock):
    """As the provider does, a chat on a flagged line is passed over for one on another, and kept if there is no other."""
    written(ONE, PERSON)
    clock.advance(60)
    written(TWO, PERSON)
    written(TWO, OTHER)
    door.run(door.router.refresh)
    flagged = LineChanged(TWO, status=ServiceStatus.FLAGGED, at=clock.now())
    door.run(door.router.report, flagged)
    assert door.take_over() == 2
    assert (door.line_of(PERSON), door.line_of(OTHER)) == (ONE, TWO)


def test_the_lines_that_count_can_be_named(fake, door, written, clock):
    """Chats of other lines are not taken over."""
    written(ONE, PERSON)
    clock.advance(60)
    written(TWO, PERSON)
    written(TWO, OTHER)
    assert door.take_over(usable={ONE}) == 1
    assert (door.line_of(PERSON), door.line_of(OTHER)) == (ONE, None)


def test_whoever_has_a_line_keeps_it(fake, door, written):
    """An import never moves anybody, and may be repeated."""
    door.run(door.router.refresh)
    door.run(door.router.assign, PERSON, ONE)
    written(TWO, PERSON)
    for _ in range(2):
        door.take_over()
        assert door.line_of(PERSON) == ONE


def test_a_chat_listed_twice_is_one(fake, door):
    """Offsets move while the list changes."""
    listed(fake, chat("a", me(ONE), handle(PERSON)), cursor="1")
    listed(
        fake, chat("a", me(ONE), handle(PERSON), handle(OTHER)), chat("b", me(TWO), handle(THIRD))
    )
    assert door.take_over() == 2
    assert door.line_of([PERSON, OTHER]) is None


def test_a_list_without_end_is_an_error_and_nothing_is_assigned(fake, door):
    """A cursor that comes again leads nowhere."""
    listed(fake, chat("a", me(ONE), handle(PERSON)), cursor="1")
    listed(fake, chat("b", me(ONE), handle(OTHER)), cursor="1")
    with pytest.raises(SourceError, match="page"):
        door.take_over()
    assert door.line_of(PERSON) is None


def test_a_handle_that_is_none_does_not_cost_the_others(fake, door, caplog):
    """Short codes and senders' names are left out, each with a warning that does not show it."""
    odd = {7: "262966", 300: "AMAZON", 301: "urn:biz:1234", 599: "+1"}
    chats = [chat(f"c{n}", me(ONE), handle(odd.get(n) or f"+1212555{n:04d}")) for n in range(600)]
    listed(fake, *chats)
    assert door.take_over() == 596
    assert door.line_of("+12125550006") == ONE
    warnings = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert len(warnings) == 4
    assert not any(name in warning for name in odd.values() for warning in warnings if name != "+1")


def test_emails_in_either_case_are_one_person(fake, door, clock):
    """The later of the two chats counts."""
    listed(
        fake,
        chat("a", me(ONE), handle("Ada@Example.com")),
        chat("b", me(TWO), handle(OTHER), updated_at="2026-02-02T00:00:00Z"),
    )
    assert door.take_over() == 1
    assert door.line_of(OTHER) == TWO


def test_an_error_of_the_provider_is_raised(fake, door):
    """Half a list is no list: nothing is assigned."""
    listed(fake, chat("a", me(ONE), handle(PERSON)), cursor="1")
    fake.fail_next(1, status=401, code=2004, path="/v3/chats")
    with pytest.raises(linq.AuthenticationError):
        door.take_over()
    assert door.line_of(PERSON) is None
