"""What a deployment promised, kept beside it: who is on which line, what each line was charged, what nobody may do any more.

The ledger sees every write that went in, in the order in which they did, and every message the provider accepted. It raises
`Violation` at the first one that breaks a promise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs

from linepicker import Line, LineChanged, OptedIn, OptedOut, Outcome, Replied
from linepicker._decode import decode
from linepicker.stores import SAME, Record, Write
from linepicker.stores.memory import MemoryStore

if TYPE_CHECKING:
    from benchmarks.deployment import Task
    from linepicker._asks import Made

DAY: Final = 86400.0
DRIFT: Final = 300.0
"""How much older than a poll a worse report may be and still count."""
AHEAD: Final = 600.0
"""How far ahead of the clock a moment may be before it counts as one that a clock's step left behind."""
_BAD: Final = ("CRITICAL", "FLAGGED")


class Violation(Exception):
    """A promise was broken."""


@attrs.define
class Charge:
    """A new conversation on a line."""

    ident: int
    at: float
    moved: bool


@attrs.define
class Owner:
    """Whose line is which: the line, and how many reservations were made on this assignment."""

    number: str
    opened: str = ""
    made: int = 0


@attrs.define
class Known:
    """What everybody has to know of a line: the latest acknowledged bad news, and the latest good."""

    bad_at: float = -1.0
    good_at: float = -1.0
    operator: str = ""


class Ledger:
    """One deployment's."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.owners: dict[str, Owner] = {}
        self.charges: dict[str, list[Charge]] = {}
        self.known: dict[str, dict[str, Known]] = {}
        self.operators: dict[str, str] = {}
        self.opted_out: dict[str, float] = {}
        self.opted_back: dict[str, float] = {}
        self.counted: set[str] = set()
        self.messages: dict[str, dict[str, float]] = {}
        """The ids that the provider accepted for one message of the application, and when first."""
        self.made: dict[int, list[Made]] = {}
        """Every reservation as some process knows it, by its ident."""
        self.latest = 0.0
        """The latest moment there ever was: what was a day old then may be forgotten, though the clock stepped back."""
        self.reserved = 0

    @staticmethod
    def must(holds: object, *what: object) -> None:
        """Raise unless it holds."""
        if not holds:
            raise Violation(" ".join(map(str, what)))

    # What was observed

    def of(self, number: str, what: str) -> Known:
        """What everybody has to know of a line's reputation or status."""
        return self.known.setdefault(number, {}).setdefault(what, Known())

    def polled(self, lines: Sequence[Line], issued: float) -> None:
        """A list reached a process: what is good in it may count from now on."""
        for line in lines:
            if line.reputation != "CRITICAL":
                each = self.of(line.number, "reputation")
                each.good_at = max(each.good_at, issued)
            if line.status != "FLAGGED":
                each = self.of(line.number, "status")
                each.good_at = max(each.good_at, issued)

    def reporting(self, task: Task, now: float) -> None:
        """A report reached a process: what is good in it may count from now on."""
        report = task.report
        if isinstance(report, LineChanged):
            if report.reputation not in (None, "CRITICAL"):
                each = self.of(report.number, "reputation")
                each.good_at = max(each.good_at, now)
            if report.status == "ACTIVE":
                each = self.of(report.number, "status")
                each.good_at = max(each.good_at, now)
        elif isinstance(report, OptedIn | Replied) and not _is_stop(report):
            self.opted_back[str(report.to)] = max(self.opted_back.get(str(report.to), -1.0), now)

    # What went in

    def applied(
        self, task: Task, writes: Sequence[Write], before: Mapping[str, Record], now: float
    ) -> None:
        """A swap was applied."""
        self.latest = max(self.latest, now)
        if task.made is not None and task.made not in self.made.setdefault(task.made.ident, []):
            self.made[task.made.ident].append(task.made)
        changes = {write.key: write.value for write in writes if write.value is not SAME}
        made = task.made
        for key, value in changes.items():
            if key.startswith("to/"):
                self._owned(task, key.split("/", 2)[2], value, before[key], now)
        for key, value in changes.items():
            if key.endswith("/spending"):
                self._spent(task, key.split("/")[1], value, now)
            elif key.endswith("/standing"):
                self._stands(key.split("/")[1], value)
        if made is not None and made.id not in self.counted and task.what in ("reserve", "send"):
            spending = changes.get(f"line/{made.number}/spending")
            contact = changes.get(made.who.contact_key)
            if isinstance(spending, bytes) and isinstance(contact, bytes):
                self._reserved(task, made, now)
        report = task.report
        if isinstance(report, OptedOut) or (isinstance(report, Replied) and _is_stop(report)):
            to = str(report.to)
            if any(key.startswith("block/") for key in changes):
                self.opted_out[to] = max(self.opted_out.get(to, -1.0), min(report.at, now))

    def _owned(self, task: Task, to: str, value: Any, before: Record, now: float) -> None:
        was = self.owners.get(to)
        held = decode("to/", before)
        self.must(
            (held.number if held else None) == (was.number if was else None),
            f"the record of {to} says {held and held.number}, and {was and was.number} was written",
        )
        contact = decode("to/", Record(1, value)) if value is not None else None
        made = task.made
        if contact is None:
            self.must(
                was is None or self._given_back(to, None) or task.what == "forget",
                f"{to} lost their line by {task.what}",
            )
            self.owners.pop(to, None)
        elif was is None:
            born = made is not None and made.kind == "new" and made.number == contact.number
            self.must(
                born or isinstance(task.report, Replied) or task.what == "assign",
                f"{to} got {contact.number} by {task.what}",
            )
            self.owners[to] = Owner(contact.number)
        elif was.number != contact.number:
            moved = (
                made is not None
                and made.kind == "moved"
                and made.number == contact.number
                and made.moved_from == was.number
            )
            back = self._given_back(to, contact.number)
            self.must(
                moved or back or task.what == "move",
                f"{to} went from {was.number} to {contact.number} by {task.what}",
            )
            self.owners[to] = Owner(contact.number)

    def _given_back(self, to: str, number: str | None) -> bool:
        """Whether a reservation that is given back may have brought them from that line (None: from none)."""
        return any(
            made.outcome in UNDONE and made.who.recipient.key == to and made.moved_from == number
            for known in self.made.values()
            for made in known
        )

    def _spent(self, task: Task, number: str, value: Any, now: float) -> None:
        spending = decode("line/x/spending", Record(1, value))
        there = set(spending.ids)
        kept = []
        for charge in self.charges.get(number, ()):
            if charge.ident in there:
                kept.append(charge)
            elif charge.at + DAY > self.latest:
                undone = any(made.outcome in UNDONE for made in self.made[charge.ident])
                self.must(undone, f"{number} lost a charge of {charge.at} by {task.what} at {now}")
        self.charges[number] = kept

    def _stands(self, number: str, value: Any) -> None:
        self.operators[number] = decode("line/x/standing", Record(1, value)).operator

    def _reserved(self, task: Task, made: Made, now: float) -> None:
        self.counted.add(made.id)
        self.reserved += 1
        to, number, policy = made.who.recipient.key, made.number, task.process.policy
        owner = self.owners[to]
        self.must(owner.number == number, f"{to} is on {owner.number}, reserved was {number}")
        owner.made += 1
        opened = made.kind != "known"
        operator = self.operators.get(number, "")
        self.must(operator != "paused", f"{number} is paused, and was reserved")
        self.must(not (operator and opened), f"{number} is {operator}, and took somebody new")
        for what in ("reputation", "status"):
            each = self.of(number, what)
            out = each.bad_at >= 0 and each.good_at <= each.bad_at
            self.must(
                not out,
                f"{number} has a bad {what} since {each.bad_at}, and was reserved ({made.kind})",
            )
        gone, back = self.opted_out.get(to, -1.0), self.opted_back.get(to, -1.0)
        self.must(
            made.override_optout or gone < 0 or back >= gone, f"{to} opted out, and was reserved"
        )
        self.must(made.send_at >= made.at, "a message is to leave before it was decided")
        if not opened:
            return
        charges = self.charges.setdefault(number, [])
        at = (
            made.send_at if made.send_at <= now + AHEAD else now
        )  # decided before the clock stepped
        charges.append(Charge(made.ident, at, made.kind == "moved"))
        limits = policy.limits_for(made.line)
        share = policy.pace.spread if policy.pace.new_gap else None
        day = limits.new_per_day
        for limit, window in (
            (day, DAY),
            (limits.new_per_hour, 3600.0),
            (None if share is None or day is None else -int(-share * day // 1), 6 * 3600.0),
        ):
            within = sum(each.at + window > made.at for each in charges)
            self.must(
                limit is None or within <= limit,
                f"{number}: {within} in {window:g} s, {limit} allowed",
            )
        moves = sum(each.moved and each.at + DAY > made.at for each in charges)
        self.must(
            made.kind != "moved" or limits.moves_per_day is None or moves <= limits.moves_per_day,
            f"{number}: {moves} moves in a day, {limits.moves_per_day} allowed",
        )

    # What went out

    def called(self, task: Task, made: Made, now: float) -> None:
        """A message is handed to the provider."""
        owing = made.kind == "known" and task.process.policy.on_store_error == "known_only"
        self.must(owing or made.id in self.counted, f"{made.id} goes out uncharged")
        early = now < made.send_at - 1e-6
        self.must(not early or self.latest > now, "a message leaves before its slot")

    def accepted(self, task: Task, made: Made, now: float) -> None:
        """The provider accepted it."""
        ids = self.messages.setdefault(task.message, {})
        ids.setdefault(made.id, now)
        lately = [each for each, at in ids.items() if at + DAY > now]  # a key holds for a day
        self.must(len(lately) <= 1, f"one message went out twice: {task.message}")

    def finished(self, task: Task, now: float) -> None:
        """A call came to its end: bad news that was taken is known to everybody from now on."""
        report = task.report
        if isinstance(report, LineChanged) and task.result is True:
            for what, value in (("reputation", report.reputation), ("status", report.status)):
                if value in _BAD:
                    each = self.of(report.number, what)
                    each.bad_at = max(each.bad_at, min(report.at, now))

    def stepped(self, now: float) -> None:
        """The clock stepped back: moments that it alone can explain count from now on."""
        for charges in self.charges.values():
            for each in charges:
                if each.at > now + AHEAD:
                    each.at = now
        for lines in self.known.values():
            for each in lines.values():
                each.bad_at, each.good_at = min(each.bad_at, now), max(each.good_at, now)
        self.opted_out = {to: min(at, now) for to, at in self.opted_out.items()}
        self.opted_back = dict.fromkeys({*self.opted_out, *self.opted_back}, now)

    # In the end

    def audit(self, now: float) -> None:
        """The store holds what was acknowledged."""
        found = {
            key.split("/", 2)[2]: decode(key, record).number
            for key, record in self.store.scan("to/")
        }
        mine = {to: owner.number for to, owner in self.owners.items()}
        self.must(found == mine, "assignments in the store are not those that were written")
        for number, charges in self.charges.items():
            record = self.store.read([f"line/{number}/spending"]).records[f"line/{number}/spending"]
            spending = decode("line/x/spending", record)
            there = set(spending.ids) if spending else set()
            lost = [
                each for each in charges if each.ident not in there and each.at + DAY > self.latest
            ]
            self.must(not lost, f"{number} lost charges")


def _is_stop(report: Replied | OptedIn) -> bool:
    return isinstance(report, Replied) and (report.text or "").strip().upper() == "STOP"


UNDONE: Final = (Outcome.NOT_SENT, Outcome.LINE_REFUSED, Outcome.RECIPIENT_REFUSED)
