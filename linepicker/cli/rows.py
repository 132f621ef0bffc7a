"""Recipients in a file: plain text, CSV or JSON Lines, a recipient a row."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from linepicker.cli.settings import CommandError
from linepicker.errors import InvalidRecipient
from linepicker.recipients import Recipient, parse

__all__ = ["Rows", "read"]

COLUMN: Final = "to"
NAMES: Final = ("to", "recipient", "phone", "number", "handle", "email")
"""The names that a column of recipients may have, the first that is there."""


@attrs.frozen
class Rows:
    """What a file holds: recipients, those that were named before, and (line, what is wrong with it) of the rest."""

    recipients: list[Recipient] = attrs.field(factory=list)
    repeated: list[int] = attrs.field(factory=list)
    wrong: list[tuple[int, str]] = attrs.field(factory=list)


def read(path: Path, default_region: str | None) -> Rows:
    """The rows of a file, by the end of its name: `.csv` (a column named to, or the only one, or the first), `.jsonl` or
    `.ndjson` (a string, a list, or an object with "to"), else text, a recipient a line. Groups: a list in JSON, else handles
    with blanks or semicolons between them. Empty rows are passed over. Raises CommandError for what can't be read at all."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise CommandError(f"{path} can't be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise CommandError(f"{path} is not text in UTF-8") from None
    kind = path.suffix.lower()
    found = Rows()
    seen: set[str] = set()
    named = (
        _csv(text)
        if kind == ".csv"
        else _json(text)
        if kind in {".jsonl", ".ndjson"}
        else _text(text)
    )
    for line, to in named:
        if isinstance(to, _Wrong):
            found.wrong.append((line, to.why))
            continue
        try:
            recipient = parse(to, default_region=default_region)
        except InvalidRecipient as error:
            found.wrong.append((line, str(error)))
            continue
        if recipient.key in seen:
            found.repeated.append(line)
            continue
        seen.add(recipient.key)
        found.recipients.append(recipient)
    return found


@attrs.frozen
class _Wrong:
    why: str


_Row = tuple[int, Any]


def _split(text: str) -> str | Sequence[str]:
    """One handle, or a group's. A number may be written with blanks, so these divide only what begins anew."""
    parts = [part.strip() for part in text.split(";") if part.strip()]
    if len(parts) == 1:
        words = parts[0].split()
        if len(words) > 1 and all(word.startswith("+") or "@" in word for word in words):
            parts = words
    return parts[0] if len(parts) == 1 else parts


def _text(text: str) -> Iterator[_Row]:
    for line, row in enumerate(text.splitlines(), start=1):
        if row.strip():
            yield line, _split(row)


def _csv(text: str) -> Iterator[_Row]:
    reader = csv.reader(text.splitlines())
    column: int | None = None
    try:
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if column is None:
                names = [cell.strip().lower() for cell in row]
                known = [names.index(name) for name in NAMES if name in names]
                column = known[0] if known else 0
                if known:
                    continue
            if column >= len(row) or not row[column].strip():
                yield reader.line_num, _Wrong("has no recipient")
            else:
                yield reader.line_num, _split(row[column])
    except csv.Error as error:
        yield reader.line_num, _Wrong(f"is not CSV: {error}")


def _json(text: str) -> Iterator[_Row]:
    for line, row in enumerate(text.split("\n"), start=1):
        if not row.strip():
            continue
        try:
            to = json.loads(row)
        except (ValueError, RecursionError):
            yield line, _Wrong("is not JSON")
            continue
        if isinstance(to, dict):
            to = to.get(COLUMN)
        if isinstance(to, str | list) and to:
            yield line, to
        else:
            yield line, _Wrong('must be a string, a list of them, or an object with "to"')
