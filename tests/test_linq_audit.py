"""Reputation audits with the official client: begun once, waited for, and not asked for again while Linq takes none."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import linq
import pytest

from linepicker.providers.linq import AsyncLinqAudits, LinqAudits
from linepicker.providers.linq.audit import Audit, CoolingDown
from linepicker.testing import FakeLinq, ManualClock

NOW = 1_790_000_000.0
A, B, STRANGE = "+12025550100", "+12025550101", "+12025550199"
ANN = "+12125550177"


class Door:
    """Audits of either kind before one provider, whose waits move its clock."""

    def __init__(self, kind: str, fake: FakeLinq, clock: ManualClock) -> None:
        self.fake, self.clock = fake, clock
        self._runner = asyncio.Runner()
        sdk = {"api_key": fake.token, "base_url": fake.base_url, "timeout": 5.0}
        self.client: Any
        if kind == "sync":
            self.client = linq.LinqAPIV3(**sdk)
            self.audits: Any = LinqAudits(self.client, now=clock.now, sleep=clock.sleep)
        else:
            self.client = linq.AsyncLinqAPIV3(**sdk)
            self.audits = AsyncLinqAudits(self.client, now=clock.now, sleep=clock.asleep)

    def close(self) -> None:
        """Hang up."""
        closing = self.client.close()
        if closing is not None:
            self._runner.run(closing)
        self._runner.close()

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self.audits, name)

        def call(*given: Any, **more: Any) -> Any:
            found = verb(*given, **more)
            if not asyncio.iscoroutine(found):
                return found

            async def wait() -> Any:
                return await found

            return self._runner.run(wait())

        return call

    def asked(self, method: str) -> int:
        """How many requests of that method the provider had."""
        return sum(each.method == method for each in self.fake.requests)


@pytest.fixture(params=["sync", "async"])
def door(request: pytest.FixtureRequest) -> Iterator[Door]:
    """Both kinds; an audit takes ten seconds, and an hour until the next."""
    clock = ManualClock(NOW)
    with FakeLinq([A, B], clock=clock) as fake:
        mine = Door(request.param, fake, clock)
        yield mine
        mine.close()


def test_an_audit_is_waited_for_and_read(door: Door) -> None:
    """One request begins it; severity, drivers, advice and evidence are Linq's."""
    door.fake.set_reputation(A, "AT_RISK")
    found = door.run(A, every=3.0)
    assert isinstance(found, Audit)
    assert (found.number, found.status, found.severity) == (A, "complete", "AT_RISK")
    assert found.primary_driver == "overall_conversation_health"
    assert [each.key for each in found.drivers] == ["overall_conversation_health"]
    assert [(each.priority, each.expected_impact) for each in found.actions] == [(1, "high")]
    assert found.generated_at == NOW + 10.0
    assert (door.asked("POST"), door.asked("GET")) == (1, 4)
    assert door.clock.now() == NOW + 12.0


def test_a_line_that_cools_down_is_not_asked_again(door: Door) -> None:
    """After the 429 no request leaves until its time is over; the last audit is at hand meanwhile, other lines are free."""
    first = door.run(A)
    cooling = door.run(A)
    assert isinstance(cooling, CoolingDown)
    assert cooling.retry_after == pytest.approx(3600.0, abs=2.0)
    assert cooling.last == first
    asked = len(door.fake.requests)
    door.clock.advance(1800.0)
    again = door.start(A)
    assert isinstance(again, CoolingDown)
    assert again.retry_after == pytest.approx(1800.0, abs=2.0)
    assert len(door.fake.requests) == asked
    assert isinstance(door.start(B), Audit)
    door.clock.advance(1802.0)
    assert isinstance(door.start(A), Audit)


def test_a_429_without_a_time_is_respected_for_a_minute(door: Door) -> None:
    """Where Linq names no time the answer has none, and the line is left alone for 60 seconds."""
    door.fake.fail_next(status=429, code=1007)
    assert door.start(A) == CoolingDown(A, None)
    door.clock.advance(59.0)
    assert door.start(A) == CoolingDown(A, None)
    door.clock.advance(2.0)
    assert isinstance(door.start(A), Audit)
    assert door.asked("POST") == 2


def test_an_audit_that_is_not_ready_in_time_can_be_read_later(door: Door) -> None:
    """Waiting ends, the answer is pending, and its id leads to the audit."""
    found = door.run(A, wait=4.0)
    assert (found.status, found.severity) == ("pending", None)
    door.clock.advance(10.0)
    assert door.read(A, found.id).status == "complete"


def test_a_look_that_fails_is_another_look_later(door: Door) -> None:
    """Reading goes on after a 500 and after a 429 that asks for seven seconds; beginning is never tried again."""
    door.fake.fail_next(status=500, code=3001, path="/reputation_audit/")
    door.fake.fail_next(status=429, code=1007, retry_after=7, path="/reputation_audit/")
    found = door.run(A, every=4.0)
    assert found.status == "complete"
    assert (door.asked("POST"), door.asked("GET")) == (1, 3)
    assert door.clock.now() == NOW + 4.0 + 4.0 + 7.0
    door.fake.fail_next(status=500, code=3001)
    with pytest.raises(linq.InternalServerError):
        door.run(B)
    assert door.asked("POST") == 2


def test_a_look_that_cannot_help_is_raised(door: Door) -> None:
    """An unknown line and an unknown audit are the SDK's NotFoundError at once."""
    with pytest.raises(linq.NotFoundError):
        door.start(STRANGE)
    with pytest.raises(linq.NotFoundError):
        door.read(A, "nope")


def test_evidence_names_conversations(door: Door) -> None:
    """Chats that are not well, and those whose recipient said stop, with their ids."""
    hello: Any = {"parts": [{"type": "text", "value": "hello"}]}
    with linq.LinqAPIV3(api_key=door.fake.token, base_url=door.fake.base_url) as client:
        chat = client.chats.create(from_=A, to=[ANN], message=hello).chat.id
    door.fake.opt_out(ANN)
    found = door.run(A)
    assert [each.chat_id for each in found.stopped_chats] == [chat]
    assert [name for name, _ in found.unhealthy_chats] == [chat]


def test_what_an_answer_leaves_out_is_left_out() -> None:
    """A report with nothing in it is a complete audit that says nothing."""
    answer = {"audit_id": "x", "status": "complete", "report": {}}

    def serve(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=answer)

    http = httpx.Client(transport=httpx.MockTransport(serve))
    with linq.LinqAPIV3(api_key="token", http_client=http) as client:
        assert LinqAudits(client).read(A, "x") == Audit(A, "x", "complete")
