"""A deployment's records from one store to another, while it runs; and to a file and back."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Final

from linepicker._decode import decode
from linepicker._links import CHATS_KEPT, MESSAGES_KEPT
from linepicker._record import EPOCH
from linepicker._update import MOVED
from linepicker._upkeep import EVENTS_KEPT
from linepicker._windows import DAY
from linepicker.cli.settings import CommandError
from linepicker.errors import StoreError
from linepicker.stores import Record, Store, Write

__all__ = ["copy", "dump", "load"]

BATCH: Final = 500

Item = tuple[str, Record]
Progress = Callable[[int], None]


def copy(source: Store, target: Store, place: str, now: float, progress: Progress) -> int:
    """Move a namespace's records into an empty store; how many there are at the end.

    Most are copied while the source is in use. Then the source is closed for good: its routers raise StoreError, which names
    *place*, the new store's address without a password. What was written meanwhile follows, and last the epoch, which opens
    the target: a router started there goes on as if nothing had happened. Ended early, it may be run again: what the target
    holds without an epoch is written anew. Raises CommandError where the target is in use; StoreError.
    """
    epoch = source.read([EPOCH]).records[EPOCH]
    if epoch.value is None:
        raise CommandError("there is nothing to copy: the source store is empty")
    if target.read([EPOCH]).records[EPOCH].value is not None:
        raise CommandError("the target store is in use: name an empty one, or another ?namespace=")
    copied: dict[str, int] = {}
    for batch in _batches(source.scan("")):
        _put(target, batch, now)
        copied.update((key, record.version) for key, record in batch if key != EPOCH)
        progress(len(copied))
    name = epoch.value
    if name.startswith(MOVED):  # an earlier run ended after this
        name = name.split(b" ")[1]
    else:
        _close(source, epoch, place)
    left = set(copied)
    for batch in _batches(source.scan("")):
        left.difference_update(key for key, _ in batch)
        _put(target, [each for each in batch if copied.get(each[0]) != each[1].version], now)
        copied.update((key, record.version) for key, record in batch if key != EPOCH)
        progress(len(copied))
    for keys in _batches(left):
        _put(target, [(key, Record(0, None)) for key in keys], now)
    if not target.swap([Write(EPOCH, 0, name)]).applied:
        raise CommandError("somebody else has begun to use the target store: give it another one")
    return len(copied) - len(left)


def _close(source: Store, epoch: Record, place: str) -> None:
    closed = Write(EPOCH, epoch.version, MOVED + epoch.value + b" " + place.encode())  # type: ignore[operator]  # not absent
    if not source.swap([closed]).applied:
        raise CommandError("somebody else is moving the source store")


def dump(store: Store) -> Iterator[str]:
    """A namespace's records, one JSON object a line, the epoch last. A running deployment's are of several moments: stop it
    first, or use `copy`."""
    epoch = store.read([EPOCH]).records[EPOCH]
    for key, record in store.scan(""):
        if key != EPOCH and record.value is not None:
            yield _line(key, record.value)
    if epoch.value is not None:
        yield _line(EPOCH, epoch.value)


def _line(key: str, value: bytes) -> str:
    return json.dumps({"key": key, "value": base64.b64encode(value).decode()})


def load(store: Store, lines: Iterable[str], now: float, progress: Progress) -> int:
    """Read what `dump` wrote into an empty store; how many records. Ended early, it may be run again. Raises CommandError
    naming the line that is no record."""
    if store.read([EPOCH]).records[EPOCH].value is not None:
        raise CommandError("the store is in use: name an empty one, or another ?namespace=")
    done, epoch = 0, None
    for batch in _batches(_items(lines)):
        epoch = next((record.value for key, record in batch if key == EPOCH), epoch)
        _put(store, batch, now)
        done += sum(key != EPOCH for key, _ in batch)
        progress(done)
    if epoch is None:
        raise CommandError("the file ends early: its last record, the epoch, is missing")
    if not store.swap([Write(EPOCH, 0, epoch)]).applied:
        raise CommandError("somebody else has begun to use the store: give it another one")
    return done


def _items(lines: Iterable[str]) -> Iterator[Item]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            found: Any = json.loads(line)
            key, record = (
                str(found["key"]),
                Record(1, base64.b64decode(found["value"], validate=True)),
            )
            decode(key, record)
        except (ValueError, KeyError, TypeError, RecursionError, StoreError):
            raise CommandError(f"line {number} of the file is not a record of linepicker") from None
        yield key, record


def _put(store: Store, items: Iterable[Item], now: float) -> None:
    """Give the store these records, whatever it holds; the epoch is left out."""
    wanted = {key: record.value for key, record in items if key != EPOCH}
    if not wanted:
        return
    held = store.read(list(wanted)).records
    writes = [
        Write(key, held[key].version, value, _expiry(key, value, now))
        for key, value in wanted.items()
        if value != held[key].value
    ]
    if writes and not store.swap(writes).applied:
        raise CommandError("somebody else writes to the target store: give it another one")


def _expiry(key: str, value: bytes | None, now: float) -> float | None:
    """When a record may be gone. A store does not tell, so it is what the record's kind says, at the latest."""
    if value is None:
        return None
    kind = key.partition("/")[0]
    if kind == "event":
        return now + EVENTS_KEPT
    found = decode(key, Record(1, value))
    if kind == "key":
        return float(found.made_at) + DAY
    if kind == "message":
        return float(found.at) + MESSAGES_KEPT
    if kind == "chat":
        return float(found.at) + CHATS_KEPT
    if kind == "block" and found.out is found.refused is None:
        return now + EVENTS_KEPT
    return None


def _batches(items: Iterable[Any]) -> Iterator[list[Any]]:
    source = iter(items)
    while batch := list(islice(source, BATCH)):
        yield batch
