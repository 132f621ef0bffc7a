"""Handles: what a caller writes as a recipient, made into one form, one key, and one mask.

A handle is an E.164 number or an email address, as Linq's are. Only ASCII is accepted, so that no two handles look alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Final

import attrs

from linepicker.errors import InvalidRecipient, PolicyError

if TYPE_CHECKING:
    from linepicker.model import To

__all__ = ["MAX_GROUP", "Recipient", "area_code", "mask", "mask_all", "parse", "time_zones"]

MAX_GROUP: Final = 31
"""How many handles a group may have. Source: Linq, `to` of a new chat."""

_MAX_TEXT: Final = 320  # characters of a handle as written; nothing longer is looked at
_MAX_ENTRIES: Final = 1000  # of an iterable, repetitions included
_MAX_EMAIL: Final = 254  # RFC 5321, a path without its brackets
_HIDDEN: Final = "•••"

_PHONE: Final = re.compile(r"\+[0-9]{7,15}")
_DECORATION: Final = re.compile(r"[ .()\[\]-]")
_NATIONAL: Final = re.compile(r"[0-9 .()/-]+")
_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_TOP: Final = r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"
_EMAIL: Final = re.compile(rf"[a-z0-9.!#$%&'*+/=?^_`{{|}}~-]+@(?:{_LABEL}\.)+(?P<top>{_TOP})")
_NORTH_AMERICAN: Final = re.compile(r"\+1([0-9]{3})[0-9]{7}")


@attrs.frozen(repr=False)
class Recipient:
    """Whom a message is for: one handle, or a group of them. Made by `parse`; equal for equal sets of handles.

    `handles` are normalised, distinct and sorted.
    """

    handles: tuple[str, ...]

    @property
    def key(self) -> str:
        """Names the set in stores: the handle itself; for a group all of them, joined by the comma that no handle has."""
        return self.handles[0] if len(self.handles) == 1 else ",".join(self.handles)

    @property
    def to(self) -> To:
        """The handle, or a group's sorted handles."""
        return self.handles if len(self.handles) > 1 else self.handles[0]

    @property
    def is_group(self) -> bool:
        """Whether there are at least two distinct handles."""
        return len(self.handles) > 1

    @property
    def masked(self) -> str:
        """The handles as logs and messages may show them."""
        return mask_all(self.handles)

    def __repr__(self) -> str:
        return f"Recipient({self.masked})"


def parse(to: str | Iterable[str], *, default_region: str | None = None) -> Recipient:
    """The recipient written as *to*: one handle, or an iterable of a group's handles, in any order.

    A number is E.164: a '+' and 7 to 15 digits; spaces, dots, dashes and brackets after the '+' are dropped. Numbers
    without a '+' are read as those of *default_region* ("US", "GB", …), which needs `linepicker[phone]`. Emails become
    lower case. A group of one distinct handle is that one person.

    Raises `InvalidRecipient`, which shows no handle in clear; `PolicyError` if *default_region* can't be used.
    """
    if isinstance(to, str):
        return Recipient((_normalise(to, default_region),))
    if isinstance(to, bytes | bytearray | memoryview) or not isinstance(to, Iterable):
        raise InvalidRecipient(
            f"a recipient must be a str, or an iterable of str for a group, got {_kind(to)}"
        )
    handles: set[str] = set()
    for position, handle in enumerate(to, start=1):
        try:
            handles.add(_normalise(handle, default_region))
        except InvalidRecipient as error:
            raise InvalidRecipient(f"entry {position} of a group: {error}") from None
        if len(handles) > MAX_GROUP or position > _MAX_ENTRIES:
            raise InvalidRecipient(f"a group has at most {MAX_GROUP} handles, got more")
    if not handles:
        raise InvalidRecipient("a group needs at least one handle, got none")
    return Recipient(tuple(sorted(handles)))


def mask(handle: object) -> str:
    """*handle* as logs and messages may show it: `+1•••••••123`, `a•••@•••.com`, or `•••` for anything else.

    Takes anything, never raises, and answers with at most 72 characters.
    """
    if not isinstance(handle, str) or len(handle) > _MAX_TEXT:
        return _HIDDEN
    if _PHONE.fullmatch(handle):
        return f"{handle[:2]}{'•' * (len(handle) - 5)}{handle[-3:]}"
    if email := _EMAIL.fullmatch(handle):
        return f"{handle[0]}{_HIDDEN}@{_HIDDEN}.{email['top']}"
    return _HIDDEN


def mask_all(to: object) -> str:
    """The masks of one handle or of a group's, separated by commas. Takes anything, as `mask` does, but an iterator
    is used up; handles beyond `MAX_GROUP` become one `…`."""
    if isinstance(to, str | bytes | bytearray | memoryview) or not isinstance(to, Iterable):
        return mask(to)
    masks = [mask(handle) for handle in islice(to, MAX_GROUP + 1)]
    return ", ".join([*masks[:MAX_GROUP], *(["…"] if len(masks) > MAX_GROUP else [])])


def area_code(number: str) -> str | None:
    """The three digits after +1 of a North American number, None for any other handle."""
    match = _NORTH_AMERICAN.fullmatch(number)
    return match[1] if match else None


def time_zones(number: str) -> tuple[str, ...]:
    """The time zones of a number's region, several where it does not tell them apart; none where nobody knows, or for an
    email.

    Raises `PolicyError` where the package that knows them is not installed.
    """
    try:
        import phonenumbers
        from phonenumbers import timezone
    except ImportError:
        raise PolicyError(
            "quiet.by_number needs a package that is not installed: pip install 'linepicker[phone]' "
            "(phonenumberslite leaves the time zones out)"
        ) from None
    try:
        parsed = phonenumbers.parse(number)
    except phonenumbers.NumberParseException:
        return ()
    found = timezone.time_zones_for_number(parsed)
    if timezone.UNKNOWN_TIMEZONE in found:  # a number not in use: its first digits still tell
        found = timezone.time_zones_for_geographical_number(parsed)
    return tuple(name for name in found if name != timezone.UNKNOWN_TIMEZONE)


def _normalise(handle: object, default_region: str | None) -> str:
    if not isinstance(handle, str):
        raise InvalidRecipient(f"a handle must be a str, got {_kind(handle)}")
    if _PHONE.fullmatch(handle):
        return handle
    if len(handle) > _MAX_TEXT:
        raise InvalidRecipient(f"a handle has at most {_MAX_TEXT} characters, got {len(handle)}")
    text = handle.strip()
    if _PHONE.fullmatch(text):
        return text
    if not text:
        raise InvalidRecipient("a handle must not be empty")
    if not text.isascii():
        raise _invalid(text, "has characters that are not ASCII, or only look like it")
    if not text.isprintable():
        raise _invalid(text, "has a control character")
    if "@" in text:
        return _email(text.lower())
    if text.startswith("+"):
        return _international(text)
    if default_region is None:
        raise _invalid(
            text, "is neither E.164 ('+' and digits) nor an email; is default_region to be set?"
        )
    return _national(text, default_region)


def _email(text: str) -> str:
    if len(text) > _MAX_EMAIL:
        raise _invalid(text, f"is an email of more than {_MAX_EMAIL} characters")
    if not _EMAIL.fullmatch(text):
        raise _invalid(text, "is not an email: name@domain.tld, without spaces, commas or quotes")
    return text


def _international(text: str) -> str:
    if "(0)" in text:
        raise _invalid(
            text, "has a '(0)', which is dialled in some countries only: leave it out, or write 0"
        )
    number = _DECORATION.sub("", text)
    if not _PHONE.fullmatch(number):
        raise _invalid(
            text, "is not E.164: after the '+' there must be 7 to 15 digits and nothing else"
        )
    return number


def _national(text: str, region: str) -> str:
    try:
        import phonenumbers
    except ImportError:
        raise PolicyError(
            "default_region needs a package that is not installed: pip install 'linepicker[phone]'"
        ) from None
    if region not in phonenumbers.SUPPORTED_REGIONS:
        raise PolicyError(f"default_region is not a region with telephone numbers: {region[:8]!r}")
    if not _NATIONAL.fullmatch(text):
        raise _invalid(
            text, "is neither a number (digits, spaces, dots, dashes, brackets) nor an email"
        )
    try:
        number = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        raise _invalid(text, f"is not a telephone number of {region}") from None
    if not phonenumbers.is_valid_number(number):
        raise _invalid(
            text, f"is not a valid number of {region}; write it with its '+' to send all the same"
        )
    return _international(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))


def _invalid(text: str, why: str) -> InvalidRecipient:
    return InvalidRecipient(f"the handle {mask(text)} {why}")


def _kind(value: object) -> str:
    return type(value).__name__[:40]
