"""The sections of a policy: one class per TOML table, each tunable with its meaning, unit, bounds, and its default's source.

All are frozen. Values are plain: int, float, bool, str, and None for "off". Durations are seconds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, Literal

import attrs

from linepicker._bounds import (
    COUNT,
    FACTOR,
    FACTOR_OR_OFF,
    FEW,
    HOLD_OR_MOVE,
    HOURS,
    HOURS_ELSEWHERE,
    LIMIT,
    MODE,
    OFF,
    SECONDS,
    SECONDS_OR_OFF,
    SECONDS_OR_ZERO,
    SHARE,
    SHARE_KEPT,
    SHARE_OR_ZERO,
    SPREAD,
    SWITCH,
    TEXT,
    ZONE,
    Mode,
    float_or_off,
    int_or_off,
    one_of,
    show,
    text_or_off,
)
from linepicker.errors import PolicyError


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
            Source: ours, by simulation: less wastes what it bears, more keeps it AT_RISK; Linq: slow the pace.
        pace: factor on its pace, above 0 and at most 1: gaps are divided by it, bursts multiplied.
            Source: ours; no figure is published, Linq says to slow the pace.
    """

    weight: float = attrs.field(default=0.25, validator=SHARE)
    budget: float = attrs.field(default=0.5, validator=SHARE)
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
    """What a line's own record teaches. Budgets never rise above the policy's limits.

    Attributes:
        enabled: whether to learn; without it, budgets are fixed.
            Source: ours.
        budgets: whether each line's budget for new conversations is learned, below `limits.new_per_day`.
            Source: ours: each line bears a different amount, and none is published.
        floor: new conversations a day below which no budget is cut.
            Source: ours: a line that does nothing can't prove itself.
        cut_at_risk: the share of the load before it fell that a line keeps when it becomes AT_RISK.
            Source: ours, after congestion control, by simulation.
        cut_critical: the same when it becomes CRITICAL or FLAGGED.
            Source: ours, by simulation.
        growth: the share of the policy's limit by which a budget is raised, at least 1 conversation.
            Source: ours, by simulation.
        used: the share of its budget that a line must have used in a sending day before a raise.
            Source: Netflix's concurrency limits, which ask for half.
        hold: seconds between raises, and that a line must have been HEALTHY before one.
            Source: ours: never twice before the verdict on the first can have arrived.
        lag: seconds that a verdict is taken to be late, so that it is held against the load of its time.
            Source: ours; none is published.
        near: the share of the remembered ceiling from which on a budget grows by 2 % of it only.
            Source: ours, after congestion control.
        relax: the share by which a remembered ceiling rises a day.
            Source: ours: lines change.
        fleet: whether a line without a fall of its own is bounded by what others fell at.
            Source: ours.
        jump: how many times its own busiest day of the last week a line may open in a day, once it has opened reply_sample
            conversations in it; or "off" (here None).
            Source: ours; Linq, best practices: not several times the line's own recent level.
        profile: whether 6 h may take more of a day than `pace.spread` where the pool's busiest 6 h do, at most seven tenths.
            Source: ours: who writes in the mornings alone could not use a day's budget.
        nearness: whether a line's nearness to AT_RISK is estimated, and slows it before the provider says so.
            Source: ours, by the drivers that Linq's reputation audit names.
        warn: the nearness, from 0 to 1, from which on it is a warning, held against what becomes of the line.
            Source: ours.
        reply_rate: share of a line's conversations answered in 7 days, from 0 to 1, under which it is in trouble.
            Source: Linq, help article on throttling: under 15 %.
        reply_sample: conversations in 7 days from which on reply_rate, jump and nearness are looked at.
            Source: Warmbly's sample floor.
    """

    enabled: bool = attrs.field(default=True, validator=SWITCH)
    budgets: bool = attrs.field(default=True, validator=SWITCH)
    floor: int = attrs.field(default=5, validator=COUNT)
    cut_at_risk: float = attrs.field(default=0.85, validator=SHARE)
    cut_critical: float = attrs.field(default=0.5, validator=SHARE)
    growth: float = attrs.field(default=0.05, validator=SHARE)
    used: float = attrs.field(default=0.6, validator=SHARE)
    hold: float = attrs.field(default=86400.0, validator=SECONDS_OR_ZERO)
    lag: float = attrs.field(default=10800.0, validator=SECONDS_OR_ZERO)
    near: float = attrs.field(default=0.9, validator=SHARE)
    relax: float = attrs.field(default=0.01, validator=SHARE_OR_ZERO)
    fleet: bool = attrs.field(default=True, validator=SWITCH)
    jump: float | None = attrs.field(default=2.5, converter=float_or_off, validator=FACTOR_OR_OFF)
    profile: bool = attrs.field(default=True, validator=SWITCH)
    nearness: bool = attrs.field(default=True, validator=SWITCH)
    warn: float = attrs.field(default=0.9, validator=SHARE)
    reply_rate: float = attrs.field(default=0.15, validator=SHARE_OR_ZERO)
    reply_sample: int = attrs.field(default=20, validator=COUNT)


@attrs.frozen(kw_only=True)
class Priority:
    """What is kept for messages sent with priority="urgent".

    Attributes:
        urgent_share: share of a line's budgets and pace that only they may use, at most half; 0: nothing is kept.
            Source: ours: off.
    """

    urgent_share: float = attrs.field(default=0.0, validator=SHARE_KEPT)


@attrs.frozen(kw_only=True)
class Affinity:
    """What likeness of line and recipient is worth.

    Attributes:
        area_code: factor on the score of a line whose North American area code is not the recipient's, above 0 and at
            most 1; 1: no matter.
            Source: ours: no provider publishes an effect.
    """

    area_code: float = attrs.field(default=1.0, validator=SHARE)


_PREFIX: Final = re.compile(r"\+[1-9][0-9]{0,14}")


@attrs.frozen(kw_only=True)
class QuietPrefix:
    """What is different for the people whose number begins alike. None: as `Quiet` says.

    Attributes:
        hours: the local time in which they are left alone, as in "21:00-08:00", or "off".
            Source: yours.
        zone: where they live, as in America/New_York.
            Source: yours.
    """

    hours: str | None = attrs.field(default=None, validator=HOURS_ELSEWHERE)
    zone: str | None = attrs.field(default=None, validator=attrs.validators.optional(ZONE))


def _by_prefix(value: Any) -> Mapping[str, QuietPrefix]:
    if not isinstance(value, Mapping):
        raise PolicyError(f"quiet.prefix must be a table, one entry per prefix, got {show(value)}")
    found = {}
    for prefix, entry in value.items():
        place = (
            f"quiet.prefix.{json.dumps(prefix[:40]) if isinstance(prefix, str) else show(prefix)}"
        )
        if not isinstance(prefix, str) or _PREFIX.fullmatch(prefix) is None:
            raise PolicyError(f"{place} must be named by how numbers begin, as in +1212")
        if not isinstance(entry, QuietPrefix):
            if not isinstance(entry, Mapping) or not entry.keys() <= {"hours", "zone"}:
                raise PolicyError(f"{place} must be a table of hours and zone, got {show(entry)}")
            try:
                entry = QuietPrefix(**entry)  # noqa: PLW2901  the same, checked
            except PolicyError as error:
                raise PolicyError(f"{place}: {error}") from None
        found[prefix] = entry
    return MappingProxyType(found)


@attrs.frozen(kw_only=True)
class Quiet:
    """When people are left alone, by the clock where they are. A group is, while any of its members is.

    Attributes:
        hours: local time in which nobody is written to who did not write first, as in "21:00-08:00", or "off" (here None).
            Source: ours: off; laws and carriers commonly name 21:00 to 08:00.
        zone: where those are at home of whom nothing else tells.
            Source: ours.
        by_number: whether a number's region tells its zone (linepicker[phone]); of several zones, all count.
            Source: ours.
        prefix: what differs for numbers that begin alike; the longest prefix wins.
            Source: yours.
    """

    hours: str | None = attrs.field(default=None, converter=text_or_off, validator=HOURS)
    zone: str = attrs.field(default="UTC", validator=ZONE)
    by_number: bool = attrs.field(default=False, validator=SWITCH)
    prefix: Mapping[str, QuietPrefix] = attrs.field(
        default=MappingProxyType({}), converter=_by_prefix, hash=False
    )

    def to_dict(self) -> dict[str, Any]:
        """As a TOML table, "off" as a word; `prefix` only where it says something."""
        table: dict[str, Any] = {
            "hours": OFF if self.hours is None else self.hours,
            "zone": self.zone,
            "by_number": self.by_number,
        }
        if self.prefix:
            table["prefix"] = {
                prefix: {name: value for name, value in attrs.asdict(each).items() if value}
                for prefix, each in self.prefix.items()
            }
        return table

    def __reduce__(self) -> tuple[Callable[..., Quiet], tuple[dict[str, Any]]]:
        return _quiet_again, (self.to_dict(),)


def _quiet_again(table: dict[str, Any]) -> Quiet:
    return Quiet(**table)
