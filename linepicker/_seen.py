"""The versions a process has seen, told to a store only if it asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager


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
