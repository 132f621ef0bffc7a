"""An hour of everything at once, at full speed and with faults: memory, latency and the store's size stay as they are.

    python tests/soak.py --store sqlite|valkey|postgres [--minutes 60]

Two threads use a Router and some coroutines an AsyncRouter, on one store. They reserve for known and new people, settle in
every way, report replies, receipts, health and opt-outs, look, forget, and move; the list of lines fails now and then, and so
does the store: its connections are cut, or its file is locked. The clock runs 288 times faster than the host's, what is
written lives as much shorter, and so a day takes 5 minutes, and what is remembered for two days is gone after 10.

It is cut into twelve parts, and from ten minutes on judged. The first three warm up: three days. Then memory (resident, a
part's median) may grow by 1 % to the last part, and a reserve's slowest hundredth, as a ratio to that of a bare transaction of
the same driver between the reserves, may be 1.5 times in the last two parts what it was in parts 4 and 5. The store's records
in the last part are at most 1.1 times the most of parts 4 to 8. Python runs in development mode and must not warn; at the
end no thread, task, or descriptor is left. Prints one line of JSON; exits with 1 where something does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import math
import os
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs

from linepicker import (
    AsyncRouter,
    Blocked,
    Delivered,
    Failed,
    Held,
    Line,
    LineChanged,
    NoLine,
    NotNow,
    OptedIn,
    OptedOut,
    Outcome,
    Policy,
    Replied,
    Router,
    SourceError,
    StaleHealth,
    StoreError,
    _desk,
)
from linepicker._kept import Kept
from linepicker.stores import Handle
from linepicker.stores import open as open_store

SPEED = 288.0
PARTS, WARM = 12, 3
PEOPLE = 5000
CACHED = 1000
"""What a router remembers here at most, so that warming up is not all there is of an hour."""
LINES = [Line(f"+1202555{n:04d}") for n in range(20)]
POLICY = Policy.from_dict(
    {
        "limits": {"new_per_day": 400, "new_per_hour": 60, "messages_per_day": 20_000},
        "pace": {"new_gap": 1.0, "message_gap": 0.05, "max_delay": 600.0},
    }
)
REFUSALS = (NoLine, NotNow, Held, Blocked, StaleHealth)


class Fast:
    """The host's time, run faster."""

    def __init__(self) -> None:
        self._begun, self._at = time.monotonic(), time.time()

    def now(self) -> float:
        """Epoch seconds, that pass faster."""
        return self._at + (time.monotonic() - self._begun) * SPEED

    def sleep(self, seconds: float) -> None:
        """So many of these."""
        time.sleep(max(0.0, seconds) / SPEED)

    async def asleep(self, seconds: float) -> None:
        """The same."""
        await asyncio.sleep(max(0.0, seconds) / SPEED)


def _shorter(writes: Any) -> list[Any]:
    """Writes that live as much shorter as the clock runs faster."""
    now = time.time()
    return [
        each
        if each.expires_at is None
        else each._replace(expires_at=now + (each.expires_at - now) / SPEED)
        for each in writes
    ]


class Brief:
    """A store whose records live shorter."""

    def __init__(self, inner: Any) -> None:
        self.read, self.scan, self.close, self._swap = (
            inner.read,
            inner.scan,
            inner.close,
            inner.swap,
        )
        self.wants_seen = getattr(inner, "wants_seen", True)

    def swap(self, writes: Any, *, seen: Any = {}) -> Any:  # noqa: B006  as the port has it
        """As it is, but for when they are gone; the same for a coroutine."""
        return self._swap(_shorter(writes), seen=seen)


class Latency:
    """How long calls took, in steps of 5 %, in so much memory however many there are."""

    def __init__(self) -> None:
        self._counts = [0] * 400

    def add(self, seconds: float) -> None:
        """One more."""
        at = int(math.log(max(seconds, 1e-7) / 1e-7) / math.log(1.05))
        self._counts[min(at, 399)] += 1

    def slowest(self, share: float) -> float:
        """What all but that share took at most."""
        left = sum(self._counts) * share
        for at in range(399, -1, -1):
            left -= self._counts[at]
            if left <= 0:
                return float(1e-7 * 1.05**at)
        return 0.0


@attrs.define
class Part:
    """What was seen in one part."""

    reserve: Latency = attrs.field(factory=Latency)
    bare: Latency = attrs.field(factory=Latency)
    memory: list[int] = attrs.field(factory=list)
    records: int = 0
    size: int = 0


class Account:
    """A list of lines that now and then can't be read, or has worse news of one."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def fetch(self) -> list[Line]:
        """The list, perhaps."""
        if self._chance.random() < 0.05:
            raise SourceError("it can't be read")
        worse = self._chance.randrange(200)
        return [
            attrs.evolve(line, reputation="AT_RISK") if n == worse else line
            for n, line in enumerate(LINES)
        ]


class AsyncAccount(Account):
    """The same, awaited."""

    async def fetch(self) -> list[Line]:  # type: ignore[override]
        """The list, perhaps."""
        return super().fetch()


class Soak:
    """The whole of it, and what is seen."""

    def __init__(self, kind: str, seconds: float) -> None:
        self.kind, self.part_lasts = kind, seconds / PARTS
        self.begun = time.monotonic()
        self.parts = [Part() for _ in range(PARTS)]
        self.counts = Counter[str]()
        self.wrong: list[str] = []
        self.clock = Fast()

    @property
    def over(self) -> bool:
        """Whether time is up."""
        return time.monotonic() - self.begun >= self.part_lasts * PARTS or bool(self.wrong)

    @property
    def part(self) -> Part:
        """The present one."""
        return self.parts[min(PARTS - 1, int((time.monotonic() - self.begun) / self.part_lasts))]

    def guarded(self, work: Callable[[], object]) -> None:
        """Do it, and keep what it raises."""
        try:
            work()
        except BaseException:  # noqa: BLE001  all of it counts
            self.wrong.append(traceback.format_exc(limit=-6))

    # Traffic

    def step(self, chance: random.Random) -> tuple[str, dict[str, Any]]:
        """What to do next, and to whom."""
        person = f"+1415{min(PEOPLE - 1, int(chance.expovariate(3 / PEOPLE))):07d}"
        what = chance.choices(
            ["send", "report", "preview", "assignment", "forget", "move", "lines"],
            [70, 22, 4, 2, 1, 0.5, 0.1],
        )[0]
        return what, {"to": person, "chance": chance}

    def ended(self, chance: random.Random, number: str) -> dict[str, Any]:
        """How a send ended."""
        outcome = chance.choices(
            [Outcome.SENT, Outcome.NOT_SENT, Outcome.LINE_REFUSED, Outcome.UNKNOWN], [95, 3, 0.1, 2]
        )[0]
        if outcome is not Outcome.SENT:
            return {"outcome": outcome}
        ident = f"m{chance.getrandbits(60):x}"
        return {"outcome": outcome, "message_id": ident, "chat_id": f"c{number}"}

    def report(self, chance: random.Random, person: str) -> Any:
        """Some news."""
        now, ident = self.clock.now(), f"e{chance.getrandbits(60):x}"
        number = chance.choice(LINES).number
        match chance.choices("rdfcoi", [60, 30, 4, 2, 2, 2])[0]:
            case "r":
                return Replied(number, person, at=now, event_id=ident)
            case "d":
                return Delivered(message_id=ident, to=person, at=now)
            case "f":
                return Failed(message_id=ident, to=person, code=4005, at=now)
            case "c":
                level = chance.choice(["HEALTHY", "HEALTHY", "HEALTHY", "AT_RISK"])
                return LineChanged(number, reputation=level, at=now, event_id=ident)
            case "o":
                return OptedOut(person, at=now, event_id=ident)
        return OptedIn(person, at=now, event_id=ident)

    def threads(self, router: Router, bare: Callable[[], None], seed: int) -> None:
        """Use a Router until time is up."""
        chance = random.Random(seed)
        while not self.over:
            begun = time.perf_counter()
            with suppress(Exception):
                bare()
                self.part.bare.add(time.perf_counter() - begun)
            for _ in range(4):
                what, given = self.step(chance)
                self.do(router, what, chance, given["to"])

    def do(self, router: Router, what: str, chance: random.Random, to: str) -> None:
        """One call, and what may come of it."""
        self.counts[what] += 1
        try:
            match what:
                case "send":
                    begun = time.perf_counter()
                    made = router.reserve(to, max_delay=chance.choice([None, 0.0]))
                    self.part.reserve.add(time.perf_counter() - begun)
                    made.settle(**self.ended(chance, made.number))
                case "report":
                    router.report(self.report(chance, to))
                case "preview":
                    router.preview(to)
                case "assignment":
                    router.assignment(to)
                case "forget":
                    router.forget(to) if chance.random() < 0.05 else router.assignment(to)
                case "move":
                    router.move(to, chance.choice(LINES).number)
                case "lines":
                    router.lines()
        except REFUSALS as refusal:
            self.counts[type(refusal).__name__] += 1
        except (StoreError, SourceError) as error:
            self.counts[type(error).__name__] += 1
        except ValueError as error:
            if what != "move":
                raise
            self.counts[type(error).__name__] += 1

    async def coroutines(self, router: AsyncRouter) -> None:
        """Use an AsyncRouter until time is up."""
        async with asyncio.TaskGroup() as group:
            for n in range(4):
                group.create_task(self.coroutine(router, random.Random(100 + n)))

    async def coroutine(self, router: AsyncRouter, chance: random.Random) -> None:
        """One of them; every 200th call is torn away."""
        while not self.over:
            what, given = self.step(chance)
            to = given["to"]
            self.counts["async send" if what == "send" else "async report"] += 1
            try:
                if what == "send":
                    if chance.random() < 0.005:
                        async with asyncio.timeout(chance.random() / 1000):
                            await router.reserve(to)
                    else:
                        made = await router.reserve(to)
                        await made.settle(**self.ended(chance, made.number))
                else:
                    await router.report(self.report(chance, to))
            except REFUSALS as refusal:
                self.counts[type(refusal).__name__] += 1
            except (StoreError, SourceError, TimeoutError) as error:
                self.counts[type(error).__name__] += 1
            await asyncio.sleep(0)

    # What looks on

    def watch(self, place: Place) -> None:
        """Note memory and size, and make trouble, until time is up."""
        page, last = os.sysconf("SC_PAGE_SIZE"), -1
        chance = random.Random(7)
        while not self.over:
            time.sleep(min(1.0, self.part_lasts / 10))
            resident = int(Path("/proc/self/statm").read_text().split()[1]) * page
            self.part.memory.append(resident)
            at = self.parts.index(self.part)
            if at != last and at:
                self.part.records, self.part.size = place.count(), place.size()
                last = at
            if chance.random() < 0.1:
                with suppress(Exception):
                    place.trouble()
                    self.counts["trouble"] += 1


@attrs.define
class Place:
    """A store: its URL, a bare transaction, what makes trouble, how many records and bytes it has."""

    url: str
    bare: Callable[[], Callable[[], None]]
    trouble: Callable[[], object]
    count: Callable[[], int]
    size: Callable[[], int]


@contextmanager
def sqlite() -> Iterator[Place]:
    """A file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lines.db"

        def bare() -> Callable[[], None]:
            db = sqlite3.connect(
                Path(folder) / "bare.db", isolation_level=None, check_same_thread=False, timeout=30
            )
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("CREATE TABLE IF NOT EXISTS bare (key INTEGER PRIMARY KEY, value BLOB)")

            def one() -> None:
                db.execute("BEGIN IMMEDIATE")
                db.execute("SELECT value FROM bare WHERE key = 1").fetchone()
                db.execute("INSERT OR REPLACE INTO bare VALUES (1, ?)", (os.urandom(120),))
                db.execute("COMMIT")

            one.close = db.close  # type: ignore[attr-defined]
            return one

        def lock() -> None:
            with closing(sqlite3.connect(path, isolation_level=None)) as db:
                db.execute("BEGIN IMMEDIATE")
                time.sleep(0.2)
                db.execute("ROLLBACK")

        def count() -> int:
            with closing(sqlite3.connect(path)) as db:
                return int(db.execute("SELECT count(*) FROM kept").fetchone()[0])

        yield Place(
            f"sqlite:///{path}?synchronous=normal",
            bare,
            lock,
            count,
            lambda: path.exists() and path.stat().st_size,
        )


@contextmanager
def valkey() -> Iterator[Place]:
    """A server."""
    import redis
    from servers import RedisServer

    server = RedisServer("valkey").start()
    client = redis.Redis(unix_socket_path=str(server.socket), protocol=2)

    def bare() -> Callable[[], None]:
        mine = redis.Redis(unix_socket_path=str(server.socket), protocol=2)
        script = "redis.call('SET', KEYS[1], ARGV[1]) return redis.call('TIME')"

        def one() -> None:
            mine.eval(script, 1, "{bare}", os.urandom(120))

        one.close = mine.close  # type: ignore[attr-defined]
        return one

    try:
        yield Place(
            server.url(),
            bare,
            lambda: client.execute_command("CLIENT KILL TYPE normal SKIPME yes"),
            lambda: int(client.dbsize()),  # type: ignore[arg-type]
            lambda: int(client.info("memory")["used_memory"]),  # type: ignore[index]
        )
    finally:
        client.close()
        server.stop()


@contextmanager
def postgres() -> Iterator[Place]:
    """A server."""
    import psycopg
    from servers import PostgresDatabase, PostgresServer

    server = PostgresServer()
    server.start()
    base = PostgresDatabase(server)

    def bare() -> Callable[[], None]:
        mine = psycopg.connect(server.url(), autocommit=True)
        mine.execute("CREATE TABLE IF NOT EXISTS bare (key int PRIMARY KEY, value bytea)")

        def one() -> None:
            mine.execute(
                "INSERT INTO bare VALUES (1, %s) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                (os.urandom(120),),
            )

        one.close = mine.close  # type: ignore[attr-defined]
        return one

    def cut() -> None:
        base.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

    def count() -> int:
        return int(base.sql("SELECT count(*) FROM linepicker.record")[0][0])

    try:
        yield Place(
            base.url(),
            bare,
            cut,
            count,
            lambda: int(base.sql("SELECT pg_database_size(current_database())")[0][0]),
        )
    finally:
        server.stop()


PLACES = {"sqlite": sqlite, "valkey": valkey, "postgres": postgres}


def soak(kind: str, minutes: float) -> tuple[dict[str, Any], list[str]]:
    """What was found, and what does not hold."""
    logging.disable()
    with PLACES[kind]() as place:
        place.size()  # a client may open something that stays
        gc.collect()
        open_before, threads_before = (
            len(list(Path("/proc/self/fd").iterdir())),
            threading.active_count(),
        )
        run = Soak(kind, minutes * 60)
        _drive(run, place)
        gc.collect()
        left = threading.active_count() - threads_before
        files = len(list(Path("/proc/self/fd").iterdir())) - open_before
    return _judged(run, left, files, whole=minutes >= 10)


def _drive(run: Soak, place: Place) -> None:
    _desk.PEOPLE_KEPT = CACHED  # type: ignore[misc]
    with ExitStack() as house:
        doors: list[Handle] = [open_store(place.url), open_store(place.url)]
        inner = doors[0].store()
        house.callback(inner.close)
        chance = random.Random(1)
        router = Router(Account(chance), policy=POLICY, store=Brief(inner), clock=run.clock, seed=1)
        house.enter_context(router)
        router._desk.fleet.kept = Kept(CACHED)
        for line in LINES:
            router.report(LineChanged(line.number, reputation="HEALTHY", at=run.clock.now()))
        bares = [place.bare() for _ in range(2)]
        for each in bares:
            house.callback(each.close)  # type: ignore[attr-defined]

        async def in_a_loop() -> None:
            astore = doors[1].astore()
            async with AsyncRouter(
                AsyncAccount(chance), policy=POLICY, store=Brief(astore), clock=run.clock, seed=2
            ) as arouter:
                arouter._desk.fleet.kept = Kept(CACHED)
                await run.coroutines(arouter)
            await astore.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            if others:
                run.wrong.append(f"{len(others)} tasks are left")

        works: list[Callable[[], object]] = [
            *(lambda n=n: run.threads(router, bares[n], n) for n in range(2)),  # type: ignore[misc]
            lambda: asyncio.run(in_a_loop(), debug=False),
            lambda: run.watch(place),
        ]
        threads = [threading.Thread(target=run.guarded, args=[work]) for work in works]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _judged(run: Soak, left: int, files: int, *, whole: bool) -> tuple[dict[str, Any], list[str]]:
    wrong = list(run.wrong)
    if left or files > 0:
        wrong.append(f"{left} threads and {files} descriptors are left")
    if wrong:
        return {}, wrong

    def ratio(parts: list[Part]) -> float:
        return statistics.median(p.reserve.slowest(0.01) / p.bare.slowest(0.01) for p in parts)

    memory = [int(statistics.median(part.memory)) for part in run.parts]
    growth = memory[-1] / memory[WARM] - 1.0
    first, last = ratio(run.parts[WARM : WARM + 2]), ratio(run.parts[-2:])
    middle = max(part.records for part in run.parts[WARM : WARM + 5])
    records = run.parts[-1].records / max(1, middle)
    if whole:
        if growth > 0.01:
            wrong.append(f"memory grew by {growth:.1%}")
        if last > 1.5 * first:
            wrong.append(f"the slowest hundredth went from {first:.2f} to {last:.2f} bare ones")
        if records > 1.1:
            wrong.append(f"records grew to {records:.2f} times the most of parts 4 to 8")
    return {
        "store": run.kind,
        "minutes": run.part_lasts * PARTS / 60,
        "memory_mb": [round(each / 1e6, 1) for each in memory],
        "growth": round(growth, 4),
        "p99_ratio": [round(first, 2), round(last, 2)],
        "records": [part.records for part in run.parts],
        "bytes": [part.size for part in run.parts],
        "counts": dict(run.counts.most_common()),
    }, wrong


def main() -> None:
    """Read the command line; the soak itself runs in Python's development mode."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", choices=PLACES, default="sqlite")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        found, wrong = soak(given.store, given.minutes)
        print(json.dumps(found))  # noqa: T201  what it found is what it is for
        sys.exit("\n".join(wrong) or 0)
    command = [sys.executable, "-X", "dev", "-W", "error", __file__, "--inside"]
    command += [f"--store={given.store}", f"--minutes={given.minutes}"]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if done.stderr:
        sys.exit(done.stderr)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
