"""Changes to a room that nobody can notice, each with why: mutants that `tests/mutate.py` names as justified.

A line stands here as it is in the room, without indentation; where it changes there, its entry no longer counts.
"""

from __future__ import annotations

from typing import Final

import attrs


@attrs.frozen
class Equal:
    """A line of a room, what it may be changed to, and why that makes no difference."""

    room: str
    line: str
    instead: tuple[str, ...]
    why: str


_REBUILT: Final = "when the heap is rebuilt decides how long it gets (a test holds it below the bound), not what is in it"

EQUAL: Final = (
    Equal(
        "stores/memory",
        "self._version = secrets.randbits(64) << COUNTER_BITS",
        (
            "self._version = secrets.randbits(63) << COUNTER_BITS",
            "self._version = secrets.randbits(65) << COUNTER_BITS",
        ),
        "any number that no other store begins with will do",
    ),
    Equal(
        "stores/memory",
        "if len(self._due) > 2 * len(self._expires) + 64:",
        (
            "if len(self._due) > 2 / len(self._expires) + 64:",
            "if len(self._due) >= 2 * len(self._expires) + 64:",
            "if len(self._due) > 3 * len(self._expires) + 64:",
            "if len(self._due) > 1 * len(self._expires) + 64:",
            "if not len(self._due) > 2 * len(self._expires) + 64:",
            "if len(self._due) <= 2 * len(self._expires) + 64:",
            "if len(self._due) > 2 * len(self._expires) - 64:",
            "if len(self._due) > 2 * len(self._expires) + 63:",
            "if len(self._due) > 2 * len(self._expires) + 65:",
        ),
        _REBUILT,
    ),
    Equal(
        "stores/memory",
        "_CLOSED: Final = -1",
        ("_CLOSED: Final = -2",),
        "no process has a negative id",
    ),
    Equal(
        "stores/memory",
        "gone = False",
        ("gone = True",),
        "then what was written is looked through in vain for what was removed",
    ),
    Equal(
        "stores/memory",
        "counter += 1",
        ("counter += 2",),
        "versions have to grow, by however much",
    ),
    Equal(
        "_ranking",
        "if len(self._due) > 8 * len(self._until) + 64:",
        (
            "if not len(self._due) > 8 * len(self._until) + 64:",
            "if len(self._due) <= 8 * len(self._until) + 64:",
            "if len(self._due) > 8 * len(self._until) - 64:",
            "if len(self._due) >= 8 * len(self._until) + 64:",
            "if len(self._due) > 8 / len(self._until) + 64:",
            "if len(self._due) > 8 * len(self._until) + 63:",
            "if len(self._due) > 7 * len(self._until) + 64:",
        ),
        _REBUILT,
    ),
)
