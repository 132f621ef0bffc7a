"""What a scoring run comes to: means over seeds with confidence intervals, as shares of the oracle's, by world or by group."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any, Final

import attrs

from linepicker.simulate.measures import MEASURES
from linepicker.simulate.score import ORACLE, Played, is_held_out

__all__ = ["Estimate", "Row", "by_group", "by_world", "estimate", "markdown", "shown", "summary"]

# Student's t, two-sided 95 %, by degrees of freedom; beyond, as good as the normal distribution's.
_T: Final = (
    *(
        math.inf,
        12.71,
        4.30,
        3.18,
        2.78,
        2.57,
        2.45,
        2.36,
        2.31,
        2.26,
        2.23,
        2.20,
        2.18,
        2.16,
        2.14,
    ),
    *(2.13, 2.12, 2.11, 2.10, 2.09, 2.09, 2.08, 2.07, 2.07, 2.06, 2.06, 2.06, 2.05, 2.05, 2.05),
)


@attrs.frozen
class Estimate:
    """A mean, and half the width of its 95 % confidence interval: over seeds, by Student's t. None of a single value."""

    mean: float
    half: float | None


def estimate(values: Sequence[float]) -> Estimate:
    """The mean over seeds. Raises ValueError of none."""
    if not values:
        raise ValueError("values must not be empty")
    if len(values) == 1:
        return Estimate(values[0], None)
    t = _T[len(values) - 1] if len(values) <= len(_T) else 1.96
    return Estimate(fmean(values), t * stdev(values) / math.sqrt(len(values)))


@attrs.frozen
class Row:
    """One contender in one group of worlds under one condition.

    `share`: people reached and follow-ups answered, as a percentage of the oracle's; None where it did not play. `values`: by
    the names of `MEASURES`, waits in seconds.
    """

    group: str
    condition: str
    contender: str
    share: Estimate | None
    values: Mapping[str, Estimate]

    def to_json(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return attrs.asdict(self)


def by_world(played: Played) -> str:
    """The world's name, and whether it was held out."""
    name = played.match.scenario.world
    return f"{name} (held out)" if is_held_out(name) else name


def by_group(played: Played) -> str:
    """ "tuned" or "held out"."""
    return "held out" if is_held_out(played.match.scenario.world) else "tuned"


def summary(played: Iterable[Played], group: Callable[[Played], str] = by_world) -> list[Row]:
    """A row per group, condition and contender, in the order they were played. Worlds of a group weigh alike: each seed's
    value is their mean."""
    played = tuple(played)
    best = {
        (each.match.scenario, each.match.condition, each.match.seed): each.measures.served
        for each in played
        if each.match.contender.maker == ORACLE
    }
    cells: dict[tuple[str, str, str], dict[int, list[Played]]] = {}
    for each in played:
        key = (group(each), each.match.condition, each.match.contender.name)
        cells.setdefault(key, {}).setdefault(each.match.seed, []).append(each)

    def percent(each: Played) -> float:
        mine = (each.match.scenario, each.match.condition, each.match.seed)
        return 100.0 * each.measures.served / max(1, best[mine])

    return [
        Row(
            *key,
            estimate([fmean(map(percent, some)) for some in seeds.values()]) if best else None,
            {
                name: estimate(
                    [fmean(getattr(one.measures, name) for one in some) for some in seeds.values()]
                )
                for name in MEASURES
            },
        )
        for key, seeds in cells.items()
    ]


def shown(name: str, value: Estimate | None) -> str:
    """An estimate as a table shows it: the mean, and the interval where it is known. *name* of `MEASURES`, or "share"."""
    if value is None:
        return "-"
    mean, half, digits = value.mean, value.half, 1
    if name == "wait":
        mean, half, digits = mean / 60.0, half and half / 60.0, 0
    elif name == "fairness":
        digits = 2
    elif name in {"reached", "answered", "on_critical", "on_flagged"}:
        digits = 0
    text = f"{mean:,.{digits}f}"
    return text if not half else f"{text} ± {half:,.{digits}f}"


def markdown(rows: Sequence[Row], columns: Mapping[str, str]) -> str:
    """The rows as tables in Markdown, one per condition: a row per contender, and for each group its columns. *columns*: what
    is shown, and what it is called."""
    groups = list(dict.fromkeys(row.group for row in rows))
    several = len(groups) > 1
    titles = [
        f"{title}, {group}" if several else title for title in columns.values() for group in groups
    ]
    tables = []
    for condition in dict.fromkeys(row.condition for row in rows):
        cells = {(row.contender, row.group): row for row in rows if row.condition == condition}
        lines = [f"| {condition} | {' | '.join(titles)} |", f"|---|{'---:|' * len(titles)}"]
        for contender in dict.fromkeys(contender for contender, _ in cells):
            some = [cells[contender, group] for group in groups]
            values = [
                shown(name, row.share if name == "share" else row.values[name])
                for name in columns
                for row in some
            ]
            lines.append(f"| {' | '.join([contender, *values])} |")
        tables.append("\n".join(lines))
    return "\n\n".join(tables)
