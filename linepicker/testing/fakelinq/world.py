"""One account as the Linq Partner API v3 keeps it, and the rules of sending.

No sockets, no JSON, no clock of its own, and one caller at a time. Every change of state is a method of `World`, and
nothing else changes it.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

from linepicker.testing.fakelinq.model import (
    Accepted,
    Audit,
    Blocked,
    Chat,
    Draft,
    Guesses,
    Message,
    PhoneNumber,
    Refusal,
    SentMessage,
    e164,
    handle,
)

__all__ = ["World"]

PAIR_LIMIT: Final = 30
"""Messages per sender-recipient pair and `PAIR_WINDOW` seconds (Linq: Rate Limits)."""

PAIR_WINDOW: Final = 60.0

AUDIT_READABLE: Final = 86400.0
"""Seconds for which an audit can be read (Linq: reputation audit)."""

_RANK: Final = {"HEALTHY": 0, "AT_RISK": 1, "CRITICAL": 2}
_OTHER_SENDER: Final = re.compile(r"[0-9]{3,8}|[A-Za-z0-9 ]{1,11}")


class World:
    """The account. `now` is asked for epoch seconds; `guesses` fill what is not published."""

    def __init__(self, now: Callable[[], float], guesses: Guesses) -> None:
        self.now = now
        self.guesses = guesses
        self.lines: dict[str, PhoneNumber] = {}
        self.chats: dict[str, Chat] = {}
        self.blocked: dict[str, Blocked] = {}
        self.sent: list[SentMessage] = []
        self._opted_out: set[str] = set()
        self._disallowed: set[str] = set()
        self._chats_with: defaultdict[tuple[str, ...], list[Chat]] = defaultdict(list)
        self._pairs: defaultdict[tuple[str | None, tuple[str, ...]], list[float]] = defaultdict(
            list
        )
        self._accepted: dict[tuple[str, str | None], Accepted] = {}
        self._audits: dict[str, Audit] = {}
        self._last_audit: dict[str, Audit] = {}
        self._ticks = 0
        self._checks: Final[Mapping[str, Callable[[Draft], Accepted | None]]] = {
            "first_link": self._check_first_link,
            "own_number": self._check_own_number,
            "recipient": self._check_recipient,
            "line": self._check_line,
            "replay": self._check_replay,
            "pair": self._check_pair,
        }

    # Lines

    def add_line(self, line: PhoneNumber) -> None:
        """Assign *line* to the account. Raises `ValueError` if its number is not E.164, or is there already."""
        if e164(line.number) is None:
            raise ValueError(f"a line's number must be E.164, got {line.number!r}")
        if line.number in self.lines:
            raise ValueError(f"{line.number} is one of the lines already")
        self.lines[line.number] = line

    def remove_line(self, number: str) -> None:
        """Release a line. Its chats stay readable, and can't be sent into."""
        self._line(number)
        del self.lines[number]

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
        line.reputation = line.reputation if reputation is None else reputation
        line.status = line.status if status is None else status
        line.eligible = line.eligible if eligible is None else eligible

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

    def pick_available(
        self, to: tuple[str, ...], exclude: Collection[str], line_type: str | None
    ) -> PhoneNumber:
        """The provider's own choice for `GET /v3/available_number`; counts as a use of the line."""
        lines = [
            line
            for line in self.lines.values()
            if line.eligible and (line_type is None or line.line_type.lower() == line_type.lower())
        ]
        if not lines:
            code = self.guesses.none_available_code
            raise Refusal(503, code, "No phone number is available.")
        best = self._best(lines, exclude)
        free = {line.number: line for line in lines if line.number not in exclude}
        known = [free[chat.number] for chat in self.chats_with(to) if chat.number in free]
        line = known[0] if known else best
        line.used = self._tick()
        return line

    def _best(self, lines: Iterable[PhoneNumber], exclude: Collection[str]) -> PhoneNumber:
        free = [line for line in lines if line.number not in exclude]
        if not free:
            code = self.guesses.all_excluded_code
            raise Refusal(400, code, "exclude_from covers every available phone number.")
        return min(free, key=lambda line: (_RANK.get(line.reputation, 1), line.used))

    def _tick(self) -> int:
        self._ticks += 1
        return self._ticks

    # Recipients

    def opt_out(self, recipient: str) -> None:
        """*recipient* wrote STOP: the conversation last active is marked, and direct sends from all lines refused."""
        self._opted_out.add(recipient)
        for chat in self.chats_with((recipient,))[:1]:
            self.mark_chat(chat.id, "OPTED_OUT")

    def opt_in(self, recipient: str) -> None:
        """*recipient* wrote something else: the block and the marks are gone."""
        self._opted_out.discard(recipient)
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
        self._disallowed.add(recipient)

    def allow(self, recipient: str) -> None:
        """Undo `disallow`."""
        self._disallowed.discard(recipient)

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

    # Sending

    def send(self, draft: Draft) -> Accepted:
        """Check *draft* and accept its message, or answer as the first time if its key was used. Raises `Refusal`."""
        for check in self.guesses.order:
            original = self._checks[check](draft)
            if original is not None:
                return original
        return self._accept(draft)

    def _check_first_link(self, draft: Draft) -> None:
        if not draft.opens or draft.chat is not None:
            return
        if draft.content.has_link:
            raise Refusal(400, 1005, "The first message of a new chat can't contain a link.")
        if draft.content.effect or draft.content.reply_to:
            raise Refusal(400, 1005, "The first message of a new chat takes no effect or reply_to.")

    def _check_own_number(self, draft: Draft) -> None:
        if not draft.picks and draft.number not in self.lines:
            raise Refusal(403, 2006, "The from number is not one of your phone numbers.")

    def _check_recipient(self, draft: Draft) -> None:
        if not self._disallowed.isdisjoint(draft.to):
            raise Refusal(403, 2008, "The recipient has to message first.")
        if all(each in self.blocked for each in draft.to):
            raise Refusal(403, 2026, "The recipient is on your block list.")
        if len(draft.to) == 1 and draft.to[0] in self._opted_out and not draft.override:
            raise Refusal(403, 2024, "The recipient has opted out.")

    def _check_line(self, draft: Draft) -> None:
        if draft.picks:
            self._pick(draft)
        elif draft.number in self.lines and not self.lines[draft.number].eligible:
            raise Refusal(403, 2027, "The from number can't deliver messages for now.")

    def _pick(self, draft: Draft) -> None:
        eligible = {line.number: line for line in self.lines.values() if line.eligible}
        chats = self.chats_with(draft.to)
        usable = [chat for chat in chats if chat.number in eligible]
        if usable:
            draft.chat = min(usable, key=lambda chat: chat.number in draft.exclude)
            draft.number = draft.chat.number
            return
        if not eligible:
            code = self.guesses.none_eligible_code
            raise Refusal(409, code, "No eligible phone number to send from.")
        draft.number = self._best(eligible.values(), draft.exclude).number
        draft.reason = "new_best_number"
        if chats:
            draft.reason, draft.previous_chat_id = "failover_flagged", chats[0].id
            draft.content = draft.continuation or draft.content

    def _check_replay(self, draft: Draft) -> Accepted | None:
        return self._accepted.get(self._scope(draft)) if draft.key else None

    def _scope(self, draft: Draft) -> tuple[str, str | None]:
        by_line = self.guesses.idempotency_scope == "line"
        return draft.key or "", draft.number if by_line else None

    def _check_pair(self, draft: Draft) -> None:
        now = self.now()
        pair = (draft.number, draft.to)
        recent = [at for at in self._pairs[pair] if 0.0 <= now - at < PAIR_WINDOW]
        self._pairs[pair] = recent
        if len(recent) >= PAIR_LIMIT:
            wait = max(1, math.ceil(min(recent) + PAIR_WINDOW - now))
            raise Refusal(
                429, 1007, f"Rate limited. Try again in {wait} seconds.", retry_after=wait
            )

    def _accept(self, draft: Draft) -> Accepted:
        now, tick = self.now(), self._tick()
        line = self.lines[draft.number or ""]
        chat = draft.chat or self._open_chat(line, draft.to, now)
        service = draft.content.preferred_service or line.line_type
        message = Message(
            content=draft.content,
            service="RCS" if line.line_type == "RCS" and service == "iMessage" else service,
            created_at=now,
        )
        chat.messages.append(message)
        chat.updated_at, chat.active, line.used = now, tick, tick
        self._pairs[line.number, chat.to].append(now)
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
        accepted = Accepted(chat, message, draft.reason, draft.previous_chat_id)
        if draft.key:
            self._accepted[self._scope(draft)] = accepted
        return accepted

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
        return chat

    # Audits

    def start_audit(self, number: str) -> Audit:
        """Start an audit of a line, or find the one that runs. Raises `Refusal`: no such line, or too soon."""
        now = self.now()
        if number not in self.lines:
            raise Refusal(404, 2019, "Phone number not found.")
        last = self._last_audit.get(number)
        if last is not None and now < last.ready_at:
            return last
        if last is not None and now < last.ready_at + self.guesses.audit_cooldown:
            wait = math.ceil(last.ready_at + self.guesses.audit_cooldown - now)
            raise Refusal(
                429, 1007, f"Rate limited. Try again in {wait} seconds.", retry_after=wait
            )
        line = self.lines[number]
        audit = Audit(
            number=number,
            severity=line.reputation if line.reputation in _RANK else "HEALTHY",
            flagged=line.status == "FLAGGED",
            started_at=now,
            ready_at=now + self.guesses.audit_seconds,
        )
        self._audits[audit.id] = self._last_audit[number] = audit
        return audit

    def audit(self, number: str, audit_id: str) -> Audit:
        """An audit of this line, for a day; a 404 otherwise."""
        audit = self._audits.get(audit_id)
        if (
            audit is None
            or audit.number != number
            or self.now() - audit.started_at >= AUDIT_READABLE
        ):
            raise Refusal(404, 2019, "Reputation audit not found.")
        return audit
