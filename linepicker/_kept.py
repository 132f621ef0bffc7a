"""Records as they were last seen: guesses, which spare a reading until a swap refuses them."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final, NamedTuple

import attrs

from linepicker._record import Spending, Standing

AT_MOST: Final = 10_000
"""How many a process keeps: tallies, and whose conversations and messages are. Those not used for longest go first."""


class Guess(NamedTuple):
    """A record as it was last seen, decoded; None with version 0: it was not there."""

    version: int
    value: Any


@attrs.define
class Held:
    """A line's two records with their versions."""

    standing: Standing
    standing_version: int
    spending: Spending
    spending_version: int


class Kept:
    """Those that neither the fleet nor a recipient holds. Changed only under its router's lock, like the fleet."""

    def __init__(self, at_most: int = AT_MOST) -> None:
        self._at_most = at_most
        self._records: OrderedDict[str, Guess] = OrderedDict()  # the latest used last

    def get(self, key: str) -> Guess | None:
        """What was last seen there, if that is still known."""
        found = self._records.get(key)
        if found is not None:
            self._records.move_to_end(key)
        return found

    def put(self, key: str, seen: Guess) -> None:
        """What was seen there."""
        self._records[key] = seen
        self._records.move_to_end(key)
        if len(self._records) > self._at_most:
            self._records.popitem(last=False)
