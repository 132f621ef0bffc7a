"""What is asked of a store while it is tested, and what holds of every answer."""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping, Sequence
from reprlib import repr as short
from typing import Any, TypeAlias, TypeVar

import attrs

from linepicker.stores import SAME, Record, Write

__all__ = [
    "Call",
    "Close",
    "Flow",
    "Read",
    "Scan",
    "Swap",
    "apply",
    "put",
    "read",
    "refuse",
    "scan",
]


@attrs.frozen
class Read:
    """`Store.read`."""

    keys: Collection[str]


@attrs.frozen
class Swap:
    """`Store.swap`."""

    writes: Sequence[Write]
    seen: Mapping[str, int]


@attrs.frozen
class Scan:
    """`Store.scan`, all at once."""

    prefix: str


@attrs.frozen
class Close:
    """`Store.close`."""


_T = TypeVar("_T")
Call: TypeAlias = Read | Swap | Scan | Close
Flow: TypeAlias = Generator[Call, Any, _T]
"""Yields calls, is sent their answers (or thrown their `StoreError`), and returns something."""


def read(*keys: str) -> Flow[Mapping[str, Record]]:
    """The records at *keys*."""
    answer = yield Read(keys)
    assert set(answer.records) == set(keys), (
        f"read must answer for each key asked for and no other: asked {short(keys)}, got {short(set(answer.records))}"
    )
    assert answer.now is None or answer.now > 0, f"now must be a moment or None, got {answer.now!r}"
    for key, (version, value) in answer.records.items():
        assert (version == 0) == (value is None), (
            f"an absent record has version 0 and value None, a present one neither: {key!r} is at {version}"
        )
    return answer.records  # type: ignore[no-any-return]  # what a generator is sent has no type


def apply(*writes: Write, seen: Mapping[str, int] = {}) -> Flow[dict[str, int]]:
    """A swap that must be applied; the versions of the keys it changed."""
    answer = yield Swap(writes, seen)
    assert answer.applied, (
        f"a swap whose versions all hold must be applied: {short(writes)} was refused with {short(answer.records)}"
    )
    changed = {each.key: each for each in writes if each.value is not SAME}
    same = {each.key: each.version for each in writes if each.value is SAME}
    given = set(answer.records)
    assert set(changed) <= given <= set(changed) | set(same), (
        f"an applied swap must answer with the keys it wrote: wrote {short(set(changed))}, got {short(given)}"
    )
    for key, record in answer.records.items():
        if key in same:
            assert record.version == same[key], f"SAME must keep the version of {key!r}"
        else:
            assert (record.version == 0) == (changed[key].value is None), (
                f"a written key has a version, a deleted one version 0: {key!r} got {record.version}"
            )
    return {key: answer.records[key].version for key in changed}


def refuse(*writes: Write, seen: Mapping[str, int] = {}, moved: Mapping[str, Record]) -> Flow[None]:
    """A swap that must be refused, bringing exactly *moved*."""
    answer = yield Swap(writes, seen)
    assert not answer.applied, f"a swap must be refused where a version differs: {short(writes)}"
    assert dict(answer.records) == dict(moved), (
        "a refused swap must bring each key written or seen whose version differs, as it is, and no other: "
        f"expected {short(moved)}, got {short(dict(answer.records))}"
    )


def scan(prefix: str) -> Flow[dict[str, Record]]:
    """The records whose key starts with *prefix*."""
    found = yield Scan(prefix)
    records = dict(found)
    assert len(records) == len(found), f"scan({prefix!r}) must yield a key once"
    strays = [key for key in records if not key.startswith(prefix)]
    assert not strays, (
        f"scan({prefix!r}) must yield keys with that prefix only, got {short(strays)}"
    )
    return records


def put(records: Mapping[str, bytes]) -> Flow[dict[str, Record]]:
    """New records under absent keys, and as they must read."""
    versions = yield from apply(*(Write(key, 0, value) for key, value in records.items()))
    put = {key: Record(versions[key], value) for key, value in records.items()}
    assert (yield from read(*records)) == put, f"what was written must be read: {short(records)}"
    return put
