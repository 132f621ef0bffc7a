"""How often a reserve goes to the store and back, counted at the socket, with one process and with many."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Barrier

import pytest
from servers import POSTGRES_SOCKET, Proxy

from linepicker import Line, Policy, Router, stores

LINES = [Line(f"+1212555{i:04d}") for i in range(12)]
POLICY = Policy.from_dict(
    {
        "limits": {"new_per_day": 5000, "new_per_hour": "off"},
        "pace": {"new_gap": 0, "message_gap": 0},
        "learn": {"enabled": False},
    }
)
OFF = ("new_per_day", "new_per_hour", "messages_per_day", "moves_per_day")


@pytest.fixture(params=["valkey", "postgres"])
def wire(request, tmp_path_factory):
    """What stands before a server and counts, and a URL by way of it."""
    door = tmp_path_factory.mktemp("p")  # its name is short
    if request.param == "valkey":
        made = Proxy(door / "socket", request.getfixturevalue("valkey").socket)
        url = f"redis+unix://{door / 'socket'}?namespace={door.name}"
    else:
        postgres = request.getfixturevalue("postgres")
        made = Proxy(door / POSTGRES_SOCKET, postgres.server.socket)
        url = postgres.url(host=door)
    yield made, url
    made.close()


@pytest.fixture
def routers(wire):
    """So many routers with a store each, as processes have them, which have met a recipient each."""
    house = ExitStack()

    def make(count: int) -> list[Router]:
        some = [
            house.enter_context(Router(LINES, policy=POLICY, store=wire[1])) for _ in range(count)
        ]
        for n, router in enumerate(some):
            router.reserve(f"+1312555{n:04d}")
        return some

    with house:
        yield make


def people() -> Iterator[str]:
    """New ones."""
    return (f"+1415{n:07d}" for n in itertools.count())


def test_a_process_by_itself_goes_once(wire, routers):
    """For a new recipient, and for one it knows."""
    (router,) = routers(1)
    for _ in range(2):
        before, some = wire[0].turns, list(itertools.islice(people(), 50))
        kinds = {router.reserve(to).kind for to in some}
        assert wire[0].turns == before + 50
    assert kinds == {"known"}


def test_eight_that_take_turns_go_twice_at_most(wire, routers):
    """What the others spent meanwhile comes back with the refusal, all of it, so the second attempt is the last."""
    some, new = routers(8), people()
    before = wire[0].turns
    for _ in range(25):
        for router in some:
            router.reserve(next(new))
    assert wire[0].turns - before <= 2.0 * 25 * 8


def test_who_was_alone_for_long_goes_once_more_when_others_come(wire, routers):
    """Alone it does not tell what it has seen of the other lines, so the first refusal repairs one line, and the second all."""
    (one, other), new = routers(2), people()
    for _ in range(100):
        one.reserve(next(new))
    for _ in range(30):
        other.reserve(next(new))
    before = wire[0].turns
    one.reserve(next(new))
    assert wire[0].turns - before <= 3
    for _ in range(10):
        for _ in range(12):
            other.reserve(next(new))
        before = wire[0].turns
        one.reserve(next(new))
        assert wire[0].turns - before <= 2


def test_thirty_two_at_once_go_eight_times_on_average_at_most(wire, routers):
    """Racing for a dozen lines all the time, they get what they want in the end."""
    some, ready = routers(32), Barrier(32)

    def work(place: int) -> None:
        ready.wait()
        for n in range(10):
            assert some[place].reserve(f"+1503{place:03d}{n:04d}").kind == "new"

    before = wire[0].turns
    with ThreadPoolExecutor(32) as pool:
        list(pool.map(work, range(32)))
    assert wire[0].turns - before <= 8.0 * 32 * 10


def spent_by_another(store: str | stores.Handle) -> Router:
    """A router that knows of 500 unused lines, all of which another one has used since."""
    lines = [Line(f"+1646{2_000_000 + 7 * i}") for i in range(500)]
    one, other = (Router(lines, policy=POLICY, store=store) for _ in range(2))
    one.lines()
    other.lines()
    for to in itertools.islice(people(), 500):
        other.reserve(to)
    assert all(view.used == 1 for view in other.lines())
    return one


def test_of_a_long_fleet_that_others_used_a_few_trips_tell(wire):
    """They are not gone through line after line, each of them a little worse than it was thought to be."""
    router = spent_by_another(wire[1])
    before = wire[0].turns
    router.reserve("+15035550100")
    assert wire[0].turns - before <= 7
    before = wire[0].turns
    router.reserve("+15035550101")
    assert wire[0].turns - before == 1


def test_of_a_long_fleet_of_equals_eight_that_take_turns_go_a_little_more_than_once(wire):
    """Without limits all lines stay as good, and seven of eight charges on each are the others': by itself a choice would be
    refused that often. A refusal brings more than the line that was refused."""
    policy = Policy.from_dict(
        {"limits": dict.fromkeys(OFF, "off"), "pace": {"new_gap": 0, "message_gap": 0}}
    )
    lines, new = [Line(f"+1646{2_000_000 + 7 * i}") for i in range(500)], people()
    with ExitStack() as house:
        some = [house.enter_context(Router(lines, policy=policy, store=wire[1])) for _ in range(8)]
        for _ in range(100):
            for router in some:
                router.reserve(next(new))
        before = wire[0].turns
        for _ in range(50):
            for router in some:
                router.reserve(next(new))
        assert wire[0].turns - before <= 1.5 * 50 * 8


def test_of_a_long_fleet_in_memory_the_best_is_found_too():
    """Also where a refusal brings nothing of what was only seen."""
    handle = stores.open("memory://")
    assert spent_by_another(handle).reserve("+15035550100").kind == "new"
    handle.close()
