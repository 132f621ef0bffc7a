"""One account as the Linq Partner API v3 keeps it.

No sockets, no JSON, no clock of its own, and one caller at a time. Every change of state is a method of `World`, and
nothing else changes it; `tell` hears of it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, Final

from linepicker.testing.fakelinq.model import (
    Accepted,
    Blocked,
    Chat,
    Content,
    Draft,
    Guesses,
    Happening,
    Message,
    PhoneNumber,
    Refusal,
    SentMessage,
    e164,
    handle,
)

__all__ = ["World"]

ENVIRONMENT: Final = "production"
"""The environment that the token sees."""

_OTHER_SENDER: Final = re.compile(r"[0-9]{3,8}|[A-Za-z0-9 ]{1,11}")

_STOP: Final = re.compile(r"STOP|UNSUBSCRIBE|OPTOUT|CANCEL|END|QUIT|(?i:opt[ -]?out)")
"""What opts out, as a whole message without the blanks around it (Linq: chat health)."""


class World:
    """The account. `now` is asked for epoch seconds; `guesses` fill what is not published; `tell` hears of every change."""

    def __init__(
        self,
        now: Callable[[], float],
        guesses: Guesses,
        tell: Callable[[Happening], None] = lambda _: None,
    ) -> None:
        self.now = now
        self.guesses = guesses
        self.tell = tell
        self.lines: dict[str, PhoneNumber] = {}
        self.chats: dict[str, Chat] = {}
        self.blocked: dict[str, Blocked] = {}
        self.sent: list[SentMessage] = []
        self.opted_out: set[str] = set()
        self.disallowed: set[str] = set()
        self._elsewhere: dict[str, tuple[PhoneNumber, str]] = {}
        self._chats_with: defaultdict[tuple[str, ...], list[Chat]] = defaultdict(list)
        self._ticks = 0

    # Lines

    def add_line(self, line: PhoneNumber) -> None:
        """Assign *line* to the account. Raises `ValueError` if its number is not E.164, or is there already."""
        if e164(line.number) is None:
            raise ValueError(f"a line's number must be E.164, got {line.number!r}")
        if line.number in self.lines:
            raise ValueError(f"{line.number} is one of the lines already")
        self.lines[line.number] = line
        self._tell("phone_number.assigned", line.number)

    def remove_line(self, number: str) -> None:
        """Release a line. Its chats stay readable, and can't be sent into."""
        self._line(number)
        del self.lines[number]
        self._tell("phone_number.released", number)

    def move_line(self, number: str, environment: str) -> None:
        """Move a line to another environment. Only those of `ENVIRONMENT` are lines to whoever asks."""
        line, before = self.lines.pop(number, None), ENVIRONMENT
        if line is None:
            if number not in self._elsewhere:
                raise ValueError(f"{number} is none of the lines")
            line, before = self._elsewhere.pop(number)
        if environment == ENVIRONMENT:
            self.lines[number] = line
        else:
            self._elsewhere[number] = line, environment
        self._tell("environment.line_moved", number, details={"from": before, "to": environment})

    def change_line(
        self,
        number: str,
        *,
        reputation: str | None = None,
        status: str | None = None,
        eligible: bool | None = None,
    ) -> None:
        """Change what is not None. Raises `ValueError` if there is no such line."""
        line = self._line(number)
        before = line.status, line.reputation
        line.reputation = line.reputation if reputation is None else reputation
        line.status = line.status if status is None else status
        line.eligible = line.eligible if eligible is None else eligible
        if (line.status, line.reputation) != before:
            self._tell(
                "phone_number.status_updated",
                number,
                details={
                    "status": (before[0], line.status),
                    "reputation": (before[1], line.reputation),
                },
            )

    def forward(self, line_id: str, to: str | None) -> PhoneNumber:
        """Forward calls to the line with this id, or stop forwarding them."""
        for line in self.lines.values():
            if line.id == line_id:
                line.forwarding_number = to
                return line
        raise Refusal(404, 2019, "Phone number not found.")

    def _line(self, number: str) -> PhoneNumber:
        if number not in self.lines:
            raise ValueError(f"{number} is none of the lines")
        return self.lines[number]

    def use(self, line: PhoneNumber) -> None:
        """The line was suggested to somebody."""
        line.used = self._tick()

    def _tick(self) -> int:
        self._ticks += 1
        return self._ticks

    # Recipients

    def opt_out(self, recipient: str) -> None:
        """*recipient* wrote STOP: the conversation last active is marked, and direct sends from all lines refused."""
        self.opted_out.add(recipient)
        for chat in self.chats_with((recipient,))[:1]:
            self.mark_chat(chat.id, "OPTED_OUT")

    def opt_in(self, recipient: str) -> None:
        """*recipient* wrote something else: the block and the marks are gone."""
        self.opted_out.discard(recipient)
        for chat in self.chats_with((recipient,)):
            if chat.health == "OPTED_OUT":
                self.mark_chat(chat.id, "HEALTHY")

    def block(self, sender: str, reason: str | None = None) -> Blocked:
        """Put a handle on the block list, unless it is there."""
        name = handle(sender) or (sender if _OTHER_SENDER.fullmatch(sender) else None)
        if name is None:
            raise Refusal(400, 1005, "handle is no phone number, email, short code or sender ID.")
        return self.blocked.setdefault(name, Blocked(name, reason, self.now()))

    def unblock(self, sender: str) -> None:
        """Take a handle off the block list; nothing if it is not on it."""
        self.blocked.pop(handle(sender) or sender, None)

    def disallow(self, recipient: str) -> None:
        """Refuse *recipient* as a shared line does somebody who has not written first."""
        self.disallowed.add(recipient)

    def allow(self, recipient: str) -> None:
        """Undo `disallow`."""
        self.disallowed.discard(recipient)

    # Chats

    def chat(self, chat_id: str) -> Chat:
        """The chat with this id, or a 404."""
        if chat_id not in self.chats:
            raise Refusal(404, 2001, "Chat not found.")
        return self.chats[chat_id]

    def chats_with(self, to: tuple[str, ...]) -> list[Chat]:
        """The chats with exactly these recipients, the most recently active first."""
        return sorted(self._chats_with.get(to, ()), key=lambda chat: -chat.active)

    def mark_chat(self, chat_id: str, health: str) -> None:
        """Give a chat this health."""
        chat = self.chat(chat_id)
        chat.health, chat.health_at = health, self.now()

    # Messages

    def accept(self, draft: Draft) -> Accepted:
        """Accept a message that may be sent."""
        now, tick = self.now(), self._tick()
        line = self.lines[draft.number or ""]
        chat = draft.chat or self._open_chat(line, draft.to, now)
        service = draft.content.preferred_service or line.line_type
        message = Message(
            content=draft.content,
            service="RCS" if line.line_type == "RCS" and service == "iMessage" else service,
            created_at=now,
            key=draft.key,
            trace_id=draft.trace_id,
        )
        chat.messages.append(message)
        chat.updated_at, chat.active, line.used = now, tick, tick
        self.sent.append(
            SentMessage(
                number=line.number,
                to=chat.to if chat.is_group else chat.to[0],
                chat_id=chat.id,
                text=message.content.text,
                message_id=message.id,
                idempotency_key=draft.key,
                at=now,
                override_optout=draft.override,
            )
        )
        self._tell("message.queued", line.number, chat, message)
        return Accepted(chat, message, draft.reason, draft.previous_chat_id)

    def _open_chat(self, line: PhoneNumber, to: tuple[str, ...], now: float) -> Chat:
        chat = Chat(
            number=line.number,
            line_type=line.line_type,
            to=to,
            created_at=now,
            updated_at=now,
            health_at=now,
        )
        self.chats[chat.id] = chat
        self._chats_with[to].append(chat)
        self._tell("chat.created", line.number, chat)
        return chat

    def advance(self, chat: Chat, message: Message, status: str) -> None:
        """A message was "sent", "delivered" or "read"."""
        setattr(message, f"{status}_at", self.now())
        message.status = status
        self._tell(f"message.{status}", chat.number, chat, message)

    def fail(self, chat: Chat, message: Message, code: int) -> None:
        """A message that was accepted can't be delivered."""
        message.status = "failed"
        self._tell("message.failed", chat.number, chat, message, {"code": code})

    def receive(
        self,
        number: str,
        sender: str,
        text: str,
        *,
        chat_id: str | None = None,
        service: str | None = None,
        late: float = 0.0,
    ) -> Message | None:
        """*sender* wrote to a line; None if they are blocked. Raises `ValueError` if that chat is not theirs both."""
        line, now = self._line(number), self.now()
        direct = [chat for chat in self.chats_with((sender,)) if chat.number == number]
        chat = self.chats.get(chat_id) if chat_id else direct[0] if direct else None
        if chat_id and (chat is None or chat.number != number or sender not in chat.to):
            raise ValueError(f"there is no chat {chat_id} of this line and this person")
        if sender in self.blocked:
            return None
        self.disallowed.discard(sender)
        chat = chat or self._open_chat(line, (sender,), now)
        message = Message(
            content=Content(parts=({"type": "text", "value": text},)),
            service=service or line.line_type,
            created_at=now,
            sender=sender,
            status="received",
            sent_at=now - late,
            reconciled_at=now if late else None,
        )
        chat.messages.append(message)
        chat.updated_at, chat.active = now, self._tick()
        if not _STOP.fullmatch(text.strip()):
            self.opt_in(sender)
        elif not chat.is_group:
            self.opted_out.add(sender)
            self.mark_chat(chat.id, "OPTED_OUT")
        self._tell("message.received", number, chat, message)
        return message

    def react(self, sender: str, message_id: str, reaction: str) -> None:
        """*sender* put a tapback on a message. Raises `ValueError` if it is in no chat of theirs."""
        for chat in self.chats.values():
            for message in chat.messages:
                if message.id == message_id and sender in chat.to:
                    if sender not in self.blocked:
                        details = {"sender": sender, "reaction": reaction}
                        self._tell("reaction.added", chat.number, chat, message, details)
                    return
        raise ValueError(f"there is no message {message_id} to this person")

    def _tell(
        self,
        kind: str,
        number: str,
        chat: Chat | None = None,
        message: Message | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        self.tell(
            Happening(
                type=kind,
                at=self.now(),
                number=number,
                chat=chat,
                message=message,
                details=details or {},
            )
        )
