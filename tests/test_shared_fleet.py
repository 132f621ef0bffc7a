"""Routers that share a store share its polls: the list of lines is read once a ttl, whoever reads it may die."""

import pytest

from linepicker import (
    Held,
    Line,
    LineAssigned,
    LineChanged,
    NoLine,
    Policy,
    Router,
    SourceError,
)
from linepicker.stores import open as open_store
from linepicker.testing import ManualClock

NOW = 1_790_000_000.0
TTL = 60.0
A, B, C = "+12025550100", "+12025550101", "+12025550102"
ANN = "+14155550101"


class Account:
    """One provider, as several processes ask it."""

    def __init__(self, *lines):
        self.lines, self.fetches, self.error = list(lines), 0, None

    def fetch(self):
        """The list, counted."""
        self.fetches += 1
        if self.error is not None:
            raise self.error
        return list(self.lines)


@pytest.fixture
def world(tmp_path):
    """An account, a clock, and a way to make routers on one file."""
    clock, account = ManualClock(NOW), Account(Line(A), Line(B))
    handle = open_store(f"sqlite:///{tmp_path / 'lines.db'}?synchronous=normal")
    routers = []

    class World:
        def __init__(self):
            self.clock, self.account = clock, account

        def router(self, **policy):
            rules = Policy.from_dict(policy)
            routers.append(Router(account, policy=rules, store=handle, clock=clock))
            return routers[-1]

    yield World()
    for router in routers:
        router.close()
    handle.close()


def people(count, start=0):
    """Recipients, each once."""
    return [f"+1415556{start + n:04d}" for n in range(count)]


def test_a_deployment_reads_the_list_once_a_ttl(world):
    """Eight routers in use for an hour read it as often as one would."""
    routers = [world.router() for _ in range(8)]
    for router in routers:
        router.lines()
    begun = world.account.fetches
    for _ in range(60):
        world.clock.advance(TTL + 1)
        for router in routers:
            router.lines()
    assert world.account.fetches - begun == 60


def test_what_one_reads_all_know(world):
    """A line that one router saw CRITICAL is CRITICAL for all, also for those that did not read the list."""
    routers = [world.router() for _ in range(3)]
    for router in routers:
        router.reserve(ANN)
    home = routers[0].assignment(ANN).number
    world.account.lines = [
        Line(number, reputation="CRITICAL" if number == home else "HEALTHY") for number in (A, B)
    ]
    world.clock.advance(TTL + 1)
    routers[1].lines()
    for router in routers:
        with pytest.raises(Held, match="critical"):
            router.reserve(ANN)


def test_a_list_that_changed_is_read_by_each(world):
    """A line that joined must be known by everyone before it can be used."""
    routers = [world.router() for _ in range(3)]
    for router in routers:
        router.lines()
    begun = world.account.fetches
    world.account.lines.append(Line(C))
    world.clock.advance(TTL + 1)
    for router in routers:
        assert {view.line.number for view in router.lines()} == {A, B, C}
    assert world.account.fetches - begun == 3
    world.clock.advance(TTL + 1)
    for router in routers:
        router.lines()
    assert world.account.fetches - begun == 4


def test_who_reads_the_list_may_die(world):
    """A lease that its holder never gave back ends by itself, and another one reads."""
    holder, other = world.router(), world.router()
    holder.lines()
    other.lines()
    begun = world.account.fetches
    world.clock.advance(TTL + 1)
    world.account.error = KeyboardInterrupt()  # as sudden as it gets within a process
    with pytest.raises(KeyboardInterrupt):
        holder.lines()
    world.account.error = None
    other.lines()
    assert world.account.fetches - begun == 1  # the holder might still be reading
    world.clock.advance(6)
    other.lines()
    assert world.account.fetches - begun == 2


def test_a_provider_that_is_out_is_not_asked_by_everyone_at_once(world):
    """Within the lease only one of many routers tries."""
    routers = [world.router() for _ in range(8)]
    for router in routers:
        router.lines()
    begun = world.account.fetches
    world.account.error = SourceError("down")
    world.clock.advance(TTL + 1)
    for _ in range(4):
        for router in routers:
            router.lines()
        world.clock.advance(1)
    assert world.account.fetches - begun <= 3


def test_a_new_line_is_not_waited_for(world):
    """`LineAssigned` makes the router that heard of it read at once, lease or not."""
    router, other = world.router(), world.router()
    router.lines()
    other.lines()
    world.account.lines.append(Line(C))
    router.report(LineAssigned(C, at=world.clock.now()))
    assert {view.line.number for view in router.lines()} == {A, B, C}


def test_an_adopted_poll_is_as_old_as_it_is(world):
    """Who rests on another's poll does not take it for fresher than it is: with nobody reading, all become stale together."""
    one, other = (world.router(health={"on_stale": "refuse"}) for _ in range(2))
    one.lines()
    other.lines()
    world.clock.advance(TTL + 1)
    one.lines()
    world.clock.advance(TTL - 1)
    other.lines()
    world.account.error = SourceError("down")
    world.clock.advance(900 - TTL + 2)
    for router in (one, other):
        with pytest.raises(Exception, match="stale") as refused:
            router.reserve(ANN)
        assert not isinstance(refused.value, NoLine)


def test_a_view_says_how_old_it_is(world):
    """The moment when the list was asked for, also where another process asked; no later one until it is asked for again."""
    one, other = world.router(), world.router()
    asked = world.clock.now()
    assert {view.as_of for view in (*one.lines(), *other.lines())} == {asked}
    world.clock.advance(TTL - 1)
    assert {view.as_of for view in one.lines()} == {asked}
    world.clock.advance(2)
    later = world.clock.now()
    one.lines()
    world.clock.advance(1)
    assert {view.as_of for view in other.lines()} == {later}


@pytest.mark.parametrize("word", [{"reputation": "AT_RISK"}, {"unrecognised": "SHINY"}])
def test_a_list_without_a_line_is_no_good_news_of_it(world, word):
    """A CRITICAL line leaves the list, and a router that has not read that list yet hears of it once more: when the line
    is back and HEALTHY, that counts from then."""
    one, other = world.router(), world.router()
    for router in (one, other):
        router.lines()
    other.report(LineChanged(A, "CRITICAL", at=NOW, event_id="e1"))
    world.account.lines = [Line(B), Line(C)]
    world.clock.advance(1.0)
    one.refresh()
    world.clock.advance(1.0)
    other.report(LineChanged(A, at=NOW + 2.0, event_id="e2", **word))
    world.account.lines = [Line(A), Line(B), Line(C)]
    world.clock.advance(TTL + 1.0)
    for _ in range(2):
        one.refresh()
        with pytest.raises(Held, match="critical|recovering"):
            one.reserve(ANN, line=A)
        world.clock.advance(TTL / 2)
    one.refresh()
    assert one.reserve(ANN, line=A).number == A


@pytest.mark.parametrize("back", ["ACTIVE", "FLAGGED"])
def test_news_of_a_line_that_only_others_have_is_not_lost(world, back):
    """A router whose list has not got it, and answers that it is not its own, writes it down for those whose list has."""
    one, other = world.router(), world.router()
    was = "FLAGGED" if back == "ACTIVE" else "ACTIVE"
    for router in (one, other):
        router.lines()
    other.report(LineChanged(A, status=was, at=NOW, event_id="e1"))
    world.account.lines = [Line(B)]
    world.clock.advance(1.0)
    one.refresh()
    world.clock.advance(1.0)
    assert not one.report(LineChanged(A, status=back, at=NOW + 2.0, event_id="e2"))
    world.account.lines = [Line(A), Line(B)]
    for _ in range(3):
        world.clock.advance(TTL + 1.0)
        one.refresh()
    stands = {view.line.number: view.standing for view in other.lines()}
    assert stands[A] == ("ok" if back == "ACTIVE" else "flagged")


def test_news_of_a_line_that_nobody_knows_is_not_kept(world):
    """It may be somebody else's."""
    router = world.router()
    router.lines()
    assert not router.report(LineChanged(C, "CRITICAL", at=NOW, event_id="e1"))
    world.account.lines.append(Line(C))
    world.clock.advance(TTL + 1.0)
    assert {view.line.number: view.standing for view in router.lines()}[C] == "ok"


def test_a_list_without_a_line_repeats_nothing_of_it_for_who_starts_later(world):
    """Good news that was heard once stays good news that was heard once, whoever reads the line's return, and whatever is asked
    for afterwards."""
    one = world.router(recovery={"confirmations": 1})
    one.lines()
    world.clock.advance(10.0)
    one.report(LineChanged(A, "CRITICAL", at=world.clock.now(), event_id="e1"))
    world.clock.advance(10.0)
    one.report(LineChanged(A, "HEALTHY", at=world.clock.now(), event_id="e2"))
    assert {view.line.number: view.standing for view in one.lines()}[A] == "ok"
    world.account.lines = [Line(B)]
    for _ in range(4):
        world.clock.advance(TTL + 1)
        one.refresh()
    world.account.lines = [Line(A, reputation="AT_RISK"), Line(B)]
    world.clock.advance(TTL + 1)
    world.router(recovery={"confirmations": 1}).refresh()
    careful = world.router(recovery={"confirmations": 3})
    assert {view.line.number: view.standing for view in careful.lines()}[A] == "recovering"


def test_nobody_is_moved_from_a_line_for_a_reason_that_others_know_is_gone(world):
    """A line that somebody else paused since holds its people, flagged or not; one that is well again keeps them."""
    rules = {"recovery": {"confirmations": 1}}
    one, other = world.router(**rules), world.router(**rules)
    home = other.reserve(ANN).number
    other.report(LineChanged(home, status="FLAGGED", at=world.clock.now()))
    one.pause(home)
    with pytest.raises(Held) as held:
        other.reserve(ANN)
    assert held.value.decision.reason == "paused"
    one.resume(home)
    world.clock.advance(1.0)
    one.report(LineChanged(home, status="ACTIVE", at=world.clock.now()))
    assert (other.reserve(ANN).kind, other.assignment(ANN).number) == ("known", home)
