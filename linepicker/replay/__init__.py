"""What was decided, decided again: exactly, or as another policy would have it over the same history."""

from __future__ import annotations

from linepicker.replay.exact import Checked, Difference, check
from linepicker.replay.log import LogError

__all__ = ["Checked", "Difference", "LogError", "check"]
