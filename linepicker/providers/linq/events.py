"""Linq's webhook events, made reports: what one says of a line, a message or a conversation.

Both generations of message payloads are read (2025-01-01 and 2026-02-03), and all four of `phone_number.status_updated`,
whose second pair was called `*_health_status` before it was `*_reputation`. Words count in any case. Fields that are not
named here are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, TypeAlias, TypeVar

import attrs

from linepicker.model import (
    ChatHealth,
    ChatHealthChanged,
    Delivered,
    Failed,
    LineAssigned,
    LineChanged,
    LineReleased,
    MessageRead,
    Replied,
    Report,
    Reputation,
    ServiceStatus,
)

__all__ = ["identifier", "moment", "read_event"]

_Object: TypeAlias = Mapping[str, Any]
_Enum = TypeVar("_Enum", bound=StrEnum)

_E164: Final = re.compile(r"\+[0-9]{7,15}")
_LONGEST_WORD: Final = 64
_LONGEST_ID: Final = 255
_RECIPIENT_FAULT: Final = 4005  # the recipient can't take this type of message (Linq: error codes)
_NOTHING: Final[_Object] = {}


def read_event(kind: str, data: object, *, at: float, event_id: str | None) -> Report | None:
    """What an event of the type *kind* reports, None if it has no bearing on routing.

    *data* is the event's `data`, *at* the moment it was made, which stands in where *data* has no moment of its own. Raises
    ValueError where the type is known and *data* does not say what it has to; the message may hold parts of it.
    """
    read = _READERS.get(kind)
    if read is None:
        return None
    if not isinstance(data, Mapping):
        raise ValueError("data is not an object")
    return read(data, at, event_id)


def moment(value: object) -> float | None:
    """Epoch seconds of a timestamp as Linq writes it (ISO 8601; without a zone it is UTC), None if *value* is none."""
    if not isinstance(value, str):
        return None
    try:
        then = datetime.fromisoformat(value)
        return (then if then.tzinfo else then.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def identifier(value: object) -> str | None:
    """*value* if it can name something: 1 to 255 printable ASCII characters. Else None."""
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_ID:
        return None
    return value if value.isascii() and value.isprintable() else None


# Lines


def _status_updated(data: _Object, at: float, event_id: str | None) -> Report | None:
    word = _word(data.get("new_reputation")) or _word(data.get("new_health_status"))
    reputation = _member(Reputation, word)
    unrecognised = word if reputation is None else None
    word = _word(data.get("new_status"))
    status = _member(ServiceStatus, word)
    if word is not None and status is None and reputation in {None, Reputation.HEALTHY}:
        # A status without a name here may be a line that can't send: at most AT_RISK until more is known.
        reputation, unrecognised = None, unrecognised or word
    if reputation is None and status is None and unrecognised is None:
        raise ValueError("neither a reputation nor a status")
    return LineChanged(
        _number(data),
        reputation=reputation,
        status=status,
        unrecognised=unrecognised,
        at=_first(data, "changed_at", default=at),
        event_id=event_id,
    )


def _assigned(data: _Object, at: float, event_id: str | None) -> Report | None:
    return LineAssigned(_number(data), at=_first(data, "changed_at", default=at), event_id=event_id)


def _released(data: _Object, at: float, event_id: str | None) -> Report | None:
    return LineReleased(_number(data), at=_first(data, "changed_at", default=at), event_id=event_id)


def _moved(data: _Object, at: float, event_id: str | None) -> Report | None:
    # Into this token's environment or out of it: read the list again.
    if data.get("phone_number") is None:
        return None
    return LineAssigned(
        _number(data), at=_first(data, "occurred_at", default=at), event_id=event_id
    )


# Messages


@attrs.frozen
class _Message:
    """What both generations say of a message. *person* is who is at the other end, if that is one person and is named."""

    number: str | None
    person: str | None
    inbound: bool
    chat_id: str | None
    message_id: str | None
    parts: object
    health: ChatHealth | None
    health_at: float | None

    @classmethod
    def of(cls, data: _Object, *, inbound: bool = False) -> _Message:
        """The message in *data*; *inbound* is what it is where nothing says so."""
        chat = _object(data, "chat")
        message = _object(data, "message") or data
        sender, owner = data.get("sender_handle"), chat.get("owner_handle")
        if sender is None and owner is None:  # 2025-01-01
            sender = data.get("from_handle") or data.get("from")
            receiver = data.get("recipient_handle") or data.get("recipient_phone")
        else:
            receiver = None
        inbound = _inbound(data, sender, default=inbound)
        ours, theirs = (receiver, sender) if inbound else (sender, receiver)
        group = chat.get("is_group") is True or data.get("is_group") is True
        health, health_at = _health(chat.get("health_status"))
        return cls(
            number=_line(owner) or _line(ours),
            person=None if group else _handle(theirs),
            inbound=inbound,
            chat_id=identifier(chat.get("id")) or identifier(data.get("chat_id")),
            message_id=identifier(message.get("id")) or identifier(data.get("message_id")),
            parts=message.get("parts"),
            health=health,
            health_at=health_at,
        )

    def about(self, at: float, event_id: str | None) -> dict[str, Any]:
        """What every receipt for it has. Raises ValueError if it names neither message nor conversation."""
        if self.chat_id is None and self.message_id is None:
            raise ValueError("neither a message nor a chat")
        return {
            "number": self.number,
            "to": self.person,
            "message_id": self.message_id,
            "chat_id": self.chat_id,
            "chat_health": self.health,
            "chat_health_at": self.health_at,
            "at": at,
            "event_id": event_id,
        }


def _received(data: _Object, at: float, event_id: str | None) -> Report | None:
    message = _Message.of(data, inbound=True)
    if not message.inbound:
        return None
    if message.number is None:
        raise ValueError("no line")
    if data.get("reconciled_at") is not None:  # recovered late: history, at the moment it was sent
        at = _first(data, "sent_at", default=at)
    # Who else is in a group isn't said: there the chat tells whose conversation it is.
    return Replied(
        message.number,
        message.person,
        text=None if data.get("zero_retention") is True else _text(message.parts),
        chat_id=message.chat_id,
        chat_health=message.health,
        chat_health_at=message.health_at,
        at=at,
        event_id=event_id,
    )


def _delivered(data: _Object, at: float, event_id: str | None) -> Report | None:
    message = _Message.of(data)
    if message.inbound:
        return None
    return Delivered(**message.about(_first(data, "delivered_at", default=at), event_id))


def _read(data: _Object, at: float, event_id: str | None) -> Report | None:
    message = _Message.of(data)
    if message.inbound:
        return None
    return MessageRead(**message.about(_first(data, "read_at", default=at), event_id))


def _failed(data: _Object, at: float, event_id: str | None) -> Report | None:
    code = data.get("code")
    if isinstance(code, bool) or not isinstance(code, int):
        code = None
    about = _Message.of(data).about(_first(data, "failed_at", default=at), event_id)
    return Failed(**about, code=code, recipient_fault=code == _RECIPIENT_FAULT)


def _sent(data: _Object, at: float, event_id: str | None) -> Report | None:
    message = _Message.of(data)
    if message.inbound or message.health is None:
        return None
    return ChatHealthChanged(
        message.person,
        message.health,
        number=message.number,
        chat_id=message.chat_id,
        at=at if message.health_at is None else message.health_at,
        event_id=event_id,
    )


# Conversations


def _created(data: _Object, at: float, event_id: str | None) -> Report | None:
    health, health_at = _health(data.get("health_status"))
    if health is None:
        return None
    handles = data.get("handles")
    present = [
        each
        for each in (handles if isinstance(handles, list) else [])
        if isinstance(each, Mapping) and _word(each.get("status")) not in {"left", "removed"}
    ]
    own = [each for each in present if each.get("is_me") is True]
    people = [_handle(each) for each in present if each.get("is_me") is not True]
    named = [each for each in people if each is not None]
    # is_me may be null: then nothing tells the line from the people, and the chat has to.
    known = own and len(named) == len(people)
    to = (named[0] if len(named) == 1 else tuple(named)) if known and named else None
    return ChatHealthChanged(
        to,
        health,
        number=_line(own[0]) if own else None,
        chat_id=identifier(data.get("id")),
        at=at if health_at is None else health_at,
        event_id=event_id,
    )


# Fields


def _object(data: _Object, name: str) -> _Object:
    value = data.get(name)
    return value if isinstance(value, Mapping) else _NOTHING


def _first(data: _Object, name: str, *, default: float) -> float:
    found = moment(data.get(name))
    return default if found is None else found


def _number(data: _Object) -> str:
    value = data.get("phone_number")
    if not isinstance(value, str):
        raise ValueError("no phone_number")
    return value


def _handle(value: object) -> str | None:
    """The handle in a ChatHandle, or in the plain string that the older generation has."""
    if isinstance(value, Mapping):
        value = value.get("handle")
    return value if isinstance(value, str) and value else None


def _line(value: object) -> str | None:
    number = _handle(value)
    return number if number is not None and _E164.fullmatch(number) else None


def _inbound(data: _Object, sender: object, *, default: bool) -> bool:
    """Whether they wrote it."""
    is_me = sender.get("is_me") if isinstance(sender, Mapping) else None
    said = [data.get("direction"), data.get("is_from_me"), is_me]
    if "outbound" in said or True in said[1:]:
        return False
    return "inbound" in said or False in said[1:] or default


def _text(parts: object) -> str | None:
    """What a message's text parts say, one a line; empty where it has other parts only, None where nothing is known."""
    if not isinstance(parts, list):
        return None
    said = [
        part["value"]
        for part in parts
        if isinstance(part, Mapping)
        and part.get("type") == "text"
        and isinstance(part.get("value"), str)
    ]
    # JSON can write half a surrogate pair, which nothing can encode again.
    return "\n".join(said).encode(errors="replace").decode()


def _health(value: object) -> tuple[ChatHealth | None, float | None]:
    health = _member(ChatHealth, _word(value))
    changed = value.get("updated_at") if isinstance(value, Mapping) else None
    return health, None if health is None else moment(changed)


def _word(value: object) -> str | None:
    """The word of a status, which is a string or an object that holds one; None if there is none."""
    if isinstance(value, Mapping):
        value = value.get("status")
    if not isinstance(value, str):
        return None
    return value.encode(errors="replace").decode().strip()[:_LONGEST_WORD] or None


def _member(enum: type[_Enum], word: str | None) -> _Enum | None:
    return None if word is None else enum.__members__.get(word.upper())


_READERS: Final[Mapping[str, Callable[[_Object, float, str | None], Report | None]]] = {
    "phone_number.status_updated": _status_updated,
    "phone_number.assigned": _assigned,
    "phone_number.released": _released,
    "environment.line_moved": _moved,
    "message.received": _received,
    "message.delivered": _delivered,
    "message.read": _read,
    "message.failed": _failed,
    "message.sent": _sent,
    "chat.created": _created,
}
