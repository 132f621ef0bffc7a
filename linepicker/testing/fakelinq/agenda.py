"""What is to happen later, in the fake's time."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable
from random import Random
from typing import TypeAlias

__all__ = ["Agenda", "Span", "draw"]

Span: TypeAlias = float | tuple[float, float]
"""Seconds, or the least and the most of them, each length between equally likely."""


def draw(dice: Random, span: Span) -> float:
    """A length of time."""
    return dice.uniform(*span) if isinstance(span, tuple) else span


class Agenda:
    """Actions and their moments on *clock*. While one runs, `now` is its own moment, however late it is.

    Everything is called, and runs, under *lock*. Somebody has to call `run_due`: whoever moved the clock, or the thread
    that `start` begins, for a clock that moves by itself.
    """

    def __init__(self, clock: Callable[[], float], lock: threading.Condition) -> None:
        self._clock = clock
        self._lock = lock
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._moment: float | None = None
        self._thread: threading.Thread | None = None

    def now(self) -> float:
        """The moment: of the running action, else the clock's."""
        return self._clock() if self._moment is None else self._moment

    def after(self, delay: float, action: Callable[[], None]) -> None:
        """Run *action* *delay* seconds from now; those of one moment run in the order they came in."""
        heapq.heappush(self._heap, (self.now() + delay, next(self._order), action))
        if delay > 0:
            self._lock.notify_all()

    def run_due(self) -> None:
        """Run what is due, and what becomes due by it. Nothing inside an action."""
        if self._moment is not None:
            return
        try:
            while self._heap and self._heap[0][0] <= self._clock():
                self._moment, _, action = heapq.heappop(self._heap)
                action()
                self._moment = None
        finally:
            self._moment = None

    def start(self) -> None:
        """Begin to run everything as it becomes due."""
        self._thread = threading.Thread(target=self._keep, name="fakelinq-agenda", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread, if there is one; what has not happened stays."""
        with self._lock:
            thread, self._thread = self._thread, None
            self._lock.notify_all()
        if thread is not None:
            thread.join()

    def _keep(self) -> None:
        with self._lock:
            while self._thread is threading.current_thread():
                self.run_due()
                wait = self._heap[0][0] - self._clock() if self._heap else None
                self._lock.wait(wait)
