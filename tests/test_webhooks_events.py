"""What each event reports. The events are made with the official client's own models, which write them as Linq does."""

import json
import logging
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from linq import types
from linq.types.webhook_event_type import WebhookEventType

from linepicker import (
    ChatHealthChanged,
    Delivered,
    Failed,
    LineAssigned,
    LineChanged,
    LineReleased,
    MessageRead,
    Replied,
    Reputation,
    ServiceStatus,
)
from linepicker.webhooks import Event, parse

LINE, PERSON, FRIEND = "+12025550100", "+12125550123", "ann@example.com"
AT, LATER, EARLIER = 1771439705.0, 1771439706.5, 1771436105.0  # 2026-02-18 18:35:05 UTC
AT_TEXT, LATER_TEXT, EARLIER_TEXT = (
    "2026-02-18T18:35:05.000Z",
    "2026-02-18T18:35:06.500Z",
    "2026-02-18T17:35:05.000Z",
)
ENVELOPE = {
    "api_version": "v3",
    "webhook_version": "2026-02-03",
    "event_id": "6f2d",
    "created_at": LATER_TEXT,
    "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    "partner_id": "p1",
}


def report_of(kind, data):
    """What an event of this type with this data reports."""
    return parse(Event("6f2d", kind, data, LATER))


def sdk(model, kind, data):
    """The same, of an event that the official client's model has checked and written."""
    event = model.model_validate({**ENVELOPE, "event_type": kind, "data": data}, strict=False)
    wire = json.loads(event.to_json(exclude_unset=True))
    assert wire["event_type"] == kind
    return report_of(kind, wire["data"])


def handle(value, *, is_me, **more):
    """A ChatHandle."""
    return {
        "id": "h1",
        "handle": value,
        "joined_at": AT_TEXT,
        "service": "iMessage",
        "is_me": is_me,
        **more,
    }


def health(status="HEALTHY", updated_at=EARLIER_TEXT):
    """A chat's health."""
    return {"status": status, "doc_url": "https://example.com/#x", "updated_at": updated_at}


def message(direction, *, parts=("hello",), group=False, status="HEALTHY", **more):
    """A MessageEventV2."""
    ours, theirs = handle(LINE, is_me=True), handle(PERSON, is_me=False)
    return {
        "id": "m1",
        "chat": {
            "id": "c1",
            "is_group": group,
            "owner_handle": ours,
            "health_status": health(status),
        },
        "direction": direction,
        "parts": [{"type": "text", "value": value, "reactions": None} for value in parts],
        "sender_handle": theirs if direction == "inbound" else ours,
        "service": "iMessage",
        "sent_at": AT_TEXT,
        **more,
    }


# Lines


def changed(**data):
    """What a phone_number.status_updated reports."""
    data = {"phone_number": LINE, "changed_at": AT_TEXT, **data}
    return report_of("phone_number.status_updated", data)


def test_a_status_event_of_today_reports_both_pairs():
    """Reputation and service status are both taken, at the moment they changed."""
    data = {
        "phone_number": LINE,
        "previous_status": "ACTIVE",
        "new_status": "FLAGGED",
        "previous_reputation": "AT_RISK",
        "new_reputation": "CRITICAL",
        "changed_at": AT_TEXT,
    }
    report = sdk(types.PhoneNumberStatusUpdatedWebhookEvent, "phone_number.status_updated", data)
    assert report == LineChanged(
        LINE,
        reputation=Reputation.CRITICAL,
        status=ServiceStatus.FLAGGED,
        at=AT,
        event_id="6f2d",
    )


@pytest.mark.parametrize(
    ("data", "reputation", "status"),
    [
        ({"new_status": "FLAGGED"}, None, "FLAGGED"),
        ({"new_status": "ACTIVE", "new_health_status": "AT_RISK"}, "AT_RISK", "ACTIVE"),
        (
            {
                "new_status": "ACTIVE",
                "new_health_status": "HEALTHY",
                "new_reputation": "CRITICAL",
            },
            "CRITICAL",
            "ACTIVE",
        ),
        ({"new_status": "ACTIVE", "new_reputation": "HEALTHY"}, "HEALTHY", "ACTIVE"),
        ({"new_reputation": "CRITICAL"}, "CRITICAL", None),
        ({"new_reputation": None, "new_status": "flagged"}, None, "FLAGGED"),
        ({"new_reputation": "critical", "new_status": None}, "CRITICAL", None),
        ({"new_reputation": None, "new_health_status": "critical"}, "CRITICAL", None),
        ({"new_reputation": {"status": "AT_RISK", "doc_url": "…"}}, "AT_RISK", None),
        ({"new_reputation": {"status": None}, "new_status": {"status": "Active"}}, None, "ACTIVE"),
        ({"new_reputation": 7, "new_status": " FLAGGED "}, None, "FLAGGED"),
    ],
)
def test_every_generation_of_a_status_event_is_read(data, reputation, status):
    """Either pair may be missing or null, in lower case, an object, or under its older name; the newer name counts."""
    assert changed(**data) == LineChanged(
        LINE, reputation=reputation, status=status, at=AT, event_id="6f2d"
    )


def test_an_unknown_reputation_is_reported_as_such():
    """A reputation without a name here goes into `unrecognised`, beside a status that has one."""
    report = changed(new_reputation="Doomed", new_status="FLAGGED")
    assert (report.reputation, report.unrecognised, report.status) == (None, "Doomed", "FLAGGED")


@pytest.mark.parametrize(
    ("reputation", "read", "unrecognised"),
    [
        ("HEALTHY", None, "SUSPENDED"),
        (None, None, "SUSPENDED"),
        ("AT_RISK", "AT_RISK", None),
        ("CRITICAL", "CRITICAL", None),
        ("Doomed", None, "Doomed"),
    ],
)
def test_an_unknown_status_never_leaves_a_line_healthy(reputation, read, unrecognised):
    """A service status without a name here makes a line AT_RISK at best, and never better than its reputation says."""
    report = changed(new_status="SUSPENDED", new_reputation=reputation)
    assert (report.reputation, report.unrecognised, report.status) == (read, unrecognised, None)


@pytest.mark.parametrize("given", [None, 7, "soon"])
def test_a_change_without_a_moment_is_as_old_as_its_event(given):
    """Where `changed_at` can't be read, the event's own moment stands in."""
    assert changed(new_status="ACTIVE", changed_at=given).at == LATER


@pytest.mark.parametrize(
    ("model", "kind", "report"),
    [
        (types.PhoneNumberAssignedWebhookEvent, "phone_number.assigned", LineAssigned),
        (types.PhoneNumberReleasedWebhookEvent, "phone_number.released", LineReleased),
    ],
)
def test_lines_join_and_leave(model, kind, report):
    """An assigned line and a released one are reported at the moment of the change."""
    found = sdk(model, kind, {"phone_number": LINE, "changed_at": AT_TEXT})
    assert found == report(LINE, at=AT, event_id="6f2d")


def moved(**data):
    """What an environment.line_moved reports."""
    data = {
        "actor": {"type": "system"},
        "occurred_at": AT_TEXT,
        "origin": "dashboard",
        "summary": "Line moved",
        "change": {"from": "Production", "to": "Staging"},
        **data,
    }
    return sdk(types.EnvironmentLineMovedWebhookEvent, "environment.line_moved", data)


def test_a_line_moved_between_environments_has_the_list_read_again():
    """It may have come or gone: reported as an assigned line, which has the list read; without a number nothing is."""
    assert moved(phone_number=LINE) == LineAssigned(LINE, at=AT, event_id="6f2d")
    assert moved() is None


# Messages received


def received(**more):
    """What a message.received of the present generation reports."""
    return sdk(types.MessageReceivedWebhookEvent, "message.received", message("inbound", **more))


def test_a_message_is_a_reply_to_our_line():
    """The line is the chat's owner, the person its sender; text, chat and the chat's health come with it."""
    assert received(parts=("Is my bicycle", "ready?")) == Replied(
        LINE,
        PERSON,
        text="Is my bicycle\nready?",
        chat_id="c1",
        chat_health="HEALTHY",
        chat_health_at=EARLIER,
        at=LATER,
        event_id="6f2d",
    )


def test_a_message_to_a_group_names_the_chat():
    """The members of a group are not in the payload, so nobody is named."""
    report = received(group=True)
    assert (report.number, report.to, report.chat_id) == (LINE, None, "c1")


def test_a_message_recovered_late_is_history():
    """With `reconciled_at` a reply is as old as its message, else as its event."""
    assert received(reconciled_at=LATER_TEXT).at == AT
    assert received(reconciled_at=None).at == LATER
    assert received(reconciled_at=LATER_TEXT, sent_at=None).at == LATER


def test_a_message_without_text_has_an_empty_one_and_a_hidden_one_has_none():
    """A picture alone says nothing; what a line without retention keeps to itself is unknown."""
    picture = {
        "type": "media",
        "id": "a1",
        "filename": "a.png",
        "mime_type": "image/png",
        "size_bytes": 1,
        "url": "https://example.com/a.png",
        "reactions": None,
    }
    data = {**message("inbound"), "parts": [picture]}
    assert sdk(types.MessageReceivedWebhookEvent, "message.received", data).text == ""
    assert received(parts=(), zero_retention=True).text is None
    assert received(zero_retention=False).text == "hello"


def test_half_a_surrogate_pair_becomes_a_question_mark():
    """Text can always be encoded again."""
    assert received().text == "hello"
    data = message("inbound", parts=("a\ud800b",))
    assert report_of("message.received", data).text == "a?b"


def old(*, from_me=False, **more):
    """The data of a message event of the older generation."""
    return {
        "chat_id": "c1",
        "from": LINE if from_me else PERSON,
        "recipient_phone": PERSON if from_me else LINE,
        "received_at": AT_TEXT,
        "is_from_me": from_me,
        "service": "iMessage",
        "message": {"id": "m1", "parts": [{"type": "text", "value": "hello"}]},
        **more,
    }


def test_the_older_generation_of_messages_is_read():
    """Sender, line, chat and text stand elsewhere there; handles may be objects; health is not there."""
    expected = Replied(LINE, PERSON, text="hello", chat_id="c1", at=LATER, event_id="6f2d")
    assert report_of("message.received", old()) == expected
    handles = {
        "from_handle": handle(PERSON, is_me=False),
        "recipient_handle": handle(LINE, is_me=True),
    }
    assert report_of("message.received", old(**handles)) == expected
    without = {name: value for name, value in old().items() if name != "is_from_me"}
    assert report_of("message.received", without) == expected


@pytest.mark.parametrize(
    "data",
    [
        message("outbound"),
        old(from_me=True),
        {**message("inbound"), "sender_handle": handle(LINE, is_me=True)},
    ],
)
def test_a_message_of_our_own_is_no_reply(data):
    """What our side wrote is not taken for a person's message, whichever field says so."""
    assert report_of("message.received", data) is None


def test_is_me_may_be_null():
    """Whose handle it is may be left open: the direction tells."""
    data = message("inbound", sender_handle=handle(PERSON, is_me=None))
    data["chat"]["owner_handle"] = handle(LINE, is_me=None)
    report = sdk(types.MessageReceivedWebhookEvent, "message.received", data)
    assert (report.number, report.to) == (LINE, PERSON)


@pytest.mark.parametrize("sender", ["12345", "LINQ", "a@b", "+1 212"])
def test_a_message_from_who_can_not_be_written_to_is_nothing(sender):
    """Short codes and names are no recipients: nothing is reported that a router would not take."""
    assert (
        report_of("message.received", message("inbound", sender_handle={"handle": sender})) is None
    )


def test_a_message_to_no_line_can_not_be_read(caplog):
    """Without a line a message can't be counted; it is logged by its type alone."""
    data = message("inbound")
    for owner in (None, handle("not a number", is_me=True)):
        data["chat"]["owner_handle"] = owner
        assert report_of("message.received", data) is None
    assert [record.getMessage() for record in caplog.records] == [
        "a webhook of type message.received can't be read"
    ] * 2


# Receipts

SENT = {
    "number": LINE,
    "message_id": "m1",
    "chat_id": "c1",
    "chat_health": "HEALTHY",
    "chat_health_at": EARLIER,
    "event_id": "6f2d",
}


def test_receipts_name_line_chat_and_message():
    """Delivered and read are reported at their moments, on the chat's line; whom they were to, the chat tells."""
    data = message("outbound", delivered_at=AT_TEXT, read_at=EARLIER_TEXT)
    report = sdk(types.MessageDeliveredWebhookEvent, "message.delivered", data)
    assert report == Delivered(**SENT, at=AT)
    report = sdk(types.MessageReadWebhookEvent, "message.read", data)
    assert report == MessageRead(**SENT, at=EARLIER)


@pytest.mark.parametrize("kind", ["message.delivered", "message.read"])
def test_receipts_for_their_messages_are_passed_over(kind):
    """That we have got or read what they wrote says nothing about our lines."""
    assert report_of(kind, message("inbound")) is None
    assert report_of(kind, old()) is None


def test_a_receipt_needs_no_line():
    """Without an owner the sender is the line; without either the chat has to tell."""
    data = message("outbound", delivered_at=None)
    data["chat"]["owner_handle"] = None
    report = sdk(types.MessageDeliveredWebhookEvent, "message.delivered", data)
    assert (report.number, report.at) == (LINE, LATER)
    data["sender_handle"] = {}
    assert report_of("message.delivered", data).number is None


def test_the_older_generation_of_receipts_is_read():
    """There a receipt names the person as well; one that names neither line nor person still names the message."""
    expected = Delivered(
        number=LINE, to=PERSON, message_id="m1", chat_id="c1", at=LATER, event_id="6f2d"
    )
    assert report_of("message.delivered", old(from_me=True)) == expected
    report = report_of("message.delivered", {"chat_id": "c1", "message_id": "m1"})
    assert report == Delivered(message_id="m1", chat_id="c1", at=LATER, event_id="6f2d")


def failed(**more):
    """What a message.failed reports."""
    data = {"code": 4001, "failed_at": AT_TEXT, "chat_id": "c1", "message_id": "m1", **more}
    return sdk(types.MessageFailedWebhookEvent, "message.failed", data)


def test_a_failure_names_chat_message_and_code():
    """A failure has no line: chat and message have to tell whose it was."""
    assert failed() == Failed(
        code=4001, chat_id="c1", message_id="m1", at=AT, event_id="6f2d", recipient_fault=False
    )
    assert failed(message_id=None, detail_code=77, reason="no").message_id is None


@pytest.mark.parametrize("code", [3007, 4001, 4002, 4005, 4006, 4007, 4008])
def test_only_a_message_the_recipient_can_not_take_blames_the_recipient(code):
    """4005 says that the recipient can't take this type of message; the others leave it open."""
    assert (failed(code=code).code, failed(code=code).recipient_fault) == (code, code == 4005)


@pytest.mark.parametrize("code", [None, "4005", True, 4005.0, {}])
def test_a_code_is_a_whole_number(code):
    """What is no code is left out; the failure counts."""
    data = {"code": code, "chat_id": "c1"}
    report = report_of("message.failed", data)
    assert (report.code, report.recipient_fault) == (None, False)


def test_a_receipt_for_nothing_can_not_be_read(caplog):
    """A receipt has to name its message or its chat."""
    for kind in ("message.delivered", "message.read", "message.failed"):
        assert report_of(kind, {"code": 4001, "chat_id": "", "message_id": 7}) is None
    assert len(caplog.records) == 3


# Conversations


def test_a_message_sent_brings_the_health_of_its_chat():
    """A message of our own is a look at the conversation; without health it is nothing."""
    data = message("outbound", status="CRITICAL")
    report = sdk(types.MessageSentWebhookEvent, "message.sent", data)
    assert report == ChatHealthChanged(
        None, "CRITICAL", number=LINE, chat_id="c1", at=EARLIER, event_id="6f2d"
    )
    assert report_of("message.sent", old(from_me=True)) is None
    assert report_of("message.sent", message("inbound")) is None


def created(handles, **more):
    """What a chat.created reports."""
    data = {
        "id": "c1",
        "created_at": AT_TEXT,
        "updated_at": AT_TEXT,
        "display_name": "Ann",
        "handles": handles,
        "health_status": health("AT_RISK"),
        "is_group": len(handles) > 2,
        **more,
    }
    return sdk(types.ChatCreatedWebhookEvent, "chat.created", data)


OURS = handle(LINE, is_me=True)


def test_a_new_chat_brings_its_people_its_line_and_its_health():
    """The line is the handle that is ours; those who have left are not in it."""
    person, friend = handle(PERSON, is_me=False), handle(FRIEND, is_me=False)
    gone = handle("+12125550199", is_me=False, status="left")
    about = {"number": LINE, "chat_id": "c1", "at": EARLIER, "event_id": "6f2d"}
    assert created([OURS, person, gone]) == ChatHealthChanged(PERSON, "AT_RISK", **about)
    assert created([person, friend, OURS]) == ChatHealthChanged(
        (PERSON, FRIEND), "AT_RISK", **about
    )


def test_a_chat_that_does_not_say_whose_handles_they_are_names_itself():
    """With `is_me` null nothing tells our line from the people."""
    report = created([handle(LINE, is_me=None), handle(PERSON, is_me=None)])
    assert (report.to, report.number, report.chat_id) == (None, None, "c1")


@pytest.mark.parametrize("status", [{}, [], 7, None, "LEFT"])
def test_a_strange_word_for_who_has_left_removes_nobody(status):
    """Only `left` and `removed` take a handle out of a chat."""
    handles = [OURS, {**handle(PERSON, is_me=False), "status": status}]
    data = {"id": "c1", "handles": handles, "health_status": health()}
    assert report_of("chat.created", data).to == PERSON


@pytest.mark.parametrize("status", [None, {}, {"status": "GREAT"}, 7, []])
def test_a_health_that_has_no_name_here_is_left_out(status):
    """An unknown health of a chat changes nothing; the message that brought it counts."""
    data = message("inbound")
    data["chat"]["health_status"] = status
    report = report_of("message.received", data)
    assert (report.chat_health, report.chat_health_at, report.text) == (None, None, "hello")
    assert report_of("message.sent", {**data, "direction": "outbound"}) is None
    assert report_of("chat.created", {"id": "c1", "health_status": status}) is None


def test_health_may_be_in_lower_case_and_without_a_moment():
    """Very early events wrote it so; then it is as old as the event."""
    data = message("outbound")
    data["chat"]["health_status"] = {"status": "opted_out", "updated_at": None}
    report = report_of("message.sent", data)
    assert (report.health, report.at) == ("OPTED_OUT", LATER)


# The rest

OF_CONCERN = {
    "phone_number.status_updated",
    "phone_number.assigned",
    "phone_number.released",
    "environment.line_moved",
    "message.received",
    "message.delivered",
    "message.read",
    "message.failed",
    "message.sent",
    "chat.created",
}


@pytest.mark.parametrize("kind", [*get_args(WebhookEventType), "", "line.exploded", "\ud800"])
def test_types_of_no_concern_are_passed_over(kind, caplog):
    """Of all types there are, and of those to come, only those that bear on routing are read; the others are not logged."""
    caplog.set_level(logging.DEBUG)
    read = report_of(kind, {"phone_number": 7}) is not None or caplog.records
    assert bool(read) is (kind in OF_CONCERN - {"message.sent", "chat.created"})


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
SAMPLES = {
    "phone_number.status_updated": {
        "phone_number": LINE,
        "new_status": "ACTIVE",
        "new_reputation": "HEALTHY",
        "new_health_status": "HEALTHY",
        "changed_at": AT_TEXT,
    },
    "phone_number.assigned": {"phone_number": LINE, "changed_at": AT_TEXT},
    "environment.line_moved": {"phone_number": LINE, "occurred_at": AT_TEXT},
    "message.received": message("inbound"),
    "message.delivered": message("outbound", delivered_at=AT_TEXT),
    "message.read": old(from_me=True),
    "message.failed": {"code": 4005, "chat_id": "c1", "failed_at": AT_TEXT},
    "message.sent": message("outbound"),
    "chat.created": {"id": "c1", "handles": [OURS], "health_status": health()},
}


@given(st.data(), st.sampled_from(sorted(SAMPLES)))
def test_any_value_anywhere_is_a_report_or_nothing(data, kind):
    """Put anything in the place of any value of an event: it is a report or None, and never an error."""
    value = json.loads(json.dumps(SAMPLES[kind]))
    places = [(value, name) for name in value]
    for inner, name in places:
        if isinstance(inner[name], dict):
            places += [(inner[name], each) for each in inner[name]]
        elif isinstance(inner[name], list):
            places += [(inner[name], each) for each in range(len(inner[name]))]
    for inner, name in data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=3)):
        inner[name] = data.draw(ANYTHING)
    report_of(kind, value)
    report_of(kind, data.draw(ANYTHING))


def test_fields_that_nobody_knows_are_passed_over():
    """An event with more fields than are known says the same."""
    data = {**message("inbound"), "mood": "good"}
    data["chat"]["colour"] = {"is": "green"}
    assert report_of("message.received", data) == received()
