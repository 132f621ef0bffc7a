"""How much alike the texts are that a line opened its latest conversations with: a sketch of each, never the text. Pure.

A sketch is eight bytes: by one-permutation MinHash (Li, Owen, Zhang 2012) over pairs of words, of each value one byte (b-bit
MinHash, Li and König 2010). Two texts share about as many of the eight as they share pairs of words. Digits count as one and
case as none, so that a name or a number filled in leaves texts alike.

They are kept behind a line's spending: a tag, how many, and nine bytes for each, the last one telling whether it was much
like one before it.
"""

from __future__ import annotations

import re
from typing import Final
from zlib import crc32

from linepicker._priority import behind_marks

KEPT: Final = 40
"""How many of the latest openings are remembered."""
ALIKE: Final = 5
"""Of eight: so many in common make two texts near-duplicates, at about six tenths of their pairs of words."""
LONGEST: Final = 2000
"""Of a text, so many characters count."""
_BINS: Final = 8
_EACH: Final = _BINS + 1
_TAG: Final = b"TXT1"
_WORDS: Final = re.compile(r"\w+")
_DIGITS: Final = re.compile(r"\d+")


def sketch(text: str) -> bytes:
    """Eight bytes that tell how much a text is like another; none of a text without words."""
    words = _WORDS.findall(_DIGITS.sub("0", text[:LONGEST].casefold()))
    if not words:
        return b""
    least: list[int | None] = [None] * _BINS
    for pair in zip(("", *words), (*words, ""), strict=True):
        value = crc32(" ".join(pair).encode("utf-8", "replace"))
        place, rest = value % _BINS, value // _BINS
        known = least[place]
        if known is None or rest < known:
            least[place] = rest
    for place in range(_BINS):  # an empty one borrows from the next that is not
        further = 0
        while (found := least[(place + further) % _BINS]) is None:
            further += 1
        least[place] = found
    return bytes(crc32(f"{place} {value}".encode()) & 0xFF for place, value in enumerate(least))


def _alike(one: bytes, other: bytes) -> bool:
    return sum(a == b for a, b in zip(one, other, strict=True)) >= ALIKE


def _kept(rest: bytes) -> tuple[int, bytes]:
    """Where the sketches begin, and those of the latest openings, oldest first."""
    start = behind_marks(rest)
    if rest[start : start + 4] != _TAG:
        return start, b""
    return start, rest[start + 5 : start + 5 + _EACH * rest[start + 4]]


def with_opening(rest: bytes, made: bytes) -> bytes:
    """What is kept behind a spending, with one more opening, of that sketch."""
    start, kept = _kept(rest)
    behind = rest[start + 5 + len(kept) :] if kept else rest[start:]
    known = (kept[i : i + _BINS] for i in range(0, len(kept), _EACH))
    again = any(_alike(made, each) for each in known)
    kept = (kept + made + bytes([again]))[-_EACH * KEPT :]
    return rest[:start] + _TAG + bytes([len(kept) // _EACH]) + kept + behind


def alike(rest: bytes, sample: int) -> float | None:
    """The share of the latest openings that were near-duplicates of one before them; None: fewer than *sample* are known."""
    kept = _kept(rest)[1]
    count = len(kept) // _EACH
    return None if count < max(1, min(sample, KEPT)) else sum(kept[_BINS::_EACH]) / count
