"""Metrics and traces of routers, by OpenTelemetry's API. Needs `linepicker[telemetry]`; without an SDK nothing is measured.

    telemetry = Telemetry()      # of the global providers, or of those given
    telemetry.instrument(router)

A recipient is in none of it. What a line may be told by is its number: as many series as there are lines. The metrics, and the
attributes they have beside `pool`:

    linepicker.decisions             counter    outcome, reason, kind, line
    linepicker.conversations.new     counter    line
    linepicker.moves                 counter    line (which received them)
    linepicker.conflicts             counter    (swaps that found somebody else's write)
    linepicker.standing.changes      counter    line, was, standing
    linepicker.shadow.differences    counter    outcome, shadow
    linepicker.delay                 histogram  kind (of messages that have to wait for their slot: seconds)
    linepicker.store.duration        histogram  operation (read, swap, scan), error
    linepicker.provider.duration     histogram  operation (fetch, send), outcome, error
    linepicker.webhook.lag           histogram  report, applied (seconds from what happened to `report`)
    linepicker.budget.left           gauge      line (new conversations, where there is a limit)
    linepicker.line.standing         gauge      line, standing, reputation (always 1)
    linepicker.snapshot.age          gauge      (seconds since the list of lines was asked for)

A store in memory is in this process: neither its durations nor its swaps' spans are there.

The spans are `linepicker.reserve`, in it `linepicker.swap` for each try to write and `linepicker.fetch` where the list of lines
was due, and `linepicker.send` around the function that `send` calls. That one has the provider's trace id, where what the
function returned or raised tells it, as `linepicker.provider.trace_id`.
"""

from __future__ import annotations

import json
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import Token
from importlib.metadata import version
from importlib.resources import files
from time import perf_counter
from typing import Any, Final, TypeAlias

import attrs
from opentelemetry import context, metrics, trace
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Histogram, MeterProvider, Observation
from opentelemetry.trace import (
    NoOpTracer,
    Span,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    TracerProvider,
)

from linepicker._asks import Ask, Call, Fetch, Flow, Made, Read, Scan, Swap, Tell, Who
from linepicker._candidates import Request
from linepicker._desk import Desk
from linepicker._straight import Draft
from linepicker._views import view
from linepicker.arouter import AsyncRouter
from linepicker.errors import Blocked, Held, NoLine, NotNow, StaleHealth
from linepicker.model import LineView, Report
from linepicker.router import Router
from linepicker.stores.memory import AsyncMemoryStore, MemoryStore

__all__ = ["Telemetry", "dashboard"]

NAME: Final = "linepicker"
LOOK_AGAIN: Final = 100
"""As long as there is no SDK, it is looked for once in so many calls."""
_STORE: Final[Mapping[type[Ask], str]] = {Read: "read", Swap: "swap", Scan: "scan"}
_PROVIDER: Final[Mapping[type[Ask], str]] = {Fetch: "fetch", Call: "send"}
_SPANS: Final[Mapping[type[Ask], str]] = {Swap: "swap", **_PROVIDER}
_FAST: Final = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
_SLOW: Final = (1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 1800.0, 3600.0)
_TOLD: Final = tuple(f"linepicker.{name}" for name in ("outcome", "reason", "kind", "line"))
_NOWHERE: Final = Context()
"""What is recorded in it costs no look for the span that it may be an example of."""
_VIEWS_KEPT: Final = 1.0  # seconds: one collection asks for several gauges

Labels: TypeAlias = tuple[str, ...]
_Opened: TypeAlias = tuple[Span, Token[Context] | None]


def dashboard() -> dict[str, Any]:
    """A Grafana dashboard of these metrics, as they are named in Prometheus: to be imported as JSON."""
    text = files("linepicker").joinpath("dashboard.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


class Telemetry:
    """Metrics and traces of the routers given to `instrument`. Lives as long as they do; one is enough for a process.

    tracer_provider, meter_provider: OpenTelemetry's; None: the global ones. As long as there is no SDK, no span is opened and
    nothing is counted; one that is set up later is found within a hundred calls.
    """

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        self._given = tracer_provider, meter_provider
        self.measures = False
        """Whether there is an SDK, for traces or metrics."""
        self.tracer: Tracer | None = None
        """What to open spans with; None where that would be a no-op."""
        self._looks = 0
        self._version = version(NAME)
        self._watched: list[_Watched] = []
        meter = metrics.get_meter(NAME, self._version, meter_provider)
        for name, labels, unit, what in _COUNTERS:
            meter.create_observable_counter(
                f"{NAME}.{name}", [self._counts(name, labels)], unit, what
            )
        for name, read, unit, what in (
            ("budget.left", self._left, "{conversation}", "New conversations left today, by line"),
            ("line.standing", self._standing, "1", "How a line stands; always 1"),
            ("snapshot.age", self._age, "s", "Seconds since the list of lines was asked for"),
        ):
            meter.create_observable_gauge(f"{NAME}.{name}", [read], unit, what)

        def histogram(name: str, what: str, bounds: Sequence[float]) -> Histogram:
            return meter.create_histogram(
                f"{NAME}.{name}", "s", what, explicit_bucket_boundaries_advisory=bounds
            )

        self.delay = histogram("delay", "How long messages wait for their slot", _SLOW)
        self.store = histogram("store.duration", "How long the store takes", _FAST)
        self.provider = histogram("provider.duration", "How long the provider takes", _FAST)
        self.lag = histogram("webhook.lag", "From what happened until it was reported", _SLOW)

    def instrument(self, router: Router | AsyncRouter) -> None:
        """Measure what this router does from now on. Once for each router, before it is used; a second time is nothing."""
        desk = router._desk
        if any(each.desk() is desk for each in self._watched):
            return
        timed = dict(_PROVIDER)
        if desk.static is not None:
            del timed[Fetch]
        if not isinstance(router._store, MemoryStore | AsyncMemoryStore):
            timed.update(_STORE)
        watched = _Watched(self, desk.pool, weakref.ref(desk), router._clock.now, timed)
        self._watched.append(watched)
        watched.attach(router)

    def shadow_differs(self, pool: str, outcome: str, shadow: str) -> None:
        """Count that a second policy, which only looks on, would have decided otherwise. *outcome*, *shadow*: the outcomes."""
        for each in self._watched:
            if each.pool == pool:
                each.counts["shadow.differences"][outcome, shadow] += 1
                return

    def awake(self) -> bool:
        """Whether there is an SDK. Sets `tracer`."""
        if self.measures:
            return True
        self._looks -= 1
        if self._looks < 0:
            self._looks = LOOK_AGAIN
            self._look()
        return self.measures

    def _look(self) -> None:
        tracers, meters = self._given
        tracers, meters = (
            tracers or trace.get_tracer_provider(),
            meters or metrics.get_meter_provider(),
        )
        tracer = None if _is_idle(tracers) else tracers.get_tracer(NAME, self._version)
        self.tracer = None if isinstance(tracer, NoOpTracer) else tracer
        self.measures = self.tracer is not None or not _is_idle(meters)

    # What a reader of metrics asks for, from a thread of its own

    def _counts(
        self, name: str, labels: Labels
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def read(_: CallbackOptions) -> Iterable[Observation]:
            for each in self._watched:
                for values, count in each.counts[name].copy().items():
                    told = zip(labels, values, strict=True)
                    yield Observation(count, {"pool": each.pool, **dict(told)})

        return read

    def _left(self, _: CallbackOptions) -> Iterable[Observation]:
        for each in self._watched:
            for found in each.views():
                if found.remaining is not None:
                    labels = {"pool": each.pool, "line": found.line.number}
                    yield Observation(found.remaining, labels)

    def _standing(self, _: CallbackOptions) -> Iterable[Observation]:
        for each in self._watched:
            for found in each.views():
                labels = {
                    "pool": each.pool,
                    "line": found.line.number,
                    "standing": found.standing,
                    "reputation": str(found.line.reputation),
                }
                yield Observation(1, labels)

    def _age(self, _: CallbackOptions) -> Iterable[Observation]:
        for each in self._watched:
            desk = each.desk()
            polled_at = None if desk is None or desk.static is not None else desk.fleet.polled_at
            if polled_at is not None:
                yield Observation(max(0.0, each.now() - polled_at), {"pool": each.pool})


_COUNTERS: Final[Sequence[tuple[str, Labels, str, str]]] = (
    ("decisions", ("outcome", "reason", "kind", "line"), "{decision}", "What was decided, and why"),
    ("conversations.new", ("line",), "{conversation}", "New conversations, by line"),
    ("moves", ("line",), "{move}", "Recipients taken over from other lines, by line"),
    ("conflicts", (), "{conflict}", "Swaps that found somebody else's write"),
    ("standing.changes", ("line", "was", "standing"), "{change}", "How lines came to stand"),
    ("shadow.differences", ("outcome", "shadow"), "{decision}", "What the shadow saw otherwise"),
)


@attrs.define(eq=False)
class _Watched:
    """One router under watch. Its counts are changed only by its own flows, which never run at the same time."""

    telemetry: Telemetry
    pool: str
    desk: weakref.ref[Desk]
    now: Callable[[], float]
    timed: Mapping[type[Ask], str]
    counts: Mapping[str, Counter[Labels]] = attrs.field(
        factory=lambda: {name: Counter() for name, *_ in _COUNTERS}
    )
    labels: Mapping[type[Ask], dict[str, str]] = attrs.field(init=False)
    _views: Sequence[LineView] = ()
    _viewed_at: float = -1.0

    def __attrs_post_init__(self) -> None:
        self.labels = {
            ask: {"pool": self.pool, "operation": name} for ask, name in self.timed.items()
        }

    def attach(self, router: Router | AsyncRouter) -> None:
        """See every flow of the router, and each reservation and report among them. Who is not watched pays nothing."""
        desk: Any = router._desk
        door: Any = router
        reserve, report, drive = desk.reserve, desk.report, door._drive
        straight = desk.straight
        awake = self.telemetry.awake

        def reserving(
            who: Who,
            request: Request,
            now: float,
            made_id: str,
            *,
            key: str | None,
            begun: Callable[[Made], None] | None = None,
            draft: Draft | None = None,
        ) -> Flow[Made]:
            flow: Flow[Made] = reserve(
                who, request, now, made_id, key=key, begun=begun, draft=draft
            )
            return self._reserve(flow) if awake() else flow

        def going_straight(who: Who, now: float, made_id: str) -> Draft | None:
            draft: Draft | None = None if awake() else straight(who, now, made_id)
            return draft

        def reporting(what: Report, now: float) -> Flow[bool]:
            return self._report(report(what, now), what, now)

        def driving(flow: Flow[Any], answers: Any = None) -> Any:
            return drive(self._flow(flow) if awake() else flow, answers)

        desk.reserve, desk.report, door._drive = reserving, reporting, driving
        desk.straight = going_straight

    # Flows: what is opened here is closed in the same thread or task, whatever comes

    def _flow(self, flow: Flow[Any]) -> Flow[Any]:
        """The flow, with its questions timed."""
        labels = self.labels
        try:
            ask = next(flow)
            while True:
                kind, opened = type(ask), None
                if kind in labels:
                    opened = self._open(kind)
                    started = perf_counter()
                try:
                    answer = yield ask
                except BaseException as error:  # noqa: BLE001  which is the flow's to hear
                    if kind in labels:
                        self._ended(ask, None, error, perf_counter() - started, opened)
                    ask = flow.throw(error)
                else:
                    if kind in labels:
                        self._ended(ask, answer, None, perf_counter() - started, opened)
                    elif kind is Swap and not answer.applied:
                        self.counts["conflicts"][()] += 1
                    elif isinstance(ask, Tell):
                        told = ask.change.number, ask.change.was, ask.change.standing
                        self.counts["standing.changes"][told] += 1
                    ask = flow.send(answer)
        except StopIteration as stop:
            return stop.value
        finally:
            flow.close()

    def _open(self, kind: type[Ask]) -> _Opened | None:
        tracer, name = self.telemetry.tracer, _SPANS.get(kind)
        if tracer is None or name is None:
            return None
        span = tracer.start_span(f"{NAME}.{name}", kind=SpanKind.CLIENT)
        return span, context.attach(trace.set_span_in_context(span))

    def _ended(
        self,
        ask: Ask,
        answer: Any,
        error: BaseException | None,
        seconds: float,
        opened: _Opened | None,
    ) -> None:
        """Store or provider answered, or failed."""
        labels, told = self.labels[type(ask)], dict[str, str | int | bool]()
        trace_id = getattr(error, "trace_id", None)
        if answer is None:
            pass
        elif isinstance(ask, Call):
            error, outcome = answer.error, str(answer.verdict.outcome)
            trace_id = answer.verdict.trace_id or ask.made.trace_id
            labels = {**labels, "outcome": outcome}
            told["linepicker.outcome"] = outcome
            told["linepicker.line"] = ask.made.number
            told["linepicker.kind"] = ask.made.kind
        elif isinstance(ask, Fetch):
            told["linepicker.lines"] = len(answer.lines)
        elif isinstance(ask, Swap):
            told["linepicker.applied"] = answer.applied
            if not answer.applied:
                self.counts["conflicts"][()] += 1
        if error is not None:
            labels = {**labels, "error": type(error).__name__}
        if trace_id is not None:
            told["linepicker.provider.trace_id"] = trace_id
        provider = isinstance(ask, Call | Fetch)
        latency = self.telemetry.provider if provider else self.telemetry.store
        latency.record(seconds, labels, _NOWHERE)
        if opened is not None:
            opened[0].set_attributes(told)
            _close(*opened, error)

    def _reserve(self, flow: Flow[Made]) -> Flow[Made]:
        """A reservation, counted, and in a span of its own."""
        tracer, counts = self.telemetry.tracer, self.counts["decisions"]
        opened, fault = None, None
        if tracer is not None:
            span = tracer.start_span(f"{NAME}.reserve")
            inner = Swap in self.timed or Fetch in self.timed  # else no span is opened within it
            opened = span, context.attach(trace.set_span_in_context(span)) if inner else None
        told: Labels = ()
        try:
            made: Made = yield from flow
            told = ("reserved", "resumed" if made.resumed else "", made.kind, made.number)
            counts[told] += 1
            if not made.resumed and made.kind != "known":
                what = "conversations.new" if made.kind == "new" else "moves"
                self.counts[what][made.number,] += 1
            if made.send_at > made.at:
                delay = {"pool": self.pool, "kind": made.kind}
                self.telemetry.delay.record(made.send_at - made.at, delay, _NOWHERE)
        except _REFUSALS as refusal:
            made_not = refusal.decision
            parts = (made_not.outcome, made_not.reason, made_not.kind, made_not.number)
            told = tuple(each or "" for each in parts)
            counts[told] += 1
            raise
        except Exception as error:
            fault = error
            counts["error", type(error).__name__, "", ""] += 1
            raise
        else:
            return made
        finally:
            if opened is not None:
                told_of = zip(_TOLD, told, strict=False)
                opened[0].set_attributes({name: value for name, value in told_of if value})
                _close(*opened, fault)

    def _report(self, flow: Flow[bool], report: Report, now: float) -> Flow[bool]:
        applied = yield from flow
        name = type(report).__name__
        labels = {"pool": self.pool, "report": name, "applied": str(applied).lower()}
        self.telemetry.lag.record(max(0.0, now - report.at), labels)
        return applied

    # Lines

    def views(self) -> Sequence[LineView]:
        """Every line as it stands by what this process knows; asked for by a thread of its own, so nothing is touched."""
        desk, now = self.desk(), self.now()
        if desk is None or desk.fleet.polled_at is None:
            return ()
        if not 0.0 <= now - self._viewed_at < _VIEWS_KEPT:
            fleet = desk.fleet
            self._views = [
                view(attrs.evolve(state), fleet, now, None) for _, state in fleet.states()
            ]
            self._viewed_at = now
        return self._views


def _is_idle(provider: object) -> bool:
    """Whether a provider is one of those that OpenTelemetry's API has where there is no SDK."""
    return type(provider).__module__.startswith(("opentelemetry.trace", "opentelemetry.metrics"))


_REFUSALS: Final = (NoLine, Held, NotNow, Blocked, StaleHealth)


def _close(span: Span, token: Token[Context] | None, error: BaseException | None) -> None:
    """End a span. Of an error only its kind is told: its message may hold whatever the caller's function put there."""
    if error is not None:
        span.set_attribute("error.type", type(error).__name__)
        span.set_status(Status(StatusCode.ERROR))
    if token is not None:
        context.detach(token)
    span.end()
