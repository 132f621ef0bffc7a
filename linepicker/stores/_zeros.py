"""Small values with their runs of zeros shortened: what a record has not come to yet is zeros, and most are like that."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["AT_MOST", "restored", "shortened"]

AT_MOST: Final = 128
"""Bytes. Longer values are lines', of which there are few, and which are written most often."""

_RUN: Final = re.compile(rb"\0{1,255}")
_SHORT: Final = re.compile(rb"\0(.)", re.DOTALL)
_WRITTEN: Final = [b"\0%c" % length for length in range(256)]


def shortened(value: bytes) -> bytes | None:
    """The value with a zero and a length for each run of zeros; None where that would not be shorter."""
    if len(value) > AT_MOST or b"\0\0\0" not in value:
        return None
    short = _RUN.sub(lambda run: _WRITTEN[run.end() - run.start()], value)
    return short if len(short) < len(value) else None


def restored(short: bytes) -> bytes:
    """The value that was shortened."""
    return _SHORT.sub(lambda run: bytes(run[1][0]), short)
