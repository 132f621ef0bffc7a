"""The provider's side: the lines as they are, what was accepted, whom nobody may write to, and every way to fail."""

from __future__ import annotations

import random
from collections import Counter
from copy import copy
from typing import Final

import attrs
import httpx

from linepicker import Line, Outcome, SourceError
from linepicker._asks import Made
from linepicker.model import Verdict
from linepicker.providers.linq.classify import classify


class SendFailed(Exception):
    """What a send call raises: a timeout, a 5xx, a refusal. `verdict` is what it means."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.outcome)
        self.verdict = verdict


def sure(failed: SendFailed | None) -> bool:
    """Whether it did not go out because of the line: only then another line is tried."""
    return failed is None or failed.verdict.outcome is Outcome.LINE_REFUSED


@attrs.frozen
class SendFault:
    """One way a send fails. `arrives`: how likely the message is taken all the same; `took`: seconds until the call ends."""

    name: str
    verdict: Verdict
    arrives: float = 0.0
    took: float = 0.1


def _answered(status: int, code: int | None = None, *, wait: str | None = None) -> Verdict:
    """What the library makes of such an answer."""
    headers = {} if wait is None else {"retry-after": wait}
    body = {} if code is None else {"error": {"status": status, "code": code}}
    request = httpx.Request("POST", "https://example.invalid/v3/chats")
    found = classify(httpx.Response(status, headers=headers, json=body, request=request))
    assert found is not None
    return found


def _broken(error: Exception) -> Verdict:
    return classify(error) or Verdict(Outcome.UNKNOWN)


SEND_FAULTS: Final = (
    SendFault("2027", _answered(403, 2027)),
    SendFault("2027 with a date", _answered(403, 2027, wait="600")),
    SendFault("2006", _answered(403, 2006)),
    SendFault("2024", _answered(403, 2024)),
    SendFault("2026", _answered(403, 2026)),
    SendFault("2008", _answered(403, 2008)),
    SendFault("1007", _answered(429, 1007, wait="30")),
    SendFault("429", _answered(429)),
    SendFault("429, garbage to wait", _answered(429, wait="soon")),
    SendFault("2009", _answered(409, 2009)),
    SendFault("409", _answered(409)),
    SendFault("4005", _answered(422, 4005)),
    SendFault("4002", _answered(500, 4002), arrives=0.5),
    SendFault("502", _answered(502), arrives=0.5),
    SendFault("503", _answered(503), arrives=0.3),
    SendFault("504", _answered(504), arrives=0.7),
    SendFault("408", _answered(408), arrives=0.5),
    SendFault("no connection", _broken(httpx.ConnectError("refused"))),
    SendFault("reset", _broken(httpx.RemoteProtocolError("reset")), arrives=0.5),
    SendFault("timeout", _broken(httpx.ReadTimeout("late")), arrives=0.5, took=30.0),
    SendFault("hang", _broken(httpx.ReadTimeout("never")), arrives=0.5, took=3000.0),
    SendFault("an error nobody knows", _broken(RuntimeError("what?")), arrives=0.5),
)
"""Every kind of answer of Linq's that its classifier tells apart, as that classifier reads it."""

LIST_FAULTS: Final = (
    ("list 500", SourceError("500", status=500), 0.2),
    ("list 503, wait", SourceError("503", status=503, retry_after=30.0), 0.2),
    ("list 429", SourceError("429", status=429, retry_after=30.0), 0.1),
    ("list 429, wait for years", SourceError("429", status=429, retry_after=1e9), 0.1),
    ("list 401", SourceError("401", status=401, fatal=True), 0.1),
    ("list 403", SourceError("403", status=403, fatal=True), 0.1),
    ("list timeout", SourceError("did not arrive in the time allowed"), 2.0),
    ("list hang", SourceError("did not arrive in the time allowed"), 90.0),
    ("list garbage", SourceError("could not be read"), 0.1),
)
"""Every way in which reading the list ends, and how long that takes."""

MODES: Final = ("empty", "half", *(name for name, _, _ in LIST_FAULTS))


class Provider:
    """The provider. Its own clock is the world's."""

    def __init__(
        self, dice: random.Random, *, shows_status: bool, lines: int, seen: Counter[str]
    ) -> None:
        self.shows_status = shows_status
        self.names = [f"+1212555{n:04d}" for n in range(lines + 2)]
        self.listed = set(self.names[:lines])
        self.reputation = dict.fromkeys(self.names, "HEALTHY")
        self.flagged: set[str] = set()
        self.refusing: set[str] = set()
        self.opted_out: set[str] = set()
        self.accepted: set[str] = set()
        self.mode = "ok"
        self.dice, self.seen = dice, seen
        self._made: dict[tuple[str, str, str | None], Line] = {}

    def lines(self) -> list[Line]:
        """The list as it is, in any order."""
        found = []
        for number in self.names:
            if number in self.listed:
                status = None
                if self.shows_status:
                    status = "FLAGGED" if number in self.flagged else "ACTIVE"
                key = (number, self.reputation[number], status)
                line = self._made.get(key)
                if line is None:
                    word = (
                        {"reputation": key[1]} if key[1] != "SHINY" else {"unrecognised": "SHINY"}
                    )
                    line = self._made[key] = Line(number, status=status, **word)
                found.append(line)
        self.dice.shuffle(found)
        return found

    def answer(self, *, fault: bool) -> tuple[list[Line] | SourceError, float]:
        """What the list's endpoint answers, and after how long. *fault*: one of its own accord."""
        mode = self.dice.choice(LIST_FAULTS)[0] if fault else self.mode
        if mode != "ok":
            self.seen[mode if mode.startswith("list") else f"list {mode}"] += 1
        took = self.dice.choice((0.0, 0.2, 1.5))
        if mode == "ok":
            return self.lines(), took
        if mode == "empty":
            return [], took
        if mode == "half":
            return self.lines()[: len(self.listed) // 3], took
        return next((copy(error), took) for name, error, took in LIST_FAULTS if name == mode)

    def take(self, made: Made) -> Verdict:
        """A message arrives. An id that was accepted is not accepted again."""
        to, number = made.who.recipient.key, made.number
        if made.id not in self.accepted:
            if to in self.opted_out:
                return _OPTED_OUT
            if number in self.flagged | self.refusing or number not in self.listed:
                return _INELIGIBLE if self.dice.random() < 0.5 else _INELIGIBLE_UNTIL
            self.accepted.add(made.id)
        return Verdict(Outcome.SENT, message_id=f"m-{made.id}", chat_id=f"c-{number}-{to}"[:60])


_OPTED_OUT: Final = _answered(403, 2024)
_INELIGIBLE: Final = _answered(403, 2027)
_INELIGIBLE_UNTIL: Final = _answered(403, 2027, wait="600")
