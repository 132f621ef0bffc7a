"""The endpoints of the Linq Partner API v3 that concern the choice of a line."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias
from urllib.parse import unquote

from linepicker.testing.fakelinq import parse, render
from linepicker.testing.fakelinq.audits import Audits
from linepicker.testing.fakelinq.events import EVENT_TYPES
from linepicker.testing.fakelinq.gate import Gate
from linepicker.testing.fakelinq.model import Chat, Content, Draft, Refusal, e164, handle
from linepicker.testing.fakelinq.parse import Fields, Request
from linepicker.testing.fakelinq.render import Json, ListShape
from linepicker.testing.fakelinq.webhooks import Webhooks
from linepicker.testing.fakelinq.world import World

__all__ = ["Api"]

Reply: TypeAlias = tuple[int, Json | None]


class Api:
    """Answers requests about one account. `list_shape` and `raw_lines` say how its lines are listed."""

    def __init__(self, world: World, webhooks: Webhooks) -> None:
        self.world = world
        self.webhooks = webhooks
        self.gate = Gate(world)
        self.audits = Audits(world)
        self.list_shape: ListShape = "reputation"
        self.raw_lines: Sequence[Mapping[str, Any]] | None = None

    def answer(self, request: Request) -> Reply:
        """The status and the JSON (None: no content). Raises `Refusal`."""
        for method, pattern, endpoint in _ROUTES:
            match = pattern.fullmatch(request.path)
            if match and method == request.method:
                return endpoint(self, request, *map(unquote, match.groups()))
        raise Refusal(404, 1003, "The fake has no such endpoint.")

    # Lines

    def list_lines(self, request: Request) -> Reply:
        """GET /v3/phone_numbers."""
        if self.raw_lines is not None:
            return 200, {"phone_numbers": list(self.raw_lines)}
        lines = [render.line(line, self.list_shape) for line in self.world.lines.values()]
        return 200, {"phone_numbers": lines}

    def list_lines_deprecated(self, request: Request) -> Reply:
        """GET /v3/phonenumbers, which knows nothing of reputation."""
        lines = [
            {
                "id": line.id,
                "phone_number": line.number,
                "capabilities": {"sms": True, "mms": True, "voice": True},
                "type": None,
                "country_code": None,
            }
            for line in self.world.lines.values()
        ]
        return 200, {"phone_numbers": lines}

    def update_line(self, request: Request, line_id: str) -> Reply:
        """PUT /v3/phone_numbers/{id}: the forwarding number, null or empty to clear it."""
        body = parse.fields(request)
        clear = "forwarding_number" not in body or body.required("forwarding_number") == ""
        line = self.world.forward(line_id, None if clear else body.number("forwarding_number"))
        return 200, {
            "id": line.id,
            "phone_number": line.number,
            "forwarding_number": line.forwarding_number,
        }

    def available_number(self, request: Request) -> Reply:
        """GET /v3/available_number: the provider's own choice, which counts as a use."""
        line_type = parse.one(request, "type")
        if line_type is not None and line_type.lower() not in ("rcs", "imessage"):
            raise Refusal(400, 1005, "type must be RCS or iMessage.")
        line = self.gate.pick_available(
            parse.handles(parse.many(request, "to"), "to"),
            parse.numbers(parse.many(request, "exclude_from"), "exclude_from"),
            line_type,
        )
        return 200, {
            "phone_number": line.number,
            "vcf_url": f"https://vcard.invalid/{line.id}.vcf?use={line.used}",
        }

    def start_audit(self, request: Request, number: str) -> Reply:
        """POST /v3/phone_numbers/{number}/reputation_audit."""
        return 202, {"audit_id": self.audits.start(number).id, "status": "pending"}

    def get_audit(self, request: Request, number: str, audit_id: str) -> Reply:
        """GET /v3/phone_numbers/{number}/reputation_audit/{id}."""
        chats = [chat for chat in self.world.chats.values() if chat.number == number]
        audit = self.audits.get(number, audit_id)
        return 200, render.audit(audit, chats, now=self.world.now())

    # Sending

    def create_message(self, request: Request) -> Reply:
        """POST /v3/messages: the provider picks line and chat."""
        body = parse.fields(request)
        if "from" in body and self.world.guesses.refuse_from:
            raise Refusal(400, 1005, "from can't be given here.")
        draft = self._draft(request, body, request.headers.get("idempotency-key"))
        draft.picks, draft.to = True, parse.recipients(body)
        draft.exclude = parse.numbers(body.items("exclude_from"), "exclude_from")
        continuation = body.object("continuation_message")
        if continuation is not None:
            text = Fields(continuation).text("text")
            draft.continuation = Content(parts=({"type": "text", "value": text},))
        return 202, render.picked(self.gate.send(draft))

    def create_chat(self, request: Request) -> Reply:
        """POST /v3/chats: the chat of this line with exactly these recipients, made if need be."""
        body = parse.fields(request)
        body.required("from")
        draft = self._draft(request, body)
        draft.opens, draft.to, draft.number = True, parse.recipients(body), body.number("from")
        known = [chat for chat in self.world.chats_with(draft.to) if chat.number == draft.number]
        draft.chat = known[0] if known else None
        return 201, render.created_chat(self.gate.send(draft))

    def send_message(self, request: Request, chat_id: str) -> Reply:
        """POST /v3/chats/{id}/messages: the line is the chat's."""
        chat = self.world.chat(chat_id)
        draft = self._draft(request, parse.fields(request))
        draft.chat, draft.to, draft.number = chat, chat.to, chat.number
        return 202, render.sent(self.gate.send(draft))

    def _draft(self, request: Request, body: Fields, header: str | None = None) -> Draft:
        body.required("message")
        message = Fields(body.object("message") or {})
        return Draft(
            content=parse.content(message),
            key=parse.key(message, header),
            override=body.flag("override_optout"),
            trace_id=request.trace_id,
        )

    # Chats

    def list_chats(self, request: Request) -> Reply:
        """GET /v3/chats, the most recently active first; `to` names one participant."""
        number, participant = parse.one(request, "from"), parse.one(request, "to")
        if number is not None and e164(number) is None:
            raise Refusal(400, 1002, "from must be a phone number in E.164 format.")
        if participant is not None and handle(participant) is None:
            raise Refusal(400, 1002, "to must be E.164 or an email address.")

        def wanted(chat: Chat) -> bool:
            return (number is None or chat.number == number) and (
                participant is None or handle(participant) in chat.to
            )

        found = sorted(filter(wanted, self.world.chats.values()), key=lambda chat: -chat.active)
        start, limit = parse.page(request)
        return 200, render.page("chats", [render.chat(chat) for chat in found], start, limit)

    def get_chat(self, request: Request, chat_id: str) -> Reply:
        """GET /v3/chats/{id}."""
        return 200, render.chat(self.world.chat(chat_id))

    def list_messages(self, request: Request, chat_id: str) -> Reply:
        """GET /v3/chats/{id}/messages, the newest first."""
        chat = self.world.chat(chat_id)
        messages = [render.message(chat, message) for message in reversed(chat.messages)]
        return 200, render.page("messages", messages, *parse.page(request))

    # The block list

    def list_blocked(self, request: Request) -> Reply:
        """GET /v3/blocked_handles, the newest first."""
        entries = [render.blocked(entry) for entry in reversed(self.world.blocked.values())]
        return 200, {"blocked_handles": entries}

    def block(self, request: Request) -> Reply:
        """POST /v3/blocked_handles."""
        body = parse.fields(request)
        reason = body.text("reason") if "reason" in body else None
        return 201, {
            "blocked_handle": render.blocked(self.world.block(body.text("handle"), reason))
        }

    def unblock(self, request: Request) -> Reply:
        """DELETE /v3/blocked_handles, with a body."""
        self.world.unblock(parse.fields(request).text("handle"))
        return 204, None

    # Webhooks

    def list_event_types(self, request: Request) -> Reply:
        """GET /v3/webhook-events."""
        return 200, {"events": list(EVENT_TYPES), "doc_url": render.EVENTS_PAGE}

    def list_subscriptions(self, request: Request) -> Reply:
        """GET /v3/webhook-subscriptions."""
        entries = map(render.subscription, self.webhooks.subscriptions.values())
        return 200, {"subscriptions": list(entries)}

    def get_subscription(self, request: Request, subscription_id: str) -> Reply:
        """GET /v3/webhook-subscriptions/{id}."""
        return 200, render.subscription(self.webhooks.get(subscription_id))

    def create_subscription(self, request: Request) -> Reply:
        """POST /v3/webhook-subscriptions: the only answer that tells the secret."""
        body = parse.fields(request)
        body.required("subscribed_events")
        given = parse.subscription(body)
        created = self.webhooks.create(
            body.text("target_url"),
            given["subscribed_events"],
            phone_numbers=given.get("phone_numbers", ()),
            routing_key_header=given.get("routing_key_header"),
            routing_id_header=given.get("routing_id_header"),
        )
        return 201, {**render.subscription(created), "signing_secret": created.secret}

    def update_subscription(self, request: Request, subscription_id: str) -> Reply:
        """PUT /v3/webhook-subscriptions/{id}: the fields that are there."""
        changes = parse.subscription(parse.fields(request))
        return 200, render.subscription(self.webhooks.update(subscription_id, changes))

    def delete_subscription(self, request: Request, subscription_id: str) -> Reply:
        """DELETE /v3/webhook-subscriptions/{id}."""
        self.webhooks.delete(subscription_id)
        return 204, None


def _route(
    method: str, path: str, endpoint: Callable[..., Reply]
) -> tuple[str, re.Pattern[str], Callable[..., Reply]]:
    return method, re.compile(path.replace("{}", "([^/]+)")), endpoint


_ROUTES: Final = (
    _route("GET", "/v3/phone_numbers", Api.list_lines),
    _route("GET", "/v3/phonenumbers", Api.list_lines_deprecated),
    _route("PUT", "/v3/phone_numbers/{}", Api.update_line),
    _route("POST", "/v3/phone_numbers/{}/reputation_audit", Api.start_audit),
    _route("GET", "/v3/phone_numbers/{}/reputation_audit/{}", Api.get_audit),
    _route("GET", "/v3/available_number", Api.available_number),
    _route("POST", "/v3/messages", Api.create_message),
    _route("POST", "/v3/chats", Api.create_chat),
    _route("GET", "/v3/chats", Api.list_chats),
    _route("GET", "/v3/chats/{}", Api.get_chat),
    _route("POST", "/v3/chats/{}/messages", Api.send_message),
    _route("GET", "/v3/chats/{}/messages", Api.list_messages),
    _route("GET", "/v3/blocked_handles", Api.list_blocked),
    _route("POST", "/v3/blocked_handles", Api.block),
    _route("DELETE", "/v3/blocked_handles", Api.unblock),
    _route("GET", "/v3/webhook-events", Api.list_event_types),
    _route("GET", "/v3/webhook-subscriptions", Api.list_subscriptions),
    _route("POST", "/v3/webhook-subscriptions", Api.create_subscription),
    _route("GET", "/v3/webhook-subscriptions/{}", Api.get_subscription),
    _route("PUT", "/v3/webhook-subscriptions/{}", Api.update_subscription),
    _route("DELETE", "/v3/webhook-subscriptions/{}", Api.delete_subscription),
)
