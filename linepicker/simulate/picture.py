"""A run as a picture: each line over time, its reputation behind it, what it opened against its learned and its hidden limit.

Readable without colours: reputations differ by hatching and get darker as they get worse, curves by weight, dashes and markers,
each with a white edge. Needs matplotlib (extra `sim`), and nothing else of the library does.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from linepicker.simulate.engine import Run
from linepicker.simulate.measures import Sample
from linepicker.simulate.scenario import DAY, START

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["MissingExtra", "save", "svg"]

# After the palette of Okabe and Ito, which the colour-blind can tell apart; no two of a kind are as bright as each other.
_BANDS: Final = (
    ("AT_RISK", "#f9f2a8", "//"),
    ("CRITICAL", "#e69f00", "xxx"),
    ("FLAGGED", "#6e6e6e", "oo"),
)
_OPENED: Final[dict[str, Any]] = {
    "color": "#003f7f",
    "linewidth": 1.2,
    "marker": "o",
    "markersize": 2.4,
    "markevery": 4,
}
_LIMIT: Final[dict[str, Any]] = {"color": "#000000", "linewidth": 1.2, "linestyle": (0, (4, 2))}
_BUDGET: Final[dict[str, Any]] = {"color": "#d98bb5", "linewidth": 3.2, "drawstyle": "steps-post"}
_EDGE: Final = 1.0
"""Points of white on either side of a curve, which set it off from hatching and from other curves."""
_METADATA: Final = re.compile(r"\s*<metadata>.*</metadata>", re.DOTALL)
_STEP: Final = 0.25  # days between samples


class MissingExtra(Exception):
    """matplotlib is not installed; the message says how to."""


def save(runs: Mapping[str, Run], path: str | Path, *, title: str = "") -> None:
    """Write the picture of these runs, by name, side by side, as PNG. Raises MissingExtra, OSError."""
    figure = _figure(runs, title)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def svg(runs: Mapping[str, Run], *, title: str = "") -> str:
    """The picture as one `<svg>` element, the same for the same runs. Raises MissingExtra."""
    import matplotlib as mpl

    figure, out = _figure(runs, title), io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "linepicker", "svg.fonttype": "path"}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    return _METADATA.sub("", text[text.index("<svg") :])


def _figure(runs: Mapping[str, Run], title: str) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise MissingExtra(
            "pictures are drawn with matplotlib: pip install 'linepicker[sim]'"
        ) from None
    lines = {name: _by_line(run.samples) for name, run in runs.items()}
    numbers = sorted({number for each in lines.values() for number in each})
    rows = len(numbers) + 1
    figure = Figure(figsize=(max(7.0, 6.0 * len(runs)), 1.15 * rows + 1.6), layout="constrained")
    axes = figure.subplots(rows, len(runs), sharex=True, squeeze=False)
    for column, (name, by_line) in enumerate(lines.items()):
        _fleet(axes[0][column], runs[name].samples)
        axes[0][column].set_title(name, fontsize=11, fontweight="bold")
        for row, number in enumerate(numbers, 1):
            _line(axes[row][column], by_line.get(number, []))
            if column == 0:
                axes[row][0].set_ylabel(f"…{number[-4:]}", rotation=0, ha="right", va="center")
        axes[-1][column].set_xlabel("days")
    axes[0][0].set_ylabel("all lines", rotation=0, ha="right", va="center")
    figure.legend(handles=_legend(), loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=12)
    return figure


def _by_line(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = {}
    for each in samples:
        found.setdefault(each.number, []).append(each)
    return found


def _day(sample: Sample) -> float:
    return (sample.at - START) / DAY


def _line(ax: Axes, samples: Sequence[Sample]) -> None:
    if not samples:
        _plain(ax)
        return
    days = [_day(each) for each in samples]
    worst = [2 if each.flagged else each.shown - 1 for each in samples]
    for level, (_, colour, hatch) in enumerate(_BANDS):
        for begin, end in _spans(days, [each == level for each in worst]):
            ax.axvspan(
                begin, end, facecolor=colour, edgecolor="#444444", hatch=hatch, lw=0, zorder=0
            )
    budgets = [each.budget if each.budget is not None else math.nan for each in samples]
    limits, opened = [each.limit for each in samples], [each.opened for each in samples]
    _curves(ax, days, budgets, limits, opened)


def _fleet(ax: Axes, samples: Sequence[Sample]) -> None:
    moments: dict[float, list[Sample]] = {}
    for each in samples:
        moments.setdefault(_day(each), []).append(each)
    known = any(each.budget is not None for each in samples)
    budgets, limits, opened = list[float](), list[float](), list[float]()
    for some in moments.values():
        budgets.append(sum(each.budget or 0 for each in some) if known else math.nan)
        limits.append(sum(each.limit for each in some))
        opened.append(sum(each.opened for each in some))
    _curves(ax, list(moments), budgets, limits, opened)


def _curves(
    ax: Axes,
    days: Sequence[float],
    budgets: Sequence[float],
    limits: Sequence[float],
    opened: Sequence[float],
) -> None:
    """A budget, wide and light, behind the hidden limit and what was opened."""
    if not all(map(math.isnan, budgets)):
        ax.plot(days, budgets, zorder=3, **_edged(_BUDGET))
    ax.plot(days, limits, zorder=4, **_edged(_LIMIT))
    ax.plot(days, opened, zorder=5, **_edged(_OPENED))
    _plain(ax)


def _edged(style: Mapping[str, Any]) -> dict[str, Any]:
    from matplotlib.patheffects import Normal, Stroke

    edge = Stroke(linewidth=style["linewidth"] + 2 * _EDGE, foreground="#ffffff")
    return {**style, "path_effects": [edge, Normal()]}


def _plain(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8)
    ax.set_ylim(bottom=0)
    ax.margins(x=0)


def _spans(days: Sequence[float], inside: Sequence[bool]) -> list[tuple[float, float]]:
    """From when until when it holds; a sample stands for the quarter of a day after it."""
    spans: list[tuple[float, float]] = []
    for day, holds in zip(days, inside, strict=True):
        if not holds:
            continue
        if spans and abs(spans[-1][1] - day) < _STEP / 2:
            spans[-1] = (spans[-1][0], day + _STEP)
        else:
            spans.append((day, day + _STEP))
    return spans


def _legend() -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    curves = [
        Line2D([], [], label="opened in the last 24 h", **_OPENED),
        Line2D([], [], label="its budget", **_BUDGET),
        Line2D([], [], label="its hidden limit", **_LIMIT),
    ]
    bands = [
        Patch(facecolor=colour, edgecolor="#444444", hatch=hatch, label=name)
        for name, colour, hatch in _BANDS
    ]
    return [each for pair in zip(curves, bands, strict=True) for each in pair]
