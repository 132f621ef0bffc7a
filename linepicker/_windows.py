"""Rolling windows and pace over a line's spending: what counts at a moment, and when there is room again.

The functions that change a `Spending` change a copy its caller has just made.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import Final

from linepicker._record import Spending

HOUR: Final = 3600.0
SPREAD: Final = 6 * HOUR
DAY: Final = 24 * HOUR
WEEK: Final = 7 * DAY
BUCKET: Final = 300
"""Messages are counted in buckets of this many seconds; the oldest counts whole."""
ROWS: Final = 7 * 4 + 1
"""How many 6 h make a week, the oldest counted whole."""
SKEW: Final = 300.0
"""How far apart, in seconds, the clocks of a deployment's hosts may be."""
CHARGES_KEPT: Final = 1000
"""How many new conversations of the rolling day a line remembers where no limit asks for more."""


def first_within(times: array[float], now: float, window: float) -> int:
    """Where those of the sorted *times* begin that a window of that length still holds at *now*.

    A time t is gone at exactly t + window, whatever the rounding, so that waiting for that moment is enough.
    """
    start = bisect_right(times, now - window)
    while start < len(times) and times[start] + window <= now:
        start += 1
    while start and times[start - 1] + window > now:
        start -= 1
    return start


def messages_within(spending: Spending, now: float) -> int:
    """The messages of the rolling day at *now*."""
    total, buckets = spending.messages, spending.buckets
    edge = _oldest_bucket(now)
    for i in range(0, len(buckets), 2):
        if buckets[i] >= edge:
            break
        total -= buckets[i + 1]
    return total


def messages_reach(spending: Spending, now: float, limit: int) -> bool:
    """Whether the rolling day's messages are *limit* or more."""
    return spending.messages >= limit and messages_within(spending, now) >= limit


def room_for_messages_at(spending: Spending, now: float, limit: int) -> float:
    """When so many of the oldest messages have left the rolling day that one more fits into *limit*."""
    excess, buckets = messages_within(spending, now) - limit + 1, spending.buckets
    edge = _oldest_bucket(now)
    for i in range(0, len(buckets), 2):
        if buckets[i] >= edge:
            excess -= buckets[i + 1]
            if excess <= 0:
                return (buckets[i] + 1) * BUCKET + DAY
    return now


def _oldest_bucket(now: float) -> int:
    """A bucket counts until a day after its end."""
    return int((now - DAY) // BUCKET)


def add_message(spending: Spending, at: float, now: float, count: int = 1) -> None:
    """Count a message that leaves at *at* (or, with -1, give it back); forget buckets older than a day."""
    edge, bucket = int((now - DAY) // BUCKET), int(at // BUCKET)
    old, start = spending.buckets, 0
    while start < len(old) and old[start] < edge:
        start += 2
    kept = old[start:]
    if count > 0 and (not kept or kept[-2] <= bucket):  # nearly always
        if kept and kept[-2] == bucket:
            kept[-1] += count
        else:
            kept.append(bucket)
            kept.append(count)
        spending.buckets = kept
        spending.messages += count - (sum(old[1:start:2]) if start else 0)
        return
    place = len(kept)
    while place and kept[place - 2] > bucket:
        place -= 2
    if place and kept[place - 2] == bucket:
        kept[place - 1] = max(0, kept[place - 1] + count)
    elif count > 0:
        kept[place:place] = array("i", (bucket, count))
    spending.buckets = kept
    spending.messages = sum(kept[1::2])


def count_week(
    spending: Spending, at: float, *, messages: int, opened: int = 0, shadow: int = 0
) -> None:
    """Count in the rolling week; forget what is older. Below 0: take away what was counted at *at*."""
    row, week = int(at // SPREAD), spending.week[:]
    if week and week[-4] == row and messages > 0:  # nearly always
        week[-3] += messages
        week[-2] += opened
        week[-1] += shadow
        spending.week = week
        return
    place = len(week) - 4
    if place < 0 or week[place] != row:
        while place >= 0 and week[place] > row:
            place -= 4
        if place < 0 or week[place] != row:
            place += 4
            if messages <= 0:
                return
            week[place:place] = array("i", (row, 0, 0, 0))
    week[place + 1] = max(0, week[place + 1] + messages)
    week[place + 2] = max(0, week[place + 2] + opened)
    week[place + 3] = max(0, week[place + 3] + shadow)
    spending.week = week[-4 * ROWS :]


def count_leaving(spending: Spending, at: float, now: float, *, opened: bool, shadow: bool) -> None:
    """`add_message` and `count_week` for one message that leaves at *at*."""
    buckets, week = spending.buckets[:], spending.week[:]
    recent = buckets and buckets[-2] == at // BUCKET and buckets[0] >= (now - DAY) // BUCKET
    if recent and week and week[-4] == at // SPREAD:  # mostly: where the last one was counted too
        spending.buckets, spending.week = buckets, week
        buckets[-1] += 1
        spending.messages += 1
        week[-3] += 1
        if opened:
            week[-2] += 1
        if shadow:
            week[-1] += 1
        return
    add_message(spending, at, now)
    count_week(spending, at, messages=1, opened=opened, shadow=shadow)


def week_counts(spending: Spending, now: float) -> Mapping[str, int]:
    """What left within 7 days of *now*, the oldest 6 h counted whole."""
    oldest, week = int(now // SPREAD) - ROWS + 1, spending.week
    rows = [week[i + 1 : i + 4] for i in range(0, len(week), 4) if week[i] >= oldest]
    names = ("sent", "opened", "shadow")
    return {name: sum(row[i] for row in rows) for i, name in enumerate(names)}


def load(spending: Spending, at: float, now: float) -> float:
    """The conversations opened in the day up to *at*: by the counts of the rolling week, those of 6 h spread evenly, and no
    fewer than are remembered one by one."""
    total, week = 0.0, spending.week
    for i in range(0, len(week), 4):
        begins = week[i] * SPREAD
        ends = min(begins + SPREAD, max(now, begins + 1.0))
        within = min(ends, at) - max(begins, at - DAY)
        if within > 0:
            total += week[i + 2] * within / (ends - begins)
    times = spending.times
    return max(total, float(bisect_right(times, at) - first_within(times, at, DAY)))


def opened_in_week(spending: Spending, now: float) -> int:
    """The conversations opened in 7 days, the oldest 6 h counted whole."""
    oldest, week = int(now // SPREAD) - ROWS + 1, spending.week
    return sum(week[i + 2] for i in range(0, len(week), 4) if week[i] >= oldest)


def normal(spending: Spending, now: float) -> float:
    """The busiest day of the week before now, in conversations: of all four parts of a day in a row."""
    last, week = int(now // SPREAD), spending.week
    oldest, most, total, start = last - ROWS + 1, 0, 0, 0
    for i in range(0, len(week), 4):
        row = week[i]
        if row > last:
            break
        total += week[i + 2]
        while week[start] < oldest or week[start] <= row - 4:
            total -= week[start + 2]
            start += 4
            if start > i:
                break
        most = max(most, total)
    return float(most)


def busiest(spendings: Iterable[Spending], now: float, known: int) -> float:
    """The share of a day's new conversations that all these lines together opened in its busiest 6 h, on the average of the
    last week; 0 where they opened fewer than *known*."""
    oldest, parts = int(now // SPREAD) - ROWS + 1, [0, 0, 0, 0]
    for spending in spendings:
        week = spending.week
        for i in range(0, len(week), 4):
            if week[i] >= oldest:
                parts[week[i] % 4] += week[i + 2]
    total = sum(parts)
    return max(parts) / total if total >= known else 0.0


def add_charge(
    spending: Spending, at: float, now: float, *, ident: int, moved: bool, keep: int
) -> None:
    """Record a new conversation that opens at *at*; forget those older than a day, and all but the latest *keep*."""
    times, ids, flags = spending.times, spending.ids, spending.moved
    start = max(0, len(times) + 1 - keep)
    if times and times[0] + DAY <= now:
        start = max(start, first_within(times, now, DAY))
    times, ids, flags = times[start:], ids[start:], flags[start:]
    flag = b"\1" if moved else b"\0"
    if not times or times[-1] <= at:  # nearly always
        times.append(at)
        ids.append(ident)
        flags += flag
    else:
        place = bisect_right(times, at)
        times.insert(place, at)
        ids.insert(place, ident)
        flags = flags[:place] + flag + flags[place:]
    spending.times, spending.ids, spending.moved = times, ids, flags


def remove_charge(spending: Spending, ident: int) -> float | None:
    """Give back the new conversation of reservation *ident*: when it was to open, None if it is not there (any more)."""
    if ident not in spending.ids:
        return None
    place = spending.ids.index(ident)
    times, ids = spending.times[:], spending.ids[:]
    at = times.pop(place)
    del ids[place]
    spending.times, spending.ids = times, ids
    spending.moved = spending.moved[:place] + spending.moved[place + 1 :]
    return at


def on_time(spending: Spending, now: float, max_delay: float) -> Spending:
    """The spending, or where it holds moments that only a clock that stepped back can explain (further ahead than any
    promise reaches, and `SKEW` more), one in which these are now."""
    edge = now + max(max_delay, spending.reach) + SKEW
    times, buckets = spending.times, spending.buckets
    late = (times and times[-1] > edge) or (buckets and buckets[-2] * BUCKET > edge)
    if not (late or spending.day_start > edge or spending.probe_at > edge):
        return spending
    spending = spending.copy()
    order = sorted(
        (now if at > edge else at, ident, moved)
        for at, ident, moved in zip(times, spending.ids, spending.moved, strict=True)
    )
    spending.times = array("d", (at for at, _, _ in order))
    spending.ids = array("I", (ident for _, ident, _ in order))
    spending.moved = bytes(moved for _, _, moved in order)
    counts: dict[int, int] = {}
    for bucket, count in zip(buckets[::2], buckets[1::2], strict=True):
        place = int(now // BUCKET) if bucket * BUCKET > edge else bucket
        counts[place] = counts.get(place, 0) + count
    spending.buckets = array("i", (n for pair in sorted(counts.items()) for n in pair))
    spending.day_start = now if spending.day_start > edge else spending.day_start
    spending.probe_at = now if spending.probe_at > edge else spending.probe_at
    return spending


# Pace: GCRA, one number per mark


def slot(mark: float, now: float, gap: float, burst: int) -> float:
    """The earliest moment from *now* at which a mark lets one more go, *burst* of them at once, *gap* seconds apart."""
    return max(now, mark - gap * (burst - 1)) if gap else now


def trusted(mark: float, now: float, gap: float, burst: int, reach: float, slowest: float) -> float:
    """The mark, unless it is further ahead than one burst at the *slowest* gap plus *reach*, and `SKEW` more, which another
    host's clock may be: then it comes from a clock that stepped back, and is set to one burst ahead."""
    edge = now + slowest * burst + reach + SKEW
    return min(mark, now + gap * burst) if mark > edge else mark
