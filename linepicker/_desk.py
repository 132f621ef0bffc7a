"""What both routers share: how arguments become requests, and requests flows. No I/O; time and chance are handed in."""

from __future__ import annotations

import logging
import math
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final
from zlib import crc32

import attrs

from linepicker import _record as records
from linepicker import _upkeep as upkeep
from linepicker._arguments import check_key, check_moment, check_policy
from linepicker._asks import Flow, Made, Now, Who
from linepicker._candidates import Request
from linepicker._flow import preview, reserve
from linepicker._hold import hold
from linepicker._outage import surviving
from linepicker._plan import capacity, everybody, read_people
from linepicker._polls import read_all, tallies
from linepicker._quiet import quiet_of, rest_of
from linepicker._receipts import report_chat, report_receipt
from linepicker._replies import report_person, report_reply
from linepicker._shadow import ShadowCounts
from linepicker._shortfall import plan
from linepicker._sketch import sketch
from linepicker._source import checked, takes_limits
from linepicker._straight import Draft, straight
from linepicker._views import assignment, view
from linepicker._watch import NO_SHADOW, watching
from linepicker.fleet import Fleet
from linepicker.model import (
    Assignment,
    ChatHealth,
    ChatHealthChanged,
    Decision,
    Line,
    LineAssigned,
    LineChanged,
    LineReleased,
    LineView,
    OptedIn,
    OptedOut,
    Outcome,
    Replied,
    Report,
    Verdict,
)
from linepicker.plans import Capacity, Plan
from linepicker.policy import Policy
from linepicker.recipients import area_code, parse
from linepicker.stores import Handle

log = logging.getLogger("linepicker")

PEOPLE_KEPT: Final = 20_000
"""How many recipients, with the records last seen of them, a process keeps at most."""
BATCH: Final = 500
_POOL: Final = re.compile(r"[^/\x00-\x1f]{1,64}")

Item = tuple[Any, ...]


class Desk:
    """One router's fleet and what is derived from its arguments."""

    def __init__(
        self,
        source: object,
        policy: Policy | None,
        pool: str,
        seed: int | str | bytes | None,
        handle: Handle | None,
        *,
        shadow: Policy | None = None,
        record: object = None,
    ) -> None:
        if not isinstance(pool, str) or _POOL.fullmatch(pool) is None:
            raise ValueError(f"pool must be 1 to 64 characters without '/', got {pool!r}")
        self.static: list[Line] | None = None
        if not hasattr(source, "fetch"):
            if isinstance(source, str | bytes) or not isinstance(source, Iterable):
                raise TypeError("source must have fetch(), or be an iterable of Line")
            self.static = checked(source)
        if policy is not None:
            check_policy(policy)
        self.policy = policy or Policy()
        self._quiet = quiet_of(self.policy)
        self._plain = Request(max_delay=self.policy.pace.max_delay)
        self.pool, self._epoch = pool, (handle and handle.epoch) or ""
        self.watch = watching(record, shadow, pool, static=self.static is not None)
        self.fleet = self.new_fleet()
        self._source = source
        self._classify: Callable[[object], object] | None = getattr(source, "classify", None)
        self._seed = 0 if seed is None else crc32(repr(seed).encode())
        self._contacts = records.contact_key(pool, "")
        self._people: OrderedDict[object, Who] = OrderedDict()  # the latest met last
        self.takes_limits = self.static is None and takes_limits(source)

    def new_fleet(self) -> Fleet:
        """A fleet nothing is known of yet."""
        fleet = Fleet(self.policy, self.pool, static=self.static is not None)
        fleet.epoch = self._epoch
        if self.watch is not None:
            self.watch.fleet = fleet
            fleet.onlooker = self.watch
        return fleet

    def reload(self, policy: Policy) -> None:
        """Another policy from the next call on."""
        check_policy(policy)
        self.policy, self._quiet = policy, quiet_of(policy)
        self._people.clear()
        self._plain = Request(max_delay=policy.pace.max_delay)
        self.fleet.apply(policy)

    # Arguments

    def who(self, to: str | Iterable[str]) -> Who:
        """The recipient. Raises InvalidRecipient."""
        name: object = to
        if not isinstance(to, str):
            recipient = parse(to, default_region=self.policy.default_region)
            name = recipient.to
        kept = self._people.get(name)
        if kept is not None:
            self._people.move_to_end(name)
            return kept
        if isinstance(to, str):
            recipient = parse(to, default_region=self.policy.default_region)
        key, direct, area = recipient.key, None, None
        if len(recipient.handles) == 1:
            direct = key
            if self.policy.affinity.area_code < 1.0:
                area = area_code(direct)
        who = Who(
            recipient,
            self._contacts + key,
            None if direct is None else records.block_key(direct),
            crc32(key.encode(), self._seed),
            area,
            rest_of(self._quiet, recipient.handles) if self._quiet is not None else (),
        )
        self._people[name] = who
        if len(self._people) > PEOPLE_KEPT:
            self._people.popitem(last=False)
        return who

    def request(
        self,
        text: str | None,
        line_type: str | None,
        tags: Iterable[str],
        exclude: Iterable[str],
        line: str | None,
        max_delay: float | None,
        inbound: bool,
        override_optout: bool,
        chat_health: str | None,
    ) -> Request:
        """The caller's wishes, checked. Raises ValueError naming the argument. Of *text* a sketch is taken."""
        asked = line_type or tags or exclude or inbound or override_optout or chat_health
        if not asked and line is None and text is None and max_delay is None:
            return self._plain
        if text is not None and not isinstance(text, str):
            raise ValueError(f"text must be a string, got {type(text).__name__}")
        if chat_health is not None:
            chat_health = ChatHealth(chat_health)
        if max_delay is None:
            max_delay = self.policy.pace.max_delay
        elif not 0.0 <= max_delay < math.inf:
            raise ValueError(f"max_delay must be 0 or more seconds, got {max_delay!r}")
        if isinstance(tags, str) or isinstance(exclude, str):
            raise ValueError("tags and exclude must be collections of strings, not one string")
        if line is not None:
            Line(line)
        return Request(
            line_type,
            frozenset(tags) if tags else _NONE,
            frozenset(exclude) if exclude else _NONE,
            line,
            max_delay,
            inbound,
            override_optout,
            chat_health,
            sketch=sketch(text) if text and self.policy.learn.enabled else b"",
        )

    def urgent(self, request: Request, priority: str) -> Request:
        """The same for an urgent message, if that is its priority. Raises ValueError for another word."""
        if priority != "urgent":
            raise ValueError(f'priority must be "normal" or "urgent", got {priority!r}')
        return attrs.evolve(request, urgent=True)

    # Flows

    def reserve(
        self,
        who: Who,
        request: Request,
        now: float,
        made_id: str,
        *,
        key: str | None,
        begun: Callable[[Made], None] | None = None,
        draft: Draft | None = None,
    ) -> Flow[Made]:
        """A reservation. *draft*: what `straight` made of it."""
        check_key(key)
        if request.inbound and request.line is None:
            flow = self._answering(who, request, now, made_id, key=key, begun=begun)
        else:
            plain = request is self._plain
            flow = reserve(
                self.fleet,
                request,
                who,
                now,
                made_id,
                key=key,
                begun=begun,
                plain=plain,
                draft=draft,
            )
        if self.policy.on_store_error == "refuse":
            return flow
        return surviving(flow, self.fleet, request, who, now, made_id, key, begun)

    def straight(self, who: Who, now: float, made_id: str) -> Draft | None:
        """A reservation for a request that asks nothing, drafted before its flow, which may not be needed then; None: it is
        needed. Whoever stands in the way of `reserve` stands in the way of this."""
        return straight(self.fleet, who, self._plain, now, made_id)

    def drafted(self, draft: Draft) -> Flow[Made]:
        """The reservation so drafted, from its first swap on."""
        made = draft[0]
        return self.reserve(made.who, self._plain, made.at, made.id, key=None, draft=draft)

    def _answering(
        self,
        who: Who,
        request: Request,
        now: float,
        made_id: str,
        *,
        key: str | None,
        begun: Callable[[Made], None] | None = None,
    ) -> Flow[Made]:
        yield from self._needs_line(who, request, now)
        made: Made = yield from reserve(
            self.fleet, request, who, now, made_id, key=key, begun=begun
        )
        return made

    def _needs_line(self, who: Who, request: Request, now: float) -> Flow[None]:
        if request.inbound and request.line is None:
            contact = yield from upkeep.contact_of(self.fleet, who, now)
            if contact is None:
                raise ValueError(
                    f"inbound=True needs line=: {who.masked} belongs to no line yet, so say where they wrote to"
                )

    def preview(self, who: Who, request: Request, now: float) -> Flow[Decision]:
        """What a reservation would decide."""
        yield from self._needs_line(who, request, now)
        decision: Decision = yield from preview(self.fleet, request, who, now)
        return decision

    def report(self, report: Report, now: float) -> Flow[bool]:
        """What is learned later. Raises InvalidRecipient."""
        if (
            not isinstance(report, LineChanged | LineAssigned | LineReleased)
            and report.to is not None
        ):
            self.who(report.to)
        if self.watch is not None:
            self.watch.reported(report, now)
        match report:
            case LineChanged() | LineAssigned() | LineReleased():
                return upkeep.report_line(self.fleet, report, now)
            case OptedOut() | OptedIn():
                return report_person(self.fleet, report, self.who, now)
            case Replied():
                return report_reply(self.fleet, report, self.who, now)
            case ChatHealthChanged():
                return report_chat(self.fleet, report, self.who, now)
        return report_receipt(self.fleet, report, self.who, now)

    def lines(self, now: float) -> Flow[list[LineView]]:
        """Every line as it stands, its records read anew."""
        yield from read_all(self.fleet, now)
        found = yield from tallies(self.fleet)
        now = self.fleet.at((yield Now()))
        return [
            view(state, self.fleet, now, found.get(number)) for number, state in self.fleet.states()
        ]

    def capacity(self, now: float, horizon: float, at_most: int | None = None) -> Flow[Capacity]:
        """How much fits; *at_most*: no more than so many are counted."""
        check_moment("horizon", horizon)
        now = yield from read_all(self.fleet, now)
        rest = rest_of(self._quiet, [""]) if self._quiet is not None else ()
        return (yield from capacity(self.fleet, self._plain, rest, now, horizon, at_most))

    def plan(
        self,
        recipients: Iterable[str | Iterable[str]],
        now: float,
        deadline: float,
        held: dict[str, Made] | None,
    ) -> Flow[Plan]:
        """Who, from where, when. *held*: what can be is reserved, and put there."""
        check_moment("deadline", deadline)
        people = everybody(self.who, recipients)
        now = yield from read_all(self.fleet, now)
        yield from read_people(self.fleet, people)
        if held is not None:
            yield from hold(self.fleet, people, self._plain, now, deadline, held)
        now = self.fleet.at((yield Now()))
        made = sorted((held or {}).values(), key=lambda each: each.send_at)
        return (yield from plan(self.fleet, people, self._plain, now, deadline, made))

    def assignment(self, who: Who, now: float) -> Flow[Assignment | None]:
        """A recipient's line."""
        contact = yield from upkeep.contact_of(self.fleet, who, now)
        if contact is None:
            return None
        return assignment(who.recipient.to, contact.number, contact.since, contact.history)

    def assign(self, items: Iterable[Item], now: float, *, keep: bool) -> Flow[int]:
        """Assign in batches; how many are new."""
        new, strangers, lines = 0, True, set[str]()
        for batch in batches(self._belongs(item, lines) for item in items):
            found = yield from upkeep.assign(self.fleet, batch, now, keep=keep, strangers=strangers)
            new, strangers = new + found, found == len(batch)
        return new

    def _belongs(self, item: Item, lines: set[str]) -> upkeep.Belongs:
        """What one of them says; *lines*: the numbers that were looked at already."""
        to, number, *more = item
        if number not in lines:
            lines.add(Line(number).number)
        recipient = parse(to, default_region=self.policy.default_region)
        key = self._contacts + recipient.key
        if not more:
            return upkeep.Belongs(key, recipient, number)
        since, chat_id = (*more, None)[:2]
        if since is not None:
            check_moment("since", since)
        who = None if chat_id is None else self.who(to)
        return upkeep.Belongs(key, recipient, number, since, chat_id, who)

    def shadowed(self, seconds: float) -> ShadowCounts:
        """What the policy in shadow would have done. Raises ValueError where there is none."""
        if self.watch is None:
            raise ValueError(NO_SHADOW)
        return self.watch.shadowed(seconds)

    def close(self) -> None:
        """Close what is the desk's own."""
        if self.watch is not None:
            self.watch.close()

    # Results

    def left(self, error: BaseException | None) -> Verdict:
        """What leaving a `with` block means."""
        if error is None:
            return Verdict(Outcome.SENT)
        return (
            self.verdict(None, error) if isinstance(error, Exception) else Verdict(Outcome.UNKNOWN)
        )

    def verdict(self, value: object, error: Exception | None) -> Verdict:
        """What a send's result means."""
        found: object = None
        if self._classify is not None:
            try:
                found = self._classify(value if error is None else error)
            except Exception:
                log.exception("classify failed; the message counts as UNKNOWN")
                found = Outcome.UNKNOWN
        if isinstance(found, Verdict):
            return found
        if isinstance(found, str):
            return Verdict(Outcome(found))
        return Verdict(Outcome.SENT if error is None else Outcome.UNKNOWN)


_NONE: Final[frozenset[str]] = frozenset()


def batches(items: Iterable[Any]) -> Iterator[list[Any]]:
    """The items, so many at a time."""
    batch: list[Any] = []
    for item in items:
        batch.append(item)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


@attrs.define
class Begun:
    """What a call had begun when it was torn away: taken back, unless the caller's function was running."""

    made: Made | None = None
    calling: bool = False

    def __call__(self, made: Made) -> None:
        self.made, self.calling = made, False
