"""What a single conversation has against a message: the provider's view of it, and how long nobody has answered. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

from linepicker._contact import Contact
from linepicker.policy import Policy


@attrs.frozen
class Quiet:
    """What the rules say: `held` for good, or not before `opens_at`; `notes`: what rules in shadow mode would have done."""

    held: str | None = None
    opens_at: float = 0.0
    notes: tuple[str, ...] = ()


_CLEAR: Final = Quiet()


def look(
    contact: Contact | None, health: str | None, policy: Policy, now: float, *, inbound: bool
) -> Quiet:
    """What the conversation has against a message now. *health*: what the caller knows of it, which outweighs what is
    recorded. *inbound*: they have just written, so that nothing is unanswered."""
    rules = policy.conversation
    unanswered = 0 if contact is None or inbound else contact.unanswered
    health = health or (contact.health if contact is not None else "")
    if unanswered < rules.unanswered_after and health not in ("AT_RISK", "CRITICAL"):
        return _CLEAR  # nearly always
    found: list[tuple[str, str, float | None]] = []
    if health == "CRITICAL":
        found.append((rules.chat_health, "the provider calls this conversation CRITICAL", None))
    elif health == "AT_RISK" and contact is not None and contact.times:
        opens_at = contact.times[-1] + rules.at_risk_gap
        if opens_at > now:
            found.append(
                (rules.chat_health, "the provider calls this conversation AT_RISK", opens_at)
            )
    if unanswered >= rules.unanswered_after:
        found.append((rules.unanswered, f"{_count(unanswered)} without a reply", None))
    return Quiet(
        next((why for mode, why, end in found if mode == "enforce" and end is None), None),
        max((end for mode, _, end in found if mode == "enforce" and end is not None), default=0.0),
        _noted(found),
    )


def _count(messages: int) -> str:
    return "1 message" if messages == 1 else f"{messages} messages"


def _noted(found: Sequence[tuple[str, str, float | None]]) -> tuple[str, ...]:
    return tuple(
        f"in shadow: would be {'held' if end is None else 'slowed'} as quiet: {why}"
        for mode, why, end in found
        if mode == "shadow"
    )
