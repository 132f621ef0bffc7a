"""Whom a fleet has to do with: who polls for it, and who looks on."""

from __future__ import annotations

from typing import Any, Protocol


class Flight(Protocol):
    """The right to poll, which one call at a time holds."""

    def release(self) -> None:
        """Let the next one have it."""
        ...


class Onlooker(Protocol):
    """What is told of each decision, and of what is learned later. Whatever it does, it raises nothing."""

    def decided(
        self,
        request: Any,
        who: Any,
        now: float,
        made_id: str,
        told: Any,
        *,
        key: str | None = None,
        in_outage: bool = False,
    ) -> None:
        """A choice was made, and nothing has changed since: *told* is the reservation, or the decision of a refusal."""
        ...

    def withdrawn(self, made_id: str) -> None:
        """That choice was not written after all."""
        ...

    def moved(self, who: Any, number: str | None, now: float) -> None:
        """Somebody moved a recipient: to this line, or to the best one."""
        ...

    def settled(self, made: Any, verdict: Any, now: float) -> None:
        """What became of a reservation."""
        ...
