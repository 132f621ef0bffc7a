"""The races of `check_store`: what a store must do for several callers at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import attrs

from linepicker.stores import Write
from linepicker.testing._store_verbs import Flow, Swap, apply, put, read, scan

__all__ = ["RACERS", "RACES"]

RACERS: Final = 8


@attrs.frozen
class Race:
    """`start`, then `run` of each number below `RACERS`, all at once, then `end` with what they returned."""

    start: Callable[[], Flow[object]]
    run: Callable[[int], Flow[Any]]
    end: Callable[[list[Any]], Flow[object]]


def _change(change: Callable[[dict[str, int]], None], *keys: str) -> Flow[dict[str, int]]:
    """Apply *change* to the numbers at *keys*, however often others come first; the versions written."""
    held = dict((yield from read(*keys)))
    for _ in range(10_000):
        numbers = {key: int(each.value or b"0") for key, each in held.items()}
        change(numbers)
        writes = [Write(key, held[key].version, b"%d" % numbers[key]) for key in keys]
        answer = yield Swap(writes, {})
        if answer.applied:
            return {key: answer.records[key].version for key in keys}
        assert answer.records, "a refused swap must bring what moved"
        held |= answer.records
    raise AssertionError("of racing swaps one must be applied each time")


def _increment(numbers: dict[str, int]) -> None:
    numbers["count"] += 1


def _count(racer: int) -> Flow[list[int]]:
    versions: list[int] = []
    for _ in range(25):
        written = yield from _change(_increment, "count")
        versions.append(written["count"])
    return versions


def _counted(versions: list[list[int]]) -> Flow[None]:
    flat = [version for each in versions for version in each]
    count = (yield from read("count"))["count"].value
    assert count == b"%d" % len(flat), (
        f"no update may be lost: {len(flat)} were applied, {count!r} are there"
    )
    assert len(set(flat)) == len(flat), "no two writes may have the same version"
    assert all(each == sorted(each) for each in versions), (
        "a later write must have a larger version"
    )


def _move_one(numbers: dict[str, int]) -> None:
    numbers["from"] -= 1
    numbers["to"] += 1


def _transfer(racer: int) -> Flow[None]:
    for _ in range(20):
        if racer % 2:
            yield from _change(_move_one, "from", "to")
        found = yield from read("from", "to")
        total = sum(int(each.value or b"0") for each in found.values())
        assert total == 1000, (
            f"read must show all of a swap or nothing of it, as of one moment: {found}"
        )


def _transferred(results: list[None]) -> Flow[None]:
    found = yield from read("from", "to")
    moved = 20 * (RACERS // 2)
    assert [each.value for each in found.values()] == [b"%d" % (1000 - moved), b"%d" % moved], (
        f"no update may be lost: {moved} were applied, {found}"
    )


def _create(racer: int) -> Flow[list[int]]:
    won = []
    for n in range(10):
        answer = yield Swap([Write(f"new:{n}", 0, b"%d" % racer)], {})
        if answer.applied:
            won.append(n)
    return won


def _created(won: list[list[int]]) -> Flow[None]:
    found = yield from scan("new:")
    winners = {f"new:{n}": b"%d" % racer for racer, each in enumerate(won) for n in each}
    assert sum(map(len, won)) == 10, "of racing creations exactly one must be applied"
    assert {key: each.value for key, each in found.items()} == winners, (
        "the winner's value must stay"
    )


def _scan_or_write(racer: int) -> Flow[None]:
    for n in range(4):
        if racer % 2:
            key = f"steady:{n * 100}:{racer}"
            versions = yield from apply(Write(key, 0, b""))
            yield from apply(Write(key, versions[key], None))
        else:
            found = yield from scan("steady:")
            assert {f"steady:{n}" for n in range(1200)} <= set(found), (
                "scan must yield what is there from beginning to end"
            )


RACES: Final = (
    Race(lambda: read("count"), _count, _counted),
    Race(lambda: put({"from": b"1000", "to": b"0"}), _transfer, _transferred),
    Race(read, _create, _created),
    Race(
        lambda: put({f"steady:{n}": b"" for n in range(1200)}),
        _scan_or_write,
        lambda _: read(),
    ),
)
