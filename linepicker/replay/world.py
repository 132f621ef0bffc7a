"""What the world did in a recorded history, told to routers of another policy: who the lines were and how they fared, what
operators did, who wrote first, replied, opted out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

from linepicker import model
from linepicker._asks import Who
from linepicker._observations import BADNESS, UNKNOWN, Observations
from linepicker._record import Standing, contact_key, spending_key, standing_key
from linepicker._small import encode_small
from linepicker.errors import LinePickerError, SourceError
from linepicker.model import (
    ChatHealthChanged,
    Line,
    LineChanged,
    OptedIn,
    OptedOut,
    Replied,
    ServiceStatus,
    To,
)
from linepicker.policy import Policy
from linepicker.replay.log import Decided, Session
from linepicker.router import Router
from linepicker.stores import Write
from linepicker.stores.memory import MemoryStore

__all__ = ["World", "quietly"]

_MESSAGES: Final = 100_000  # whose receipts may still come


class _Clock:
    """The recorded time. It never goes back."""

    def __init__(self) -> None:
        self.moment = 0.0

    def now(self) -> float:
        """The moment."""
        return self.moment

    def sleep(self, seconds: float) -> None:
        """So much later."""
        self.moment += seconds


class _Source:
    """The line list as it was."""

    def __init__(self) -> None:
        self.lines: dict[str, Line] = {}
        self.away = False

    def fetch(self) -> list[Line]:
        """The list, or SourceError where it could not be had then."""
        if self.away:
            raise SourceError("the list was not to be had")
        return list(self.lines.values())


@attrs.define
class _Known:
    """A recipient under the name that the log has for them, and what the new world was told of them."""

    to: To
    met: bool = False
    out: float | None = None
    back: float | None = None
    replied_at: float = 0.0
    view: tuple[str, float] = ("", 0.0)


class World:
    """Lines, people and time as they were, before routers whose records are their own."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.clock, self.source = _Clock(), _Source()
        self.store = MemoryStore(time=self.clock.now)
        self.routers: dict[str, Router] = {}
        self.people: dict[str, _Known] = {}
        self.standings: dict[str, tuple[Standing, str, str, str]] = {}
        self._left_from: OrderedDict[str, str] = OrderedDict()

    def at(self, moment: float) -> None:
        """It is that late now. Time does not go back."""
        self.clock.moment = max(self.clock.moment, moment)

    def before(self, session: Session, decided: Decided) -> tuple[Router, Who]:
        """The world as it was when a request came: the router it came to, and whom it was for."""
        router = self._router(session)
        self._lines(router, session)
        who = self._who(router, session, decided)
        self._person(router, session, decided, who)
        return router, who

    def _router(self, session: Session) -> Router:
        """The router of a session's pool. The first one finds the lines as the log finds them."""
        router = self.routers.get(session.pool)
        if router is None:
            router = self.routers[session.pool] = Router(
                self.source,
                policy=self.policy,
                store=self.store,
                pool=session.pool,
                clock=self.clock,
            )
        return router

    def _lines(self, router: Router, session: Session) -> None:
        fleet = session.fleet
        self.source.away = False
        first, relisted = not self.source.lines, False
        for number, state in fleet.states():
            old = self.standings.get(number)
            if old is not None and old[0] is state.standing:
                continue
            reputation, seen_at = _latest(state.standing.reputation)
            status, told_at = _latest(state.standing.status)
            operator = state.standing.operator
            self.standings[number] = state.standing, reputation, status, operator
            if old is None:
                relisted = True
                if first:
                    self._seed(number, state.standing.encode(), state.spending.encode())
                continue
            for word, was, at in ((reputation, old[1], seen_at), (status, old[2], told_at)):
                if word not in (was, "", UNKNOWN):
                    relisted = True
                    self._changed(router, number, word, at)
            if operator != old[3]:
                self._operated(router, number, operator)
        gone = [number for number in self.source.lines if fleet.state(number) is None]
        if len(fleet) and (relisted or gone):
            self.source.lines = {
                number: _listed(state.line, self.standings[number])
                for number, state in fleet.states()
            }
            for _ in range(1 + bool(gone)):  # a list that shrank counts when it comes again
                quietly(router.refresh)
        mine = router._desk.fleet
        self.source.away = fleet.slow or fleet.stale
        if self.source.away and mine.polled_at is not None:
            mine.polled_at = min(mine.polled_at, fleet.polled_at or 0.0)
            mine.calm_until = -float("inf")

    def _seed(self, number: str, standing: bytes, spending: bytes) -> None:
        writes = [
            Write(standing_key(number), 0, standing),
            Write(spending_key(number), 0, spending),
        ]
        self.store.swap(writes)

    def _changed(self, router: Router, number: str, word: str, at: float) -> None:
        what = "status" if word in tuple(ServiceStatus) else "reputation"
        kind: Any = LineChanged
        quietly(lambda: router.report(kind(number, **{what: word}, at=at)))

    def _operated(self, router: Router, number: str, operator: str) -> None:
        verb = {"paused": router.pause, "draining": router.drain}.get(operator, router.resume)
        quietly(lambda: verb(number))

    def _known(self, name: str, *, group: bool) -> _Known:
        known = self.people.get(name)
        if known is None:
            handle = f"{name}@replay.invalid"
            known = self.people[name] = _Known((handle, f"group-{handle}") if group else handle)
        return known

    def _who(self, router: Router, session: Session, decided: Decided) -> Who:
        """The recipient, whose ties are settled as theirs were. Where the quiet hours are others than the log's, nobody knows
        whose clock is meant: they are taken to have the pool's."""
        known = self._known(decided.to, group=decided.person.is_group)
        who = router._desk.who(known.to)
        who.salt = decided.person.salt
        if session.policy is not None and session.policy.quiet == self.policy.quiet:
            who.rest = decided.person.rest
        who.area = decided.person.area if self.policy.affinity.area_code < 1.0 else None
        return who

    def _person(self, router: Router, session: Session, decided: Decided, who: Who) -> None:
        """Tell the router what the log's world knows of a recipient, and this one does not."""
        contact, block, to = decided.person.contact, decided.person.block, who.recipient.to
        known = self._known(decided.to, group=decided.person.is_group)
        if not known.met:
            known.met = True
            if contact is not None:
                key = contact_key(session.pool, who.recipient.key)
                self.store.swap([Write(key, 0, contact.encode())])
                known.replied_at, known.view = contact.replied_at, contact.health()
            if block is not None and who.block_key is not None:
                self.store.swap([Write(who.block_key, 0, encode_small(block))])
                known.out, known.back = block.out, block.back
        if block is not None and isinstance(to, str):
            out, back = block.out, block.back
            if out is not None and out != known.out:
                quietly(lambda: router.report(OptedOut(to, at=out)))
            if back is not None and back != known.back:
                quietly(lambda: router.report(OptedIn(to, at=back)))
            known.out, known.back = out, back
        if decided.request.inbound:  # which the reservation itself remembers
            known.replied_at = max(known.replied_at, decided.at)
        if contact is None:
            return
        if contact.replied_at > known.replied_at:
            known.replied_at = contact.replied_at
            self._replied(router, to, contact.number, contact.replied_at)
        if contact.health() != known.view:
            known.view = contact.health()
            health, at = known.view
            if health:
                number = self._number(router, to) or contact.number
                change = ChatHealthChanged(to, health, number=number, at=at)
                quietly(lambda: router.report(change))

    def _replied(self, router: Router, to: To, number: str, at: float) -> None:
        """They answer whoever wrote to them."""
        report = Replied(self._number(router, to) or number, to, at=at)
        quietly(lambda: router.report(report))

    def _number(self, router: Router, to: To) -> str | None:
        found = router.assignment(to)
        return None if found is None else found.number

    def moved(self, session: Session, told: Mapping[str, Any]) -> None:
        """Somebody moved a recipient."""
        router = self._router(session)
        known = self._known(told["to"], group=bool(told.get("group")))
        quietly(lambda: router.move(known.to, told.get("line")))

    def sent(self, message: str, number: str) -> None:
        """A message left from that line, and its receipts are of that line."""
        self._left_from[message] = number
        if len(self._left_from) > _MESSAGES:
            self._left_from.popitem(last=False)

    def reported(self, session: Session, told: Mapping[str, Any]) -> None:
        """A receipt or a reply. What is said of lines and opt-outs is taken from the records, where all of it stands."""
        router, name = self.routers.get(session.pool), str(told["type"])
        if router is None or name not in ("Delivered", "MessageRead", "Failed", "Replied"):
            return
        given = {what: told[what] for what in told if what not in ("type", "to", "group")}
        if "to" in told:
            known = self._known(told["to"], group=bool(told.get("group")))
            given["to"] = known.to
            left_from = self._left_from.get(str(given.get("message_id")))
            given["number"] = left_from or self._number(router, known.to) or given.get("number")
            if name == "Replied":
                known.replied_at = max(known.replied_at, float(given["at"]))
        elif name == "Replied":
            given["to"] = None
        kind: Any = getattr(model, name)
        quietly(lambda: router.report(kind(**given)))


def quietly(verb: Callable[[], object]) -> None:
    """What the new world does not take, as it knows no such line say, it does without."""
    try:
        verb()
    except (LinePickerError, ValueError):
        return


def _latest(seen: Observations) -> tuple[str, float]:
    """The value that was observed last, "" if none ever was, and when; of two at the same moment the worse."""
    moments = [(ms[-1], BADNESS.get(name, 0), name) for name, ms in seen.polls.items() if ms]
    moments += [
        (max(pairs)[0], BADNESS.get(name, 0), name) for name, pairs in seen.told.items() if pairs
    ]
    at, _, name = max(moments, default=(0.0, 0, ""))
    return name, at


def _listed(line: Line, told: tuple[Standing, str, str, str]) -> Line:
    """A line as the provider would list it."""
    _, reputation, status, _ = told
    known = reputation if reputation not in ("", UNKNOWN) else line.reputation
    return attrs.evolve(line, reputation=known, status=status or None)
