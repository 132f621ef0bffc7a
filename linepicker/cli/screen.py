"""What the demo shows: a live table where there is a terminal, else plain lines of text."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

import attrs
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from linepicker import _words as words
from linepicker.cli.show import COLOURS, console, say
from linepicker.model import LineView

__all__ = ["Entry", "Frame", "Screen", "Tally", "screen", "summary"]

_STYLES: Final = {
    **COLOURS,
    "rerouted": "bold magenta",
    "moved": "cyan",
    "held": "yellow",
    "sent": "green",
}
_HOUR: Final = 3600.0


@attrs.define
class Tally:
    """What became of the messages.

    `held`: people whose line might not be used. `postponed`: messages without room at first, `came_back`: sent later,
    `refused`: not even then. `retry_at`: what the last such refusal said. `blocked`: messages to a person who opted out.
    `unreached`: people whom a slow machine did not get to.
    """

    sent: int = 0
    by_kind: Counter[str] = attrs.Factory(Counter)
    by_line: Counter[str] = attrs.Factory(Counter)
    replies: int = 0
    rerouted: int = 0
    held: int = 0
    held_then_sent: int = 0
    still_held: int = 0
    postponed: int = 0
    came_back: int = 0
    refused: int = 0
    blocked: int = 0
    unreached: int = 0
    retry_at: float | None = None


@attrs.frozen
class Entry:
    """Something worth telling, so many seconds into the day."""

    at: float
    text: str
    kind: str


@attrs.define
class Frame:
    """Everything there is to show; moments and seconds are those of the demo's clock."""

    title: str
    tally: Tally = attrs.Factory(Tally)
    entries: list[Entry] = attrs.Factory(list)
    views: Sequence[LineView] = ()
    latest: str = ""
    now: float = 0.0
    elapsed: float = 0.0


class Screen(Protocol):
    """Where frames are shown."""

    def show(self, frame: Frame) -> None:
        """Show how things stand."""
        ...


@contextlib.contextmanager
def screen(*, quiet: bool) -> Iterator[Screen]:
    """The screen that suits stdout."""
    out = console()
    if quiet:
        yield Dark()
    elif sys.stdout.isatty() and not out.is_dumb_terminal:
        with Live(console=out, auto_refresh=False, vertical_overflow="crop") as live:
            yield Moving(live, out)
    else:
        yield Lines()


class Dark:
    """Shows nothing."""

    def show(self, frame: Frame) -> None:
        """Nothing."""


class Lines:
    """Prints what is new, and each hour how far things are."""

    def __init__(self) -> None:
        self._begun = False
        self._told = 0
        self._hours = 0

    def show(self, frame: Frame) -> None:
        """Print what was not printed yet."""
        if not self._begun:
            self._begun = True
            say(f"linepicker demo: {frame.title}")
        for entry in frame.entries[self._told :]:
            say(entry.text, head=f"{_time(entry.at)}  ")
        self._told = len(frame.entries)
        if frame.elapsed // _HOUR > self._hours:
            self._hours = int(frame.elapsed // _HOUR)
            say(_counts(frame.tally), head=f"{_time(frame.elapsed)}  ")


class Moving:
    """Draws the frame over the one before."""

    def __init__(self, live: Live, out: Console) -> None:
        self._live, self._out = live, out

    def show(self, frame: Frame) -> None:
        """Draw it."""
        self._live.update(draw(frame, self._out), refresh=True)


def draw(frame: Frame, out: Console) -> RenderableType:
    """A frame that fits the terminal."""
    width, height = out.width, out.height
    head = [
        *Text(f"linepicker demo: {frame.title}", "bold").wrap(out, width),
        *Text(f"{_time(frame.elapsed)}  {_counts(frame.tally)}").wrap(out, width),
    ]
    rows = max(3, min(len(frame.views), height - len(head) - 10))
    more = len(frame.views) - rows
    rest = [Text(f"and {more} more lines", "dim")] if more > 0 else []
    room = height - len(head) - 2 - rows - len(rest) - 3
    return Group(
        *head,
        Text(),
        table(frame.views[:rows], frame.now, width),
        *rest,
        Text("What just happened", "bold"),
        *_log(frame.entries, out, room),
        Text(f"just now: {frame.latest}" if frame.latest else "", "dim", no_wrap=True),
    )


def table(views: Sequence[LineView], now: float, width: int) -> Table:
    """The lines, each on one row."""
    gap = 2 if width >= 76 else 1
    size = min(30, width - 51 - 5 * gap)
    grid = Table(box=None, padding=(0, gap, 0, 0), pad_edge=False, header_style="dim")
    for title in ("line", "reputation" if gap > 1 else "reput.", "standing"):
        grid.add_column(title, no_wrap=True)
    if size >= 4:
        grid.add_column("today's budget" if size > 14 else "day", no_wrap=True, width=size)
    grid.add_column("used", no_wrap=True, justify="right")
    grid.add_column("next", no_wrap=True, justify="right")
    for view in views:
        name = "FLAGGED" if view.standing == "flagged" else str(view.line.reputation)
        colour = COLOURS.get(name, "")
        cells: list[RenderableType] = [
            Text(view.line.number, "bold"),
            Text(name, colour),
            words.standing(view, now),
        ]
        if size >= 4:
            cells.append(Text(words.bar(view.used, view.budget, size), colour))
        cells.append(f"{view.used}/{'-' if view.budget is None else view.budget}")
        cells.append(_next(view, now))
        grid.add_row(*cells)
    return grid


def summary(frame: Frame, accepted: int, seconds: float) -> None:
    """How it ended, in a few lines."""
    tally, out = frame.tally, console()
    kinds = tally.by_kind
    print()
    say(
        f"In {seconds:.0f} s, {words.duration(frame.elapsed)} by the demo's clock, {tally.sent} messages were sent; "
        f"the provider counts {accepted}.",
        style="bold",
    )
    facts = [
        (kinds["new"], "to new people, each on a line with room"),
        (kinds["known"], "to known people, each from the line they know"),
        (kinds["moved"], "moved, because their line could not send any more"),
        (tally.rerouted, "re-routed: refused by their line, sent from another at once"),
        (
            tally.held,
            f"held, because their line may not be used; {tally.held_then_sent} of them sent later",
        ),
        (tally.blocked, "blocked: the person had opted out, which no other line gets around"),
        (
            tally.postponed,
            f"had to wait, because no line had room; {tally.came_back} of them were sent at the moment named",
        ),
        (tally.refused, f"refused to the end{_earliest(tally, frame.now)}"),
    ]
    if tally.unreached:
        facts.append((tally.unreached, "people not written to: this machine was too slow for that"))
    for count, what in facts:
        say(what, head=f"{count:>4}  ")
    print()
    most = max(tally.by_line.values(), default=1)
    size = max(4, min(30, out.width - 46))
    for view in frame.views:
        count = tally.by_line[view.line.number]
        full = "█" * round(size * count / most)
        row = f"{view.line.number}  {count:>4} messages, {view.used:>3} new  {full}"
        out.print(Text(row), no_wrap=True, overflow="crop")


def _earliest(tally: Tally, now: float) -> str:
    if tally.retry_at is None or not tally.refused:
        return ""
    return f"; the next may be asked again {words.until(tally.retry_at - now)}"


def _log(entries: Sequence[Entry], out: Console, room: int) -> list[RenderableType]:
    """The latest entries, as many as there is room for, padded to that. The last re-routing stays in sight."""
    rerouted = next((each for each in reversed(entries) if each.kind == "rerouted"), None)
    kept = [] if rerouted is None else _block(rerouted, out)
    found: list[RenderableType] = []
    for entry in reversed(entries):
        block = kept if entry is rerouted else _block(entry, out)
        if entry is rerouted:
            kept = []
        if len(kept) + len(found) + len(block) > room:
            break
        found = block + found
    found = kept + found
    return (found + [Text() for _ in range(room - len(found))])[: max(0, room)]


def _block(entry: Entry, out: Console) -> list[RenderableType]:
    rows = Text(entry.text, _STYLES.get(entry.kind, "")).wrap(out, out.width - 7)
    head, block = _time(entry.at), list[RenderableType]()
    for row in rows:
        row.rstrip()
        block.append(Text(f"{head} ", "dim").append_text(row))
        head = " " * len(head)
    return block


def _counts(tally: Tally) -> str:
    kinds = tally.by_kind
    return (
        f"sent {tally.sent} ({kinds['new']} new, {kinds['known']} known, {kinds['moved']} moved), "
        f"held {tally.held}, re-routed {tally.rerouted}, had to wait {tally.postponed}"
    )


def _time(seconds: float) -> str:
    minutes = int(seconds // 60)
    return f"+{minutes // 60:02d}:{minutes % 60:02d}"


def _next(view: LineView, now: float) -> str:
    if view.next_slot_at is None:
        return "-"
    wait = view.next_slot_at - now
    return "now" if wait < 0.5 else " ".join(words.duration(wait).split(" ")[:2])
