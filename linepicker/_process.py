"""Which process this is. Asking the system each time would be a tenth of what a choice costs.

Python tells of its own forks. uWSGI forks workers without telling Python, so there the system is asked. Who else forks so, a
library in C, is not noticed.
"""

from __future__ import annotations

import os
import sys

_pid = os.getpid()


def _forked() -> None:
    global _pid  # noqa: PLW0603  there is one process
    _pid = os.getpid()


def process() -> int:
    """This process's id."""
    return os.getpid() if "uwsgi" in sys.modules else _pid


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
