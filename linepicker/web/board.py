"""What all readers of the page see, kept once: its parts and rows as HTML, each with the turn in which it last changed.

A reader is sent what changed after the last turn they saw, so a slow one skips turns, and nothing is kept for anybody. It is
looked anew only while somebody reads, by one call at a time, and never so often that looking takes more than a tenth of
the time.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, Protocol

import attrs

from linepicker._overview import Overview
from linepicker.errors import LinePickerError, SourceError, StoreError
from linepicker.web import pages, rows
from linepicker.web.door import MOST, Door
from linepicker.web.ring import Ring
from linepicker.web.rows import Row, clock

__all__ = ["HOURS", "Board", "Hook", "Update"]

HOURS: Final = 12
"""How many hours are looked ahead."""
PATIENCE: Final = 5.0
"""Seconds that a reader waits for the router before being told that it takes long."""
_SHARE: Final = 9.0
_OUTLOOK_SHARE: Final = 50.0
_OUTLOOK_EVERY: Final = 15.0
_GLIMPSE: Final = 0.25  # seconds that a reader waits for the outlook

_log = logging.getLogger("linepicker.web")


class Hook(Protocol):
    """What the page tells of the webhooks taken in its process: a WebhookApp has it."""

    @property
    def counts(self) -> Mapping[str, int]:
        """How often each thing happened."""
        ...

    @property
    def heard_at(self) -> float | None:
        """When the last verified one came, None if none did."""
        ...


@attrs.frozen
class Update:
    """What changed: the moment of the figures, parts by their names, rows by their numbers; `lines`: all rows, where there are
    others than before, else None."""

    turn: str
    at: str
    parts: Mapping[str, str]
    rows: Mapping[str, str]
    lines: str | None

    def to_json(self) -> dict[str, Any]:
        """For the page's script."""
        return {"at": self.at, "parts": self.parts, "rows": self.rows, "lines": self.lines}


class Board:
    """Lives as long as the page. `every`: seconds between two looks, more where looking takes long."""

    def __init__(
        self, door: Door, ring: Ring, hook: Hook | None, *, every: float, operable: bool
    ) -> None:
        self.every = every
        self._door, self._ring, self._hook, self._operable = door, ring, hook, operable
        self._name = secrets.token_hex(4)
        self._turn = 0
        self._at = ""
        self._seen: Overview | None = None
        self._rows: dict[str, tuple[Row, str, int]] = {}
        self._order_turn = 0
        self._parts: dict[str, tuple[str, int]] = {}
        self._look = _Flight(every, _SHARE)
        self._outlook = _Flight(_OUTLOOK_EVERY, _OUTLOOK_SHARE)
        self._told = ""
        for name in ("trouble", "summary", "fresh", "choices"):
            self._put(name, "")
        self._put("outlook", pages.outlook(None))

    # For readers

    @property
    def ready(self) -> bool:
        """Whether there is anything to see."""
        return self._seen is not None

    @property
    def parts(self) -> Mapping[str, str]:
        """All parts."""
        return {name: text for name, (text, _) in self._parts.items()}

    @property
    def lines(self) -> str:
        """All rows."""
        return "".join(_framed(text) for _, text, _ in self._rows.values())

    @property
    def at(self) -> str:
        """The time of day of what is shown."""
        return self._at

    @property
    def turn(self) -> str:
        """Names the current turn."""
        return f"{self._name}-{self._turn}"

    def since(self, turn: str) -> Update | None:
        """What changed since; None: nothing. All of it for a turn of another board, or one that is none."""
        name, _, number = turn.partition("-")
        seen = int(number) if name == self._name and number.isdecimal() and len(number) < 12 else -1
        if seen >= self._turn:
            return None
        anew = seen < self._order_turn
        return Update(
            self.turn,
            self._at,
            {name: text for name, (text, changed) in self._parts.items() if changed > seen},
            {}
            if anew
            else {n: text for n, (_, text, changed) in self._rows.items() if changed > seen},
            self.lines if anew else None,
        )

    async def look(self) -> None:
        """See that what is shown is not older than it may be. Never raises; trouble is shown."""
        if not await self._look.fly(self._look_anew, PATIENCE):
            self._say("The router takes long to answer. The figures are older than they should be.")
        if self._seen is not None and not self._in_trouble:
            await self._outlook.fly(self._look_ahead, _GLIMPSE)

    def look_soon(self) -> None:
        """Look anew at the next chance, since something was done."""
        self._look.due = -float("inf")

    # Looking

    async def _look_anew(self) -> None:
        try:
            seen = await self._door.overview()
        except StoreError as error:
            self._fail("The store can't be read", error)
        except SourceError as error:
            self._fail("The list of lines can't be read", error)
        except Exception as error:  # noqa: BLE001  which is nobody's to see, but not to be lost
            self._fail("The lines can't be looked at", error)
        else:
            self._take(seen, await self._door.in_a_thread(lambda: self._drawn(seen)))

    async def _look_ahead(self) -> None:
        try:
            counts = await self._door.outlook(HOURS)
        except LinePickerError:
            return  # which the next look will tell
        seen = self._seen
        if seen is not None:
            self._turn += 1
            self._put(
                "outlook", pages.outlook(rows.hours(counts, seen.now), more=sum(counts) >= MOST)
            )

    def _drawn(self, seen: Overview) -> tuple[list[tuple[Row, str]], dict[str, str]]:
        """Rows and parts of what was seen; in a thread of its own, so nothing is changed here."""
        made = [rows.row(line, seen.now) for line in seen.lines]
        drawn, known = list[tuple[Row, str]](), self._rows
        for each in made:
            old = known.get(each.number)
            same = old is not None and old[0] == each
            drawn.append(
                (each, old[1] if old and same else pages.row(each, operable=self._operable))
            )
        hook = self._hook
        counts, last = (None, None) if hook is None else (hook.counts, hook.heard_at)
        parts = {
            "summary": pages.summary(rows.summary(seen.lines, made, seen.now)),
            "fresh": pages.fresh(rows.freshness(seen, self._door.ttl, counts, last)),
            "choices": pages.choices(self._ring.choices()),
            "trouble": "",
        }
        return drawn, parts

    def _take(self, seen: Overview, drawn: tuple[list[tuple[Row, str]], dict[str, str]]) -> None:
        made, parts = drawn
        self._turn += 1
        known, self._rows = self._rows, {}
        for each, text in made:
            old = known.get(each.number)
            changed = self._turn if old is None or old[1] is not text else old[2]
            self._rows[each.number] = (each, text, changed)
        if list(self._rows) != list(known):
            self._order_turn = self._turn
        self._seen, self._at, self._told = seen, clock(seen.now, seen.now), ""
        for name, text in parts.items():
            self._put(name, text)

    def _fail(self, what: str, error: Exception) -> None:
        if self._told != what:
            self._told = what
            _log.warning("status page: %s: %s", what, _shown(error))
        since = "" if self._seen is None else f" What is shown is of {self._at} UTC."
        self._say(f"{what}: the log says why.{since}")

    @property
    def _in_trouble(self) -> bool:
        return bool(self._parts["trouble"][0])

    def _say(self, text: str) -> None:
        if self._parts["trouble"][0] != pages.notice(text, good=False):
            self._turn += 1
            self._put("trouble", pages.notice(text, good=False))

    def _put(self, name: str, text: str) -> None:
        if name not in self._parts or self._parts[name][0] != text:
            self._parts[name] = (text, self._turn)


class _Flight:
    """Something done by one call at a time, for all, and not again before it is due; `share`: nor before so many times as long
    as it took."""

    def __init__(self, every: float, share: float) -> None:
        self.due = -float("inf")
        self._every, self._share = every, share
        self._task: asyncio.Task[None] | None = None

    async def fly(self, work: Callable[[], Coroutine[Any, Any, None]], patience: float) -> bool:
        """Do it if it is due; whether it was done within so many seconds. Who leaves meanwhile does not end it."""
        if self._task is None or self._task.done():
            if time.monotonic() < self.due:
                return True
            self._task = asyncio.get_running_loop().create_task(self._timed(work))
        done, _ = await asyncio.wait([self._task], timeout=patience)
        return bool(done)

    async def _timed(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        start = time.monotonic()
        self.due = float("inf")
        try:
            await work()
        finally:
            end = time.monotonic()
            self.due = end + max(self._every, self._share * (end - start))


def _framed(row: str) -> str:
    return f"<tr>{row}"


def _shown(error: Exception) -> str:
    """An error for the log: the library's own are masked; of others only the kind is known to be harmless."""
    return str(error) if isinstance(error, LinePickerError) else type(error).__name__
