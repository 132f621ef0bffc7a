"""Several routers over one store, their questions to it answered in any order: what no order may break.

No threads: a store that parks every read and swap until the test lets it through, one at a time, in an order that Hypothesis
chooses. Between two of them a router is alone, so this is every interleaving there is.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextvars import ContextVar
from typing import Literal

import attrs
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from linepicker import AsyncRouter, Held, Line, LineChanged, NoLine, NotNow, Policy
from linepicker.stores import SAME, Answer, AsyncStore, Record, Write
from linepicker.stores import open as open_store
from linepicker.testing import ManualClock

LINES = ("+12125551001", "+12125551002", "+12125551003")
MINE: ContextVar[int] = ContextVar("MINE")
"""Which of the flows is running."""

Check = Literal["all", "no versions", "no SAME"]


@attrs.frozen
class Doing:
    """One thing that one router does: reserve for somebody (and perhaps give it back), or take a line out."""

    router: int
    verb: Literal["reserve", "release", "critical", "pause"]
    which: int


@attrs.frozen
class Plan:
    """What happens, and in which order the store answers."""

    per_day: int
    lines: int
    doings: tuple[Doing, ...]
    order: tuple[int, ...]


plans = st.builds(
    Plan,
    st.integers(1, 2),
    st.integers(1, 3),
    st.lists(
        st.builds(
            Doing,
            st.integers(0, 2),
            st.sampled_from(["reserve", "reserve", "reserve", "release", "critical", "pause"]),
            st.integers(0, 3),
        ),
        min_size=2,
        max_size=7,
    ).map(tuple),
    st.lists(st.integers(0, 6), max_size=40).map(tuple),
)


class Parking:
    """An AsyncStore whose every question waits for its turn; and notes when a flow's writes went in."""

    wants_seen = False

    def __init__(self, store: AsyncStore, check: Check) -> None:
        self._store, self._check = store, check
        self.parked: list[asyncio.Future[None]] = []
        self.free = True
        self.clock = 0
        self.wrote: dict[int, int] = {}

    async def _turn(self) -> None:
        if not self.free:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.parked.append(turn)
            await turn
        self.clock += 1

    async def read(self, keys: Collection[str]) -> Answer:
        """As the store."""
        await self._turn()
        return await self._store.read(keys)

    async def swap(self, writes: Sequence[Write], *, seen: Mapping[str, int] = {}) -> Answer:
        """As the store, with as much of its checking as the test wants."""
        await self._turn()
        if self._check == "no SAME":
            writes = [write for write in writes if write.value is not SAME]
        if self._check == "no versions":
            found = (await self._store.read([write.key for write in writes])).records
            writes = [write._replace(version=found[write.key].version) for write in writes]
        answer = await self._store.swap(writes, seen=seen)
        if answer.applied and not self.free:
            self.wrote[MINE.get()] = self.clock
        return answer

    async def scan(self, prefix: str) -> Sequence[tuple[str, Record]]:
        """As the store."""
        return await self._store.scan(prefix)

    async def close(self) -> None:
        """As the store."""
        await self._store.close()


@attrs.define
class Told:
    """What became of a flow."""

    doing: Doing
    number: str | None = None
    kind: str = ""
    at: int = 0


async def tell(plan: Plan, check: Check) -> list[Told]:
    """Let everything happen, in the plan's order."""
    store = Parking(open_store("memory://").astore(), check)
    policy = Policy.from_dict(
        {
            "limits": {"new_per_day": plan.per_day, "new_per_hour": "off"},
            "pace": {"new_gap": 0, "message_gap": 0},
            "learn": {"enabled": False},
        }
    )
    lines = [Line(number) for number in LINES[: plan.lines]]
    clock = ManualClock(1_700_000_000.0)
    routers = [AsyncRouter(lines, policy=policy, store=store, clock=clock) for _ in range(3)]
    for router in routers:
        await router.refresh()
    store.free = False

    async def do(place: int, doing: Doing) -> Told:
        MINE.set(place)
        router, told = routers[doing.router], Told(doing)
        number = lines[doing.which % len(lines)].number
        if doing.verb == "critical":
            await router.report(LineChanged(number, reputation="CRITICAL", at=clock.now()))
            told.number = number
        elif doing.verb == "pause":
            await router.pause(number)
            told.number = number
        else:
            # those who are given back are others than those who stay
            to = f"+1415555{doing.which + 100 * (doing.verb == 'release') + 2000}"
            try:
                made = await router.reserve(to)
            except (NoLine, Held, NotNow):
                return told
            told.number, told.kind = made.number, made.kind
            told.at = store.wrote[place]
            if doing.verb == "release":
                await made.release()
        told.at = told.at or store.wrote.get(place, 0)
        return told

    tasks = [asyncio.create_task(do(*each)) for each in enumerate(plan.doings)]
    order = iter(plan.order)
    while True:
        while len(store.parked) < sum(not task.done() for task in tasks):  # noqa: ASYNC110
            await asyncio.sleep(0)  # a turn of the loop: each goes on until it asks again
        if not store.parked:
            return [task.result() for task in tasks]
        store.parked.pop(next(order, 0) % len(store.parked)).set_result(None)


def wrong(plan: Plan, check: Check = "all") -> set[str]:
    """The promises that the outcome of a plan breaks."""
    told = asyncio.run(tell(plan, check))
    broken = set()
    stayed = [each for each in told if each.doing.verb == "reserve" and each.number]
    lines_of: dict[int, set[str | None]] = {}
    for each in stayed:
        lines_of.setdefault(each.doing.which, set()).add(each.number)
    if any(len(numbers) > 1 for numbers in lines_of.values()):
        broken.add("a recipient has two lines")
    new = [each for each in stayed if each.kind == "new"]
    if max(Counter(each.number for each in new).values(), default=0) > plan.per_day:
        broken.add("a line took more than its day")
    if max(Counter(each.doing.which for each in new).values(), default=0) > 1:
        broken.add("a recipient was new twice")
    reserved = [each for each in told if each.doing.verb in ("reserve", "release") and each.number]
    for out in told:
        late = [each for each in reserved if each.number == out.number and each.at > out.at > 0]
        if late and out.doing.verb in ("critical", "pause"):
            broken.add("a line was reserved after it was taken out")
    if {each.doing.verb for each in told} == {"reserve"}:
        people = len({each.doing.which for each in told})
        if len(new) < min(people, plan.per_day * plan.lines):
            broken.add("somebody was refused while there was room")
    return broken


@settings(max_examples=1000)
@given(plans)
def test_no_order_of_the_stores_answers_breaks_a_promise(plan):
    """One line per recipient, no budget overspent, no line used that anybody took out, nobody refused while there is room."""
    assert not wrong(plan)


@pytest.mark.parametrize(
    ("check", "what"),
    [
        ("no versions", "a line took more than its day"),
        ("no versions", "a recipient was new twice"),
        ("no SAME", "a line was reserved after it was taken out"),
    ],
)
def test_a_store_that_does_not_check_is_found_out(check, what):
    """Without the store's check of versions, some order overspends, or gives two lines, or uses a line that is out."""
    quickly = settings(max_examples=5000, phases=[Phase.generate], database=None)
    try:
        plan = find(plans, lambda plan: what in wrong(plan, check), settings=quickly)
    except NoSuchExample:
        pytest.fail(f"no order was found in which {what}")
    assert not wrong(plan)
