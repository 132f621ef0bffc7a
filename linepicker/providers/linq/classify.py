"""What a call to the Linq API raised or returned, as a verdict on line and recipient.

Nothing of the SDK is imported: its exceptions and models are known by their attributes, and httpx's responses and plain
dicts of the same shapes do as well.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import attrs
import httpx

from linepicker.model import Outcome, Verdict

__all__ = ["CHAT_BEING_CREATED", "Reply", "classify", "read_reply", "retry_after", "trace_id"]

CHAT_BEING_CREATED: Final = 2009
"""The code of a 409 that passes by itself in seconds: another request is creating the same chat."""

_MAX_WAIT: Final = 86400.0  # Linq's longest published wait ends at the next midnight UTC
_E164: Final = re.compile(r"\+[0-9]{7,15}")
_TRACE: Final = re.compile(r"[0-9A-Za-z-]{1,64}")

_NEVER_LEFT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)

_MEANING: Final[Mapping[int, Outcome]] = {
    1007: Outcome.RATE_LIMITED,
    2006: Outcome.LINE_REFUSED,  # not one of this token's lines (any more)
    2008: Outcome.RECIPIENT_REFUSED,  # has to write first
    CHAT_BEING_CREATED: Outcome.RATE_LIMITED,
    2024: Outcome.RECIPIENT_REFUSED,  # opted out
    2026: Outcome.RECIPIENT_REFUSED,  # on the block list
    2027: Outcome.LINE_REFUSED,  # temporarily ineligible
}


@attrs.frozen
class Reply:
    """What of an answer matters: the HTTP status, Linq's error code, the seconds to wait, the JSON body and trace id if any."""

    status: int
    code: int | None = None
    retry_after: float | None = None
    body: Any = None
    trace_id: str | None = None


def classify(result: object) -> Verdict | None:
    """What *result*, which a send call raised or returned, means. None for what is not recognised.

    Understood are the SDK's exceptions, models and raw responses, httpx's exceptions and responses, and the JSON bodies
    as dicts. The verdict is about this one request:

    - 403 with 2027 or 2006: LINE_REFUSED, nothing was created. With 2024, 2026 or 2008: RECIPIENT_REFUSED.
    - 429 and 1007: RATE_LIMITED. So is 409 with 2009, where another request is creating the same chat: nothing was sent, and
      the pair has to stay on this line and wait a moment.
    - Other 4xx, and connections that could not be made: NOT_SENT. This holds for 422/4005, and for the 409 without a
      documented code when no line is eligible: there is no line to blame.
    - 5xx, 408, redirects, and connections that broke or timed out: UNKNOWN. This holds for 500/4002, "sender phone not
      available", too: unlike for 2027 Linq doesn't say that nothing was created, and a second line might send it twice.
    """
    if isinstance(result, BaseException) and (verdict := _of_connection(result)):
        return verdict
    if reply := read_reply(result):
        return _of_reply(reply)
    return _of_success(result)


def read_reply(result: object) -> Reply | None:
    """The HTTP answer that *result* is, holds, or was raised for; None if there is none.

    A dict counts if it is an error envelope: then the status is the one it names, 0 if it names none.
    """
    if isinstance(result, Mapping):
        error = result.get("error")
        return None if error is None else _reply(_get(error, "status"), error, None, result)
    held = [_get(result, "response"), _get(result, "http_response"), result]
    response = next((each for each in held if each is not None), None)
    status = _get(response, "status_code") or _get(result, "status_code")
    if not isinstance(status, int):
        return None
    body = _json(response)
    # The SDK's exceptions carry the inner error object themselves.
    error = _get(body, "error") or (result if isinstance(result, BaseException) else None)
    return _reply(status, error, _get(response, "headers"), body)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that `Retry-After` asks for, a number or an HTTP date; None if it is absent, past, negative or garbage.

    More than a day counts as a day.
    """
    text = headers.get("retry-after")
    if text is None:
        return None
    try:
        return _wait(float(text))
    except ValueError:
        return _wait(_seconds_until(text))


def trace_id(headers: Mapping[str, str]) -> str | None:
    """By which Linq finds the request again; None if the answer does not tell. Source: Linq, debugging."""
    return _traced(headers.get("x-trace-id"))


def _of_connection(error: BaseException) -> Verdict | None:
    # The SDK's connection errors have a request, no response, and httpx's exception as their cause.
    of_sdk = isinstance(vars(error).get("request"), httpx.Request) and not hasattr(
        error, "response"
    )
    cause = error.__cause__ if of_sdk else error
    if isinstance(cause, _NEVER_LEFT):
        return Verdict(Outcome.NOT_SENT)
    if of_sdk or isinstance(cause, httpx.RequestError):
        return Verdict(Outcome.UNKNOWN)
    return None


def _of_reply(reply: Reply) -> Verdict:
    told = reply.trace_id
    if 200 <= reply.status < 300:
        return attrs.evolve(_of_success(reply.body) or Verdict(Outcome.SENT), trace_id=told)
    if reply.status == 408 or not 400 <= reply.status < 500:
        return Verdict(Outcome.UNKNOWN, trace_id=told)
    unnamed = Outcome.RATE_LIMITED if reply.status == 429 else Outcome.NOT_SENT
    outcome = _MEANING.get(reply.code, unnamed) if reply.code else unnamed
    wait = reply.retry_after
    if wait is None and reply.code == CHAT_BEING_CREATED:
        wait = 1.0  # "retry after seconds"
    waits = outcome in {Outcome.RATE_LIMITED, Outcome.LINE_REFUSED}
    return Verdict(outcome, retry_after=wait if waits else None, trace_id=told)


def _of_success(result: object) -> Verdict | None:
    chat = _get(result, "chat")
    chat_id = _get(chat, "id") or _get(result, "chat_id")
    message_id = _get(_get(chat, "message") or _get(result, "message"), "id")
    if not (isinstance(chat_id, str) and isinstance(message_id, str)):
        return None
    number = _get(result, "from_") or _get(result, "from")
    known = isinstance(number, str) and _E164.fullmatch(number)
    return Verdict(
        Outcome.SENT, number=number if known else None, chat_id=chat_id, message_id=message_id
    )


def _reply(status: object, error: object, headers: Any, body: object) -> Reply:
    wait = None if headers is None else retry_after(headers)
    if wait is None:
        wait = _wait(_get(error, "retry_after"))
    told = None if headers is None else trace_id(headers)
    return Reply(
        _integer(status) or 0,
        _integer(_get(error, "code")),
        wait,
        body,
        told or _traced(_get(body, "trace_id")),
    )


def _get(owner: object, name: str) -> Any:
    if isinstance(owner, Mapping):
        return owner.get(name)
    return getattr(owner, name, None)


def _traced(value: object) -> str | None:
    return value if isinstance(value, str) and _TRACE.fullmatch(value) else None


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _wait(seconds: object) -> float | None:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return None
    if not 0 <= seconds < math.inf:
        return None
    return float(min(seconds, _MAX_WAIT))


def _seconds_until(date: str) -> float | None:
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        moment = parsedate_to_datetime(date)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return (moment - datetime.now(UTC)).total_seconds()
    return None


def _json(response: object) -> Any:
    # A streamed response that was not read has no content to look at.
    with contextlib.suppress(ValueError, RecursionError, TypeError, httpx.StreamError):
        return json.loads(_get(response, "content"))
    return None
