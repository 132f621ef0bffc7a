"""What a deployment promised, kept beside it: what may be handed to the provider, and what may be answered.

The ledger hears of every list and webhook, every write that went in (`written`), every message that was handed to the
provider, and every answer. It raises `Violation` at the first one that breaks a promise. Where the design leaves two readings
open it takes either, and it counts against a line only what is certain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from benchmarks.faults.lines import DAY, EPS
from benchmarks.faults.observed import NEVER
from benchmarks.faults.provider import sure
from benchmarks.faults.written import AHEAD, NEAR, Written, returns, wants_none
from linepicker import ChatHealthChanged, Line, LineChanged, OptedOut, Outcome, Replied
from linepicker._asks import Made
from linepicker._contact import Contact
from linepicker._record import Spending
from linepicker.model import Report
from linepicker.stores.memory import MemoryStore

if TYPE_CHECKING:
    from benchmarks.faults.deployment import Task

_FINAL: Final = frozenset({Outcome.SENT, Outcome.UNKNOWN})
"""What is settled though the store is out."""
_ANSWERS: Final = frozenset(
    {"reserve", "preview", "assignment", "lines", "capacity", "plan", "check"}
)
_WAITS: Final[Mapping[str, float]] = {"pace": 3600.0, "pair": 7200.0, "quiet": 7200.0}
"""How long, in seconds, what has a length of its own may keep a message off."""


class Ledger(Written):
    """One deployment's."""

    def __init__(self, store: MemoryStore, seen: Counter[str]) -> None:
        super().__init__(seen)
        self.store = store
        self.messages: dict[str, dict[str, float]] = {}
        """The ids that the provider accepted for one message of the application, and when first."""

    # What reached a process: it may count from now on

    def polled(self, lines: Sequence[Line], issued: float) -> None:
        """A list was read."""
        self.newest = max(self.newest, issued)
        there = {line.number for line in lines}
        for number, book in self.books.items():
            if number not in there:
                book.missed = max(book.missed, issued)
        for line in lines:
            book = self.book(line.number)
            book.listed = max(book.listed, issued)
            if line.reputation == "HEALTHY" and line.unrecognised is None:
                book.critical.polled_fine(issued)
                book.at_risk.polled_fine(issued)
            if line.status != "FLAGGED":
                book.flagged.polled_fine(issued)

    def reporting(self, report: Report) -> None:
        """A webhook came."""
        if isinstance(report, LineChanged):
            book = self.book(report.number)
            if report.reputation == "HEALTHY":
                book.critical.told_fine(report.at, self.slowest)
                book.at_risk.told_fine(report.at, self.slowest)
            if report.status == "ACTIVE":
                book.flagged.told_fine(report.at, self.slowest)
        elif returns(report):
            will = self.will(report.to)
            will.back = max(will.back, report.at)

    # What went out

    def called(self, task: Task, made: Made, now: float) -> None:
        """A message is handed to the provider."""
        now += task.process.skew
        owing = made.kind == "known" and made.in_outage
        self.must(owing or made.id in self.counted or made.resumed, f"{made.id} goes out uncharged")
        early = now < made.send_at - EPS
        stepped = max(self.stepped_at, task.process.stepped_at)
        self.must(not early or stepped >= made.at, "a message leaves before its slot")
        if owing or not (made.id in self.counted or made.resumed):
            return
        book = self.book(made.number)
        self._open_for(
            book,
            task,
            now,
            opened=made.kind != "known",
            resumed=made.resumed,
            looked=task.looked,
        )
        self._wanted(made, made, task.asked)

    def accepted(self, task: Task, made: Made, now: float) -> None:
        """The provider accepted it. A key knows it for a day after it was reserved."""
        ids = self.messages.setdefault(task.message, {})
        ids.setdefault(made.id, self.counted.get(made.id, now))
        lately = [each for each, at in ids.items() if at + DAY > max(now, self.latest)]
        self.must(len(lately) <= 1, f"one message went out twice: {task.message}")

    def finished(self, task: Task) -> None:
        """A call came to its end: what it answers is true."""
        self.leapt.discard(task.name)
        made, report = task.result, task.report
        if task.what == "settle" and task.error is None:
            mine, outcome = task.made, task.made.outcome
            if outcome in _FINAL or mine.ident in self.refunded:  # else it may be open again
                self.firsts.setdefault(mine.id, outcome)
        if isinstance(made, Made) and not (made.in_outage or made.resumed):
            self.must(made.id in self.counted, f"{made.id} was promised, and not written")
        if task.error is None and task.what in _ANSWERS:
            alone = isinstance(made, Made) and made.in_outage
            self.must(not task.misled or alone, f"{task.what} was answered by another store")
        if not sure(task.called):
            self.must(task.error is task.called, f"{task.message}: what the call raised is lost")
        if report is not None and task.result is False:
            self._ignored(task, report)

    def refused(self, task: Task, reason: str | None, wait: float) -> None:
        """A call is to come back so many seconds later: not later than what keeps it off can last, wherever the clock went."""
        most = max(each.recovery.ineligible for each in task.policies) + DAY
        most = _WAITS.get(reason or "", most) + 2 * AHEAD
        if reason == "quiet" or any(each.quiet.hours is not None for each in task.policies):
            most += DAY
        self.must(wait <= most, f"{task.what}: {reason} is to last {wait} s, {most} at most")

    def _ignored(self, task: Task, report: Report) -> None:
        """A report that was called old, or a duplicate, must be that."""
        if self.stepped_at >= report.at - 2 * DAY:
            return
        if isinstance(report, LineChanged) and task.process.desk.fleet.state(report.number):
            book, at = self.book(report.number), min(report.at, self.latest)
            bad = {"CRITICAL": book.critical, "FLAGGED": book.flagged}
            overtaken = at <= max(self.newest, book.at_risk.polled, book.at_risk.told)
            for said in (report.reputation, report.status):
                watched = bad.get(str(said)) if said is not None else None
                self.must(
                    watched is None
                    or overtaken
                    or report.at in watched.ats
                    or not watched.surely_new(at),
                    f"{report.number} is {said}, and nobody listened",
                )
        elif isinstance(report, OptedOut) or (
            isinstance(report, ChatHealthChanged) and wants_none(report)
        ):
            will = self.will(str(report.to))
            self.must(
                max(will.out, will.back) >= report.at - 200.0, f"{report.to} opted out, unheard"
            )
        elif isinstance(report, Replied) and task.process.desk.fleet.state(report.number):
            known = [c for key, c in self.contacts.items() if key.endswith(f"/{report.to}")]
            dated = report.at + DAY <= self.latest and any(c.replied_at >= report.at for c in known)
            self.must(
                report.event_id in self.heard
                or dated  # its message counts no more, and that they answered was known
                or task.process.skew
                or not isinstance(report.to, str),
                f"{report.to} replied, unheard",
            )

    def leaps(self, tasks: Iterable[int], before: float) -> None:
        """The clock leaps ahead, while these calls are under way."""
        self.leapt_from = min(self.leapt_from, before) if self.leapt else before
        self.leapt.update(tasks)

    def stepped(self, now: float) -> None:
        """The clock stepped back: moments that it alone can explain count from now on."""
        self.stepped_at = self.newest = max(self.latest, self.newest)
        for book in self.books.values():
            book.stepped(now + self.slowest, now + NEAR)
        for will in self.wills.values():
            will.out, will.back = NEVER, now
        self.pair_waits.clear()
        self.pairs.clear()

    # In the end

    def audit(self) -> None:
        """The store holds what was acknowledged."""
        found = {key: Contact.decode(record.value or b"") for key, record in self.store.scan("to/")}
        mine = {key: owner.number for key, owner in self.owners.items()}
        theirs = {key: contact.number for key, contact in found.items()}
        self.must(theirs == mine, "assignments in the store are not those that were written")
        for number, book in self.books.items():
            key = f"line/{number}/spending"
            record = self.store.read([key]).records[key]
            there = set(Spending.decode(record.value).ids) if record.value else set()
            lost = [
                ident
                for ident, each in book.charges.items()
                if ident not in there and each.at + DAY > self.latest
            ]
            self.must(not lost, f"{number} lost charges")
