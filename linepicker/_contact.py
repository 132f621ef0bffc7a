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


@attrs.define
class Contact:
    """A recipient's line, the pace of this pair, and how the conversation goes. Packed; JSON only for what seldom changes.

    `opened` is 32 bits of the reservation that made the assignment (or the last move), 0 if none did; `made` how many
    reservations were made since, that one included. `times` and `ids`: the last minute's messages, or the last one.
    `wait_until`: when a rate limit ends. `history`: (line, since) of the lines before. `chats`: the provider's chat per line.
    `unanswered`: messages since they last wrote, at most 255; `replied_at`: when that was reported, 0 if never. `views`: what
    the provider thinks of the conversation on each line, and as of when. `home`: the line that a gate moved them away from,
    "" if none did.
    """

    number: str
    since: float
    history: tuple[tuple[str, float], ...] = ()
    chats: Mapping[str, str] = attrs.field(factory=dict)
    opened: int = 0
    made: int = 0
    wait_until: float = 0.0
    times: array[float] = attrs.field(factory=_no_times)
    ids: array[int] = attrs.field(factory=_no_numbers)
    unanswered: int = 0
    replied_at: float = 0.0
    views: Mapping[str, tuple[str, float]] = attrs.field(factory=dict)
    home: str = ""
    rest: Mapping[str, Any] = attrs.field(factory=dict)
    format: int = FORMAT
    tail: bytes = b""
    _packed: bytes | None = attrs.field(init=False, default=None, eq=False, repr=False)
    """The bytes of what a message leaves as it is, once they were worked out."""

    def encode(self) -> bytes:
        """Its bytes."""
        packed = self._packed
        if packed is None:
            packed = self._packed = self._pack()
        times, ids = self.times, self.ids
        head = _HEAD.pack(
            self.format,
            self.opened,
            self.made,
            self.since,
            self.wait_until,
            self.replied_at,
            self.unanswered,
            len(times),
        )
        if LITTLE:
            return head + times.tobytes() + ids.tobytes() + packed
        return head + swapped(times) + swapped(ids) + packed

    def _pack(self) -> bytes:
        if not (self.history or self.chats or self.views or self.home or self.rest or self.tail):
            return _sized(self.number)
        number, seldom = self.number.encode(), b""
        if self.history or self.chats or self.views or self.home or self.rest:
            known = {
                "history": self.history,
                "chats": self.chats,
                "views": self.views,
                "home": self.home,
            }
            seldom = dump({**self.rest, **known})
        return _SIZES.pack(len(number), len(seldom)) + number + seldom + self.tail

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
            value = load(reader.take(more)) if more else {"history": (), "chats": {}}
            seen = value.pop("views", {}).items()
            views = {str(line): (str(health), float(at)) for line, (health, at) in seen}
            moments = (since, wait_until, replied_at, *times, *(at for _, at in views.values()))
            if not all(map(math.isfinite, moments)):
                raise ValueError("impossible numbers")
            return cls(
                number,
                since,
                tuple((str(line), float(at)) for line, at in value.pop("history")),
                {str(line): str(chat) for line, chat in value.pop("chats").items()},
                opened,
                made,
                wait_until,
                times,
                ids,
                unanswered,
                replied_at,
                views,
                str(value.pop("home", "")),
                value,
                format_number,
                reader.rest(),
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
        after = Contact(
            self.number,
            self.since,
            self.history,
            self.chats,
            self.opened,
            self.made + 1,
            self.wait_until,
            times,
            ids,
            unanswered + 1 if unanswered < _RUN_AT_MOST else _RUN_AT_MOST,
            self.replied_at,
            self.views,
            self.home,
            self.rest,
            self.format,
            self.tail,
        )
        after._packed = self._packed
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

    def replied(self, at: float) -> Contact:
        """With what they wrote at *at*: only the messages that left later are unanswered still."""
        if at <= self.replied_at:
            return self
        later = len(self.times) - bisect_right(self.times, at)
        return attrs.evolve(self, unanswered=min(self.unanswered, later), replied_at=at)

    def health(self) -> tuple[str, float]:
        """What the provider thinks of the conversation on their line, "" if it never said, and as of when."""
        return self.views.get(self.number, ("", 0.0))

    def felt(self, health: str, at: float) -> Contact | None:
        """With the provider's view of the conversation at *at*; None: it is known, or out of date. Ties: the worse wins."""
        known, known_at = self.health()
        if at < known_at or (at == known_at and _BADNESS[health] <= _BADNESS[known]):
            return None
        return attrs.evolve(self, views={**self.views, self.number: (health, at)})

    def moved(self, number: str, now: float, *, opened: int, made: int, home: str = "") -> Contact:
        """On another line, the old one remembered. *home*: the line they may go back to."""
        history = (*self.history, (self.number, self.since))[-HISTORY_KEPT:]
        lines = {number, *(line for line, _ in history)}
        return attrs.evolve(
            self,
            number=number,
            since=now,
            history=history,
            chats={line: chat for line, chat in self.chats.items() if line in lines},
            views={line: view for line, view in self.views.items() if line in lines},
            opened=opened,
            made=made,
            wait_until=0.0,
            home="" if home == number else home,
        )

    def back(self) -> Contact:
        """On the line before, as if the last move had not been."""
        number, since = self.history[-1]
        home = self.home or self.number  # a move home that is taken back
        return attrs.evolve(
            self,
            number=number,
            since=since,
            history=self.history[:-1],
            opened=0,
            made=1,
            home="" if home == number else home,
        )

    def in_chat(self, chat_id: str) -> Contact:
        """With the provider's chat on this line."""
        if self.chats.get(self.number) == chat_id:
            return self
        return attrs.evolve(self, chats={**self.chats, self.number: chat_id})

    @property
    def last_at(self) -> float:
        """The moment of the latest message either way that is remembered; 0 if none is."""
        return max(self.times[-1] if self.times else 0.0, self.replied_at)


@lru_cache(maxsize=1024)
def _sized(number: str) -> bytes:
    """The end of the record of most recipients of a line: its number, and nothing that seldom changes."""
    packed = number.encode()
    return _SIZES.pack(len(packed), 0) + packed


def first_contact(number: str, now: float, send_at: float, ident: int) -> Contact:
    """A recipient's record with the reservation that gave them a line."""
    times, ids, none = array("d", (send_at,)), array("I", (ident,)), _NONE
    return Contact(number, now, (), none, ident, 1, 0.0, times, ids, 1, 0.0, none, "", none)


_BADNESS: Final = {"": -1, "HEALTHY": 0, "AT_RISK": 1, "CRITICAL": 2, "OPTED_OUT": 3}
