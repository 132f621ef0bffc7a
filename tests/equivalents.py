"""Mutants that no test can kill, since nobody could notice them: each with the reason. `tests/mutate.py` leaves them out.

A tolerance, a limit of what is kept, a branch that only saves time, or a value that another one replaces before it is read.
"""

from __future__ import annotations

from typing import Final

import attrs


@attrs.frozen
class Equal:
    """A change of a room that changes nothing. `was`, `now`: the lines that differ, without what they are indented by."""

    room: str
    was: str
    now: str
    why: str


EQUAL: Final[tuple[Equal, ...]] = ()
