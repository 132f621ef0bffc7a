"""`linepicker why`: why somebody gets their line, or what holds for a line, in sentences, with the command that changes it."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any

import typer

from linepicker import _words as words
from linepicker._contact import Contact
from linepicker._decode import decode
from linepicker._record import contact_key
from linepicker.cli import show, summary
from linepicker.cli.audit import audit_json, audited, show_audit
from linepicker.cli.settings import (
    AsJson,
    CommandError,
    Config,
    Pool,
    Settings,
    Store,
    To,
    recipient,
)
from linepicker.model import Assignment, Decision, LineView
from linepicker.policy import Policy
from linepicker.providers.linq.audit import Audit, CoolingDown
from linepicker.stores import Store as Records

__all__ = ["why"]

_MOVES = {"critical": "on_critical", "recovering": "on_critical", "not_in_fleet": "on_released"}


def why(
    context: typer.Context,
    to: To,
    audit: Annotated[
        bool, typer.Option("--audit", help="Of a line: have the provider audit it, beside ours.")
    ] = False,
    as_json: AsJson = False,
    config: Config = None,
    store: Store = None,
    pool: Pool = None,
) -> None:
    """Why someone gets their line; or what holds for a line.

    TO is a recipient, or one of our own lines. An audit takes the provider some seconds, and it takes the next one of that
    line only after a while.
    """
    settings = Settings.of(context, as_json, config, store, pool)
    with settings.opened() as (router, handle):
        found = next((view for view in router.lines() if [view.line.number] == to), None)
        if found is not None:
            known = _known(handle.store(), settings.pool, found.line.number)
            _tell_line(settings, found, known, audited(found.line.number) if audit else None)
            return
        if audit:
            raise CommandError("--audit is for one of our own lines, and this is none")
        who = recipient(to)
        assignment, made = router.assignment(who), router.preview(who)
    if settings.as_json:
        owner = None if assignment is None else show.assignment_json(assignment)
        show.document({"assignment": owner, "decision": json.loads(made.to_json())})
        return
    _tell_recipient(assignment, made)


def _tell_recipient(assignment: Assignment | None, made: Decision) -> None:
    show.decision(made)
    for each in words.ownership(made.to, assignment):
        show.say(each)
    mend = _mend(made.reason, made.number)
    if mend:
        show.say(mend, head="-> ")
    show.say(
        "The lines, were they to be picked anew (score: weight x tier x headroom x vitality x affinity; factors of 1 left out):"
    )
    show.candidates(made)


def _tell_line(
    settings: Settings, view: LineView, known: int, audit: Audit | CoolingDown | None
) -> None:
    if settings.as_json:
        value: dict[str, Any] = {"line": {**show.line_json(view), "known_recipients": known}}
        show.document(value if audit is None else {**value, "audit": audit_json(audit)})
        return
    now = time.time()
    show.line(view, now)
    for term in view.terms:
        show.say(f"{term.name} {term.value:.4g} {term.unit}: {term.reason}.", indent=2)
    show.say(_sentence(view, now))
    show.say(_people(view, known, settings))
    mend = _mend(view.standing, view.line.number)
    if mend:
        show.say(mend, head="-> ")
    if audit is not None:
        show_audit(audit, view)


def _sentence(view: LineView, now: float) -> str:
    """Whether it can take a new conversation, and if not, why and until when."""
    number, slot = view.line.number, view.next_slot_at
    if summary.able(view, now):
        return f"{number} can take a new conversation {words.slot(view, now)}."
    if view.standing != "ok":
        why = f"it {words.because(view.standing)}"
    elif view.remaining == 0:
        why = f"{view.used} of {view.budget} are open today"
    else:
        why = "its pace allows none yet"
    opens = "" if slot is None else f"; it may {words.until(slot - now)} ({words.moment(slot)})"
    return f"{number} can't take a new conversation: {why}{opens}."


def _people(view: LineView, known: int, settings: Settings) -> str:
    """What becomes of those who belong to it."""
    if not known:
        return f"Nobody belongs to it in pool {settings.pool!r}."
    verb = "belongs" if known == 1 else "belong"
    text = f"{words.recipients(known)} {verb} to it in pool {settings.pool!r}"
    if view.standing in ("ok", "draining"):
        return f"{text}, and {'is' if known == 1 else 'are'} served."
    policy = settings.policy() or Policy()
    name = _MOVES.get(view.standing, "on_flagged")
    moves = (
        view.standing not in ("paused", "failing", "stale")
        and getattr(policy.stickiness, name) == "move"
    )
    verb = "moves" if known == 1 else "move"
    if moves:
        return f"{text}, and {verb} to another line with the next message."
    return f"{text}, and {'is' if known == 1 else 'are'} held until it may be used again."


def _mend(code: str | None, number: str | None) -> str:
    """The command that changes it, where there is one."""
    if code in ("paused", "draining") and number:
        return f"linepicker resume {number}"
    return "linepicker doctor" if code == "stale" else ""


def _known(store: Records, pool: str, number: str) -> int:
    """How many belong to a line."""
    count = 0
    for key, record in store.scan(contact_key(pool, "")):
        contact: Contact | None = decode(key, record)
        count += contact is not None and contact.number == number
    return count
