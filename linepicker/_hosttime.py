"""Time and chance: what a clock must do, and the host's own."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from random import Random
from typing import Final, Protocol

from linepicker.stores import Write


class Clock(Protocol):
    """Time for a Router."""

    def now(self) -> float:
        """Epoch seconds UTC."""
        ...

    def sleep(self, seconds: float, /) -> None:
        """Return that much later."""
        ...


class AsyncClock(Protocol):
    """Time for an AsyncRouter."""

    def now(self) -> float:
        """Epoch seconds UTC."""
        ...

    async def asleep(self, seconds: float, /) -> None:
        """Return that much later."""
        ...


STILL: Final = 1.0
"""A step back shorter than this, in seconds, is waited for: else what comes later could seem to have come before."""
asking: Final = time.monotonic
"""When a store is asked: what `HostTime.heard` wants to know."""


class HostTime:
    """The monotonic clock, set by the store's time where it tells any, else by the wall clock at the start: a wall clock
    that steps later freezes nothing."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()
        self._heard = self._floor = -math.inf

    def now(self) -> float:
        """Epoch seconds UTC."""
        moment = time.monotonic() + self._offset
        if moment < self._floor:
            return self._floor
        return moment

    def heard(self, store_now: float, asked: float) -> None:
        """The store's time, just now, if its answer took no time; *asked*: when it was, by the monotonic clock. One that was
        overtaken by another changes nothing that its way may explain: else it would turn the clock back."""
        now = time.monotonic()
        offset = store_now - now
        if asked >= self._heard or not offset < self._offset <= store_now - asked:
            shown = max(now + self._offset, self._floor)
            self._floor = shown if shown - store_now < STILL else -math.inf
            self._offset, self._heard = offset, now

    def sleep(self, seconds: float) -> None:
        """Return that much later."""
        time.sleep(max(0.0, seconds))

    async def asleep(self, seconds: float) -> None:
        """Return that much later."""
        await asyncio.sleep(max(0.0, seconds))


def new_id(chance: Random) -> str:
    """A reservation's id: 96 random bits. *chance* must not be shared with a forked process."""
    return chance.getrandbits(96).to_bytes(12, "little").hex()  # as `randbytes`, in fewer steps


def on_host_time(writes: Sequence[Write], now: float) -> Sequence[Write]:
    """The writes with the moments of their expiry, which were counted from *now*, counted from the host's clock."""
    for write in writes:
        if write.expires_at is not None:
            break
    else:
        return writes
    ahead = time.time() - now
    return [
        write if write.expires_at is None else write._replace(expires_at=write.expires_at + ahead)
        for write in writes
    ]
