"""What is kept of a line's budgets and pace for urgent messages, and how such a message finds the line. Pure.

Ordinary messages see each budget without the share that is kept. A pace is split in two that add up to it: ordinary messages go
in one, somewhat slower; urgent ones in whichever lets them go first, so that they need not queue behind slots that are
promised already.
"""

from __future__ import annotations

import math
import struct
from typing import Final

import attrs

from linepicker import _windows as windows
from linepicker._line import (
    NEVER,
    Budget,
    LineState,
    Rank,
    assess,
    budget_of,
    catch_up,
    message_slot,
    new_slot,
    whole_budget,
)
from linepicker._record import Spending
from linepicker.policy import Policy

NOTE: Final = ("urgent", "urgent: it may use what is kept from other messages")
_MARKS: Final = struct.Struct("<4sdd")
_TAG: Final = b"URG1"


@attrs.frozen
class Lane:
    """A pace of urgent messages alone: *burst* of them at once, *gap* seconds apart; no burst: there is none. *edge*: how far
    ahead a mark can be that no clock has stepped back from."""

    gap: float
    burst: int
    edge: float

    def trusted(self, mark: float, now: float) -> float:
        """The mark, unless only a clock that stepped back can explain it."""
        return min(mark, now + self.gap * self.burst) if mark > now + self.edge else mark

    def slot(self, mark: float, now: float) -> float:
        """The earliest moment from *now* at which one more may go."""
        if not self.burst:
            return NEVER
        return windows.slot(self.trusted(mark, now), now, self.gap, self.burst)


def lanes(
    state: LineState, ordinary: Budget, policy: Policy, now: float, *, slow: bool
) -> tuple[Lane, Lane]:
    """Urgent messages' own paces: of new conversations, and of messages. *ordinary*: the line's budget."""
    whole, pace = whole_budget(state, policy, now, slow=slow), policy.pace
    share = policy.priority.urgent_share or 1.0
    reach = max(pace.max_delay, state.spending.reach) + windows.SKEW
    slowest = 1.0 / policy.at_risk.pace / share
    return (
        Lane(
            whole.new_gap / share,
            whole.new_burst - ordinary.new_burst,
            pace.new_gap * slowest * pace.new_burst + reach,
        ),
        Lane(
            whole.message_gap / share,
            whole.message_burst - ordinary.message_burst,
            pace.message_gap * slowest * pace.message_burst + reach,
        ),
    )


def marks(spending: Spending) -> tuple[float, float]:
    """How far urgent messages' own paces have gone: theoretical arrival times, as the line's others."""
    if spending.rest[:4] != _TAG:
        return 0.0, 0.0
    _, new, message = _MARKS.unpack_from(spending.rest)
    return new, message


def behind_marks(rest: bytes) -> int:
    """Where in what is kept behind a spending that ends, and the rest begins."""
    return _MARKS.size if rest[:4] == _TAG else 0


def _with_marks(rest: bytes, new: float, message: float) -> bytes:
    return _MARKS.pack(_TAG, new, message) + rest[behind_marks(rest) :]


def urgent_message(
    state: LineState, policy: Policy, now: float, *, slow: bool
) -> tuple[int | None, float]:
    """For an urgent message on a line: the messages of a day, and the earliest moment at which it may leave."""
    catch_up(state, policy, now)
    ordinary = budget_of(state, policy, now, slow=slow)
    own = lanes(state, ordinary, policy, now, slow=slow)[1].slot(marks(state.spending)[1], now)
    slot = message_slot(state.spending, ordinary, policy, now)
    return policy.limits_for(state.line).messages_per_day, min(slot, own)


def urgent_rank(state: LineState, policy: Policy, now: float, *, slow: bool) -> Rank:
    """As `assess`, for an urgent message."""
    catch_up(state, policy, now)
    ordinary = budget_of(state, policy, now, slow=slow)
    whole = whole_budget(state, policy, now, slow=slow)
    mine = attrs.evolve(
        state,
        limits=policy.limits_for(state.line),
        budget=attrs.evolve(ordinary, day=whole.day, windows=whole.windows),
        budget_until=NEVER,
        budget_slow=slow,
    )
    rank = assess(mine, policy, now, slow=slow)
    if rank.slot > now:
        own = lanes(state, ordinary, policy, now, slow=slow)[0].slot(marks(state.spending)[0], now)
        opens = min(new_slot(state.spending, ordinary, policy, now), own)
        rank.slot = max(opens, urgent_message(state, policy, now, slow=slow)[1])
        rank.key = (0.0 if rank.slot <= now else -math.ceil(rank.slot), rank.key[1])
    return rank


def into_own_lane(
    spending: Spending,
    state: LineState,
    policy: Policy,
    now: float,
    send_at: float,
    *,
    new: bool,
    slow: bool,
) -> None:
    """Where an urgent message goes before the ordinary ones could, let it take a slot of its own: *spending* was charged as if
    it had taken one of theirs; *state* is the line before."""
    was, ordinary = state.spending, budget_of(state, policy, now, slow=slow)
    own_new, own_message = lanes(state, ordinary, policy, now, slow=slow)
    new_mark, message_mark = marks(was)
    if new and new_slot(was, ordinary, policy, now) > send_at:
        new_mark = max(own_new.trusted(new_mark, now), send_at) + own_new.gap
        spending.new_mark = was.new_mark
    if message_slot(was, ordinary, policy, now) > send_at:
        message_mark = max(own_message.trusted(message_mark, now), now) + own_message.gap
        spending.message_mark = was.message_mark
    if (new_mark, message_mark) != marks(was):
        spending.rest = _with_marks(was.rest, new_mark, message_mark)
