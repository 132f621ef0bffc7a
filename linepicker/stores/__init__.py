"""The port: what a store must do, and how one is opened from a URL.

A store holds versioned records under string keys. It can read them, list them, and write several at once on condition
that none has moved. It decides nothing: values are opaque bytes. `linepicker.testing.check_store` tests any store
against everything said here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from enum import Enum
from typing import Final, NamedTuple, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

import attrs

from linepicker.errors import StoreError

__all__ = [
    "ABSENT",
    "COUNTER_BITS",
    "SAME",
    "Answer",
    "AsyncStore",
    "Handle",
    "Record",
    "Same",
    "Store",
    "Write",
    "open",
]

COUNTER_BITS: Final = 48
"""A version's low bits, the store's counter; the bits above are the store's epoch, drawn at random when it was made."""


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


@attrs.frozen(eq=False)
class Handle:
    """A store that is named but not yet open: files, sockets and threads come with the first call that needs them.

    `.url` holds no secrets. `.namespace` says whose records these are. `.epoch` is the epoch the store is expected to
    have, None: any. `store()` and `astore()` are two doors to one store, the same two each time: closing one closes it.
    """

    url: str
    namespace: str
    epoch: str | None
    _store: Store = attrs.field(repr=False)
    _astore: AsyncStore = attrs.field(repr=False)

    def store(self) -> Store:
        """The store, for threads."""
        return self._store

    def astore(self) -> AsyncStore:
        """The store, for coroutines."""
        return self._astore

    def close(self) -> None:
        """Close the store. Closing twice is nothing."""
        self._store.close()

    async def aclose(self) -> None:
        """As `close`, without blocking the event loop."""
        await self._astore.close()


def open(url: str) -> Handle:  # noqa: A001  `stores.open(url)` reads as it should
    """A handle on the store at *url*; nothing is opened yet. Raises `StoreError` for a URL that names none.

        memory://                    this process's memory, another one at each call
        sqlite:///relative.db        a file, made where missing; see `linepicker.stores.sqlite` for its parameters
        sqlite:////absolute/path.db
        postgresql://user:password@host/database    see `linepicker.stores.postgres` for its parameters
        redis://host:6379/0         Redis or Valkey; see `linepicker.stores.redis` for Sentinel, clusters, TLS

    `?namespace=lp` says whose records these are: 1 to 64 of A-Z a-z 0-9 . _ -. `?epoch=ID` is the epoch the store is
    expected to have. Other parameters belong to the driver. In a path, write ? as %3F, # as %23 and % as %25.

    >>> from linepicker import Line, Router, stores
    >>> handle = stores.open("memory://")  # shared by the routers that are given it
    >>> with Router([Line("+12025550100")], store=handle) as one, Router([Line("+12025550100")], store=handle) as other:
    ...     reservation = one.reserve("+12125550123")
    ...     other.assignment("+12125550123").number
    '+12025550100'
    """
    try:
        parts = urlsplit(url)
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:  # whose text may hold a password
        raise StoreError("the store URL can't be read; parameters are written ?a=1&b=2") from None
    parameters = dict(pairs)
    if len(parameters) < len(pairs):
        raise StoreError("the store URL has one parameter twice")
    namespace = parameters.pop("namespace", "lp")
    if re.fullmatch(r"[A-Za-z0-9._-]{1,64}", namespace) is None:
        raise StoreError(f"namespace must be 1 to 64 of A-Z a-z 0-9 . _ -, got {namespace!r}")
    epoch = parameters.pop("epoch", None)
    if epoch == "":
        raise StoreError("epoch must not be empty; leave it out to accept any store")
    store: Store
    astore: AsyncStore
    match parts.scheme:
        case "memory":
            from linepicker.stores.memory import AsyncMemoryStore, MemoryStore

            if parts.netloc or parts.path or parts.fragment or parameters:
                raise StoreError(
                    "memory:// takes no path and no parameters but namespace and epoch"
                )
            store = memory = MemoryStore()
            astore = AsyncMemoryStore(memory)
        case "sqlite":
            from linepicker.stores.sqlite import AsyncSqliteStore, SqliteStore

            path = unquote(parts.path[1:])
            if parts.netloc or parts.fragment or not path:
                raise StoreError("write sqlite:///relative.db or sqlite:////absolute/path.db")
            if path == ":memory:":
                raise StoreError("for a store in memory write memory://")
            store = sqlite = SqliteStore.from_parameters(path, parameters, namespace=namespace)
            astore = AsyncSqliteStore(sqlite)
        case scheme if re.fullmatch(r"rediss?(\+\w+)?", scheme):
            from linepicker.stores.redis import AsyncRedisStore, RedisStore

            store = redis = RedisStore.from_url(parts, parameters, namespace=namespace)
            astore = AsyncRedisStore(redis)
        case "postgresql" | "postgres":
            try:
                from linepicker.stores.postgres import AsyncPostgresStore, PostgresStore
            except ImportError:
                raise StoreError(
                    "postgresql:// needs: pip install 'linepicker[postgres]'"
                ) from None
            store = postgres = PostgresStore(url, namespace=namespace)
            astore = AsyncPostgresStore(postgres)
        case scheme:
            raise StoreError(
                f"unknown store {scheme!r}; write memory:// or sqlite:///path.db"
                if scheme
                else "a store URL starts with memory:// or sqlite:///"
            )
    return Handle(_shown(url), namespace, epoch, store, astore)


def _shown(url: str) -> str:
    """The URL with its passwords masked, in front of the host and among the parameters."""
    url = re.sub(r"(?<=//)([^/?#:@]*):[^/?#]*@", r"\1:•••@", url)
    return re.sub(r"([?&]\w*(?:pass|secret|scram)\w*=)[^&#]*", r"\1•••", url)
