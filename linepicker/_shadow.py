"""A second policy that decides beside the one in force, on the same records, and counts where it would have chosen otherwise.
It charges nothing and writes nothing. Pure."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Final

import attrs

from linepicker._asks import Made, Who
from linepicker._candidates import Request
from linepicker._contact import Contact
from linepicker._core import Grant, Refusal, decide
from linepicker._follow import Follower, keep_up
from linepicker._quiet import Rest, quiet_of, rest_of
from linepicker._small import Block
from linepicker.fleet import Fleet
from linepicker.model import Decision
from linepicker.policy import Policy
from linepicker.recipients import area_code

KEPT: Final = 86400.0
"""For how long, in seconds, differences are remembered."""
_BUCKET: Final = 300
_LATER: Final = 1.0  # seconds; slots that differ by less are the same moment
_OPEN: Final = 1024


@attrs.define
class Someone:
    """A recipient as a decision sees them, with nothing that tells who they are."""

    salt: int
    area: str | None
    contact: Contact | None
    block: Block | None
    is_group: bool
    masked: str = ""
    rest: Rest = ()


@attrs.frozen
class ShadowCounts:
    """What a second policy would have done with the decisions of the last `seconds`.

    `decided` of them were compared. `same`: nothing would have differed. `other_line`, `other_moment` (more than a second
    earlier or later): it too would have let the message out. `refused`: it would have refused what went out, by the reason
    it gives. `allowed`: it would have let out what was refused, by the reason that was given. `other_reason`: both refuse.
    `opened` and `would_open`: new conversations by line, in force and in shadow. `failed`: decisions it could not be asked for.

    Each decision is made on the records as they are, so on what the policy in force has spent: a shadow's own budget is never
    used up by its own choices. `linepicker replay --policy` lets them add up.
    """

    seconds: float
    decided: int = 0
    same: int = 0
    other_line: int = 0
    other_moment: int = 0
    other_reason: int = 0
    refused: Mapping[str, int] = attrs.field(factory=dict)
    allowed: Mapping[str, int] = attrs.field(factory=dict)
    opened: Mapping[str, int] = attrs.field(factory=dict)
    would_open: Mapping[str, int] = attrs.field(factory=dict)
    failed: int = 0

    def __str__(self) -> str:
        parts = [f"refused {sum(self.refused.values())}{_reasons(self.refused)}"]
        parts.append(f"let out {sum(self.allowed.values())} that were refused")
        parts[-1] += _reasons(self.allowed)
        parts.append(f"chosen another line for {self.other_line}")
        parts.append(f"another moment for {self.other_moment}")
        return f"of {self.decided} decisions it would have {', '.join(parts)}"


def _reasons(counts: Mapping[str, int]) -> str:
    told = ", ".join(f"{reason} {count}" for reason, count in sorted(counts.items()))
    return f" ({told})" if told else ""


_Kind = tuple[str, str]
"""What differed, and the reason or line it is counted under."""


class Shadow:
    """The second policy, and its counts."""

    def __init__(self, policy: Policy, pool: str, *, static: bool) -> None:
        self._fleet = Fleet(policy, pool, static=static)
        self._quiet = quiet_of(policy)
        self._followed: Fleet | None = None
        self._follower = Follower()
        self._buckets: OrderedDict[int, Counter[_Kind]] = OrderedDict()
        self._open: OrderedDict[str, tuple[int, list[_Kind]]] = OrderedDict()
        self._latest = 0.0

    def decided(
        self,
        fleet: Fleet,
        request: Request,
        who: Who,
        now: float,
        made_id: str,
        told: Made | Decision,
    ) -> None:
        """Decide the same, and count what differs."""
        mine, policy = self._fleet, self._fleet.policy
        if fleet is not self._followed:
            self._followed, self._follower = fleet, Follower()
        keep_up(mine, fleet, self._follower)
        mine.polled_at = fleet.polled_at
        mine.at(now)
        if request.max_delay == fleet.policy.pace.max_delay != policy.pace.max_delay:
            request = attrs.evolve(request, max_delay=policy.pace.max_delay)
        area = None
        if policy.affinity.area_code < 1.0 and not who.is_group:
            area = area_code(who.recipient.handles[0])
        rest = () if self._quiet is None else rest_of(self._quiet, who.recipient.handles)
        person = Someone(who.salt, area, who.contact, who.block, who.is_group, rest=rest)
        self._count(made_id, now, _compared(told, decide(request, person, mine, now)))

    def withdrawn(self, made_id: str) -> None:
        """Count a choice no more that was not written."""
        then, before = self._open.pop(made_id, (0, []))
        self._buckets.get(then, Counter()).subtract(before)

    def failed(self, now: float) -> None:
        """Count a decision it could not be asked for."""
        self._count("", now, [("failed", "")])

    def within(self, seconds: float) -> ShadowCounts:
        """The counts of the last *seconds*, to 5 minutes, at most of a day; as of the latest decision."""
        first = (self._latest - min(seconds, KEPT)) // _BUCKET
        total: Counter[_Kind] = Counter()
        for bucket, counts in list(self._buckets.items()):
            if bucket >= first:
                total.update(counts)

        def by(what: str) -> dict[str, int]:
            return {name: n for (kind, name), n in sorted(total.items()) if kind == what and n}

        plain = {what: n for (what, name), n in total.items() if not name}
        refused, allowed = by("refused"), by("allowed")
        both = ("same", "other_line", "other_moment", "other_reason")
        found = {what: plain.get(what, 0) for what in both}
        return ShadowCounts(
            seconds,
            sum(found.values()) + sum(refused.values()) + sum(allowed.values()),
            **found,
            refused=refused,
            allowed=allowed,
            opened=by("opened"),
            would_open=by("would_open"),
            failed=plain.get("failed", 0),
        )

    def _count(self, made_id: str, now: float, found: list[_Kind]) -> None:
        bucket = int(now // _BUCKET)
        self._buckets.setdefault(bucket, Counter()).update(found)
        self._latest = now
        if made_id:
            self._open[made_id] = bucket, found
        while len(self._open) > _OPEN:
            self._open.popitem(last=False)
        while len(self._buckets) > KEPT // _BUCKET + 1:
            self._buckets.popitem(last=False)


def _compared(told: Made | Decision, other: Grant | Refusal) -> list[_Kind]:
    """What differs between what was decided and what would have been."""
    live = told if isinstance(told, Made) else None
    found: list[_Kind] = []
    if live is not None and live.kind == "new":
        found.append(("opened", live.number))
    if isinstance(other, Grant) and other.kind == "new":
        found.append(("would_open", other.number))
    if isinstance(told, Made):
        if isinstance(other, Refusal):
            found.append(("refused", other.reason))
        elif other.number != told.number:
            found.append(("other_line", ""))
        else:
            moved = abs(other.send_at - told.send_at) > _LATER
            found.append(("other_moment" if moved else "same", ""))
    elif isinstance(other, Grant):
        found.append(("allowed", told.reason or told.outcome))
    else:
        same = (other.outcome, other.reason) == (told.outcome, told.reason)
        found.append(("same" if same else "other_reason", ""))
    return found
