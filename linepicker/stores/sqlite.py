"""A store in one SQLite file: for any number of threads and processes of one machine.

Needs a local disk: SQLite's locks and its write-ahead log don't work over network file systems. Beside the file lie
`-wal` and `-shm`; they belong to it and are moved and removed with it, and never while it is in use. To copy it then:
`sqlite3 FILE ".backup COPY"`.

URL parameters:

    timeout=5.0              seconds to wait, first for other threads, then for other processes, before `StoreError`
    synchronous=full|normal  full: what was acknowledged survives power loss, at one fsync a swap (or for several that
                             coroutines wait for at the same time). normal: no fsync, so many times faster. A crash of
                             the process still loses nothing, but power loss or a crash of the machine may undo the last
                             seconds: recipients written to in them count as new again, perhaps on another line, and
                             what their lines spent is spent twice
    mode=ro|rw|rwc           read only; don't make the file; make it where missing (the default)
    vfs, psow, modeof        as SQLite has them: https://www.sqlite.org/uri.html
    cached_statements=128    as `sqlite3.connect` has it
"""

from __future__ import annotations

import asyncio
import time as _time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from os import PathLike
from pathlib import Path
from sqlite3 import Connection, InterfaceError, ProgrammingError
from typing import Any, Final, Self, TypeVar

from linepicker.errors import StoreError
from linepicker.stores import ABSENT, SAME, Answer, Record, Write
from linepicker.stores._file import File
from linepicker.stores._together import Together
from linepicker.stores._zeros import restored, shortened

__all__ = ["AsyncSqliteStore", "SqliteStore"]

_T = TypeVar("_T")

_LIVE: Final = "FROM kept WHERE namespace = ? AND (expires IS NULL OR expires > ?) AND key"
_PUT: Final = """
    INSERT INTO kept (namespace, key, counter, value, expires, short) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET counter = excluded.counter, value = excluded.value, expires = excluded.expires,
        short = excluded.short
"""
_DELETE: Final = "DELETE FROM kept WHERE namespace = ? AND key = ?"
_PURGE: Final = """
    DELETE FROM kept WHERE (namespace, key) IN
    (SELECT namespace, key FROM kept WHERE expires <= ? ORDER BY expires LIMIT ?)
"""

_FAULTY: Final = (UnicodeEncodeError, ProgrammingError, InterfaceError)
"""What is raised for a write that no file could take."""

_KEYS_AT_ONCE: Final = 500
"""SQLite before 3.32 takes at most 999 parameters in a statement."""

_SWAPS_AT_ONCE: Final = 64
"""How many swaps of coroutines are one transaction at most."""

_PAGE: Final = 500
"""Records read at once by a scan."""


class SqliteStore:
    """A `linepicker.stores.Store` in the SQLite file *path*, opened by the first call that needs it.

    *durable* False is `synchronous=normal`; *namespace*, *timeout* and *cached_statements* are as in the module's text,
    *parameters* SQLite's own. *time* is the clock by which records expire, epoch seconds UTC.

    A fork is safe at any moment: the connection is closed before it, and each side opens its own when next used.
    `.file` is the connection.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        namespace: str = "lp",
        timeout: float = 5.0,
        durable: bool = True,
        cached_statements: int = 128,
        parameters: Mapping[str, str] = {},
        time: Callable[[], float] = _time.time,
    ) -> None:
        self._time = time
        self.file = File(
            Path(path).absolute(),
            namespace=namespace,
            timeout=timeout,
            durable=durable,
            cached_statements=cached_statements,
            parameters=parameters,
        )

    @classmethod
    def from_parameters(
        cls, path: str, parameters: Mapping[str, str], *, namespace: str = "lp"
    ) -> Self:
        """A store with the *parameters* of a URL. Raises `StoreError` where they are wrong."""
        rest = dict(parameters)
        try:
            timeout = float(rest.pop("timeout", "5.0"))
            cached_statements = int(rest.pop("cached_statements", "128"))
        except ValueError:
            raise StoreError("sqlite: timeout and cached_statements must be numbers") from None
        if not (0.0 <= timeout <= 86400.0) or cached_statements < 0:
            raise StoreError("sqlite: timeout must be 0 to 86400 s, cached_statements 0 or more")
        synchronous = rest.pop("synchronous", "full")
        if synchronous not in {"full", "normal"}:
            raise StoreError(f"sqlite: synchronous must be full or normal, got {synchronous!r}")
        if rest.get("mode", "rwc") not in {"ro", "rw", "rwc"}:
            raise StoreError(f"sqlite: mode must be ro, rw or rwc, got {rest['mode']!r}")
        if unknown := rest.keys() - {"mode", "vfs", "psow", "modeof"}:
            raise StoreError(
                f"sqlite: unknown parameter {min(unknown)!r}; there are namespace, epoch, timeout, synchronous, mode, "
                "vfs, psow, modeof and cached_statements"
            )
        return cls(
            path,
            namespace=namespace,
            timeout=timeout,
            durable=synchronous == "full",
            cached_statements=cached_statements,
            parameters=rest,
        )

    def read(self, keys: Collection[str]) -> Answer:
        """As `Store.read`."""
        with self.file.transaction("BEGIN") as db:
            return Answer(True, None, self._fetch(db, keys))

    def swap(self, writes: Sequence[Write], *, seen: Mapping[str, int] = {}) -> Answer:
        """As `Store.swap`. *seen* is iterated only when refusing."""
        foreseen = self._foresee(writes, seen) if self.file.crowded else None
        return foreseen or self.swap_all([(writes, seen)])[0]

    def swap_all(self, swaps: Sequence[tuple[Sequence[Write], Mapping[str, int]]]) -> list[Answer]:
        """Swaps, one after the other, in one transaction: each is applied or refused by itself, and what one of them wrote
        the next one finds. A `StoreError` is every one's."""
        file = self.file
        with file.transaction("BEGIN IMMEDIATE") as db:
            counter, now, base = file.read_counter(db), self._time(), file.base
            keys = [each[0] for writes, _ in swaps for each in writes]
            held = dict(self._select(db, "key, counter", keys, now))
            rows: dict[str, tuple[int, str, int, bytes, float | None, int | None]] = {}
            gone: set[str] = set()
            answers: list[Answer | None] = []
            before, expiring = counter, 0
            for writes, _ in swaps:
                changes: dict[str, Record] = {}
                for key, version, _, _ in writes:
                    if version != (base | held[key] if key in held else 0):
                        answers.append(None)
                        break
                else:
                    for key, _, value, expires_at in writes:
                        if value is SAME:
                            continue
                        if value is None:
                            held.pop(key, None)
                            rows.pop(key, None)
                            changes[key] = ABSENT
                            gone.add(key)
                            continue
                        counter += 1
                        held[key], changes[key] = counter, Record(base | counter, None)
                        short = shortened(value)
                        stored = (
                            (value, expires_at, None) if short is None else (short, expires_at, 1)
                        )
                        rows[key] = (file.namespace, key, counter, *stored)
                        expiring += expires_at is not None
                    answers.append(Answer(True, None, changes))
            if counter > before:
                db.execute("UPDATE store SET counter = ?", (counter,))
                db.executemany(_PUT, rows.values())
            if gone:  # some of them may have come back
                lost = [(file.namespace, key) for key in gone if key not in rows]
                db.executemany(_DELETE, lost)
            if expiring:  # two may go for each that comes, so that they can't pile up
                db.execute(_PURGE, (now, 2 * expiring))
            told = [
                answer or self._refuse(db, *swap)
                for answer, swap in zip(answers, swaps, strict=True)
            ]
            if counter > before or gone:
                file.commit(db)
                file.counter = counter
            return told

    def scan(self, prefix: str) -> Iterator[tuple[str, Record]]:
        """As `Store.scan`, in the order of keys, a page at a time: it blocks no writer."""
        page = self.page(prefix)
        while page:
            yield from page
            page = self.page(prefix, after=page[-1][0])

    def page(self, prefix: str, *, after: str | None = None) -> list[tuple[str, Record]]:
        """The first some hundred records of `scan`, or those that follow the key *after*; empty at the end."""
        with self.file.transaction("BEGIN") as db:
            rows = db.execute(
                f"SELECT key, counter, value, short {_LIVE} {'>=' if after is None else '>'} ? ORDER BY key LIMIT ?",
                (self.file.namespace, self._time(), prefix if after is None else after, _PAGE),
            )
            return [
                (key, Record(self.file.base | counter, restored(value) if short else value))
                for key, counter, value, short in rows
                if key.startswith(prefix)
            ]

    def close(self) -> None:
        """As `Store.close`."""
        self.file.close()

    def _select(
        self, db: Connection, columns: str, keys: Collection[str], now: float
    ) -> Iterator[Any]:
        rest = iter(keys)
        while some := tuple(islice(rest, _KEYS_AT_ONCE)):
            marks = ",".join("?" * len(some))
            yield from db.execute(
                f"SELECT {columns} {_LIVE} IN ({marks})", (self.file.namespace, now, *some)
            )

    def _fetch(self, db: Connection, keys: Collection[str]) -> dict[str, Record]:
        records = dict.fromkeys(keys, ABSENT)
        columns = "key, counter, value, short"
        for key, counter, value, short in self._select(db, columns, keys, self._time()):
            records[key] = Record(self.file.base | counter, restored(value) if short else value)
        return records

    def _foresee(self, writes: Sequence[Write], seen: Mapping[str, int]) -> Answer | None:
        """The refusal, where it is certain already: it need not wait for the others who write."""
        with self.file.transaction("BEGIN") as db:
            held = dict(
                self._select(db, "key, counter", [each.key for each in writes], self._time())
            )
            if all(each.version == self._version(held, each.key) for each in writes):
                return None
            return self._refuse(db, writes, seen)

    def _version(self, held: Mapping[str, int], key: str) -> int:
        return self.file.base | held[key] if key in held else 0

    def _refuse(self, db: Connection, writes: Sequence[Write], seen: Mapping[str, int]) -> Answer:
        given = dict(seen)
        given.update((each.key, each.version) for each in writes)
        records = self._fetch(db, given)
        moved = {key: each for key, each in records.items() if each.version != given[key]}
        return Answer(False, None, moved)


class AsyncSqliteStore:
    """The coroutine twin of a `SqliteStore`: the same connection, used on one thread of its own.

    Swaps that wait for that thread at the same time are one transaction there, and cost one fsync. Not bound to an event
    loop. A cancelled swap that has begun is carried out.
    """

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self._swap = Together(self._swap_all, store.file.worker, at_once=_SWAPS_AT_ONCE)

    async def read(self, keys: Collection[str]) -> Answer:
        """As `AsyncStore.read`."""
        return await self._run(partial(self._store.read, keys))

    async def swap(self, writes: Sequence[Write], *, seen: Mapping[str, int] = {}) -> Answer:
        """As `AsyncStore.swap`. *seen* is iterated at once, in the caller's thread."""
        return await self._swap((writes, dict(seen)))

    async def scan(self, prefix: str) -> Sequence[tuple[str, Record]]:
        """As `AsyncStore.scan`; other calls have their turn between pages."""
        found: list[tuple[str, Record]] = []
        page = await self._run(partial(self._store.page, prefix))
        while page:
            found += page
            page = await self._run(partial(self._store.page, prefix, after=page[-1][0]))
        return found

    async def close(self) -> None:
        """As `AsyncStore.close`."""
        await asyncio.to_thread(self._store.close)

    async def _run(self, call: Callable[[], _T]) -> _T:
        worker = self._store.file.worker()
        return await asyncio.get_running_loop().run_in_executor(worker, call)

    def _swap_all(
        self, swaps: Sequence[tuple[Sequence[Write], Mapping[str, int]]]
    ) -> Sequence[Answer | Exception]:
        try:
            return self._store.swap_all(swaps)
        except StoreError as error:
            alone = len(swaps) == 1 or not isinstance(error.__cause__, _FAULTY)
            if alone:
                return [error] * len(swaps)
        return [self._swap_all([swap])[0] for swap in swaps]  # which of them it was
