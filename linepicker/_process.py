"""Which process this is. Asking the system each time would be a tenth of what a choice costs.

Python tells of its own forks. uWSGI forks workers without telling Python, unless it is made to, so there the system is asked.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Final

_pid = os.getpid()


def _forked() -> None:
    global _pid  # noqa: PLW0603  there is one process
    _pid = os.getpid()


def _told() -> int:
    return _pid


process: Final[Callable[[], int]] = os.getpid if "uwsgi" in sys.modules else _told
"""This process's id."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
