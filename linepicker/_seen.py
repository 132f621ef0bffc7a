"""The versions a process has seen, told to a store only if it asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Final

NOTHING: Final[Mapping[str, int]] = {}
_ALONE: Final = 64
"""After so many swaps that nobody else came between, a process takes itself to be alone."""


class Company:
    """Whether other processes write too, as far as this one's swaps met them."""

    def __init__(self) -> None:
        self._swaps = 0

    def near(self) -> bool:
        """Whether one was met lately; asked once a swap."""
        self._swaps += 1
        return self._swaps <= _ALONE

    def met(self) -> None:
        """A swap was refused."""
        self._swaps = 0


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
