"""What another policy would have done over a recorded history: the requests come again, at their moments, to a real router on a
store of its own, whose records go where the new policy takes them.

What the world did is taken from the log: who was written to and when, what the provider thought of each line, what operators
did, who replied or opted out, what became of the messages. What follows from the choices is worked out anew: who belongs to
which line, what is spent, which line rests after it refused a message.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from os import PathLike
from typing import Any, Final

import attrs

from linepicker._asks import Made, Who
from linepicker._promise import Reservation
from linepicker.errors import Blocked, Held, NoLine, NotNow, StaleHealth
from linepicker.model import Decision, Outcome
from linepicker.policy import Policy
from linepicker.replay.log import Decided, Entry, read, withdrawn
from linepicker.replay.use import OPEN, Side, Use, end_of
from linepicker.replay.world import World, quietly
from linepicker.router import Router

__all__ = ["Otherwise", "WhatIf", "what_if"]

_UNDONE: Final = ("NOT_SENT", "LINE_REFUSED", "RECIPIENT_REFUSED")


@attrs.frozen
class Otherwise:
    """A request that would have ended otherwise: where it stands in the log, when it came, the keyed name and mask of the
    recipient; what happened, and what would have."""

    place: str
    at: float
    to: str
    masked: str
    was: str
    would: str


@attrs.frozen
class WhatIf:
    """A history under two policies. `was` is what is recorded, `would` what the other policy makes of the same requests."""

    requests: int
    different: int
    was: Side
    would: Side
    differences: tuple[Otherwise, ...]


def what_if(
    paths: Iterable[str | PathLike[str]],
    policy: Policy,
    *,
    key: bytes | None = None,
    most: int = 1000,
) -> WhatIf:
    """What *policy* would have done. *most*: how many differences are kept. Raises `LogError`, OSError.

    Who was refused in the log came again, if they did, at recorded moments; who is refused only now does not come again. A
    line that refused a message does so here too, if the message is on it; if it is on another, it counts as not sent, and the
    caller's next attempt is in the log.
    """
    paths = list(paths)
    again = _Again(policy, most, withdrawn(paths))
    for entry in read(paths, key=key):
        again.take(entry)
    return again.result()


@attrs.define
class _Pending:
    """A request and both ends of it."""

    place: str
    decided: Decided
    was: Decision
    would: Decision


class _Again:
    """The history, as far as it has come."""

    def __init__(self, policy: Policy, most: int, void: Counter[str]) -> None:
        self.most, self.void = most, void
        self.world = World(policy)
        self.made: OrderedDict[str, Reservation] = OrderedDict()
        self.was, self.would = Use(), Use()
        self.pending: OrderedDict[str, _Pending] = OrderedDict()
        self.requests = self.different = 0
        self.differences: list[Otherwise] = []

    def take(self, entry: Entry) -> None:
        """What a line of the log tells."""
        self.world.at(float(entry.value["at"]))
        if entry.decided is not None:
            self._decided(entry, entry.decided)
        elif entry.kind == "settled":
            self._settled(entry.value)
        elif entry.kind == "move":
            self.world.moved(entry.session, entry.value)
        else:
            self.world.reported(entry.session, entry.value["report"])

    def result(self) -> WhatIf:
        """What it came to."""
        while self.pending:
            self._close(self.pending.popitem(last=False)[1])
        return WhatIf(
            self.requests,
            self.different,
            self.was.side(),
            self.would.side(),
            tuple(self.differences),
        )

    def _decided(self, entry: Entry, decided: Decided) -> None:
        if self.void[decided.id]:  # others wrote meanwhile
            self.void[decided.id] -= 1
            return
        was = _decision(decided)
        self.was.end(decided.id, was)
        router, who = self.world.before(entry.session, decided)
        would = self._ask(router, decided, who)
        self.would.end(decided.id, would)
        self.requests += 1
        self.pending[decided.id] = _Pending(entry.place, decided, was, would)
        if len(self.pending) > OPEN:
            self._close(self.pending.popitem(last=False)[1])

    def _ask(self, router: Router, decided: Decided, who: Who) -> Decision:
        request = decided.request
        if "max_delay" not in decided.asked:
            request = attrs.evolve(request, max_delay=self.world.policy.pace.max_delay)
        now = self.world.clock.now()
        flow = router._desk.reserve(who, request, now, decided.id, key=decided.key)
        try:
            made: Made = router._drive(flow)
        except (Blocked, Held, NoLine, NotNow, StaleHealth) as refusal:
            return refusal.decision
        except ValueError:  # they wrote to a line, and only in the log's world it is theirs
            return Decision("held", reason="not_in_fleet", at=now, to=decided.person.masked)
        self.made[decided.id] = Reservation(router, made)
        if len(self.made) > OPEN:
            self.made.popitem(last=False)
        return made.decision

    def _close(self, pending: _Pending) -> None:
        """Both ends are known now."""
        was, would = end_of(pending.was), end_of(pending.would)
        if was == would:
            return
        self.different += 1
        if len(self.differences) < self.most:
            decided = pending.decided
            self.differences.append(
                Otherwise(pending.place, decided.at, decided.to, decided.person.masked, was, would)
            )

    def _settled(self, value: Mapping[str, Any]) -> None:
        outcome, made_id = str(value["outcome"]), value["id"]
        if outcome in _UNDONE:
            self.was.undo(made_id)
        made = self.made.get(made_id)
        if made is None or made.outcome is not None:
            return
        pending = self.pending.get(made_id)
        elsewhere = pending is not None and pending.was.number != made.number
        if elsewhere:
            outcome = {"LINE_REFUSED": "NOT_SENT", "RATE_LIMITED": "SENT"}.get(outcome, outcome)
        if outcome in _UNDONE:
            self.would.undo(made_id)
        if "message" in value:
            self.world.sent(str(value["message"]), made.number)
        quietly(
            lambda: made.settle(
                Outcome(outcome),
                chat_id=value.get("chat"),
                message_id=value.get("message"),
                number=None if elsewhere else value.get("number"),
                retry_after=None if elsewhere else value.get("retry_after"),
            )
        )


def _decision(decided: Decided) -> Decision:
    """The recorded decision, without its candidates."""
    told = decided.told
    return Decision(
        told["outcome"],
        told["number"],
        told["kind"],
        told["reason"],
        told["retry_at"],
        told["delay"],
        (),
        told["at"],
        told["to"],
        told["moved_from"],
    )
