"""From the bytes of a request to the nouns of the account; whatever is malformed is a 400, as `Refusal`."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, TypeVar
from urllib.parse import parse_qs

import attrs

from linepicker.testing.fakelinq.model import Content, Refusal, e164, handle

__all__ = [
    "Fields",
    "Request",
    "content",
    "fields",
    "handles",
    "key",
    "many",
    "numbers",
    "one",
    "page",
    "subscription",
]

MAX_RECIPIENTS: Final = 31
MAX_PARTS: Final = 100
MAX_KEY: Final = 255
"""Entries of `to`, parts of a message, characters of an idempotency key (Linq: Sending Messages)."""

DEFAULT_LIMIT: Final = 20
MAX_LIMIT: Final = 100
"""Entries on a page (Linq: list chats)."""

_SERVICES: Final = frozenset({"iMessage", "RCS", "SMS"})

_T = TypeVar("_T")


@attrs.frozen(kw_only=True)
class Request:
    """A request as the fake received it.

    `path` starts at `/v3`, still percent-encoded and without the query, which is `query`. `headers` have lower-case names
    and leave out the token. `trace_id` is what the answer's header `X-Trace-ID` says.
    """

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = attrs.field(factory=dict)
    body: bytes = attrs.field(default=b"", repr=False)
    trace_id: str = attrs.field(factory=lambda: uuid.uuid4().hex, eq=False)


class Fields:
    """A JSON object whose fields are asked for by type: a missing one is 1001, one of another type 1003."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def __contains__(self, name: str) -> bool:
        return self._values.get(name) is not None

    def given(self, name: str) -> bool:
        """Whether the field is there, null or not."""
        return name in self._values

    def required(self, name: str) -> Any:
        """The field's value, whatever it is."""
        if name not in self:
            raise Refusal(400, 1001, f"{name} is required.")
        return self._values[name]

    def text(self, name: str) -> str:
        """A string that has to be there."""
        return _typed(self.required(name), str, name)

    def number(self, name: str) -> str:
        """An E.164 number that has to be there."""
        number = e164(self.text(name))
        if number is None:
            raise Refusal(400, 1002, f"{name} must be a phone number in E.164 format.")
        return number

    def items(self, name: str) -> Sequence[Any]:
        """A list, empty if left out."""
        return _typed(self._values[name], list, name) if name in self else []

    def flag(self, name: str) -> bool:
        """A boolean, false if left out."""
        return name in self and _typed(self._values[name], bool, name)

    def object(self, name: str) -> dict[str, Any] | None:
        """An object, None if left out."""
        return _typed(self._values[name], dict, name) if name in self else None

    def choice(self, name: str, choices: frozenset[str]) -> str | None:
        """One of *choices*, None if left out; anything else is 1005."""
        if name not in self:
            return None
        if self._values[name] not in choices:
            raise Refusal(400, 1005, f"{name} must be one of {', '.join(sorted(choices))}.")
        return str(self._values[name])


def _typed(value: object, kind: type[_T], name: str) -> _T:
    if not isinstance(value, kind):
        raise Refusal(400, 1003, f"{name} has the wrong type.")
    return value


def fields(request: Request) -> Fields:
    """The request's body, which must be a JSON object."""
    try:
        value = json.loads(request.body)
    except ValueError:
        raise Refusal(400, 1003, "The request body is not valid JSON.") from None
    return Fields(_typed(value, dict, "The request body"))


def handles(values: Sequence[object], name: str) -> tuple[str, ...]:
    """Recipients as the sorted set of their normalised handles."""
    found = [handle(_typed(value, str, f"Every entry of {name}")) for value in values]
    known = {each for each in found if each is not None}
    if len(found) > MAX_RECIPIENTS:
        raise Refusal(400, 1005, f"{name} has more than {MAX_RECIPIENTS} entries.")
    if None in found:
        raise Refusal(400, 1002, f"Every entry of {name} must be E.164 or an email address.")
    return tuple(sorted(known))


def recipients(body: Fields) -> tuple[str, ...]:
    """The field `to`, which must name somebody."""
    body.required("to")
    values = body.items("to")
    if not values:
        raise Refusal(400, 1001, "to is required.")
    return handles(values, "to")


def numbers(values: Sequence[object], name: str) -> frozenset[str]:
    """E.164 numbers; not necessarily lines."""
    for value in values:
        if e164(value) is None:
            raise Refusal(400, 1002, f"Every entry of {name} must be in E.164 format.")
    return frozenset(str(value) for value in values)


def content(message: Fields) -> Content:
    """A message's parts and manners. Text, link and media parts are known."""
    if "parts" not in message:
        raise Refusal(400, 1001, "message.parts is required.")
    parts = tuple(_part(value) for value in message.items("parts"))
    kinds = [part["type"] for part in parts]
    if not 1 <= len(parts) <= MAX_PARTS:
        raise Refusal(400, 1004, f"A message has 1 to {MAX_PARTS} parts.")
    if "link" in kinds and len(parts) > 1:
        raise Refusal(400, 1004, "A link part must be the only part.")
    if ("text", "text") in pairwise(kinds):
        raise Refusal(400, 1004, "Text parts can't follow one another.")
    return Content(
        parts=parts,
        preferred_service=message.choice("preferred_service", _SERVICES),
        effect=message.object("effect"),
        reply_to=message.object("reply_to"),
    )


def _part(value: object) -> Mapping[str, Any]:
    part = Fields(_typed(value, dict, "Every part"))
    kind = part.text("type")
    if kind in ("text", "link"):
        if not part.text("value"):
            raise Refusal(400, 1004, f"A {kind} part can't be empty.")
        return {"type": kind, "value": part.text("value")}
    if kind != "media":
        raise Refusal(400, 1004, "The fake knows text, link and media parts.")
    if ("url" in part) == ("attachment_id" in part):
        raise Refusal(400, 1004, "A media part has either a url or an attachment_id.")
    source = "url" if "url" in part else "attachment_id"
    return {"type": kind, source: part.text(source)}


def key(message: Fields, header: str | None = None) -> str | None:
    """The idempotency key: the body's, else the header's."""
    text = message.text("idempotency_key") if "idempotency_key" in message else header
    if text is not None and not 1 <= len(text) <= MAX_KEY:
        raise Refusal(400, 1005, f"An idempotency key has 1 to {MAX_KEY} characters.")
    return text


def subscription(body: Fields) -> dict[str, Any]:
    """The fields of a webhook subscription that are there; null clears those that may be null."""
    given: dict[str, Any] = {}
    if "target_url" in body:
        given["target_url"] = body.text("target_url")
    if "subscribed_events" in body:
        names = body.items("subscribed_events")
        given["subscribed_events"] = tuple(
            _typed(name, str, "Every entry of subscribed_events") for name in names
        )
    if "is_active" in body:
        given["is_active"] = body.flag("is_active")
    if body.given("phone_numbers"):
        lines = body.items("phone_numbers")
        given["phone_numbers"] = tuple(sorted(numbers(lines, "phone_numbers")))
    for name in ("routing_key_header", "routing_id_header"):
        if body.given(name):
            given[name] = (body.text(name) if name in body else "") or None
    return given


def many(request: Request, name: str) -> list[str]:
    """A query parameter of several values, repeated or joined by commas: the docs and the official client differ."""
    return [each for value in parse_qs(request.query).get(name, []) for each in value.split(",")]


def one(request: Request, name: str) -> str | None:
    """A query parameter of one value."""
    return parse_qs(request.query).get(name, [None])[-1]


def page(request: Request) -> tuple[int, int]:
    """Where a page begins and how many entries it has at most."""
    limit, cursor = one(request, "limit") or str(DEFAULT_LIMIT), one(request, "cursor") or "0"
    if not limit.isdecimal() or not 1 <= int(limit) <= MAX_LIMIT:
        raise Refusal(400, 1005, f"limit must be between 1 and {MAX_LIMIT}.")
    if not cursor.isdecimal():
        raise Refusal(400, 1005, "cursor must be one that a page came with.")
    return int(cursor), int(limit)
