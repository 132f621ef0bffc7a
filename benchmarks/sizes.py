"""What many assignments take: bytes each in every store, and whether somebody is found as fast among many as among few.

Assignments are imported with `assign_many`. A *known* recipient is one that the router that is asked has not met: it tries
a new conversation, learns whose they are, and reserves there, in two round trips. Each timing has a router of its own.
Bytes are those of SQLite's file, of PostgreSQL's table with its index, and of Valkey's memory, over what it was without them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import attrs

from benchmarks.measure import Goal, Subject
from benchmarks.pick import ROOMY
from benchmarks.stores import lines, people, servers, within
from linepicker import Router

LINES = 12


@attrs.frozen
class Scale:
    """How much is measured: rounds, seconds per timing, and how many assignments are few and many."""

    repeats: int = 9
    seconds: float = 0.2
    few: int = 2000
    many: int = 2_000_000

    def words(self) -> Sequence[str]:
        """How it was measured."""
        return (f"rounds: {self.repeats}, each timing about {self.seconds * 1000:g} ms",)


QUICK = Scale(repeats=5, seconds=0.1, many=200_000)
TINY = Scale(repeats=2, seconds=0.001, few=50, many=200)


def subjects(
    scale: Scale, house: ExitStack, say: Callable[[str], None]
) -> tuple[list[Subject], dict[str, float]]:
    """Everything to time, and the bytes that an assignment takes."""
    found: list[Subject] = []
    sizes: dict[str, float] = {}
    for name, url in servers(house).items():
        for size in (scale.few, scale.many):
            say(f"assigning {size:,} on {name}")
            place = within(url, f"n{size}")
            if name == "SQLite":
                place = f"{url}.{size}"
            before = _size(name, place)
            with Router(lines(LINES), policy=ROOMY, store=place) as router:
                numbers = cycle([line.number for line in lines(LINES)])
                router.assign_many(zip(islice(people(), size), numbers, strict=False))
            sizes[f"{name}, an assignment among {size:,}"] = (_size(name, place) - before) / size
            found.append(known(f"{name}: known, of {size:,}", place, size, house))
    return found, sizes


def goals(scale: Scale) -> list[Goal]:
    """What is compared with what, and what is wanted of it."""
    return [
        Goal(
            f"{name}: known, of {scale.many:,} / of {scale.few:,}",
            f"{name}: known, of {scale.many:,}",
            f"{name}: known, of {scale.few:,}",
            1.5,
        )
        for name in ("SQLite", "Valkey", "PostgreSQL")
    ]


def known(name: str, url: str, size: int, house: ExitStack) -> Subject:
    """A reservation for one of the first *size* people, by a router that has not met them."""
    dice, first = random.Random(0), int(next(people())[1:])

    def prepare(calls: int) -> Callable[[], object]:
        router = house.enter_context(Router(lines(LINES), policy=ROOMY, store=url))
        router.lines()
        some = [f"+{first + place}" for place in dice.sample(range(size), calls)]
        reserve = router.reserve
        return lambda: [reserve(to) for to in some]

    return Subject(name, prepare, most=min(500, size // 2))


def _size(name: str, url: str) -> int:
    if name == "SQLite":
        file = Path(url.removeprefix("sqlite:///"))
        return file.stat().st_size if file.exists() else 0
    if name == "Valkey":
        import redis

        socket = url.partition("://")[2].partition("?")[0]
        with redis.Redis(unix_socket_path=socket, protocol=2) as client:
            memory: Any = client.info("memory")
            return int(memory["used_memory"])
    import psycopg

    plain = "&".join(each for each in url.split("&") if not each.startswith("namespace="))
    with psycopg.connect(plain, autocommit=True) as db:
        found = db.execute("SELECT to_regclass('linepicker.record')").fetchone()
        if found == (None,):
            return 0
        row = db.execute("SELECT pg_total_relation_size('linepicker.record')").fetchone()
        assert row is not None
        return int(row[0])
