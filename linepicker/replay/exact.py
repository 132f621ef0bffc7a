"""Every decision of a log made again from what it was made of, and compared byte for byte."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from os import PathLike
from typing import Any

import attrs

from linepicker._asks import Made
from linepicker._core import Refusal, decide
from linepicker._journal import SHOWN, digest_of
from linepicker._outage import slowly
from linepicker._refusals import decision_of
from linepicker.model import Decision
from linepicker.replay.log import Decided, Session, read

__all__ = ["Checked", "Difference", "check"]


@attrs.frozen
class Difference:
    """A decision that came out otherwise: where it stands, the names of what differs, both as `Decision.to_json` has them."""

    place: str
    id: str
    at: float
    fields: tuple[str, ...]
    recorded: Mapping[str, Any] = attrs.field(repr=False)
    replayed: Mapping[str, Any] = attrs.field(repr=False)


@attrs.frozen
class Checked:
    """What came of a check: how many decisions were made again, how many came out otherwise, and the first of these."""

    decisions: int
    different: int
    differences: tuple[Difference, ...]


def check(
    paths: Iterable[str | PathLike[str]], *, key: bytes | None = None, most: int = 100
) -> Checked:
    """Make every decision of a log again. *most*: how many differences are kept. Raises `LogError`, OSError."""
    decisions = different = 0
    found: list[Difference] = []
    for entry in read(paths, key=key):
        if entry.decided is None:
            continue
        decisions += 1
        decided, again = entry.decided, again_of(entry.session, entry.decided)
        replayed = shown(again)
        if json.dumps(decided.told, ensure_ascii=False) == replayed.to_json() and (
            decided.digest is None or decided.digest == digest_of(again)
        ):
            continue
        different += 1
        if len(found) < most:
            new: dict[str, Any] = json.loads(replayed.to_json())
            names = tuple(name for name in new if decided.told.get(name) != new[name])
            found.append(
                Difference(
                    entry.place,
                    decided.id,
                    decided.at,
                    names or ("candidates",),
                    decided.told,
                    new,
                )
            )
    return Checked(decisions, different, tuple(found))


def again_of(session: Session, decided: Decided) -> Decision:
    """The decision, made anew on the session as it is."""
    fleet, person, at = session.fleet, decided.person, decided.at
    someone: Any = person
    if fleet.policy.affinity.area_code >= 1.0:
        someone = attrs.evolve(person, area=None)
    view = slowly(fleet) if decided.in_outage else fleet
    choice = decide(decided.request, someone, view, at)
    if isinstance(choice, Refusal):
        return decision_of(fleet, decided.request, someone, choice, at)
    made = Made(
        decided.id,
        someone,
        choice.number,
        choice.kind,
        at,
        choice.send_at,
        session.lines[choice.number],
        choice.ranks,
    )
    made.moved_from, made.notes = choice.moved_from, choice.notes
    return made.decision


def shown(decision: Decision) -> Decision:
    """A decision with as many candidates as a log has."""
    return attrs.evolve(decision, candidates=decision.candidates[:SHOWN])
