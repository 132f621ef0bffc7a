"""What became of a line's messages: a rolling week of counts, the latest outcomes, and what follows from them.

Counts are kept by name in buckets of 6 hours, aligned to the epoch; the oldest counts whole, so a count leaves the week 7 days
after the end of its bucket. Names: those in `NAMES`, and `failed(code)`. Only what the line may be blamed for is a failure
here: codes that blame the recipient, rate limits and refusals of our own are not added.

Whoever adds sees to it that nothing is added twice. A receipt that corrects an earlier failure takes that failure away, by
the moment it was added with, and adds the delivery.
"""

from __future__ import annotations

import math
import struct
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Final

import attrs

from linepicker._bytes import BROKEN, FORMAT, LITTLE, Reader, damaged, format_of, swapped
from linepicker._windows import first_within

BUCKET: Final = 21600
"""Counts are kept in buckets of this many seconds."""
BUCKETS: Final = 7 * 86400 // BUCKET + 1
"""The buckets of a week: the oldest counts whole."""
LATEST: Final = 100
"""How many of the latest outcomes are remembered one by one."""
CODES: Final = 12
"""How many codes of failures are told apart within a week (Linq's `message.failed` knows 7); the rest have none."""

NAMES: Final = ("delivered", "read", "answered", "opted_out")
"""What is counted besides failures. `answered`: conversations in which the person wrote, once each and at the moment they were
opened. What left, and how many conversations were opened, a line's spending knows."""

STEP: Final = 20
"""Vitality is in steps of 1/20, so that a line's standing is seldom rewritten."""
WEAKEST: Final = 0.1
"""The lowest vitality: a line that is never chosen can't prove itself."""

_MOST: Final = 2**31 - 1
_TALLY: Final = struct.Struct("<BqHH")
_FAILURE: Final = "failed:"
_OK: Final = b"\1"
_FAILED: Final = b"\0"


def failed(code: int | None) -> str:
    """The name under which failures with the provider's *code* count."""
    return _FAILURE if code is None else f"{_FAILURE}{code}"


def _no_counts() -> array[int]:
    return array("i")


def _no_times() -> array[float]:
    return array("d")


def _within(value: int) -> int:
    return max(-_MOST, min(_MOST, value))


@attrs.define
class Tally:
    """The outcomes of one line.

    `cells` holds a row of `BUCKETS` counts for each of `names`, oldest first; the last one is that of the bucket `newest`. A
    correction may come before what it corrects, so a count may be below 0 for a while. `times` and `oks` run in parallel,
    sorted by time: when each of the latest outcomes was, and a byte that is 1 for a delivery, 0 for a failure.
    """

    names: tuple[str, ...] = ()
    cells: array[int] = attrs.field(factory=_no_counts)
    newest: int = 0
    times: array[float] = attrs.field(factory=_no_times)
    oks: bytes = b""
    format: int = FORMAT
    rest: bytes = b""

    def encode(self) -> bytes:
        """Its bytes: at most about 3.5 KB with the names of this version."""
        names, times, cells = " ".join(self.names).encode(), self.times, self.cells
        numbers = _TALLY.pack(self.format, self.newest, len(names), len(times))
        lists = times.tobytes() + cells.tobytes() if LITTLE else swapped(times) + swapped(cells)
        return numbers + names + lists + self.oks + self.rest

    @classmethod
    def decode(cls, raw: bytes) -> Tally:
        """From its bytes. Raises StoreError for what is damaged or too new."""
        number = format_of(raw, "tally")
        try:
            reader = Reader(raw)
            _, newest, size, outcomes = reader.unpack(_TALLY)
            names = tuple(reader.take(size).decode("ascii").split())
            times = reader.array("d", outcomes)
            cells = reader.array("i", len(names) * BUCKETS)
            oks = reader.take(outcomes)
            if len(set(names)) != len(names) or not all(map(math.isfinite, times)):
                raise ValueError("impossible values")
            return cls(names, cells, newest, times, oks, number, reader.rest())
        except BROKEN as error:
            raise damaged("tally", error) from error

    @property
    def streak(self) -> int:
        """How many of the latest outcomes failed in a row."""
        return _streak(self.oks)

    def at(self, now: float) -> Tally:
        """A copy as it stands at *now*, to be changed by the function that makes it and nobody else.

        What is older than the week is gone; what is later than *now*, as after a clock stepped back, is brought to now.
        """
        bucket = int(now // BUCKET)
        names, cells = self.names, self.cells[:]
        if bucket != self.newest:
            rows = {name: _moved(row, bucket - self.newest) for name, row in _rows(self)}
            names = tuple(name for name, row in rows.items() if any(row))
            cells = _no_counts()
            for name in names:
                cells += rows[name]
        start, end = bisect_left(self.times, _opens(bucket)), bisect_right(self.times, now)
        times = self.times[start:end]
        times.extend([now] * (len(self.times) - max(start, end)))
        return Tally(names, cells, bucket, times, self.oks[start:], self.format, self.rest)

    def add(
        self, name: str, at: float, now: float, count: int = 1, *, outcome: bool = True
    ) -> Tally:
        """With *count* more of *name* at the moment *at*, or fewer if below 0, at the moment *at* they were added with.

        A moment later than *now* is brought to now; one older than the week changes nothing. "delivered" and failures
        are outcomes; of these the latest are remembered, unless *outcome* is false: where deliveries are never told, failures
        alone prove nothing. To take one away removes the last of its kind not later than *at*.
        """
        tally, moment = self.at(now), min(at, now)
        column = int(moment // BUCKET) - tally.newest + BUCKETS - 1
        if column < 0:
            return tally
        failure = name.startswith(_FAILURE)
        if name not in tally.names:
            if failure and sum(each.startswith(_FAILURE) for each in tally.names) >= CODES:
                name = _FAILURE
            if name not in tally.names:
                tally.names += (name,)
                tally.cells.extend([0] * BUCKETS)
        cell = tally.names.index(name) * BUCKETS + column
        tally.cells[cell] = _within(tally.cells[cell] + count)
        if outcome and (failure or name == "delivered"):
            _remember(tally, moment, _FAILED if failure else _OK, count)
        return tally


def _remember(tally: Tally, at: float, ok: bytes, count: int) -> None:
    times, oks = tally.times, tally.oks
    place = bisect_right(times, at)
    if count > 0:
        more = min(count, LATEST)
        times[place:place] = array("d", (at,)) * more
        oks = oks[:place] + ok * more + oks[place:]
    for _ in range(-count):
        place = oks.rfind(ok, 0, place)
        if place < 0:
            break
        del times[place]
        oks = oks[:place] + oks[place + 1 :]
    tally.times, tally.oks = times[-LATEST:], oks[-LATEST:]


def _opens(bucket: int) -> float:
    """When the week begins whose newest bucket this is."""
    return (bucket - BUCKETS + 1) * BUCKET


def _rows(tally: Tally) -> list[tuple[str, array[int]]]:
    cells = tally.cells
    return [(name, cells[i * BUCKETS : (i + 1) * BUCKETS]) for i, name in enumerate(tally.names)]


def _moved(row: array[int], buckets: int) -> array[int]:
    """The row as it stands so many buckets later, or earlier if below 0."""
    if buckets > 0:
        return row[buckets:] + array("i", [0]) * min(buckets, BUCKETS)
    kept = max(0, BUCKETS - 1 + buckets)
    gap, late = array("i", [0]) * (BUCKETS - 1 - kept), array("i", [_within(sum(row[kept:]))])
    return gap + row[:kept] + late


def _streak(oks: bytes) -> int:
    return len(oks) - len(oks.rstrip(_FAILED))


# What follows


def counts(tally: Tally, now: float) -> Mapping[str, int]:
    """How many of each name the 7 days up to *now* hold, those with any."""
    totals = {name: sum(row) for name, row in _rows(tally.at(now))}
    return {name: total for name, total in totals.items() if total > 0}


def _failures(seen: Mapping[str, int]) -> int:
    return sum(count for name, count in seen.items() if name.startswith(_FAILURE))


def _reply_rate(seen: Mapping[str, int], sample: int) -> float | None:
    opened = seen.get("opened", 0)
    return None if opened < max(1, sample) else min(1.0, seen.get("answered", 0) / opened)


def tripped(
    tally: Tally,
    now: float,
    *,
    streak: int,
    share: float,
    sample: int,
    window: float,
    since: float = -math.inf,
) -> str | None:
    """Why the line should take a time out, None if it need not.

    Of the last *window* seconds, and of the latest `LATEST` outcomes in them, "streak": the last *streak* ones all failed;
    "share": there were *sample* or more, and this share of them or more failed. Outcomes up to *since*, such as those that
    the last time out was for, are left out.
    """
    times = tally.times
    recent = tally.oks[max(first_within(times, now, window), bisect_right(times, since)) :]
    if _streak(recent) >= streak:
        return "streak"
    if len(recent) >= sample and recent.count(_FAILED) / len(recent) >= share:
        return "share"
    return None


def time_out(trips: int, *, first: float, growth: float, longest: float, salt: str) -> float:
    """How many seconds a line is out after its *trips*-th trip in a row: from 0.9 × *first* to *longest*.

    *first* times *growth* for each trip after the first, up to *longest*; then 10 % more or less, but never above
    *longest*, by a hash of *salt* (the line's number) and *trips*: always the same, and lines don't come back in step.
    """
    further = max(0, trips - 1)
    capped = further * math.log(growth) >= math.log(longest / first)
    base = longest if capped else first * growth**further
    low, high = 0.9 * base, min(1.1 * base, longest)
    drawn = int.from_bytes(blake2b(f"{salt} {trips}".encode(), digest_size=4).digest())
    return low + (high - low) * drawn / 2**32


def vitality(
    seen: Mapping[str, int], *, reply_rate: float, sample: int, calm: float = 1.0
) -> float:
    """How well a line does, from 0.1 to 1.0 in steps of 0.05, by what was *seen* of it in 7 days: the product of three terms,
    two of them 1 until *sample* was seen.

    Replies: the share of conversations answered over twice *reply_rate*, at most 1; so 0.5 where trouble begins. Receipts:
    the share of messages that did not fail. *calm*: how far it is from the causes of AT_RISK. More replies never lower it,
    more failures never raise it.
    """
    rate, failures = _reply_rate(seen, sample), _failures(seen)
    told = max(failures + seen.get("delivered", 0), seen.get("sent", 0))  # SMS and groups owe none
    replies = 1.0 if rate is None or not reply_rate else min(1.0, rate / (2 * reply_rate))
    receipts = 1.0 if told < max(1, sample) else 1.0 - failures / told
    return max(WEAKEST, round(STEP * replies * receipts * calm) / STEP)


def week(seen: Mapping[str, int], *, sample: int) -> str:
    """A line's 7 days in one sentence; empty where nothing was seen."""
    rate, failures = _reply_rate(seen, sample), _failures(seen)
    codes = ", ".join(
        f"{name.partition(':')[2] or 'no code'}: {count}"
        for name, count in sorted(seen.items(), key=lambda each: (-each[1], each[0]))
        if name.startswith(_FAILURE)
    )
    answered = "answered" if rate is None else f"answered ({100 * rate:.0f} %)"
    parts = (
        (seen.get("sent", 0), "sent"),
        (seen.get("delivered", 0), "delivered"),
        (seen.get("read", 0), "read"),
        (failures, f"failed ({codes})"),
        (seen.get("opened", 0), _plural(seen.get("opened", 0), "conversation") + " opened"),
        (seen.get("answered", 0), answered),
        (seen.get("opted_out", 0), _plural(seen.get("opted_out", 0), "opt-out")),
        (seen.get("shadow", 0), "that a rule in shadow mode would have held"),
    )
    told = ", ".join(f"{count} {what}" for count, what in parts if count)
    return f"7 days: {told}." if told else ""


def troubles(
    seen: Mapping[str, int], streak: int, vitality: float, *, reply_rate: float, sample: int
) -> Iterator[str]:
    """A sentence for each thing that speaks against a line of this *vitality*."""
    rate = _reply_rate(seen, sample)
    if rate is not None and rate < reply_rate:
        yield (
            f"{100 * rate:.0f} % of {seen['opened']} conversations answered: under {100 * reply_rate:g} % is trouble."
        )
    if streak > 1:
        yield f"The last {streak} outcomes all failed."
    if vitality < 1:
        yield f"Vitality {vitality:g}: new conversations rather go to other lines."


def _plural(count: int, noun: str) -> str:
    return noun if count == 1 else f"{noun}s"
