"""A SQLite file of ours: opened when first used, recognised, brought up to date, kept apart from forks, and lost loudly."""

from __future__ import annotations

import os
import secrets
import sqlite3
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Final
from urllib.parse import quote, urlencode

from linepicker.errors import StoreError
from linepicker.stores import COUNTER_BITS

__all__ = ["MIGRATIONS", "File"]

_APPLICATION: Final = 0x4C50_434B
"""SQLite's `application_id` of our files: "LPCK"."""

MIGRATIONS: Final = (
    (
        "CREATE TABLE store (epoch BLOB NOT NULL, counter INTEGER NOT NULL)",
        "INSERT INTO store VALUES (:epoch, 0)",
        "CREATE TABLE namespace (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
        """CREATE TABLE record (
            namespace INTEGER NOT NULL, key TEXT NOT NULL, counter INTEGER NOT NULL, value BLOB NOT NULL, expires REAL,
            PRIMARY KEY (namespace, key)
        ) WITHOUT ROWID""",
        "CREATE INDEX record_expires ON record (expires) WHERE expires IS NOT NULL",
    ),
    (  # by another name, so that an older linepicker that has the file open can't take a shortened value for a whole one
        "ALTER TABLE record RENAME TO kept",
        "ALTER TABLE kept ADD COLUMN short INTEGER",
    ),
)
"""What takes a file from schema version n (`user_version`) to n + 1."""

_SHORTEST: Final = 0.0002
_LONGEST: Final = 0.004
"""Seconds between two looks whether another process is done; about as long as a write to disk."""

_ADVICE: Final = {
    sqlite3.SQLITE_BUSY: "is locked by another process; end its transaction, or raise ?timeout=",
    sqlite3.SQLITE_PROTOCOL: "is locked by another process; raise ?timeout=",
    sqlite3.SQLITE_FULL: "can't grow: the disk is full; make room",
    sqlite3.SQLITE_READONLY: "can't be written: give this user write permission on the file and its directory",
    sqlite3.SQLITE_PERM: "can't be used: give this user permission on the file and its directory",
    sqlite3.SQLITE_CANTOPEN: "can't be opened: does it exist, and may this user write to it and its directory?",
    sqlite3.SQLITE_CORRUPT: 'is damaged: keep a copy, then restore a backup or run `sqlite3 FILE ".recover"`',
    sqlite3.SQLITE_NOTADB: "is not a SQLite database, or is damaged: name another file, or restore a backup",
    sqlite3.SQLITE_IOERR: "can't be read or written: check the disk and the system log",
}


class File:
    """The connection to one file, for one namespace of it; and one thread, for those who may not block.

    The arguments are `SqliteStore`'s. `.base` is the store's epoch, shifted to where a version has it; `.counter` the
    largest counter seen; `.namespace` the namespace's id. They are known within `transaction()`. `.crowded`: whether the last
    one that writes had to wait for another process.
    """

    def __init__(
        self,
        path: Path,
        *,
        namespace: str,
        timeout: float,
        durable: bool,
        cached_statements: int,
        parameters: Mapping[str, str],
    ) -> None:
        self.path = path
        self._where = str(path)
        self.base = 0
        self.counter = 0
        self.namespace = 0
        self.crowded = False
        self._name = namespace
        self._timeout = timeout
        self._durable = durable
        self._cached_statements = cached_statements
        self._parameters = dict(parameters)
        self._lock = Lock()
        self._worker = _one_thread()
        self._closed = False
        self._connection: sqlite3.Connection | None = None
        self._pid = 0
        self._identity = (0, 0)
        _let_go_around_forks(self)

    @contextmanager
    def transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        """The connection, for one thread at a time, after the statement *begin*. What is not committed is undone.

        The driver's errors become `StoreError`.
        """
        if not self._lock.acquire(timeout=self._timeout):
            raise StoreError(
                f"the store {self.path} was busy with this process's other threads for {self._timeout:g} s; "
                "raise ?timeout="
            )
        try:
            db = self._opened()
            self._begin(db, begin)
            yield db
            if db.in_transaction:
                db.execute("ROLLBACK")
        except BaseException as error:
            if self._connection is not None and self._connection.in_transaction:
                self._let_go()
            if isinstance(error, sqlite3.Error | UnicodeEncodeError):
                raise self._explained(error) from error
            raise
        finally:
            self._lock.release()

    def commit(self, db: sqlite3.Connection) -> None:
        """Commit. A `StoreError` from here has `.unknown`."""
        try:
            db.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._explained(error, unknown=True) from error

    def read_counter(self, db: sqlite3.Connection) -> int:
        """The counter as it is, of the same store as ever and no lower than before, or `StoreError`."""
        epoch, counter = db.execute("SELECT epoch, counter FROM store").fetchone()
        base = int.from_bytes(epoch, "big") << COUNTER_BITS
        if (self.base and base != self.base) or counter < self.counter:
            raise StoreError(
                f"the store {self.path} is not the one this process began with: it was wiped, replaced, or restored "
                "from a backup; check it, then restart"
            )
        self.base = base
        return int(counter)

    def worker(self) -> ThreadPoolExecutor:
        """The thread for those who may not block; it starts when first needed and ends with `close`."""
        self._check_usable()
        return self._worker

    def close(self) -> None:
        """Let go of the file and the thread, for good."""
        with self._lock:
            self._closed = True
            self._let_go()
        self._worker.shutdown(wait=False)

    def _opened(self) -> sqlite3.Connection:
        self._check_usable()
        if self._connection is None:
            self._connection = self._connect()
        elif self._identify() != self._identity:
            raise StoreError(
                f"the store {self.path} was removed or replaced while in use; put the file back, or restart to use "
                "what is there now"
            )
        return self._connection

    def _check_usable(self) -> None:
        if self._closed:
            raise StoreError(f"the store {self.path} is closed")
        if self._pid not in {0, os.getpid()}:
            raise StoreError(
                f"this process was forked while the store {self.path} was open, and not by os.fork, which would have "
                "closed it; open the store after the fork"
            )

    def _connect(self) -> sqlite3.Connection:
        parameters = self._parameters
        if self.base and parameters.get("mode") != "ro":
            parameters = parameters | {"mode": "rw"}  # it has been there: an empty new one won't do
        db = sqlite3.connect(
            f"{self.path.as_uri()}?{urlencode(parameters, quote_via=quote)}",
            uri=True,
            timeout=0.0,  # `_begin` waits
            isolation_level=None,
            check_same_thread=False,
            cached_statements=self._cached_statements,
        )
        try:
            self._prepare(db)
        except BaseException:
            db.close()
            raise
        self._pid = os.getpid()
        return db

    def _prepare(self, db: sqlite3.Connection) -> None:
        find = "SELECT id FROM namespace WHERE name = ?"
        name = (self._name,)
        self._begin(db, "BEGIN")
        self._schema(db)  # before anything is written into what may be a stranger's file
        db.execute("ROLLBACK")
        self._use_wal(db)
        db.execute(f"PRAGMA synchronous = {'FULL' if self._durable else 'NORMAL'}")
        db.execute("PRAGMA fullfsync = ON")  # on macOS a plain fsync does not survive power loss
        self._begin(db, "BEGIN")
        ready = self._schema(db) == len(MIGRATIONS) and db.execute(find, name).fetchone()
        db.execute("ROLLBACK")
        if not ready:
            self._begin(db, "BEGIN IMMEDIATE")
            for migration in MIGRATIONS[self._schema(db) :]:
                for statement in migration:
                    db.execute(statement, {"epoch": secrets.token_bytes(8)})
            db.execute(f"PRAGMA application_id = {_APPLICATION}")
            db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
            db.execute("INSERT OR IGNORE INTO namespace (name) VALUES (?)", name)
            db.execute("COMMIT")
        self._identity = self._identify()
        self.counter = self.read_counter(db)
        self.namespace = db.execute(find, name).fetchone()[0]

    def _schema(self, db: sqlite3.Connection) -> int:
        """The schema version, 0 for an empty file. Raises `StoreError` for one that is not ours."""
        (application,) = db.execute("PRAGMA application_id").fetchone()
        (version,) = db.execute("PRAGMA user_version").fetchone()
        (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application != _APPLICATION and (application or version or tables):
            raise StoreError(
                f"{self.path} is another program's database; give linepicker a file of its own"
            )
        if version > len(MIGRATIONS):
            raise StoreError(
                f"the store {self.path} was written by a newer linepicker (schema {version}, this one knows "
                f"{len(MIGRATIONS)}); upgrade linepicker"
            )
        return int(version)

    def _begin(self, db: sqlite3.Connection, begin: str) -> None:
        """Begin a transaction that has its lock, or raise after the timeout. SQLite's own waiting grows to a tenth of a second
        between two looks: among several processes the lock then lies idle, and one may never get it."""

        def act() -> None:
            db.execute(begin)
            if begin == "BEGIN":  # which by itself takes no lock
                try:
                    db.execute("PRAGMA user_version").fetchone()
                except sqlite3.Error:
                    db.execute("ROLLBACK")
                    raise

        if begin == "BEGIN":
            self._patiently(act)
        else:
            self.crowded = True
            self.crowded = not self._patiently(act)

    def _patiently(self, act: Callable[[], object]) -> bool:
        """Do that as soon as nobody else has the file locked. Whether that was at once."""
        until, pause = time.monotonic() + self._timeout, _SHORTEST
        while True:
            try:
                act()
            except sqlite3.OperationalError as error:
                busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                if not busy or time.monotonic() >= until:
                    raise
            else:
                return pause == _SHORTEST
            time.sleep(pause)
            pause = min(2.0 * pause, _LONGEST)

    def _use_wal(self, db: sqlite3.Connection) -> None:
        self._patiently(lambda: db.execute("PRAGMA journal_mode = WAL").fetchone())
        if db.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            raise StoreError(f"{self.path} can't have a write-ahead log; put it on a local disk")

    def _identify(self) -> tuple[int, int]:
        try:
            found = os.stat(self._where)  # noqa: PTH116  a third cheaper, and on every call
        except OSError:
            return (0, 0)
        return (found.st_dev, found.st_ino)

    def _let_go(self) -> None:
        db, self._connection = self._connection, None
        if db is not None and self._pid == os.getpid():
            with suppress(sqlite3.Error):
                db.close()
        self._pid = 0

    def _explained(self, error: Exception, *, unknown: bool = False) -> StoreError:
        code = getattr(error, "sqlite_errorcode", None)
        advice = "failed" if code is None else _ADVICE.get(code & 0xFF, "failed")
        if code == sqlite3.SQLITE_CANTOPEN and not self.path.parent.is_dir():
            advice = f"can't be opened: make the directory {self.path.parent}"
        return StoreError(f"the store {self.path} {advice} ({error})", unknown=unknown)

    def before_fork(self) -> None:
        """Wait for the thread at work, and have nothing open."""
        self._lock.acquire()
        self._let_go()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Start afresh: threads don't come along."""
        self._lock = Lock()
        self._worker = _one_thread()


def _one_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="linepicker-sqlite")


def _let_go_around_forks(file: File) -> None:
    """Have *file* close its connection before each fork of this process.

    SQLite keeps one table of open files and their locks per process. A child that inherits an entry takes no lock of its
    own on that file, even for a connection it opens itself; when the parent then closes, SQLite takes the parent for the
    last user and removes the log, and what the child writes is lost.
    """
    if sys.platform == "win32":
        return
    this = weakref.ref(file)

    def hook(act: Callable[[File], None]) -> Callable[[], None]:
        def call() -> None:
            if (file := this()) is not None:
                act(file)

        return call

    os.register_at_fork(
        before=hook(File.before_fork),
        after_in_parent=hook(File.after_fork_in_parent),
        after_in_child=hook(File.after_fork_in_child),
    )
