"""The ranking beside a plain sort: the same best, whatever was put in, changed and taken out before."""

from __future__ import annotations

import random
import sys
from collections import Counter
from hashlib import blake2b
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linepicker import Line, Policy, Router
from linepicker._ranking import Order, Ranking
from linepicker.testing import ManualClock

NUMBERS = [f"+1212555{n:04d}" for n in range(40)]
KEYS = st.tuples(st.sampled_from([0.0, -5.0, -60.0]), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
CHANGES = st.lists(st.tuples(st.sampled_from(NUMBERS), st.none() | KEYS), max_size=80)
SALTS = st.integers(0, 2**32 - 1)
BITS = [1 << n for n in range(32)]


def grown(changes) -> tuple[Order, dict]:
    """An order, and what is in it: None takes a number out."""
    order, held = Order(), {}
    for number, key in changes:
        if key is None:
            order.remove(number)
            held.pop(number, None)
        else:
            order.put(number, key)
            held[number] = key
    return order, held


@given(CHANGES, SALTS)
def test_a_walk_tells_all_from_the_best_on(changes, salt):
    """Each once; of equally good ones in any order, but always in the same."""
    order, held = grown(changes)
    walked = list(order.walk(salt))
    assert sorted(walked) == sorted(held)
    assert len(order) == len(held)
    assert [held[number] for number in walked] == sorted(held.values(), reverse=True)
    assert walked == list(order.walk(salt))


@given(CHANGES, SALTS)
def test_the_two_best_are_those_of_the_walk(changes, salt):
    """As many as there are."""
    order, _ = grown(changes)
    assert list(order.first_two(salt)) == list(order.walk(salt))[:2]


@given(CHANGES, SALTS)
def test_what_was_before_makes_no_difference(changes, salt):
    """An order is what is in it: not the order it came in, and not what is gone."""
    order, held = grown(changes)
    other, _ = grown(sorted(held.items()))
    assert list(order.walk(salt)) == list(other.walk(salt))


@given(CHANGES, SALTS, st.data())
def test_one_that_was_not_chosen_makes_no_difference(changes, salt, data):
    """Taken out, or made worse, it leaves the best where it is."""
    order, held = grown(changes)
    best = list(order.first_two(salt))[:1]
    others = sorted(held.keys() - set(best))
    if others:
        other = data.draw(st.sampled_from(others))
        order.put(other, (held[other][0] - 1.0, held[other][1]))
        assert list(order.first_two(salt))[:1] == best
        order.remove(other)
        assert list(order.first_two(salt))[:1] == best


def test_nothing_is_the_best_of_nothing():
    """Also once all are gone, and where one is taken out that was never in."""
    order = Order()
    order.remove("+12125550100")
    assert not order.first_two(7)
    assert not list(order.walk(7))
    order.put("+12125550100", (0.0, 1.0))
    order.remove("+12125550100")
    assert not order.first_two(7)
    assert not list(order.walk(7))
    assert len(order) == 0


@pytest.mark.parametrize("of", [2, 8, 40])
def test_equally_good_ones_share_by_the_salt(of):
    """Each has a share, by how deep it lies; and the second best is not of the same few."""
    order, _ = grown([(number, (0.0, 1.0)) for number in NUMBERS[:of]])
    first, second = Counter(), Counter()
    for salt in range(4000):
        one, two = order.first_two(salt * 2_654_435_761 % 2**32)
        first[one] += 1
        second[two] += 1
    assert len(first) == of
    assert len(second) > of / 2
    assert min(first.values()) >= 4000 / of / 16


def test_bits_of_a_salt_count_at_every_depth():
    """Salts that differ in their lowest bits alone choose otherwise, and so do those that differ in the next ones."""
    order, _ = grown([(number, (0.0, 1.0)) for number in NUMBERS])
    for shift in range(4):
        assert len({order.first_two(salt << shift)[0] for salt in range(16)}) > 1


def test_ties_are_settled_as_ever():
    """The same in every process, and in every version that may run beside it: else two would choose differently."""
    order, _ = grown([(number, (0.0, 1.0)) for number in NUMBERS])
    chosen = [order.first_two(salt * 2_654_435_761 % 2**32) for salt in range(64)]
    walked = [list(order.walk(salt * 2_654_435_761 % 2**32)) for salt in range(8)]
    told = repr(([list(two) for two in chosen], walked)).encode()
    assert blake2b(told, digest_size=8).hexdigest() == "8bfc11b817fabf6c"


# Hashes that a test chooses


@pytest.fixture
def as_named(monkeypatch):
    """A number's hash is the number."""
    monkeypatch.setattr("linepicker._ranking._hash", int)


def test_nearly_equal_hashes_leave_no_trace_of_what_came_first(as_named):
    """Whichever order sixteen that differ in four bits come in, they lie where they belong."""
    names, dice = [str(n) for n in range(16)], random.Random(0)
    wanted = [list(grown([(name, (0.0, 1.0)) for name in names])[0].walk(salt)) for salt in BITS]
    for _ in range(60):
        dice.shuffle(names)
        order, _ = grown([(name, (0.0, 1.0)) for name in names])
        assert [list(order.walk(salt)) for salt in BITS] == wanted
        for name in names[:8]:
            order.remove(name)
            order.put(name, (0.0, 1.0))
        assert [list(order.walk(salt)) for salt in BITS] == wanted


@pytest.mark.parametrize("size", range(1, 65))
def test_at_each_depth_another_bit_of_the_salt_chooses(as_named, size):
    """All 32 in turn, from the lowest on: where 64-bit hashes part in their first bit, the salt's bit 0 does."""
    order, _ = grown([("0", (0.0, 1.0)), (str(1 << size - 1), (0.0, 1.0))])
    one = order.first_two(0)[0]
    assert [bit for bit in BITS if order.first_two(bit)[0] != one] == [1 << (64 - size) % 32]


# Tiers, areas, and when to look again


def ranked(**places) -> Ranking:
    """Two tiers with areas: number, tier, area."""
    found = Ranking(2, areas=True)
    for number, (tier, area) in places.items():
        found.put(number, tier, (0.0, 1.0), area, 100.0)
    return found


def test_a_line_is_in_one_tier_and_one_area():
    """Put elsewhere, it is no longer where it was."""
    found = ranked(a=(0, "212"), b=(0, "212"))
    found.put("a", 1, (0.0, 1.0), "646", 100.0)
    assert list(found.tiers[0].walk(0)) == ["b"]
    assert list(found.tiers[1].walk(0)) == ["a"]
    assert list(found.area(0, "212").walk(0)) == ["b"]
    assert list(found.area(1, "646").walk(0)) == ["a"]
    assert found.area(0, "646") is None
    found.put("a", 1, (0.0, 1.0), None, 100.0)
    assert list(found.tiers[1].walk(0)) == ["a"]
    assert not list(found.area(1, "646").walk(0))


def test_in_its_place_a_line_may_get_worse():
    """In its tier, and in its area."""
    found = ranked(a=(0, "212"), b=(0, "212"))
    found.put("a", 0, (-9.0, 1.0), "212", 100.0)
    assert list(found.tiers[0].walk(0)) == ["b", "a"]
    assert list(found.area(0, "212").walk(0)) == ["b", "a"]


def test_who_wants_no_areas_has_none():
    """None is kept."""
    found = Ranking(1, areas=False)
    found.put("a", 0, (0.0, 1.0), "212", 100.0)
    assert found.area(0, "212") is None
    found.exclude("a", 100.0)
    assert not list(found.tiers[0].walk(0))


def test_an_excluded_line_is_looked_at_again_and_a_forgotten_one_is_not():
    """Neither is ranked."""
    found = ranked(a=(0, "212"), b=(1, None))
    found.exclude("a", 40.0)
    assert not list(found.tiers[0].walk(0))
    assert not list(found.area(0, "212").walk(0))
    assert found.next_due == 40.0
    found.forget("a")
    found.forget("b")
    assert not list(found.tiers[1].walk(0))
    assert found.due(1000.0) == []
    assert found.next_due == float("inf")


def test_a_line_is_due_once_at_its_last_moment():
    """Not at the moments that were overtaken, and not twice."""
    found = Ranking(1, areas=False)
    assert found.next_due == float("inf")
    for until in (50.0, 10.0, 30.0, 30.0):
        found.put("a", 0, (0.0, 1.0), None, until)
    found.put("b", 0, (0.0, 1.0), None, 30.0)
    assert found.due(29.9) == []
    assert sorted(found.due(30.0)) == ["a", "b"]
    assert found.due(99.0) == []
    found.put("a", 0, (0.0, 1.0), None, 60.0)
    assert found.next_due == 60.0
    assert found.due(60.0) == ["a"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.0, 1000.0)), max_size=300))
def test_moments_that_were_overtaken_are_not_kept(moments):
    """However often a line is ranked anew; and each is due at its own moment, in order."""
    found, last = Ranking(1, areas=False), {}
    for number, until in moments:
        found.exclude(number, until)
        last[number] = until
    assert len(found._due) <= 8 * len(last) + 64
    told = []
    while found.next_due < float("inf"):
        moment = found.next_due
        told += [(moment, number) for number in found.due(moment)]
    assert sorted(told, key=lambda each: each[1]) == sorted(
        ((until, number) for number, until in last.items()), key=lambda each: each[1]
    )
    assert all(one[0] <= other[0] for one, other in pairwise(told))


def test_a_line_that_is_ranked_anew_all_the_time_has_few_moments():
    """Never more than eight a line, and 64."""
    found = Ranking(1, areas=False)
    for n in range(500):
        found.exclude("a", 1000.0 + n)
        assert len(found._due) <= 8 + 64
    assert found.due(2000.0) == ["a"]


# What is interrupted


def test_a_signal_in_the_middle_loses_no_line():
    """Whatever step of it a handler raises in, the next choice ranks all lines."""
    clock = ManualClock(1_800_000_000.0)
    lines = [Line(number) for number in NUMBERS[:7]]
    with Router(lines, policy=Policy(), clock=clock) as router:
        people = (f"+1617555{n:04d}" for n in range(10_000))
        router.reserve(next(people))
        fleet, step, done = router._desk.fleet, 0, False
        while not done:
            router.reserve(next(people))
            clock.advance(3600.0)
            step, left = step + 1, [step]

            def called(frame, event, arg, left=left):
                if not frame.f_code.co_filename.endswith("_ranking.py"):
                    return None
                if event == "line":
                    left[0] -= 1
                    if left[0] < 0:
                        raise KeyboardInterrupt
                return called

            before = sys.gettrace()
            sys.settrace(called)
            try:
                fleet.ranking(clock.now())
                done = True
            except KeyboardInterrupt:
                pass
            finally:
                sys.settrace(before)
            found = fleet.ranking(clock.now()).tiers[0]
            assert sorted(found.walk(0)) == NUMBERS[:7]
    assert step > 20
