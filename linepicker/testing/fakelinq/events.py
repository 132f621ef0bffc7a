"""From what happened in the account to the JSON that webhooks carry, in each of its generations."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from linepicker.testing.fakelinq import render
from linepicker.testing.fakelinq.model import Chat, Happening, Message
from linepicker.testing.fakelinq.render import Json

__all__ = ["EVENT_TYPES", "VERSIONS", "StatusShape", "data", "shown"]

VERSIONS: Final = ("2025-01-01", "2026-02-03")
"""The generations of payloads. They differ in the messages only."""

StatusShape: TypeAlias = Literal["reputation", "both", "health_status", "status"]
"""How `phone_number.status_updated` tells a reputation: as now, as in June and July 2026, in May, and not at all (April)."""

_NAMES: Final = """
message.sent message.received message.read message.delivered message.failed message.edited reaction.added
reaction.removed poll.received poll.failed poll.sent poll.delivered poll.read poll.updated poll.vote.added
poll.vote.removed poll.reaction.added participant.added participant.removed chat.created chat.group_name_updated
chat.group_icon_updated chat.group_name_update_failed chat.group_icon_update_failed chat.background_updated
chat.background_update_failed chat.typing_indicator.started chat.typing_indicator.stopped
phone_number.status_updated phone_number.assigned phone_number.released contact_card.received call.initiated
call.ringing call.answered call.ended call.failed call.declined call.no_answer location.sharing.started
location.sharing.stopped payment.succeeded payment.canceled payment.expired payment.declined payment.authorized
connection.created connection.revoked zero_day_retention.updated phone_number.forwarding_updated
environment.line_moved contact_card.created contact_card.updated contact_card.deleted api_token.created
api_token.renamed api_token.expiry_scheduled api_token.expired api_token.activated api_token.deleted
environment.created environment.renamed environment.deleted webhook_subscription.created
webhook_subscription.deleted webhook_subscription.target_url_changed webhook_subscription.enabled
webhook_subscription.disabled webhook_subscription.events.updated webhook_subscription.phone_numbers.updated
webhook_subscription.routing_headers_set webhook_subscription.routing_headers_cleared team_member.added
team_member.signed_in team_member.signed_out
"""

EVENT_TYPES: Final = tuple(_NAMES.split())
"""What can be subscribed to (linq-python 0.65: WebhookEventType). The fake sends those about lines, chats and messages."""


def shown(happening: Happening, shape: StatusShape) -> bool:
    """Whether the happening makes an event: Linq tells nobody of some."""
    if happening.type == "phone_number.status_updated" and shape == "status":
        before, after = happening.details["status"]
        return bool(before != after)
    return happening.type in EVENT_TYPES


def data(happening: Happening, version: str, shape: StatusShape) -> Json:
    """The event's `data`, as things stand now."""
    at, number = render.moment(happening.at), happening.number
    chat, message = happening.chat, happening.message
    match happening.type:
        case "phone_number.assigned" | "phone_number.released":
            return {"phone_number": number, "changed_at": at}
        case "phone_number.status_updated":
            return {"phone_number": number, **_pairs(happening, shape), "changed_at": at}
        case "environment.line_moved":
            return _moved(happening)
        case "chat.created" if chat:
            return render.chat(chat)
        case "message.failed" if chat and message:
            return _failed(happening, chat, message)
        case "reaction.added" if chat and message:
            return _reaction(happening, chat, message)
        case "message.sent" | "message.delivered" | "message.read" | "message.received" if (
            chat and message
        ):
            write = _message_2025 if version == VERSIONS[0] else _message_2026
            return write(happening, chat, message)
    return dict(happening.details)


def _pairs(happening: Happening, shape: StatusShape) -> Json:
    names = {"status": "status"}
    if shape in ("both", "health_status"):
        names["health_status"] = "reputation"
    if shape in ("both", "reputation"):
        names["reputation"] = "reputation"
    return {
        f"{side}_{name}": happening.details[source][n]
        for name, source in names.items()
        for n, side in enumerate(("previous", "new"))
    }


def _moved(happening: Happening) -> Json:
    change = dict(happening.details)
    return {
        "summary": f"{happening.number} moved to {change['to']}.",
        "occurred_at": render.moment(happening.at),
        "actor": {"type": "team_member", "id": None, "email": None, "name": "A. Colleague"},
        "origin": "dashboard",
        "phone_number": happening.number,
        "environment": {"name": change["to"], "type": "environment"},
        "change": change,
    }


def _failed(happening: Happening, chat: Chat, message: Message) -> Json:
    return {
        "chat_id": chat.id,
        "message_id": message.id,
        "code": happening.details["code"],
        "detail_code": None,
        "reason": "A failure that was asked for.",
        "failed_at": render.moment(happening.at),
        "service": message.service,
        "preferred_service": message.content.preferred_service or "auto",
    }


def _reaction(happening: Happening, chat: Chat, message: Message) -> Json:
    sender = happening.details["sender"]
    return {
        "chat_id": chat.id,
        "message_id": message.id,
        "from": sender,
        "from_handle": render.handle(sender, chat),
        "is_from_me": False,
        "part_index": 0,
        "reacted_at": render.moment(happening.at),
        "reaction_type": happening.details["reaction"],
        "custom_emoji": None,
        "sticker": None,
        "service": message.service,
    }


def _common(message: Message) -> Json:
    return {
        "id": message.id,
        "parts": [render.part(part) for part in message.content.parts],
        "effect": message.content.effect,
        "reply_to": message.content.reply_to,
        "sent_at": render.maybe(message.sent_at),
        "delivered_at": render.maybe(message.delivered_at),
        "read_at": render.maybe(message.read_at),
    }


def _message_2026(happening: Happening, chat: Chat, message: Message) -> Json:
    inbound = message.sender is not None
    entry = {
        **_common(message),
        "chat": {
            "id": chat.id,
            "is_group": chat.is_group,
            "owner_handle": render.handle(chat.number, chat),
            "health_status": render.health(chat),
        },
        "direction": "inbound" if inbound else "outbound",
        "sender_handle": render.handle(message.sender or chat.number, chat),
        "service": message.service,
        "preferred_service": None if inbound else message.content.preferred_service or "auto",
        "idempotency_key": message.key,
    }
    if message.reconciled_at is not None:
        entry["reconciled_at"] = render.moment(message.reconciled_at)
    return entry


def _message_2025(happening: Happening, chat: Chat, message: Message) -> Json:
    """As `MessageSentV2025WebhookEventData` and its siblings in linq-go, while it had them."""
    inbound = message.sender is not None
    sender = message.sender or chat.number
    entry = {
        "chat_id": chat.id,
        "from": sender,
        "from_handle": render.handle(sender, chat),
        "is_from_me": not inbound,
        "is_group": chat.is_group,
        "recipient_phone": chat.number if inbound else None,
        "recipient_handle": render.handle(chat.number, chat) if inbound else None,
        "received_at": render.moment(happening.at) if inbound else None,
        "service": message.service,
        "preferred_service": None if inbound else message.content.preferred_service or "auto",
        "idempotency_key": message.key,
        "message": {
            **_common(message),
            "created_at": render.moment(message.created_at),
            "updated_at": render.moment(render.updated_at(message)),
            "is_delivered": message.delivered_at is not None,
            "is_read": message.read_at is not None,
        },
    }
    if happening.type in ("message.delivered", "message.read"):
        entry[happening.type.partition(".")[2] + "_at"] = render.moment(happening.at)
        entry["message_id"] = message.id
    return entry
