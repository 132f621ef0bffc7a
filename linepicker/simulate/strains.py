"""What strains are made of: counts over a rolling window, and sums that leak."""

from __future__ import annotations

import math
from collections import deque

__all__ = ["Leak", "Recent"]


class Recent:
    """How many there were within the last *window* seconds."""

    def __init__(self, window: float) -> None:
        self._window = window
        self._times: deque[float] = deque()

    def add(self, at: float) -> None:
        """One more at *at*."""
        self._times.append(at)

    def count(self, at: float) -> int:
        """How many count at *at*."""
        times, edge = self._times, at - self._window
        while times and times[0] <= edge:
            times.popleft()
        return len(times)


class Leak:
    """A sum of which e^-1 is left after *span* seconds, and never less than 0."""

    def __init__(self, span: float, amount: float, at: float) -> None:
        self._span, self._amount, self._at = span, amount, at

    def add(self, amount: float, at: float) -> None:
        """So much more, or less, at *at*."""
        self._amount, self._at = max(0.0, self.value(at) + amount), at

    def value(self, at: float) -> float:
        """What is left at *at*."""
        return self._amount * math.exp((self._at - at) / self._span)
