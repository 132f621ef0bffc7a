"""Deployments under faults: the stories of some seeds, and bugs in a copy of the library that such stories find.

    python -m benchmarks simulate-faults --seed 0 --seeds 1000 --processes 2
    python tests/planted.py --seeds 1000 --processes 2

tell more of them.
"""

import pytest
from planted import BUGS, told

from benchmarks.faults.telling import shortened, tell
from linepicker import _windows

SEEDS = range(8)


def test_there_are_twenty_bugs_to_find():
    """There are as many bugs as it takes to trust the stories."""
    assert len(BUGS) >= 20


@pytest.mark.parametrize("seed", SEEDS)
def test_every_promise_is_kept_whatever_fails(seed):
    """Lost and doubled webhooks, failing stores and providers, crashes, and clocks that step break no invariant."""
    found = tell(seed)
    assert found.violation == ""
    assert found.decisions > 100


def test_a_seed_s_story_is_told_the_same_each_time():
    """The same seed asks and answers the same, word for word."""
    assert tell(3) == tell(3)


def test_a_story_that_fails_is_made_short(monkeypatch):
    """A failure is found again with as few steps as it takes."""
    right = _windows.first_within
    monkeypatch.setattr(
        _windows, "first_within", lambda times, now, window: right(times, now, window / 2)
    )
    found = next(each for each in map(tell, range(40)) if each.violation)
    short = shortened(found)
    assert tell(short.seed, short.steps).violation == short.violation
    assert len(short.steps) < len(found.steps) / 2


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found(bug, tmp_path):
    """What a tired developer might do breaks a promise in the story of a known seed."""
    bug.planted(tmp_path)
    verdict = told(tmp_path, bug.seed, 1)
    assert verdict.found, verdict.text
