"""The rules of sending: what is checked before a message is accepted, and which line the provider picks."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

from linepicker.testing.fakelinq.model import Accepted, Draft, PhoneNumber, Refusal
from linepicker.testing.fakelinq.world import World

__all__ = ["RANK", "Gate"]

PAIR_LIMIT: Final = 30
"""Messages per sender-recipient pair and `PAIR_WINDOW` seconds (Linq: Rate Limits)."""

PAIR_WINDOW: Final = 60.0

RANK: Final = {"HEALTHY": 0, "AT_RISK": 1, "CRITICAL": 2}
"""The reputations Linq has got, the best first."""


class Gate:
    """The way into an account for messages. Under the same lock as the account."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._pairs: defaultdict[tuple[str | None, tuple[str, ...]], list[float]] = defaultdict(
            list
        )
        self._accepted: dict[tuple[str, str | None], Accepted] = {}
        self._checks: Final[Mapping[str, Callable[[Draft], Accepted | None]]] = {
            "first_link": self._check_first_link,
            "own_number": self._check_own_number,
            "recipient": self._check_recipient,
            "line": self._check_line,
            "replay": self._check_replay,
            "pair": self._check_pair,
        }

    def pick_available(
        self, to: tuple[str, ...], exclude: Collection[str], line_type: str | None
    ) -> PhoneNumber:
        """The provider's own choice for `GET /v3/available_number`; counts as a use of the line."""
        lines = [
            line
            for line in self._world.lines.values()
            if line.eligible and (line_type is None or line.line_type.lower() == line_type.lower())
        ]
        if not lines:
            code = self._world.guesses.none_available_code
            raise Refusal(503, code, "No phone number is available.")
        best = self._best(lines, exclude)
        free = {line.number: line for line in lines if line.number not in exclude}
        known = [free[chat.number] for chat in self._world.chats_with(to) if chat.number in free]
        line = known[0] if known else best
        self._world.use(line)
        return line

    def _best(self, lines: Iterable[PhoneNumber], exclude: Collection[str]) -> PhoneNumber:
        free = [line for line in lines if line.number not in exclude]
        if not free:
            code = self._world.guesses.all_excluded_code
            raise Refusal(400, code, "exclude_from covers every available phone number.")
        return min(free, key=lambda line: (RANK.get(line.reputation, 1), line.used))

    def send(self, draft: Draft) -> Accepted:
        """Check *draft* and accept its message, or answer as the first time if its key was used. Raises `Refusal`."""
        for check in self._world.guesses.order:
            original = self._checks[check](draft)
            if original is not None:
                return original
        accepted = self._world.accept(draft)
        self._pairs[draft.number, draft.to].append(accepted.message.created_at)
        if draft.key:
            self._accepted[self._scope(draft)] = accepted
        return accepted

    def _check_first_link(self, draft: Draft) -> None:
        if not draft.opens or draft.chat is not None:
            return
        if draft.content.has_link:
            raise Refusal(400, 1005, "The first message of a new chat can't contain a link.")
        if draft.content.effect or draft.content.reply_to:
            raise Refusal(400, 1005, "The first message of a new chat takes no effect or reply_to.")

    def _check_own_number(self, draft: Draft) -> None:
        if not draft.picks and draft.number not in self._world.lines:
            raise Refusal(403, 2006, "The from number is not one of your phone numbers.")

    def _check_recipient(self, draft: Draft) -> None:
        if not self._world.disallowed.isdisjoint(draft.to):
            raise Refusal(403, 2008, "The recipient has to message first.")
        if all(each in self._world.blocked for each in draft.to):
            raise Refusal(403, 2026, "The recipient is on your block list.")
        if len(draft.to) == 1 and draft.to[0] in self._world.opted_out and not draft.override:
            raise Refusal(403, 2024, "The recipient has opted out.")

    def _check_line(self, draft: Draft) -> None:
        if draft.picks:
            self._pick(draft)
        elif draft.number in self._world.lines and not self._world.lines[draft.number].eligible:
            raise Refusal(403, 2027, "The from number can't deliver messages for now.")

    def _pick(self, draft: Draft) -> None:
        eligible = {line.number: line for line in self._world.lines.values() if line.eligible}
        chats = self._world.chats_with(draft.to)
        usable = [chat for chat in chats if chat.number in eligible]
        if usable:
            draft.chat = min(usable, key=lambda chat: chat.number in draft.exclude)
            draft.number = draft.chat.number
            return
        if not eligible:
            code = self._world.guesses.none_eligible_code
            raise Refusal(409, code, "No eligible phone number to send from.")
        draft.number = self._best(eligible.values(), draft.exclude).number
        draft.reason = "new_best_number"
        if chats:
            draft.reason, draft.previous_chat_id = "failover_flagged", chats[0].id
            draft.content = draft.continuation or draft.content

    def _check_replay(self, draft: Draft) -> Accepted | None:
        return self._accepted.get(self._scope(draft)) if draft.key else None

    def _scope(self, draft: Draft) -> tuple[str, str | None]:
        by_line = self._world.guesses.idempotency_scope == "line"
        return draft.key or "", draft.number if by_line else None

    def _check_pair(self, draft: Draft) -> None:
        now = self._world.now()
        pair = (draft.number, draft.to)
        recent = [at for at in self._pairs[pair] if 0.0 <= now - at < PAIR_WINDOW]
        self._pairs[pair] = recent
        if len(recent) >= PAIR_LIMIT:
            wait = max(1, math.ceil(min(recent) + PAIR_WINDOW - now))
            raise Refusal(
                429, 1007, f"Rate limited. Try again in {wait} seconds.", retry_after=wait
            )
