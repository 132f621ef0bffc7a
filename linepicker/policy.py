"""Every tunable, with its meaning, its unit, its bounds, and where its default comes from. TOML in and out.

A `Policy` has one section per TOML table. All are frozen: `attrs.evolve` makes changed ones. A dict may stand for a
section, whose other tunables then keep their defaults. Values are plain: int, float, bool, str, and None for "off".
Durations are seconds. Whatever is wrong is a `PolicyError` that names its place, as in `pace.spread`.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, TypeVar

import attrs
import tomli_w

from linepicker._bounds import (
    COUNT,
    FACTOR,
    FEW,
    HOLD_OR_MOVE,
    LIMIT,
    MODE,
    OFF,
    REGION,
    SECONDS,
    SECONDS_OR_OFF,
    SECONDS_OR_ZERO,
    SHARE,
    SHARE_OR_ZERO,
    SPREAD,
    SWITCH,
    TEXT,
    Mode,
    float_or_off,
    int_or_off,
    one_of,
    show,
)
from linepicker.errors import PolicyError
from linepicker.model import Line

__all__ = [
    "Affinity",
    "AtRisk",
    "Conversation",
    "Failures",
    "Health",
    "Learn",
    "Limits",
    "Overrides",
    "Pace",
    "Policy",
    "Recovery",
    "Stickiness",
    "Warmup",
]

_NAMES: Final = {"line": re.compile(r"\+[0-9]{7,15}"), "tag": re.compile(r"(?s:.+)")}

_Table = TypeVar("_Table", bound=attrs.AttrsInstance)


def _table(cls: type[_Table], place: str, value: Any) -> _Table:
    if isinstance(value, cls):
        return value
    if not isinstance(value, Mapping):
        raise PolicyError(
            f"{place or 'what is given'} must be a table (a dict or {cls.__name__}), got {show(value)}"
        )
    known = attrs.fields_dict(cls)
    for name in value:
        if name not in known:
            raise _unknown(place, name)
    return cls(**value)


def _unknown(table: str, name: object) -> PolicyError:
    leaf = name[:60] if isinstance(name, str) else show(name)
    known = [("", each) for each in attrs.fields_dict(Policy)]
    for section, title in _SECTIONS.items():
        known += [(title, each) for each in attrs.fields_dict(section)]

    def likeness(entry: tuple[str, str]) -> float:
        return difflib.SequenceMatcher(None, leaf, entry[1]).ratio() + 0.2 * (entry[0] == table)

    place, nearest = (
        ".".join(filter(None, each)) for each in ((table, leaf), max(known, key=likeness))
    )
    return PolicyError(f"{place} is not a name of the policy; the nearest is {nearest}")


@attrs.frozen(kw_only=True)
class Limits:
    """How much may leave on one line. Each is a whole number, or "off" (here None).

    Attributes:
        new_per_day: new conversations in any rolling 24 h, moves included; warm-up and learning stay below it.
            Source: Linq, best practices: below about 50.
        new_per_hour: new conversations in any rolling hour, moves included.
            Source: Sendblue's published cap; Linq: spread activity out.
        messages_per_day: messages in any rolling 24 h, both directions.
            Source: Linq, best practices and rate limits: about 7,000.
        pair_per_minute: messages from one line to one recipient in any rolling 60 s.
            Source: Linq, rate limits: 30, enforced.
        moves_per_day: recipients taken over from other lines in any rolling 24 h, within the budget for new ones.
            Source: ours: the fall of one line must not use up another's day.
    """

    new_per_day: int | None = attrs.field(default=50, converter=int_or_off, validator=LIMIT)
    new_per_hour: int | None = attrs.field(default=15, converter=int_or_off, validator=LIMIT)
    messages_per_day: int | None = attrs.field(default=7000, converter=int_or_off, validator=LIMIT)
    pair_per_minute: int | None = attrs.field(default=30, converter=int_or_off, validator=LIMIT)
    moves_per_day: int | None = attrs.field(default=20, converter=int_or_off, validator=LIMIT)


@attrs.frozen(kw_only=True)
class Pace:
    """How fast it may leave (GCRA: a gap between any two, and how many may go at once).

    Attributes:
        new_gap: seconds between new conversations of a line; 0: none.
            Source: ours; Linq: spread activity out.
        new_burst: new conversations that may go at once after a rest.
            Source: ours; Linq: avoid opening many at once.
        message_gap: seconds between messages of a line; 0: none.
            Source: ours; Linq names a line's overall pace as an input to its reputation.
        message_burst: messages that may go at once after a rest.
            Source: ours.
        max_delay: seconds ahead that a reservation may be given a slot, where the call says nothing.
            Source: ours.
        spread: share of the day's budget for new conversations that any rolling 6 h may take, or "off" (here None).
            Not applied when new_gap is 0.
            Source: ours: 5 to 8 points more reached in simulation, and no line burnt.
    """

    new_gap: float = attrs.field(default=20.0, validator=SECONDS_OR_ZERO)
    new_burst: int = attrs.field(default=5, validator=COUNT)
    message_gap: float = attrs.field(default=1.0, validator=SECONDS_OR_ZERO)
    message_burst: int = attrs.field(default=20, validator=COUNT)
    max_delay: float = attrs.field(default=300.0, validator=SECONDS_OR_ZERO)
    spread: float | None = attrs.field(default=0.35, converter=float_or_off, validator=SPREAD)


@attrs.frozen(kw_only=True)
class AtRisk:
    """What an AT_RISK line keeps of a HEALTHY one's.

    Attributes:
        weight: factor on its score, above 0 and at most 1.
            Source: ours; Linq: new recipients belong on HEALTHY lines.
        budget: factor on its budgets for new conversations, above 0 and at most 1.
            Source: ours; no figure is published, Linq says to slow the pace.
        pace: factor on its pace, above 0 and at most 1: gaps are divided by it, bursts multiplied.
            Source: ours; no figure is published, Linq says to slow the pace.
    """

    weight: float = attrs.field(default=0.25, validator=SHARE)
    budget: float = attrs.field(default=0.25, validator=SHARE)
    pace: float = attrs.field(default=0.5, validator=SHARE)


@attrs.frozen(kw_only=True)
class Warmup:
    """How a line that joined later begins.

    Attributes:
        start: new conversations on its first sending day.
            Source: warm-up practice of other trades; Linq: raise volume gradually, HEALTHY may mean unscored.
        factor: by how much each further sending day multiplies that, at least 1.
            Source: warm-up practice of other trades.
        trust_first_snapshot: whether the lines of a namespace's first snapshot count as warm.
            Source: ours: they were in use before this library was.
    """

    start: int = attrs.field(default=10, validator=COUNT)
    factor: float = attrs.field(default=2.0, validator=FACTOR)
    trust_first_snapshot: bool = attrs.field(default=True, validator=SWITCH)


@attrs.frozen(kw_only=True)
class Health:
    """How old what we know of the lines may be. At least ttl, max_age, max_age_hard in this order.

    Attributes:
        ttl: seconds after which the list of lines is read again.
            Source: ours.
        max_age: seconds after which it is stale, and on_stale applies.
            Source: ours.
        on_stale: "slow" (HEALTHY counts as AT_RISK) or "refuse".
            Source: ours: ageing may only lower what a line is trusted with.
        max_age_hard: seconds after which every request is refused, whatever on_stale says.
            Source: ours.
    """

    ttl: float = attrs.field(default=60.0, validator=SECONDS)
    max_age: float = attrs.field(default=900.0, validator=SECONDS)
    on_stale: Literal["slow", "refuse"] = attrs.field(
        default="slow", validator=one_of("slow", "refuse")
    )
    max_age_hard: float = attrs.field(default=21600.0, validator=SECONDS)

    def __attrs_post_init__(self) -> None:
        for lower, upper in (("ttl", "max_age"), ("max_age", "max_age_hard")):
            floor, value = getattr(self, lower), getattr(self, upper)
            if value < floor:
                raise PolicyError(
                    f"health.{upper} must be at least health.{lower} ({floor}), got {value}"
                )


@attrs.frozen(kw_only=True)
class Recovery:
    """How a line comes back.

    Attributes:
        confirmations: agreeing observations, health.ttl apart, before a better standing counts.
            Source: ours: one HEALTHY may be a flicker; Linq calls its reputation a prediction, in beta.
        share: of the budget for new conversations on the first sending day after CRITICAL, above 0 and at most 1; each
            further one multiplies it by warmup.factor.
            Source: ours; Linq, phone health guide: re-engage only at HEALTHY.
        ineligible: seconds that a line which refused to send is out, where the refusal names no date.
            Source: Linq, help article on flagged lines: at least 24 h.
    """

    confirmations: int = attrs.field(default=2, validator=COUNT)
    share: float = attrs.field(default=0.25, validator=SHARE)
    ineligible: float = attrs.field(default=86400.0, validator=SECONDS)


@attrs.frozen(kw_only=True)
class Stickiness:
    """What a known recipient does when their line may not send: "hold" (wait for it) or "move" (get another).

    Attributes:
        on_critical: when it is CRITICAL or recovering.
            Source: Linq, phone health guide: pause the line; a new number in a thread hurts.
        on_flagged: when it is FLAGGED, or refused to send.
            Source: Linq, audit driver `flagged`: move active traffic to a healthy line now.
        on_released: when it has left the account.
            Source: ours: it does not come back.
        continuation: text for the first message after such a move, which the reservation carries; empty: none.
            Source: Linq, POST /v3/messages: `continuation_message`.
        return_home: seconds that the line they were moved away from must have been HEALTHY before they go back to it with
            an outbound message, as a move; or "off" (here None).
            Source: ours.
        mid_conversation: seconds without a message either way before anyone goes back.
            Source: ours: a number must not change within an exchange.
    """

    on_critical: Literal["hold", "move"] = attrs.field(default="hold", validator=HOLD_OR_MOVE)
    on_flagged: Literal["hold", "move"] = attrs.field(default="move", validator=HOLD_OR_MOVE)
    on_released: Literal["hold", "move"] = attrs.field(default="move", validator=HOLD_OR_MOVE)
    continuation: str = attrs.field(default="", validator=TEXT)
    return_home: float | None = attrs.field(
        default=None, converter=float_or_off, validator=SECONDS_OR_OFF
    )
    mid_conversation: float = attrs.field(default=86400.0, validator=SECONDS_OR_ZERO)


@attrs.frozen(kw_only=True)
class Conversation:
    """When a single conversation is left quiet, whatever its line. Rules are "off", in "shadow" or "enforce".

    Attributes:
        chat_health: the rule for the provider's view of a conversation: CRITICAL holds it, AT_RISK slows it.
            Source: Linq, chat health: CRITICAL: pause this chat until healthy; AT_RISK: slow.
        at_risk_gap: seconds between messages of an AT_RISK conversation.
            Source: ours; no figure is published.
        unanswered: the rule for conversations without a reply: held until they write.
            Source: ours: in shadow, since it needs replies to be reported.
        unanswered_after: messages without a reply after which that rule holds the next.
            Source: Linq, help article on throttling: stop after 2 to 3.
    """

    chat_health: Mode = attrs.field(default="enforce", validator=MODE)
    at_risk_gap: float = attrs.field(default=3600.0, validator=SECONDS_OR_ZERO)
    unanswered: Mode = attrs.field(default="shadow", validator=MODE)
    unanswered_after: int = attrs.field(default=3, validator=COUNT)


@attrs.frozen(kw_only=True)
class Failures:
    """When a line whose messages fail takes a time out. Counted are the receipts of what the provider had accepted.

    Attributes:
        mode: the rule: "off", "shadow" (it only says so) or "enforce".
            Source: ours.
        streak: failures in a row that are too many.
            Source: ours; circuit breakers commonly use 5.
        share: of the receipts within window that are failures, which is too much.
            Source: ours.
        sample: receipts within window from which on share is looked at.
            Source: Warmbly's sample floor.
        window: seconds that failures are looked at.
            Source: ours.
        time_out: seconds that a line is out the first time; then one message at a time until one is delivered.
            Source: ours.
        growth: by how much each further time multiplies that, at least 1; anew after 7 days without.
            Source: ours.
        longest: seconds that it is out at most. At least time_out.
            Source: ours.
    """

    mode: Mode = attrs.field(default="enforce", validator=MODE)
    streak: int = attrs.field(default=5, validator=FEW)
    share: float = attrs.field(default=0.3, validator=SHARE)
    sample: int = attrs.field(default=20, validator=FEW)
    window: float = attrs.field(default=3600.0, validator=SECONDS)
    time_out: float = attrs.field(default=300.0, validator=SECONDS)
    growth: float = attrs.field(default=2.0, validator=FACTOR)
    longest: float = attrs.field(default=21600.0, validator=SECONDS)

    def __attrs_post_init__(self) -> None:
        if self.longest < self.time_out:
            raise PolicyError(
                f"failures.longest must be at least failures.time_out ({self.time_out}), got {self.longest}"
            )


@attrs.frozen(kw_only=True)
class Learn:
    """What a line's own record teaches. Replies weigh on a line's score; learned budgets are without effect in this version.

    Attributes:
        enabled: whether to learn.
            Source: ours.
        reply_rate: share of a line's conversations answered in 7 days, from 0 to 1, under which it is in trouble.
            Source: Linq, help article on throttling: under 15 %.
        reply_sample: conversations in 7 days from which on reply_rate is looked at.
            Source: Warmbly's sample floor.
    """

    enabled: bool = attrs.field(default=True, validator=SWITCH)
    reply_rate: float = attrs.field(default=0.15, validator=SHARE_OR_ZERO)
    reply_sample: int = attrs.field(default=20, validator=COUNT)


@attrs.frozen(kw_only=True)
class Affinity:
    """What likeness of line and recipient is worth.

    Attributes:
        area_code: factor on the score of a line whose North American area code is not the recipient's, above 0 and at
            most 1; 1: no matter.
            Source: ours: no provider publishes an effect.
    """

    area_code: float = attrs.field(default=1.0, validator=SHARE)


def _partial_limits(value: Mapping[str, Any] | Limits) -> Mapping[str, int | None]:
    limits = _table(Limits, "limits", value)
    given = attrs.fields_dict(Limits) if isinstance(value, Limits) else value
    return MappingProxyType({name: getattr(limits, name) for name in given})


@attrs.frozen
class Overrides:
    """What the policy says of one line, or of the lines with one tag, instead of what it says of all.

    Attributes:
        limits: the `Limits` that differ, by name; None is "off".
            Source: yours.
    """

    limits: Mapping[str, int | None] = attrs.field(
        factory=dict, converter=_partial_limits, hash=False
    )

    def __reduce__(self) -> tuple[type[Overrides], tuple[dict[str, int | None]]]:
        return Overrides, (dict(self.limits),)


def _by_name(table: Literal["line", "tag"], value: Any) -> Mapping[str, Overrides]:
    if not isinstance(value, Mapping):
        raise PolicyError(f"{table} must be a table, one entry per {table}, got {show(value)}")
    result = {}
    for name, entry in value.items():
        place = f"{table}.{json.dumps(name[:40]) if isinstance(name, str) else show(name)}"
        if not (isinstance(name, str) and _NAMES[table].fullmatch(name)):
            what = "an E.164 number" if table == "line" else "a string that is not empty"
            raise PolicyError(f"{place} must be named by {what}")
        try:
            result[name] = _table(Overrides, "", entry)
        except PolicyError as error:
            raise PolicyError(f"{place}: {error}") from None
    return MappingProxyType(result)


def _limits(value: Limits | Mapping[str, Any]) -> Limits:
    return _table(Limits, "limits", value)


def _pace(value: Pace | Mapping[str, Any]) -> Pace:
    return _table(Pace, "pace", value)


def _at_risk(value: AtRisk | Mapping[str, Any]) -> AtRisk:
    return _table(AtRisk, "at_risk", value)


def _warmup(value: Warmup | Mapping[str, Any]) -> Warmup:
    return _table(Warmup, "warmup", value)


def _health(value: Health | Mapping[str, Any]) -> Health:
    return _table(Health, "health", value)


def _recovery(value: Recovery | Mapping[str, Any]) -> Recovery:
    return _table(Recovery, "recovery", value)


def _stickiness(value: Stickiness | Mapping[str, Any]) -> Stickiness:
    return _table(Stickiness, "stickiness", value)


def _conversation(value: Conversation | Mapping[str, Any]) -> Conversation:
    return _table(Conversation, "conversation", value)


def _failures(value: Failures | Mapping[str, Any]) -> Failures:
    return _table(Failures, "failures", value)


def _learn(value: Learn | Mapping[str, Any]) -> Learn:
    return _table(Learn, "learn", value)


def _affinity(value: Affinity | Mapping[str, Any]) -> Affinity:
    return _table(Affinity, "affinity", value)


def _lines(value: Mapping[str, Overrides | Mapping[str, Any]]) -> Mapping[str, Overrides]:
    return _by_name("line", value)


def _tags(value: Mapping[str, Overrides | Mapping[str, Any]]) -> Mapping[str, Overrides]:
    return _by_name("tag", value)


@attrs.frozen(kw_only=True)
class Policy:
    """Every tunable. `Policy()` has all defaults; frozen, compared by value.

    Attributes:
        prefer: "healthiest": a HEALTHY line with room always beats an AT_RISK one; "weighted": both are on one scale.
            Source: Linq, phone health guide: new recipients belong on HEALTHY lines.
        default_region: two letters, as in "US": where numbers without a '+' are at home; None: they are refused.
            Source: ours: a guessed country is a wrong recipient.
        on_store_error: what happens while the store is out: "refuse" (StoreError for everything), or "known_only": recipients
            whose line this process remembers are served, at AT_RISK pace, and charged when the store is back.
            Source: ours: nobody gets a first message, or another line, without the store.
        store_outage: seconds of an outage after which "known_only" refuses too.
            Source: ours.
        limits: how much may leave on one line.
            Source: see `Limits`.
        pace: how fast.
            Source: see `Pace`.
        at_risk: what an AT_RISK line keeps.
            Source: see `AtRisk`.
        warmup: how a new line begins.
            Source: see `Warmup`.
        health: how old what we know may be.
            Source: see `Health`.
        recovery: how a line comes back.
            Source: see `Recovery`.
        stickiness: what a known recipient does without their line.
            Source: see `Stickiness`.
        conversation: when a conversation is left quiet.
            Source: see `Conversation`.
        failures: when a line takes a time out.
            Source: see `Failures`.
        learn: what a line's record teaches.
            Source: see `Learn`.
        affinity: what likeness is worth.
            Source: see `Affinity`.
        line: limits of their own, by line (E.164).
            Source: yours.
        tag: limits of their own, by tag.
            Source: yours.
    """

    prefer: Literal["healthiest", "weighted"] = attrs.field(
        default="healthiest", validator=one_of("healthiest", "weighted")
    )
    default_region: str | None = attrs.field(default=None, validator=REGION)
    on_store_error: Literal["refuse", "known_only"] = attrs.field(
        default="refuse", validator=one_of("refuse", "known_only")
    )
    store_outage: float = attrs.field(default=900.0, validator=SECONDS)
    limits: Limits = attrs.field(factory=Limits, converter=_limits)
    pace: Pace = attrs.field(factory=Pace, converter=_pace)
    at_risk: AtRisk = attrs.field(factory=AtRisk, converter=_at_risk)
    warmup: Warmup = attrs.field(factory=Warmup, converter=_warmup)
    health: Health = attrs.field(factory=Health, converter=_health)
    recovery: Recovery = attrs.field(factory=Recovery, converter=_recovery)
    stickiness: Stickiness = attrs.field(factory=Stickiness, converter=_stickiness)
    conversation: Conversation = attrs.field(factory=Conversation, converter=_conversation)
    failures: Failures = attrs.field(factory=Failures, converter=_failures)
    learn: Learn = attrs.field(factory=Learn, converter=_learn)
    affinity: Affinity = attrs.field(factory=Affinity, converter=_affinity)
    line: Mapping[str, Overrides] = attrs.field(
        default=MappingProxyType({}), converter=_lines, hash=False
    )
    tag: Mapping[str, Overrides] = attrs.field(
        default=MappingProxyType({}), converter=_tags, hash=False
    )

    @classmethod
    def from_toml(cls, path: str | Path) -> Policy:
        """The policy in the TOML file at *path*; what it leaves out has its default.

        Raises `PolicyError` naming the file when it can't be read, isn't TOML, or says something wrong.
        """
        try:
            return cls.from_dict(tomllib.loads(Path(path).read_text(encoding="utf-8")))
        except OSError as error:
            raise PolicyError(f"{path} can't be read: {error.strerror or error}") from error
        except PolicyError as error:
            raise PolicyError(f"{path}: {error}") from None
        except (ValueError, RecursionError) as error:
            raise PolicyError(f"{path} is not TOML: {error}") from error

    @classmethod
    def from_dict(cls, tables: Mapping[str, Any]) -> Policy:
        """The policy that *tables*, shaped as the TOML, describe. Raises `PolicyError`, also for unknown names."""
        return _table(cls, "", tables)

    def to_dict(self) -> dict[str, Any]:
        """Every tunable but the empty ones, shaped as the TOML, "off" as a word: what `from_dict` takes."""
        tables: dict[str, Any] = {}
        for name in attrs.fields_dict(Policy):
            value = getattr(self, name)
            if isinstance(value, Mapping):
                if value:
                    tables[name] = {
                        k: {"limits": _worded(each.limits)} for k, each in value.items()
                    }
            elif attrs.has(type(value)):
                tables[name] = _worded(attrs.asdict(value))
            elif value is not None:
                tables[name] = value
        return tables

    def to_toml(self) -> str:
        """Every tunable as TOML: what `from_toml` reads back as an equal policy."""
        return tomli_w.dumps(self.to_dict())

    def limits_for(self, line: Line) -> Limits:
        """The limits of *line*: each is the line's own, else the smallest of its tags', else the policy's.

        The policy's own object where nothing differs. Costs some microseconds where something does: ask once per line.
        """
        changes: dict[str, int | None] = {}
        for tag in line.tags & self.tag.keys():
            for name, value in self.tag[tag].limits.items():
                changes[name] = _smaller(changes.get(name), value)
        if line.number in self.line:
            changes.update(self.line[line.number].limits)
        return attrs.evolve(self.limits, **changes) if changes else self.limits

    def __reduce__(self) -> tuple[Callable[[Mapping[str, Any]], Policy], tuple[dict[str, Any]]]:
        return Policy.from_dict, (self.to_dict(),)


_SECTIONS: Final = {
    type(value): name
    for name, value in attrs.asdict(Policy(), recurse=False).items()
    if attrs.has(type(value))
}


def _smaller(one: int | None, other: int | None) -> int | None:
    return min(one, other, key=lambda value: math.inf if value is None else value)


def _worded(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: OFF if value is None else value for name, value in values.items()}
