"""What is remembered of a recipient: its line, the pace of this pair, how the conversation goes; and its bytes."""

from __future__ import annotations

import math
import struct
from array import array
from bisect import bisect_right
from collections.abc import Mapping
from functools import lru_cache
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
    swapped,
)

PAIR: Final = 60.0
"""Linq counts the messages of a sender-recipient pair per 60 s (Rate Limits)."""
PAIR_KEPT: Final = 32
"""How many messages of the last minute a contact remembers where no limit asks for more: one may be given back."""
HISTORY_KEPT: Final = 10
"""How many earlier lines of a recipient are remembered."""
_RUN_AT_MOST: Final = 255

_HEAD: Final = struct.Struct("<BIIdddBI")
_SIZES: Final = struct.Struct("<BI")
_NONE: Final[Mapping[str, Any]] = {}


def _no_times() -> array[float]:
    return array("d")


def _no_numbers() -> array[int]:
    return array("I")


@attrs.frozen
class Seldom:
    """What of a recipient seldom changes, and messages leave as it is: most have none of it. Another one takes its place.

    `history`: (line, since) of the lines before. `chats`: the provider's chat per line. `views`: what the provider thinks of
    the conversation on each line, and as of when. `home`: the line that a gate moved them away from, "" if none did.
    `limited_at`: when the last rate limit was heard of. `format`, `rest`, `tail`: of the record, and what a later format added
    to it.
    """

    history: tuple[tuple[str, float], ...] = ()
    chats: Mapping[str, str] = _NONE
    views: Mapping[str, tuple[str, float]] = _NONE
    home: str = ""
    limited_at: float = 0.0
    rest: Mapping[str, Any] = _NONE
    format: int = FORMAT
    tail: bytes = b""

    def behind(self, number: str) -> bytes:
        """The end of a record: the line's number, what seldom changes as JSON, nothing where there is nothing, and the tail."""
        known: dict[str, Any] = {
            "history": self.history,
            "chats": self.chats,
            "views": self.views,
            "home": self.home,
        }
        if self.limited_at:
            known["limited_at"] = self.limited_at
        line, packed = number.encode(), b""
        if any(known.values()) or self.rest:
            packed = dump({**self.rest, **known})
        return _SIZES.pack(len(line), len(packed)) + line + packed + self.tail


PLAIN: Final = Seldom()
"""Nothing of the kind."""


@attrs.define
class Contact:
    """A recipient's line, the pace of this pair, and how the conversation goes. Packed; JSON only for what seldom changes.

    `opened` is 32 bits of the reservation that made the assignment (or the last move), 0 if none did; `made` how many
    reservations were made since, that one included. `times` and `ids`: the last minute's messages, or the last one.
    `wait_until`: when a rate limit ends. `unanswered`: messages since they last wrote, at most 255; `replied_at`: when that was
    reported, 0 if never.
    """

    number: str
    since: float
    opened: int = 0
    made: int = 0
    wait_until: float = 0.0
    times: array[float] = attrs.field(factory=_no_times)
    ids: array[int] = attrs.field(factory=_no_numbers)
    unanswered: int = 0
    replied_at: float = 0.0
    seldom: Seldom = PLAIN
    _end: bytes | None = attrs.field(init=False, default=None, eq=False, repr=False)
    """The bytes of what a message leaves as it is, once they were worked out."""

    @property
    def history(self) -> tuple[tuple[str, float], ...]:
        """As `Seldom` tells."""
        return self.seldom.history

    @property
    def chats(self) -> Mapping[str, str]:
        """As `Seldom` tells."""
        return self.seldom.chats

    @property
    def views(self) -> Mapping[str, tuple[str, float]]:
        """As `Seldom` tells."""
        return self.seldom.views

    @property
    def home(self) -> str:
        """As `Seldom` tells."""
        return self.seldom.home

    def having(self, **seldom: Any) -> Contact:
        """With something else of what seldom changes."""
        return attrs.evolve(self, seldom=attrs.evolve(self.seldom, **seldom))

    def encode(self) -> bytes:
        """Its bytes."""
        seldom, times, ids = self.seldom, self.times, self.ids
        head = _HEAD.pack(
            seldom.format,
            self.opened,
            self.made,
            self.since,
            self.wait_until,
            self.replied_at,
            self.unanswered,
            len(times),
        )
        end = self._end
        if end is None:
            end = _plain(self.number) if seldom is PLAIN else seldom.behind(self.number)
            self._end = end
        if LITTLE:
            return head + times.tobytes() + ids.tobytes() + end
        return head + swapped(times) + swapped(ids) + end

    @classmethod
    def decode(cls, raw: bytes) -> Contact:
        """From its bytes. Raises StoreError for what is damaged or too new."""
        format_number = format_of(raw, "contact")
        try:
            reader = Reader(raw)
            _, opened, made, since, wait_until, replied_at, unanswered, count = reader.unpack(_HEAD)
            times, ids = reader.array("d", count), reader.array("I", count)
            size, more = reader.unpack(_SIZES)
            number = reader.take(size).decode("ascii")
            seldom = _seldom(reader.take(more), format_number, reader.rest())
            views = seldom.views.values()
            said = (seldom.limited_at, *(at for _, at in views))
            moments = (since, wait_until, replied_at, *times, *said)
            if not all(map(math.isfinite, moments)):
                raise ValueError("impossible numbers")
            return cls(
                number,
                since,
                opened,
                made,
                wait_until,
                times,
                ids,
                unanswered,
                replied_at,
                seldom,
            )
        except BROKEN as error:
            raise damaged("contact", error) from error

    def messaged(self, at: float, now: float, ident: int, keep: int) -> Contact:
        """With one more reservation, whose message leaves at *at*; of those before, the latest *keep* of the last minute are
        remembered, or the last one if it is older."""
        times, unanswered = self.times, self.unanswered
        start = len(times) + 1 - keep
        if times and (start < 0 or times[start] <= now - PAIR):
            start = max(0, bisect_right(times, now - PAIR) - 1)
        elif not times:
            start = 0
        times, ids = times[start:], self.ids[start:]
        if not times or times[-1] <= at:  # nearly always
            times.append(at)
            ids.append(ident)
        else:
            place = bisect_right(times, at)
            times.insert(place, at)
            ids.insert(place, ident)
        after = object.__new__(Contact)  # and not by its constructor: at two thirds of the cost
        after.number = self.number
        after.since = self.since
        after.opened = self.opened
        after.made = self.made + 1
        after.wait_until = self.wait_until
        after.times = times
        after.ids = ids
        after.unanswered = unanswered + 1 if unanswered < _RUN_AT_MOST else _RUN_AT_MOST
        after.replied_at = self.replied_at
        after.seldom = self.seldom
        after._end = self._end
        return after

    def unmessaged(self, ident: int) -> Contact | None:
        """Without that reservation's message; None: it is not there (any more)."""
        if ident not in self.ids:
            return None
        place = self.ids.index(ident)
        times, ids, unanswered = self.times[:], self.ids[:], self.unanswered
        if times[place] > self.replied_at:
            unanswered = max(0, unanswered - 1)
        del times[place], ids[place]
        return attrs.evolve(self, times=times, ids=ids, unanswered=unanswered)

    def on_time(self, now: float, edge: float) -> Contact:
        """Itself, or where it holds moments after *edge*, which only a clock that stepped back can explain, one whose messages
        of then left long ago, and that waits for no rate limit of then."""
        times = self.times
        late = len(times) - bisect_right(times, edge)
        over = self.seldom.limited_at > edge
        if not (late or over or self.replied_at > edge):
            return self
        return attrs.evolve(
            self,
            times=array("d", bytes(8 * late)) + times[: len(times) - late],
            ids=self.ids[len(times) - late :] + self.ids[: len(times) - late],
            wait_until=0.0 if over else self.wait_until,
            replied_at=min(self.replied_at, now),
        )

    def replied(self, at: float, latest: float) -> Contact:
        """With what they wrote at *at*: only the messages that left later are unanswered still. *latest*: as of `felt`."""
        if at <= self.replied_at <= latest:
            return self
        later = len(self.times) - bisect_right(self.times, at)
        return attrs.evolve(self, unanswered=min(self.unanswered, later), replied_at=at)

    def health(self) -> tuple[str, float]:
        """What the provider thinks of the conversation on their line, "" if it never said, and as of when."""
        return self.views.get(self.number, ("", 0.0))

    def felt(self, health: str, at: float, latest: float) -> Contact | None:
        """With the provider's view of the conversation at *at*; None: it is known, or out of date. Ties: the worse wins. What
        is known of a moment after *latest* comes from a clock that stepped back: it counts until something else is told."""
        known, known_at = self.health()
        same = at == known_at and _BADNESS[health] <= _BADNESS[known]
        if (at < known_at or same) and known_at <= latest:
            return None
        return self.having(views={**self.views, self.number: (health, at)})

    def moved(self, number: str, now: float, *, opened: int, made: int, home: str = "") -> Contact:
        """On another line, the old one remembered. *home*: the line they may go back to."""
        history = (*self.history, (self.number, self.since))[-HISTORY_KEPT:]
        lines = {number, *(line for line, _ in history)}
        seldom = attrs.evolve(
            self.seldom,
            history=history,
            chats={line: chat for line, chat in self.chats.items() if line in lines},
            views={line: view for line, view in self.views.items() if line in lines},
            home="" if home == number else home,
        )
        return attrs.evolve(
            self,
            number=number,
            since=now,
            opened=opened,
            made=made,
            wait_until=0.0,
            seldom=seldom,
        )

    def back(self) -> Contact:
        """On the line before, as if the last move had not been."""
        number, since = self.history[-1]
        home = self.home or self.number  # a move home that is taken back
        contact = attrs.evolve(self, number=number, since=since, opened=0, made=1)
        return contact.having(history=self.history[:-1], home="" if home == number else home)

    def limited(self, now: float, pause: float, latest: float) -> Contact:
        """With a rate limit heard of *now*, for so many seconds. *latest*: as of `felt`."""
        known = self.wait_until if self.seldom.limited_at <= latest else 0.0
        return attrs.evolve(self.having(limited_at=now), wait_until=max(known, now + pause))

    def in_chat(self, chat_id: str) -> Contact:
        """With the provider's chat on this line."""
        if self.chats.get(self.number) == chat_id:
            return self
        return self.having(chats={**self.chats, self.number: chat_id})

    @property
    def last_at(self) -> float:
        """The moment of the latest message either way that is remembered; 0 if none is."""
        return max(self.times[-1] if self.times else 0.0, self.replied_at)


def _seldom(raw: bytes, format_number: int, tail: bytes) -> Seldom:
    """From its part of a record's bytes."""
    if not raw and not tail and format_number == FORMAT:
        return PLAIN
    value = load(raw) if raw else {"history": (), "chats": {}}
    views = value.pop("views", {}).items()
    return Seldom(
        tuple((str(line), float(at)) for line, at in value.pop("history")),
        {str(line): str(chat) for line, chat in value.pop("chats").items()},
        {str(line): (str(health), float(at)) for line, (health, at) in views},
        str(value.pop("home", "")),
        float(value.pop("limited_at", 0.0)),
        value,
        format_number,
        tail,
    )


@lru_cache(maxsize=16_384)  # the lines of a long fleet
def _plain(number: str) -> bytes:
    """The end of the record of most recipients of a line."""
    return PLAIN.behind(number)


def first_contact(number: str, now: float, send_at: float, ident: int) -> Contact:
    """A recipient's record with the reservation that gave them a line."""
    times, ids = array("d", (send_at,)), array("I", (ident,))
    return Contact(number, now, ident, 1, 0.0, times, ids, 1)


_BADNESS: Final = {"": -1, "HEALTHY": 0, "AT_RISK": 1, "CRITICAL": 2, "OPTED_OUT": 3}
