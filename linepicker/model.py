"""The nouns: lines, reports, outcomes, decisions and views. All frozen, all validated where they are made.

Times are seconds, moments are epoch seconds UTC (float).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

import attrs

from linepicker.recipients import mask_all

__all__ = [
    "Assignment",
    "Candidate",
    "ChatHealth",
    "ChatHealthChanged",
    "Decision",
    "Delivered",
    "Failed",
    "Kind",
    "Line",
    "LineAssigned",
    "LineChanged",
    "LineReleased",
    "LineView",
    "MessageRead",
    "OptedIn",
    "OptedOut",
    "Outcome",
    "Replied",
    "Report",
    "Reputation",
    "ServiceStatus",
    "StandingChanged",
    "Term",
    "To",
    "Verdict",
]

To: TypeAlias = str | tuple[str, ...]
"""A recipient, normalised: one handle, or the sorted handles of a group."""

Kind: TypeAlias = Literal["new", "known", "moved"]

_E164: Final = re.compile(r"\+[0-9]{7,15}")


class Reputation(StrEnum):
    """The provider's prediction for a line. HEALTHY also means "never scored" (Linq: phone_number list)."""

    HEALTHY = "HEALTHY"
    AT_RISK = "AT_RISK"
    CRITICAL = "CRITICAL"


class ServiceStatus(StrEnum):
    """The provider's statement about a line now: FLAGGED can't send (Linq: phone_number.status_updated)."""

    ACTIVE = "ACTIVE"
    FLAGGED = "FLAGGED"


class ChatHealth(StrEnum):
    """The provider's prediction for one conversation (Linq: chat `health_status`)."""

    HEALTHY = "HEALTHY"
    AT_RISK = "AT_RISK"
    CRITICAL = "CRITICAL"
    OPTED_OUT = "OPTED_OUT"


class Outcome(StrEnum):
    """What became of a reservation.

    SENT: the provider accepted it. UNKNOWN: it may have gone out (a timeout, a 5xx): counts as SENT and is never tried
    on another line. NOT_SENT: it certainly did not, and nobody is to blame. LINE_REFUSED: the line can't send.
    RECIPIENT_REFUSED: the recipient can't or won't receive, from any line. RATE_LIMITED: this pair must wait.
    """

    SENT = "SENT"
    NOT_SENT = "NOT_SENT"
    LINE_REFUSED = "LINE_REFUSED"
    RECIPIENT_REFUSED = "RECIPIENT_REFUSED"
    RATE_LIMITED = "RATE_LIMITED"
    UNKNOWN = "UNKNOWN"


def _masked(to: object) -> str:
    return "None" if to is None else mask_all(to)


def _counted(values: Sequence[object]) -> str:
    return f"<{len(values)}>"


def _finite(instance: object, attribute: attrs.Attribute[Any], value: float | None) -> None:
    if value is not None and not math.isfinite(value):
        raise ValueError(f"{attribute.name} must be a finite number, got {value!r}")


def _number(instance: object, attribute: attrs.Attribute[Any], value: str | None) -> None:
    if not isinstance(value, str) or _E164.fullmatch(value) is None:
        raise ValueError(f"{attribute.name} must be E.164, a '+' and 7 to 15 digits, got {value!r}")


def _whose(to: object, chat_id: str | None) -> None:
    if to is None and chat_id is None:
        raise ValueError("to must be a recipient, or chat_id must say whose conversation it is")


def _weight(instance: object, attribute: attrs.Attribute[Any], value: float) -> None:
    if not (0.0 < value < math.inf):
        raise ValueError(
            f"{attribute.name} must be a number above 0, got {value!r}; leave a line out by the source, not by a weight"
        )


def _tags(value: Iterable[str]) -> frozenset[str]:
    if isinstance(value, str):
        raise ValueError(f"tags must be a collection of strings, got the string {value!r}")
    return frozenset(value)


def _reputation(value: Reputation | str) -> Reputation:
    try:
        return Reputation(value)
    except ValueError:
        raise ValueError(
            f"reputation must be one of {', '.join(Reputation)}, got {value!r}; "
            "a value the provider may have added goes into unrecognised="
        ) from None


def _status(value: ServiceStatus | str | None) -> ServiceStatus | None:
    if value is None:
        return None
    try:
        return ServiceStatus(value)
    except ValueError:
        raise ValueError(
            f"status must be one of {', '.join(ServiceStatus)} or None, got {value!r}"
        ) from None


def _optional_reputation(value: Reputation | str | None) -> Reputation | None:
    return None if value is None else _reputation(value)


@attrs.frozen
class Line:
    """One sending phone number as its provider's list shows it.

    `number` is E.164. `reputation` left out means HEALTHY ("never scored"). `status` None: the list doesn't say (Linq's
    never does). `line_type` is the provider's word ("iMessage", "RCS"), compared without regard to case. `id` is the
    provider's id. `tags` are yours, for `reserve(tags=…)` and per-tag limits. `weight` multiplies the line's score.
    `unrecognised` is a reputation this library has no word for: the line keeps its last known reputation, but counts as
    AT_RISK at best. `doc_url` is the provider's explanation of the reputation. Raises ValueError for what it can't be.

    >>> import attrs
    >>> from linepicker import Line
    >>> line = Line("+12025550100", reputation="AT_RISK", tags={"vip"})
    >>> line.reputation
    <Reputation.AT_RISK: 'AT_RISK'>
    >>> attrs.evolve(line, weight=0.5).weight
    0.5
    """

    number: str = attrs.field(validator=_number)
    reputation: Reputation = attrs.field(
        default=Reputation.HEALTHY, converter=_reputation, kw_only=True
    )
    status: ServiceStatus | None = attrs.field(default=None, converter=_status, kw_only=True)
    line_type: str | None = attrs.field(default=None, kw_only=True)
    id: str | None = attrs.field(default=None, kw_only=True)
    tags: frozenset[str] = attrs.field(default=frozenset(), converter=_tags, kw_only=True)
    weight: float = attrs.field(default=1.0, validator=_weight, kw_only=True)
    unrecognised: str | None = attrs.field(default=None, kw_only=True)
    doc_url: str | None = attrs.field(default=None, kw_only=True)


@attrs.frozen
class Verdict:
    """What a send's result means, with what it taught.

    `number`: the line it left from, if the result says so. `chat_id`, `message_id`: the provider's ids. `retry_after`:
    seconds to wait, for RATE_LIMITED and LINE_REFUSED. `trace_id`: by which the provider finds the request again.

    >>> from linepicker import Verdict
    >>> Verdict("RATE_LIMITED", retry_after=30.0).outcome
    <Outcome.RATE_LIMITED: 'RATE_LIMITED'>
    """

    outcome: Outcome = attrs.field(converter=Outcome)
    number: str | None = attrs.field(
        default=None, validator=attrs.validators.optional(_number), kw_only=True
    )
    chat_id: str | None = attrs.field(default=None, kw_only=True)
    message_id: str | None = attrs.field(default=None, kw_only=True)
    retry_after: float | None = attrs.field(default=None, validator=_finite, kw_only=True)
    trace_id: str | None = attrs.field(default=None, kw_only=True, eq=False)


# Reports: what is learned after a send, or without one. `at` is the moment it happened by the reporter's clock;
# `event_id` tells duplicates apart.


@attrs.frozen(kw_only=True)
class _Report:
    at: float = attrs.field(validator=_finite)
    event_id: str | None = None


@attrs.frozen
class LineChanged(_Report):
    """The provider changed a line's reputation, its service status, or both. None: nothing said of it.

    `unrecognised` is a reputation this library has no word for, as in `Line`. As in every report `at` is the moment it
    happened, epoch seconds UTC, and `event_id` tells duplicates apart. Raises ValueError for what it can't be.

    >>> import time
    >>> from linepicker import Line, LineChanged, Router
    >>> router = Router([Line("+12025550100")])
    >>> router.report(LineChanged("+12025550100", status="FLAGGED", at=time.time()))
    True
    >>> router.lines()[0].standing
    'flagged'
    """

    number: str = attrs.field(validator=_number, kw_only=False)
    reputation: Reputation | None = attrs.field(default=None, converter=_optional_reputation)
    status: ServiceStatus | None = attrs.field(default=None, converter=_status)
    unrecognised: str | None = None


@attrs.frozen
class LineAssigned(_Report):
    """A line joined the account: read the list again."""

    number: str = attrs.field(validator=_number, kw_only=False)


@attrs.frozen
class LineReleased(_Report):
    """A line left the account."""

    number: str = attrs.field(validator=_number, kw_only=False)


@attrs.frozen(kw_only=True)
class _OfChat(_Report):
    """Reports of one conversation may name it, and bring the provider's view of it, which may be older than they are."""

    chat_id: str | None = None
    chat_health: ChatHealth | None = attrs.field(
        default=None, converter=attrs.converters.optional(ChatHealth)
    )
    chat_health_at: float | None = attrs.field(default=None, validator=_finite)


@attrs.frozen
class _Receipt(_OfChat):
    number: str | None = attrs.field(default=None, validator=attrs.validators.optional(_number))
    to: str | Iterable[str] | None = attrs.field(default=None, repr=_masked)
    message_id: str | None = None


@attrs.frozen
class Delivered(_Receipt):
    """A message reached its recipient. Corrects an earlier `Failed` for the same message."""


@attrs.frozen
class MessageRead(_Receipt):
    """A message was read."""


@attrs.frozen
class Failed(_Receipt):
    """A message could not be delivered after the provider had accepted it; `code` is the provider's.

    `recipient_fault`: the code blames the recipient (a landline, say), so the line's record is not touched. `unreceipted`: its
    service (SMS) tells failures, but never a delivery: it counts, and is no reason for a time out.
    """

    code: int | None = None
    recipient_fault: bool = False
    unreceipted: bool = False


@attrs.frozen
class Replied(_OfChat):
    """A person wrote to the line `number`; `to` is that person (or group), `text` what they wrote, if known.

    `to` may be None where only the conversation is known: `chat_id` then tells who, if this deployment sent into it. Of the
    text only whether it is an opt-out keyword is kept. `at` and `event_id` as in `LineChanged`.

    >>> from linepicker import Line, Replied, Router
    >>> router = Router([Line("+12025550100")])
    >>> wrote = Replied("+12025550100", "+12125550123", text="Is it ready?", at=1_800_000_000.0, event_id="6f2d")
    >>> router.report(wrote), router.report(wrote)
    (True, False)
    >>> router.reserve("+12125550123").kind  # they wrote first: no new conversation
    'known'
    """

    number: str = attrs.field(validator=_number, kw_only=False)
    to: str | Iterable[str] | None = attrs.field(kw_only=False, repr=_masked)
    text: str | None = attrs.field(default=None, repr=False)

    def __attrs_post_init__(self) -> None:
        _whose(self.to, self.chat_id)


@attrs.frozen
class OptedOut(_Report):
    """A person does not want messages any more, from any line. `at` and `event_id` as in `LineChanged`.

    >>> import time
    >>> from linepicker import Blocked, Line, OptedOut, Router
    >>> router = Router([Line("+12025550100")])
    >>> router.report(OptedOut("+12125550123", at=time.time()))
    True
    >>> try:
    ...     router.reserve("+12125550123")
    ... except Blocked as refusal:
    ...     print(refusal.decision.reason)
    opted_out
    """

    to: str = attrs.field(kw_only=False, repr=_masked)


@attrs.frozen
class OptedIn(_Report):
    """A person wants messages again."""

    to: str = attrs.field(kw_only=False, repr=_masked)


@attrs.frozen
class ChatHealthChanged(_Report):
    """The provider changed its view of one conversation, on the line `number`. `to` may be None where `chat_id` says whose."""

    to: str | Iterable[str] | None = attrs.field(kw_only=False, repr=_masked)
    health: ChatHealth = attrs.field(converter=ChatHealth, kw_only=False)
    number: str | None = attrs.field(default=None, validator=attrs.validators.optional(_number))
    chat_id: str | None = None

    def __attrs_post_init__(self) -> None:
        _whose(self.to, self.chat_id)


Report: TypeAlias = (
    LineChanged
    | LineAssigned
    | LineReleased
    | Delivered
    | MessageRead
    | Failed
    | Replied
    | OptedOut
    | OptedIn
    | ChatHealthChanged
)


@attrs.define(frozen=True)
class Candidate:
    """One line as a choice saw it.

    `score` is the product of `terms` (weight, tier, headroom, vitality, affinity); 0 for an excluded line. `excluded` is
    the code of what ruled it out, None for a line that could be chosen. `opens_at` is when that ends, if known, and
    `slot` the moment its next message could leave.
    """

    number: str
    score: float
    terms: Mapping[str, float] = MappingProxyType({})
    excluded: str | None = None
    opens_at: float | None = None
    slot: float | None = None


@attrs.define(frozen=True)
class Decision:
    """The record of one choice and its reasons.

    `outcome`: "reserved", "held", "not_now", "no_line", "blocked" or "stale". `reason`: a code (see README) or None.
    `retry_at`: an epoch moment, for refusals that end. `delay`: seconds from `at`, the moment of the choice, until the
    message may leave. `to`: the recipient, masked. `candidates`: on success the chosen line and the next best, in
    previews and refusals every line. `notes`: sentences: what rules in shadow mode would have done, and an opt-out that
    was overridden.

    >>> from linepicker import Line, Router
    >>> decision = Router([Line("+12025550100", reputation="CRITICAL")]).preview("+12125550123")
    >>> decision.outcome, decision.candidates[0].excluded, decision.to
    ('no_line', 'critical', '+1•••••••123')
    """

    outcome: Literal["reserved", "held", "not_now", "no_line", "blocked", "stale"]
    number: str | None = None
    kind: Kind | None = None
    reason: str | None = None
    retry_at: float | None = None
    delay: float = 0.0
    candidates: tuple[Candidate, ...] = ()
    at: float = 0.0
    to: str = ""
    moved_from: str | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """The decision as one JSON object on one line; the recipient is masked."""
        return json.dumps(
            {
                "outcome": self.outcome,
                "at": self.at,
                "to": self.to,
                "number": self.number,
                "kind": self.kind,
                "reason": self.reason,
                "retry_at": self.retry_at,
                "delay": self.delay,
                "moved_from": self.moved_from,
                "notes": list(self.notes),
                "candidates": [
                    {
                        "number": each.number,
                        "score": each.score,
                        "terms": dict(each.terms),
                        "excluded": each.excluded,
                        "opens_at": each.opens_at,
                        "slot": each.slot,
                    }
                    for each in self.candidates
                ],
            },
            ensure_ascii=False,
        )


@attrs.frozen
class Term:
    """Something that was learned of a line: its name, a number and its unit, and where it comes from, in a sentence."""

    name: str
    value: float
    unit: str
    reason: str


@attrs.frozen
class LineView:
    """A line as it stands now, for people.

    `standing` is a code, "ok" when the line may take new conversations. `budget`: new conversations it may open in a
    rolling day (None: no limit); `used` and `remaining` of it. `next_slot_at`: when a new conversation with
    `max_delay=0` would succeed (None: not known). `reasons`: sentences. `outcomes`: what became of its messages in 7
    days, by name: sent, delivered, read, failed:<code>, opened, answered, opted_out, shadow. `as_of`: when the list of lines
    was asked for that reputation and status were last taken from, by whichever process (None: never); what was reported since,
    and all that was spent, is in the view as well. `terms`: what was learned of it.

    >>> from linepicker import Line, Router
    >>> router = Router([Line("+12025550100", reputation="CRITICAL")])
    >>> (view,) = router.lines()
    >>> view.standing, view.used, view.budget, view.reasons[0]
    ('critical', 0, 25, 'CRITICAL: nothing goes out until HEALTHY is observed and confirmed.')
    """

    line: Line
    standing: str
    budget: int | None
    used: int
    remaining: int | None
    next_slot_at: float | None
    reasons: tuple[str, ...] = ()
    outcomes: Mapping[str, int] = attrs.field(default=MappingProxyType({}), hash=False)
    as_of: float | None = None
    terms: tuple[Term, ...] = ()


@attrs.frozen
class StandingChanged:
    """A line came to stand otherwise, as a router noticed `at` that moment.

    `standing` and `was`: codes, as in `LineView`, "ok" when nothing but budgets and pace keeps new conversations off it;
    "not_in_fleet" when it has left the list. `reputation`, `was_reputation`: what the observations come to. `reason`: what the
    operator said who paused or drained it.
    """

    number: str
    standing: str
    was: str
    reputation: Reputation
    was_reputation: Reputation
    at: float = attrs.field(kw_only=True)
    reason: str = attrs.field(default="", kw_only=True)


@attrs.frozen
class Assignment:
    """Which line a recipient belongs to, since when, and (line, since) of the lines before, oldest first."""

    to: To = attrs.field(repr=_masked)
    number: str
    since: float
    history: tuple[tuple[str, float], ...] = ()
