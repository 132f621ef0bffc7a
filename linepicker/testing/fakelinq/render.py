"""From the nouns of the account to the JSON of the answers."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias

from linepicker.testing.fakelinq.model import (
    Accepted,
    Audit,
    Blocked,
    Chat,
    Message,
    PhoneNumber,
    Refusal,
    Subscription,
)

__all__ = [
    "EVENTS_PAGE",
    "Json",
    "ListShape",
    "audit",
    "blocked",
    "chat",
    "created_chat",
    "error",
    "handle",
    "health",
    "line",
    "maybe",
    "message",
    "moment",
    "page",
    "part",
    "picked",
    "sent",
    "subscription",
    "updated_at",
]

Json: TypeAlias = dict[str, Any]

ListShape: TypeAlias = Literal["reputation", "both", "health_status", "neither"]
"""How `GET /v3/phone_numbers` tells a line's reputation: as since 2026-07-25, 2026-06-21, 2026-05-16, and before."""

_DOCS: Final = "https://docs.linqapp.com"
_GUIDES: Final = f"{_DOCS}/channel/imessage/guides"
EVENTS_PAGE: Final = f"{_GUIDES}/webhooks/events"


def moment(at: float) -> str:
    """The moment as Linq writes it: RFC 3339, UTC, milliseconds."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def maybe(at: float | None) -> str | None:
    """As `moment`, null if it has not come."""
    return None if at is None else moment(at)


def updated_at(message: Message) -> float:
    """When the message's status last changed."""
    return message.read_at or message.delivered_at or message.sent_at or message.created_at


def _anchor(status: str) -> str:
    return status.lower().replace("_", "-")


def error(refusal: Refusal, trace_id: str) -> Json:
    """The envelope of every error. `retry_after` is told on a 429 only."""
    inner: Json = {"status": refusal.status, "message": refusal.message}
    if refusal.code is not None:
        inner["code"] = refusal.code
        inner["doc_url"] = f"{_DOCS}/error/codes/{refusal.code // 1000}xxx/{refusal.code}/"
    if refusal.status == 429 and refusal.retry_after is not None:
        inner["retry_after"] = refusal.retry_after
    return {"success": False, "error": inner, "trace_id": trace_id}


def line(line: PhoneNumber, shape: ListShape) -> Json:
    """An entry of `GET /v3/phone_numbers`. Service status and eligibility are never told here."""
    reputation = {
        "status": line.reputation,
        "doc_url": f"{_GUIDES}/phone-numbers/phone-reputation#{_anchor(line.reputation)}",
    }
    entry: Json = {
        "id": line.id,
        "phone_number": line.number,
        "forwarding_number": line.forwarding_number,
    }
    if shape in ("reputation", "both"):
        entry["reputation"] = reputation
    if shape in ("health_status", "both"):
        entry["health_status"] = reputation
    if shape == "reputation":
        entry["line_type"] = line.line_type
    return entry


def handle(name: str, chat: Chat) -> Json:
    """One side of a chat, its line or a person."""
    is_me = name == chat.number
    return {
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, name)),
        "handle": name,
        "joined_at": moment(chat.created_at),
        "left_at": None,
        "service": chat.line_type,
        "is_me": is_me,
        "status": "active",
        "line_type": chat.line_type if is_me else None,
    }


def _handles(chat: Chat) -> list[Json]:
    me = handle(chat.number, chat)
    return [me, *(handle(each, chat) for each in chat.to)]


def health(chat: Chat) -> Json:
    """What is thought of a conversation."""
    return {
        "status": chat.health,
        "doc_url": f"{_GUIDES}/chats/chat-health#{_anchor(chat.health)}",
        "updated_at": moment(chat.health_at),
    }


def _chat(chat: Chat) -> Json:
    return {
        "id": chat.id,
        "display_name": ", ".join(chat.to),
        "handles": _handles(chat),
        "health_status": health(chat),
        "is_group": chat.is_group,
        "service": chat.line_type,
    }


def chat(chat: Chat) -> Json:
    """A chat as `GET /v3/chats` shows it. Its line is the handle that `is_me`."""
    return {
        **_chat(chat),
        "created_at": moment(chat.created_at),
        "updated_at": moment(chat.updated_at),
        "is_archived": False,
        "group_chat_icon": None,
    }


def part(part: Any) -> Json:
    """A message's text, link or media, as events show it."""
    if part["type"] != "media":
        return {"type": part["type"], "value": part["value"]}
    source = part.get("url") or f"{_DOCS}/attachments/{part['attachment_id']}"
    return {
        "type": "media",
        "id": part.get("attachment_id") or str(uuid.uuid5(uuid.NAMESPACE_URL, source)),
        "filename": source.rsplit("/", 1)[-1],
        "mime_type": "application/octet-stream",
        "size_bytes": 0,
        "url": source,
    }


def _message(chat: Chat, message: Message) -> Json:
    """As the answer to a send shows it, also to a later send with the same key: just accepted."""
    return {
        "id": message.id,
        "created_at": moment(message.created_at),
        "delivery_status": "queued",
        "is_read": False,
        "parts": [{**part(each), "reactions": None} for each in message.content.parts],
        "sent_at": None,
        "delivered_at": None,
        "effect": message.content.effect,
        "from_handle": handle(message.sender or chat.number, chat),
        "preferred_service": message.content.preferred_service,
        "reply_to": message.content.reply_to,
        "service": message.service,
    }


def message(chat: Chat, message: Message) -> Json:
    """A message as `GET /v3/chats/{id}/messages` shows it."""
    return {
        **_message(chat, message),
        "chat_id": chat.id,
        "delivery_status": message.status,
        "sent_at": maybe(message.sent_at),
        "delivered_at": maybe(message.delivered_at),
        "read_at": maybe(message.read_at),
        "is_read": message.read_at is not None,
        "updated_at": moment(updated_at(message)),
        "is_delivered": message.delivered_at is not None,
        "is_from_me": message.sender is None,
        "from": message.sender or chat.number,
        "reconciled_at": maybe(message.reconciled_at),
    }


def created_chat(accepted: Accepted) -> Json:
    """The answer of `POST /v3/chats`."""
    return {"chat": {**_chat(accepted.chat), "message": _message(accepted.chat, accepted.message)}}


def sent(accepted: Accepted) -> Json:
    """The answer of `POST /v3/chats/{id}/messages`."""
    return {"chat_id": accepted.chat.id, "message": _message(accepted.chat, accepted.message)}


def picked(accepted: Accepted) -> Json:
    """The answer of `POST /v3/messages`."""
    reused = accepted.reason == "reused_active_chat"
    return {
        **sent(accepted),
        "created_new_chat": not reused,
        "from": accepted.chat.number,
        "from_selection": {"reason": accepted.reason, "reused_existing_chat": reused},
        "handles": _handles(accepted.chat),
        "is_group": accepted.chat.is_group,
        "service": accepted.chat.line_type,
        "previous_chat_id": accepted.previous_chat_id,
    }


def page(name: str, entries: Sequence[Json], start: int, limit: int) -> Json:
    """One page of a list; the cursor is an offset, as in Linq's examples, and null at the end."""
    end = start + limit
    return {name: entries[start:end], "next_cursor": str(end) if end < len(entries) else None}


def blocked(entry: Blocked) -> Json:
    """An entry of the block list."""
    return {"handle": entry.handle, "reason": entry.reason, "blocked_at": moment(entry.at)}


def subscription(subscription: Subscription) -> Json:
    """A webhook subscription, without its secret, which is told once."""
    return {
        "id": subscription.id,
        "target_url": subscription.target_url,
        "subscribed_events": list(subscription.subscribed_events),
        "phone_numbers": list(subscription.phone_numbers) or None,
        "routing_key_header": subscription.routing_key_header,
        "routing_id_header": subscription.routing_id_header,
        "is_active": subscription.is_active,
        "created_at": moment(subscription.created_at),
        "updated_at": moment(subscription.updated_at),
    }


def audit(audit: Audit, chats: Iterable[Chat], *, now: float) -> Json:
    """An audit: pending, or complete with a report whose evidence is *chats* that are not HEALTHY."""
    if now < audit.ready_at:
        return {"audit_id": audit.id, "status": "pending"}
    return {
        "audit_id": audit.id,
        "status": "complete",
        "generated_at": moment(audit.ready_at),
        "phone": audit.number,
        "report": _report(audit, chats),
    }


def _report(audit: Audit, chats: Iterable[Chat]) -> Json:
    driver = "overall_conversation_health" if audit.severity != "HEALTHY" else ""
    driver = "flagged" if audit.flagged else driver
    summary = f"{audit.number} is {audit.severity}."
    return {
        "severity": audit.severity,
        "primary_driver": driver,
        "drivers": [{"key": driver, "metric": "", "summary": summary}] if driver else [],
        "action_items": [
            {
                "priority": 1,
                "title": "Slow down" if driver else "Carry on",
                "detail": summary,
                "expected_impact": "high" if driver else "low",
            }
        ],
        "evidence": {
            "unhealthy_chats": [
                {"chat_id": chat.id, "status": chat.health, "driver_keys": ["low_engagement"]}
                for chat in chats
                if chat.health != "HEALTHY"
            ][:15],
            "opt_out_chats": [
                {"chat_id": chat.id, "messages_after_stop": 0}
                for chat in chats
                if chat.health == "OPTED_OUT"
            ],
        },
        "summary_markdown": summary,
    }
