"""What callers pass, checked."""

from __future__ import annotations

import math
from typing import Final

from linepicker.policy import Policy

_KEY_AT_MOST: Final = 255


def check_key(key: str | None) -> None:
    """Raises ValueError for what can't be a key."""
    if key is not None and not (isinstance(key, str) and 0 < len(key) <= _KEY_AT_MOST):
        raise ValueError(f"key must be a string of 1 to {_KEY_AT_MOST} characters")


def check_policy(policy: object) -> None:
    """Raises TypeError for what is no policy."""
    if not isinstance(policy, Policy):
        raise TypeError(f"policy must be a Policy, got {type(policy).__name__}")


def check_moment(name: str, value: object) -> None:
    """Raises ValueError for what is no finite number."""
    if type(value) not in (int, float) or not math.isfinite(value):  # type: ignore[arg-type]  # a number here
        raise ValueError(f"{name} must be a finite number, got {value!r}")


def check_max_wait(max_wait: float | None) -> None:
    """Raises ValueError for what is no duration."""
    if max_wait is not None and not max_wait >= 0.0:
        raise ValueError(f"max_wait must be 0 or more seconds, got {max_wait!r}")
