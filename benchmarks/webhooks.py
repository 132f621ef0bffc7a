"""What a webhook costs the server that takes it: CPU time per event, beside a bare Starlette handler.

Each server is a process of its own under uvicorn, with a SQLite file of its own and the same pragmas; this process is the
client of all of them, over kept connections. Measured is the CPU time that a server's process used, all its threads, kernel
time included, which the server tells when asked; the servers take turns, round by round, every second round backwards.

The bare handlers read the body, and do one transaction of the same size as linepicker's: read what is to change, write as
many rows with as many bytes, commit. They verify nothing, parse nothing, decide nothing, and store what was sent twice twice.
One does that in the event loop, where it blocks everybody else; one in a worker thread. Events that wait for linepicker's
thread at once share what it costs to go there, and those of an AsyncRouter a transaction: `--connections 1` shows what an
event costs that comes alone.

Replies come from people who have a line already: four rows, the line's messages, the person, and the event's id. Changes of
a line's service status, back and forth, are one row.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import logging
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from itertools import count, islice
from pathlib import Path
from typing import Any

import attrs

from benchmarks.measure import Figures, Goal, version

PACKAGES = ("linepicker", "starlette", "uvicorn", "standardwebhooks")
KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()
LINES = [f"+1202555{i:04d}" for i in range(1000)]
PEOPLE = 1000
BARE, THREADED = "bare, in the loop", "bare, in a thread"
DOORS = ("AsyncRouter", "Router")
KINDS = ("reply", "status")


@attrs.frozen
class Scale:
    """How much is measured: rounds, events in each timing, connections they come over at once."""

    repeats: int = 9
    events: int = 1000
    connections: int = 8

    def words(self) -> Sequence[str]:
        """How it was measured."""
        return (
            f"rounds: {self.repeats}, each of {self.events} events over {self.connections} connections",
            "a call is one event; times are CPU time of the server's process",
        )


QUICK = Scale(repeats=3, events=400)
TINY = Scale(repeats=2, events=40, connections=2)


def missing() -> list[str]:
    """What can't be measured here, in words."""
    if all(version(each) is not None for each in PACKAGES):
        return []
    return ["the extra is not installed: pip install -e '.[web]'"]


def goals() -> list[Goal]:
    """What is compared with what, and what is wanted of it."""
    return [
        Goal(f"{kind}: {door} / {bare}", f"{kind}: {door}", f"{kind}: {bare}", wanted)
        for kind in KINDS
        for door, bare, wanted in (
            ("AsyncRouter", BARE, 2.5),
            ("AsyncRouter", THREADED, 2.5),
            ("Router", BARE, 2.5),
            ("Router", THREADED, 2.5),
        )
    ]


def figures(scale: Scale, say: Callable[[str], None]) -> dict[str, Figures]:
    """The CPU time per event of every server, round by round."""
    with ExitStack() as house:
        folder = Path(house.enter_context(tempfile.TemporaryDirectory()))
        subjects = []
        for kind in KINDS:
            for server in (BARE, THREADED, *DOORS):
                path = folder / f"{len(subjects)}.db"
                port = house.enter_context(_serving(server, kind, path))
                subjects.append((f"{kind}: {server}", port, _EVENTS[kind]()))
        found: dict[str, list[float]] = {name: [] for name, _, _ in subjects}
        for _, port, events in subjects:
            _used(port, events, max(scale.events, PEOPLE), scale.connections)  # all are known then
        for turn in range(scale.repeats):
            say(f"round {turn + 1} of {scale.repeats}")
            for name, port, events in reversed(subjects) if turn % 2 else subjects:
                used = _used(port, events, scale.events, scale.connections)
                found[name].append(used / scale.events)
    return {name: Figures(scale.events, tuple(times)) for name, times in found.items()}


# The client


def _replies() -> Iterator[bytes]:
    for n in count():
        data = {
            "id": f"message-{n}",
            "chat": {
                "id": f"chat-{n % PEOPLE}",
                "is_group": False,
                "owner_handle": {"handle": LINES[n % len(LINES)], "is_me": True},
                "health_status": {"status": "HEALTHY", "updated_at": "2026-01-01T00:00:00Z"},
            },
            "direction": "inbound",
            "sender_handle": {"handle": f"+1415{n % PEOPLE:07d}", "is_me": False},
            "parts": [{"type": "text", "value": "Is my bicycle ready?"}],
            "sent_at": datetime.now(UTC).isoformat(),
        }
        yield _event("message.received", n, data)


def _changes() -> Iterator[bytes]:
    # Later each time, so that each is news.
    start = time.time() - 250
    for n in count():
        data = {
            "phone_number": LINES[n % len(LINES)],
            "new_status": ("FLAGGED", "ACTIVE")[n // len(LINES) % 2],
            "new_reputation": "HEALTHY",
            "changed_at": datetime.fromtimestamp(start + n / 1000, UTC).isoformat(),
        }
        yield _event("phone_number.status_updated", n, data)


_EVENTS: Mapping[str, Callable[[], Iterator[bytes]]] = {"reply": _replies, "status": _changes}


def _event(kind: str, n: int, data: object) -> bytes:
    event = {
        "api_version": "v3",
        "webhook_version": "2026-02-03",
        "event_type": kind,
        "event_id": f"6f2d8f14-0000-4000-8000-{n:012d}",
        "created_at": datetime.now(UTC).isoformat(),
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "partner_id": "partner",
        "data": data,
    }
    return json.dumps(event).encode()


def _request(body: bytes, n: int) -> bytes:
    stamp = str(int(time.time()))
    content = f"msg_{n}.{stamp}.".encode() + body
    signature = base64.b64encode(hmac.digest(KEY, content, "sha256")).decode()
    return (
        "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: benchmark\r\nAccept: */*\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        f"webhook-id: msg_{n}\r\nwebhook-timestamp: {stamp}\r\nwebhook-signature: v1,{signature}\r\n\r\n"
    ).encode() + body


def _used(port: int, events: Iterator[bytes], many: int, connections: int) -> float:
    """The CPU seconds that the server used for so many events."""
    requests = iter([_request(body, n) for n, body in enumerate(islice(events, many))])

    async def send() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for request in requests:
            writer.write(request)
            answer = await reader.readuntil(b"\r\n\r\n")
            if not answer.startswith(b"HTTP/1.1 204"):
                raise RuntimeError(f"a server answered {answer.splitlines()[0]!r}")
        writer.close()

    async def send_all() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(connections):
                group.create_task(send())

    before = _cpu(port)
    asyncio.run(send_all())
    return _cpu(port) - before


def _cpu(port: int) -> float:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET /cpu HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return float(connection.makefile("rb").read().rpartition(b"\r\n\r\n")[2])


@contextmanager
def _serving(server: str, kind: str, path: Path) -> Iterator[int]:
    command = [sys.executable, "-m", "benchmarks.webhooks", server, kind, str(path)]
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()


# The servers


def serve(server: str, kind: str, path: str) -> None:
    """Serve until killed; the port is printed first."""
    import uvicorn
    from starlette.responses import PlainTextResponse

    logging.getLogger("linepicker").addHandler(logging.NullHandler())  # each change is a warning
    inner = _app(server, path) if server in DOORS else _bare(server, kind, path)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/cpu":
            await PlainTextResponse(str(time.process_time()))(scope, receive, send)
        else:
            await inner(scope, receive, send)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        print(listening.getsockname()[1], flush=True)
        options = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off")
        uvicorn.Server(options).run(sockets=[listening])


def _app(door: str, path: str) -> Any:
    from linepicker import AsyncRouter, Line, Router
    from linepicker.webhooks import WebhookApp

    make = {"Router": Router, "AsyncRouter": AsyncRouter}[door]
    router = make([Line(number) for number in LINES], store=f"sqlite:///{path}")
    return WebhookApp(router, SECRET)


def _bare(server: str, kind: str, path: str) -> Any:
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("CREATE TABLE record (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")
    turns, execute, lock = count(), db.execute, threading.Lock()
    put = "INSERT OR REPLACE INTO record VALUES (?, ?)"

    def transaction(body: bytes) -> None:
        with lock:
            n = next(turns)
            keys = {
                "line": LINES[n % len(LINES)],
                "person": f"to:{n % PEOPLE}",
                "back": f"b:{n % PEOPLE}",
                "event": f"e:{n}",
            }
            execute("BEGIN IMMEDIATE")
            for name, size in _ROWS[kind].items():
                execute("SELECT value FROM record WHERE key = ?", (keys[name],)).fetchone()
                execute(put, (keys[name], (n.to_bytes(8) + body)[:size]))
            execute("COMMIT")

    async def in_the_loop(request: Request) -> Response:
        transaction(await request.body())
        return Response(status_code=204)

    async def in_a_thread(request: Request) -> Response:
        await run_in_threadpool(transaction, await request.body())
        return Response(status_code=204)

    handler: Callable[[Request], Awaitable[Response]] = (
        in_the_loop if server == BARE else in_a_thread
    )
    return Starlette(routes=[Route("/", handler, methods=["POST"])])


_ROWS: Mapping[str, Mapping[str, int]] = {
    "reply": {"line": 80, "person": 160, "back": 50, "event": 8},
    "status": {"line": 700},
}
"""The rows that change, with their bytes: as linepicker writes them here."""


if __name__ == "__main__":
    serve(*sys.argv[1:])
