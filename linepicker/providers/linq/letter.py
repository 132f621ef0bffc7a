"""A message as Linq takes it: its parts, its idempotency key, and what is said first to people who were moved."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, cast

import attrs

if TYPE_CHECKING:
    from linq.types import MessageContentParam

__all__ = ["Letter"]

_MOST_PARTS: Final = 100  # of a message (Linq: Sending Messages)


@attrs.frozen(repr=False)
class Letter:
    """One message as the API takes it, which may be posted more than once."""

    content: Mapping[str, Any]
    extra: Mapping[str, bool] | None

    @classmethod
    def of(cls, message: str | Mapping[str, Any], *, override_optout: bool) -> Letter:
        """From a text, or what the SDK takes as `message`. Raises ValueError for one with an idempotency key of its own."""
        extra = {"override_optout": True} if override_optout else None
        if isinstance(message, str):
            return cls({"parts": [{"type": "text", "value": message}]}, extra)
        if "idempotency_key" in message:
            raise ValueError(
                "a message's idempotency_key is its reservation's: give the key as key= instead"
            )
        if "parts" in message:  # any iterable, to the SDK
            message = {**message, "parts": list(message["parts"])}
        return cls(message, extra)

    @property
    def text(self) -> str | None:
        """What a person will read of it."""
        values = [
            part["value"]
            for part in self.content.get("parts", ())
            if part.get("type") in {"text", "link"} and isinstance(part.get("value"), str)
        ]
        return "\n".join(values) if values else None

    def message(self, key: str, continuation: str | None = None) -> MessageContentParam:
        """The message with this idempotency key; the *continuation* said first, where there may be a text at all."""
        content = self.content
        if continuation is not None and "parts" in content:
            content = {**content, "parts": _continued(content["parts"], continuation)}
        return cast("MessageContentParam", {**content, "idempotency_key": key})


def _continued(parts: list[Mapping[str, Any]], text: str) -> list[Mapping[str, Any]]:
    kind = parts[0].get("type") if parts else None
    if kind == "media" and len(parts) < _MOST_PARTS:
        return [{"type": "text", "value": text}, *parts]
    if kind == "text":
        with contextlib.suppress(AttributeError, LookupError, TypeError):  # malformed: Linq says so
            return [_after(f"{text}\n\n", parts[0]), *parts[1:]]
    return parts


def _after(text: str, part: Mapping[str, Any]) -> Mapping[str, Any]:
    """A text part with *text* before its own; what it says of some of its characters is still of the same ones."""
    start, end = _units(text), _units(text + part["value"])
    after = {**part, "value": text + part["value"]}
    if part.get("mention") is not None:  # all of its text, unless there is a range
        of = part.get("mention_range")
        after["mention_range"] = [start, end] if of is None else [start + at for at in of]
    for name in ("text_decorations", "inline_stickers"):
        if part.get(name) is not None:
            after[name] = [
                {**each, "range": [start + at for at in each["range"]]} for each in part[name]
            ]
    return after


def _units(text: str) -> int:
    """How long Linq takes a text for: ranges count UTF-16 code units."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2
