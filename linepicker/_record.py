"""What is remembered of a line, its bytes, and the keys of all records.

A line's *standing* is what was observed and decided of it, its *spending* what left on it. Records are never changed, only
replaced.
"""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Mapping
from typing import Any, Final

import attrs

from linepicker._bytes import (
    BROKEN,
    FORMAT,
    LITTLE,
    Reader,
    damaged,
    dump,
    format_of,
    load,
    number,
    swapped,
)
from linepicker._learned import NOTHING, Learned
from linepicker._observations import Observations

EPOCH: Final = "epoch"


def standing_key(number: str) -> str:
    """The key of a line's standing."""
    return f"line/{number}/standing"


def spending_key(number: str) -> str:
    """The key of a line's spending."""
    return f"line/{number}/spending"


def contact_key(pool: str, recipient: str) -> str:
    """The key of a recipient's contact in a pool."""
    return f"to/{pool}/{recipient}"


def block_key(handle: str) -> str:
    """The key of a handle's block."""
    return f"block/{handle}"


def fleet_key(pool: str) -> str:
    """The key of a pool's fleet."""
    return f"fleet/{pool}"


def ticket_key(pool: str, key: str) -> str:
    """The key of a caller's key."""
    return f"key/{pool}/{key}"


def message_key(message_id: str) -> str:
    """The key of what is known of a message by the provider's id."""
    return f"message/{message_id}"


def chat_key(chat_id: str) -> str:
    """The key of whose a conversation is, by the provider's id."""
    return f"chat/{chat_id}"


def tally_key(number: str) -> str:
    """The key of a line's tally."""
    return f"line/{number}/tally"


def event_key(event_id: str) -> str:
    """The key of an event that was counted."""
    return f"event/{event_id}"


# A line's standing


@attrs.frozen
class Standing:
    """What was observed and decided of a line. JSON; written when something changed.

    `warm`: it was there when its pool was first seen. `released`: when the provider took it away. `out_until`: when a
    refusal ends, heard of at `refused_at`; with `probation` one unsettled reservation at a time follows until one is SENT.
    `failing_until`: when the time out ends that failed messages earned it, 0 if there is none; one message at a time follows
    until one is delivered, `probed_at` being when the first of them was SENT. `trips` counts such time outs in a row, the last
    at `tripped_at`, for `tripped_for`. `vitality`: what its outcomes came to at `weighed_at`. `operator`: "paused", "draining"
    or "", with the reason given. `past`: (since when, name) of what its reputation and status came to, oldest first: for
    people, nothing is decided by it.
    """

    first_seen: float = 0.0
    warm: bool = False
    reputation: Observations = Observations()
    status: Observations = Observations()
    released: float | None = None
    out_until: float = 0.0
    refused_at: float = 0.0
    probation: bool = False
    operator: str = ""
    reason: str = ""
    failing_until: float = 0.0
    probed_at: float = 0.0
    trips: int = 0
    tripped_at: float = 0.0
    tripped_for: str = ""
    vitality: float = 1.0
    weighed_at: float = 0.0
    learned: Learned = NOTHING
    past: tuple[tuple[float, str], ...] = ()
    format: int = FORMAT
    rest: Mapping[str, Any] = attrs.field(factory=dict, repr=False)

    def encode(self) -> bytes:
        """Its bytes."""
        known = {
            "first_seen": self.first_seen,
            "warm": self.warm,
            "reputation": self.reputation.to_json(),
            "status": self.status.to_json(),
            "released": self.released,
            "out_until": self.out_until,
            "probation": self.probation,
            "operator": self.operator,
            "reason": self.reason,
            "failing_until": self.failing_until,
            "probed_at": self.probed_at,
            "trips": self.trips,
            "tripped_at": self.tripped_at,
            "tripped_for": self.tripped_for,
            "vitality": self.vitality,
            "weighed_at": self.weighed_at,
            "past": self.past,
        }
        learned = self.learned.to_json()
        if learned:
            known["learned"] = learned
        if self.refused_at:
            known["refused_at"] = self.refused_at
        return bytes([self.format]) + dump({**self.rest, **known})

    @classmethod
    def decode(cls, raw: bytes) -> Standing:
        """From its bytes. Raises StoreError for what is damaged or too new."""
        format_number = format_of(raw, "standing")
        try:
            value = load(raw[1:])
            released = value.pop("released")
            return cls(
                first_seen=number(value.pop("first_seen")),
                warm=bool(value.pop("warm")),
                reputation=Observations.from_json(value.pop("reputation")),
                status=Observations.from_json(value.pop("status")),
                released=None if released is None else number(released),
                out_until=number(value.pop("out_until")),
                refused_at=number(value.pop("refused_at", 0.0)),
                probation=bool(value.pop("probation")),
                operator=str(value.pop("operator")),
                reason=str(value.pop("reason")),
                failing_until=number(value.pop("failing_until")),
                probed_at=number(value.pop("probed_at")),
                trips=int(value.pop("trips")),
                tripped_at=number(value.pop("tripped_at")),
                tripped_for=str(value.pop("tripped_for")),
                vitality=number(value.pop("vitality")),
                weighed_at=number(value.pop("weighed_at")),
                learned=Learned.from_json(value.pop("learned", {})),
                past=tuple((number(at), str(name)) for at, name in value.pop("past", ())),
                format=format_number,
                rest=value,
            )
        except BROKEN as error:
            raise damaged("standing", error) from error


# A line's spending

_SPENDING: Final = struct.Struct("<BIdIddddIdIII")


def _no_times() -> array[float]:
    return array("d")


def _no_numbers() -> array[int]:
    return array("I")


def _no_buckets() -> array[int]:
    return array("i")


@attrs.define
class Spending:
    """What left on a line: exact times of new conversations, messages in buckets, pace, sending days.

    `times`, `ids`, `moved` run in parallel, sorted by time: when a new conversation's message leaves, 32 bits of its
    reservation's id, and whether it is a move. `buckets` holds pairs: number of the bucket, messages in it. `week` holds rows
    of four: number of the 6 h, messages, new conversations, and messages that a rule in shadow mode would have held.
    `day` counts the sending days begun, the last one at `day_start`; `ramp_day` is the first of them after the return
    from the CRITICAL seen at `ramp_for`. `new_mark` and `message_mark` are GCRA's theoretical arrival times, `reach` how far
    ahead of the clock they were ever let go. `probe` is the unsettled reservation of a line on probation.
    """

    times: array[float] = attrs.field(factory=_no_times)
    ids: array[int] = attrs.field(factory=_no_numbers)
    moved: bytes = b""
    buckets: array[int] = attrs.field(factory=_no_buckets)
    messages: int = 0
    week: array[int] = attrs.field(factory=_no_buckets)
    day: int = 0
    day_start: float = 0.0
    ramp_day: int = 0
    ramp_for: float = 0.0
    new_mark: float = 0.0
    message_mark: float = 0.0
    reach: float = 0.0
    probe: int = 0
    probe_at: float = 0.0
    format: int = FORMAT
    rest: bytes = b""

    def encode(self) -> bytes:
        """Its bytes."""
        times, ids, buckets, week = self.times, self.ids, self.buckets, self.week
        numbers = _SPENDING.pack(
            self.format,
            self.day,
            self.day_start,
            self.ramp_day,
            self.ramp_for,
            self.new_mark,
            self.message_mark,
            self.reach,
            self.probe,
            self.probe_at,
            len(times),
            len(buckets),
            len(week),
        )
        if LITTLE:
            counts = buckets.tobytes() + week.tobytes()
            lists = times.tobytes() + ids.tobytes() + self.moved + counts
        else:
            counts = swapped(buckets) + swapped(week)
            lists = swapped(times) + swapped(ids) + self.moved + counts
        return numbers + lists + self.rest

    @classmethod
    def decode(cls, raw: bytes) -> Spending:
        """From its bytes. Raises StoreError for what is damaged or too new."""
        format_number = format_of(raw, "spending")
        try:
            reader = Reader(raw)
            values = reader.unpack(_SPENDING)
            charges, buckets, rows = values[-3:]
            times, ids = reader.array("d", charges), reader.array("I", charges)
            moved, pairs = reader.take(charges), reader.array("i", buckets)
            week = reader.array("i", rows)
            if not all(map(math.isfinite, (*times, *values))) or buckets % 2 or rows % 4:
                raise ValueError("impossible numbers")
            (
                _,
                day,
                day_start,
                ramp_day,
                ramp_for,
                new_mark,
                message_mark,
                reach,
                probe,
                probe_at,
            ) = values[:-3]
            return cls(
                times,
                ids,
                moved,
                pairs,
                sum(pairs[1::2]),
                week,
                day,
                day_start,
                ramp_day,
                ramp_for,
                new_mark,
                message_mark,
                reach,
                probe,
                probe_at,
                format_number,
                reader.rest(),
            )
        except BROKEN as error:
            raise damaged("spending", error) from error

    def copy(self) -> Spending:
        """A shallow copy, to be changed by the function that makes it and nobody else."""
        mine = object.__new__(Spending)  # and not by its constructor: at two thirds of the cost
        mine.times = self.times
        mine.ids = self.ids
        mine.moved = self.moved
        mine.buckets = self.buckets
        mine.messages = self.messages
        mine.week = self.week
        mine.day = self.day
        mine.day_start = self.day_start
        mine.ramp_day = self.ramp_day
        mine.ramp_for = self.ramp_for
        mine.new_mark = self.new_mark
        mine.message_mark = self.message_mark
        mine.reach = self.reach
        mine.probe = self.probe
        mine.probe_at = self.probe_at
        mine.format = self.format
        mine.rest = self.rest
        return mine
