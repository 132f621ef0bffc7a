"""Bodies nobody would send, each with a right signature, through `verify` and `parse`.

    python tests/fuzz_webhooks.py --bodies 1000000 --processes 2

A body is a real event with some of its bytes changed, or with other values in the place of some of its own, or JSON of any
shape, or bytes. `verify` may raise InvalidWebhook and nothing else, `parse` nothing at all, and what it gives is a report or
None. Some of the reports are made to a router, which takes all of them. Prints one line of JSON, and exits with 1 if anything
else happened; `--seed` and `--first` repeat it.
"""

from __future__ import annotations

import argparse
import base64
import hmac
import json
import logging
import multiprocessing
import random
import sys
import traceback
from collections import Counter
from typing import Any

from linepicker import Line, Router
from linepicker.model import Report
from linepicker.testing import ManualClock
from linepicker.webhooks import InvalidWebhook, parse, verify

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()
NOW = 1_790_000_000
LINE, PERSON = "+12025550100", "+12125550123"
AT = "2026-09-21T14:13:20.123Z"

OURS = {"id": "h1", "handle": LINE, "joined_at": AT, "service": "iMessage", "is_me": True}
THEIRS = {**OURS, "id": "h2", "handle": PERSON, "is_me": False}
HEALTH = {"status": "HEALTHY", "doc_url": "https://example.com/#healthy", "updated_at": AT}
PARTS = [{"type": "text", "value": "Is my bicycle ready?"}, {"type": "media", "url": "https://x"}]
MESSAGE = {
    "id": "m1",
    "chat": {"id": "c1", "is_group": False, "owner_handle": OURS, "health_status": HEALTH},
    "direction": "outbound",
    "parts": PARTS,
    "sender_handle": OURS,
    "service": "iMessage",
    "sent_at": AT,
    "delivered_at": AT,
    "read_at": AT,
    "reconciled_at": None,
}
OLD = {
    "chat_id": "c1",
    "from": PERSON,
    "recipient_phone": LINE,
    "received_at": AT,
    "is_from_me": False,
    "message": {"id": "m1", "parts": PARTS},
}
CHANGE = {
    "phone_number": LINE,
    "previous_status": "ACTIVE",
    "new_status": "FLAGGED",
    "previous_reputation": "HEALTHY",
    "new_reputation": "CRITICAL",
    "previous_health_status": "HEALTHY",
    "new_health_status": {"status": "CRITICAL"},
    "changed_at": AT,
}
EVENTS: list[tuple[str, dict[str, Any]]] = [
    ("phone_number.status_updated", CHANGE),
    ("phone_number.assigned", {"phone_number": LINE, "changed_at": AT}),
    ("phone_number.released", {"phone_number": LINE, "changed_at": AT}),
    ("environment.line_moved", {"phone_number": LINE, "occurred_at": AT, "change": {"to": None}}),
    ("message.received", {**MESSAGE, "direction": "inbound", "sender_handle": THEIRS}),
    ("message.received", OLD),
    ("message.delivered", MESSAGE),
    ("message.read", MESSAGE),
    ("message.sent", MESSAGE),
    ("message.failed", {"code": 4005, "failed_at": AT, "chat_id": "c1", "message_id": "m1"}),
    ("chat.created", {"id": "c1", "handles": [OURS, THEIRS], "health_status": HEALTH}),
    ("reaction.added", {"chat_id": "c1", "is_from_me": False}),
]

SCALARS = [
    *(None, True, False, 0, -1, 4005, 10**30, 1e308, -0.0, 0.1),
    *("", " ", "null", "\x00", "\ud800", "é", "+", LINE, PERSON, "a@b.co", "x" * 300, "•" * 70),
    *("HEALTHY", "at_risk", "CRITICAL", "FLAGGED", "OPTED_OUT", "inbound", "outbound", "STOP"),
    *(AT, "2026-13-01", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "24:00", "1e5"),
    *("status", "handle", "message.received", "phone_number.status_updated", "c1", "m1"),
]


def anything(chance: random.Random, depth: int = 0) -> Any:
    """A JSON value of any shape."""
    draw = chance.random()
    if depth > 3 or draw < 0.6:
        return chance.choice(SCALARS)
    if draw < 0.8:
        return [anything(chance, depth + 1) for _ in range(chance.randrange(4))]
    names = ["status", "handle", "id", "is_me", "value", "type", "x"]
    return {chance.choice(names): anything(chance, depth + 1) for _ in range(chance.randrange(4))}


def replaced(value: Any, chance: random.Random) -> Any:
    """The value with another one somewhere in it: in its place, in the place of a part, or gone."""
    inner = [name for name in value if chance.random() < 0.8] if isinstance(value, dict) else []
    if isinstance(value, list):
        inner = list(range(len(value)))
    if not inner or chance.random() < 0.15:
        return anything(chance)
    name = chance.choice(inner)
    if isinstance(value, dict) and chance.random() < 0.15:
        return {each: what for each, what in value.items() if each != name}
    copy = value.copy()
    copy[name] = replaced(value[name], chance)
    return copy


def body_of(chance: random.Random) -> bytes:
    """Something to send."""
    kind = chance.random()
    if kind < 0.05:
        return chance.randbytes(chance.randrange(200))
    if kind < 0.15:
        return json.dumps(anything(chance)).encode()
    name, data = chance.choice(EVENTS)
    event = {
        "api_version": "v3",
        "webhook_version": "2026-02-03",
        "event_type": name,
        "event_id": f"e{chance.randrange(1000)}",
        "created_at": AT,
        "data": data,
    }
    for _ in range(chance.randrange(4)):
        event = replaced(event, chance)
    body = json.dumps(event, ensure_ascii=chance.random() < 0.5).encode(errors="surrogatepass")
    if kind < 0.5:
        changed = bytearray(body)
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(changed) + 1)
            changed[at : at + chance.randrange(3)] = chance.choice(
                [b"", b"\xff", b"[", b"{", b'"', b"\\u0000", b"NaN", b"1e999", chance.randbytes(1)]
            )
        body = bytes(changed)
    if kind < 0.16:
        deep = chance.choice([b"[", b'{"a":']) * chance.choice([10, 500, 5000, 50_000])
        body = body[:-1] + b',"data":' + deep + b"1"
    return body


def headers_of(body: bytes) -> dict[str, str]:
    """The right ones."""
    content = f"msg_1.{NOW}.".encode() + body
    signature = base64.b64encode(hmac.digest(KEY, content, "sha256")).decode()
    return {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(NOW),
        "webhook-signature": f"v1,{signature}",
    }


def run(first: int, bodies: int, seed: int) -> tuple[Counter[str], list[str]]:
    """So many bodies, from the *first* on: how each ended, and what should not have happened."""
    logging.disable()
    came, wrong = Counter[str](), list[str]()
    with Router([Line(LINE)], clock=ManualClock(float(NOW))) as router:
        for turn in range(first, first + bodies):
            body = body_of(random.Random(f"{seed}/{turn}"))
            try:
                event = verify(body, headers_of(body), SECRET, now=float(NOW))
            except InvalidWebhook as error:
                came[error.reason] += 1
                continue
            except Exception:  # noqa: BLE001  which is what this looks for
                wrong.append(f"body {turn}: {traceback.format_exc(limit=-3)}")
                continue
            try:
                report = parse(event)
                if report is not None and not isinstance(report, Report):
                    raise TypeError(type(report).__name__)
                came[type(report).__name__] += 1
                if report is not None and turn % 20 == 0:
                    router.report(report)
            except Exception:  # noqa: BLE001  the same
                wrong.append(f"body {turn}: {traceback.format_exc(limit=-3)}")
    return came, wrong


def main() -> None:
    """Read the command line, and do it in so many processes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bodies", type=int, default=1_000_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    given = parser.parse_args()
    share = -(-given.bodies // given.processes)
    starts = range(given.first, given.first + given.bodies, share)
    jobs = [(at, min(share, given.first + given.bodies - at), given.seed) for at in starts]
    with multiprocessing.Pool(given.processes) as pool:
        results = pool.starmap(run, jobs)
    came = sum((came for came, _ in results), Counter[str]())
    wrong = [each for _, some in results for each in some]
    print(  # noqa: T201  what it found is what it is for
        json.dumps({"bodies": given.bodies, "wrong": len(wrong), **dict(came.most_common())})
    )
    if wrong:
        sys.exit("\n".join(wrong[:10]))


if __name__ == "__main__":
    main()
