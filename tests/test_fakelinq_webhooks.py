"""The fake's webhooks and people, judged by the official client's models and the reference library's signatures."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
import time
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, get_args

import linq
import pytest
from linq._models import validate_type
from linq.types import UnwrapWebhookEvent, WebhookEventType
from standardwebhooks import Webhook, WebhookVerificationError

from linepicker.testing import FakeLinq, ManualClock
from linepicker.testing.fakelinq import Delivery, Guesses, Person, Retry

ANN, BOB, EVE = "+14155550101", "+14155550102", "eve@example.com"
A, B, C = "+12025550100", "+12025550101", "+12025550102"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw7Jxx2Oll+OE="
OTHER = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="

Client = linq.LinqAPIV3


class Receiver:
    """Something on loopback that gets webhooks. `answers`: what to say next; after them, `status`."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[int | str] = []
        self.status = 204
        self.gate = threading.Event()
        self.lock = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                answer = receiver.take(headers, body)
                if answer == "hang":
                    receiver.gate.wait(30)
                if isinstance(answer, str):
                    self.close_connection = True
                    return
                head = f"HTTP/1.1 {answer} .\r\nContent-Length: 0\r\n\r\n"
                self.wfile.write(head.encode() if answer != 204 else b"HTTP/1.1 204 .\r\n\r\n")

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def take(self, headers: dict[str, str], body: bytes) -> int | str:
        """Keep a request; what to answer."""
        with self.lock:
            self.got.append((headers, body))
            self.lock.notify_all()
            return self.answers.pop(0) if self.answers else self.status

    def wait(self, count: int) -> None:
        """Wait until so many have come."""
        with self.lock:
            assert self.lock.wait_for(lambda: len(self.got) >= count, 20)

    def close(self) -> None:
        """Get no more."""
        self.gate.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    @property
    def events(self) -> list[dict[str, Any]]:
        """The envelopes, in the order they came in."""
        return [json.loads(body) for _, body in list(self.got)]

    @property
    def types(self) -> list[str]:
        """The types of the events."""
        return [event["event_type"] for event in self.events]

    def data(self, kind: str) -> list[dict[str, Any]]:
        """The data of the events of one type."""
        return [event["data"] for event in self.events if event["event_type"] == kind]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Gets webhooks, and says 204."""
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture
def clock() -> ManualClock:
    """The present, standing still: the reference library looks at the host's clock."""
    return ManualClock(float(int(time.time())))


@pytest.fixture
def fake(clock: ManualClock) -> Iterator[FakeLinq]:
    """An account of three lines: A, B and C."""
    with FakeLinq(lines=3, clock=clock) as fake:
        yield fake


@pytest.fixture
def client(fake: FakeLinq) -> Iterator[Client]:
    """The official client."""
    with connect(fake) as client:
        yield client


def connect(fake: FakeLinq) -> Client:
    """The official client, which repeats nothing and refuses answers that don't fit its models."""
    return Client(
        base_url=fake.base_url,
        api_key=fake.token,
        max_retries=0,
        http_client=linq.DefaultHttpxClient(verify=False),
        _strict_response_validation=True,
    )


def text(value: str = "hello", **more: Any) -> Any:
    """A message of one text part."""
    return {"parts": [{"type": "text", "value": value}], **more}


def say(client: Client, *to: str, number: str = A, **more: Any) -> Any:
    """Send a text from a line; the chat."""
    return client.chats.create(from_=number, to=list(to), message=text(**more)).chat


def refused(call: Callable[[], object]) -> tuple[int, Any]:
    """The status and the code of the error."""
    with pytest.raises(linq.APIStatusError) as caught:
        call()
    return caught.value.status_code, caught.value.code


def advance(fake: FakeLinq, clock: ManualClock, seconds: float) -> None:
    """Let this time pass, and everything arrive."""
    clock.advance(seconds)
    fake.flush()


# Payloads


def test_every_payload_fits_the_official_model(
    fake: FakeLinq, client: Client, receiver: Receiver
) -> None:
    """Each event the fake makes is unwrapped by the official client, and valid by its strict models."""
    secret = fake.subscribe(receiver.url)
    fake.person(ANN, Person(reads=1.0, answers=1.0))
    chat = say(client, ANN, idempotency_key="k1")
    client.chats.messages.send(
        chat.id,
        message={
            "parts": [
                {"type": "media", "url": "https://example.com/a.png"},
                {"type": "text", "value": "see"},
            ],
            "effect": {"type": "screen", "name": "confetti"},
            "reply_to": {"message_id": chat.message.id, "part_index": 0},
        },
    )
    say(client, BOB, EVE, number=B)
    fake.fail_messages(code=3007)
    say(client, EVE, number=B)
    fake.react(ANN, chat.message.id)
    fake.receive(C, BOB, "hello", late=600.0)
    fake.set_status(A, "FLAGGED", reputation="CRITICAL")
    fake.add_line("+12025550999")
    fake.remove_line("+12025550999")
    fake.move_line(C, "sandbox")
    fake.flush()
    for headers, body in receiver.got:
        event = client.webhooks.unwrap(body.decode(), headers=headers, key=secret)
        strict = validate_type(type_=UnwrapWebhookEvent, value=json.loads(body))
        assert type(event) is type(strict)
        assert event.event_type == headers["x-webhook-event"]
    assert set(receiver.types) == {
        "chat.created",
        "environment.line_moved",
        "message.delivered",
        "message.failed",
        "message.read",
        "message.received",
        "message.sent",
        "phone_number.assigned",
        "phone_number.released",
        "phone_number.status_updated",
        "reaction.added",
    }


def test_the_envelope_has_eight_keys(
    fake: FakeLinq, client: Client, receiver: Receiver, clock: ManualClock
) -> None:
    """Version, type, ids and moment, and the trace id of the send in the events about its message."""
    fake.subscribe(receiver.url)
    answer = client.chats.with_raw_response.create(from_=A, to=[ANN], message=text())
    fake.flush()
    for event in receiver.events:
        assert set(event) == {
            "api_version",
            "webhook_version",
            "event_type",
            "event_id",
            "created_at",
            "trace_id",
            "partner_id",
            "data",
        }
        assert (event["api_version"], event["webhook_version"]) == ("v3", "2026-02-03")
        told = event["trace_id"] == answer.headers["X-Trace-ID"]
        assert told is event["event_type"].startswith("message.")
    assert len({event["event_id"] for event in receiver.events}) == 3


def test_a_message_shows_how_far_it_is(
    fake: FakeLinq, client: Client, receiver: Receiver, clock: ManualClock
) -> None:
    """Sent, delivered and read events carry the moments up to theirs; the line is the owner, and the sender."""
    fake.subscribe(receiver.url)
    fake.person(ANN, Person(reads=1.0, delivered_after=2.0, read_after=30.0))
    chat = say(client, ANN, idempotency_key="k1")
    advance(fake, clock, 2.0)
    advance(fake, clock, 30.0)
    steps = [
        [event["data"][name] is not None for name in ("sent_at", "delivered_at", "read_at")]
        for event in receiver.events[1:]
    ]
    assert steps == [[True, False, False], [True, True, False], [True, True, True]]
    for event in receiver.events[1:]:
        data = event["data"]
        assert data["id"] == chat.message.id
        assert data["idempotency_key"] == "k1"
        assert data["direction"] == "outbound"
        assert data["sender_handle"]["handle"] == A
        assert data["chat"]["id"] == chat.id
        assert data["chat"]["owner_handle"]["handle"] == A
        assert data["chat"]["owner_handle"]["is_me"] is True
        assert ANN not in json.dumps(data)
        assert "reconciled_at" not in data


def test_the_older_payload_nests_the_message(
    fake: FakeLinq, client: Client, receiver: Receiver
) -> None:
    """2025-01-01: the chat's id beside the message, who is it from, and the line only where it received."""
    fake.subscribe(receiver.url, version="2025-01-01")
    chat = say(client, ANN)
    fake.receive(A, ANN, "hi")
    fake.flush()
    assert {event["webhook_version"] for event in receiver.events} == {"2025-01-01"}
    (sent,) = receiver.data("message.sent")
    assert (sent["chat_id"], sent["message"]["id"]) == (chat.id, chat.message.id)
    assert (sent["from"], sent["is_from_me"], sent["recipient_phone"]) == (A, True, None)
    (delivered,) = receiver.data("message.delivered")
    assert delivered["message_id"] == chat.message.id
    assert delivered["delivered_at"] == delivered["message"]["delivered_at"]
    (received,) = receiver.data("message.received")
    assert (received["from"], received["is_from_me"]) == (ANN, False)
    assert received["recipient_phone"] == received["recipient_handle"]["handle"] == A
    assert received["message"]["parts"] == [{"type": "text", "value": "hi"}]
    assert received["received_at"] is not None
    assert "health_status" not in json.dumps([sent, delivered, received])


@pytest.mark.parametrize(
    ("asked", "told"),
    [("", "2025-01-01"), ("?version=2026-02-03", "2026-02-03"), ("?version=2025-01-01", None)],
)
def test_the_address_asks_for_the_generation(
    clock: ManualClock, receiver: Receiver, asked: str, told: str | None
) -> None:
    """The query of the address decides; without one, a guess does."""
    guesses = Guesses(webhook_version="2025-01-01")
    with FakeLinq(1, clock=clock, guesses=guesses) as fake, connect(fake) as client:
        client.webhook_subscriptions.create(
            target_url=receiver.url + asked, subscribed_events=["message.received"]
        )
        fake.receive(A, ANN, "hi")
        fake.flush()
    assert [event["webhook_version"] for event in receiver.events] == [told or "2025-01-01"]


@pytest.mark.parametrize(
    ("shape", "names"),
    [
        ("reputation", {"status", "reputation"}),
        ("both", {"status", "reputation", "health_status"}),
        ("health_status", {"status", "health_status"}),
        ("status", {"status"}),
    ],
)
def test_a_status_event_has_the_names_of_its_time(
    fake: FakeLinq, receiver: Receiver, shape: Any, names: set[str]
) -> None:
    """Pairs come and went by three names; each payload has all the pairs of its time."""
    fake.subscribe(receiver.url)
    fake.webhooks.status_shape = shape
    fake.set_status(A, "FLAGGED", reputation="CRITICAL")
    fake.flush()
    (data,) = receiver.data("phone_number.status_updated")
    assert {name.partition("_")[2] for name in data} == names | {"number", "at"}
    assert (data["previous_status"], data["new_status"]) == ("ACTIVE", "FLAGGED")
    for name in names - {"status"}:
        assert (data[f"previous_{name}"], data[f"new_{name}"]) == ("HEALTHY", "CRITICAL")


def test_a_status_event_carries_both_pairs(fake: FakeLinq, receiver: Receiver) -> None:
    """The pair that did not change has equal values; what changes nothing is told to nobody."""
    fake.subscribe(receiver.url)
    fake.set_reputation(A, "AT_RISK")
    fake.set_reputation(A, "AT_RISK")
    fake.set_status(A, "FLAGGED")
    fake.set_eligible(A, True)
    fake.flush()
    pairs = [
        [
            data[f"{side}_{name}"]
            for name in ("status", "reputation")
            for side in ("previous", "new")
        ]
        for data in receiver.data("phone_number.status_updated")
    ]
    assert pairs == [
        ["ACTIVE", "ACTIVE", "HEALTHY", "AT_RISK"],
        ["ACTIVE", "FLAGGED", "AT_RISK", "AT_RISK"],
    ]


def test_before_reputations_only_a_status_was_told(fake: FakeLinq, receiver: Receiver) -> None:
    """Nobody heard of a reputation while the payload had none."""
    fake.subscribe(receiver.url)
    fake.webhooks.status_shape = "status"
    fake.set_reputation(A, "CRITICAL")
    fake.flush()
    assert receiver.got == []


def test_a_line_that_moves_is_seen_no_more(
    fake: FakeLinq, client: Client, receiver: Receiver
) -> None:
    """Another environment's line is not listed and can't send, until it comes back; nobody says released."""
    fake.subscribe(receiver.url)
    fake.move_line(A, "sandbox")
    assert fake.numbers == [B, C]
    assert refused(lambda: say(client, ANN)) == (403, 2006)
    fake.move_line(A, "production")
    say(client, ANN)
    fake.flush()
    first, last = receiver.data("environment.line_moved")
    assert first["change"] == {"from": "production", "to": "sandbox"}
    assert last["change"] == {"from": "sandbox", "to": "production"}
    assert first["phone_number"] == A
    assert not any(name.startswith("phone_number.") for name in receiver.types)
    with pytest.raises(ValueError):
        fake.move_line("+12025550999", "sandbox")


def test_a_chats_health_comes_with_its_messages(
    fake: FakeLinq, client: Client, receiver: Receiver
) -> None:
    """What is thought of a conversation is told with the next message in it."""
    fake.subscribe(receiver.url, ["message.sent"])
    chat = say(client, ANN)
    fake.set_chat_health(chat.id, "CRITICAL")
    say(client, ANN)
    fake.flush()
    told = [data["chat"]["health_status"]["status"] for data in receiver.data("message.sent")]
    assert told == ["HEALTHY", "CRITICAL"]


# Signatures


def test_the_reference_library_believes_every_delivery(
    fake: FakeLinq, client: Client, receiver: Receiver
) -> None:
    """The Standard Webhooks headers verify with the subscription's secret, and with no other."""
    secret = fake.subscribe(receiver.url)
    say(client, ANN)
    fake.flush()
    for headers, body in receiver.got:
        assert Webhook(secret).verify(body, headers) == json.loads(body)
        with pytest.raises(WebhookVerificationError):
            Webhook(OTHER).verify(body, headers)


@pytest.mark.parametrize("key", ["text", "decoded"])
def test_the_legacy_headers_are_sent_too(clock: ManualClock, receiver: Receiver, key: Any) -> None:
    """Hexadecimal, over moment and body, with either guess of the key; the moment is the fake's."""
    with FakeLinq(1, clock=clock, guesses=Guesses(legacy_key=key)) as fake:
        fake.subscribe(receiver.url, secret=SECRET)
        fake.receive(A, ANN, "hi")
        fake.flush()
        subscription = next(iter(fake.webhooks.subscriptions))
    for headers, body in receiver.got:
        assert headers["x-webhook-subscription-id"] == subscription
        assert headers["x-webhook-event"] == json.loads(body)["event_type"]
        assert (
            headers["x-webhook-timestamp"] == headers["webhook-timestamp"] == str(int(clock.now()))
        )
        secret = SECRET.encode() if key == "text" else b64decode(SECRET[6:])
        signed = headers["x-webhook-timestamp"].encode() + b"." + body
        expected = hmac.new(secret, signed, hashlib.sha256).hexdigest()
        assert headers["x-webhook-signature"] == expected


def test_the_headers_name_event_and_chat(clock: ManualClock, receiver: Receiver) -> None:
    """`webhook-id` is the event's id, or a guess makes it another; `Linq-Chat-Id` is there where there is a chat."""
    guesses = Guesses(webhook_id_is_event_id=False)
    for each in (Guesses(), guesses):
        receiver.got.clear()
        with FakeLinq(1, clock=clock, guesses=each) as fake, connect(fake) as client:
            fake.subscribe(receiver.url)
            chat = say(client, ANN)
            fake.set_reputation(A, "AT_RISK")
            fake.flush()
        for headers, body in receiver.got:
            event = json.loads(body)
            same = headers["webhook-id"] == event["event_id"]
            assert same is each.webhook_id_is_event_id
            about_chat = not event["event_type"].startswith("phone_number.")
            assert headers.get("linq-chat-id") == (chat.id if about_chat else None)


# Subscriptions


def test_a_subscription_lives_by_the_official_client(
    fake: FakeLinq, client: Client, receiver: Receiver
) -> None:
    """Created, listed, changed and deleted; the secret is told once."""
    api = client.webhook_subscriptions
    made = api.create(
        target_url=receiver.url, subscribed_events=["message.received"], phone_numbers=[B, A]
    )
    assert made.signing_secret.startswith("whsec_")
    assert len(b64decode(made.signing_secret[6:])) == 32
    assert made.phone_numbers == [A, B]
    assert api.list().subscriptions == [api.retrieve(made.id)]
    assert "signing_secret" not in api.with_raw_response.retrieve(made.id).text()
    fake.receive(C, ANN, "not for me")
    fake.receive(B, ANN, "for me")
    api.update(made.id, is_active=False)
    fake.receive(B, ANN, "for nobody")
    changed = api.update(
        made.id,
        is_active=True,
        phone_numbers=None,
        subscribed_events=["message.received", "chat.created"],
        routing_key_header="X-Key",
        routing_id_header="X-Chat",
    )
    assert changed.phone_numbers is None
    assert (changed.routing_key_header, changed.routing_id_header) == ("X-Key", "X-Chat")
    fake.receive(C, BOB, "for all")
    api.update(made.id, routing_key_header="")
    api.delete(made.id)
    fake.receive(B, ANN, "for nobody")
    fake.flush()
    assert receiver.types == ["message.received", "chat.created", "message.received"]
    assert "x-chat" in receiver.got[-1][0]
    assert Webhook(made.signing_secret).verify(receiver.got[0][1], receiver.got[0][0])
    assert api.list().subscriptions == []


def test_the_event_types_are_the_official_ones(client: Client) -> None:
    """All of the client's, in its order."""
    assert client.webhook_events.list().events == list(get_args(WebhookEventType))


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"target_url": "http://example.com/hook"}, 400, 1005),
        ({"target_url": "https://10.0.0.1/hook"}, 400, 1005),
        ({"target_url": "https://[::ffff/hook"}, 400, 1005),
        ({"target_url": "http://127.0.0.1:99999/"}, 400, 1005),
        ({"target_url": "ftp://127.0.0.1/"}, 400, 1005),
        ({"target_url": "hook"}, 400, 1005),
        ({"target_url": 7}, 400, 1003),
        ({"target_url": None}, 400, 1001),
        ({"target_url": "https://example.com/taken"}, 409, 2015),
        ({"subscribed_events": ["message.received", "message.opt_out"]}, 400, 1005),
        ({"subscribed_events": []}, 400, 1005),
        ({"subscribed_events": [{}]}, 400, 1003),
        ({"subscribed_events": None}, 400, 1001),
        ({"phone_numbers": ["12"]}, 400, 1002),
    ],
)
def test_a_wrong_subscription_is_refused(
    fake: FakeLinq, client: Client, change: Any, status: int, code: int
) -> None:
    """Addresses that are not public HTTPS or this machine, taken ones, unheard-of events."""
    good: Any = {"subscribed_events": ["message.sent"]}
    made = client.webhook_subscriptions.create(target_url="https://example.com/taken", **good)
    other = client.webhook_subscriptions.create(target_url="https://example.com/hook", **good)
    wrong = {"target_url": "https://example.com/new", **good, **change}
    assert refused(lambda: client.webhook_subscriptions.create(**wrong)) == (status, code)
    if None not in change.values():
        update = client.webhook_subscriptions.update
        assert refused(lambda: update(other.id, **change)) == (status, code)
    assert client.webhook_subscriptions.retrieve(made.id) == client.webhook_subscriptions.update(
        made.id, target_url=made.target_url
    )


def test_an_unknown_subscription_is_not_found(client: Client) -> None:
    """404, with the code for it."""
    api = client.webhook_subscriptions
    for call in (api.retrieve, api.update, api.delete):
        assert refused(lambda call=call: call("nobody")) == (404, 2010)


def test_subscribing_in_python_raises_what_the_api_would_refuse(
    fake: FakeLinq, receiver: Receiver
) -> None:
    """A taken address, an unheard-of event, a secret that is none: each is a ValueError."""
    assert fake.subscribe(receiver.url, secret=SECRET) == SECRET
    with pytest.raises(ValueError, match="another subscription"):
        fake.subscribe(receiver.url)
    with pytest.raises(ValueError, match="event types"):
        fake.subscribe(receiver.url + "?a=1", ["message.opt_out"])
    with pytest.raises(ValueError):
        fake.subscribe(receiver.url + "?a=1", secret="whsec_?")
    fake.subscribe(receiver.url + "?a=1", numbers=[B])
    (_, second) = fake.webhooks.subscriptions.values()
    assert second.target_url.endswith("?a=1&version=2026-02-03")


@pytest.mark.parametrize("filtered", [False, True])
def test_whether_a_filter_of_lines_holds_back_line_events_is_a_guess(
    clock: ManualClock, receiver: Receiver, filtered: bool
) -> None:
    """Events of other lines' health come through, or not."""
    guesses = Guesses(filter_line_events=filtered)
    with FakeLinq(2, clock=clock, guesses=guesses) as fake:
        fake.subscribe(receiver.url, numbers=[A])
        fake.set_reputation(A, "AT_RISK")
        fake.set_reputation(B, "AT_RISK")
        fake.flush()
    assert len(receiver.got) == (1 if filtered else 2)


def test_each_subscription_is_told_of_the_same_event(fake: FakeLinq, receiver: Receiver) -> None:
    """The id of an event is the same on all of them; generation and secret are each one's own."""
    first = fake.subscribe(receiver.url + "?a=1")
    second = fake.subscribe(receiver.url + "?a=2", version="2025-01-01")
    fake.receive(A, ANN, "hi")
    fake.flush()
    assert first != second
    assert set(Counter(event["event_id"] for event in receiver.events).values()) == {2}
    assert Counter(event["webhook_version"] for event in receiver.events) == {
        "2025-01-01": 2,
        "2026-02-03": 2,
    }


def test_nothing_leaves_the_machine(fake: FakeLinq, client: Client) -> None:
    """Any HTTPS address may be subscribed; deliveries to other machines fail without a try."""
    client.webhook_subscriptions.create(
        target_url="https://example.com/hook", subscribed_events=["chat.created"]
    )
    fake.receive(A, ANN, "hi")
    fake.flush()
    (delivery,) = fake.deliveries
    assert (delivery.status, delivery.error) == (None, "not on this machine")


# Deliveries


@pytest.mark.parametrize("answer", [500, 503, 504, 429, "cut", "hang"])
def test_a_failed_delivery_is_tried_again(
    fake: FakeLinq, receiver: Receiver, clock: ManualClock, answer: int | str
) -> None:
    """Server errors, 429 and network errors: the same event after 3 s, signed at its new moment."""
    secret = fake.subscribe(receiver.url, ["message.received"])
    fake.webhooks.sender.timeout = 0.1 if answer == "hang" else 10.0
    receiver.answers = [answer]
    fake.receive(A, ANN, "hi")
    fake.flush()
    advance(fake, clock, 2.9)
    assert len(receiver.got) == 1
    fake.webhooks.sender.timeout = 10.0
    advance(fake, clock, 0.1)
    assert [delivery.attempt for delivery in fake.deliveries] == [1, 2]
    assert fake.deliveries[0].status == (answer if isinstance(answer, int) else None)
    assert fake.deliveries[1].status == 204
    (first, body), (second, again) = receiver.got
    assert body == again
    assert first["webhook-id"] == second["webhook-id"]
    assert int(second["webhook-timestamp"]) - int(first["webhook-timestamp"]) == 3
    Webhook(secret).verify(again, second)
    advance(fake, clock, 3600.0)
    assert len(receiver.got) == 2


@pytest.mark.parametrize("answer", [200, 302, 400, 401, 404, 410])
def test_a_settled_delivery_is_not_tried_again(
    fake: FakeLinq, receiver: Receiver, clock: ManualClock, answer: int
) -> None:
    """Success and client errors are final."""
    fake.subscribe(receiver.url, ["message.received"])
    receiver.answers = [answer]
    fake.receive(A, ANN, "hi")
    fake.flush(later=True)
    advance(fake, clock, 3600.0)
    assert [delivery.status for delivery in fake.deliveries] == [answer]


def test_tries_end_after_twenty_five_minutes(
    fake: FakeLinq, receiver: Receiver, clock: ManualClock
) -> None:
    """Ten of them, each twice as long after the one before; then the event is lost."""
    receiver.status = 503
    start = clock.now()
    fake.subscribe(receiver.url, ["message.received"])
    fake.receive(A, ANN, "hi")
    fake.flush()
    for _ in range(1600):
        advance(fake, clock, 1.0)
    moments = [delivery.at - start for delivery in fake.deliveries]
    assert moments == [0, 3, 9, 21, 45, 93, 189, 381, 765, 1533]
    fake.receive(A, ANN, "hi")
    with pytest.raises(TimeoutError):
        fake.flush(timeout=0.2, later=True)


def test_a_receiver_that_is_gone_is_tried_again(fake: FakeLinq, clock: ManualClock) -> None:
    """No connection is a network error; when it is back at the same address, it is told."""
    gone = Receiver()
    gone.close()
    fake.subscribe(gone.url, ["message.received"])
    fake.receive(A, ANN, "hi")
    fake.flush()
    assert [delivery.error for delivery in fake.deliveries] == ["ConnectError"]


def test_tries_can_run_by_the_hosts_clock(
    fake: FakeLinq, receiver: Receiver, clock: ManualClock
) -> None:
    """Then they come by themselves, while the fake's clock stands still; and `flush` can wait for them."""
    fake.webhooks.retry = Retry(first=0.01, attempts=3, clock="host")
    receiver.answers = [503, 503]
    fake.subscribe(receiver.url, ["message.received"])
    fake.receive(A, ANN, "hi")
    fake.flush(later=True)
    assert [delivery.status for delivery in fake.deliveries] == [503, 503, 204]


def test_a_delivery_says_what_was_sent(fake: FakeLinq, receiver: Receiver) -> None:
    """The bytes and the headers, as they arrived; its representation keeps the secret things."""
    secret = fake.subscribe(receiver.url, ["message.received"])
    fake.receive(A, ANN, "hi")
    fake.flush()
    (delivery,), ((headers, body),) = fake.deliveries, receiver.got
    assert delivery.body == body
    assert delivery.json["event_id"] == delivery.event_id
    assert {
        name.lower(): value for name, value in delivery.headers.items()
    }.items() <= headers.items()
    assert delivery.url == f"{receiver.url}?version=2026-02-03"
    assert ANN not in repr(delivery)
    assert secret not in repr(fake.webhooks.subscriptions)


def test_thousands_of_events_all_arrive_once_and_in_order(
    fake: FakeLinq, receiver: Receiver
) -> None:
    """Eight at once; those of one chat one after another, in the order things happened in."""
    fake.subscribe(receiver.url, ["message.received"])
    for n in range(2100):
        fake.receive(fake.numbers[n % 3], f"+1415555{n % 100:04d}", str(n))
    fake.flush(timeout=120.0)
    assert len(receiver.got) == 2100
    last: dict[str, int] = {}
    for event in receiver.events:
        data = event["data"]
        n = int(data["parts"][0]["value"])
        assert last.get(data["chat"]["id"], -1) < n
        last[data["chat"]["id"]] = n
    assert len(last) == 300


def test_a_closed_fake_sends_the_rest_when_it_is_back(fake: FakeLinq, receiver: Receiver) -> None:
    """What is not settled at `close` is kept, and what happens meanwhile too; the thread is gone."""
    fake.subscribe(receiver.url, ["message.received"])
    receiver.answers = ["hang"]
    fake.receive(A, ANN, "1")
    receiver.wait(1)
    fake.close()
    assert not [each for each in threading.enumerate() if each.name.startswith("fakelinq")]
    fake.receive(A, ANN, "2")
    with pytest.raises(TimeoutError):
        fake.flush(timeout=0.0)
    fake.start()
    fake.flush()
    assert [data["parts"][0]["value"] for data in receiver.data("message.received")] == [
        "1",
        "1",
        "2",
    ]


# What goes wrong on the way


def chatter(fake: FakeLinq, count: int = 200) -> None:
    """Things happen in a few chats."""
    for n in range(count):
        fake.receive(A, f"+141555501{n % 5:02d}", str(n))


def fates(receiver: Receiver, seed: int, **switches: Any) -> tuple[list[str], list[Delivery]]:
    """The texts in the order they arrive, and the deliveries, of a chatter in a fake with these switches."""
    receiver.got.clear()
    with FakeLinq(1, clock=ManualClock(1.8e9), seed=seed) as fake:
        for name, value in switches.items():
            setattr(fake.webhooks, name, value)
        fake.subscribe(receiver.url, ["message.received"])
        chatter(fake)
        fake.flush()
        return [data["parts"][0]["value"] for data in receiver.data("message.received")], (
            fake.deliveries
        )


def test_a_share_is_lost(receiver: Receiver) -> None:
    """The dropped ones are recorded, and never sent; the same seed drops the same ones."""
    arrived, deliveries = fates(receiver, 1, drop=0.25)
    dropped = [each.json["data"]["parts"][0]["value"] for each in deliveries if each.error]
    assert {each.error for each in deliveries} == {None, "dropped"}
    assert 25 < len(dropped) < 75
    assert sorted(arrived + dropped, key=int) == [str(n) for n in range(200)]
    assert sorted(fates(receiver, 1, drop=0.25)[0]) == sorted(arrived)
    assert sorted(fates(receiver, 2, drop=0.25)[0]) != sorted(arrived)


def test_a_share_comes_twice(receiver: Receiver) -> None:
    """As the same event, with the same id."""
    arrived, _ = fates(receiver, 1, duplicate=0.25)
    ids = Counter(event["event_id"] for event in receiver.events)
    assert set(Counter(arrived).values()) == set(ids.values()) == {1, 2}
    assert 225 < len(arrived) < 275


def test_a_share_comes_after_the_next(receiver: Receiver) -> None:
    """Within its chat; the last ones too, and none is lost."""
    arrived, _ = fates(receiver, 1, reorder=0.25)
    assert sorted(arrived, key=int) == [str(n) for n in range(200)]
    chats = [[int(each) for each in arrived if int(each) % 5 == n] for n in range(5)]
    for chat in chats:
        assert chat != sorted(chat)
        assert all(abs(n - place * 5 - chat[0] % 5) <= 5 for place, n in enumerate(chat))


def test_what_is_held_back_comes_by_itself(
    fake: FakeLinq, receiver: Receiver, clock: ManualClock
) -> None:
    """Where nothing else happens it comes after 5 s."""
    fake.webhooks.reorder = 1.0
    fake.subscribe(receiver.url, ["message.received"])
    fake.receive(A, ANN, "hi")
    clock.advance(5.0)
    fake.tick()
    receiver.wait(1)


def test_deliveries_can_be_late(fake: FakeLinq, receiver: Receiver, clock: ManualClock) -> None:
    """By the fake's clock, so that they overtake each other."""
    fake.webhooks.delay = (10.0, 60.0)
    fake.subscribe(receiver.url, ["message.received"])
    chatter(fake)
    fake.flush()
    assert receiver.got == []
    for _ in range(60):
        advance(fake, clock, 1.0)
    arrived = [int(data["parts"][0]["value"]) for data in receiver.data("message.received")]
    assert arrived != sorted(arrived) == list(range(200))


def test_an_outage_loses_everything(fake: FakeLinq, receiver: Receiver, clock: ManualClock) -> None:
    """Until it ends: what happens meanwhile, and what is due to be tried again meanwhile."""
    fake.subscribe(receiver.url, ["message.received"])
    receiver.answers = [503]
    fake.receive(A, ANN, "before")
    fake.flush()
    fake.webhooks.outage(3600.0)
    fake.receive(A, ANN, "meanwhile")
    advance(fake, clock, 3599.0)
    assert [each.error for each in fake.deliveries] == [None, "outage", "outage"]
    advance(fake, clock, 1.0)
    fake.receive(A, ANN, "after")
    fake.flush(later=True)
    assert [each["parts"][0]["value"] for each in receiver.data("message.received")] == [
        "before",
        "after",
    ]
    fake.webhooks.outage()
    fake.receive(A, ANN, "lost")
    fake.webhooks.outage(0.0)
    fake.receive(A, ANN, "found")
    fake.flush(later=True)
    assert receiver.events[-1]["data"]["parts"][0]["value"] == "found"
    assert len(receiver.got) == 3


def test_an_old_delivery_can_be_replayed(
    fake: FakeLinq, receiver: Receiver, clock: ManualClock
) -> None:
    """Byte for byte with its old moment; or signed anew; or signed by somebody else."""
    secret = fake.subscribe(receiver.url, ["message.received"])
    fake.receive(A, ANN, "hi")
    fake.flush()
    clock.advance(200.0)
    (original,) = fake.deliveries
    fake.webhooks.replay(original)
    fake.webhooks.replay(original, fresh=True)
    fake.webhooks.replay(original, secret=OTHER)
    fake.flush()
    (first, body), *others = receiver.got
    assert [each for _, each in others] == [body, body, body]
    signatures = [headers["webhook-signature"] for headers, _ in others]
    assert signatures[0] == first["webhook-signature"]
    assert others[0][0]["webhook-timestamp"] == first["webhook-timestamp"]
    assert int(others[1][0]["webhook-timestamp"]) == int(clock.now())
    Webhook(secret).verify(body, others[1][0])
    Webhook(OTHER).verify(body, others[2][0])


def test_an_event_can_be_made_up(fake: FakeLinq, receiver: Receiver) -> None:
    """Of any type and with any data, forged or not; a type Linq has not got goes to everybody."""
    secret = fake.subscribe(receiver.url, ["message.sent"])
    fake.webhooks.emit("phone_number.status_updated", {"phone_number": A})
    event_id = fake.webhooks.emit("weather.changed", {"to": "rain"}, chat_id="c1")
    fake.webhooks.emit("message.sent", {"id": "m1"}, number=A, secret=OTHER)
    fake.flush()
    assert sorted(receiver.types) == ["message.sent", "weather.changed"]
    for headers, body in receiver.got:
        forged = json.loads(body)["event_type"] == "message.sent"
        Webhook(OTHER if forged else secret).verify(body, headers)
        if not forged:
            assert headers["linq-chat-id"] == "c1"
            assert headers["webhook-id"] == event_id


# People


def test_a_message_goes_its_way_in_the_fakes_time(
    fake: FakeLinq, client: Client, clock: ManualClock
) -> None:
    """Queued, sent, delivered, read: as the message endpoint tells, each at its moment."""
    fake.person(ANN, Person(reads=1.0, delivered_after=2.0, read_after=(30.0, 40.0)))
    sent = say(client, ANN)
    assert (sent.message.delivery_status, sent.message.sent_at) == ("queued", None)

    def told() -> Any:
        return client.chats.messages.list(sent.id).messages[0]

    start = clock.now()
    assert told().delivery_status == "sent"
    clock.advance(2.0)
    assert (told().delivery_status, told().is_delivered, told().is_read) == (
        "delivered",
        True,
        False,
    )
    clock.advance(100.0)
    last = told()
    assert (last.delivery_status, last.is_delivered, last.is_read) == ("read", True, True)
    assert last.delivered_at.timestamp() == start + 2.0
    assert 32.0 <= last.read_at.timestamp() - start <= 42.0


def test_with_the_hosts_clock_things_happen_by_themselves(receiver: Receiver) -> None:
    """Nobody has to tick."""
    with FakeLinq(1) as fake, connect(fake) as client:
        fake.everyone(Person(answers=1.0, delivered_after=0.01, answers_after=(0.01, 0.02)))
        fake.subscribe(receiver.url)
        say(client, ANN)
        receiver.wait(4)
    assert receiver.types == [
        "chat.created",
        "message.sent",
        "message.delivered",
        "message.received",
    ]


def test_people_answer_one_thing_after_the_other(
    fake: FakeLinq, client: Client, receiver: Receiver, clock: ManualClock
) -> None:
    """In the chat they were written to in, after their time; the last answer again and again."""
    fake.person(ANN, Person(answers=1.0, answers_after=60.0, says=["who is this?", "ok"]))
    fake.subscribe(receiver.url, ["message.received"])
    chat = say(client, ANN)
    say(client, BOB)
    fake.flush()
    assert receiver.got == []
    advance(fake, clock, 60.0)
    for _ in range(2):
        say(client, ANN)
        advance(fake, clock, 60.0)
    said = [data["parts"][0]["value"] for data in receiver.data("message.received")]
    assert said == ["who is this?", "ok", "ok"]
    data = receiver.data("message.received")[0]
    assert (data["chat"]["id"], data["direction"]) == (chat.id, "inbound")
    assert data["sender_handle"]["handle"] == ANN
    assert data["sender_handle"]["is_me"] is False
    assert data["chat"]["owner_handle"]["handle"] == A


def test_shares_of_people_read_and_answer(clock: ManualClock) -> None:
    """Chance is the seed's."""

    def outcome(seed: int) -> list[str]:
        with FakeLinq(2, clock=clock, seed=seed) as fake, connect(fake) as client:
            fake.everyone(Person(receives=0.9, reads=0.5, answers=0.3))
            for n in range(100):
                say(client, f"+1415555{n:04d}")
            chats = client.chats.list_chats(limit=100).chats
            latest = [client.chats.messages.list(chat.id).messages for chat in chats]
            return [
                f"{messages[-1].delivery_status} {len(messages)}"
                for messages in sorted(latest, key=lambda each: each[-1].id)
            ]

    first = Counter(outcome(1))
    assert Counter(outcome(1)) == first
    assert Counter(outcome(2)) != first
    statuses = Counter(each.split()[0] for each in outcome(1))
    assert 2 <= statuses["sent"] <= 20
    assert 30 <= statuses["read"] <= 60
    assert 15 <= sum(count for name, count in first.items() if name.endswith("2")) <= 45


@pytest.mark.parametrize(
    "make",
    [
        lambda: Person(reads=1.5),
        lambda: Person(receives=-0.1),
        lambda: Person(says=()),
    ],
)
def test_an_impossible_person_is_refused(make: Callable[[], Person]) -> None:
    """Shares are from 0 to 1, and who answers says something."""
    with pytest.raises(ValueError):
        make()


def test_sms_and_groups_tell_no_receipts(
    fake: FakeLinq, client: Client, receiver: Receiver
) -> None:
    """Sent is all there is; answers come all the same, from each member of a group into the group."""
    fake.everyone(Person(reads=1.0, answers=1.0))
    fake.subscribe(receiver.url)
    sms = say(client, ANN, preferred_service="SMS")
    group = say(client, BOB, EVE, number=B)
    fake.flush()
    assert Counter(receiver.types) == {
        "chat.created": 2,
        "message.sent": 2,
        "message.received": 3,
    }
    heard = {
        (data["chat"]["id"], data["sender_handle"]["handle"], data["service"])
        for data in receiver.data("message.received")
    }
    assert heard == {
        (sms.id, ANN, "SMS"),
        (group.id, BOB, "iMessage"),
        (group.id, EVE, "iMessage"),
    }
    assert {data["chat"]["is_group"] for data in receiver.data("message.sent")} == {True, False}


def test_messages_fail_when_told_to(
    fake: FakeLinq, client: Client, receiver: Receiver, clock: ManualClock
) -> None:
    """After they were accepted and sent; from one line or any; one may be delivered all the same."""
    fake.subscribe(receiver.url)
    fake.fail_messages(1, number=B, code=4005)
    fake.fail_messages(1, code=3007, delivered_after=20.0)
    first = say(client, ANN)
    second = say(client, ANN, number=B)
    third = say(client, ANN)
    advance(fake, clock, 20.0)
    about: dict[str, list[str]] = {}
    for event in receiver.events:
        data = event["data"]
        if event["event_type"] != "chat.created":
            key = data.get("message_id") or data["id"]
            about.setdefault(key, []).append(event["event_type"].removeprefix("message."))
    assert about == {
        first.message.id: ["sent", "failed", "delivered"],
        second.message.id: ["sent", "failed"],
        third.message.id: ["sent", "delivered"],
    }
    codes = {data["message_id"]: data["code"] for data in receiver.data("message.failed")}
    assert codes == {first.message.id: 3007, second.message.id: 4005}
    failed = receiver.data("message.failed")[0]
    assert A not in json.dumps(failed)
    told = [client.chats.messages.list(each).messages[0] for each in (second.id, first.id)]
    assert [each.delivery_status for each in told] == ["failed", "delivered"]


def test_a_share_of_a_lines_messages_fails(fake: FakeLinq, client: Client) -> None:
    """Those of other lines don't."""
    fake.fail_line(A, 0.5)
    for n in range(40):
        say(client, f"+1415555{n:04d}", number=A if n % 2 else B)
    chats = client.chats.list_chats(limit=100).chats
    statuses = Counter(
        (
            next(each.handle for each in chat.handles if each.is_me),
            client.chats.messages.list(chat.id).messages[0].delivery_status,
        )
        for chat in chats
    )
    assert statuses[B, "delivered"] == 20
    assert 4 <= statuses[A, "failed"] <= 16
    fake.fail_line(A, 0.0)
    chat = say(client, EVE)
    assert client.chats.messages.list(chat.id).messages[0].delivery_status == "delivered"


# What people write


KEYWORDS = ["STOP", "UNSUBSCRIBE", "OPTOUT", "CANCEL", "END", "QUIT"]


@pytest.mark.parametrize(
    "word",
    [*KEYWORDS, " STOP\n", "OPT OUT", "opt out", "Opt-Out", "optout", "oPt-OuT"],
)
def test_a_keyword_opts_out_everywhere(fake: FakeLinq, client: Client, word: str) -> None:
    """The chat it came in is marked, and no other; every direct send is refused, but with the override."""
    here, there = say(client, ANN), say(client, ANN, number=B)
    group = say(client, ANN, BOB)
    fake.receive(A, ANN, word)
    assert client.chats.retrieve(here.id).health_status.status == "OPTED_OUT"
    assert client.chats.retrieve(there.id).health_status.status == "HEALTHY"
    for number in (A, B, C):
        assert refused(lambda number=number: say(client, ANN, number=number)) == (403, 2024)
    client.chats.messages.send(here.id, message=text(), override_optout=True)
    client.chats.messages.send(group.id, message=text())
    assert fake.sent[-2].override_optout is True
    fake.receive(C, ANN, "hello again")
    assert client.chats.retrieve(here.id).health_status.status == "HEALTHY"
    say(client, ANN)


@pytest.mark.parametrize(
    "words",
    ["stop", "Stop", "please stop", "STOP.", "STOP STOP", "quit", "opt  out", "OPT_OUT", ""],
)
def test_other_words_don_t_opt_out(fake: FakeLinq, client: Client, words: str) -> None:
    """Keywords are whole messages, and but for one in capitals."""
    say(client, ANN)
    fake.receive(A, ANN, words)
    say(client, ANN)


@pytest.mark.parametrize("word", KEYWORDS)
def test_a_keyword_does_not_clear_an_opt_out(fake: FakeLinq, client: Client, word: str) -> None:
    """Only something else does, in whichever conversation."""
    say(client, ANN)
    group = say(client, ANN, BOB)
    fake.receive(A, ANN, "STOP")
    fake.receive(B, ANN, word)
    fake.receive(A, ANN, word, chat_id=group.id)
    assert refused(lambda: say(client, ANN)) == (403, 2024)
    fake.receive(A, ANN, "hi", chat_id=group.id)
    say(client, ANN)


def test_a_group_is_never_opted_out(fake: FakeLinq, client: Client) -> None:
    """A keyword in it marks and blocks nobody."""
    group = say(client, ANN, BOB)
    fake.receive(A, ANN, "STOP", chat_id=group.id)
    assert client.chats.retrieve(group.id).health_status.status == "HEALTHY"
    say(client, ANN, BOB)
    say(client, ANN)


def test_people_stop_and_come_back(
    fake: FakeLinq, client: Client, receiver: Receiver, clock: ManualClock
) -> None:
    """Some answer STOP; some of them write again later, and may be written to again."""
    fake.person(ANN, Person(answers=1.0, stops=1.0, returns=1.0, returns_after=600.0))
    fake.person(BOB, Person(answers=1.0, says=["STOP"]))
    fake.subscribe(receiver.url, ["message.received"])
    say(client, ANN)
    say(client, BOB)
    assert refused(lambda: say(client, ANN)) == (403, 2024)
    advance(fake, clock, 600.0)
    say(client, ANN)
    assert refused(lambda: say(client, BOB)) == (403, 2024)
    fake.flush()
    said = [
        (data["parts"][0]["value"], data["chat"]["health_status"]["status"])
        for data in receiver.data("message.received")
        if data["sender_handle"]["handle"] == ANN
    ]
    assert said == [("STOP", "OPTED_OUT"), ("hi", "HEALTHY"), ("STOP", "OPTED_OUT")]


def test_writing_first_makes_a_chat(fake: FakeLinq, client: Client, receiver: Receiver) -> None:
    """With the line written to, once; who may only be answered may be answered now."""
    fake.subscribe(receiver.url)
    fake.disallow(ANN)
    assert refused(lambda: say(client, ANN)) == (403, 2008)
    first = fake.receive(A, ANN, "hello")
    second = fake.receive(A, ANN, "anyone?", service="SMS")
    chat = say(client, ANN)
    fake.flush()
    assert receiver.types[:3] == ["chat.created", "message.received", "message.received"]
    assert receiver.types.count("chat.created") == 1
    (created,) = receiver.data("chat.created")
    assert created["id"] == chat.id
    assert [each["handle"] for each in created["handles"] if each["is_me"]] == [A]
    listed = client.chats.messages.list(chat.id).messages
    assert [each.id for each in listed] == [chat.message.id, second, first]
    assert [each.is_from_me for each in listed] == [True, False, False]
    assert listed[1].delivery_status == "received"
    assert listed[1].service == "SMS"
    assert listed[1].from_handle
    assert listed[1].from_handle.handle == ANN


def test_the_blocked_are_not_heard(fake: FakeLinq, client: Client, receiver: Receiver) -> None:
    """Neither words nor tapbacks of theirs make an event, or clear anything."""
    chat = say(client, ANN)
    fake.receive(A, ANN, "STOP")
    fake.subscribe(receiver.url)
    fake.block(ANN)
    assert fake.receive(A, ANN, "hello") is None
    fake.react(ANN, chat.message.id)
    fake.unblock(ANN)
    fake.flush()
    assert receiver.got == []
    assert refused(lambda: say(client, ANN)) == (403, 2024)


def test_a_message_can_come_to_light_late(
    fake: FakeLinq, receiver: Receiver, clock: ManualClock
) -> None:
    """It says when it was written, and when it was found."""
    fake.subscribe(receiver.url, ["message.received"])
    fake.receive(A, ANN, "hi", late=600.0)
    fake.flush()
    (data,) = receiver.data("message.received")
    assert data["sent_at"] < data["reconciled_at"] == receiver.events[0]["created_at"]


def test_a_tapback_is_told(fake: FakeLinq, client: Client, receiver: Receiver) -> None:
    """By chat, message and person; the line is not named."""
    fake.subscribe(receiver.url, ["reaction.added"])
    chat = say(client, ANN)
    fake.react(ANN, chat.message.id, "love")
    fake.flush()
    (data,) = receiver.data("reaction.added")
    assert (data["chat_id"], data["message_id"]) == (chat.id, chat.message.id)
    assert (data["from"], data["is_from_me"], data["reaction_type"]) == (ANN, False, "love")
    assert A not in json.dumps(data)
    with pytest.raises(ValueError, match="no message"):
        fake.react(BOB, chat.message.id)


def test_nobody_writes_to_what_is_not_there(fake: FakeLinq, client: Client) -> None:
    """No such line, no such chat, a chat of another line or of others: each is a ValueError."""
    chat = say(client, ANN)
    for number, handle, chat_id in (
        ("+12025550999", ANN, None),
        (A, "nobody", None),
        (A, ANN, "no-chat"),
        (B, ANN, chat.id),
        (A, BOB, chat.id),
    ):
        with pytest.raises(ValueError):
            fake.receive(number, handle, "hi", chat_id=chat_id)
    fake.everyone(Person(answers=1.0))
    fake.person(ANN, Person(answers=1.0, answers_after=5.0))
    say(client, ANN)
    fake.remove_line(A)
    fake.tick()
