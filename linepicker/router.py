"""The door for threads: Router and its Reservation. It owns store, source, time and chance, and answers what the flows ask;
every decision is made behind it, once."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self, TypeVar

import attrs

from linepicker import _asks as asks
from linepicker import _upkeep as upkeep
from linepicker._arguments import check_key, check_max_wait
from linepicker._asks import Ask, Called, Fetched, Flow, Made
from linepicker._desk import Desk
from linepicker._hosttime import Clock, HostTime, asking, new_id, on_host_time
from linepicker._logbook import Logbook
from linepicker._move import move
from linepicker._polls import left_over, ready, refresh_now
from linepicker._process import process
from linepicker._promise import Reservation
from linepicker._send import send
from linepicker._shadow import ShadowCounts
from linepicker._source import fetch
from linepicker._straight import Draft, taken, told_first
from linepicker.errors import AlreadySent, SourceError, StoreError
from linepicker.model import Assignment, Decision, LineView, Report, StandingChanged
from linepicker.plans import Capacity, Plan
from linepicker.policy import Policy
from linepicker.stores import Answer, Handle, Store
from linepicker.stores import open as open_store

__all__ = ["Reservation", "Router"]

T = TypeVar("T")
R = TypeVar("R")


class Router:
    """Chooses lines, remembers who belongs to which, and keeps every line within its budget. For threads.

    Lives as long as the application; close it at the end (or use it as a context manager). After a fork it begins anew in the
    child, where its store allows that.

    source: an object with `fetch() -> Iterable[Line]`, and perhaps `classify(result)`; or a plain iterable of Line, read once.
    policy: every tunable; None: all defaults. store: a URL, or what `linepicker.stores.open` gives (then it stays open on
    close); None: this process's memory. pool: assignments belong to it; line records and opt-outs are shared by the pools of a
    store's namespace. clock: `now()` in epoch seconds UTC and `sleep(seconds)`; None: the host's, or the store's where it
    tells time. seed: settles ties; None is one fixed key, equal everywhere. shadow: a second policy that decides
    beside the first, and changes nothing: see `shadowed`. record: where decisions are written down for `linepicker replay`: the
    path of a file, a `linepicker.recording.DecisionLog`, or an object with `write(str)`.
    on_standing: called with a `linepicker.model.StandingChanged` when a line came to stand otherwise, by the call that noticed
    it, within it: be quick, or hand it over; what it raises is logged. Each process that shares a store tells for itself.
    full_handles: recipients are in clear in this router's log, for as long as that is looked at; else they are masked.
    Raises PolicyError, StoreError for a URL that names no store, TypeError for what is no source, SourceError for an iterable
    that does not hold lines, ValueError for a pool's name.

    >>> from linepicker import Line, NoLine, Router
    >>> router = Router([Line("+12025550100"), Line("+12025550101", reputation="CRITICAL")])
    >>> reservation = router.reserve("+12125550123")
    >>> reservation.number, reservation.kind
    ('+12025550100', 'new')
    >>> reservation.settle("SENT")
    >>> router.reserve("+12125550123").kind
    'known'
    >>> router.pause("+12025550100", reason="carrier test")
    >>> try:
    ...     router.reserve("+12125550124")
    ... except NoLine as refusal:
    ...     print([(line.number, line.excluded) for line in refusal.decision.candidates])
    [('+12025550100', 'paused'), ('+12025550101', 'critical')]
    """

    def __init__(
        self,
        source: object,
        *,
        policy: Policy | None = None,
        store: str | Handle | Store | None = None,
        pool: str = "default",
        clock: Clock | None = None,
        seed: int | str | bytes | None = None,
        shadow: Policy | None = None,
        record: object = None,
        on_standing: Callable[[StandingChanged], object] | None = None,
        full_handles: bool = False,
    ) -> None:
        self._owned = (
            open_store(store or "memory://") if store is None or isinstance(store, str) else None
        )
        given = self._owned or store
        handle = given if isinstance(given, Handle) else None
        self._store: Store = handle.store() if handle is not None else given  # type: ignore[assignment]  # a Store as it is
        self._source: Any = source
        self._desk = Desk(source, policy, pool, seed, handle, shadow=shadow, record=record)
        host = HostTime()
        self._host = host if clock is None else None
        self._clock: Clock = clock or host
        self._logbook = Logbook(pool, on_standing, full_handles=full_handles)
        self._pid = process()
        self._begin()
        self._answers: dict[type[Ask], Callable[[Any], Any]] = {
            asks.Read: self._read,
            asks.Swap: self._swap,
            asks.Scan: lambda ask: list(self._store.scan(ask.prefix)),
            asks.Lead: self._lead,
            asks.Fetch: self._fetch,
            asks.Tell: self._logbook.tell,
            asks.Now: lambda _: self._clock.now(),
            asks.Sleep: lambda ask: self._clock.sleep(ask.seconds),
            asks.Dice: lambda _: self._dice.random(),
            asks.NewId: lambda _: new_id(self._dice),
            asks.Say: self._logbook.say,
            asks.Refused: self._logbook.refused,
        }

    def _begin(self) -> None:
        self._dice = random.Random()
        self._lock = threading.Lock()
        self._flight = threading.Lock()
        self._desk.fleet.flight, self._desk.fleet.guard = self._flight, self._lock
        self._desk.fleet.lives_in(self._store)

    # The verbs

    def reserve(
        self,
        to: str | Iterable[str],
        *,
        text: str | None = None,
        line_type: str | None = None,
        tags: Iterable[str] = (),
        exclude: Iterable[str] = (),
        line: str | None = None,
        max_delay: float | None = None,
        inbound: bool = False,
        key: str | None = None,
        override_optout: bool = False,
        chat_health: str | None = None,
        priority: str = "normal",
    ) -> Reservation:
        """A line for this recipient and the moment from which the message may leave, charged at once.

        to: a handle (E.164 or email) or a group of handles. text: what is to be said; of an opening a sketch is kept, to tell
        how alike a line's openings are. chat_health: what the provider thinks of the conversation, where the caller knows: it
        outweighs what was reported. line_type, tags, exclude: rule lines out where one is to be picked. line: this line or
        none. max_delay: how many seconds the message may wait for its slot; None: the policy's; 0: now or never. inbound: they
        wrote first (say where with line= if they have no line yet): charged only as a message. key: the same key within 24
        hours is the same reservation, charged once. override_optout: send despite an opt-out or block; the decision's notes
        and the log say so. priority: "urgent" may use what the policy keeps for that ([priority]), if it keeps anything; else
        "normal".

        Raises InvalidRecipient, ValueError for other arguments; NoLine, Held, NotNow, Blocked, StaleHealth, which change
        nothing; StoreError.
        """
        if self._pid != process():
            self._begin_anew()
        desk, now, draft = self._desk, self._clock.now(), None
        asked = line_type or tags or exclude or inbound or override_optout or chat_health
        bare = text is None and line is None and max_delay is None and key is None
        self._lock.acquire()  # at half the cost of a `with`
        try:
            who, made_id = desk.who(to), new_id(self._dice)
            if bare and not asked and priority == "normal":
                draft = desk.straight(who, now, made_id)
        finally:
            self._lock.release()
        if draft is not None:
            return Reservation(self, self._write(draft))
        request = desk.request(
            text, line_type, tags, exclude, line, max_delay, inbound, override_optout, chat_health
        )
        request = request if priority == "normal" else desk.urgent(request, priority)
        return Reservation(self, self._drive(desk.reserve(who, request, now, made_id, key=key)))

    def preview(
        self,
        to: str | Iterable[str],
        *,
        text: str | None = None,
        line_type: str | None = None,
        tags: Iterable[str] = (),
        exclude: Iterable[str] = (),
        line: str | None = None,
        max_delay: float | None = None,
        inbound: bool = False,
        key: str | None = None,
        override_optout: bool = False,
        chat_health: str | None = None,
        priority: str = "normal",
    ) -> Decision:
        """What `reserve` would decide with the same arguments. Writes nothing, charges nothing, never raises a refusal."""
        check_key(key)
        self._alive()
        with self._lock:
            who = self._desk.who(to)
        request = self._desk.request(
            text, line_type, tags, exclude, line, max_delay, inbound, override_optout, chat_health
        )
        request = request if priority == "normal" else self._desk.urgent(request, priority)
        return self._drive(self._desk.preview(who, request, self._clock.now()))

    def send(
        self,
        to: str | Iterable[str],
        call: Callable[[Reservation], R],
        *,
        max_wait: float | None = None,
        text: str | None = None,
        line_type: str | None = None,
        tags: Iterable[str] = (),
        exclude: Iterable[str] = (),
        line: str | None = None,
        max_delay: float | None = None,
        inbound: bool = False,
        key: str | None = None,
        override_optout: bool = False,
        chat_health: str | None = None,
        priority: str = "normal",
    ) -> R:
        """Reserve, wait for the slot, check, `call(reservation)`, settle; the call's result.

        max_wait: also sleep until a refusal's `retry_at` while all waiting stays within so many seconds; None: wait only for
        the slot. A new conversation whose line refuses it goes to another line, to at most three; nothing else is tried
        again. What the call raised is raised on, unless another line took the message. The other arguments and errors are
        `reserve`'s; AlreadySent if the key's message went out.
        """
        check_key(key)
        check_max_wait(max_wait)
        self._alive()
        with self._lock:
            who = self._desk.who(to)
        request = self._desk.request(
            text, line_type, tags, exclude, line, max_delay, inbound, override_optout, chat_health
        )
        request = request if priority == "normal" else self._desk.urgent(request, priority)
        flow = send(
            self._desk.fleet,
            request,
            who,
            self._clock.now(),
            reserving=self._desk.reserve,
            key=key,
            max_wait=max_wait,
        )
        answers = {**self._answers, asks.Call: lambda ask: self._call(call, ask.made)}
        try:
            result: R = self._drive(flow, answers)
        except AlreadySent as error:
            if isinstance(error.reservation, Made):
                error.reservation = Reservation(self, error.reservation)
            raise
        return result

    def report(self, report: Report) -> bool:
        """Tell what happened: a line's health, a reply, an opt-out, a receipt.

        False: a duplicate, out of date, or about a line not in the fleet; nothing changed here (of a line that the store
        knows it is kept, for processes whose list has it, and should it come back). A message is told by its
        `message_id`, a conversation by its `chat_id`, where `settle` was given them. Raises InvalidRecipient, StoreError;
        SourceError where no list of lines was read yet that would tell whether the line is ours.
        """
        self._alive()
        with self._lock:
            flow = self._desk.report(report, self._clock.now())
        return self._drive(flow)

    def refresh(self) -> None:
        """Read the list of lines now. Raises SourceError (the last good list stays in force), StoreError."""
        self._alive()
        now = self._clock.now()
        self._drive(refresh_now(self._desk.fleet, now))

    @contextlib.contextmanager
    def keep_fresh(self) -> Iterator[None]:
        """While open, a thread reads the list of lines when it is `health.ttl` seconds old, so that no call has to: one of the
        processes that share a store reads it for all of them."""
        done = threading.Event()

        def keep() -> None:
            while not done.wait(self._desk.policy.health.ttl / 4):
                with contextlib.suppress(SourceError, StoreError):
                    self._drive(ready(self._desk.fleet, self._clock.now()))

        thread = threading.Thread(target=keep, name="linepicker-keep-fresh", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def lines(self) -> list[LineView]:
        """Every line of the fleet as it stands, read anew. Raises SourceError if none was ever read, StoreError."""
        self._alive()
        return self._drive(self._desk.lines(self._clock.now()))

    def assignment(self, to: str | Iterable[str]) -> Assignment | None:
        """The line a recipient belongs to in this pool, None if none. Raises InvalidRecipient, StoreError."""
        self._alive()
        with self._lock:
            who = self._desk.who(to)
        return self._drive(self._desk.assignment(who, self._clock.now()))

    def assign(
        self,
        to: str | Iterable[str],
        number: str,
        *,
        since: float | None = None,
        chat_id: str | None = None,
    ) -> None:
        """Record that a recipient belongs to a line, uncharged: they are known from now on. since: epoch seconds UTC;
        chat_id: the provider's chat. Raises ValueError if they belong to another line: `move` changes that."""
        self.assign_many([(to, number, since, chat_id)])

    def assign_many(self, pairs: Iterable[tuple[Any, ...]], *, keep: bool = False) -> int:
        """`assign` for many: (to, number) or (to, number, since) or (to, number, since, chat_id). How many were new.

        keep: leave those who belong to another line as they are, instead of raising ValueError. Written in batches: those
        before one that raises stay written.
        """
        self._alive()
        return self._drive(self._desk.assign(pairs, self._clock.now(), keep=keep))

    def move(self, to: str | Iterable[str], number: str | None = None, *, reason: str = "") -> None:
        """Give a recipient another line: this one, or the best. Charged there as a new conversation, within its moves per
        day. reason: for the log. Raises ValueError if they have no line, NoLine, Held, NotNow, StoreError."""
        self._alive()
        with self._lock:
            who = self._desk.who(to)
        request = self._desk.request(None, None, (), (), number, None, False, False, None)
        now = self._clock.now()
        self._drive(move(self._desk.fleet, request, who, now, new_id(self._dice)))
        self._logbook.moved(who, reason)

    def forget(self, to: str | Iterable[str]) -> None:
        """Erase what is known of a recipient, in all pools: their line and history, and what tells their messages and
        conversations. Reads through the store once, so it takes its time. An opt-out stays; so does, for 24 hours, what their
        keys stand for, or a repeated key would send twice. Groups they are in are recipients of their own."""
        self._alive()
        with self._lock:
            who = self._desk.who(to)
        self._drive(upkeep.forget(self._desk.fleet, who))

    def pause(self, number: str, *, reason: str = "") -> None:
        """Let nothing out on a line until `resume`. Raises ValueError if it is not in the fleet, SourceError if no
        list was ever read."""
        self._operate(number, "paused", reason)

    def drain(self, number: str, *, reason: str = "") -> None:
        """Open no new conversations on a line; its known recipients are served. Raises ValueError as `pause`."""
        self._operate(number, "draining", reason)

    def resume(self, number: str) -> None:
        """End a pause or drain. Raises ValueError as `pause`."""
        self._operate(number, "", "")

    def capacity(self, *, horizon: float = 86400.0) -> Capacity:
        """How many new conversations fit within *horizon* seconds, by line, and when. People are taken to have the quiet hours
        of the pool. Looks at most 400 days, and 10,000 conversations a line, ahead."""
        self._alive()
        return self._drive(self._desk.capacity(self._clock.now(), horizon))

    def plan(
        self, recipients: Iterable[str | Iterable[str]], *, deadline: float, hold: bool = False
    ) -> Plan:
        """A line and a moment for each recipient before *deadline* (epoch seconds UTC), within budgets, pace and quiet hours.

        Asked for at its moment, in the order of `slots`, each gets that line and may leave at once, as long as each is SENT
        and nothing else happens. Who has a line stays on it; who is named twice is planned once. Reads only.

        hold: also reserve, at once and charged, what today's budgets have room for, however long its pace makes it wait
        before the deadline: `held`. Settle or release each. The other slots need budget that is not there yet, which
        is never spent ahead: reserve them at their moments.

        Raises InvalidRecipient, which names the place in the list; ValueError for the deadline; SourceError, StoreError, after
        which nothing is held.
        """
        self._alive()
        everybody, held = list(recipients), dict[str, Made]() if hold else None
        plan = self._drive(self._desk.plan(everybody, self._clock.now(), deadline, held))
        return attrs.evolve(plan, held=tuple(Reservation(self, made) for made in plan.held))

    def reload(self, policy: Policy) -> None:
        """Another policy from the next call on."""
        with self._lock:
            self._desk.reload(policy)

    def shadowed(self, seconds: float = 3600.0) -> ShadowCounts:
        """Where the policy in shadow would have chosen otherwise, in the last *seconds* (at most a day): numbers, and as text
        one sentence. Raises ValueError where there is none."""
        with self._lock:
            return self._desk.shadowed(seconds)

    def close(self) -> None:
        """Write what is left over, and close the store if this router opened it."""
        with contextlib.suppress(StoreError):
            if self._desk.fleet.late and self._pid == process():
                self._drive(left_over(self._desk.fleet, self._clock.now()))
        self._desk.close()
        if self._owned is not None:
            self._owned.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # Answering the flows

    def _drive(
        self, flow: Flow[T], answers: dict[type[Ask], Callable[[Any], Any]] | None = None
    ) -> T:
        answers = answers or self._answers
        lock = self._lock
        try:
            with lock:
                ask = next(flow)
            while True:
                try:
                    answer = answers[type(ask)](ask)
                except Exception as error:  # noqa: BLE001  every error is the flow's to hear
                    with lock:
                        ask = flow.throw(error)
                else:
                    with lock:
                        ask = flow.send(answer)
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            flow.close()

    def _write(self, draft: Draft) -> Made:
        """Write a reservation drafted the straight way; what does not go straight is the flow's to hear."""
        told: Answer | Exception
        try:
            asked = asking()
            told = answer = self._store.swap(draft[3], seen=draft[4])
        except Exception as error:  # noqa: BLE001  as in `_drive`
            told = error
        else:
            if answer.now is not None and self._host is not None:
                self._host.heard(answer.now, asked)
            if answer.applied:
                self._lock.acquire()
                try:
                    return taken(self._desk.fleet, draft, answer)
                finally:
                    self._lock.release()
        answers = {**self._answers, asks.Swap: told_first(told, self._swap)}
        return self._drive(self._desk.drafted(draft), answers)

    def _read(self, ask: asks.Read) -> Answer:
        asked = asking()
        answer = self._store.read(ask.keys)
        if answer.now is not None and self._host is not None:
            self._host.heard(answer.now, asked)
        return answer

    def _swap(self, ask: asks.Swap) -> Answer:
        writes = ask.writes if self._host else on_host_time(ask.writes, self._clock.now())
        asked = asking()
        answer = self._store.swap(writes, seen=ask.seen)
        if answer.now is not None and self._host is not None:
            self._host.heard(answer.now, asked)
        return answer

    def _lead(self, ask: asks.Lead) -> bool:
        return self._flight.acquire(blocking=ask.wait)

    def _fetch(self, ask: asks.Fetch) -> Fetched:
        desk, issued = self._desk, self._clock.now()
        if desk.static is not None:
            return Fetched(desk.static, issued)
        return Fetched(fetch(self._source, patient=ask.patient, limited=desk.takes_limits), issued)

    def _call(self, call: Callable[[Reservation], R], made: Made) -> Called:
        reservation = Reservation(self, made)
        try:
            value = call(reservation)
        except Exception as error:  # noqa: BLE001  which is classified, and raised on
            return Called(None, error, self._desk.verdict(None, error))
        return Called(value, None, self._desk.verdict(value, None))

    # Small things

    def _operate(self, number: str, state: str, reason: str) -> None:
        self._alive()
        self._drive(upkeep.operate(self._desk.fleet, number, state, reason, self._clock.now()))

    def _alive(self) -> None:
        if self._pid != process():
            self._begin_anew()

    def _begin_anew(self) -> None:
        """After a fork: what the parent's threads were doing can't be known."""
        self._pid = process()
        self._desk.fleet = self._desk.new_fleet()
        self._begin()
