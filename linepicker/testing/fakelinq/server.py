"""HTTP/1.1 on the loopback, a thread for each connection, and the ways an answer can go wrong."""

from __future__ import annotations

import json
import socket
import sys
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, Final, TypeAlias

import attrs

from linepicker.testing.fakelinq.model import Refusal
from linepicker.testing.fakelinq.parse import Request
from linepicker.testing.fakelinq.render import Json, error

__all__ = ["BASE_PATH", "Cut", "Fault", "Hang", "Response", "Server", "refused"]

BASE_PATH: Final = "/api/partner"
"""What comes before `/v3` (Linq: base URL)."""


def _trace_id() -> str:
    return uuid.uuid4().hex


@attrs.frozen(kw_only=True)
class Response:
    """An answer as it goes out. `retry_after` is the header's text."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    retry_after: str | None = None
    trace_id: str = attrs.field(factory=_trace_id)

    @classmethod
    def of(cls, status: int, value: Json | None, trace_id: str) -> Response:
        """An answer with this JSON, or none."""
        body = b"" if value is None else json.dumps(value).encode()
        return cls(status=status, body=body, trace_id=trace_id)


def refused(
    refusal: Refusal, *, retry_after: str | None = None, trace_id: str | None = None
) -> Response:
    """The answer that is this error; *retry_after* replaces the header's text."""
    trace_id = trace_id or _trace_id()
    if retry_after is None and refusal.retry_after is not None:
        retry_after = str(refusal.retry_after)
    return Response(
        status=refusal.status,
        body=json.dumps(error(refusal, trace_id)).encode(),
        retry_after=retry_after,
        trace_id=trace_id,
    )


@attrs.frozen
class Hang:
    """No answer at all, until the client gives up; `after` does the work first."""

    after: bool


@attrs.frozen
class Cut:
    """The work is done, and the connection closed in the middle of the answer."""


Fault: TypeAlias = Response | Hang | Cut
"""What a request gets instead of its answer; a `Response` is sent as it is, and no work is done."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if len(body) < length:
            self.close_connection = True
            return
        path, _, query = self.path.partition("?")
        if not path.startswith(BASE_PATH + "/"):
            self.wfile.write(self._raw(refused(Refusal(404, None, "Not under the base URL."))))
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        authorization = headers.pop("authorization", "")
        request = Request(
            method=self.command,
            path=path.removeprefix(BASE_PATH),
            query=query,
            headers=headers,
            body=body,
        )
        match self.server.admit(request):
            case Hang(after):
                if after:
                    self.server.answer(request, authorization)
                self._wait_until_gone()
            case Cut():
                raw = self._raw(answer := self.server.answer(request, authorization))
                self.wfile.write(raw[: -1 - len(answer.body) // 2])
                self.close_connection = True
            case Response() as response:
                self.wfile.write(self._raw(response))
            case None:
                self.wfile.write(self._raw(self.server.answer(request, authorization)))

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815 - http.server's names

    def _raw(self, response: Response) -> bytes:
        head = [
            f"{self.protocol_version} {response.status} {self.responses.get(response.status, ('',))[0]}",
            f"Date: {self.date_time_string(self.server.now())}",
            f"X-Trace-ID: {response.trace_id}",
        ]
        if response.status != 204:
            head.append(f"Content-Type: {response.content_type}")
            head.append(f"Content-Length: {len(response.body)}")
        if response.retry_after is not None:
            head.append(f"Retry-After: {response.retry_after}")
        return "\r\n".join([*head, "", ""]).encode("latin-1") + response.body

    def _wait_until_gone(self) -> None:
        with suppress(OSError):
            while self.connection.recv(4096):
                pass
        self.close_connection = True

    def log_message(self, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """Listens on 127.0.0.1 from the moment it is made until `close`.

    *admit* sees each request first and may plan a fault for it; *answer* does the work, given the request and its
    Authorization header; *now* is what the answers' Date goes by.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        port: int,
        *,
        admit: Callable[[Request], Fault | None],
        answer: Callable[[Request, str], Response],
        now: Callable[[], float],
    ) -> None:
        self.admit = admit
        self.answer = answer
        self.now = now
        self._lock = threading.Lock()
        self._connections: dict[threading.Thread, socket.socket] = {}
        super().__init__(("127.0.0.1", port), _Handler)
        self._closing = False
        self._acceptor = threading.Thread(target=self._accept, name="fakelinq", daemon=True)
        self._acceptor.start()

    def _accept(self) -> None:
        while not self._closing:
            self.handle_request()

    def close(self) -> None:
        """Stop listening, drop every connection, hung ones too, and wait for their threads to end."""
        self._closing = True
        socket.create_connection(
            ("127.0.0.1", self.server_port)
        ).close()  # wakes the accepting thread
        self._acceptor.join()
        self.server_close()
        with self._lock:
            connections = dict(self._connections)
        for connection in connections.values():
            with suppress(OSError):  # it has just ended by itself
                connection.shutdown(socket.SHUT_RDWR)
        for thread in connections:
            thread.join()

    def server_bind(self) -> None:
        """Bind without asking the resolver for a name, which can take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give the connection a thread that `close` can find."""
        thread = threading.Thread(
            target=self.process_request_thread,
            args=(request, client_address),
            name="fakelinq-connection",
            daemon=True,
        )
        with self._lock:
            self._connections[thread] = request
        thread.start()

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve the connection until it ends."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                del self._connections[threading.current_thread()]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news; anything else is a mistake of the fake, and shown."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)
