"""What a reservation tells, whichever door it came through; and the host's time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from random import Random

from linepicker._asks import Made
from linepicker.model import Decision, Kind, Line, Outcome, To
from linepicker.stores import Write


class HostTime:
    """The monotonic clock, set by the store's time where it tells any, else by the wall clock at the start: a wall clock
    that steps later freezes nothing."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def now(self) -> float:
        return time.monotonic() + self._offset

    def heard(self, store_now: float) -> None:
        """The store's time, just now."""
        self._offset = store_now - time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(max(0.0, seconds))

    async def asleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))


def new_id(chance: Random) -> str:
    """A reservation's id: 96 random bits. *chance* must not be shared with a forked process."""
    return f"{chance.getrandbits(96):024x}"


def on_host_time(writes: Sequence[Write], now: float) -> Sequence[Write]:
    """The writes with the moments of their expiry, which were counted from *now*, counted from the host's clock."""
    if all(write.expires_at is None for write in writes):
        return writes
    ahead = time.time() - now
    return [
        write if write.expires_at is None else write._replace(expires_at=write.expires_at + ahead)
        for write in writes
    ]


class Promise:
    """What both kinds of reservation tell."""

    _made: Made

    @property
    def line(self) -> Line:
        """The sending line, as the fleet showed it when the reservation was made."""
        return self._made.line

    @property
    def number(self) -> str:
        """The line's E.164 number: send from here."""
        return self._made.number

    @property
    def to(self) -> To:
        """The recipient, normalised: a str, or a sorted tuple for a group."""
        return self._made.who.recipient.to

    @property
    def kind(self) -> Kind:
        """ "new", "known" or "moved"."""
        return self._made.kind

    @property
    def send_at(self) -> float:
        """From when the message may leave, epoch seconds UTC."""
        return self._made.send_at

    @property
    def delay(self) -> float:
        """How long after the reservation that is, in seconds."""
        return self._made.decision.delay

    @property
    def moved_from(self) -> str | None:
        """The line this recipient came from, if the reservation moved them."""
        return self._made.moved_from

    @property
    def decision(self) -> Decision:
        """The record of the choice."""
        return self._made.decision

    @property
    def id(self) -> str:
        """Stable, at most 64 characters, one per message and line: the provider's idempotency key."""
        return self._made.id

    @property
    def chat_id(self) -> str | None:
        """The provider's chat with this recipient on this line, if one was learned."""
        return self._made.chat_id

    @property
    def outcome(self) -> Outcome | None:
        """What became of it; None until settled."""
        return self._made.outcome

    def __repr__(self) -> str:
        made = self._made
        return f"<{type(self).__name__} {made.kind} {made.who.masked} from {made.number} at {made.send_at:.3f}: {made.outcome or 'open'}>"
