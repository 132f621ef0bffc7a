"""The fake's switches, and the way to run it as a process."""

from __future__ import annotations

import json
import math
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, Self, TextIO, get_args

import attrs

from linepicker.testing.fakelinq.api import Api
from linepicker.testing.fakelinq.model import (
    Guesses,
    LineType,
    PhoneNumber,
    Refusal,
    SentMessage,
    handle,
)
from linepicker.testing.fakelinq.parse import Request
from linepicker.testing.fakelinq.render import ListShape
from linepicker.testing.fakelinq.server import (
    BASE_PATH,
    Cut,
    Fault,
    Hang,
    Response,
    Server,
    refused,
)
from linepicker.testing.fakelinq.world import World

__all__ = ["Clock", "FakeLinq", "serve_forever"]


class Clock(Protocol):
    """Anything that tells the time; `ManualClock` does."""

    def now(self) -> float:
        """Epoch seconds UTC."""
        ...


@attrs.define
class _Planned:
    make: Callable[[], Fault]
    left: int
    path: str | None


class FakeLinq:
    """A provider on a real loopback socket that behaves as the Linq Partner API v3 is documented to.

    It lists lines, keeps chats, and accepts or refuses messages for the reasons and with the codes Linq publishes; what
    Linq leaves open is in `Guesses`. A context manager; or `start()` and `close()`, as often as wanted: the address and
    all state stay, so that an outage can be played. Everything may be called from any thread while it serves.

    *lines* is how many lines the account has at first, or their numbers (E.164). *token* is the one accepted; a random
    one if left out. *clock* has `now()` in epoch seconds UTC; the host's clock if left out. *port* 0 takes a free one.
    """

    def __init__(
        self,
        lines: int | Iterable[str] = 6,
        *,
        token: str | None = None,
        clock: Clock | None = None,
        port: int = 0,
        guesses: Guesses | None = None,
    ) -> None:
        self.token = token or secrets.token_urlsafe(24)
        self._port = port
        self._server: Server | None = None
        self._lock = threading.Condition()
        self._world = World(time.time if clock is None else clock.now, guesses or Guesses())
        self._api = Api(self._world)
        self._requests: list[Request] = []
        self._planned: list[_Planned] = []
        for number in _fictional(lines) if isinstance(lines, int) else lines:
            self.add_line(number)

    # Running

    def start(self) -> None:
        """Begin to serve. Raises `RuntimeError` if it does, `OSError` if the port is taken."""
        if self._server is not None:
            raise RuntimeError("the fake is serving already")
        self._server = Server(self._port, admit=self._admit, answer=self._answer)
        self._port = self._server.server_port

    def close(self) -> None:
        """Stop serving, and drop every connection. Closing twice is nothing."""
        server, self._server = self._server, None
        if server is not None:
            server.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def base_url(self) -> str:
        """Where it serves, as the official client takes it. Raises `RuntimeError` before the first start."""
        if not self._port:
            raise RuntimeError("the fake has no address before it is started")
        return f"http://127.0.0.1:{self._port}{BASE_PATH}"

    # What happened

    @property
    def sent(self) -> list[SentMessage]:
        """The accepted messages, oldest first."""
        with self._lock:
            return list(self._world.sent)

    @property
    def requests(self) -> list[Request]:
        """Every request that arrived whole under the base URL, oldest first, answered or not."""
        with self._lock:
            return list(self._requests)

    def wait_for_requests(self, count: int, *, timeout: float = 10.0) -> None:
        """Wait until *count* requests have arrived. Raises `TimeoutError` after *timeout* seconds, by the host's clock."""
        with self._lock:
            if not self._lock.wait_for(lambda: len(self._requests) >= count, timeout):
                raise TimeoutError(f"{len(self._requests)} requests arrived, not {count}")

    @property
    def numbers(self) -> list[str]:
        """The numbers of the lines, in the order they are listed in."""
        with self._lock:
            return list(self._world.lines)

    # Lines

    def add_line(
        self,
        number: str,
        *,
        line_type: LineType = "iMessage",
        reputation: str = "HEALTHY",
    ) -> None:
        """Assign a line. Raises `ValueError` if the number is not E.164, or is one of the lines."""
        with self._lock:
            self._world.add_line(
                PhoneNumber(number=number, line_type=line_type, reputation=reputation)
            )

    def remove_line(self, number: str) -> None:
        """Release a line: it is gone from the list, and sending from it is 403/2006. Its chats stay readable."""
        with self._lock:
            self._world.remove_line(number)

    def set_reputation(self, number: str, reputation: str) -> None:
        """What the list says of a line; any text, also one Linq has not got. It never makes a send fail."""
        with self._lock:
            self._world.change_line(number, reputation=reputation)

    def set_status(self, number: str, status: str, *, linked: bool = True) -> None:
        """The service status, which the API never shows. *linked*: ACTIVE makes the line eligible, all else ineligible."""
        with self._lock:
            eligible = status == "ACTIVE" if linked else None
            self._world.change_line(number, status=status, eligible=eligible)

    def set_eligible(self, number: str, eligible: bool) -> None:  # noqa: FBT001 - the verb says of what
        """Whether the line can deliver. If not, sending from it is 403/2027, and the provider's own choice skips it."""
        with self._lock:
            self._world.change_line(number, eligible=eligible)

    @property
    def list_shape(self) -> ListShape:
        """What the list calls reputations: "reputation", "both", "health_status" (both in use until July 2026), "neither"."""
        return self._api.list_shape

    @list_shape.setter
    def list_shape(self, shape: ListShape) -> None:
        if shape not in get_args(ListShape):
            raise ValueError(f"list_shape must be one of {get_args(ListShape)}, got {shape!r}")
        self._api.list_shape = shape

    def raw_lines(self, entries: Sequence[Mapping[str, Any]] | None) -> None:
        """List exactly these entries, however wrong, instead of the lines; None lists the lines again."""
        self._api.raw_lines = entries

    # Recipients and chats

    def opt_out(self, recipient: str) -> None:
        """The recipient wrote STOP: direct sends to them are 403/2024, from every line; groups are not concerned."""
        with self._lock:
            self._world.opt_out(_handle(recipient))

    def opt_in(self, recipient: str) -> None:
        """The recipient wrote again."""
        with self._lock:
            self._world.opt_in(_handle(recipient))

    def block(self, recipient: str) -> None:
        """Put the recipient on the account's block list: direct sends to them are 403/2026."""
        with self._lock:
            self._world.block(_handle(recipient))

    def unblock(self, recipient: str) -> None:
        """Take the recipient off the block list."""
        with self._lock:
            self._world.unblock(_handle(recipient))

    def disallow(self, recipient: str) -> None:
        """Any send to the recipient is 403/2008, as on shared lines before they have written."""
        with self._lock:
            self._world.disallow(_handle(recipient))

    def allow(self, recipient: str) -> None:
        """Undo `disallow`."""
        with self._lock:
            self._world.allow(_handle(recipient))

    def set_chat_health(self, chat_id: str, health: str) -> None:
        """What the chat's `health_status` says. It never makes a send fail. Raises `ValueError` if there is no such chat."""
        with self._lock:
            try:
                self._world.mark_chat(chat_id, health)
            except Refusal:
                raise ValueError(f"there is no chat {chat_id}") from None

    # Faults. Each is for the next *count* requests whose path contains *path* (None: any); plans are used up in order.

    def fail_next(
        self,
        count: int = 1,
        *,
        status: int,
        code: int | None = None,
        retry_after: float | str | None = None,
        path: str | None = None,
    ) -> None:
        """Answer with this error, and do no work.

        *code* None leaves `code` and `doc_url` out, as a gateway's error does. *retry_after* is the header's text, or
        seconds; those are also told in the body of a 429, rounded up.
        """
        number = None if isinstance(retry_after, str | None) else retry_after
        refusal = Refusal(
            status,
            code,
            "A fault that was asked for.",
            retry_after=None if number is None else math.ceil(number),
        )
        header = retry_after if isinstance(retry_after, str | None) else f"{retry_after:g}"
        self._plan(lambda: refused(refusal, retry_after=header), count, path)

    def hang_next(self, count: int = 1, *, path: str | None = None, after: bool = False) -> None:
        """Never answer, until the client gives up or `close`. *after*: do the work first, so that only the answer is lost."""
        self._plan(lambda: Hang(after), count, path)

    def cut_next(self, count: int = 1, *, path: str | None = None) -> None:
        """Do the work, and close the connection in the middle of the answer."""
        self._plan(Cut, count, path)

    def garbage_next(
        self,
        count: int = 1,
        *,
        body: bytes,
        content_type: str = "application/json",
        status: int = 200,
        path: str | None = None,
    ) -> None:
        """Answer with these bytes, and do no work."""
        self._plan(
            lambda: Response(status=status, body=body, content_type=content_type), count, path
        )

    def heal(self) -> None:
        """Forget the faults that have not happened yet."""
        with self._lock:
            self._planned.clear()

    def _plan(self, make: Callable[[], Fault], count: int, path: str | None) -> None:
        with self._lock:
            self._planned.append(_Planned(make, count, path))

    # Serving

    def _admit(self, request: Request) -> Fault | None:
        with self._lock:
            self._requests.append(request)
            self._lock.notify_all()
            for plan in self._planned:
                if plan.left > 0 and (plan.path is None or plan.path in request.path):
                    plan.left -= 1
                    return plan.make()
            return None

    def _answer(self, request: Request, authorization: str) -> Response:
        try:
            self._authenticate(authorization)
            with self._lock:
                return Response.of(*self._api.answer(request))
        except Refusal as refusal:
            return refused(refusal)

    def _authenticate(self, authorization: str) -> None:
        if not secrets.compare_digest(authorization.encode(), f"Bearer {self.token}".encode()):
            raise Refusal(401, 2004, "The token is missing or invalid.")


def _fictional(count: int) -> Iterable[str]:
    """Numbers nobody has: 555-0100 to 555-0199 in one area after another."""
    return (f"+1{202 + i // 100}555{100 + i % 100:04d}" for i in range(count))


def _handle(text: str) -> str:
    name = handle(text)
    if name is None:
        raise ValueError("a recipient must be E.164 or an email address")
    return name


def serve_forever(
    *, port: int = 0, lines: int | Iterable[str] = 6, out: TextIO | None = None
) -> None:
    """Serve until SIGINT or SIGTERM, then return. To be called in the main thread.

    Writes one line of JSON to *out* (stdout if left out) as soon as it serves: `{"base_url": …, "token": …}`.
    """
    stop = threading.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in signals}
    try:
        with FakeLinq(lines, port=port) as fake:
            hello = json.dumps({"base_url": fake.base_url, "token": fake.token})
            print(hello, file=out or sys.stdout, flush=True)
            stop.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
