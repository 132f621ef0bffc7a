"""The versions a process has seen, told to a store only if it asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Final

NOTHING: Final[Mapping[str, int]] = {}
_ALONE: Final = 64
"""After so many swaps that nobody else came between, a process takes itself to be alone."""
SEEN_AT_MOST: Final = 64
"""Of so many lines a swap may tell what was seen; more are a long fleet."""
PART: Final = 256
"""So many lines of a long fleet are read again after a refusal: with eight processes on 1,000 lines better than 64 or 1,000."""


class Company:
    """Whether other processes write too, as far as this one's swaps met them, and which lines are looked at for it."""

    def __init__(self) -> None:
        self._swaps = 0
        self._place = 0

    def near(self) -> bool:
        """Whether to tell what was seen; asked once a swap."""
        self._swaps += 1
        return self._swaps <= _ALONE

    def met(self) -> None:
        """Others may write: a swap was refused, or all lines are ranked anew."""
        self._swaps = 0

    def part(self, of: int) -> tuple[int, int]:
        """From where to where to read in a fleet *of* so many lines: each time where the last time ended."""
        begin = self._place if self._place < of else 0
        self._place = begin + PART
        return begin, self._place


class Seen(Mapping[str, int]):
    """What *find* says, worked out when a store looks: most stores look only when they refuse. *guard*: the store looks outside
    the flow."""

    def __init__(
        self, guard: AbstractContextManager[object], find: Callable[[], dict[str, int]]
    ) -> None:
        self._guard = guard
        self._find = find
        self._found: dict[str, int] | None = None

    def _look(self) -> dict[str, int]:
        if self._found is None:
            with self._guard:
                self._found = self._find()
        return self._found

    def __getitem__(self, key: str) -> int:
        return self._look()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._look())

    def __len__(self) -> int:
        return len(self._look())
