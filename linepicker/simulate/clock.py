"""The clock of a simulation: it shows what the engine sets."""

from __future__ import annotations

__all__ = ["SimulatedClock"]


class SimulatedClock:
    """Time as the engine tells it; fits wherever a router's `clock=` is taken. Moments are epoch seconds UTC."""

    def __init__(self, start: float) -> None:
        self.moment = start

    def now(self) -> float:
        """The moment of the event that is being played."""
        return self.moment

    def sleep(self, seconds: float) -> None:
        """Returns at once: nothing else happens within one event."""
