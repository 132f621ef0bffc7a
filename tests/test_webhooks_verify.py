"""Webhooks are believed if they were signed with our secret within five minutes, and for no other reason."""

import base64
import contextlib
import hmac
import json
import logging
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from linq import LinqAPIV3
from standardwebhooks import Webhook

from linepicker.errors import LinePickerError
from linepicker.webhooks import MAX_BODY, TOLERANCE, Event, InvalidWebhook, verify

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw7Jxx2Oll+OE="
OTHER = "whsec_" + base64.b64encode(bytes(range(32))).decode()
NOW = 1790000000.0
BODY = b'{"api_version":"v3","event_id":"e1"}'
STANDARD = {
    "webhook-id": "e1",
    "webhook-timestamp": "1790000000",
    "webhook-signature": "v1,/2E+G1XNShVfyTDnUtF/L9Q1TaJ/pfoLvpi+HzAMenM=",
}
OF_TEXT = "577dbaa5317b21a3ccf1f5f2e2205aa4ed97e8a65cf4f030340e16f6444b1f7b"
OF_KEY = "5808bcc63daf1338a7d762f397224733c30cf208249e8021e3c0aab64477098e"


def key_of(secret):
    """The bytes of a secret."""
    return base64.b64decode(secret.removeprefix("whsec_"))


def signed(body, *, secret=SECRET, name="e1", stamp="1790000000"):
    """The headers of a body, signed here over its bytes."""
    content = f"{name}.{stamp}.".encode() + body
    signature = base64.b64encode(hmac.digest(key_of(secret), content, "sha256")).decode()
    return {
        "webhook-id": name,
        "webhook-timestamp": stamp,
        "webhook-signature": f"v1,{signature}",
    }


def legacy(body, signature=None, *, key=SECRET, stamp="1790000000"):
    """The deprecated headers of a body."""
    made = hmac.digest(key.encode(), stamp.encode() + b"." + body, "sha256").hex()
    return {"X-Webhook-Timestamp": stamp, "X-Webhook-Signature": signature or made}


def refusal(body, headers, secrets=SECRET, **more):
    """Why a webhook is refused."""
    with pytest.raises(InvalidWebhook) as error:
        verify(body, headers, secrets, **{"now": NOW, **more})
    return error.value.reason


# What verifies


def test_the_published_vector_verifies():
    """The signature worked out by hand for a known secret, id, timestamp and body is taken."""
    event = verify(BODY, STANDARD, SECRET, now=NOW)
    assert event == Event(id="e1", type="", data=None, created_at=NOW)
    assert signed(BODY) == STANDARD


@pytest.mark.parametrize("signature", [OF_TEXT, OF_KEY, OF_TEXT.upper()])
def test_the_deprecated_vectors_verify_where_asked_for(signature):
    """The deprecated signature is taken with the secret's text or its bytes as the key, in either case, and only if allowed."""
    headers = legacy(BODY, signature)
    assert verify(BODY, headers, SECRET, now=NOW, legacy=True).id == "e1"
    assert refusal(BODY, headers) == "headers"


def test_the_deprecated_signature_may_be_made_with_the_bare_text():
    """The key may be the secret's text without its prefix."""
    headers = legacy(BODY, key=SECRET.removeprefix("whsec_"))
    assert verify(BODY, headers, SECRET, now=NOW, legacy=True).id == "e1"


objects = st.dictionaries(
    st.text(), st.recursive(st.none() | st.text() | st.integers(), st.lists, max_leaves=5)
)


@given(
    objects,
    st.from_regex(r"[A-Za-z0-9_.:/+=-]{1,64}", fullmatch=True),
    st.integers(1, 2**33),
    st.binary(min_size=1),
)
def test_what_the_reference_library_signs_verifies(value, name, stamp, key):
    """Whatever the standardwebhooks package signs is taken, at its own time."""
    secret = "whsec_" + base64.b64encode(key).decode()
    text = json.dumps(value)
    moment = datetime.fromtimestamp(stamp, UTC)
    headers = {
        "webhook-id": name,
        "webhook-timestamp": str(stamp),
        "webhook-signature": Webhook(secret).sign(name, moment, text),
    }
    event = verify(text.encode(), headers, secret, now=float(stamp))
    assert event.data == value.get("data")
    assert event.id == (value.get("event_id") or name)


def test_the_official_client_agrees():
    """What Linq's client unwraps is verified here too, at the same moment, by the host's clock."""
    moment = datetime.now(UTC).replace(microsecond=0)
    body = json.dumps({"event_type": "phone_number.assigned", "data": {}, "event_id": "e1"})
    headers = {
        "Webhook-Id": "e1",
        "Webhook-Timestamp": str(int(moment.timestamp())),
        "Webhook-Signature": Webhook(SECRET).sign("e1", moment, body),
    }
    LinqAPIV3(api_key="none").webhooks.unwrap(body, headers=headers, key=SECRET)
    assert verify(body.encode(), headers, SECRET).type == "phone_number.assigned"


def test_an_event_is_read_from_the_body():
    """Id, type, data, moment and generation are the body's."""
    body = json.dumps(
        {
            "webhook_version": "2026-02-03",
            "event_type": "message.received",
            "event_id": "6f2d",
            "created_at": "2026-02-18T18:35:05.123Z",
            "data": {"id": "m1"},
        }
    ).encode()
    event = verify(body, signed(body), SECRET, now=NOW)
    assert event == Event("6f2d", "message.received", {"id": "m1"}, 1771439705.123, "2026-02-03")


@pytest.mark.parametrize("given", [None, 7, "", "a\nb", "é", "x" * 256, {"a": 1}])
def test_without_a_usable_event_id_the_header_names_the_event(given):
    """An event_id that can't be a key is passed over."""
    body = json.dumps({"event_id": given}).encode()
    assert verify(body, signed(body, name="msg_1"), SECRET, now=NOW).id == "msg_1"


@pytest.mark.parametrize("given", [None, 7, "yesterday", "", "\ud800", "10000-01-01T00:00:00Z"])
def test_without_a_readable_moment_the_signed_one_counts(given):
    """An event is as old as its body says, else as its signature."""
    body = json.dumps({"created_at": given}).encode()
    assert verify(body, signed(body), SECRET, now=NOW).created_at == NOW


@pytest.mark.parametrize(
    ("given", "moment"),
    [
        ("9999-12-31T23:59:59-23:59", 253402387139.0),
        ("0001-01-01T00:00:00+23:59", -62135683140.0),
        ("2026-02-18T18:35:05.123456789Z", 1771439705.123456),
    ],
)
def test_moments_at_the_ends_of_time_are_moments(given, moment):
    """A moment may lie beyond what a calendar of our zone has, and may be finer than a microsecond."""
    body = json.dumps({"created_at": given}).encode()
    assert verify(body, signed(body), SECRET, now=NOW).created_at == moment


def test_a_moment_without_a_zone_is_utc():
    """Moments are UTC unless they say otherwise."""
    body = b'{"created_at": "2026-02-18T18:35:05"}'
    assert verify(body, signed(body), SECRET, now=NOW).created_at == 1771439705.0


def test_any_of_several_secrets_will_do():
    """While secrets are rotated, each of them is good, and none but these."""
    for secret in (SECRET, OTHER):
        headers = signed(BODY, secret=secret)
        assert verify(BODY, headers, [OTHER, SECRET], now=NOW).id == "e1"
        assert verify(BODY, headers, iter([OTHER, SECRET]), now=NOW).id == "e1"
    assert refusal(BODY, signed(BODY), [OTHER]) == "signature"


@pytest.mark.parametrize(
    "before",
    [
        "v1,",
        "v1",
        ",",
        "",
        "v1,a,b",
        "v1,!!!!",
        "v1a,MEUCIQ==",
        "v2,/2E+G1XNShVfyTDnUtF/L9Q1TaJ/pfoLvpi+HzAMenM=",
        "v1,AAAA",
    ],
)
def test_garbage_beside_the_right_signature_does_no_harm(before):
    """Tokens that are malformed, of another version, or wrong are skipped, before the right one and after it."""
    right = STANDARD["webhook-signature"]
    for both in (f"{before} {right}", f"{right} {before}"):
        headers = {**STANDARD, "webhook-signature": both}
        assert verify(BODY, headers, SECRET, now=NOW).id == "e1"
    assert refusal(BODY, {**STANDARD, "webhook-signature": f"{before} {before}"}) == "signature"


@pytest.mark.parametrize("change", [str.upper, str.title, str.encode])
def test_headers_may_be_written_in_any_case_and_be_bytes(change):
    """Names count in any case; names and values may be bytes, as ASGI has them."""
    headers = {change(name): value for name, value in STANDARD.items()}
    assert verify(BODY, headers, SECRET, now=NOW).id == "e1"
    headers = {change(name): value.encode() for name, value in STANDARD.items()}
    assert verify(BODY, headers, SECRET, now=NOW).id == "e1"


@pytest.mark.parametrize("off", [-TOLERANCE, 0.0, TOLERANCE])
def test_five_minutes_either_way_are_allowed(off):
    """A webhook is good for five minutes, and may be as much ahead of our clock."""
    assert verify(BODY, STANDARD, SECRET, now=NOW + off).id == "e1"


# What does not


@given(st.sampled_from(["body", *STANDARD]), st.integers(0), st.integers(0, 7))
def test_one_flipped_bit_anywhere_is_refused(where, place, bit):
    """Flip any bit of body, id, timestamp or signature and the webhook is refused."""
    body = json.dumps({"event_type": "message.read", "event_id": "e1", "data": {"a": 1}}).encode()
    headers = signed(body, name="msg_2KWPBgLlAfxdpx2AI54pPJ85f4W")
    verify(body, headers, SECRET, now=NOW)

    def flip(data):
        at = place % len(data)
        return data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :]

    if where == "body":
        body = flip(body)
    else:
        headers[where] = flip(headers[where].encode()).decode("latin-1")
    with pytest.raises(InvalidWebhook):
        verify(body, headers, SECRET, now=NOW)


def test_every_last_character_of_a_signature_counts():
    """The bits that base64 leaves over at its end are compared as well."""
    right = STANDARD["webhook-signature"]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    for letter in set(alphabet) - {right[-2]}:
        headers = {**STANDARD, "webhook-signature": f"{right[:-2]}{letter}="}
        assert refusal(BODY, headers) == "signature"


@pytest.mark.parametrize("off", [-TOLERANCE - 1, TOLERANCE + 1, -86400.0, 1e300, float("nan")])
def test_beyond_five_minutes_it_is_refused(off):
    """A webhook that is replayed later, or dated ahead, is refused though its signature is right; so is any without a time."""
    assert refusal(BODY, STANDARD, now=NOW + off) == "timestamp"
    assert refusal(BODY, legacy(BODY), now=NOW + off, legacy=True) == "timestamp"


@pytest.mark.parametrize(
    "stamp",
    [
        "1790000000.0",
        "1790000000.5",
        "-1790000000",
        "+1790000000",
        "01790000000",
        " 1790000000",
        "1790000000\n",
        "1_790_000_000",
        "1.79e9",
        "179000000000",
        "9" * 4000,
        "nan",
        "inf",
        "soon",
        "0",
    ],
)
def test_a_timestamp_is_whole_seconds(stamp):
    """Fractions, signs, blanks, leading zeros, exponents and words are no timestamps, even where they are what was signed."""
    headers = signed(BODY, stamp=stamp)
    assert refusal(BODY, headers) == "timestamp"
    assert refusal(BODY, legacy(BODY, stamp=stamp), legacy=True) == "timestamp"


@pytest.mark.parametrize("missing", list(STANDARD))
@pytest.mark.parametrize("value", [None, ""])
def test_all_three_headers_are_needed(missing, value):
    """A webhook without one of its headers, or with an empty one, is refused."""
    headers = {**STANDARD, missing: value}
    assert refusal(BODY, headers) == "headers"
    del headers[missing]
    assert refusal(BODY, headers) == "headers"
    assert refusal(BODY, headers, legacy=True) == "headers"


def test_a_header_that_comes_twice_and_differently_is_refused():
    """Nobody can say which of the two was meant; twice the same is one."""
    assert refusal(BODY, {**STANDARD, "Webhook-Id": "e2"}) == "headers"
    assert verify(BODY, {**STANDARD, "Webhook-Id": "e1"}, SECRET, now=NOW).id == "e1"


def test_many_signatures_are_refused():
    """Eighty signatures are enough; the right one after thousands is not looked for."""
    right = STANDARD["webhook-signature"]
    headers = {**STANDARD, "webhook-signature": " ".join([*["v1,AAAA"] * 100, right])}
    assert verify(BODY, headers, SECRET, now=NOW).id == "e1"
    headers = {**STANDARD, "webhook-signature": " ".join([*["v1,AAAA"] * 1000, right])}
    assert refusal(BODY, headers) == "headers"


@pytest.mark.parametrize("name", ["a{b", "a b", "é", "a\x00", "x" * 256])
def test_an_id_is_short_and_visible(name):
    """What can't be an id is refused, right signature or not."""
    assert refusal(BODY, {**STANDARD, "webhook-id": name}) == "headers"


def test_an_id_can_not_reach_into_a_body():
    """A signature for one webhook fits no other one cut from the same bytes."""
    inner = b'{"event_id":"forged"}'
    body = b'{"text":"' + b".1790000000." + inner
    headers = signed(body)
    headers["webhook-id"] = 'e1.1790000000.{"text":"'
    assert refusal(inner, headers) == "headers"


def test_the_deprecated_signature_does_not_excuse_a_wrong_one():
    """With both kinds allowed, either alone is enough, and two wrong ones are not."""
    wrong = {**STANDARD, "webhook-signature": "v1,AAAA"}
    assert verify(BODY, {**wrong, **legacy(BODY)}, SECRET, now=NOW, legacy=True).id == "e1"
    assert refusal(BODY, {**wrong, **legacy(BODY, "00")}, legacy=True) == "signature"
    assert refusal(BODY, wrong, legacy=True) == "signature"
    assert refusal(BODY, {**wrong, **legacy(BODY)}) == "signature"


# Bodies


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"7",
        b"{",
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1} {"b": 2}',
        b'{"a": ' + b"1" * 5000 + b"}",
        b"\xef\xbb\xbf{}",
        b'{"a": "\xff"}',
        "{}".encode("utf-16"),
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    ],
    ids=lambda body: repr(body[:20]),
)
def test_a_signed_body_that_is_no_json_object_is_refused(body):
    """A right signature does not make an event of what is empty, broken, too deep, not UTF-8, or no object."""
    assert refusal(body, signed(body)) == "body"


def test_a_key_that_comes_twice_counts_once():
    """Of a key that comes twice the last one counts, as everywhere in Python."""
    body = b'{"event_id": "e1", "event_id": "e2"}'
    assert verify(body, signed(body), SECRET, now=NOW).id == "e2"


def test_a_body_may_have_a_mebibyte():
    """A larger one is refused before it is looked at."""
    body = b"{" + b" " * (MAX_BODY - 2) + b"}"
    assert verify(body, signed(body), SECRET, now=NOW).data is None
    assert refusal(body + b" ", signed(body + b" ")) == "size"
    assert (MAX_BODY, InvalidWebhook("too large", reason="size").status) == (1024 * 1024, 413)


def test_a_body_is_bytes():
    """A body that was decoded is not what was signed."""
    assert refusal(BODY.decode(), STANDARD) == "body"


@given(
    st.binary() | st.just(BODY),
    st.dictionaries(
        st.sampled_from([*STANDARD, *legacy(b"")]) | st.text() | st.binary(),
        st.sampled_from([*STANDARD.values(), OF_TEXT]) | st.text() | st.binary() | st.none(),
    ),
    st.floats(),
    st.booleans(),
)
def test_nothing_else_is_raised(body, headers, now, either):
    """Whatever comes, it is an event or an InvalidWebhook."""
    with contextlib.suppress(InvalidWebhook):
        assert isinstance(verify(body, headers, SECRET, now=now, legacy=either), Event)


# Secrets


@pytest.mark.parametrize(
    "secrets",
    [
        "",
        "whsec_",
        "whsec_not base64!",
        "Jose\u0301",
        "whsec_abc",
        [],
        [SECRET, ""],
        [b"abcd"],
        b"abcd",
    ],
)
def test_secrets_are_checked(secrets):
    """A secret that is none is a mistake of the caller's, not of the webhook; the message does not show it."""
    with pytest.raises(ValueError) as error:
        verify(BODY, STANDARD, secrets, now=NOW)
    assert "base64!" not in str(error.value)
    assert not isinstance(error.value, InvalidWebhook)


def test_a_secret_may_come_without_its_prefix_and_with_blanks_around_it():
    """As it is found in files and variables."""
    for secret in (SECRET.removeprefix("whsec_"), f"  {SECRET}\n"):
        assert verify(BODY, STANDARD, secret, now=NOW).id == "e1"


# What is shown


def test_an_event_does_not_show_what_it_holds():
    """The repr of an event has no payload."""
    body = b'{"data": {"text": "private", "handle": "+12125550123"}, "event_type": "message.read"}'
    shown = repr(verify(body, signed(body), SECRET, now=NOW))
    assert "message.read" in shown
    assert "private" not in shown
    assert "+12125550123" not in shown


def test_a_refusal_says_nothing_of_the_webhook(caplog):
    """Errors hold no part of body or headers, and have the status to answer with; nothing is logged."""
    caplog.set_level(logging.DEBUG)
    body = b'{"data": "private"'
    for headers, status in [
        (signed(body), 400),
        ({**signed(body), "webhook-id": "private{"}, 401),
        ({**signed(body), "webhook-timestamp": "private"}, 401),
        ({**signed(body), "webhook-signature": "private"}, 401),
    ]:
        with pytest.raises(LinePickerError) as error:
            verify(body, headers, SECRET, now=NOW)
        assert error.value.status == status
        assert "private" not in str(error.value)
    assert caplog.records == []


def test_the_library_does_without_the_extra():
    """Importing linepicker imports none of what webhooks need."""
    code = "import sys, linepicker; print(sorted({'standardwebhooks', 'starlette', 'uvicorn'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
