"""The fake's switches."""

from __future__ import annotations

import math
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any, Protocol, Self, get_args

import attrs

from linepicker.testing.fakelinq.agenda import Agenda
from linepicker.testing.fakelinq.api import Api
from linepicker.testing.fakelinq.events import EVENT_TYPES
from linepicker.testing.fakelinq.model import (
    Guesses,
    Happening,
    LineType,
    PhoneNumber,
    Refusal,
    SentMessage,
    handle,
)
from linepicker.testing.fakelinq.parse import Request
from linepicker.testing.fakelinq.people import FailurePlan, People, Person
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
from linepicker.testing.fakelinq.webhooks import Delivery, Webhooks, with_version
from linepicker.testing.fakelinq.world import World

__all__ = ["Clock", "FakeLinq"]


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

    What happens is told to who subscribed, by signed webhooks; `webhooks` has their switches. People receive, read and
    answer as `person` and `everyone` have it. What takes time happens by the clock: by itself with the host's; with
    another when that has moved and the fake is next asked for anything, or told to `tick`.

    *lines* is how many lines the account has at first, or their numbers (E.164). *token* is the one accepted; a random
    one if left out. *clock* has `now()` in epoch seconds UTC; the host's clock if left out. *port* 0 takes a free one.
    *seed* is that of all chance.

    >>> from linepicker import Router
    >>> from linepicker.providers.linq import LinqSource
    >>> from linepicker.testing import FakeLinq
    >>> with FakeLinq(lines=2) as fake, LinqSource(fake.token, base_url=fake.base_url) as source:
    ...     fake.set_reputation(fake.numbers[0], "CRITICAL")
    ...     [view.standing for view in Router(source).lines()]
    ['critical', 'ok']
    """

    def __init__(
        self,
        lines: int | Iterable[str] = 6,
        *,
        token: str | None = None,
        clock: Clock | None = None,
        port: int = 0,
        guesses: Guesses | None = None,
        seed: int = 0,
    ) -> None:
        self.token = token or secrets.token_urlsafe(24)
        self._port = port
        self._server: Server | None = None
        self._lock = threading.Condition()
        guesses = guesses or Guesses()
        self._host_agenda = Agenda(time.time, self._lock)
        self._agenda = self._host_agenda if clock is None else Agenda(clock.now, self._lock)
        self._world = World(self._agenda.now, guesses, self._happened)
        self.webhooks = Webhooks(
            self._agenda, self._host_agenda, self._lock, guesses, Random(f"{seed} webhooks")
        )
        self._people = People(self._world, self._agenda, Random(f"{seed} people"))
        self._api = Api(self._world, self.webhooks)
        self._requests: list[Request] = []
        self._planned: list[_Planned] = []
        for number in _fictional(lines) if isinstance(lines, int) else lines:
            self.add_line(number)

    # Running

    def start(self) -> None:
        """Begin to serve. Raises `RuntimeError` if it does, `OSError` if the port is taken."""
        if self._server is not None:
            raise RuntimeError("the fake is serving already")
        self._server = Server(
            self._port, admit=self._admit, answer=self._answer, now=self._agenda.now
        )
        self._port = self._server.server_port
        self._host_agenda.start()
        self.webhooks.sender.start()

    def close(self) -> None:
        """Stop serving and sending, and drop every connection. Closing twice is nothing."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
            self._host_agenda.close()
            self.webhooks.sender.close()

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

    @property
    def deliveries(self) -> list[Delivery]:
        """Every try to deliver an event, in the order they were settled in, the dropped and lost ones too."""
        with self._lock:
            return list(self.webhooks.deliveries)

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

    def set_status(
        self, number: str, status: str, *, linked: bool = True, reputation: str | None = None
    ) -> None:
        """The service status, which the API never shows; and the reputation at the same moment, if it is not None.

        *linked*: ACTIVE makes the line eligible, all else ineligible.
        """
        with self._lock:
            eligible = status == "ACTIVE" if linked else None
            self._world.change_line(number, status=status, eligible=eligible, reputation=reputation)

    def move_line(self, number: str, environment: str) -> None:
        """Move a line to another environment, where the token does not see it; back with "production", its own."""
        with self._lock:
            self._world.move_line(number, environment)

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
        """The recipient wrote STOP, and nobody is told: direct sends to them are 403/2024, from every line, but to no group.

        `receive` with "STOP" does the same, and tells.
        """
        with self._lock:
            self._world.opt_out(_handle(recipient))

    def opt_in(self, recipient: str) -> None:
        """The recipient wrote again, and nobody is told."""
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

    # People

    def person(self, handle: str, person: Person) -> None:
        """From now on this recipient behaves so."""
        with self._lock:
            self._people.behave(_handle(handle), person)

    def everyone(self, person: Person) -> None:
        """From now on who has no behaviour of their own behaves so. At first everybody receives, and does nothing else."""
        with self._lock:
            self._people.everyone = person

    def receive(
        self,
        number: str,
        handle: str,
        text: str,
        *,
        chat_id: str | None = None,
        service: str | None = None,
        late: float = 0.0,
    ) -> str | None:
        """Somebody writes to a line; returns the message's id, or None if they are blocked and nobody hears of it.

        *chat_id*: in this chat, as for a group; else in the line's direct chat with them, made if need be. *service*: the
        line's own if left out. *late*: seconds since it was written; it comes to light only now (`reconciled_at`). Raises
        `ValueError` if there is no such line, or the chat is not theirs both.
        """
        with self._acting():
            message = self._world.receive(
                number, _handle(handle), text, chat_id=chat_id, service=service, late=late
            )
            return message.id if message else None

    def react(self, handle: str, message_id: str, reaction: str = "like") -> None:
        """Somebody puts a tapback on a message in a chat of theirs. Raises `ValueError` if it is in none."""
        with self._acting():
            self._world.react(_handle(handle), message_id, reaction)

    def fail_messages(
        self,
        count: int = 1,
        *,
        code: int = 4001,
        number: str | None = None,
        delivered_after: float | None = None,
    ) -> None:
        """The next *count* messages, from *number* or from any line, are accepted and sent, and then fail with *code*.

        *delivered_after*: all the same they are delivered after so many seconds, as happens.
        """
        with self._lock:
            self._people.failures.append(FailurePlan(count, code, number, delivered_after))

    def fail_line(self, number: str, share: float, *, code: int = 4001) -> None:
        """From now on this share of the line's messages fails; 0 ends it."""
        with self._lock:
            self._people.failing[number] = (share, code)

    def tick(self) -> None:
        """Let happen what is due by the clock."""
        with self._acting():
            pass

    # Webhooks

    def subscribe(
        self,
        url: str,
        events: Iterable[str] | None = None,
        *,
        version: str = "2026-02-03",
        secret: str | None = None,
        numbers: Iterable[str] = (),
    ) -> str:
        """Subscribe an address to *events* (None: all) of *numbers* (none: all lines); returns the signing secret.

        Events about one chat, or about one line and no chat, come in their order; others overtake each other, eight at once.

        *version* is asked for in the address's query, unless that names one. *secret*: `whsec_` and base64; a random one
        if left out. Raises `ValueError` if the API would refuse it.
        """
        with self._lock:
            try:
                return self.webhooks.create(
                    with_version(url, version),
                    EVENT_TYPES if events is None else events,
                    secret=secret,
                    phone_numbers=numbers,
                ).secret
            except Refusal as refusal:
                raise ValueError(refusal.message) from None

    def flush(self, *, timeout: float = 10.0, later: bool = False) -> None:
        """Let happen what is due, then wait until every delivery that is due is settled.

        *later*: wait also for those that are delayed, or will be tried again. What `reorder` holds back is released. Raises
        `TimeoutError` after *timeout* seconds of the host's time.
        """
        with self._acting():
            self.webhooks.release()
        with self._lock:
            if not self._lock.wait_for(lambda: self.webhooks.settled(later=later), timeout):
                raise TimeoutError(f"webhooks are on their way after {timeout} s")

    def _happened(self, happening: Happening) -> None:
        self.webhooks.publish(happening)
        self._people.notice(happening)

    @contextmanager
    def _acting(self) -> Iterator[None]:
        with self._lock:
            self._agenda.run_due()
            yield
            self._agenda.run_due()

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
            with self._acting():
                return Response.of(*self._api.answer(request), request.trace_id)
        except Refusal as refusal:
            return refused(refusal, trace_id=request.trace_id)

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
