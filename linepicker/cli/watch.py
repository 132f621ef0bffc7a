"""`linepicker watch`: the lines as they are, until interrupted; drawn in place on a terminal, else told change by change."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final

import attrs
import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from linepicker import _words as words
from linepicker.cli import show, summary
from linepicker.cli.screen import table
from linepicker.cli.settings import AsJson, Config, Pool, Settings, Store
from linepicker.errors import SourceError, StoreError
from linepicker.model import LineView
from linepicker.router import Router

__all__ = ["changed", "watch"]

_TABLE: Final = 62  # columns; on less, a line takes two rows
_KEPT: Final = 200


def watch(
    context: typer.Context,
    every: Annotated[
        float, typer.Option(min=0.1, max=3600.0, metavar="SECONDS", help="How often to look.")
    ] = 2.0,
    count: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Look so many times, then end.")
    ] = None,
    as_json: AsJson = False,
    config: Config = None,
    store: Store = None,
    pool: Pool = None,
) -> None:
    """Watch the lines: standing, budget, next slot, and what changes.

    Ends when interrupted. Where it is not shown on a terminal, or with --json, each change is a line of its own.
    """
    settings = Settings.of(context, as_json, config, store, pool)
    with settings.router() as router, _shown(as_json=settings.as_json) as screen:
        for frame in _frames(router, every, count):
            screen.show(frame)


@attrs.frozen
class Frame:
    """One look: the lines, when, what changed since the one before, and what went wrong, if it did."""

    views: Sequence[LineView]
    now: float
    news: Sequence[str]
    fault: str = ""
    first: bool = False


def _frames(router: Router, every: float, count: int | None) -> Iterator[Frame]:
    views: Sequence[LineView] = router.lines()  # raises what is wrong, where nothing can be shown
    yield Frame(views, time.time(), (), first=True)
    looks = 1
    while count is None or looks < count:
        time.sleep(every)
        looks += 1
        before, fault = views, ""
        try:
            views = router.lines()
        except (SourceError, StoreError) as error:
            fault = str(error)
        yield Frame(views, time.time(), changed(before, views), fault)


def changed(before: Sequence[LineView], after: Sequence[LineView]) -> list[str]:
    """What became of the lines from one look to the next, a sentence each."""
    was = {view.line.number: view for view in before}
    found = []
    for view in after:
        number, old = view.line.number, was.pop(view.line.number, None)
        if old is None:
            found.append(f"{number} is new.")
            continue
        if (old.standing, old.line.reputation) != (view.standing, view.line.reputation):
            state = words.because(view.standing) if view.standing != "ok" else "may be used"
            found.append(f"{number} {state} ({view.line.reputation}).")
        opened = view.used - old.used
        if opened > 0:
            noun = "conversation" if opened == 1 else "conversations"
            left = "" if view.remaining is None else f", {view.remaining} left"
            found.append(f"{number} opened {opened} {noun}{left}.")
    return [*found, *(f"{number} has left the account." for number in was)]


@contextlib.contextmanager
def _shown(*, as_json: bool) -> Iterator[Any]:
    """Where frames are shown: what suits stdout."""
    out = show.console()
    if as_json:
        yield Documents()
    elif sys.stdout.isatty() and not out.is_dumb_terminal:
        with Live(console=out, auto_refresh=False, vertical_overflow="crop") as live:
            yield Moving(live)
    else:
        yield Told()


class Documents:
    """One JSON document a look."""

    def show(self, frame: Frame) -> None:
        """Print it."""
        lines = [show.line_json(view) for view in frame.views]
        document = {"at": frame.now, "lines": lines, "news": list(frame.news)}
        show.document(document | ({"fault": frame.fault} if frame.fault else {}))
        sys.stdout.flush()


class Told:
    """Lines of text: how things stand at first, then only what changes."""

    def __init__(self) -> None:
        self._fault = ""

    def show(self, frame: Frame) -> None:
        """Print what is new."""
        head = f"{_clock(frame.now)}  "
        if frame.first:
            show.lines(frame.views, frame.now)
            show.say(summary.fleet(frame.views, {}, frame.now), head=head)
        for each in frame.news:
            show.say(each, head=head)
        if frame.fault != self._fault:
            self._fault = frame.fault
            show.say(frame.fault or "All can be read again.", head=head)
        sys.stdout.flush()


class Moving:
    """Draws each frame over the one before."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._news: list[str] = []

    def show(self, frame: Frame) -> None:
        """Draw it, in the size that the terminal has now."""
        self._news += [f"{_clock(frame.now)}  {each}" for each in frame.news]
        del self._news[:-_KEPT]
        out = show.console()
        self._live.console.width, self._live.console.height = out.width, out.height
        self._live.update(draw(frame, self._news, out), refresh=True)


def draw(frame: Frame, news: Sequence[str], out: Console) -> RenderableType:
    """A frame that fits the terminal."""
    width, height = out.width, out.height
    head = [*Text(summary.fleet(frame.views, {}, frame.now), "bold").wrap(out, width)]
    if frame.fault:
        head += Text(f"Not read anew: {frame.fault}", "red").wrap(out, width)
    del head[max(1, height // 4) :]
    views = sorted(frame.views, key=lambda view: (view.standing == "ok", view.line.number))
    each = 1 if width >= _TABLE else 2
    room = height - len(head) - 4
    rows = max(1, min(len(views), room // each - min(5, len(news))))
    more = len(views) - rows
    body: list[RenderableType] = [*head, Text()]
    if width >= _TABLE:
        body.append(table(views[:rows], frame.now, width))
    else:
        body += [part for view in views[:rows] for part in _narrow(view, frame.now)]
    if more > 0:
        body.append(Text(f"and {more} more {'line' if more == 1 else 'lines'}", "dim"))
    left = max(0, room - rows * each)
    told = [row for text in news for row in Text(text).wrap(out, width)]
    body += told[-left:] if left else []
    del body[max(1, height - 2) :]  # a terminal of a few rows
    return Group(*body, Text(f"{_clock(frame.now)} UTC, Ctrl-C ends", "dim", no_wrap=True))


def _narrow(view: LineView, now: float) -> tuple[Text, Text]:
    name = "FLAGGED" if view.standing == "flagged" else str(view.line.reputation)
    first = Text(view.line.number, "bold", no_wrap=True).append(f" {name}", show.COLOURS.get(name))
    budget = "-" if view.budget is None else view.budget
    facts = f"  {words.standing(view, now)}, {view.used}/{budget}, {words.slot(view, now)}"
    return first, Text(facts, no_wrap=True)


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.gmtime(at))
