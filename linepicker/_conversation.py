"""What a single conversation has against a message: the provider's view of it, and how long nobody has answered. Pure."""

from __future__ import annotations

from typing import Final, TypeAlias

from linepicker._contact import Contact
from linepicker.policy import Policy

Note: TypeAlias = tuple[str, str | int]
"""What a decision should mention, put into words by `said`."""

Quiet: TypeAlias = tuple[str | None, float, tuple[Note, ...]]
"""Why the message is held, if it is; before which moment it may not leave; what rules in shadow mode would have done."""

_CLEAR: Final[Quiet] = (None, 0.0, ())


def look(
    contact: Contact | None, health: str | None, policy: Policy, now: float, *, inbound: bool
) -> Quiet:
    """What the conversation has against a message now. *health*: what the caller knows of it, which outweighs what is
    recorded. *inbound*: they have just written: nothing is unanswered, and to answer is what an AT_RISK conversation needs."""
    rules = policy.conversation
    unanswered = 0 if contact is None or inbound else contact.unanswered
    if not health:
        health = contact.health()[0] if contact is not None and contact.views else ""
    too_many = unanswered >= rules.unanswered_after
    if not too_many and health not in ("AT_RISK", "CRITICAL"):
        return _CLEAR  # nearly always
    held, opens_at, slow_until = None, 0.0, 0.0
    notes: tuple[Note, ...] = ()
    if health == "AT_RISK" and contact is not None and contact.times and not inbound:
        slow_until = contact.times[-1] + rules.at_risk_gap
    if health == "CRITICAL" or slow_until > now:
        if rules.chat_health == "shadow":
            notes = (("chat_health", health),)
        elif rules.chat_health == "enforce":
            opens_at = slow_until
            held = "the provider calls the conversation CRITICAL" if health == "CRITICAL" else None
    if too_many:
        if rules.unanswered == "shadow":
            notes += (("unanswered", unanswered),)
        elif rules.unanswered == "enforce":
            held = held or f"{unanswered} messages without a reply"
    return held, opens_at, notes


def said(note: Note) -> str:
    """A note in words."""
    what, value = note
    match what:
        case "unanswered":
            return f"in shadow: would be held as quiet: {value} messages without a reply"
        case "chat_health":
            fate = "held" if value == "CRITICAL" else "slowed"
            return (
                f"in shadow: would be {fate} as quiet: the provider calls the conversation {value}"
            )
        case "despite":
            return f"sent all the same, as asked: {value}"
    return str(value)
