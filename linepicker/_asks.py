"""The questions a flow may ask, and the words its answers are given in.

A driver of a few lines in each router answers the questions, so sync and async share every decision, and races can be tested
without threads by advancing several flows in any order. Between two questions a flow is alone with its fleet.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping, Sequence
from typing import Any, Final, TypeAlias, TypeVar

import attrs

from linepicker.model import Decision, Kind, Line, Outcome, Verdict
from linepicker.recipients import Recipient
from linepicker.stores import Write

T = TypeVar("T")
Flow: TypeAlias = Generator["Ask", Any, T]
ATTEMPTS: Final = 64


# Questions


@attrs.define
class Ask:
    """A question; the comment says what the answer is."""


@attrs.define
class Read(Ask):
    """→ Answer"""

    keys: Collection[str]


@attrs.define
class Swap(Ask):
    """→ Answer"""

    writes: Sequence[Write]
    seen: Mapping[str, int]


@attrs.define
class Fetch(Ask):
    """→ Fetched. Raises SourceError. *patient*: as long as the source takes, else one short attempt."""

    patient: bool


@attrs.define
class Lead(Ask):
    """→ whether this call is now the one that polls; its flow then calls `fleet.flight.release()`. *wait*: for the other"""

    wait: bool


@attrs.define
class Now(Ask):
    """→ the moment"""


@attrs.define
class Sleep(Ask):
    """→ None, that many seconds later"""

    seconds: float


@attrs.define
class Dice(Ask):
    """→ a number in [0, 1)"""


@attrs.define
class NewId(Ask):
    """→ a fresh id for a reservation"""


@attrs.define
class Call(Ask):
    """→ Called: the caller's send function was called with this reservation"""

    made: Made


@attrs.define
class Say(Ask):
    """→ None; a line for the log, with one of its levels"""

    text: str
    level: int = 30


@attrs.frozen
class Fetched:
    """A list of lines and when it was asked for."""

    lines: list[Line]
    issued: float


@attrs.frozen
class Called:
    """What the send function returned or raised, and what the source makes of it."""

    value: Any
    error: Exception | None
    verdict: Verdict


# What is asked for, and what was made of it


@attrs.frozen
class Who:
    """A recipient with what is derived from it."""

    recipient: Recipient
    contact_key: str
    block_key: str | None
    masked: str
    salt: int
    area: str | None


@attrs.define
class Made:
    """A reservation as the flows know it. `resumed`: an earlier one, found by its key."""

    id: str
    who: Who
    number: str
    kind: Kind
    send_at: float
    decision: Decision
    moved_from: str | None = None
    chat_id: str | None = None
    key: str | None = None
    outcome: Outcome | None = None
    override_optout: bool = False
    resumed: bool = False

    @property
    def ident(self) -> int:
        """32 bits of the id, as records remember it."""
        return ident_of(self.id)


def ident_of(made_id: str) -> int:
    """32 bits of a reservation's id, never 0."""
    return int(made_id[:8], 16) or 1
