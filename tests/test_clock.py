"""The manual clock."""

from __future__ import annotations

import asyncio
import math
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linepicker.testing import ManualClock

moments = st.integers(min_value=-(10**12), max_value=10**12)


def test_starts_at_zero_and_stands_still() -> None:
    """Without a start the clock shows 0 and goes on showing it."""
    clock = ManualClock()
    assert (clock.now(), clock.now()) == (0.0, 0.0)


@given(start=moments, steps=st.lists(moments, max_size=10))
def test_shows_the_start_plus_every_step_forward_or_back(start: int, steps: list[int]) -> None:
    """`advance` adds up, whatever the signs."""
    clock = ManualClock(start)
    for step in steps:
        clock.advance(step)
    assert start + sum(steps) == clock.now()


@given(start=moments, moment=moments)
def test_set_shows_exactly_that_moment(start: int, moment: int) -> None:
    """`set` forgets where the clock was."""
    clock = ManualClock(start)
    clock.set(moment)
    assert moment == clock.now()


def test_sleep_advances_at_once() -> None:
    """A day's sleep moves the clock by a day."""
    clock = ManualClock(100.0)
    clock.sleep(86400.0)
    assert clock.now() == 86500.0


async def test_asleep_advances_at_once() -> None:
    """The coroutine moves the clock as `sleep` does."""
    clock = ManualClock(100.0)
    await clock.asleep(86400.0)
    assert clock.now() == 86500.0


async def test_asleep_lets_other_tasks_run() -> None:
    """An endless loop of sleeps can be cancelled from another task."""
    clock = ManualClock()

    async def forever() -> None:
        while True:
            await clock.asleep(1.0)

    task = asyncio.create_task(forever())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert clock.now() >= 1.0


async def test_sleeping_backwards_is_an_error() -> None:
    """Neither sleep takes a negative length, and a refused one leaves the clock alone."""
    clock = ManualClock(5.0)
    with pytest.raises(ValueError, match="non-negative"):
        clock.sleep(-1.0)
    with pytest.raises(ValueError, match="non-negative"):
        await clock.asleep(-1.0)
    assert clock.now() == 5.0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_only_finite_moments_are_taken(value: float) -> None:
    """A clock can't be made to show something that is no moment."""
    clock = ManualClock(5.0)
    for change in (ManualClock, clock.advance, clock.set):
        with pytest.raises(ValueError, match="finite"):
            change(value)
    assert clock.now() == 5.0


def test_no_step_is_lost_between_threads() -> None:
    """Eight threads of a thousand steps each move the clock by eight thousand."""
    clock = ManualClock()
    threads = [
        threading.Thread(target=lambda: [clock.advance(1.0) for _ in range(1000)]) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clock.now() == 8000.0


def test_repr_shows_the_moment() -> None:
    """The repr is the expression that makes such a clock."""
    assert repr(ManualClock(12.5)) == "ManualClock(12.5)"
