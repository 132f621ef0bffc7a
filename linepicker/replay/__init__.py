"""What was decided, decided again: exactly, or as another policy would have it over the same history."""

from __future__ import annotations

from linepicker.replay.exact import Checked, Difference, check
from linepicker.replay.log import LogError
from linepicker.replay.use import LineUse, Side
from linepicker.replay.whatif import Otherwise, WhatIf, what_if

__all__ = [
    "Checked",
    "Difference",
    "LineUse",
    "LogError",
    "Otherwise",
    "Side",
    "WhatIf",
    "check",
    "what_if",
]
