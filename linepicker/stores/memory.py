"""A store in this process's memory: for tests, simulations, and services of one process that may forget.

Nothing survives the process, and no other process sees it. What it costs is a dict and a lock.
"""

from __future__ import annotations

import secrets
import time as _time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from heapq import heapify, heappop, heappush
from threading import Lock
from typing import Any, Final

from linepicker._process import process
from linepicker.errors import StoreError
from linepicker.stores import ABSENT, COUNTER_BITS, SAME, Answer, Record, Write

__all__ = ["AsyncMemoryStore", "MemoryStore"]

_tuple: Final = tuple.__new__
"""Makes a named tuple of values that are known to be right, at a third of the cost."""
_NOBODY: Final = 0
_CLOSED: Final = -1


class MemoryStore:
    """A `linepicker.stores.Store` in memory, shared by the threads of one process.

    *time* is the clock by which records expire, epoch seconds UTC. A fork leaves the child without a store: using the
    parent's there raises `StoreError`, since the two would drift apart unseen.
    """

    wants_seen = False
    """A second round trip costs nothing here, so nobody need work out what they have seen."""

    packs = True
    """A value may also be an object with `encode() -> bytes` that never changes: it is asked for its bytes by the first that
    reads it, and most are replaced before."""

    def __init__(self, *, time: Callable[[], float] = _time.time) -> None:
        self._time = time
        self._owner = _NOBODY
        self._lock = Lock()
        self._version = secrets.randbits(64) << COUNTER_BITS
        self._records: dict[str, Record] = {}
        self._expires: dict[str, float] = {}
        self._due: list[tuple[float, str]] = []
        """A heap of `_expires`, and of moments since replaced there."""

    def read(self, keys: Collection[str]) -> Answer:
        """As `Store.read`."""
        if self._owner != process():
            self._take()
        with self._lock:
            if self._due:
                self._drop_expired()
            return Answer(True, None, {key: self._packed(key) for key in keys})

    def swap(self, writes: Sequence[Write], *, seen: Mapping[str, int] = {}) -> Answer:
        """As `Store.swap`. *seen* is iterated only when refusing."""
        if self._owner != process():
            self._take()
        lock = self._lock
        lock.acquire()  # at half the cost of a `with`
        try:
            if self._due:
                self._drop_expired()
            records = self._records
            held, counter = records.get, self._version
            changes: dict[str, Record] = {}
            expiring: list[tuple[float, str]] | None = None
            gone = False
            for key, version, value, expires_at in writes:
                if held(key, ABSENT)[0] != version:
                    return self._refuse(writes, seen)
                if value is SAME:
                    continue
                if value is None:
                    changes[key], gone = ABSENT, True
                    continue
                counter += 1
                changes[key] = _tuple(Record, (counter, value))
                if expires_at is not None:
                    expiring = [*(expiring or ()), (expires_at, key)]
            self._version = counter
            records.update(changes)  # in one step, so that no signal handler can stop it half-way
            if gone:
                for key in [key for key, record in changes.items() if record is ABSENT]:
                    records.pop(key, None)
            if expiring or self._expires:
                self._schedule(changes, expiring or [])
            return _tuple(Answer, (True, None, changes))
        finally:
            lock.release()

    def scan(self, prefix: str) -> Iterator[tuple[str, Record]]:
        """As `Store.scan`: the records as they are now."""
        if self._owner != process():
            self._take()
        with self._lock:
            if self._due:
                self._drop_expired()
            records = [(key, self._packed(key)) for key in list(self._records)]
        return (each for each in records if each[0].startswith(prefix))

    def close(self) -> None:
        """As `Store.close`. The records are gone."""
        self._owner = _CLOSED
        self._records = {}
        self._expires = {}
        self._due = []

    def _take(self) -> None:
        if self._owner == _CLOSED:
            raise StoreError("this memory store is closed")
        if self._owner != _NOBODY:
            raise StoreError(
                "this memory store belongs to the process that forked this one: a fork copies memory and does not "
                "share it; use sqlite:///path.db, or make the store after the fork"
            )
        self._owner = process()

    def _refuse(self, writes: Sequence[Write], seen: Mapping[str, int]) -> Answer:
        records = self._records
        held = [*((key, version) for key, version, _, _ in writes), *seen.items()]
        moved = {
            key: self._packed(key)
            for key, version in held
            if records.get(key, ABSENT).version != version
        }
        return Answer(False, None, moved)

    def _packed(self, key: str) -> Record:
        """What is there, in bytes."""
        record = self._records.get(key, ABSENT)
        value: Any = record.value
        if value is not None and not isinstance(value, bytes):
            record = self._records[key] = Record(record.version, value.encode())
        return record

    def _schedule(self, changed: Collection[str], expiring: list[tuple[float, str]]) -> None:
        for key in changed:
            self._expires.pop(key, None)
        for moment, key in expiring:
            self._expires[key] = moment
            heappush(self._due, (moment, key))
        if len(self._due) > 2 * len(self._expires) + 64:
            self._due = [(moment, key) for key, moment in self._expires.items()]
            heapify(self._due)

    def _drop_expired(self) -> None:
        now = self._time()
        while self._due and self._due[0][0] <= now:
            moment, key = heappop(self._due)
            if self._expires.get(key) == moment:
                del self._expires[key]
                self._records.pop(key, None)


class AsyncMemoryStore:
    """The coroutine twin of a `MemoryStore`, over the same records. It never suspends, so any event loop may use it."""

    wants_seen = False
    """As `MemoryStore.wants_seen`."""

    packs = True
    """As `MemoryStore.packs`."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def read(self, keys: Collection[str]) -> Answer:
        """As `AsyncStore.read`."""
        return self._store.read(keys)

    async def swap(self, writes: Sequence[Write], *, seen: Mapping[str, int] = {}) -> Answer:
        """As `AsyncStore.swap`."""
        return self._store.swap(writes, seen=seen)

    async def scan(self, prefix: str) -> Sequence[tuple[str, Record]]:
        """As `AsyncStore.scan`."""
        return list(self._store.scan(prefix))

    async def close(self) -> None:
        """As `AsyncStore.close`."""
        self._store.close()
