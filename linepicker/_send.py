"""The whole story around the caller's function, told once: reserve, wait, check, call, settle, fail over where that is safe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import attrs

from linepicker._asks import Call, Called, Flow, Made, NewId, Now, Sleep, Who
from linepicker._candidates import Request
from linepicker._check import check
from linepicker._settle import settle_or_keep
from linepicker.errors import AlreadySent, Held, NoLine, NotNow
from linepicker.fleet import Fleet
from linepicker.model import Outcome


class Reserving(Protocol):
    """How `send` gets its reservations."""

    def __call__(
        self,
        who: Who,
        request: Request,
        now: float,
        made_id: str,
        *,
        key: str | None,
        begun: Callable[[Made], None] | None = None,
    ) -> Flow[Made]:
        """A reservation."""
        ...


def send(
    fleet: Fleet,
    request: Request,
    who: Who,
    now: float,
    *,
    reserving: Reserving,
    key: str | None,
    max_wait: float | None,
    begun: Callable[[Made], None] | None = None,
) -> Flow[Any]:
    """Reserve, wait, check, call, settle; fail over a new conversation whose line refused, to at most three lines."""
    waited, tried, cause = 0.0, 0, None
    while True:
        made_id: str = yield NewId()
        try:
            made = yield from reserving(who, request, now, made_id, key=key, begun=begun)
        except (NoLine, Held, NotNow) as refusal:
            now = yield Now()
            wait = max(0.0, refusal.retry_at - now)
            if max_wait is None or waited + wait > max_wait:
                raise refusal from cause
            yield Sleep(wait)
            waited, now = waited + wait, (yield Now())
            continue
        if begun is not None:
            begun(made)
        now = yield Now()
        if made.outcome is Outcome.SENT:
            raise AlreadySent("the message with this key has been sent", reservation=made)
        if made.send_at > now:
            waited += made.send_at - now
            yield Sleep(made.send_at - now)
            now = yield Now()
            yield from check(fleet, made)
        called: Called = yield Call(made)
        now = yield Now()
        if made.outcome is None:
            yield from settle_or_keep(fleet, made, called.verdict, now)
        tried += 1
        refused_here = made.outcome is Outcome.LINE_REFUSED and made.kind == "new"
        if refused_here and not made.resumed and request.line is None and tried < 3:
            request = attrs.evolve(request, exclude=request.exclude | {made.number})
            cause = called.error
            continue
        if called.error is not None:
            raise called.error
        return called.value
