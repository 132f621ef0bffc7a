"""Sending through a router with Linq's official SDK: each message once, from the line that the router reserved."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, TypeVar

import attrs

from linepicker.errors import LinePickerError, StoreError
from linepicker.model import ChatHealth, ChatHealthChanged, Outcome, Report, To, Verdict
from linepicker.providers.linq.classify import CHAT_BEING_CREATED, classify, read_reply, trace_id
from linepicker.providers.linq.letter import Letter

if TYPE_CHECKING:
    from linq import AsyncLinqAPIV3, LinqAPIV3
    from linq.types import ChatCreateResponse, MessageContentParam
    from linq.types.chats import MessageSendResponse

    Sent: TypeAlias = ChatCreateResponse | MessageSendResponse

__all__ = ["AsyncLinqMessenger", "LinqMessenger"]

_T = TypeVar("_T")

_PAUSES: Final = (1.0, 2.0, 4.0)  # seconds, while another request is creating the same chat
_STALE: Final = {(404, 2001), (409, 2013)}  # no such chat; the line has left the group


class LinqMessenger:
    """Sends with *client*, an SDK client, from the line that *router* picks.

    A recipient whose chat on the reserved line is known is written to there; if Linq does not know that chat any more,
    or none is known, `POST /v3/chats` finds or opens it. Each message carries its reservation's `.id` as idempotency key.
    The SDK's own retries are off: they would repeat what must not be, and without a key. *sleep* waits between the
    attempts while another request is creating the same chat.

    A reservation that moved the recipient to this line has the policy's `stickiness.continuation` said before what the
    message says, in the same message: as a text part in front of a medium, else as the beginning of the first text part, since
    Linq takes no two texts in a row. What can't have a text beside it (a link, a card, an experience) goes out as it is.
    Such a message may open a chat, in which Linq takes no link, effect or reply at first.

    The router learns chat and message from each send, and where the answer says so that Linq thinks ill of the conversation.
    """

    def __init__(
        self, client: LinqAPIV3, router: _Router, *, sleep: Callable[[float], object] = time.sleep
    ) -> None:
        self._client = client.with_options(max_retries=0)
        self._router = router
        self._sleep = sleep

    def send(
        self,
        to: str | Collection[str],
        message: str | Mapping[str, Any],
        *,
        key: str | None = None,
        max_wait: float | None = None,
        line_type: str | None = None,
        tags: Collection[str] = (),
        exclude: Collection[str] = (),
        line: str | None = None,
        max_delay: float | None = None,
        inbound: bool = False,
        override_optout: bool = False,
        chat_health: str | None = None,
        priority: str = "normal",
    ) -> Sent:
        """Send *message*, a text or what the SDK takes as `message` ({"parts": […], …}); the SDK's response.

        The keywords are those of `Router.send`; *override_optout* is told to Linq too, which records each use. Raises the
        router's refusals, `ValueError` for a message with an idempotency key of its own, and the SDK's exceptions as they are
        (a first message with a link is a `BadRequestError` with code 1005), after the reservation was settled.
        """
        letter = Letter.of(message, override_optout=override_optout)

        def call(reservation: _Reservation) -> Sent:
            return self._deliver(letter, reservation)

        return self._router.send(
            to,
            call,
            text=letter.text,
            key=key,
            max_wait=max_wait,
            line_type=line_type,
            tags=tags,
            exclude=exclude,
            line=line,
            max_delay=max_delay,
            inbound=inbound,
            override_optout=override_optout,
            chat_health=chat_health,
            priority=priority,
        )

    def _deliver(self, letter: Letter, reservation: _Reservation) -> Sent:
        course, message = (
            _Course(reservation.chat_id),
            letter.message(reservation.id, reservation.continuation),
        )
        while True:
            try:
                sent, told = self._post(reservation, course.chat_id, message, letter.extra)
            except Exception as error:
                pause = course.pause_after(error)
                if pause is None:
                    # If the store is gone, the router, which finds no outcome, settles by its own rules.
                    with contextlib.suppress(StoreError):
                        _settle(reservation, classify(error) or Verdict(Outcome.UNKNOWN))
                    raise
                self._sleep(pause)
            else:
                _settle(reservation, classify(sent) or Verdict(Outcome.SENT), told)
                report = _concern(sent, reservation)
                if report is not None:
                    with contextlib.suppress(LinePickerError):  # the message went out all the same
                        self._router.report(report)
                return sent

    def _post(
        self,
        reservation: _Reserved,
        chat_id: str | None,
        message: MessageContentParam,
        extra: Mapping[str, bool] | None,
    ) -> tuple[Sent, str | None]:
        """The SDK's response, and Linq's trace id, which only the headers hold."""
        chats = self._client.chats
        if chat_id is not None:
            known = chats.messages.with_raw_response.send(
                chat_id, message=message, extra_body=extra
            )
            return known.parse(), trace_id(known.headers)
        new = chats.with_raw_response.create(
            from_=reservation.number,
            to=_handles(reservation.to),
            message=message,
            extra_body=extra,
        )
        return new.parse(), trace_id(new.headers)


class AsyncLinqMessenger:
    """As `LinqMessenger`, with an SDK `AsyncLinqAPIV3` and an `AsyncRouter`."""

    def __init__(
        self,
        client: AsyncLinqAPIV3,
        router: _AsyncRouter,
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._client = client.with_options(max_retries=0)
        self._router = router
        self._sleep = sleep

    async def send(
        self,
        to: str | Collection[str],
        message: str | Mapping[str, Any],
        *,
        key: str | None = None,
        max_wait: float | None = None,
        line_type: str | None = None,
        tags: Collection[str] = (),
        exclude: Collection[str] = (),
        line: str | None = None,
        max_delay: float | None = None,
        inbound: bool = False,
        override_optout: bool = False,
        chat_health: str | None = None,
        priority: str = "normal",
    ) -> Sent:
        """As `LinqMessenger.send`."""
        letter = Letter.of(message, override_optout=override_optout)

        async def call(reservation: _AsyncReservation) -> Sent:
            return await self._deliver(letter, reservation)

        return await self._router.send(
            to,
            call,
            text=letter.text,
            key=key,
            max_wait=max_wait,
            line_type=line_type,
            tags=tags,
            exclude=exclude,
            line=line,
            max_delay=max_delay,
            inbound=inbound,
            override_optout=override_optout,
            chat_health=chat_health,
            priority=priority,
        )

    async def _deliver(self, letter: Letter, reservation: _AsyncReservation) -> Sent:
        course, message = (
            _Course(reservation.chat_id),
            letter.message(reservation.id, reservation.continuation),
        )
        while True:
            try:
                sent, told = await self._post(reservation, course.chat_id, message, letter.extra)
            except Exception as error:
                pause = course.pause_after(error)
                if pause is None:
                    with contextlib.suppress(StoreError):  # as in LinqMessenger
                        await _asettle(reservation, classify(error) or Verdict(Outcome.UNKNOWN))
                    raise
                await self._sleep(pause)
            else:
                await _asettle(reservation, classify(sent) or Verdict(Outcome.SENT), told)
                report = _concern(sent, reservation)
                if report is not None:
                    with contextlib.suppress(LinePickerError):  # the message went out all the same
                        await self._router.report(report)
                return sent

    async def _post(
        self,
        reservation: _Reserved,
        chat_id: str | None,
        message: MessageContentParam,
        extra: Mapping[str, bool] | None,
    ) -> tuple[Sent, str | None]:
        chats = self._client.chats
        if chat_id is not None:
            known = await chats.messages.with_raw_response.send(
                chat_id, message=message, extra_body=extra
            )
            return await known.parse(), trace_id(known.headers)
        new = await chats.with_raw_response.create(
            from_=reservation.number,
            to=_handles(reservation.to),
            message=message,
            extra_body=extra,
        )
        return await new.parse(), trace_id(new.headers)


@attrs.define
class _Course:
    """Where a message is posted next: into the chat, or (None) to whichever Linq finds or opens for line and recipient."""

    chat_id: str | None
    _pauses: Iterator[float] = attrs.field(init=False, factory=lambda: iter(_PAUSES))

    def pause_after(self, error: Exception) -> float | None:
        """Seconds until the same message may be posted again on the same line; None if it must not be.

        Only where nothing was sent: the chat is gone, or is being created by another request.
        """
        reply = read_reply(error)
        answer = (reply.status, reply.code) if reply else None
        if answer in _STALE and self.chat_id is not None:
            self.chat_id = None
            return 0.0
        if answer == (409, CHAT_BEING_CREATED):
            return next(self._pauses, None)
        return None


class _Reserved(Protocol):
    """What is read of a reservation. `chat_id`: Linq's chat with this recipient on this line, if known. `continuation`: what
    is to be said first."""

    @property
    def id(self) -> str: ...
    @property
    def number(self) -> str: ...
    @property
    def to(self) -> To: ...
    @property
    def send_at(self) -> float: ...
    @property
    def chat_id(self) -> str | None: ...
    @property
    def continuation(self) -> str | None: ...


class _Reservation(_Reserved, Protocol):
    def settle(
        self,
        outcome: Outcome,
        *,
        number: str | None = None,
        chat_id: str | None = None,
        message_id: str | None = None,
        retry_after: float | None = None,
        trace_id: str | None = None,
    ) -> object: ...


class _AsyncReservation(_Reserved, Protocol):
    async def settle(
        self,
        outcome: Outcome,
        *,
        number: str | None = None,
        chat_id: str | None = None,
        message_id: str | None = None,
        retry_after: float | None = None,
        trace_id: str | None = None,
    ) -> object: ...


class _Router(Protocol):
    def send(
        self,
        to: str | Collection[str],
        call: Callable[[_Reservation], _T],
        *,
        text: str | None,
        key: str | None,
        max_wait: float | None,
        line_type: str | None,
        tags: Collection[str],
        exclude: Collection[str],
        line: str | None,
        max_delay: float | None,
        inbound: bool,
        override_optout: bool,
        chat_health: str | None,
        priority: str,
    ) -> _T: ...

    def report(self, report: Report) -> object: ...


class _AsyncRouter(Protocol):
    async def send(
        self,
        to: str | Collection[str],
        call: Callable[[_AsyncReservation], Awaitable[_T]],
        *,
        text: str | None,
        key: str | None,
        max_wait: float | None,
        line_type: str | None,
        tags: Collection[str],
        exclude: Collection[str],
        line: str | None,
        max_delay: float | None,
        inbound: bool,
        override_optout: bool,
        chat_health: str | None,
        priority: str,
    ) -> _T: ...

    async def report(self, report: Report) -> object: ...


def _handles(to: To) -> list[str]:
    return [to] if isinstance(to, str) else list(to)


def _concern(sent: Sent, reservation: _Reserved) -> ChatHealthChanged | None:
    """What is wrong with the conversation by the answer to a send, as of then; None if nothing is, or it doesn't say."""
    chat = getattr(sent, "chat", None)
    status = getattr(getattr(chat, "health_status", None), "status", None)
    health = ChatHealth.__members__.get(str(status).upper())
    if health in {None, ChatHealth.HEALTHY}:
        return None
    created = getattr(getattr(chat, "message", None), "created_at", None)
    at = created.timestamp() if isinstance(created, datetime) else reservation.send_at
    return ChatHealthChanged(
        reservation.to,
        health,
        number=reservation.number,
        chat_id=getattr(chat, "id", None),
        at=at,
    )


def _settle(reservation: _Reservation, verdict: Verdict, told: str | None = None) -> None:
    reservation.settle(
        verdict.outcome,
        number=verdict.number,
        chat_id=verdict.chat_id,
        message_id=verdict.message_id,
        retry_after=verdict.retry_after,
        trace_id=told or verdict.trace_id,
    )


async def _asettle(
    reservation: _AsyncReservation, verdict: Verdict, told: str | None = None
) -> None:
    await reservation.settle(
        verdict.outcome,
        number=verdict.number,
        chat_id=verdict.chat_id,
        message_id=verdict.message_id,
        retry_after=verdict.retry_after,
        trace_id=told or verdict.trace_id,
    )
