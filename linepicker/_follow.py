"""Which of a fleet's lines and records are others than when somebody last looked. Pure."""

from __future__ import annotations

import attrs

from linepicker._kept import Held
from linepicker._line import LineState
from linepicker._record import Spending, Standing
from linepicker.fleet import Fleet
from linepicker.model import Line


@attrs.define
class News:
    """A line of which something is new: what the list says of it, or one of its two records."""

    state: LineState
    listed: bool
    standing: bool
    spending: bool


class Follower:
    """Looks at a fleet now and then. Looking costs a comparison or two per line, and nothing is copied."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[Line, Standing, Spending]] = {}

    def news(self, fleet: Fleet) -> tuple[list[News], list[str]]:
        """The lines of which something is new, and those that are gone."""
        seen, found = self._seen, []
        for number, state in fleet.states():
            was = seen.get(number)
            if was is None:
                found.append(News(state, listed=True, standing=True, spending=True))
            else:
                line, standing, spending = was
                if line is state.line and standing is state.standing and spending is state.spending:
                    continue
                new = News(
                    state,
                    listed=line is not state.line and line != state.line,
                    standing=standing is not state.standing and standing != state.standing,
                    spending=spending is not state.spending and spending != state.spending,
                )
                if new.listed or new.standing or new.spending:
                    found.append(new)
            seen[number] = (state.line, state.standing, state.spending)
        if len(seen) == len(fleet):
            return found, []
        gone = [number for number in seen if fleet.state(number) is None]
        for number in gone:
            del seen[number]
        return found, gone


def keep_up(mine: Fleet, theirs: Fleet, follower: Follower) -> None:
    """Make one fleet hold the lines and records of another; each keeps its policy and what it worked out by it."""
    found, gone = follower.news(theirs)
    if gone or any(each.listed for each in found):
        states = dict(theirs.states())
        held = {
            number: Held(
                state.standing, state.standing_version, state.spending, state.spending_version
            )
            for number, state in states.items()
        }
        mine.install([state.line for state in states.values()], held, theirs.polled_at or 0.0)
    for each in found:
        state = each.state
        if each.standing:
            mine.wrote(state.standing_key, state.standing_version, state.standing, lost=True)
        if each.spending:
            mine.wrote(state.spending_key, state.spending_version, state.spending, lost=True)
