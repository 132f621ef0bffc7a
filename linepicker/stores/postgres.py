"""A store in PostgreSQL 14 or newer: for any number of processes on any number of machines.

Everything lies in the schema `linepicker` of the database, made by the first who comes (`migrate()` does that beforehand, as
a role that may create a schema; the others then need USAGE on the schema, SELECT, INSERT, UPDATE and DELETE on its tables and
USAGE and SELECT on its sequence). Each read and each swap is one transaction in one round trip. No session state: a
pooler that hands out connections by transaction (PgBouncer) may stand between.

URL parameters; all others go to libpq untouched (https://www.postgresql.org/docs/current/libpq-connect.html):

    timeout=5.0     seconds to wait for a connection, then for a lock, before `StoreError`; the server ends what takes twice as
                    long (PostgreSQL 17 or newer), and one that has not answered after three times as long is given up
    max_size=10     connections of a process's threads, and of each event loop

Acknowledged is what the server's `synchronous_commit` says: with `on`, on its disk. A failover to a standby that had not got
all of it (asynchronous replication) forgets the rest: recipients written to in that time count as new. Processes to which
some dozens of later writes were acknowledged raise `StoreError` until restarted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from math import inf
from typing import Any, Final, TypeAlias

import attrs
import psycopg

from linepicker.stores import ABSENT, COUNTER_BITS, SAME, Answer, Record, Same, Write
from linepicker.stores._postgres_database import Database
from linepicker.stores._postgres_schema import READ, SCAN, SWAP

__all__ = ["AsyncPostgresStore", "PostgresStore"]

Row: TypeAlias = tuple[Any, ...]
Question: TypeAlias = tuple[str, Row]

_PAGE: Final = 500
"""Records read at once by a scan."""

_UNDONE: Final = {"40001", "40P01"}
"""Serialization failure, deadlock: the server undid the transaction. Not of our making, but others may lock these tables."""


class PostgresStore:
    """A `linepicker.stores.Store` in the PostgreSQL database at *url*, reached by the first call that needs it.

    *namespace* and the URL are as in the module's text. *time* is the clock by which records expire, epoch seconds UTC; None:
    the server's. Raises `StoreError` for a URL that can't be understood.

    A fork is safe at any moment: the child opens its own connections. `.database` is the way to the server, `.words` what
    is said to it.
    """

    def __init__(
        self, url: str, *, namespace: str = "lp", time: Callable[[], float] | None = None
    ) -> None:
        self.database = Database(url)
        self.words = Words(self.database, namespace, time)

    def migrate(self) -> None:
        """Make the tables, or bring them up to date, as the first call would. Raises `StoreError`."""
        self.database.migrate()

    def read(self, keys: Collection[str]) -> Answer:
        """As `Store.read`."""
        return self.words.contents(keys, self._ask(partial(self.words.read, keys)))

    def swap(self, writes: Sequence[Write], *, seen: Mapping[str, int] = {}) -> Answer:
        """As `Store.swap`. *seen* is sent along, so that a refusal takes no second round trip."""
        row = self._ask(partial(self.words.swap, writes, seen), writing=True)
        return self.words.outcome(writes, row)

    def scan(self, prefix: str) -> Iterator[tuple[str, Record]]:
        """As `Store.scan`, in the order of code points, a page at a time: it blocks no writer."""
        lower: str | None = prefix
        while lower is not None:
            page, lower = self.words.page(self._ask(partial(self.words.scan, prefix, lower)))
            yield from page.items()

    def close(self) -> None:
        """As `Store.close`."""
        self.database.close()

    def _ask(self, say: Callable[[], Question], *, writing: bool = False) -> Row:
        """The one row of the answer, in a transaction and a round trip of its own."""
        database = self.database
        for attempt in count(1):
            connection = database.connect()
            try:
                query, parameters = say()
                cursor = connection.execute(query, parameters, binary=True)
                row: Row | None = cursor.fetchone()
            except (psycopg.Error, UnicodeEncodeError) as error:
                lost = connection.closed or broken(error)
                if not may_repeat(error, attempt, lost=lost, writing=writing):
                    raise database.explained(error, unknown=writing and lost) from error
            else:
                assert row is not None
                return row
            finally:
                database.release(connection)
        raise AssertionError


class AsyncPostgresStore:
    """The coroutine twin of a `PostgresStore`: the same database, by connections of the running event loop.

    Not bound to an event loop. A cancelled swap may have been applied.
    """

    def __init__(self, store: PostgresStore) -> None:
        self._database = store.database
        self._words = store.words

    async def read(self, keys: Collection[str]) -> Answer:
        """As `AsyncStore.read`."""
        return self._words.contents(keys, await self._ask(partial(self._words.read, keys)))

    async def swap(self, writes: Sequence[Write], *, seen: Mapping[str, int] = {}) -> Answer:
        """As `AsyncStore.swap`. *seen* is sent along, so that a refusal takes no second round trip."""
        row = await self._ask(partial(self._words.swap, writes, seen), writing=True)
        return self._words.outcome(writes, row)

    async def scan(self, prefix: str) -> Sequence[tuple[str, Record]]:
        """As `AsyncStore.scan`; other calls have their turn between pages."""
        found: list[tuple[str, Record]] = []
        lower: str | None = prefix
        while lower is not None:
            row = await self._ask(partial(self._words.scan, prefix, lower))
            page, lower = self._words.page(row)
            found += page.items()
        return found

    async def close(self) -> None:
        """As `AsyncStore.close`."""
        await self._database.aclose()

    async def _ask(self, say: Callable[[], Question], *, writing: bool = False) -> Row:
        """As `PostgresStore._ask`."""
        database = self._database
        for attempt in count(1):
            connection = await database.aconnect()
            try:
                query, parameters = say()
                cursor = await connection.execute(query, parameters, binary=True)
                row: Row | None = await cursor.fetchone()
            except (psycopg.Error, UnicodeEncodeError) as error:
                lost = connection.closed or broken(error)
                if not may_repeat(error, attempt, lost=lost, writing=writing):
                    raise database.explained(error, unknown=writing and lost) from error
            else:
                assert row is not None
                return row
            finally:
                await database.arelease(connection)
        raise AssertionError


@attrs.frozen(eq=False)
class Words:
    """What the server is asked, and what its answers mean: the same for threads and coroutines.

    A question is a statement and its parameters, and is to be made when there is a connection: only then is the epoch known.
    """

    database: Database
    namespace: str
    time: Callable[[], float] | None

    def read(self, keys: Collection[str]) -> Question:
        """The question for the records at *keys*."""
        return READ, (*self._where(), _texts(keys))

    def contents(self, keys: Collection[str], row: Row) -> Answer:
        """What `read` was answered."""
        now, *found = row
        return Answer(True, now, dict.fromkeys(keys, ABSENT) | self._records(*found))

    def swap(self, writes: Sequence[Write], seen: Mapping[str, int]) -> Question:
        """The question whether *writes* may be, and that they then be."""
        changes = [each for each in writes if each.value is not SAME]
        same = [each for each in writes if each.value is SAME]
        written = {each.key for each in writes}
        beside = [(key, version) for key, version in seen.items() if key not in written]
        return SWAP, (
            *self._where(),
            _texts(each.key for each in changes),
            _numbers(self._counter(each.version) for each in changes),
            _values(each.value for each in changes),
            _numbers(inf if each.expires_at is None else each.expires_at for each in changes),
            _texts(each.key for each in same),
            _numbers(self._counter(each.version) for each in same),
            _texts(key for key, _ in beside),
            _numbers(self._counter(version) for _, version in beside),
        )

    def outcome(self, writes: Sequence[Write], row: Row) -> Answer:
        """What `swap` was answered."""
        applied, now, keys, counters, values = row
        if not applied:
            return Answer(False, now, self._records(keys, counters, values))
        base = self.database.base
        records = {each.key: ABSENT for each in writes if each.value is None}
        for key, counter in zip(keys or (), counters or (), strict=True):
            records[key] = Record(base | counter, None)
        self.database.known = max(self.database.known, *counters or (0,))
        return Answer(True, now, records)

    def scan(self, prefix: str, lower: str) -> Question:
        """The question for a page of the records whose keys start with *prefix* and are not before *lower*."""
        stem = prefix.rstrip("\U0010ffff")
        if not stem:
            return SCAN, (*self._where(), lower, self.namespace + "\1", "", _PAGE)
        end = ord(stem[-1]) + 1
        upper = stem[:-1] + chr(0xE000 if end == 0xD800 else end)  # surrogates are no characters
        return SCAN, (*self._where(), lower, self.namespace, upper, _PAGE)

    def page(self, row: Row) -> tuple[dict[str, Record], str | None]:
        """What `scan` was answered, and the *lower* of the next page."""
        page = self._records(*row[1:])
        return page, next(reversed(page)) + "\1" if len(page) == _PAGE else None

    def _where(self) -> Row:
        database = self.database
        moment = None if self.time is None else self.time()
        return self.namespace, database.epoch, database.known, *database.limits, moment

    def _counter(self, version: int) -> int:
        """What a version is in this store: 0 for absent, and what nothing has for one of another store."""
        if version >> COUNTER_BITS == self.database.epoch:
            return version - self.database.base
        return -1 if version else 0

    def _records(
        self, keys: list[str] | None, counters: list[int] | None, values: list[bytes | None] | None
    ) -> dict[str, Record]:
        if keys is None or counters is None or values is None:
            return {}
        base = self.database.base
        return {
            key: Record(base | counter, value) if counter else ABSENT
            for key, counter, value in zip(keys, counters, values, strict=True)
        }


# Arrays as PostgreSQL writes them: a quarter of what it costs to have the driver do it.


def _texts(texts: Iterable[str]) -> str:
    quoted = [each.replace("\\", "\\\\").replace('"', '\\"') for each in texts]
    return '{"' + '","'.join(quoted) + '"}' if quoted else "{}"


def _numbers(numbers: Iterable[float]) -> str:
    return "{" + ",".join(map(str, numbers)) + "}"


def _values(values: Iterable[bytes | Same | None]) -> str:
    written = [f'"\\\\x{each.hex()}"' if isinstance(each, bytes) else "NULL" for each in values]
    return "{" + ",".join(written) + "}"


def broken(error: Exception) -> bool:
    """Whether a pooler says that it has lost its connection to the server."""
    return (getattr(error, "sqlstate", None) or "").startswith("08")


def may_repeat(error: Exception, attempt: int, *, lost: bool, writing: bool) -> bool:
    """Whether a call that failed for the *attempt*-th time is worth another, and can't then be applied twice.

    *lost*: the connection went with it. A write that was lost may have been applied.
    """
    if lost:
        return attempt == 1 and not writing
    return attempt < 3 and getattr(error, "sqlstate", None) in _UNDONE
