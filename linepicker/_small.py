"""The small records, each one JSON object: whether a handle wants messages, the moments of polls, what a key stands for, whose
a message was."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs

from linepicker._bytes import BROKEN, FORMAT, damaged, dump, format_of, load
from linepicker._observations import DRIFT

POLLS_KEPT: Final = 600.0
"""For how long, in seconds, the moments of polls are remembered."""


def _moment(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if type(value) not in (int, float) or not math.isfinite(value):  # type: ignore[arg-type]  # a number here
        raise ValueError(f"{attribute.name} is no moment")


def _listed(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(values)


_SOMETIMES: Final = attrs.validators.optional(_moment)
_TEXT: Final = attrs.validators.instance_of(str)


@attrs.frozen(kw_only=True)
class _Small:
    """A record that is one small JSON object."""

    format: int = FORMAT
    rest: Mapping[str, Any] = attrs.field(factory=dict, repr=False)


@attrs.frozen
class Block(_Small):
    """Whether a handle wants messages: the moments of its last opt-out, refusal and return."""

    out: float | None = attrs.field(default=None, validator=_SOMETIMES)
    refused: float | None = attrs.field(default=None, validator=_SOMETIMES)
    back: float | None = attrs.field(default=None, validator=_SOMETIMES)

    @property
    def code(self) -> str | None:
        """ "opted_out", "blocked" or None. On a tie the stricter wins."""
        for code, moment in (("opted_out", self.out), ("blocked", self.refused)):
            if moment is not None and (self.back is None or moment >= self.back):
                return code
        return None

    def until(self, at: float, latest: float) -> Block:
        """For who opted out, or was refused, at *at*: a return after *latest*, which only a clock that stepped back can
        explain, does not outrank it."""
        return self if self.back is None or self.back <= latest else attrs.evolve(self, back=at)


@attrs.frozen
class FleetRecord(_Small):
    """The moments of the last polls that found the same lines, and of the first of all; what the last list was, in short, and
    which lines it had; until when somebody is reading it; whether a reply was ever reported, without which nobody seems to
    answer."""

    polls: tuple[float, ...] = attrs.field(
        default=(), converter=_listed, validator=attrs.validators.deep_iterable(_moment)
    )
    first: float | None = attrs.field(default=None, validator=_SOMETIMES)
    digest: str = attrs.field(default="", validator=_TEXT)
    members: str = attrs.field(default="", validator=_TEXT)
    lease_until: float = attrs.field(default=0.0, validator=_moment)
    heard: bool = False

    def seen(self, members: str) -> tuple[float, ...]:
        """The moments of the polls before that found the same lines."""
        return self.polls if members == self.members else ()

    def after_poll(
        self, issued: float, now: float, digest: str, members: str, *, first: bool
    ) -> FleetRecord:
        """The record after a poll, answered *now*, that brought a list with that digest, of those lines."""
        since, known = now - POLLS_KEPT, {*self.seen(members), issued}
        return attrs.evolve(
            self,
            polls=tuple(sorted(p for p in known if since < p <= now + DRIFT)),
            first=issued if first else self.first,
            digest=digest,
            members=members,
            lease_until=0.0,
        )


@attrs.frozen
class Ticket(_Small):
    """The reservation that a key stands for, and what became of it ("" while open). `again`: it was handed out a second time
    while it was open, so that what one attempt meets says nothing of the other."""

    id: str = attrs.field(validator=attrs.validators.matches_re("[0-9a-f]{8,64}"))
    to: str = attrs.field(validator=_TEXT)
    number: str = attrs.field(validator=_TEXT)
    kind: str = attrs.field(validator=attrs.validators.in_(("new", "known", "moved")))
    send_at: float = attrs.field(validator=_moment)
    made_at: float = attrs.field(validator=_moment)
    outcome: str = attrs.field(default="", validator=_TEXT)
    moved_from: str | None = attrs.field(default=None, validator=attrs.validators.optional(_TEXT))
    continuation: str | None = attrs.field(default=None, validator=attrs.validators.optional(_TEXT))
    again: bool = attrs.field(default=False, validator=attrs.validators.instance_of(bool))


@attrs.frozen
class Link(_Small):
    """Whose a message or a conversation is, by the provider's id: the pool and key of the recipient, the line, since when. Of
    a message also what became of it; `blamed`: its failure counts against the line; `unreceipted`: and is no reason for a time
    out. Where receipts came for a message that was not settled (yet) it is nobody's, since the first of them."""

    pool: str = attrs.field(validator=_TEXT)
    to: str = attrs.field(validator=_TEXT)
    number: str = attrs.field(validator=_TEXT)
    at: float = attrs.field(validator=_moment)
    delivered: bool = False
    read: bool = False
    failed_at: float | None = attrs.field(default=None, validator=_SOMETIMES)
    code: int | None = None
    blamed: bool = False
    unreceipted: bool = False


def encode_small(record: Block | FleetRecord | Link | Ticket) -> bytes:
    """The bytes of a small record."""
    known = attrs.asdict(record, recurse=False)
    del known["format"], known["rest"]
    return bytes((record.format,)) + dump({**record.rest, **known})


def _small(kind: type, what: str, raw: bytes) -> Any:
    number = format_of(raw, what)
    names = {field.name for field in attrs.fields(kind)} - {"format", "rest"}
    try:
        value = load(raw[1:])
        known = {name: value.pop(name) for name in names & value.keys()}
        return kind(**known, format=number, rest=value)
    except BROKEN as error:
        raise damaged(what, error) from error


def decode_block(raw: bytes) -> Block:
    """A block from its bytes."""
    block: Block = _small(Block, "block", raw)
    return block


def decode_fleet(raw: bytes) -> FleetRecord:
    """A fleet's record from its bytes."""
    record: FleetRecord = _small(FleetRecord, "fleet", raw)
    return record


def decode_ticket(raw: bytes) -> Ticket:
    """A key's record from its bytes."""
    ticket: Ticket = _small(Ticket, "key", raw)
    return ticket


def decode_link(raw: bytes) -> Link:
    """A link from its bytes."""
    link: Link = _small(Link, "link", raw)
    return link
