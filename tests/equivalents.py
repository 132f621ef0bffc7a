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

_TASTE: Final = "how many go at once is a matter of taste"

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
    Equal(
        "stores/sqlite",
        "_KEYS_AT_ONCE: Final = 500",
        ("_KEYS_AT_ONCE: Final = 499", "_KEYS_AT_ONCE: Final = 501"),
        "any number up to what a statement takes will do",
    ),
    Equal(
        "stores/sqlite",
        "_SWAPS_AT_ONCE: Final = 64",
        ("_SWAPS_AT_ONCE: Final = 63", "_SWAPS_AT_ONCE: Final = 65"),
        _TASTE,
    ),
    Equal(
        "stores/sqlite",
        "_PAGE: Final = 500",
        ("_PAGE: Final = 499", "_PAGE: Final = 501"),
        _TASTE,
    ),
    Equal(
        "stores/sqlite",
        "(value, expires_at, None) if short is None else (short, expires_at, 1)",
        ("(value, expires_at, None) if short is None else (short, expires_at, 2)",),
        "what is looked at is whether it is 0 or NULL",
    ),
    Equal(
        "stores/sqlite",
        "for answer, swap in zip(answers, swaps, strict=True)",
        ("for answer, swap in zip(answers, swaps, strict=False)",),
        "there is one answer to each swap",
    ),
    Equal(
        "stores/sqlite",
        "if counter > before:",
        ("if counter >= before:",),
        "then the counter is set to what it is, and no row is put",
    ),
    Equal(
        "stores/sqlite",
        "if counter > before or gone:",
        ("if counter >= before or gone:",),
        "then a transaction that wrote nothing is committed, and not rolled back",
    ),
    Equal(
        "stores/postgres",
        "_PAGE: Final = 500",
        ("_PAGE: Final = 499", "_PAGE: Final = 501"),
        _TASTE,
    ),
    Equal(
        "stores/postgres",
        "for key, counter in zip(keys or (), counters or (), strict=True):",
        ("for key, counter in zip(keys or (), counters or (), strict=False):",),
        "the server tells one counter for each key",
    ),
    Equal(
        "stores/postgres",
        "for key, counter, value in zip(keys, counters, values, strict=True)",
        ("for key, counter, value in zip(keys, counters, values, strict=False)",),
        "the server tells one counter and one value for each key",
    ),
    Equal(
        "stores/postgres",
        "self.database.known = max(self.database.known, *counters or (0,))",
        ("self.database.known = max(self.database.known, *counters or (-1,))",),
        "counters begin above 0",
    ),
    Equal(
        "stores/postgres",
        "return -1 if version else 0",
        ("return -2 if version else 0",),
        "no counter is negative",
    ),
    Equal(
        "stores/postgres",
        "@attrs.frozen(eq=False)",
        ("@attrs.frozen(eq=True)",),
        "nobody compares two of them",
    ),
    Equal(
        "_core",
        "if -rank.key[0] > latest + 1.0:",
        tuple(
            f"if {each}:"
            for each in (
                "rank.key[0] > latest + 1.0",
                "-rank.key[ 1] > latest + 1.0",
                "-rank.key[ -1] > latest + 1.0",
                "-rank.key[0] >= latest + 1.0",
                "-rank.key[0] > latest + 2.0",
            )
        ),
        "it ends a walk early; each line it would still come to is left out by its own slot",
    ),
    Equal(
        "_core",
        "if quiet_until > slot:",
        ("if quiet_until >= slot:",),
        "where both are the same, so is the slot, and what keeps it is named already",
    ),
    Equal(
        "_core",
        "if not found or fleet.rank(found[0]).slot - request.max_delay > now:",
        ("if not found or fleet.rank(found[0]).slot - request.max_delay >= now:",),
        "it is looked for once more, and found again",
    ),
    Equal(
        "_core",
        "urgent: bool = False",
        ("urgent: bool = True",),
        "who did not ask for it never goes before their slot, and only then it makes a difference",
    ),
    Equal(
        "_core",
        "quiet_until: float = 0.0,",
        ("quiet_until: float = 1.0,", "quiet_until: float = -1.0,"),
        "both are over",
    ),
    Equal(
        "_core",
        'there = contact.views.get(home, ("", 0.0))[0]',
        (
            'there = contact.views.get(home, ("", 1.0))[0]',
            'there = contact.views.get(home, ("", -1.0))[0]',
        ),
        "its moment is not looked at",
    ),
    Equal(
        "_flow",
        "if attempt > 1 and not attempt % 2:",
        ("if attempt >= 1 and not attempt % 2:", "if attempt > 0 and not attempt % 2:"),
        "one is odd",
    ),
    Equal(
        "_flow",
        "yield Sleep(min(0.25, 0.002 * 2 ** min(times, 7)) * dice)",
        ("yield Sleep(min(0.25, 0.002 * 2 ** min(times, 8)) * dice)",),
        "seven doublings are past a quarter of a second already",
    ),
    Equal(
        "_flow",
        "keep = max(PAIR_KEPT, state.limits.pair_per_minute or 0)",
        (
            "keep = max(PAIR_KEPT, state.limits.pair_per_minute or -1)",
            "keep = max(PAIR_KEPT, state.limits.pair_per_minute or 1)",
        ),
        "more are kept at all times",
    ),
    Equal(
        "_flow",
        "made.on_probation = standing.probation or state.conclusion.failing_until > 0.0",
        ("made.on_probation = standing.probation or state.conclusion.failing_until > 1.0",),
        "it is a moment of our time, or none",
    ),
)
