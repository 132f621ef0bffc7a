"""The bytes of records: a format number, then one JSON object, or packed numbers with JSON behind.

A later format may add, never change: what this version does not know (members of the JSON part, bytes at the end) it carries
along and writes back under the number it came with, so that two versions side by side lose nothing.
"""

from __future__ import annotations

import json
import math
import struct
import sys
from array import array
from collections.abc import Mapping
from typing import Any, Final

from linepicker.errors import StoreError

FORMAT: Final = 1
NEWEST_READABLE: Final = FORMAT + 1


def damaged(what: str, why: object) -> StoreError:
    """What is raised for bytes that can't be understood."""
    return StoreError(
        f"a stored {what} can't be read ({why}); restore the store from a backup", answered=True
    )


def format_of(raw: bytes, what: str) -> int:
    """The format number. Raises StoreError for one this version can't read."""
    if not raw or raw[0] < FORMAT:
        raise damaged(what, "no such format")
    if raw[0] > NEWEST_READABLE:
        raise StoreError(
            f"a stored {what} has format {raw[0]}, this linepicker reads up to {NEWEST_READABLE}: upgrade it",
            answered=True,
        )
    return raw[0]


_to_json: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def dump(value: Mapping[str, Any]) -> bytes:
    """JSON, as bytes."""
    return _to_json(value).encode()


def load(raw: bytes) -> dict[str, Any]:
    """The object in JSON bytes. Raises ValueError, TypeError, RecursionError."""
    value = json.loads(raw)
    if not isinstance(value, dict):
        raise TypeError("not an object")
    return value


def number(value: Any) -> float:
    """A number that JSON held. Raises ValueError for NaN and infinity, TypeError for what is none."""
    found = float(value)
    if not math.isfinite(found):
        raise ValueError("impossible number")
    return found


LITTLE: Final = sys.byteorder == "little"


def swapped(values: array[Any]) -> bytes:
    """The little-endian bytes of an array on a big-endian host."""
    values = values[:]
    values.byteswap()
    return values.tobytes()


class Reader:
    """Takes packed values from the front of bytes; what is left is what a later format added."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.at = 0

    def unpack(self, layout: struct.Struct) -> tuple[Any, ...]:
        """The next packed values."""
        values = layout.unpack_from(self.raw, self.at)
        self.at += layout.size
        return values

    def take(self, size: int) -> bytes:
        """The next bytes. Raises ValueError where there are fewer."""
        if self.at + size > len(self.raw):
            raise ValueError("cut short")
        self.at += size
        return self.raw[self.at - size : self.at]

    def array(self, typecode: str, count: int) -> array[Any]:
        """The next numbers."""
        values: array[Any] = array(typecode)
        values.frombytes(self.take(count * values.itemsize))
        if not LITTLE:
            values.byteswap()
        return values

    def rest(self) -> bytes:
        """What is left."""
        return self.raw[self.at :]


BROKEN: Final = (ValueError, TypeError, KeyError, AttributeError, RecursionError, struct.error)
