"""Decisions as lines of JSON: what each was made of, as far as it is not told by the lines before, and what came of it. Pure.

A log begins with a header. Each router writes a session into it: a line for the session, one for its policy, and then one for
each decision, numbered. A decision brings with it what changed since the one before: lines of the list, and records, each
version once and as its difference from the version before. Recipients are named by a keyed hash; what else of them a
decision depends on (what settles ties, the area code) is sealed with that key.
"""

from __future__ import annotations

import json
import zlib
from base64 import b85decode, b85encode
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any, Final, Protocol

import attrs

from linepicker._asks import Made, Who
from linepicker._candidates import Request
from linepicker._contact import Contact
from linepicker._follow import Follower
from linepicker._quiet import written
from linepicker._record import Standing
from linepicker.fleet import Fleet
from linepicker.model import Decision, Line, Outcome, Report, Verdict
from linepicker.policy import Policy
from linepicker.recipients import area_code, parse

FORMAT: Final = 1
"""Of the log. A later one is refused."""
HEADER: Final = "linepicker decisions"
SHOWN: Final = 8
"""How many candidates of a decision are written out; the others are in its digest alone."""

_dumps: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


class Sink(Protocol):
    """Where lines go."""

    @property
    def key(self) -> bytes:
        """What names and seals recipients, once `stretch` was asked."""
        ...

    def stretch(self) -> object:
        """Which stretch of the log the next line belongs to; where that is another one, a session begins anew."""
        ...

    def write(self, text: str) -> None:
        """Append a line."""
        ...


def header(key: bytes, *, told: bool) -> str:
    """The first line of a log. *told*: the key is in it."""
    value: dict[str, Any] = {"t": HEADER, "format": FORMAT}
    if told:
        value["key"] = key.hex()
    return _dumps(value) + "\n"


def key_id(key: bytes) -> str:
    """What tells keys apart, and tells nothing of them."""
    return blake2b(key=key, person=b"id", digest_size=8).hexdigest()


# Recipients


def name_of(key: bytes, what: str, text: str) -> str:
    """A keyed hash: the same text has the same name wherever the key is the same."""
    return blake2b(text.encode(), key=key, person=what.encode(), digest_size=12).hexdigest()


def sealed(key: bytes, name: str, plain: bytes) -> bytes:
    """Bytes that nobody reads without the key; the same again opens them."""
    if len(plain) > 64:
        return sealed(key, name, plain[:64]) + sealed(key, f"{name} +", plain[64:])
    pad = blake2b(name.encode(), key=key, person=b"seal", digest_size=len(plain)).digest()
    return bytes(one ^ other for one, other in zip(plain, pad, strict=True))


# Records


def packed(raw: bytes, before: bytes) -> str:
    """Bytes as text, as the difference from *before*."""
    squeezed = zlib.compressobj(6, zlib.DEFLATED, -15, zdict=before[-32768:])
    return b85encode(squeezed.compress(raw) + squeezed.flush()).decode()


def unpacked(text: str, before: bytes) -> bytes:
    """The inverse of `packed`. Raises ValueError."""
    stretched = zlib.decompressobj(-15, zdict=before[-32768:])
    try:
        raw = stretched.decompress(b85decode(text)) + stretched.flush()
    except zlib.error as error:
        raise ValueError(f"a record can't be unpacked ({error})") from error
    if not stretched.eof:
        raise ValueError("a record is cut short")
    return raw


def line_told(line: Line) -> dict[str, Any]:
    """What the list says of a line, as far as it differs from nothing being said."""
    return {
        name: value
        for name, value in (
            ("reputation", str(line.reputation)),
            ("status", line.status and str(line.status)),
            ("line_type", line.line_type),
            ("tags", sorted(line.tags)),
            ("weight", line.weight if line.weight != 1.0 else None),
            ("unrecognised", line.unrecognised),
        )
        if value
    }


def request_told(request: Request, policy: Policy) -> dict[str, Any]:
    """What was asked for beyond the usual."""
    usual = Request(max_delay=policy.pace.max_delay)
    found = {}
    for field in attrs.fields(Request):
        value = getattr(request, field.name)
        if field.name != "sketch" and value != getattr(usual, field.name):
            found[field.name] = sorted(value) if isinstance(value, frozenset) else value
    return found


def digest_of(decision: Decision) -> str:
    """A decision in short."""
    return blake2b(decision.to_json().encode(), digest_size=12).hexdigest()


class Journal:
    """What one router writes."""

    def __init__(
        self, sink: Sink, new_session: Callable[[], str], facts: Mapping[str, Any]
    ) -> None:
        self._sink, self._new_session = sink, new_session
        self._facts = dict(facts)
        self._key = b""
        self._stretch: object = None
        self._fleet: Fleet | None = None
        self._policy: Policy | None = None
        self._polled_at: float | None = None
        self._session, self._count = "", 0
        self._follower = Follower()
        self._raw: dict[tuple[str, str], bytes] = {}

    def decided(
        self,
        fleet: Fleet,
        request: Request,
        who: Who,
        now: float,
        made_id: str,
        told: Made | Decision,
        *,
        key: str | None = None,
        in_outage: bool = False,
    ) -> None:
        """Write a decision down. To be called when it has been made, and nothing has changed since."""
        self._begin(fleet)
        decision = told.decision if isinstance(told, Made) else told
        name = name_of(self._key, "to", who.recipient.key)
        area = None if who.is_group else area_code(who.recipient.handles[0])
        secret = sealed(self._key, name, who.salt.to_bytes(4) + (area or "").encode())
        value: dict[str, Any] = {"id": made_id, "at": now, "to": name, "who": secret.hex()}
        if who.is_group:
            value["group"] = True
        if who.rest:
            value["rest"] = sealed(self._key, f"{name} rest", written(who.rest).encode()).hex()
        if who.contact is not None:
            value["contact"] = b85encode(_bare(who.contact).encode()).decode()
        if who.block is not None:
            value["block"] = [who.block.out, who.block.refused, who.block.back]
        asked = request_told(request, fleet.policy)
        if asked:
            value["request"] = asked
        if key is not None:
            value["key"] = name_of(self._key, "key", key)
        value |= self._news(fleet)
        if fleet.slow:
            value["slow"] = True
        if fleet.stale:
            value |= {"stale": True, "next_try": _number(fleet.next_try)}
        if in_outage:
            value["outage"] = True
        if len(decision.candidates) > SHOWN:
            value |= {"of": len(decision.candidates), "digest": digest_of(decision)}
            decision = attrs.evolve(decision, candidates=decision.candidates[:SHOWN])
        self._say("decision", value, f',"decision":{decision.to_json()}')

    def withdrawn(self, fleet: Fleet, made_id: str) -> None:
        """Write down that the latest decision of that id was not written to the store."""
        self._begin(fleet)
        self._say("void", {"id": made_id})

    def moved(self, fleet: Fleet, who: Who, number: str | None, now: float) -> None:
        """Write down that somebody moved a recipient: to this line, or to the best one."""
        self._begin(fleet)
        told: dict[str, Any] = {"at": now, "to": name_of(self._key, "to", who.recipient.key)}
        if who.is_group:
            told["group"] = True
        if number is not None:
            told["line"] = number
        self._say("move", told)

    def settled(self, fleet: Fleet, made: Made, verdict: Verdict, now: float) -> None:
        """Write down what became of a reservation; nothing, where it was sent and nobody learned anything."""
        told = (verdict.number, verdict.chat_id, verdict.message_id, verdict.retry_after)
        plain = made.key is None and not made.on_probation and told == (None,) * 4
        if plain and verdict.outcome is Outcome.SENT:
            return
        self._begin(fleet)
        value: dict[str, Any] = {"id": made.id, "at": now, "outcome": str(verdict.outcome)}
        for what, given in (("chat", verdict.chat_id), ("message", verdict.message_id)):
            if isinstance(given, str):
                value[what] = name_of(self._key, what, given)
        if verdict.number is not None and verdict.number != made.number:
            value["number"] = verdict.number
        if verdict.retry_after is not None:
            value["retry_after"] = verdict.retry_after
        self._say("settled", value)

    def reported(self, fleet: Fleet, report: Report, now: float) -> None:
        """Write a report down, without what was said in it."""
        self._begin(fleet)
        told: dict[str, Any] = {"type": type(report).__name__}
        for field in attrs.fields(type(report)):
            given = getattr(report, field.name)
            if given == field.default or field.name == "text":
                continue
            if field.name == "to":
                recipient = parse(given, default_region=fleet.policy.default_region)
                given = name_of(self._key, "to", recipient.key)
                if recipient.is_group:
                    told["group"] = True
            elif field.name in ("chat_id", "message_id", "event_id"):
                given = name_of(self._key, field.name.partition("_")[0], str(given))
            told[field.name] = given
        self._say("report", {"at": now, "report": told})

    def begin_anew(self) -> None:
        """A line may have been lost: the next one begins another session."""
        self._fleet = None

    def _begin(self, fleet: Fleet) -> None:
        """Begin a session where a stretch of the log, the fleet or the policy is a new one."""
        stretch = self._sink.stretch()
        if stretch != self._stretch or fleet is not self._fleet:
            self._stretch, self._fleet = stretch, fleet
            self._session, self._count = self._new_session(), 0
            self._follower, self._policy, self._polled_at = Follower(), None, None
            self._raw.clear()
            self._key = self._sink.key
            facts = {"static": fleet.static, "key_id": key_id(self._key)}
            self._say("session", {**self._facts, **facts})
        if fleet.policy is not self._policy:
            self._policy = fleet.policy
            self._say("policy", {"policy": fleet.policy.to_dict()})

    def _news(self, fleet: Fleet) -> dict[str, Any]:
        """What changed of the fleet since the last decision."""
        value: dict[str, Any] = {}
        if fleet.polled_at != self._polled_at:
            self._polled_at = value["polled"] = fleet.polled_at
        found, gone = self._follower.news(fleet)
        listed, records = {}, {}
        for each in found:
            number, state = each.state.line.number, each.state
            if each.listed:
                listed[number] = line_told(state.line)
            mine = {}
            if each.standing:
                mine["standing"] = self._record(
                    number, "standing", state.standing_version, _bare(state.standing)
                )
            if each.spending:
                mine["spending"] = self._record(
                    number, "spending", state.spending_version, state.spending
                )
            if mine:
                records[number] = mine
        for number in gone:
            self._raw.pop((number, "standing"), None)
            self._raw.pop((number, "spending"), None)
        news = (("lines", listed), ("gone", gone), ("records", records))
        return value | {what: told for what, told in news if told}

    def _record(self, number: str, what: str, version: int, record: Any) -> list[Any]:
        raw: bytes = record.encode()
        before = self._raw.get((number, what), b"")
        self._raw[number, what] = raw
        return [version, packed(raw, before)]

    def _say(self, what: str, value: Mapping[str, Any], more: str = "") -> None:
        self._count += 1
        text = _dumps({"t": what, "s": self._session, "n": self._count, **value})
        self._sink.write(f"{text[:-1]}{more}}}\n")


def _bare(record: Any) -> Any:
    """A record without what no decision depends on, and what might tell who somebody is."""
    if isinstance(record, Contact) and (record.chats or record.seldom.rest or record.seldom.tail):
        return record.having(chats={}, rest={}, tail=b"")
    if isinstance(record, Standing) and (record.reason or record.rest):
        return attrs.evolve(record, reason="", rest={})
    return record


def _number(value: float) -> float | None:
    """JSON has no infinity."""
    return value if abs(value) != float("inf") else None
