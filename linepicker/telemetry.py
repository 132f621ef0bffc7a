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

With a store in memory, a reservation of a `Router` that asks for nothing special, for somebody whose line is known, has a span
only within a trace: nobody is asked, and the span would take longer than all of it.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Iterable
from importlib.resources import files
from typing import Any

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from opentelemetry.trace import TracerProvider

from linepicker._asks import Fetch
from linepicker._measured import COUNTERS, NAME, PROVIDER, STORE, Instruments, Labels, Measured
from linepicker.arouter import AsyncRouter
from linepicker.router import Router
from linepicker.stores.memory import AsyncMemoryStore, MemoryStore

__all__ = ["Telemetry", "dashboard"]


def dashboard() -> dict[str, Any]:
    """A Grafana dashboard of these metrics, as they are named in Prometheus: to be imported as JSON."""
    text = files("linepicker").joinpath("dashboard.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


class Telemetry(Instruments):
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
        super().__init__(tracer_provider, meter_provider)
        self._watched: list[Measured] = []
        meter = self.meter
        for name, labels, unit, what in COUNTERS:
            meter.create_observable_counter(
                f"{NAME}.{name}", [self._counts(name, labels)], unit, what
            )
        for name, read, unit, what in (
            ("budget.left", self._left, "{conversation}", "New conversations left today, by line"),
            ("line.standing", self._standing, "1", "How a line stands; always 1"),
            ("snapshot.age", self._age, "s", "Seconds since the list of lines was asked for"),
        ):
            meter.create_observable_gauge(f"{NAME}.{name}", [read], unit, what)

    def instrument(self, router: Router | AsyncRouter) -> None:
        """Measure what this router does from now on. Once for each router, before it is used; a second time is nothing."""
        desk = router._desk
        if any(each.desk() is desk for each in self._watched):
            return
        timed = dict(PROVIDER)
        if desk.static is not None:
            del timed[Fetch]
        if not isinstance(router._store, MemoryStore | AsyncMemoryStore):
            timed.update(STORE)
        watched = Measured(self, desk.pool, weakref.ref(desk), router._clock.now, timed)
        self._watched.append(watched)
        watched.attach(router)

    def shadow_differs(self, pool: str, outcome: str, shadow: str) -> None:
        """Count that a second policy, which only looks on, would have decided otherwise. *outcome*, *shadow*: the outcomes."""
        for each in self._watched:
            if each.pool == pool:
                each.counts["shadow.differences"][outcome, shadow] += 1
                return

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
