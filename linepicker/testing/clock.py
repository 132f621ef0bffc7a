"""A clock that only moves when told."""

from __future__ import annotations

import asyncio
import math
import threading

__all__ = ["ManualClock"]


class ManualClock:
    """A clock for tests: time stands still until it is advanced, and sleeping advances it at once.

    Fits wherever a `clock=` is taken. Moments are epoch seconds UTC, durations seconds. Safe to use from many threads.

    >>> from linepicker.testing import ManualClock
    >>> clock = ManualClock(start=1_800_000_000.0)
    >>> clock.sleep(90.0)
    >>> clock.now()
    1800000090.0
    """

    def __init__(self, start: float = 0.0) -> None:
        """Show *start*. Raises `ValueError` unless it is finite."""
        self._lock = threading.Lock()
        self._now = _finite(start)

    def __repr__(self) -> str:
        return f"ManualClock({self.now()!r})"

    def now(self) -> float:
        """The moment this clock shows."""
        with self._lock:
            return self._now

    def advance(self, seconds: float) -> None:
        """Move on by *seconds*; below zero steps back, as a corrected host clock does. Raises `ValueError` unless finite."""
        _finite(seconds)
        with self._lock:
            self._now += seconds

    def set(self, moment: float) -> None:
        """Show *moment*, earlier or later than now. Raises `ValueError` unless it is finite."""
        _finite(moment)
        with self._lock:
            self._now = moment

    def sleep(self, seconds: float) -> None:
        """Advance by *seconds* and return at once. Raises `ValueError` if below zero, as `time.sleep` does."""
        if seconds < 0:
            raise ValueError(f"sleep length must be non-negative, got {seconds!r}")
        self.advance(seconds)

    async def asleep(self, seconds: float) -> None:
        """As `sleep`; lets the event loop's other tasks run once, so that a loop of sleeps can be cancelled."""
        self.sleep(seconds)
        await asyncio.sleep(0)


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"must be a finite number of seconds, got {value!r}")
    return value
