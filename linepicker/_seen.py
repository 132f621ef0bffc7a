"""The versions a process has seen, told to a store only if it asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Final

NOTHING: Final[Mapping[str, int]] = {}
_ALONE: Final = 64
"""After so many swaps that nobody else came between, a process takes itself to be alone."""
_PRESSED: Final = 8
"""For so many swaps after two refusals in a row a process tells of a long fleet too."""
_BEST_FOR: Final = 32


class Company:
    """Whether other processes write too, as far as this one's swaps met them, and which lines they are asked about."""

    def __init__(self) -> None:
        self._swaps = 0
        self._pressed = 0
        self._best: list[str] = []
        self._best_for = 0

    def near(self, *, long: bool) -> bool:
        """Whether to tell what was seen; asked once a swap. Of a *long* fleet, which is dear to tell of, only where one refusal
        was not enough: where many lines are as good, the one that it has repaired is still as good as any."""
        self._swaps += 1
        self._pressed -= 1
        return self._swaps <= _ALONE and (not long or self._pressed >= 0)

    def met(self) -> None:
        """A swap was refused: what ranks best is not what did."""
        if self._swaps == 1:
            self._pressed = _PRESSED
        self.changed()

    def changed(self) -> None:
        """All lines are ranked anew."""
        self._swaps = self._best_for = 0

    def best(self, find: Callable[[], list[str]]) -> list[str]:
        """The lines that rank best, as *find* says. It is asked after a refusal, or many processes would go through a long
        fleet one stale line after the other, and now and then."""
        self._best_for -= 1
        if self._best_for < 0:
            self._best, self._best_for = find(), _BEST_FOR
        return self._best


class Seen(Mapping[str, int]):
    """What *best* says, worked out when a store looks: most stores look only when they refuse. *guard*: the store looks outside
    the flow."""

    def __init__(
        self, guard: AbstractContextManager[object], best: Callable[[], dict[str, int]]
    ) -> None:
        self._guard = guard
        self._best = best
        self._found: dict[str, int] | None = None

    def _look(self) -> dict[str, int]:
        if self._found is None:
            with self._guard:
                self._found = self._best()
        return self._found

    def __getitem__(self, key: str) -> int:
        return self._look()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._look())

    def __len__(self) -> int:
        return len(self._look())
