"""What a tunable may be: bounds, and what is said of a value beyond them."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias
from zoneinfo import ZoneInfo

import attrs

from linepicker.errors import PolicyError

OFF: Final = "off"
MOST: Final = 10**12
"""Of anything: so much that it is no limit, and sums and products stay exact."""

_TIME: Final = "((?:[01][0-9]|2[0-3]):[0-5][0-9])"
_WINDOW: Final = re.compile(f"{_TIME}-{_TIME}")

Validator: TypeAlias = Callable[[Any, "attrs.Attribute[Any]", Any], None]


def section_name(section: type) -> str:
    """The TOML table that a class stands for: at_risk for AtRisk."""
    return re.sub("(?<=[a-z])(?=[A-Z])", "_", section.__name__).lower()


def show(value: object) -> str:
    """A value as a message may show it."""
    if isinstance(value, int) and value.bit_length() > 64:
        return f"a number of {value.bit_length()} bits"
    return reprlib.repr(value)


def text_or_off(value: str | None) -> str | None:
    """None for "off"."""
    return None if value == OFF else value


def int_or_off(value: int | Literal["off"] | None) -> int | None:
    """None for "off"."""
    return None if value == OFF else value


def float_or_off(value: float | Literal["off"] | None) -> float | None:
    """None for "off"."""
    return None if value == OFF else value


def must(be: str, holds: Callable[[Any], bool]) -> Validator:
    """A validator that raises PolicyError, saying what the value must *be*, where it does not hold."""

    def validate(section: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if not holds(value):
            table = section_name(type(section))
            place = attribute.name if table == "policy" else f"{table}.{attribute.name}"
            raise PolicyError(f"{place} must be {be}, got {show(value)}")

    return validate


def is_count(value: object) -> bool:
    """Whether it is a whole number from 1 on."""
    return type(value) is int and 1 <= value <= MOST


def is_number(value: object) -> bool:
    """Whether it is a number, and not a truth value."""
    return type(value) in (int, float)


def is_share(value: Any) -> bool:
    """Whether it is above 0 and at most 1."""
    return is_number(value) and 0 < value <= 1


def is_window(value: object) -> bool:
    """Whether it is a window of the day: two different times from 00:00 to 23:59."""
    match = _WINDOW.fullmatch(value) if isinstance(value, str) else None
    return match is not None and match[1] != match[2]


def is_zone(value: object) -> bool:
    """Whether it is a time zone that this machine knows."""
    if not isinstance(value, str):
        return False
    try:
        ZoneInfo(value)
    except (ValueError, OSError, LookupError):  # a name that is none, or that leads to no file
        return False
    return True


def one_of(*words: str) -> Validator:
    """A validator for one of so many words."""
    return must(" or ".join(f'"{word}"' for word in words), lambda value: value in words)


COUNT: Final = must(f"a whole number from 1 to {MOST:,}", is_count)
FEW: Final = must("a whole number from 1 to 100", lambda value: is_count(value) and value <= 100)
LIMIT: Final = must(
    f'a whole number from 1 to {MOST:,}, or "off"',
    lambda value: value is None or is_count(value),
)
SHARE: Final = must("above 0 and at most 1", is_share)
SHARE_OR_ZERO: Final = must("from 0 to 1", lambda value: is_number(value) and 0 <= value <= 1)
SHARE_KEPT: Final = must(
    "0, or from 0.001 to 0.5",
    lambda value: is_number(value) and (value == 0 or 0.001 <= value <= 0.5),
)
SPREAD: Final = must(
    'above 0 and at most 1, or "off"', lambda value: value is None or is_share(value)
)
SECONDS: Final = must(
    f"above 0 and at most {MOST:,}, in seconds",
    lambda value: is_number(value) and 0 < value <= MOST,
)
SECONDS_OR_ZERO: Final = must(
    f"from 0 to {MOST:,}, in seconds",
    lambda value: is_number(value) and 0 <= value <= MOST,
)
FACTOR: Final = must(f"from 1 to {MOST:,}", lambda value: is_number(value) and 1 <= value <= MOST)
FACTOR_OR_OFF: Final = must(
    f'from 1 to {MOST:,}, or "off"',
    lambda value: value is None or (is_number(value) and 1 <= value <= MOST),
)
SWITCH: Final = must("true or false", lambda value: type(value) is bool)
REGION: Final = must(
    "two capital letters, as in US, or left out",
    lambda value: (
        value is None or (isinstance(value, str) and re.fullmatch("[A-Z]{2}", value) is not None)
    ),
)
HOLD_OR_MOVE: Final = one_of("hold", "move")
SECONDS_OR_OFF: Final = must(
    f'above 0 and at most {MOST:,}, in seconds, or "off"',
    lambda value: value is None or (is_number(value) and 0 < value <= MOST),
)
MODE: Final = one_of("off", "shadow", "enforce")
HOURS: Final = must(
    'a window of the day as in "21:00-08:00", its ends not the same, or "off"',
    lambda value: value is None or is_window(value),
)
HOURS_ELSEWHERE: Final = must(
    'a window of the day as in "21:00-08:00", its ends not the same, or "off", or left out',
    lambda value: value is None or value == OFF or is_window(value),
)
ZONE: Final = must(
    "a time zone as in America/New_York (where the machine has none: pip install tzdata)", is_zone
)
TEXT: Final = must(
    "a text of at most 2,000 characters",
    lambda value: isinstance(value, str) and len(value) <= 2000,
)
Mode: TypeAlias = Literal["off", "shadow", "enforce"]
"""What a rule does: nothing; count, and say in the decision what it would have done; or act."""
