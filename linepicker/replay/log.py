"""A log of decisions, read: what each decision was made of, put together again line by line."""

from __future__ import annotations

import json
import math
import re
from base64 import b85decode
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Final

import attrs

from linepicker._candidates import Request
from linepicker._contact import Contact
from linepicker._journal import FORMAT, HEADER, key_id, sealed, unpacked
from linepicker._kept import Held
from linepicker._quiet import Rest, read_back
from linepicker._record import Spending, Standing, spending_key, standing_key
from linepicker._shadow import Someone
from linepicker._small import Block
from linepicker.errors import PolicyError, StoreError
from linepicker.fleet import Fleet
from linepicker.model import Line
from linepicker.policy import Policy

__all__ = ["Decided", "Entry", "LogError", "Session", "read", "withdrawn"]

_LATEST: Final = 1e11  # the year 5138
_BROKEN: Final = (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError)


class LogError(ValueError):
    """A log can't be read; the message names the file and the line."""


@attrs.frozen
class Decided:
    """A decision as it was written down: whom it was for, what was asked, when, and what came of it."""

    id: str
    at: float
    to: str
    person: Someone
    request: Request
    asked: Mapping[str, Any]
    key: str | None
    in_outage: bool
    told: dict[str, Any]
    of: int
    digest: str | None


@attrs.frozen
class Entry:
    """A line of a log. `decided` for a decision; `value` for a settlement, a report or a move."""

    place: str
    kind: str
    session: Session
    value: Mapping[str, Any]
    decided: Decided | None = None


class Session:
    """What one router knew, as far as its log tells it: policy, lines, records, freshness."""

    def __init__(self, name: str, value: Mapping[str, Any], key: bytes) -> None:
        self.name = name
        self.pool = str(value["pool"])
        self.static = bool(value["static"])
        self.key = key
        self.count = int(value["n"])
        self.policy: Policy | None = None
        self.fleet = Fleet(Policy(), self.pool, static=self.static)
        self.lines: dict[str, Line] = {}
        self._raw: dict[tuple[str, str], bytes] = {}

    def ruled(self, value: Mapping[str, Any]) -> None:
        """Another policy from here on."""
        self.policy = Policy.from_dict(value["policy"])
        self.fleet.apply(self.policy)

    def take(self, value: Mapping[str, Any]) -> Decided:
        """Bring the fleet to where it was when this decision was made."""
        policy = self.policy
        if policy is None:
            raise ValueError("no policy was told before")
        fleet, at = self.fleet, float(value["at"])
        if not 0.0 <= at < _LATEST:
            raise ValueError(f"at must be epoch seconds, got {at!r}")
        if "polled" in value:
            fleet.polled_at = value["polled"]
        self._lines(value.get("lines", {}), value.get("gone", ()), value.get("records", {}))
        next_try = value.get("next_try")
        fleet.next_try = -math.inf if next_try is None else float(next_try)
        fleet.under(at, slow=value.get("slow", False), stale=value.get("stale", False))
        told = value["decision"]
        asked = dict(value.get("request", {}))
        return Decided(
            str(value["id"]),
            at,
            str(value["to"]),
            self._person(value, str(told["to"])),
            _request(asked, policy),
            asked,
            value.get("key"),
            bool(value.get("outage", False)),
            told,
            int(value.get("of", 0)),
            value.get("digest"),
        )

    def _lines(
        self, listed: Mapping[str, Any], gone: Iterable[str], told: Mapping[str, Any]
    ) -> None:
        fleet, records = self.fleet, dict[tuple[str, str], tuple[int, Any]]()
        for number, both in told.items():
            for what, (version, text) in both.items():
                raw = unpacked(text, self._raw.get((number, what), b""))
                self._raw[number, what] = raw
                kind: Any = {"standing": Standing, "spending": Spending}[what]
                records[number, what] = int(version), kind.decode(raw)
        for number in gone:
            del self.lines[number]
            self._raw.pop((number, "standing"), None)
            self._raw.pop((number, "spending"), None)
        for number, value in listed.items():
            self.lines[number] = Line(number, **value)
        if listed or gone:
            polled_at = fleet.polled_at
            held = {number: self._held(number, records) for number in self.lines}
            fleet.install(self.lines.values(), held, polled_at or 0.0)
            fleet.polled_at = polled_at
        for (number, what), (version, record) in records.items():
            key = standing_key(number) if what == "standing" else spending_key(number)
            fleet.wrote(key, version, record, lost=True)

    def _held(self, number: str, records: Mapping[tuple[str, str], tuple[int, Any]]) -> Held:
        state = self.fleet.state(number)
        if state is not None:
            return Held(
                state.standing, state.standing_version, state.spending, state.spending_version
            )
        standing, spending = records[number, "standing"], records[number, "spending"]
        return Held(standing[1], standing[0], spending[1], spending[0])

    def _person(self, value: Mapping[str, Any], masked: str) -> Someone:
        plain = sealed(self.key, value["to"], bytes.fromhex(value["who"]))
        contact, block = value.get("contact"), value.get("block")
        return Someone(
            int.from_bytes(plain[:4]),
            plain[4:].decode("ascii") or None,
            None if contact is None else Contact.decode(b85decode(contact)),
            None if block is None else Block(*block),
            bool(value.get("group", False)),
            masked,
            self._rest(value),
        )

    def _rest(self, value: Mapping[str, Any]) -> Rest:
        if "rest" not in value:
            return ()
        plain = sealed(self.key, f"{value['to']} rest", bytes.fromhex(value["rest"]))
        return read_back(plain.decode("ascii"))


def _request(asked: Mapping[str, Any], policy: Policy) -> Request:
    usual = Request(max_delay=policy.pace.max_delay)
    given: dict[str, Any] = {}
    for name, value in asked.items():
        if name not in attrs.fields_dict(Request):
            raise ValueError(f"a newer linepicker asked for {name}")
        given[name] = frozenset(value) if isinstance(value, list) else value
    return attrs.evolve(usual, **given)


class _Reader:
    """Reads one file: knows its sessions, and what to say of a line that can't be read."""

    def __init__(self, path: Path, keys: Mapping[str, bytes]) -> None:
        self.path, self.keys = path, dict(keys)
        self.sessions: dict[str, Session] = {}
        self.begun = False

    def entry(self, place: str, raw: bytes) -> Entry | None:
        """What a line tells, None for what only prepares others. Raises ValueError and its like."""
        if not raw.endswith(b"\n"):
            raise ValueError("it is cut short")
        value = json.loads(raw)
        if not isinstance(value, dict):
            raise TypeError("it is no JSON object")
        kind = value.get("t")
        if not self.begun or kind == HEADER:
            self._header(value)
            return None
        name, count = str(value["s"]), int(value["n"])
        if kind == "session":
            self.sessions[name] = Session(name, value, self._key(value["key_id"]))
            return None
        session = self.sessions.get(name)
        if session is None:
            raise ValueError(f"it belongs to session {name}, whose beginning is missing")
        if count != session.count + 1:
            raise ValueError(
                f"lines are missing before it: it is number {count} of session {name}, after {session.count}"
            )
        session.count = count
        if kind == "policy":
            session.ruled(value)
            return None
        if kind == "decision":
            return Entry(place, "decision", session, value, session.take(value))
        if kind == "void":
            return None
        if kind in ("settled", "report", "move"):
            return Entry(place, str(kind), session, value)
        raise ValueError(f"a line of kind {kind!r} is not known")

    def _header(self, value: Mapping[str, Any]) -> None:
        if value.get("t") != HEADER:
            raise ValueError("it is not the first line of a log of decisions")
        if value.get("format") != FORMAT:
            raise ValueError(
                f"the log has format {value.get('format')!r}, this linepicker reads {FORMAT}: "
                "replay it with the version that wrote it"
            )
        self.begun = True
        if "key" in value:
            key = bytes.fromhex(value["key"])
            self.keys[key_id(key)] = key

    def _key(self, name: str) -> bytes:
        if name not in self.keys:
            raise ValueError(
                "its recipients are sealed with a key that is not in the file: give that key"
            )
        return self.keys[name]


def read(paths: Iterable[str | PathLike[str]], *, key: bytes | None = None) -> Iterator[Entry]:
    """The decisions, settlements, reports and moves of these files in their order. *key*: the one that `DecisionLog` was given.

    Raises LogError that names the line, for one that is damaged, missing or of another format; OSError.
    """
    keys = {} if key is None else {key_id(key): key}
    for path in map(Path, paths):
        reader = _Reader(path, keys)
        with path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                place = f"{path}, line {number}"
                try:
                    entry = reader.entry(place, raw)
                except json.JSONDecodeError as error:
                    raise LogError(f"{place}: it is damaged: not JSON ({error.msg})") from error
                except KeyError as error:
                    raise LogError(f"{place}: it is damaged: {error} is missing") from error
                except (*_BROKEN, StoreError, PolicyError) as error:
                    raise LogError(f"{place}: {error}") from error
                if entry is not None:
                    yield entry
        if not reader.begun:
            raise LogError(f"{path}: it is empty: no log of decisions")


_VOID: Final = re.compile(rb'\{"t":"void","s":"[^"]*","n":[0-9]+,"id":"([^"]*)"\}\s*')


def withdrawn(paths: Iterable[str | PathLike[str]]) -> Counter[str]:
    """How many decisions of each id were not written to the store: the first so many. Raises OSError."""
    found: Counter[str] = Counter()
    for path in paths:
        with Path(path).open("rb") as file:
            for raw in file:
                match = _VOID.fullmatch(raw)
                if match:
                    found[match[1].decode(errors="replace")] += 1
    return found
