"""What it costs to choose a line: linepicker beside LiteLLM's router, a scan, a rate limiter, and a bare transaction.

All lines are HEALTHY and weigh the same; routers are in memory where nothing else is said. Recipients are made before the
timing begins. Two policies:

- *no limits*: limits and spread off, no gaps, on the host's clock. Before the first timing there were so many reservations that
  the sending days of nine lines in ten have begun: beginning one costs more, once a day for each line.
- *limits*: the default policy on a manual clock that steps on before each call (within the timing), so that a line gets
  `Scale.conversations` new conversations a day, or `Scale.messages` messages: nothing is refused. A day and a half of it has
  passed before the first timing, so that each reservation also pays for those that leave the windows, a line's record is as
  long with 10 lines as with 10,000, and the lines' sending days do not all begin within the timing.

A known recipient was met before by the router that is asked. The first time, which is not measured here, costs several times
as much: the router tries a new conversation before it learns whose they are.

LiteLLM's deployments carry neither limits nor weights, its cheapest case; *enforcing limits* they have requests per minute,
and `enable_pre_call_checks`, without which it does not hold simple-shuffle to them. The scan keeps counts, and has neither
lock, nor window, nor memory of recipients. `limits` walks through its keys in a thread of its own 10 ms after a hit; its
timings are short enough to leave that out, since on a busy machine it can double them.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from itertools import count, cycle, islice
from pathlib import Path

import attrs

from benchmarks.measure import Goal, Subject, version
from linepicker import AsyncRouter, Line, Policy, Router
from linepicker.testing import ManualClock

PACKAGES = ("linepicker", "attrs", "litellm", "limits")
KNOWN = 1000
DAY = 86400.0
ROOMY = Policy.from_dict(
    {
        "limits": {
            "new_per_day": "off",
            "new_per_hour": "off",
            "messages_per_day": "off",
            "pair_per_minute": "off",
            "moves_per_day": "off",
        },
        "pace": {"new_gap": 0.0, "message_gap": 0.0, "spread": "off"},
    }
)
BEGINNING = 4
"""How many reservations for each line are made before the first timing, so that most lines' sending days have begun."""
LITELLM_LINES = (10, 100, 1000)
SQLITE_LINES = 100
ASYNC_LINES = 100
THREADS = 8
THREADS_LINES = 1000
_MESSAGES = [{"role": "user", "content": "hello"}]


@attrs.frozen
class Scale:
    """How much is measured: numbers of lines, rounds, seconds per timing, and a line's load per day where there are limits."""

    lines: tuple[int, ...] = (10, 100, 1000, 10_000)
    repeats: int = 15
    seconds: float = 0.05
    conversations: int = 10
    messages: int = 50

    def words(self) -> Sequence[str]:
        """How it was measured."""
        return (
            f"rounds: {self.repeats}, each timing about {self.seconds * 1000:g} ms",
            f"load within limits, a line and day: {self.conversations} new, or {self.messages} messages",
        )


QUICK = Scale(repeats=5, seconds=0.02, conversations=2, messages=10)
TINY = Scale(lines=(10, 100), repeats=2, seconds=0.001, conversations=1, messages=2)


def subjects(
    scale: Scale, house: ExitStack, say: Callable[[str], None]
) -> tuple[list[Subject], list[str]]:
    """Everything to time, opened in *house*; and in words what can't be measured here."""
    strangers = _numbers()
    found, missing = [], []
    if version("litellm") is None:
        missing.append("LiteLLM is not installed: pip install -e '.[bench]'")
    if version("limits") is None:
        missing.append("limits is not installed: pip install -e '.[bench]'")
    else:
        found.append(_limits_hit(strangers))
    for n in scale.lines:
        say(f"building {n:,} lines")
        found.append(new(n, strangers, house))
        if n in LITELLM_LINES and version("litellm") is not None:
            found += [_litellm(n), _litellm(n, enforcing=True)]
        found += [
            _naive(n),
            _new_within_limits(n, scale.conversations, strangers, house),
            _known(n, strangers, house),
            _known_within_limits(n, scale.messages, strangers, house),
        ]
    found.append(_in_threads(strangers, house))
    found += _in_asyncio(strangers, house)
    for synchronous in ("normal", "full"):
        found += _in_sqlite(synchronous, strangers, house)
    return found, missing


def goals(scale: Scale) -> list[Goal]:
    """What is compared with what, and what is wanted of it."""
    few, many = min(scale.lines), max(scale.lines)
    compared = [
        Goal(
            f"new{limits}: {many:,} lines / {few:,} lines",
            f"new{limits}, {many:,} lines",
            f"new{limits}, {few:,} lines",
            wanted,
        )
        for limits, wanted in (("", 1.5), (" within limits", 2.0))
    ]
    compared += [
        Goal(
            f"LiteLLM simple-shuffle / new{limits}: {n:,} lines",
            f"LiteLLM simple-shuffle, {n:,} lines",
            f"new{limits}, {n:,} lines",
            wanted,
            at_least=True,
        )
        for n, most in ((100, 25.0), (1000, 120.0))
        for limits, wanted in (("", most), (" within limits", None))
    ]
    compared += [
        Goal(
            f"LiteLLM simple-shuffle enforcing limits / new within limits: {n:,} lines",
            f"LiteLLM simple-shuffle enforcing limits, {n:,} lines",
            f"new within limits, {n:,} lines",
            wanted,
            at_least=True,
        )
        for n, wanted in ((100, 15.0), (1000, 120.0))
    ]
    compared += [
        Goal(
            f"known + settle{limits} / limits hit: {n:,} lines",
            f"known + settle{limits}, {n:,} lines",
            "limits fixed-window hit",
            wanted,
        )
        for n in sorted({few, many})
        for limits, wanted in (("", 4.0), (" within limits", 5.0))
    ]
    compared += [
        Goal(
            f"SQLite {synchronous}: {kind} / bare transaction",
            f"SQLite {synchronous}: {kind}",
            f"SQLite {synchronous}: bare transaction",
            4.0,
        )
        for synchronous in ("normal", "full")
        for kind in ("new", "known")
    ]
    compared.append(
        Goal(
            f"known + settle: AsyncRouter / Router, {ASYNC_LINES} lines",
            "AsyncRouter: known + settle",
            "Router: known + settle",
            2.0,
        )
    )
    if THREADS_LINES in scale.lines:
        compared.append(
            Goal(
                f"new in {THREADS} threads / new: {THREADS_LINES:,} lines",
                f"new in {THREADS} threads, {THREADS_LINES:,} lines",
                f"new, {THREADS_LINES:,} lines",
            )
        )
    compared += [
        Goal(f"naive scan / new: {n:,} lines", f"naive scan, {n:,} lines", f"new, {n:,} lines")
        for n in scale.lines
    ]
    return compared


# The library


def new(n: int, strangers: Iterator[str], house: ExitStack) -> Subject:
    """A reservation for somebody new, among so many lines without limits."""
    router = house.enter_context(Router(_lines(n), policy=ROOMY))
    prepare = reserving(router, strangers)
    prepare(BEGINNING * n)()
    return Subject(f"new, {n:,} lines", prepare)


def _in_threads(strangers: Iterator[str], house: ExitStack) -> Subject:
    """The same router asked by several threads at once: the time that all of them take for a reservation."""
    router = house.enter_context(Router(_lines(THREADS_LINES), policy=ROOMY))
    reserving(router, strangers)(BEGINNING * THREADS_LINES)()

    def prepare(calls: int) -> Callable[[], object]:
        each = reserving(router, strangers)
        shares = [calls // THREADS + (i < calls % THREADS) for i in range(THREADS)]
        threads = [threading.Thread(target=each(share)) for share in shares]

        def work() -> None:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        return work

    return Subject(f"new in {THREADS} threads, {THREADS_LINES:,} lines", prepare)


def reserving(router: Router, people: Iterator[str]) -> Callable[[int], Callable[[], object]]:
    """Reservations for the next of these people."""
    reserve = router.reserve

    def prepare(calls: int) -> Callable[[], object]:
        some = list(islice(people, calls))

        def work() -> None:
            for to in some:
                reserve(to)

        return work

    return prepare


def _new_within_limits(
    n: int, conversations: int, strangers: Iterator[str], house: ExitStack
) -> Subject:
    clock = ManualClock(1_800_000_000.0)
    router = house.enter_context(Router(_lines(n), clock=clock))
    reserve, step, advance = router.reserve, DAY / (n * conversations), clock.advance

    def prepare(calls: int) -> Callable[[], object]:
        some = list(islice(strangers, calls))

        def work() -> None:
            for to in some:
                advance(step)
                reserve(to)

        return work

    prepare(n * conversations * 3 // 2)()
    return Subject(f"new within limits, {n:,} lines", prepare)


def _known(n: int, strangers: Iterator[str], house: ExitStack) -> Subject:
    router = house.enter_context(Router(_lines(n), policy=ROOMY))
    known = _make_known(router, n, strangers)
    prepare = _settling(router, known)
    prepare(KNOWN)()
    return Subject(f"known + settle, {n:,} lines", prepare)


def _settling(router: Router, people: Iterator[str]) -> Callable[[int], Callable[[], object]]:
    reserve = router.reserve

    def prepare(calls: int) -> Callable[[], object]:
        some = list(islice(people, calls))

        def work() -> None:
            for to in some:
                reserve(to).settle("SENT")

        return work

    return prepare


def _known_within_limits(
    n: int, messages: int, strangers: Iterator[str], house: ExitStack
) -> Subject:
    clock = ManualClock(1_800_000_000.0)
    router = house.enter_context(Router(_lines(n), clock=clock))
    known, busy = _make_known(router, n, strangers), min(n, KNOWN)
    reserve, step, advance = router.reserve, DAY / (busy * messages), clock.advance

    def prepare(calls: int) -> Callable[[], object]:
        some = list(islice(known, calls))

        def work() -> None:
            for to in some:
                advance(step)
                reserve(to).settle("SENT")

        return work

    prepare(max(KNOWN, busy * messages * 3 // 2))()
    return Subject(f"known + settle within limits, {n:,} lines", prepare)


def _in_asyncio(strangers: Iterator[str], house: ExitStack) -> list[Subject]:
    sync = house.enter_context(Router(_lines(ASYNC_LINES), policy=ROOMY))
    runner = house.enter_context(asyncio.Runner())
    router = AsyncRouter(_lines(ASYNC_LINES), policy=ROOMY)
    house.callback(lambda: runner.run(router.close()))
    pairs = list(zip(islice(strangers, KNOWN), cycle(_line_numbers(ASYNC_LINES)), strict=False))
    runner.run(router.assign_many(pairs))
    known = cycle([to for to, _ in pairs])
    loop = runner.get_loop()

    def prepare(calls: int) -> Callable[[], object]:
        some = list(islice(known, calls))

        async def work() -> None:
            for to in some:
                reservation = await router.reserve(to)
                await reservation.settle("SENT")

        return lambda: loop.run_until_complete(work())

    prepare_sync = _settling(sync, _make_known(sync, ASYNC_LINES, strangers))
    prepare_sync(KNOWN)()
    prepare(KNOWN)()
    return [
        Subject("Router: known + settle", prepare_sync),
        Subject("AsyncRouter: known + settle", prepare),
    ]


def _in_sqlite(synchronous: str, strangers: Iterator[str], house: ExitStack) -> list[Subject]:
    """A router and a bare connection on one file, with the same pragmas."""
    path = Path(house.enter_context(tempfile.TemporaryDirectory())) / "linepicker.db"
    url = f"sqlite:///{path}?synchronous={synchronous}"
    router = house.enter_context(Router(_lines(SQLITE_LINES), policy=ROOMY, store=url))
    known = _make_known(router, SQLITE_LINES, strangers)
    db = house.enter_context(closing(sqlite3.connect(path, isolation_level=None)))
    db.execute("PRAGMA journal_mode = WAL")
    db.execute(f"PRAGMA synchronous = {synchronous}")
    db.execute("PRAGMA fullfsync = ON")
    db.execute("CREATE TABLE bare (key INTEGER PRIMARY KEY, value BLOB NOT NULL)")
    db.execute("BEGIN")
    db.executemany("INSERT INTO bare VALUES (?, ?)", ((key, bytes(100)) for key in range(KNOWN)))
    db.execute("COMMIT")
    turns, execute = count(1), db.execute

    def bare(calls: int) -> Callable[[], object]:
        # A value of its own each time: SQLite writes nothing where an UPDATE changes nothing.
        some = [(turn % KNOWN, turn.to_bytes(100)) for turn in islice(turns, calls)]

        def work() -> None:
            for key, value in some:
                execute("BEGIN IMMEDIATE")
                execute("SELECT value FROM bare WHERE key = ?", (key,)).fetchone()
                execute("UPDATE bare SET value = ? WHERE key = ?", (value, key))
                execute("COMMIT")

        return work

    prepare = reserving(router, known)
    prepare(KNOWN)()
    return [
        Subject(f"SQLite {synchronous}: new", reserving(router, strangers)),
        Subject(f"SQLite {synchronous}: bare transaction", bare),
        Subject(f"SQLite {synchronous}: known", prepare),
    ]


# The others


def _litellm(n: int, *, enforcing: bool = False) -> Subject:
    """A pick; *enforcing*: with requests per minute that it holds the deployments to, as ours are held to budgets."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = (
        "True"  # else importing it fetches a list of prices
    )
    os.environ["LITELLM_MODE"] = "PRODUCTION"  # else importing it reads a .env file
    from litellm.router import Router as LiteLLM

    router = LiteLLM(
        model_list=[
            {
                "model_name": "line",
                "litellm_params": {
                    "model": "openai/gpt-4o-mini",
                    "api_key": "none",
                    "api_base": f"http://127.0.0.1:9/{number}",
                    **({"rpm": 1_000_000} if enforcing else {}),
                },
            }
            for number in _line_numbers(n)
        ],
        routing_strategy="simple-shuffle",
        enable_pre_call_checks=enforcing,
    )
    choose = router.get_available_deployment

    def prepare(calls: int) -> Callable[[], object]:
        def work() -> None:
            for _ in range(calls):
                choose(model="line", messages=_MESSAGES)

        return work

    kind = " enforcing limits" if enforcing else ""
    return Subject(f"LiteLLM simple-shuffle{kind}, {n:,} lines", prepare)


@attrs.define
class _Counted:
    number: str
    weight: float = 1.0
    tier: float = 1.0
    vitality: float = 1.0
    limit: int = 1_000_000_000
    used: int = 0


def _naive(n: int) -> Subject:
    lines = [_Counted(number) for number in _line_numbers(n)]

    def choose() -> _Counted:
        best, most = lines[0], -1.0
        for line in lines:
            headroom = (line.limit - line.used) / line.limit
            score = line.weight * line.tier * headroom * line.vitality
            if score > most:
                best, most = line, score
        best.used += 1
        return best

    def prepare(calls: int) -> Callable[[], object]:
        def work() -> None:
            for _ in range(calls):
                choose()

        return work

    return Subject(f"naive scan, {n:,} lines", prepare)


def _limits_hit(strangers: Iterator[str]) -> Subject:
    from limits import RateLimitItemPerDay
    from limits.storage import MemoryStorage
    from limits.strategies import FixedWindowRateLimiter

    hit = FixedWindowRateLimiter(MemoryStorage()).hit
    item, known = RateLimitItemPerDay(1_000_000_000), cycle(list(islice(strangers, KNOWN)))

    def prepare(calls: int) -> Callable[[], object]:
        some = list(islice(known, calls))

        def work() -> None:
            for to in some:
                hit(item, to)

        return work

    return Subject("limits fixed-window hit", prepare, most=500)


# Who and from where


def _numbers() -> Iterator[str]:
    """Recipients, each once."""
    areas = (212, 312, 415, 503, 617, 702, 808, 917)
    return (f"+1{areas[i % 8]}{2_000_000 + i // 8}" for i in count())


def _line_numbers(n: int) -> Sequence[str]:
    return [f"+1646{2_000_000 + 7 * i}" for i in range(n)]


def _lines(n: int) -> list[Line]:
    return [Line(number) for number in _line_numbers(n)]


def _make_known(router: Router, n: int, strangers: Iterator[str]) -> Iterator[str]:
    """Recipients spread over the lines, again and again."""
    pairs = list(zip(islice(strangers, KNOWN), cycle(_line_numbers(n)), strict=False))
    router.assign_many(pairs)
    return cycle([to for to, _ in pairs])
