"""Every error linepicker raises, and whose fault it is.

    LinePickerError
    ├── InvalidRecipient (ValueError)   the caller's: the handle is not one
    ├── PolicyError (ValueError)        the caller's: a tunable is wrong
    ├── NoLine                          a new recipient, and no line may take it now
    ├── Held                            the recipient's line, or a pinned one, may not be used
    ├── NotNow                          the line may be used, but not yet
    ├── Blocked                         the recipient does not want, or may not get, messages
    ├── StaleHealth                     the health data is missing or too old to trust
    ├── AlreadySent                     this key's message has gone out
    ├── SourceError                     the provider did not answer with a usable list of lines
    └── StoreError                      the store is gone, locked, full, foreign or out of date

Refusals (`NoLine`, `Held`, `NotNow`, `Blocked`, `StaleHealth`) carry `.decision`, the record of the choice. All but
`Blocked` carry `.retry_at`, an epoch moment in seconds UTC: when to ask again. A refusal never changes anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from linepicker.model import Decision, Kind, Outcome, To

__all__ = [
    "AlreadySent",
    "Blocked",
    "Held",
    "InvalidRecipient",
    "LinePickerError",
    "NoLine",
    "NotNow",
    "PolicyError",
    "SourceError",
    "StaleHealth",
    "StoreError",
]


class LinePickerError(Exception):
    """The parent of all errors of this library."""


class InvalidRecipient(LinePickerError, ValueError):
    """A recipient handle can't be used; the message says why, with the handle masked."""


class PolicyError(LinePickerError, ValueError):
    """A policy is wrong; the message names the field, the problem, and the nearest known name."""


class _Refusal(LinePickerError):
    def __init__(self, message: str, *, decision: Decision) -> None:
        super().__init__(message)
        self.decision = decision


class _Postponement(_Refusal):
    def __init__(self, message: str, *, decision: Decision, retry_at: float) -> None:
        super().__init__(message, decision=decision)
        self.retry_at = retry_at


class NoLine(_Postponement):
    """No line may take this new recipient now. Ask again at `.retry_at`."""


class Held(_Postponement):
    """The line this recipient belongs to, or that was asked for, may not be used. Ask again at `.retry_at`."""


class NotNow(_Postponement):
    """The line may be used, but has no room or slot in time. Ask again at `.retry_at`."""


class Blocked(_Refusal):
    """The recipient opted out or is blocked: no line may be used until they write again."""


class StaleHealth(_Postponement):
    """What is known of the lines' health is missing or too old. Ask again at `.retry_at`."""


class _Sent(Protocol):
    """What the reservation of a sent message tells."""

    @property
    def id(self) -> str: ...
    @property
    def number(self) -> str: ...
    @property
    def to(self) -> To: ...
    @property
    def kind(self) -> Kind: ...
    @property
    def send_at(self) -> float: ...
    @property
    def outcome(self) -> Outcome | None: ...


class AlreadySent(LinePickerError):
    """The message with this key has been sent; `.reservation` tells from where."""

    def __init__(self, message: str, *, reservation: _Sent) -> None:
        super().__init__(message)
        self.reservation = reservation


class SourceError(LinePickerError):
    """The provider's list of lines could not be had. The last good one stays in force.

    `.status` is the HTTP status if there was an answer, `.retry_after` the seconds the provider asked us to wait,
    `.fatal` is true where asking again can't help (a bad token), `.trace_id` is by what the provider finds the request again.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        fatal: bool = False,
        trace_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        self.fatal = fatal
        self.trace_id = trace_id


class StoreError(LinePickerError):
    """The store can't be used; the message says what to do. Without it only what `policy.on_store_error` allows is sent.

    `.unknown` is true where the write may have been applied all the same; `.answered` where the store is there, and it is what
    it holds, or others at work in it, that stand in the way.
    """

    def __init__(self, message: str, *, unknown: bool = False, answered: bool = False) -> None:
        super().__init__(message)
        self.unknown = unknown
        self.answered = answered
