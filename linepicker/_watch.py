"""Who looks on: the log of decisions and the policy in shadow. Whatever they do, no send is hurt by it."""

from __future__ import annotations

import logging
import os
import secrets
import threading
from typing import Any, Final, Protocol

from linepicker._asks import Made, Who
from linepicker._candidates import Request
from linepicker._journal import Journal, header
from linepicker._shadow import Shadow, ShadowCounts
from linepicker.model import Decision, Report, Verdict
from linepicker.policy import Policy
from linepicker.recording import DecisionLog

log: Final = logging.getLogger("linepicker")


NO_SHADOW: Final = "this router has no policy in shadow: Router(shadow=policy) gives it one"


class Writable(Protocol):
    """What takes text."""

    def write(self, text: str, /) -> object:
        """Take it."""
        ...


class Stream:
    """A log that is written to an object of the caller's: a file, a queue. One per router; it is neither flushed nor closed."""

    def __init__(self, given: Writable) -> None:
        self._given = given
        self.key = secrets.token_bytes(16)
        self._pid = 0

    def stretch(self) -> int:
        """Changes after a fork."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._given.write(header(self.key, told=True))
        return self._pid

    def write(self, text: str) -> None:
        """Hand a line over."""
        self._given.write(text)


class Watch:
    """Tells those who look on, and keeps their failures from everybody else."""

    def __init__(
        self, journal: Journal | None, shadow: Shadow | None, own: DecisionLog | None
    ) -> None:
        self._journal, self._shadow, self._own = journal, shadow, own
        self.fleet: Any = None
        self.lost = 0
        """How many times one of them failed."""
        self._said = False
        self._lock = threading.Lock()

    def shadowed(self, seconds: float) -> ShadowCounts:
        """What the policy in shadow would have done. Raises ValueError where there is none."""
        if self._shadow is None:
            raise ValueError(NO_SHADOW)
        if not seconds > 0.0:
            raise ValueError(f"seconds must be positive, got {seconds!r}")
        return self._shadow.within(seconds)

    def decided(
        self,
        request: Request,
        who: Who,
        now: float,
        made_id: str,
        told: Made | Decision,
        *,
        key: str | None = None,
        in_outage: bool = False,
    ) -> None:
        """A choice was made."""
        if self._journal is not None:
            self._record("decided", request, who, now, made_id, told, key=key, in_outage=in_outage)
        if self._shadow is not None and not in_outage:
            try:
                self._shadow.decided(self.fleet, request, who, now, made_id, told)
            except Exception as error:  # noqa: BLE001  # whatever it is, the message goes out
                self._shadow.failed(now)
                self._failed("made in shadow", error)

    def withdrawn(self, made_id: str) -> None:
        """That choice was not written after all."""
        if self._journal is not None:
            self._record("withdrawn", made_id)
        if self._shadow is not None:
            self._shadow.withdrawn(made_id)

    def moved(self, who: Who, number: str | None, now: float) -> None:
        """Somebody moved a recipient."""
        if self._journal is not None:
            self._record("moved", who, number, now)

    def settled(self, made: Made, verdict: Verdict, now: float) -> None:
        """What became of a reservation."""
        if self._journal is not None:
            self._record("settled", made, verdict, now)

    def reported(self, report: Report, now: float) -> None:
        """What was learned later."""
        if self._journal is not None:
            self._record("reported", report, now)

    def _record(self, verb: str, *told: Any, **more: Any) -> None:
        assert self._journal is not None
        try:
            getattr(self._journal, verb)(self.fleet, *told, **more)
        except Exception as error:  # noqa: BLE001  # as above
            self._journal.begin_anew()
            self._failed("recorded", error)

    def close(self) -> None:
        """Close the file that was opened for this router."""
        if self._own is not None:
            self._own.close()

    def _failed(self, what: str, error: Exception) -> None:
        self.lost += 1
        if not self._said:
            self._said = True
            log.warning(
                "a decision could not be %s: %s (said once; what is chosen does not depend on it)",
                what,
                type(error).__name__,
            )


def watching(record: object, shadow: object, pool: str, *, static: bool) -> Watch | None:
    """Those who look on at a router; None if nobody does. Raises TypeError for what can't be one of them, ValueError."""
    if record is None and shadow is None:
        return None
    if shadow is not None and not isinstance(shadow, Policy):
        raise TypeError(f"shadow must be a Policy, got {type(shadow).__name__}")
    own = DecisionLog(record) if isinstance(record, str | os.PathLike) else None
    sink: Any = own or record
    if sink is not None and not isinstance(sink, DecisionLog):
        if not callable(getattr(sink, "write", None)):
            raise TypeError(
                f"record must be a path, a DecisionLog or an object with write(str), got {type(record).__name__}"
            )
        sink = Stream(sink)
    from importlib.metadata import version  # which takes its time

    facts = {"linepicker": version("linepicker"), "pool": pool}
    return Watch(
        None if sink is None else Journal(sink, lambda: secrets.token_hex(4), facts),
        None if shadow is None else Shadow(shadow, pool, static=static),
        own,
    )
