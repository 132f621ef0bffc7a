"""The port to a provider: where lines come from, and what a send's result means.

Any object with `fetch()` is a source; `classify(result)` is optional. Nothing is to be inherited.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from linepicker.model import Line, Outcome, Verdict

__all__ = ["AsyncSource", "Classifier", "Source"]


class Source(Protocol):
    """A fleet, read on demand."""

    def fetch(self) -> Iterable[Line]:
        """All lines as they are now, read afresh. Raises `SourceError` (other exceptions are wrapped in one).
        May be called from any thread, one call at a time.

        A call that waits for a fetch while it has a list gives it two seconds: an AsyncRouter by cancelling it, a Router by
        `fetch(timeout=2.0, attempts=1)` if fetch takes these two; else it waits as long as fetch does."""
        ...


class AsyncSource(Protocol):
    """A fleet, read on demand by a coroutine."""

    async def fetch(self) -> Iterable[Line]:
        """As `Source.fetch`."""
        ...


class Classifier(Protocol):
    """What a source may have besides `fetch`."""

    def classify(self, result: object) -> Outcome | Verdict | None:
        """What *result*, which a send call returned or raised, means for line and recipient. None: not known here,
        so a returned value counts as SENT and an exception as UNKNOWN."""
        ...
