"""The questions a flow may ask, and the words its answers are given in.

A driver of a few lines in each router answers the questions, so sync and async share every decision, and races can be tested
without threads by advancing several flows in any order. Between two questions a flow is alone with its fleet.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping, Sequence
from typing import Any, Final, TypeAlias, TypeVar

import attrs

from linepicker._candidates import candidate
from linepicker._contact import Contact
from linepicker._conversation import Note, said
from linepicker._decode import decode
from linepicker._line import Rank
from linepicker._quiet import Rest
from linepicker._small import Block
from linepicker.model import (
    Candidate,
    Decision,
    Kind,
    Line,
    Outcome,
    StandingChanged,
    To,
    Verdict,
)
from linepicker.recipients import Recipient
from linepicker.stores import SAME, Record, Write

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
class Scan(Ask):
    """→ the records whose keys begin with that, as pairs"""

    prefix: str


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
    """→ None; a line for the log, with one of its levels, and in a word what happened. *who* stands for {to} in the text"""

    text: str
    level: int = 30
    event: str = "note"
    who: Who | None = None


@attrs.define
class Refused(Ask):
    """→ None; a refusal that is about to be raised"""

    decision: Decision
    who: Who


@attrs.define
class Tell(Ask):
    """→ None; a line that came to stand otherwise"""

    change: StandingChanged


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


@attrs.define
class Who:
    """A recipient with what is derived from it, and the records last seen of it: a guess until a swap confirms it."""

    recipient: Recipient
    contact_key: str
    block_key: str | None
    salt: int
    area: str | None
    rest: Rest = ()
    contact_version: int = 0
    contact: Contact | None = None
    block_version: int = 0
    block: Block | None = None
    block_seen: bool = False
    """Whether the store ever told whether they want messages."""
    same: Write | None = attrs.field(init=False)
    """The demand that the block has not moved."""

    def __attrs_post_init__(self) -> None:
        key = self.block_key
        self.same = None if key is None else Write(key, 0, SAME)

    @property
    def is_group(self) -> bool:
        """Whether it is a group."""
        return self.recipient.is_group

    @property
    def masked(self) -> str:
        """The recipient, for people and logs."""
        return self.recipient.masked

    def blocked(self, version: int, block: Block | None) -> None:
        """Whether they want messages, as was read or written."""
        self.block_version, self.block = version, block
        self.same = None if self.block_key is None else Write(self.block_key, version, SAME)

    def met(self, version: int, contact: Contact) -> None:
        """The contact this process has just written."""
        self.block_seen = True  # the swap demanded it
        if version > self.contact_version:
            self.contact_version, self.contact = version, contact

    def learn(self, found: Mapping[str, Record]) -> None:
        """Take in records as a store returned them."""
        record = found.get(self.contact_key)
        if record is not None and record.version != self.contact_version:
            self.contact_version, self.contact = record.version, decode(self.contact_key, record)
        record = found.get(self.block_key) if self.block_key is not None else None
        if record is not None:
            self.block_seen = True
        if record is not None and record.version != self.block_version:
            self.blocked(record.version, decode("block/", record))


class Made:
    """A reservation as the flows know it. What is usual of one stands here, and in no instance: so making one is cheap.

    `resumed`: an earlier one, found by its key, or one that another call found so. `in_outage`: not on record yet.
    """

    moved_from: str | None = None
    chat_id: str | None = None
    key: str | None = None
    outcome: Outcome | None = None
    override_optout: bool = False
    resumed: bool = False
    on_probation: bool = False
    notes: tuple[Note, ...] = ()
    continuation: str | None = None
    shadowed: bool = False
    chat_health: str | None = None
    in_outage: bool = False
    inbound: bool = False
    trace_id: str | None = None

    def __init__(
        self,
        ident: str,
        who: Who,
        number: str,
        kind: Kind,
        at: float,
        send_at: float,
        line: Line,
        ranks: Sequence[tuple[str, Rank, float]] = (),
    ) -> None:
        self.id = ident
        self.who = who
        self.number = number
        self.kind: Kind = kind
        self.at = at
        self.send_at = send_at
        self.line = line
        self.ranks = ranks

    @property
    def to(self) -> To:
        """The recipient."""
        return self.who.recipient.to

    @property
    def plain(self) -> bool:
        """Open, and with nothing to be written if it is SENT."""
        return self.outcome is None and self.key is None and not self.on_probation

    @property
    def ident(self) -> int:
        """32 bits of the id, as records remember it."""
        return ident_of(self.id)

    @property
    def decision(self) -> Decision:
        """The record of the choice: put into words when somebody asks, from what was known then."""
        chosen = tuple(
            candidate(number, rank, affinity, at=self.at) for number, rank, affinity in self.ranks
        )
        return Decision(
            "reserved",
            self.number,
            self.kind,
            None,
            None,
            self.send_at - self.at,
            chosen or (Candidate(self.number, 1.0, slot=self.send_at),),
            self.at,
            self.who.masked,
            self.moved_from,
            tuple(map(said, self.notes)),
        )


def ident_of(made_id: str) -> int:
    """32 bits of a reservation's id, never 0."""
    return int(made_id[:8], 16) or 1
