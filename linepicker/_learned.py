"""What a line's own history has taught of it, as its standing keeps it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

from linepicker._bytes import number

LEADS_KEPT: Final = 9
"""How many of the latest warnings that came true are remembered by how early they came."""


@attrs.frozen
class Learned:
    """Numbers in conversations a day, moments, counts; 0 where nothing is known.

    `budget`: what the line may bear by its own record. `today`: what it may bear in the sending day that runs, where that is
    less. `ceiling`: the load that preceded its last fall, as of `relaxed_at`. `proven`: the most it carried on two sending days
    in a row while HEALTHY; `carried`: what it carried on the last. `changed_at`: when the budget was last cut or raised.
    `cut_at`: when it was last cut. `bounded`: by what `today` is less, "fleet" or "jump".
    `day`: the last sending day whose opening was taken in. `spread`: share of the day that 6 h may take, where the pool's
    days ask for more than the policy.

    `nearness`: how near the known causes of AT_RISK it was at `near_at`, from 0 to 1, with its `drivers`. `warned_at`: since
    when that has been a warning. `hits`: warnings that came true, the latest by `leads`, seconds before; `alarms`: those that
    did not; `misses`: falls without one.
    """

    budget: float = 0.0
    today: float = 0.0
    ceiling: float = 0.0
    relaxed_at: float = 0.0
    proven: float = 0.0
    carried: float = 0.0
    changed_at: float = 0.0
    cut_at: float = 0.0
    bounded: str = ""
    day: int = 0
    spread: float = 0.0
    nearness: float = 0.0
    near_at: float = 0.0
    drivers: Mapping[str, float] = attrs.field(factory=dict)
    warned_at: float = 0.0
    hits: int = 0
    alarms: int = 0
    misses: int = 0
    leads: tuple[float, ...] = ()
    rest: Mapping[str, Any] = attrs.field(factory=dict, repr=False)

    def to_json(self) -> dict[str, Any]:
        """What is known, as JSON can hold it."""
        found = {name: getattr(self, name) for name in _FIELDS}
        return {**self.rest, **{name: value for name, value in found.items() if value}}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Learned:
        """The inverse of `to_json`. Raises ValueError, TypeError, KeyError or AttributeError on anything else."""
        rest = dict(value)
        known: dict[str, Any] = {name: rest.pop(name) for name in _FIELDS if name in rest}
        for name, read in _READ.items():
            if name in known:
                known[name] = read(known[name])
        return cls(**known, rest=rest)


_READ: Final[Mapping[str, Callable[[Any], Any]]] = {
    **dict.fromkeys(
        (
            "budget",
            "today",
            "ceiling",
            "relaxed_at",
            "proven",
            "carried",
            "changed_at",
            "cut_at",
            "spread",
            "nearness",
            "near_at",
            "warned_at",
        ),
        number,
    ),
    "bounded": str,
    **dict.fromkeys(("day", "hits", "alarms", "misses"), int),
    "drivers": lambda value: {str(name): number(each) for name, each in value.items()},
    "leads": lambda value: tuple(map(number, value)),
}
_FIELDS: Final = tuple(field.name for field in attrs.fields(Learned) if field.name != "rest")
NOTHING: Final = Learned()
