"""A PostgreSQL database: reached through a pool, recognised, brought up to date, kept apart from forks, and explained."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import secrets
import sys
import weakref
from contextlib import suppress
from functools import partial
from math import inf
from threading import Lock
from time import monotonic
from typing import Any, Final, TypeAlias, TypeVar
from urllib.parse import unquote, urlsplit

import psycopg
from psycopg import AsyncConnection, Connection, sql
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import ProgrammingError
from psycopg_pool import AsyncConnectionPool, ConnectionPool, PoolClosed, PoolTimeout

from linepicker.errors import StoreError
from linepicker.stores import COUNTER_BITS
from linepicker.stores._postgres_schema import LOOK, MIGRATIONS

__all__ = ["Database"]

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

_OLDEST: Final = 14
_OURS: Final = {"namespace", "epoch", "timeout", "max_size"}
_LOCK: Final = 0x4C50_434B
"""The advisory lock of whoever creates or updates the tables: "LPCK"."""

_OTHER: Final = (
    "is not the one this process began with: it was wiped, replaced, or restored from a backup; "
    "check it, then restart"
)
_UNREACHED: Final = (
    "can't be reached: is it running, and are the URL's host, user, password and database right?"
)
_ADVICE: Final = {
    "LP001": _OTHER,
    "LP002": "needs transactions that are READ COMMITTED: set default_transaction_isolation back for this role and database",
    "25006": "is read only: name the primary, or add target_session_attrs=read-write to a URL of several hosts",
    "3F000": "has lost its schema `linepicker`: restore a backup, or restart to begin with nothing",
    "42P01": "has lost a table of the schema `linepicker`: restore a backup, or drop the schema to begin with nothing",
    "42883": "has lost a function of the schema `linepicker`: restore a backup, or drop the schema to begin with nothing",
    "42501": "may not be used so: grant this role CREATE on the database, or the schema `linepicker` and what is in it",
    "53100": "can't grow: the disk is full; make room",
    "55P03": "is locked by another transaction; end it, or raise ?timeout=",
    "25P04": "took too long; look at what the server is busy with, or raise ?timeout=",
}
_ADVICE_OF_CLASS: Final = {
    "22": "can't hold such a key or value",
    "53": "is short of resources: look at the server's log",
    "57": "is starting, stopping, or has ended this connection; try again",
    "XX": "is damaged or has failed: look at the server's log",
}


class Timed(Connection[Any]):
    """A connection that gives up and closes where an answer is not there after `.patience` seconds."""

    patience = inf

    def wait(self, gen: PQGen[_T], *more: Any, **named: Any) -> _T:
        """As the driver's, which would wait for ever for a server that is there and says nothing."""
        return super().wait(_in_time(self, gen), *more, **named)


class AsyncTimed(AsyncConnection[Any]):
    """As `Timed`, for coroutines."""

    patience = inf

    async def wait(self, gen: PQGen[_T], *more: Any, **named: Any) -> _T:
        """As the driver's, which would wait for ever for a server that is there and says nothing."""
        return await super().wait(_in_time(self, gen), *more, **named)


def _in_time(connection: Timed | AsyncTimed, gen: PQGen[_T]) -> PQGen[_T]:
    """What *gen* does, which is resumed now and then while nothing happens."""
    until = monotonic() + connection.patience
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if not ready and monotonic() > until:
                connection.pgconn.finish()
                raise psycopg.OperationalError(f"no answer for {connection.patience:g} s")
            wanted = gen.send(ready)
    except StopIteration as end:
        result: _T = end.value
        return result


_Pool: TypeAlias = ConnectionPool[Timed]
_AsyncPool: TypeAlias = AsyncConnectionPool[AsyncTimed]


class Database:
    """The way to one database, for threads and for coroutines. Nothing is opened until the first call.

    `.where` is its name in messages, `.timeout` in seconds. `.limits` are those of a transaction, `.epoch` is the store's,
    `.base` the same where a version has it, `.known` the largest counter this process has had acknowledged: they are known
    within `connect()` and `aconnect()`. Raises `StoreError` for a URL that can't be understood.
    """

    def __init__(self, url: str) -> None:
        self._conninfo, self.where, own = _taken_apart(url)
        self.timeout, self._size = _numbers(own)
        self._lock_limit = round(1000 * self.timeout)
        self.limits: tuple[int, int | None] = (self._lock_limit, None)
        self._patience = 3 * self.timeout
        self.epoch = 0
        self.base = 0
        self.known = 0
        self._closed = False
        self._inherited: list[object] = []
        self._start()
        self._leave = partial(_leave, weakref.ref(self))
        atexit.register(self._leave)
        _begin_anew_after_forks(self)

    def _start(self) -> None:
        self._lock = Lock()
        self._ready = False
        self._pool: _Pool | None = None
        self._pools: dict[asyncio.AbstractEventLoop, _AsyncPool] = {}

    def connect(self) -> Timed:
        """A connection that was alive a moment ago; `release` it. Raises `StoreError`."""
        with self._lock:
            self._prepare()
            if self._pool is None:
                settings = self._settings()
                self._pool = ConnectionPool(
                    self._conninfo, connection_class=Timed, open=True, **settings
                )
            pool = self._pool
        until = monotonic() + self.timeout
        try:
            while True:
                connection = pool.getconn(timeout=until - monotonic())
                if _alive(connection):
                    connection.patience = self._patience
                    return connection
                pool.putconn(connection)
        except PoolTimeout:
            raise self._exhausted() from None
        except PoolClosed:
            raise self._gone() from None

    def release(self, connection: Timed) -> None:
        """Give back a connection."""
        if (pool := self._pool) is not None:
            pool.putconn(connection)
        else:
            connection.close()

    async def aconnect(self) -> AsyncTimed:
        """As `connect`, for the running event loop."""
        if not self._ready or self._closed:
            await asyncio.to_thread(self._prepare_alone)
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop)
        if pool is None:
            self._pools = {each: old for each, old in self._pools.items() if not each.is_closed()}
            settings = self._settings()
            pool = AsyncConnectionPool(
                self._conninfo, connection_class=AsyncTimed, open=False, **settings
            )
            self._pools[loop] = pool
        until = monotonic() + self.timeout
        try:
            await pool.open()
            while True:
                connection = await pool.getconn(timeout=until - monotonic())
                if _alive(connection):
                    connection.patience = self._patience
                    return connection
                await pool.putconn(connection)
        except PoolTimeout:
            raise await asyncio.to_thread(self._exhausted) from None
        except (PoolClosed, psycopg.OperationalError):
            raise self._gone() from None

    async def arelease(self, connection: AsyncTimed) -> None:
        """As `release`."""
        if (pool := self._pools.get(asyncio.get_running_loop())) is not None:
            await pool.putconn(connection)
        else:
            await connection.close()

    def migrate(self) -> None:
        """Make the tables, or bring them up to date. Does nothing where that is done. Raises `StoreError`."""
        self._prepare_alone()

    def explained(self, error: Exception, *, unknown: bool = False) -> StoreError:
        """What to do about a driver's error. *unknown*: nobody can tell whether it was applied."""
        state = getattr(error, "sqlstate", None) or ""
        advice = _ADVICE.get(state) or _ADVICE_OF_CLASS.get(state[:2])
        if advice is None:
            reached = state or not isinstance(error, psycopg.OperationalError)
            advice = "failed" if reached else _UNREACHED
        if isinstance(error, psycopg.DataError | UnicodeEncodeError):
            advice = _ADVICE_OF_CLASS["22"]
        if unknown:
            advice += "; whether the last write was applied is not known"
        said = str(error).strip().partition("\n")[0]
        return StoreError(f"the store {self.where} {advice} ({said})", unknown=unknown)

    def close(self) -> None:
        """Let go of connections and threads, for good."""
        with self._lock:
            self._closed = True
            pool, self._pool = self._pool, None
            pools, self._pools = self._pools, {}
        for loop, each in pools.items():
            if loop.is_running():
                asyncio.run_coroutine_threadsafe(each.close(), loop)
            elif not loop.is_closed() and not _in_a_loop():
                loop.run_until_complete(each.close())
        if pool is not None:
            pool.close()
        atexit.unregister(self._leave)

    async def aclose(self) -> None:
        """As `close`, without blocking the event loop."""
        pool = self._pools.pop(asyncio.get_running_loop(), None)
        if pool is not None:
            await pool.close()
        await asyncio.to_thread(self.close)

    def leave(self) -> None:
        """Close what threads have open, at the end of a process that did not."""
        if self._pool is not None:
            self._pool.close()

    def _settings(self) -> dict[str, Any]:
        return {
            "kwargs": self._driver(),
            "min_size": 0,
            "max_size": self._size,
            "timeout": self.timeout,
            "reconnect_timeout": self.timeout,
        }

    def _driver(self) -> dict[str, Any]:
        """No state in the session: there may be a pooler that hands it to others after each transaction."""
        given = conninfo_to_dict(self._conninfo)
        wished = {
            "connect_timeout": max(2, round(self.timeout)),
            "tcp_user_timeout": round(2000 * self.timeout),
            "fallback_application_name": "linepicker",
        }
        rest = {name: value for name, value in wished.items() if name not in given}
        return {"autocommit": True, "prepare_threshold": None, **rest}

    def _gone(self) -> StoreError:
        return StoreError(f"the store {self.where} is closed")

    def _exhausted(self) -> StoreError:
        """Why there was no connection: the pool doesn't say."""
        try:
            psycopg.connect(self._conninfo, **self._driver()).close()
        except psycopg.Error as error:
            return self.explained(error)
        return StoreError(
            f"the store {self.where}: all of this process's {self._size} connections were busy for {self.timeout:g} s; "
            "raise ?max_size= or ?timeout="
        )

    def _prepare_alone(self) -> None:
        with self._lock:
            self._prepare()

    def _prepare(self) -> None:
        if self._closed:
            raise self._gone()
        if self._ready:
            return
        try:
            with Timed.connect(self._conninfo, **self._driver()) as connection:
                connection.patience = self._patience
                self._recognise(connection)
        except (psycopg.Error, UnicodeEncodeError) as error:
            raise self.explained(error) from error
        self._ready = True

    def _recognise(self, connection: Connection[Any]) -> None:
        version, encoding, read_only, commit, _, exists = _one(connection, LOOK)
        if version < _OLDEST * 10_000:
            raise StoreError(
                f"the store {self.where} is PostgreSQL {version // 10_000}; linepicker needs {_OLDEST} or newer"
            )
        if version >= 170_000:
            self.limits = (self._lock_limit, 2 * self._lock_limit)
        if encoding != "UTF8":
            raise StoreError(
                f"the store {self.where} is in {encoding}; create it with ENCODING 'UTF8'"
            )
        if read_only:
            raise StoreError(f"the store {self.where} {_ADVICE['25006']}")
        if commit == "off":
            _log.warning(
                "the store %s runs with synchronous_commit = off: a crash of the server may undo what it acknowledged, so "
                "that recipients count as new again and budgets are spent twice",
                self.where,
            )
        if not exists and self.base:
            raise StoreError(f"the store {self.where} {_OTHER}")
        if not exists or self._version(connection) < len(MIGRATIONS):
            self._migrate(connection)
        epoch = _one(connection, "SELECT epoch FROM linepicker.store")[0]
        if self.base and epoch != self.epoch:
            raise StoreError(f"the store {self.where} {_OTHER}")
        self.epoch, self.base = epoch, epoch << COUNTER_BITS

    def _migrate(self, connection: Connection[Any]) -> None:
        with connection.transaction():
            connection.execute(f"SET LOCAL lock_timeout = {self._lock_limit}")
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
            *_, schema, exists = _one(connection, LOOK)
            if not schema:
                connection.execute("CREATE SCHEMA linepicker")
            version = self._version(connection) if exists else 0
            for migration in MIGRATIONS[version:]:
                epoch = sql.Literal(secrets.randbelow((1 << 63) - 1) + 1)
                connection.execute(sql.SQL(migration).format(epoch=epoch))
            connection.execute("UPDATE linepicker.store SET version = %s", [len(MIGRATIONS)])

    def _version(self, connection: Connection[Any]) -> int:
        found = connection.execute("SELECT version FROM linepicker.store").fetchall()
        if len(found) != 1:
            raise StoreError(f"the store {self.where} {_OTHER}")
        version = int(found[0][0])
        if version > len(MIGRATIONS):
            raise StoreError(
                f"the store {self.where} was written by a newer linepicker (schema {version}, this one knows "
                f"{len(MIGRATIONS)}); upgrade linepicker"
            )
        return version

    def after_fork_in_child(self) -> None:
        """Start afresh: neither threads nor connections may be used by two processes."""
        self._inherited += [self._pool, self._pools]  # to be ended would mean to end the parent's
        self._start()


def _in_a_loop() -> bool:
    with suppress(RuntimeError):
        return asyncio.get_running_loop() is not None
    return False


def _one(connection: Connection[Any], query: Any) -> tuple[Any, ...]:
    row: tuple[Any, ...] = connection.execute(query).fetchone() or ()
    return row


def _alive(connection: Timed | AsyncTimed) -> bool:
    """Whether the server has not ended it meanwhile, as far as is known here: what it last said, then the socket's end."""
    with suppress(psycopg.OperationalError):
        connection.pgconn.consume_input()
        connection.pgconn.consume_input()
        return not connection.closed
    return False


def _numbers(own: dict[str, str]) -> tuple[float, int]:
    try:
        timeout, size = float(own.get("timeout", "5.0")), int(own.get("max_size", "10"))
    except ValueError:
        raise StoreError("postgresql: timeout and max_size must be numbers") from None
    if not (0.05 <= timeout <= 86400.0) or size < 1:
        raise StoreError("postgresql: timeout must be 0.05 to 86400 s, max_size 1 or more")
    return timeout, size


def _taken_apart(url: str) -> tuple[str, str, dict[str, str]]:
    """The URL for the driver, a name for messages, and the parameters that are ours."""
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    if parts.fragment or "@" in user or "@" in parts.path:
        raise StoreError(
            "postgresql: in a user name or a password write @ as %40, # as %23, / as %2F, ? as %3F, : as %3A and % as %25"
        )
    pairs = [(each.partition("=")[0], each) for each in parts.query.split("&") if each]
    conninfo = parts._replace(query="&".join(each for name, each in pairs if name not in _OURS))
    try:
        conninfo_to_dict(conninfo.geturl())
    except ProgrammingError:  # whose text may hold a password
        raise StoreError(
            "the driver can't read the store's URL: write postgresql://user:password@host:5432/database?name=value, with "
            "parameters that libpq knows, or timeout and max_size"
        ) from None
    own = {name: unquote(each.partition("=")[2]) for name, each in pairs if name in _OURS}
    return conninfo.geturl(), f"postgresql://{host}{parts.path}", own


def _leave(this: weakref.ref[Database]) -> None:
    if (found := this()) is not None:
        found.leave()


def _begin_anew_after_forks(database: Database) -> None:
    if sys.platform == "win32":
        return
    this = weakref.ref(database)

    def call() -> None:
        if (found := this()) is not None:
            found.after_fork_in_child()

    os.register_at_fork(after_in_child=call)
