"""A router under watch: its flows timed, its reservations counted, spans opened around both."""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextvars import Token
from importlib.metadata import version
from time import perf_counter
from typing import Any, Final, Self, TypeAlias

import attrs
from opentelemetry import context, metrics, trace
from opentelemetry.context import Context
from opentelemetry.metrics import Histogram, MeterProvider
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
from linepicker._desk import Desk
from linepicker._straight import Draft
from linepicker._views import view
from linepicker.arouter import AsyncRouter
from linepicker.errors import Blocked, Held, NoLine, NotNow, StaleHealth
from linepicker.model import LineView, Report
from linepicker.router import Router

NAME: Final = "linepicker"
LOOK_AGAIN: Final = 100
"""As long as there is no SDK, it is looked for once in so many calls."""
STORE: Final[Mapping[type[Ask], str]] = {Read: "read", Swap: "swap", Scan: "scan"}
PROVIDER: Final[Mapping[type[Ask], str]] = {Fetch: "fetch", Call: "send"}
_SPANS: Final[Mapping[type[Ask], str]] = {Swap: "swap", **PROVIDER}
_FAST: Final = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
_SLOW: Final = (1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 1800.0, 3600.0)
_TOLD: Final = tuple(f"linepicker.{name}" for name in ("outcome", "reason", "kind", "line"))
_NOWHERE: Final = Context()
"""What is recorded in it costs no look for the span that it may be an example of."""
_VIEWS_KEPT: Final = 1.0  # seconds: one collection asks for several gauges

Labels: TypeAlias = tuple[str, ...]
_NO_LABELS: Final[Labels] = ()
_Opened: TypeAlias = tuple[Span, Token[Context] | None]

COUNTERS: Final[Sequence[tuple[str, Labels, str, str]]] = (
    ("decisions", ("outcome", "reason", "kind", "line"), "{decision}", "What was decided, and why"),
    ("conversations.new", ("line",), "{conversation}", "New conversations, by line"),
    ("moves", ("line",), "{move}", "Recipients taken over from other lines, by line"),
    ("conflicts", (), "{conflict}", "Swaps that found somebody else's write"),
    ("standing.changes", ("line", "was", "standing"), "{change}", "How lines came to stand"),
    ("shadow.differences", ("outcome", "shadow"), "{decision}", "What the shadow saw otherwise"),
)


class Instruments:
    """What is measured with: a tracer and histograms of an SDK, once there is one."""

    def __init__(
        self, tracer_provider: TracerProvider | None, meter_provider: MeterProvider | None
    ) -> None:
        self._given = tracer_provider, meter_provider
        self.measures = False
        """Whether there is an SDK, for traces or metrics."""
        self.tracer: Tracer | None = None
        """What to open spans with; None where that would be a no-op."""
        self._looks = 0
        self._version = version(NAME)
        self.meter = meter = metrics.get_meter(NAME, self._version, meter_provider)

        def histogram(name: str, what: str, bounds: Sequence[float]) -> Histogram:
            return meter.create_histogram(
                f"{NAME}.{name}", "s", what, explicit_bucket_boundaries_advisory=bounds
            )

        self.delay = histogram("delay", "How long messages wait for their slot", _SLOW)
        self.store = histogram("store.duration", "How long the store takes", _FAST)
        self.provider = histogram("provider.duration", "How long the provider takes", _FAST)
        self.lag = histogram("webhook.lag", "From what happened until it was reported", _SLOW)

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


@attrs.define(eq=False)
class Measured:
    """One router under watch. Its counts are changed by its own flows, which never run at the same time, and those of
    reservations under `counting`."""

    instruments: Instruments
    pool: str
    desk: weakref.ref[Desk]
    now: Callable[[], float]
    timed: Mapping[type[Ask], str]
    counts: Mapping[str, Counter[Labels]] = attrs.field(
        factory=lambda: {name: Counter() for name, *_ in COUNTERS}
    )
    counting: threading.Lock = attrs.field(init=False, factory=threading.Lock)
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
        straight: Callable[[Who, float, str], Draft | None] = desk.straight
        awake = self.instruments.awake

        def reserving(*given: Any, draft: Draft | None = None, **named: Any) -> Flow[Made]:
            flow: Flow[Made] = reserve(*given, draft=draft, **named)
            if draft is not None:  # what writes it counts it
                return flow
            return self._reserve(flow) if awake() else flow

        def going_straight(who: Who, now: float, made_id: str) -> Draft | None:
            if Swap in self.timed and awake():  # its swap is to be timed: the flow asks for it
                return None
            return straight(who, now, made_id)

        def reporting(what: Report, now: float) -> Flow[bool]:
            return self._report(report(what, now), what, now)

        def driving(flow: Flow[Any], answers: Any = None) -> Any:
            return drive(self._flow(flow) if awake() else flow, answers)

        desk.reserve, desk.report, door._drive = reserving, reporting, driving
        desk.straight = going_straight
        if isinstance(router, Router):
            write: Callable[[Draft], Made] = door._write

            def writing(draft: Draft) -> Made:
                return self._write(write, draft) if awake() else write(draft)

            door._write = writing

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
        tracer, name = self.instruments.tracer, _SPANS.get(kind)
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
        latency = self.instruments.provider if provider else self.instruments.store
        latency.record(seconds, labels, _NOWHERE)
        if opened is not None:
            opened[0].set_attributes(told)
            _close(*opened, error)

    def _reserve(self, flow: Flow[Made]) -> Flow[Made]:
        """A reservation, counted, and in a span of its own."""
        with _Reserving(self, self._begin()) as reserving:
            reserving.made = made = yield from flow
        return made

    def _write(self, write: Callable[[Draft], Made], draft: Draft) -> Made:
        """The same for one that goes the straight way, from when it is chosen. In memory, where nobody waits, one for a known
        recipient that is part of no trace has no span: it would be longer than what it shows."""
        brief = draft[0].kind == "known" and trace.get_current_span() is trace.INVALID_SPAN
        with _Reserving(self, None if brief else self._begin()) as reserving:
            reserving.made = made = write(draft)
        return made

    def _begin(self) -> _Opened | None:
        tracer = self.instruments.tracer
        if tracer is None:
            return None
        span = tracer.start_span(f"{NAME}.reserve")
        inner = Swap in self.timed or Fetch in self.timed  # else no span is opened within it
        return span, context.attach(trace.set_span_in_context(span)) if inner else None

    def _report(self, flow: Flow[bool], report: Report, now: float) -> Flow[bool]:
        applied = yield from flow
        name = type(report).__name__
        labels = {"pool": self.pool, "report": name, "applied": str(applied).lower()}
        self.instruments.lag.record(max(0.0, now - report.at), labels)
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


class _Reserving:
    """Counts a reservation, and ends its span."""

    __slots__ = ("_measured", "_opened", "made")

    def __init__(self, measured: Measured, opened: _Opened | None) -> None:
        self._measured, self._opened = measured, opened
        self.made: Made | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        made, told, fault = self.made, _NO_LABELS, None
        if made is not None:
            told = self._made(made)
        elif isinstance(error, _REFUSALS):
            refused = error.decision
            parts = (refused.outcome, refused.reason, refused.kind, refused.number)
            told = tuple(each or "" for each in parts)
        elif isinstance(error, Exception):
            fault = error
        if fault or told:
            self._count(told or ("error", type(fault).__name__, "", ""))
        if self._opened is not None:
            told_of = zip(_TOLD, told, strict=False)
            self._opened[0].set_attributes({name: value for name, value in told_of if value})
            _close(*self._opened, fault)

    def _made(self, made: Made) -> Labels:
        if made.send_at > made.at:
            delay = {"pool": self._measured.pool, "kind": made.kind}
            self._measured.instruments.delay.record(made.send_at - made.at, delay, _NOWHERE)
        return "reserved", "resumed" if made.resumed else "", made.kind, made.number

    def _count(self, told: Labels) -> None:
        outcome, reason, kind, number = told
        with self._measured.counting:
            counts = self._measured.counts
            counts["decisions"][told] += 1
            if outcome == "reserved" and reason != "resumed" and kind != "known":
                counts["conversations.new" if kind == "new" else "moves"][number,] += 1


def _close(span: Span, token: Token[Context] | None, error: BaseException | None) -> None:
    """End a span. Of an error only its kind is told: its message may hold whatever the caller's function put there."""
    if error is not None:
        span.set_attribute("error.type", type(error).__name__)
        span.set_status(Status(StatusCode.ERROR))
    if token is not None:
        context.detach(token)
    span.end()
