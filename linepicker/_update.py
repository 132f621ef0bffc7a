"""Read, change, swap: how every record but a reservation's is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from linepicker._asks import ATTEMPTS, Dice, Flow, Read, Sleep, Swap, Who
from linepicker._decode import decode
from linepicker._record import EPOCH
from linepicker._small import Block, FleetRecord, Link, Ticket, encode_small
from linepicker.errors import StoreError
from linepicker.fleet import Fleet
from linepicker.stores import Answer, Write

MOVED: Final = b"moved "
"""What the epoch of a store begins with whose records were taken elsewhere: the old epoch and the new place follow."""


def moved_away(epoch: bytes) -> StoreError:
    """What is raised by a store that was moved."""
    place = epoch.decode(errors="replace").split(" ", 2)[-1]
    return StoreError(
        f"the store was moved: its records are at {place}. Start the router with that URL",
        answered=True,
    )


def absorb(
    fleet: Fleet, answer: Answer, who: Who | None = None, refused: Sequence[Write] = ()
) -> None:
    """Take in what a store answered, as it *refused* these writes or otherwise. Raises StoreError if it is another store than
    before."""
    epoch = answer.records.get(EPOCH)
    if epoch is not None and epoch.version != fleet.same.version:
        if (epoch.value or b"").startswith(MOVED):
            raise moved_away(epoch.value or b"")
        raise StoreError(
            "the store is not the one this router began with: it was wiped, restored or replaced. "
            "Bring the old store back, or start anew with a new router",
            answered=True,
        )
    fleet.learn(answer.records, {write.key: write.version for write in refused})
    if who is not None:
        who.learn(answer.records)


def update(
    fleet: Fleet,
    keys: Sequence[str],
    change: Callable[[Mapping[str, Any]], Mapping[str, Any] | None],
    *,
    who: Who | None = None,
    expires: Mapping[str, float] = {},
) -> Flow[bool]:
    """Give the records at *keys* the values that *change* makes of them, all or none. False: it changed nothing.

    *who*: the recipient whose records are among them. *change* is a pure function of the decoded records (None where there
    is none); it is asked anew when somebody else wrote meanwhile. Raises StoreError after too many such races, and whatever
    *change* raises.
    """
    for attempt in range(ATTEMPTS):
        if attempt > 1:
            dice: float = yield Dice()
            yield Sleep(0.01 * dice)
        answer: Answer = yield Read([*keys, EPOCH])
        absorb(fleet, answer, who)
        found = answer.records
        was = {key: decode(key, found[key]) for key in keys}
        after = change(was)
        if after is None:
            return False
        writes = [
            Write(key, found[key].version, encoded(value), expires.get(key))
            for key, value in after.items()
            if value != was[key]
        ]
        if not writes:
            return False
        answer = yield Swap([*writes, fleet.same], {})
        if answer.applied:
            for key, _, value, _ in writes:
                version = 0 if value is None else answer.records[key].version
                fleet.wrote(key, version, after[key])
                if who is not None and key == who.contact_key:
                    who.contact_version, who.contact = version, after[key]
                elif who is not None and key == who.block_key:
                    who.blocked(version, after[key])
            return True
    raise busy()


def busy() -> StoreError:
    """What is raised when others always wrote in between."""
    return StoreError(
        f"{ATTEMPTS} attempts met other writers each time: the store is busier than this library is made for",
        answered=True,
    )


def encoded(record: Any) -> bytes | None:
    """The bytes of any record."""
    if record is None or isinstance(record, bytes):
        return record
    if isinstance(record, Block | FleetRecord | Link | Ticket):
        return encode_small(record)
    raw: bytes = record.encode()
    return raw
