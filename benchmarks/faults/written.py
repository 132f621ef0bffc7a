"""What was written, kept beside the store: who is on which line, what each line was charged, who wants no messages.

Every write is seen that went in, in the order in which they did. The first one that breaks a promise raises `Violation`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeGuard

import attrs

from benchmarks.faults.lines import DAY, EPS, Book, Charge, span_of
from benchmarks.faults.observed import DRIFT, NEVER
from benchmarks.faults.purpose import purpose
from linepicker import (
    ChatHealthChanged,
    LineChanged,
    LineReleased,
    OptedIn,
    OptedOut,
    Outcome,
    Replied,
)
from linepicker._asks import Made
from linepicker._contact import Contact
from linepicker._record import EPOCH, Spending, Standing
from linepicker._upkeep import EVENTS_KEPT
from linepicker._windows import BUCKET
from linepicker.model import Report
from linepicker.stores import SAME, Write

if TYPE_CHECKING:
    from benchmarks.faults.deployment import Task

AHEAD: Final = 600.0
"""How far ahead of the clock a moment may be before it counts as one that a clock's step left behind."""
NEAR: Final = 240.0
"""How far ahead a moment surely is no such one: less than that a slow process takes for its clock's SKEW."""
LEASE: Final = 600.0
"""How long an unsettled trial keeps a line on probation to itself, in seconds after it was to leave."""
UNDONE: Final = frozenset({Outcome.NOT_SENT, Outcome.LINE_REFUSED, Outcome.RECIPIENT_REFUSED})
_BLAMELESS: Final = UNDONE - {Outcome.LINE_REFUSED} | {Outcome.RATE_LIMITED, Outcome.UNKNOWN}
_ZONES: Final[Mapping[str, float]] = {"UTC": 0.0, "Etc/GMT+8": -8.0, "Etc/GMT-9": 9.0}


class Violation(Exception):
    """A promise was broken."""


@attrs.define
class Owner:
    """Whose line is which. `born`: the reservation that made the assignment, or the last move; `made`: how many were since."""

    number: str
    born: int = 0
    made: int = 0


@attrs.define
class Will:
    """What a handle wants, as far as the store has taken it: the latest opt-out or refusal, and the latest return heard of."""

    out: float = NEVER
    since: int = 0
    back: float = NEVER

    def gone(self) -> bool:
        """Whether nobody may write to them."""
        return self.out > NEVER and self.back <= self.out


@attrs.define
class Keyed:
    """What a key stands for."""

    id: str
    at: float
    outcome: Outcome | None = None


class Written:
    """One deployment's."""

    def __init__(self, seen: Counter[str]) -> None:
        self.seen = seen
        self.epoch = ""
        self.books: dict[str, Book] = {}
        self.owners: dict[str, Owner] = {}
        self.contacts: dict[str, Contact] = {}
        self.wills: dict[str, Will] = {}
        self.pairs: dict[tuple[str, str], list[tuple[int, float]]] = {}
        self.pair_waits: dict[tuple[str, str], float] = {}
        self.keys: dict[tuple[str, str], Keyed] = {}
        self.counted: dict[str, float] = {}
        """The reservations that were written, and of when they are."""
        self.refunded: set[int] = set()
        self.firsts: dict[str, Outcome] = {}
        """What became of a reservation, by the first call that said so."""
        self.heard: dict[str, float] = {}
        """The replies that were taken, by event, and until when that is known."""
        self.latest = 0.0
        """The latest moment there ever was: what was a day old then may be forgotten, though the clock stepped back."""
        self.host = 0.0
        """What the host's clock shows."""
        self.slowest = 0.0
        """How far the slowest process's clock ever was from it: what is later than that clock shows, it takes for now."""
        self.stepped_at = NEVER
        self.leapt: set[int] = set()
        """The calls that were under way when the clock leapt ahead last, and that may think it is still as early as then."""
        self.leapt_from = 0.0
        self.newest = NEVER
        """When the newest list was asked for."""
        self.moment = 0
        """How many writes there were."""
        self.reserved = 0
        self.paced = True

    @staticmethod
    def must(holds: object, *what: object) -> None:
        """Raise unless it holds."""
        if not holds:
            raise Violation(" ".join(map(str, what)))

    def book(self, number: str) -> Book:
        """What is known of a line."""
        found = self.books.get(number)
        if found is None:
            found = self.books[number] = Book(number)
        return found

    def will(self, to: str) -> Will:
        """What is known of a handle's wishes."""
        return self.wills.setdefault(to, Will())

    # What went in

    def applied(self, task: Task, writes: Sequence[Write], now: float) -> None:
        """A swap was applied."""
        kind, its = purpose(task.flow)
        self.moment, self.host = self.moment + 1, now
        self.seen[f"write {kind}"] += 1
        made: Made | None = its.get("made") if kind in ("reserve", "settle", "pay") else None
        at = its.get("now", now)
        self.latest = max(self.latest, now, at, made.at if made is not None else at)
        changes = {write.key: write.value for write in writes if write.value is not SAME}
        before, was = self.contacts, None
        if made is not None:
            was = before.get(made.who.contact_key)
        for key, value in changes.items():
            if key[:3] == "to/":
                self._owned(task, kind, its, key, value)
        for key, value in changes.items():
            if key[-9:] == "/spending":
                self._spent(task, kind, its, key[5:-9], Spending.decode(value), was)
            elif key[-9:] == "/standing":
                self._stands(kind, its, key[5:-9], Standing.decode(value))
        if kind == "reserve":
            self._reserved(task, its, changes)
        elif kind == "settle":
            self._settled(task, its, changes, was)
        elif kind == "move":
            self._moved(task, its, changes)
        elif kind == "poll":
            self._showed(its, changes, now)
        elif kind in ("line", "person", "reply", "chat", "receipt"):
            self._told(kind, its, changes)
        elif kind == "open":
            self.epoch = changes[EPOCH].decode()

    def _owned(
        self, task: Task, kind: str, its: Mapping[str, Any], key: str, value: bytes | None
    ) -> None:
        was, to = self.owners.get(key), key[3:]
        contact = Contact.decode(value) if value is not None else None
        made: Made | None = its.get("made") if kind in ("reserve", "settle") else None
        undone = kind == "settle" and its["outcome"] in UNDONE and made and not made.resumed
        if contact is None:
            mine = was and made and was.born == made.ident and was.made == 1
            self.must(
                was is None or kind == "forget" or (undone and mine and made.kind != "moved"),
                f"{to} lost their line by {kind} of {task.what}",
            )
            self.owners.pop(key, None)
            self.contacts.pop(key, None)
            for pair in [each for each in self.pairs if each[0] == key]:
                del self.pairs[pair]  # nobody knows any more when they were written to
                self.pair_waits.pop(pair, None)
            return
        self.contacts[key] = contact
        if was is None:
            self.must(
                kind in ("reply", "assign")
                or (kind == "reserve" and made and made.number == contact.number),
                f"{to} got {contact.number} by {kind} of {task.what}",
            )
            born = made.ident if kind == "reserve" and made else 0
            self.owners[key] = Owner(contact.number, born, int(born > 0))
        elif was.number != contact.number:
            moved = (
                kind == "reserve"
                and made
                and (made.kind, made.number, made.moved_from)
                == ("moved", contact.number, was.number)
            )
            back = (
                undone
                and made
                and made.kind == "moved"
                and (was.born, was.made) == (made.ident, 1)
                and made.moved_from == contact.number
            )
            self.pair_waits.pop(
                (key, was.number), None
            )  # how long they wait is known of one line only
            self.must(
                moved or back or kind == "move",
                f"{to} went from {was.number} to {contact.number} by {kind} of {task.what}",
            )
            self.owners[key] = Owner(
                contact.number, made.ident if moved and made else 0, int(bool(moved or back))
            )
        elif kind in ("reserve", "pay"):
            was.made += 1

    def _spent(
        self,
        task: Task,
        kind: str,
        its: Mapping[str, Any],
        number: str,
        after: Spending,
        contact: Contact | None,
    ) -> None:
        book = self.book(number)
        before, book.spending = book.spending, after
        edge = int((self.latest - DAY) // BUCKET) + 1
        change = _counted(after, edge) - _counted(before, edge)
        sure = its.get("now", 0.0) >= max(self.stepped_at, self.latest - 2 * DAY) + DAY + BUCKET
        ids, charges = set(after.ids), book.charges
        new = ids - charges.keys()
        gone = {
            ident: charge
            for ident, charge in charges.items()
            if ident not in ids and charge.at + DAY > self.latest
        }
        where = f"{number} by {kind} of {task.what}"
        made: Made | None = its.get("made") if kind in ("reserve", "settle", "pay") else None
        undone = kind == "settle" and its["outcome"] in UNDONE and made and not made.resumed
        if undone and made:
            self.must(made.ident not in ids, f"{where}: a charge was not given back")
            again = made.ident in self.refunded
            had = contact is not None and made.ident in contact.ids
            self.must(not (again and (change or gone)), f"{where}: given back twice")
            old = made.send_at + DAY <= self.latest + BUCKET or self.stepped_at >= made.at
            if number == made.number and sure and not old:
                self.must(change == -had, f"{where}: {change} messages, {-had} were to be")
            gone.pop(made.ident, None)
            if had or made.ident in charges:
                self.refunded.add(made.ident)
            if had:
                self._uncounted(book, made, before, after)
        elif kind == "reserve" and made:
            self.must(change == 1 or not sure, f"{where}: {change} messages charged")
            opened = {made.ident} if made.kind != "known" else set()
            self.must(new == opened, f"{where}: charged were {new}, not {opened}")
        elif kind == "move":
            self.must(new == {its["ident"]}, f"{where}: a move was not charged")
            self.must(not change or not sure, f"{where}: a move is no message")
        elif kind in ("reply", "pay"):
            heard = self.heard.get(its["report"].event_id, NEVER) if kind == "reply" else NEVER
            self.must(self.latest >= heard, f"{where}: a reply was counted twice")
            key = its["report"].event_id if kind == "reply" else its["made"].ident
            at = its["report"].at if kind == "reply" else its["made"].send_at
            at = min(self._dated(at, its["now"]), its["now"])
            old = at + DAY <= self.latest + BUCKET
            known = change == 1 or (old and change == 0) or not sure
            self.must(known, f"{where}: {change} messages counted")
            book.messages[key] = at
            if made is not None:
                self.counted[made.id] = made.at
            self.must(not new, f"{where}: somebody was charged")
        else:
            self.must(not change or not sure, f"{where}: {change} messages counted")
            self.must(not new, f"{where}: somebody was charged")
        self.must(not gone, f"{where}: lost a charge")
        if len(ids) < len(charges) or gone:
            book.charges = {ident: each for ident, each in charges.items() if ident in ids}

    def _uncounted(self, book: Book, made: Made, before: Spending, after: Spending) -> None:
        """It is given back. Where the clock stepped back since it was made, a step may have moved it in the counts and not on
        the contact: then it is taken off those of when it was made."""
        counted, less = book.messages.pop(made.ident, None), _taken_off(before, after)
        if counted is None or less in (None, counted // BUCKET) or self.stepped_at < made.at:
            return
        same = next((each for each, at in book.messages.items() if at // BUCKET == less), None)
        if same is not None:
            del book.messages[same]

    def _stands(self, kind: str, its: Mapping[str, Any], number: str, after: Standing) -> None:
        book = self.book(number)
        if kind == "operate":
            book.operator, book.operated = its["state"], self.moment
        self.must(after.operator == book.operator, f"{number} is {after.operator} by {kind}")
        if kind == "settle":
            blamed = its["outcome"] not in _BLAMELESS
            self.must(blamed, f"{number} was blamed for {its['outcome']}")
        if its.get("now", self.host) < self.host - NEAR:
            # It slept meanwhile: what others wrote seems to it to come from a clock that stepped back.
            book.refused_until = min(book.refused_until, after.out_until)
        book.standing = after

    def _reserved(self, task: Task, its: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
        made, request, policy = its["made"], its["request"], task.policy
        number, now, key = made.number, made.at, made.who.contact_key
        to, opened = made.who.recipient.key, made.kind != "known"
        self.must(made.id not in self.counted, f"{made.id} was charged twice")
        self.counted[made.id] = made.at
        self.reserved += 1
        self.seen[f"reserved {made.kind}"] += 1
        self.must(self.owners[key].number == number, f"{to} is not on {number}")
        book = self.book(number)
        shown = max(
            now, self.host + task.process.skew
        )  # another call may have told what time it is
        self._open_for(book, task, shown, opened=opened, resumed=False)
        self._wanted(made, request, self.moment)
        self.must(
            made.at - EPS <= made.send_at <= made.at + request.max_delay + EPS,
            f"{to} is to wait {made.send_at - made.at} s, {request.max_delay} allowed",
        )
        if request.line is not None:
            self.must(number == request.line, f"{number} is not the line asked for")
        self.must(number not in request.exclude, f"{number} was excluded")
        age = now - self.newest
        health = policy.health
        most = health.max_age if health.on_stale == "refuse" else health.max_age_hard
        same = task.policy is task.asked_under
        self.must(not same or age <= most + EPS, f"the newest list is {age} s old")
        if same and not request.inbound:
            self.must(not _rests(policy, to, made.send_at), f"{to} rests at {made.send_at}")
        limits = policy.limits_for(made.line)
        at = self._dated(made.send_at, now)
        if opened:
            self._charged(book, policy, limits, made.ident, at, now, moved=made.kind == "moved")
        else:
            self._pair(book, limits.pair_per_minute, key, now)
        if now > self.host + AHEAD or self.leapt:  # it was asked before the clock stepped
            book.new_mark = book.message_mark = NEVER
        elif self.paced:
            self.must(
                book.paced(policy, now, made.send_at, opens=opened, message=True),
                f"{number}: too early at {made.send_at}",
            )
        book.messages[made.ident] = at
        self.pairs.setdefault((key, number), []).append((made.ident, at))
        sent, limit = book.sent(now, self.latest), limits.messages_per_day
        self.must(limit is None or sent <= limit, f"{number}: {sent} messages, {limit} allowed")
        if book.probation:
            probe = book.probe
            alone = probe is None or probe[1] + LEASE <= now + EPS
            self.must(alone, f"{number} is tried twice at once")
            book.probe = (made.ident, at)
        if made.key is not None:
            self._keyed(made, changes)

    def _dated(self, at: float, now: float) -> float:
        """When it counts. A moment far ahead of the host's clock is one that a step of it left behind: whoever sees it next
        takes it for theirs, and that may be the slowest."""
        if self.leapt:
            at = min(at, self.leapt_from)
        return at if at <= self.host + AHEAD else min(now, self.host + self.slowest)

    def _open_for(
        self,
        book: Book,
        task: Task,
        now: float,
        *,
        opened: bool,
        resumed: bool,
        looked: float = 1e18,
    ) -> None:
        """Nothing is certain that keeps such a message off the line. *looked*: until which write that was known."""
        number, span = book.number, min(map(span_of, task.policies))
        if book.operated <= looked:
            self.must(book.operator != "paused", f"{number} is paused, and was used")
            drains = book.operator == "draining" and opened and not resumed
            self.must(not drains, f"{number} is draining, and took somebody new")
        for name, each in (("CRITICAL", book.critical), ("FLAGGED", book.flagged)):
            self.must(
                each.since > looked or not each.certain(span, self.slowest),
                f"{number} is {name}, and was used",
            )
        if looked > self.moment:
            self.must(book.listed >= book.released, f"{number} was taken away, and was used")
            self.must(
                now + EPS >= book.refused_until,
                f"{number} is out until {book.refused_until}, and was used",
            )

    def _wanted(self, made: Made, request: Any, looked: int) -> None:
        """The recipient may be written to, as far as was known by then."""
        if made.who.is_group or request.override_optout:
            return
        to = made.who.recipient.key
        will = self.wills.get(to)
        if will is not None and will.since <= looked:
            self.must(not will.gone(), f"{to} wants no messages, and was written to")

    def _charged(
        self,
        book: Book,
        policy: Any,
        limits: Any,
        ident: int,
        at: float,
        now: float,
        *,
        moved: bool,
    ) -> None:
        book.charges[ident] = Charge(at, moved)
        book.open_day(now, now if now <= self.host + AHEAD else self.host)
        for name, most, window in book.bearable(policy, limits, self.slowest):
            within = book.within(window, now, self.latest)
            self.must(within <= most, f"{book.number}: {within} in {name}, {most} allowed")
        moves, most = book.moves(now, self.latest), limits.moves_per_day
        self.must(
            not moved or most is None or moves <= most,
            f"{book.number}: {moves} moves in a day, {most} allowed",
        )

    def _pair(self, book: Book, limit: int | None, key: str, now: float) -> None:
        pair = (key, book.number)
        self.must(now + EPS >= self.pair_waits.get(pair, NEVER), f"{key} has to wait")
        known = self.pairs.get(pair, [])
        recent = [each for each in known if each[1] + 60.0 > max(now, self.latest) + EPS]
        self.pairs[pair] = recent
        self.must(limit is None or len(recent) < limit, f"{key}: more than {limit} in a minute")

    def _keyed(self, made: Made, changes: Mapping[str, Any]) -> None:
        pool = made.who.contact_key.split("/", 2)[1]
        name = (pool, made.key or "")
        self.must(f"key/{pool}/{made.key}" in changes, f"nobody will know of {made.key}")
        earlier = self.keys.get(name)
        self.must(
            earlier is None
            or earlier.outcome in UNDONE
            or max(self.latest, made.at) >= earlier.at + DAY - EPS,
            f"{made.key} was charged twice",
        )
        self.keys[name] = Keyed(made.id, made.at)

    def _settled(
        self, task: Task, its: Mapping[str, Any], changes: Mapping[str, Any], was: Contact | None
    ) -> None:
        made, verdict, outcome, now = its["made"], its["verdict"], its["outcome"], its["now"]
        book, key, number = self.book(made.number), made.who.contact_key, made.number
        self.seen[f"settled {outcome}"] += 1
        first = self.firsts.get(made.id, outcome)
        self.must(first is outcome, f"{made.id} was {first}, and then {outcome}")
        undone = outcome in UNDONE and not made.resumed
        if undone:
            pair = self.pairs.get((key, number), [])
            self.pairs[key, number] = [each for each in pair if each[0] != made.ident]
            owner = self.owners.get(key)
            left = owner and owner.born == made.ident and owner.made == 1 and was
            self.must(
                not left or made.ident not in was.ids or key not in self.contacts,
                f"{key} keeps a line that nothing was sent from",
            )
            self.must(
                made.ident not in book.charges or made.ident not in set(book.spending.ids),
                f"{number} keeps a charge for nothing",
            )
            book.charges.pop(made.ident, None)
        if outcome is Outcome.LINE_REFUSED:
            dated = verdict.retry_after is not None
            least = min(each.recovery.ineligible for each in task.policies)
            wait = verdict.retry_after if dated else least
            out = book.standing.out_until >= now + wait - EPS
            self.must(
                out and (dated or book.standing.probation),
                f"{number} refused, and nobody will know",
            )
            if now > self.host + NEAR:  # it began before the clock stepped back, and is over
                book.refused_until = NEVER
            elif f"line/{number}/standing" in changes:
                # else it says what stood there to the microsecond: whoever took that for over at a step back hears nothing
                book.refused_until = max(book.refused_until, now + wait)
            book.probation = book.probation or not dated
        elif outcome is Outcome.SENT and f"line/{number}/standing" in changes:
            book.refused_until, book.probation = NEVER, False
        if book.probe is not None and book.probe[0] == made.ident:
            book.probe = None
        awaited = outcome in (Outcome.SENT, Outcome.UNKNOWN) and book.standing.failing_until > 0.0
        self.must(
            awaited or book.spending.probe != made.ident,
            f"{number}: a settled trial still keeps others off",
        )
        if outcome is Outcome.RECIPIENT_REFUSED and made.who.block_key is not None:
            will = self.will(made.who.recipient.key)
            will.out, will.since = max(will.out, now), self.moment
        if outcome is Outcome.RATE_LIMITED and key in self.contacts:
            wait = 60.0 if verdict.retry_after is None else verdict.retry_after
            if now > self.host + NEAR:  # it began before the clock stepped back, and is over
                self.pair_waits.pop((key, number), None)
            elif self.contacts[key].number == number:
                self.pair_waits[key, number] = now + wait
        if made.key is not None:
            name = (key.split("/", 2)[1], made.key)
            known = self.keys.get(name)
            if (
                known is not None
                and known.id == made.id
                and not (made.resumed and outcome in UNDONE)
            ):
                known.outcome = known.outcome if known.outcome is Outcome.SENT else outcome

    def _moved(self, task: Task, its: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
        choice, now, who = its["choice"], its["now"], its["who"]
        book, policy = self.book(choice.number), task.policy
        self.seen["moved by an operator"] += 1
        self.must(f"line/{choice.number}/spending" in changes, "a move was not charged")
        self._open_for(book, task, now, opened=True, resumed=False)
        limits = policy.limits_for(its["state"].line)
        at = self._dated(choice.send_at, now)
        self._charged(book, policy, limits, its["ident"], at, now, moved=True)
        if self.paced:
            book.paced(policy, now, choice.send_at, opens=True, message=False)
        self.must(self.owners[who.contact_key].number == choice.number, "a move went elsewhere")

    def _showed(self, its: Mapping[str, Any], changes: Mapping[str, Any], now: float) -> None:
        issued = min(its["issued"], now + self.slowest)
        stepped = its["issued"] > now + DRIFT  # the clock, while the list was on its way
        for line in its["lines"]:  # else the clock stepped
            if f"line/{line.number}/standing" not in changes:
                continue
            book = self.book(line.number)
            if stepped:
                book.forgiven()
                continue
            if issued <= book.missed:
                continue  # a process that had the line in its list takes a later list for one that says the same of it
            if line.unrecognised is not None or line.reputation != "HEALTHY":
                book.at_risk.shown(issued, self.moment)
            if line.reputation == "CRITICAL":
                self._fell(book)
                book.critical.shown(issued, self.moment)
            if line.status == "FLAGGED":
                book.flagged.shown(issued, self.moment)
        for key, value in changes.items():
            if key[:6] == "fleet/":
                self.must(b'"lease_until":0' in value, "a poll keeps its lease")

    def _told(self, kind: str, its: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
        if kind == "line":
            report, heard = its["report"], min(its["now"], self.host + self.slowest)
            if isinstance(report, LineReleased):
                self.book(report.number).released = max(heard, self.book(report.number).released)
            elif isinstance(report, LineChanged):
                book, at = self.book(report.number), report.at
                if report.unrecognised is not None or report.reputation not in (None, "HEALTHY"):
                    book.at_risk.reported(at, heard, self.moment)
                if report.reputation == "CRITICAL":
                    self._fell(book)
                    book.critical.reported(at, heard, self.moment)
                if report.status == "FLAGGED":
                    book.flagged.reported(at, heard, self.moment)
                for each in (book.critical, book.at_risk, book.flagged):
                    each.brought(heard)
            return
        report = its["report"]
        if kind == "reply" and report.event_id and any(key[:6] == "event/" for key in changes):
            self.heard[report.event_id] = its["now"] + EVENTS_KEPT
        if wants_none(report) and any(key[:6] == "block/" for key in changes):
            will = self.will(str(report.to))
            at = min(report.at, its["now"], self.host + self.slowest)
            will.out, will.since = max(will.out, at), self.moment
        elif returns(report):  # again, as the clock may have stepped back since it came
            will = self.will(report.to)
            will.back = max(will.back, min(report.at, its["now"]))

    @staticmethod
    def _fell(book: Book) -> None:
        """It is CRITICAL: how it comes back counts from its sending days so far."""
        book.days_at_fall = max(book.days, book.days_at_fall or 0)


def is_stop(report: Report) -> bool:
    """Whether it is a reply that asks to be left alone."""
    return isinstance(report, Replied) and (report.text or "").strip() == "STOP"


def returns(report: Report) -> TypeGuard[OptedIn | Replied]:
    """Whether it says that one person wants messages."""
    back = isinstance(report, OptedIn | Replied) and isinstance(report.to, str)
    return back and not is_stop(report)


def wants_none(report: Report) -> bool:
    """Whether it says that somebody wants no messages."""
    told = isinstance(report, ChatHealthChanged) and report.health == "OPTED_OUT"
    return (told or isinstance(report, OptedOut) or is_stop(report)) and isinstance(report.to, str)


def _taken_off(before: Spending, after: Spending) -> int | None:
    """Which of the five minutes counts fewer messages than before; None: none that is still counted."""
    was = dict(zip(before.buckets[::2], before.buckets[1::2], strict=True))
    now = zip(after.buckets[::2], after.buckets[1::2], strict=True)
    return next((bucket for bucket, count in now if count < was.get(bucket, 0)), None)


def _counted(spending: Spending, edge: int) -> int:
    buckets = spending.buckets
    if not buckets or buckets[0] >= edge:
        return spending.messages
    return sum(buckets[i + 1] for i in range(0, len(buckets), 2) if buckets[i] >= edge)


def _rests(policy: Any, to: str, at: float) -> bool:
    """Whether anybody of them is to be left alone at that moment."""
    quiet = policy.quiet
    if quiet.hours is None:
        return False
    for handle in to.split(","):
        window, zone = quiet.hours, quiet.zone
        for prefix in sorted(quiet.prefix, key=len):
            if handle.startswith(prefix):
                window = quiet.prefix[prefix].hours or quiet.hours
                zone = quiet.prefix[prefix].zone or quiet.zone
        hour = (at / 3600.0 + _ZONES[zone]) % 24.0
        if window != "off" and (hour >= 21.0 or hour < 8.0):
            return True
    return False
