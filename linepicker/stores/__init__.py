"""The port: what a store must do, and how one is opened from a URL.

A store holds versioned records under string keys. It can read them, list them, and write several at once on condition
that none has moved. It decides nothing: values are opaque bytes. `linepicker.testing.check_store` tests any store
against everything said here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from enum import Enum
from typing import Final, NamedTuple, Protocol

__all__ = ["ABSENT", "SAME", "Answer", "AsyncStore", "Record", "Same", "Store", "Write"]


class Same(Enum):
    """The type of `SAME`, the value of a write that changes nothing."""

    SAME = "same"


SAME: Final = Same.SAME
"""As a write's value: leave the record as it is, but demand that its version is still the one given."""


class Record(NamedTuple):
    """A value and its version. Version 0 with value None: no such record.

    Versions are positive integers from one counter of the store joined with the store's epoch: a later write has a
    larger version, whatever the key, and no version is ever used again, not even after the store was wiped.
    """

    version: int
    value: bytes | None


ABSENT: Final = Record(0, None)


class Write(NamedTuple):
    """One condition and one change: if `key` is at `version` (0: absent), give it `value`.

    None deletes the record; `SAME` only checks. `expires_at` is the epoch moment, seconds UTC, from which the record
    may be gone (and reads as absent); None: never. `SAME` leaves the moment as it is.
    """

    key: str
    version: int
    value: bytes | None | Same
    expires_at: float | None = None


class Answer(NamedTuple):
    """What a store says: whether the writes were applied, its own time, and the records concerned.

    `now` is the store's own time in epoch seconds UTC, None where it has no clock of its own (then the host's clock is
    as good). `records` holds, after `read`, each key asked for; after an applied `swap`, each key written, with its new
    version (values may be left out as None; SAME keys are left out or keep their version); after a refused one, each
    key written or seen whose version differs from the one given, with version and value as they are.
    """

    applied: bool
    now: float | None
    records: Mapping[str, Record]


class Store(Protocol):
    """The four verbs. Safe to call from many threads. Any failure is a `StoreError`, never a driver's exception."""

    def read(self, keys: Collection[str]) -> Answer:
        """The records at *keys*, as of one moment; absent ones with version 0."""
        ...

    def swap(self, writes: Sequence[Write], *, seen: Mapping[str, int] = {}) -> Answer:
        """Apply all *writes*, or none. *seen*: versions the caller holds of other keys, which don't bind; a refusal
        brings those that have moved. (*seen* may be computed lazily: iterate it only when refusing, or when sending
        it anyway.) A `StoreError` with `.unknown` says that the writes may have been applied."""
        ...

    def scan(self, prefix: str) -> Iterator[tuple[str, Record]]:
        """All records whose key starts with *prefix*, in any order, each at most once; a record that is there from
        beginning to end is yielded."""
        ...

    def close(self) -> None:
        """Let go of files, sockets and threads. Closing twice is nothing; any other verb then is a `StoreError`."""
        ...


class AsyncStore(Protocol):
    """The same verbs as coroutines. Bound to the event loop that first used it."""

    async def read(self, keys: Collection[str]) -> Answer:
        """As `Store.read`."""
        ...

    async def swap(self, writes: Sequence[Write], *, seen: Mapping[str, int] = {}) -> Answer:
        """As `Store.swap`. If the task is cancelled meanwhile, the writes may have been applied."""
        ...

    async def scan(self, prefix: str) -> Sequence[tuple[str, Record]]:
        """As `Store.scan`, all at once."""
        ...

    async def close(self) -> None:
        """As `Store.close`."""
        ...
