"""What it costs to be measured: reserve, bare and instrumented, without an OpenTelemetry SDK and with one.

The SDK samples every span and hands it to a batching processor whose exporter throws it away; its metrics have a reader that is
not asked. With SQLite (synchronous=normal) each swap is a span and a duration of its own; in memory it is neither, and a
reservation for a known recipient is no span, as it is part of no trace here. The policy has no limits, so that nothing is
refused, and the lines are a hundred. Recipients are made before the timing begins.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import count, cycle, islice
from pathlib import Path

import attrs

from benchmarks.measure import Goal, Subject, version
from benchmarks.pick import ROOMY
from linepicker import Line, Router

PACKAGES = ("linepicker", "attrs", "opentelemetry-api", "opentelemetry-sdk")
LINES = 100
KNOWN = 100
STORES = ("memory", "SQLite")
KINDS = ("new", "known")


@attrs.frozen
class Scale:
    """How much is measured: rounds, and seconds per timing."""

    repeats: int = 25
    seconds: float = 0.05

    def words(self) -> Sequence[str]:
        """How it was measured."""
        return (f"rounds: {self.repeats}, each timing about {self.seconds * 1000:g} ms",)


QUICK = Scale(repeats=7, seconds=0.02)
TINY = Scale(repeats=2, seconds=0.001)


def missing() -> list[str]:
    """In words, what can't be measured here."""
    absent = [each for each in PACKAGES[2:] if version(each) is None]
    return [f"{', '.join(absent)} not installed: pip install -e '.[test]'"] if absent else []


def subjects(house: ExitStack) -> list[Subject]:
    """Everything to time, opened in *house*."""
    folder = Path(house.enter_context(tempfile.TemporaryDirectory()))
    people = (f"person-{n}@example.com" for n in count())
    dress = {"bare": lambda _: None, "no SDK": _without_sdk, "SDK": _with_sdk(house)}
    found = []
    for store in STORES:
        for how, instrument in dress.items():
            url = "memory://"
            if store == "SQLite":
                url = f"sqlite:///{folder / how.replace(' ', '-')}.db?synchronous=normal"
            fleet = [Line(f"+1202555{n:04d}") for n in range(LINES)]
            router = house.enter_context(Router(fleet, policy=ROOMY, store=url))
            instrument(router)
            known = [f"known-{n}@example.com" for n in range(KNOWN)]
            for to in (*known, *known):
                router.reserve(to)
            found += [
                Subject(f"{store}, new: {how}", _reserving(router, people)),
                Subject(f"{store}, known: {how}", _reserving(router, cycle(known))),
            ]
    return found


def goals() -> list[Goal]:
    """What is compared with what, and what is wanted of it."""
    return [
        Goal(
            f"{store}, {kind}: {how} / bare",
            f"{store}, {kind}: {how}",
            f"{store}, {kind}: bare",
            most,
        )
        for how, most in (("no SDK", 1.5), ("SDK", 3.0))
        for store in STORES
        for kind in KINDS
    ]


def _reserving(router: Router, people: Iterator[str]) -> Callable[[int], Callable[[], object]]:
    def prepare(calls: int) -> Callable[[], object]:
        some = list(islice(people, calls))

        def work() -> None:
            for to in some:
                router.reserve(to)

        return work

    return prepare


def _without_sdk(router: Router) -> None:
    from linepicker.telemetry import Telemetry

    Telemetry().instrument(router)


def _with_sdk(house: ExitStack) -> Callable[[Router], None]:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import (
        BatchSpanProcessor,
        SpanExporter,
        SpanExportResult,
    )

    from linepicker.telemetry import Telemetry

    class Nowhere(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    tracers, meters = TracerProvider(), MeterProvider([InMemoryMetricReader()])
    tracers.add_span_processor(BatchSpanProcessor(Nowhere()))
    house.callback(tracers.shutdown)
    house.callback(meters.shutdown)
    return Telemetry(tracer_provider=tracers, meter_provider=meters).instrument
