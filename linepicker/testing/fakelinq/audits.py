"""Reputation audits."""

from __future__ import annotations

import math
from typing import Final

from linepicker.testing.fakelinq.gate import RANK
from linepicker.testing.fakelinq.model import Audit, Refusal
from linepicker.testing.fakelinq.world import World

__all__ = ["Audits"]

READABLE: Final = 86400.0
"""Seconds for which an audit can be read (Linq: reputation audit)."""


class Audits:
    """The audits of an account's lines: one at a time for each, and not too often."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._all: dict[str, Audit] = {}
        self._last: dict[str, Audit] = {}

    def start(self, number: str) -> Audit:
        """Start an audit of a line, or find the one that runs. Raises `Refusal`: no such line, or too soon."""
        now = self._world.now()
        if number not in self._world.lines:
            raise Refusal(404, 2019, "Phone number not found.")
        last = self._last.get(number)
        if last is not None and now < last.ready_at:
            return last
        if last is not None and now < last.ready_at + self._world.guesses.audit_cooldown:
            wait = math.ceil(last.ready_at + self._world.guesses.audit_cooldown - now)
            raise Refusal(
                429, 1007, f"Rate limited. Try again in {wait} seconds.", retry_after=wait
            )
        line = self._world.lines[number]
        audit = Audit(
            number=number,
            severity=line.reputation if line.reputation in RANK else "HEALTHY",
            flagged=line.status == "FLAGGED",
            started_at=now,
            ready_at=now + self._world.guesses.audit_seconds,
        )
        self._all[audit.id] = self._last[number] = audit
        return audit

    def get(self, number: str, audit_id: str) -> Audit:
        """An audit of this line, for a day; a 404 otherwise."""
        audit = self._all.get(audit_id)
        if (
            audit is None
            or audit.number != number
            or self._world.now() - audit.started_at >= READABLE
        ):
            raise Refusal(404, 2019, "Reputation audit not found.")
        return audit
