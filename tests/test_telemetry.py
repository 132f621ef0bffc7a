"""Metrics and traces: what is measured, what is never told, and that nothing is done where nobody listens."""

import asyncio
import gc
import json
import re
import subprocess
import sys
import threading
import urllib.request
import weakref

import httpx
import pytest
from linq import AsyncLinqAPIV3, LinqAPIV3
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NoOpTracer, NoOpTracerProvider, StatusCode

from linepicker import (
    AsyncRouter,
    Blocked,
    Held,
    Line,
    LineChanged,
    NoLine,
    OptedOut,
    Policy,
    Replied,
    Router,
    SourceError,
    StoreError,
)
from linepicker.providers.linq import (
    AsyncLinqMessenger,
    AsyncLinqSource,
    LinqMessenger,
    LinqSource,
)
from linepicker.telemetry import Telemetry, dashboard
from linepicker.testing import FakeLinq, ManualClock

ONE, TWO = "+12025550100", "+12025550101"
PERSON, FRIEND = "+12125550123", "ann@example.com"
NOON = 1_800_000_000.0


class Seen:
    """Somebody who listens: an SDK with readers in memory."""

    def __init__(self):
        self.reader, self.exporter = InMemoryMetricReader(), InMemorySpanExporter()
        tracers = TracerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meters = MeterProvider([self.reader])
        self.telemetry = Telemetry(tracer_provider=tracers, meter_provider=self.meters)

    def metrics(self):
        """All points by the metric's name: the attributes but the pool, and the value (of a histogram: count and sum)."""
        found = {}
        data = self.reader.get_metrics_data()
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points:
                        told = {k: v for k, v in point.attributes.items() if k != "pool"}
                        assert point.attributes["pool"] == "default"
                        value = getattr(point, "value", None)
                        if value is None:
                            value = (point.count, point.sum)
                        found.setdefault(metric.name, []).append((told, value))
        return found

    def spans(self):
        """The spans that ended, in that order."""
        return self.exporter.get_finished_spans()

    def text(self):
        """Everything told, as text."""
        return repr(self.metrics()) + "".join(span.to_json() for span in self.spans())


@pytest.fixture
def seen():
    """An SDK that belongs to one test."""
    return Seen()


@pytest.fixture
def clock():
    """A clock that moves when told."""
    return ManualClock(NOON)


def watched(seen, clock, lines=(ONE, TWO), *, store=None, **policy):
    """A router on these lines that is measured."""
    fleet = [Line(each) if isinstance(each, str) else each for each in lines]
    router = Router(fleet, policy=Policy.from_dict(policy), store=store, clock=clock)
    seen.telemetry.instrument(router)
    return router


def test_decisions_are_counted_by_outcome_and_reason(seen, clock):
    """Each reservation and each refusal is one, with its kind, its reason and its line."""
    router = watched(seen, clock, [ONE], limits={"new_per_day": 1})
    router.reserve(PERSON)
    router.reserve(PERSON)
    with pytest.raises(NoLine):
        router.reserve(FRIEND)
    router.pause(ONE)
    with pytest.raises(Held):
        router.reserve(PERSON)
    router.report(OptedOut(FRIEND, at=clock.now()))
    with pytest.raises(Blocked):
        router.reserve(FRIEND)
    found = {tuple(told.values()): count for told, count in seen.metrics()["linepicker.decisions"]}
    assert found == {
        ("reserved", "", "new", ONE): 1,
        ("reserved", "", "known", ONE): 1,
        ("no_line", "day_budget", "", ""): 1,
        ("held", "paused", "known", ONE): 1,
        ("blocked", "opted_out", "", ""): 1,
    }
    assert seen.metrics()["linepicker.conversations.new"] == [({"line": ONE}, 1)]


async def test_an_async_router_is_measured_the_same(seen, clock):
    """Its decisions are counted and its spans are opened, also where many run at once."""
    router = AsyncRouter([Line(ONE), Line(TWO)], clock=clock)
    seen.telemetry.instrument(router)
    await asyncio.gather(*(router.reserve(f"{n}@example.com") for n in range(10)))
    assert sum(count for _, count in seen.metrics()["linepicker.decisions"]) == 10
    assert [span.name for span in seen.spans()] == ["linepicker.reserve"] * 10
    assert len({span.context.trace_id for span in seen.spans()}) == 10


def test_a_reservation_found_by_its_key_is_no_new_conversation(seen, clock):
    """It is a decision, called resumed, and opens nothing."""
    router = watched(seen, clock)
    for _ in range(2):
        router.reserve(PERSON, key="one")
    assert sum(count for _, count in seen.metrics()["linepicker.conversations.new"]) == 1
    reasons = [told["reason"] for told, _ in seen.metrics()["linepicker.decisions"]]
    assert sorted(reasons) == ["", "resumed"]


def test_moves_are_counted_where_they_arrive(seen, clock):
    """A known person whose line is FLAGGED is a move to the line that takes them."""
    router = watched(seen, clock)
    router.assign(PERSON, ONE)
    router.report(LineChanged(ONE, status="FLAGGED", at=clock.now()))
    router.reserve(PERSON)
    assert seen.metrics()["linepicker.moves"] == [({"line": TWO}, 1)]


def test_changes_of_standing_are_counted(seen, clock):
    """By line, and what it was and is."""
    router = watched(seen, clock)
    router.refresh()
    router.report(LineChanged(ONE, reputation="CRITICAL", at=clock.now()))
    found = seen.metrics()["linepicker.standing.changes"]
    assert found == [({"line": ONE, "was": "ok", "standing": "critical"}, 1)]


def test_waits_are_measured_where_there_are_any(seen, clock):
    """What may go at once is not in the delays; the rest is, in seconds."""
    router = watched(seen, clock, [ONE])
    for n in range(7):
        router.reserve(f"{n}@example.com")
    assert seen.metrics()["linepicker.delay"] == [({"kind": "new"}, (2, 60.0))]


def test_conflicts_are_counted(seen, clock):
    """A swap that finds another's write is one."""
    first = watched(seen, clock, store="memory://")
    second = Router([Line(ONE), Line(TWO)], store=first._store, clock=clock)
    first.reserve(PERSON)
    for n in range(6):
        second.reserve(f"{n}@example.com")
    first.reserve(FRIEND)
    ((_, count),) = seen.metrics()["linepicker.conflicts"]
    assert count >= 1


def test_gauges_say_how_the_lines_stand(seen, clock):
    """Budget left and standing by line; the age of a list is not told of one that is read once."""
    router = watched(seen, clock)
    number = router.reserve(PERSON).number
    router.pause(TWO if number == ONE else ONE)
    found = seen.metrics()
    left = {told["line"]: value for told, value in found["linepicker.budget.left"]}
    assert left[number] == 49
    standing = {told["line"]: told["standing"] for told, _ in found["linepicker.line.standing"]}
    assert sorted(standing.values()) == ["ok", "paused"]
    assert "linepicker.snapshot.age" not in found


def test_the_age_of_the_list_is_told(seen):
    """Seconds since it was asked for, by the router's clock."""
    clock = ManualClock(NOON)
    with FakeLinq([ONE]) as fake, LinqSource(fake.token, base_url=fake.base_url) as source:
        router = Router(source, clock=clock)
        seen.telemetry.instrument(router)
        router.refresh()
        clock.advance(42.0)
        assert seen.metrics()["linepicker.snapshot.age"] == [({}, 42.0)]


def test_lag_is_from_what_happened_until_it_was_reported(seen, clock):
    """By the kind of report, and whether it changed anything; a sender's fast clock makes no negative one."""
    router = watched(seen, clock)
    router.refresh()
    report = Replied(ONE, PERSON, at=clock.now() - 8.0, event_id="a")
    assert (router.report(report), router.report(report)) == (True, False)
    router.report(LineChanged(ONE, reputation="AT_RISK", at=clock.now() + 3.0))
    found = {
        tuple(told.values()): value for told, value in seen.metrics()["linepicker.webhook.lag"]
    }
    assert found == {
        ("Replied", "true"): (1, 8.0),
        ("Replied", "false"): (1, 8.0),
        ("LineChanged", "true"): (1, 0.0),
    }


def test_a_store_and_a_provider_are_timed(seen, tmp_path):
    """Reads, swaps and fetches by their operation; what fails has the error's name."""
    with (
        FakeLinq([ONE]) as fake,
        LinqSource(fake.token, base_url=fake.base_url) as source,
        Router(source, store=f"sqlite:///{tmp_path}/lines.db") as router,
    ):
        seen.telemetry.instrument(router)
        router.reserve(PERSON)
        fake.fail_next(9, status=500, path="/v3/phone_numbers")
        with pytest.raises(SourceError):
            router.refresh()
    found = seen.metrics()
    operations = {told["operation"] for told, _ in found["linepicker.store.duration"]}
    assert {"read", "swap"} <= operations
    fetches = [told.get("error") for told, _ in found["linepicker.provider.duration"]]
    assert sorted(fetches, key=str) == [None, "SourceError"] or set(fetches) == {
        None,
        "SourceError",
    }


def test_a_store_in_memory_is_not_timed(seen, clock):
    """It is in this process: to measure it would take longer than it does."""
    watched(seen, clock).reserve(PERSON)
    assert "linepicker.store.duration" not in seen.metrics()


def test_swaps_and_fetches_are_spans_within_the_reservation(seen, tmp_path):
    """The reservation's span has the decision; its children have the list's length and whether the swap was applied."""
    with (
        FakeLinq([ONE]) as fake,
        LinqSource(fake.token, base_url=fake.base_url) as source,
        Router(source, store=f"sqlite:///{tmp_path}/lines.db") as router,
    ):
        seen.telemetry.instrument(router)
        router.reserve(PERSON)
    *children, parent = seen.spans()
    assert parent.name == "linepicker.reserve"
    assert dict(parent.attributes) == {
        "linepicker.outcome": "reserved",
        "linepicker.kind": "new",
        "linepicker.line": ONE,
    }
    assert {each.parent.span_id for each in children} == {parent.context.span_id}
    told = {each.name: dict(each.attributes) for each in children}
    assert told["linepicker.fetch"] == {"linepicker.lines": 1}
    assert told["linepicker.swap"] == {"linepicker.applied": True}


def test_a_known_recipient_s_reservation_in_memory_is_a_span_within_a_trace_alone(seen, clock):
    """A reservation that asks nobody is counted, and is a span where it is part of a trace."""
    router = watched(seen, clock)
    names = []
    for _ in range(3):
        router.reserve("ann@example.com")
        names.append([span.name for span in seen.exporter.get_finished_spans()])
    assert names == [["linepicker.reserve"]] * 3  # the new conversation's
    tracer = seen.telemetry.tracer
    with tracer.start_as_current_span("request") as request:
        router.reserve("ann@example.com")
    mine = seen.exporter.get_finished_spans()[1]
    assert (mine.name, mine.parent.span_id) == (
        "linepicker.reserve",
        request.get_span_context().span_id,
    )
    assert mine.attributes["linepicker.kind"] == "known"
    counts = seen.metrics()["linepicker.decisions"]
    assert sorted(count for _, count in counts) == [1, 3]


def test_a_refusal_is_no_fault_of_a_span(seen, clock):
    """Its span is not an error, and says why."""
    router = watched(seen, clock)
    for number in (ONE, TWO):
        router.pause(number)
    with pytest.raises(NoLine):
        router.reserve(PERSON)
    (span,) = (each for each in seen.spans() if each.name == "linepicker.reserve")
    assert span.attributes["linepicker.outcome"] == "no_line"
    assert span.attributes["linepicker.reason"] == "paused"
    assert span.status.status_code is StatusCode.UNSET


class Gone:
    """A store that has failed, and says so with somebody's number."""

    def read(self, keys):
        """Fails."""
        raise StoreError(f"no answer about {PERSON}")

    swap = scan = read

    def close(self):
        """Nothing."""


def test_a_store_that_fails_is_an_error_without_its_message(seen, clock):
    """The error's name is told, in span and count; what its message holds is not."""
    router = Router([Line(ONE)], store=Gone(), clock=clock)
    seen.telemetry.instrument(router)
    with pytest.raises(StoreError):
        router.reserve(PERSON)
    (span,) = (each for each in seen.spans() if each.name == "linepicker.reserve")
    assert (span.status.status_code, span.attributes["error.type"]) == (
        StatusCode.ERROR,
        "StoreError",
    )
    ((told, _),) = seen.metrics()["linepicker.decisions"]
    assert (told["outcome"], told["reason"]) == ("error", "StoreError")
    assert "0123" not in seen.text()


def test_a_send_has_the_provider_s_trace_id(seen):
    """By the messenger, by httpx, and of an error: the id in the headers is in the span around the call."""
    with (
        FakeLinq([ONE]) as fake,
        LinqSource(fake.token, base_url=fake.base_url) as source,
        LinqAPIV3(api_key=fake.token, base_url=fake.base_url) as client,
        httpx.Client(headers={"Authorization": f"Bearer {fake.token}"}) as http,
        Router(source) as router,
    ):
        seen.telemetry.instrument(router)
        ids = []

        def post(reservation):
            answer = http.get(f"{fake.base_url}/v3/chats/none")
            ids.append(answer.headers["X-Trace-ID"])
            return answer

        LinqMessenger(client, router).send(PERSON, "Hello")
        router.send(PERSON, post)
        fake.opt_out(FRIEND)
        with pytest.raises(Exception, match="2024") as refused:
            LinqMessenger(client, router).send(FRIEND, "Hello")
        ids.append(refused.value.response.headers["X-Trace-ID"])
    sends = [span for span in seen.spans() if span.name == "linepicker.send"]
    first, *others = (span.attributes["linepicker.provider.trace_id"] for span in sends)
    assert re.fullmatch("[0-9a-f]{32}", first)
    assert others == ids
    assert [span.attributes["linepicker.outcome"] for span in sends] == [
        "SENT",
        "NOT_SENT",
        "RECIPIENT_REFUSED",
    ]
    assert sends[2].status.status_code is StatusCode.ERROR
    assert PERSON not in seen.text()
    assert FRIEND not in seen.text()
    assert "Hello" not in seen.text()


async def test_an_async_send_has_the_provider_s_trace_id(seen):
    """As the sync one."""
    with FakeLinq([ONE]) as fake:
        async with (
            AsyncLinqSource(fake.token, base_url=fake.base_url) as source,
            AsyncLinqAPIV3(api_key=fake.token, base_url=fake.base_url) as client,
            AsyncRouter(source) as router,
        ):
            seen.telemetry.instrument(router)
            for text in ("Hello", "again"):  # a new chat, and a known one
                await AsyncLinqMessenger(client, router).send(PERSON, text)
    sends = [span for span in seen.spans() if span.name == "linepicker.send"]
    ids = {span.attributes["linepicker.provider.trace_id"] for span in sends}
    assert len(ids) == 2


def test_what_the_caller_s_function_opens_is_within_the_send(seen, clock):
    """A span of an instrumented client, say."""
    router = watched(seen, clock)
    tracer = seen.telemetry.tracer or seen.telemetry._given[0].get_tracer("client")

    def call(reservation):
        with tracer.start_as_current_span("POST"):
            pass

    router.send(PERSON, call)
    inner = next(span for span in seen.spans() if span.name == "POST")
    outer = next(span for span in seen.spans() if span.name == "linepicker.send")
    assert inner.parent.span_id == outer.context.span_id


async def test_a_cancelled_send_closes_its_span(seen, clock):
    """And leaves nothing behind that later spans would be children of."""
    router = AsyncRouter([Line(ONE)], clock=clock)
    seen.telemetry.instrument(router)
    begun = asyncio.Event()

    async def never(reservation):
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(router.send(PERSON, never))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (span,) = (each for each in seen.spans() if each.name == "linepicker.send")
    assert span.status.status_code is StatusCode.ERROR


class Counting(NoOpTracerProvider):
    """A tracer that is a no-op, and counts what it is asked for."""

    opened = 0

    def get_tracer(self, *args, **kwargs):
        """A no-op tracer."""
        mine = self

        class Tracer(NoOpTracer):
            def start_span(self, *args, **kwargs):
                mine.opened += 1
                return super().start_span(*args, **kwargs)

        return Tracer()


def test_without_an_sdk_no_span_is_opened_and_nothing_is_counted(clock):
    """Where the tracer is a no-op it is not asked for a span, and the flows are the bare ones."""
    provider = Counting()
    telemetry = Telemetry(tracer_provider=provider)
    router = Router([Line(ONE)], clock=clock)
    bare = router._desk.reserve
    telemetry.instrument(router)
    router.send(PERSON, lambda _: None)
    assert provider.opened == 0
    assert not any(counts for counts in telemetry._watched[0].counts.values())
    flow = router._desk.reserve(None, router._desk._plain, NOON, "00000001", key=None)
    assert flow.gi_code is bare(None, router._desk._plain, NOON, "00000001", key=None).gi_code


LATE = """
from opentelemetry import metrics, trace
from linepicker import Line, Router
from linepicker.telemetry import Telemetry

router = Router([Line("+12025550100")])
Telemetry().instrument(router)
for n in range(150):
    router.preview(f"{n}@example.com")

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
trace.set_tracer_provider(TracerProvider())
trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(exporter))
metrics.set_meter_provider(MeterProvider([reader]))
for n in range(150):
    router.preview(f"{n}@example.com")
router.reserve("ann@example.com")
print([span.name for span in exporter.get_finished_spans()])
scopes = reader.get_metrics_data().resource_metrics[0].scope_metrics
print("linepicker.decisions" in [metric.name for each in scopes for metric in each.metrics])
"""


def test_an_sdk_that_is_set_up_later_is_found():
    """The global providers may be set after the routers are made."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LATE], capture_output=True, text=True, check=True
    )
    assert done.stdout == "['linepicker.reserve']\nTrue\n"


def test_routers_share_a_telemetry(seen, clock):
    """Two routers, one metric: each counts for itself; the same one twice counts once."""
    first, second = watched(seen, clock, [ONE]), watched(seen, clock, [TWO])
    seen.telemetry.instrument(first)
    first.reserve(PERSON)
    second.reserve(PERSON)
    assert seen.metrics()["linepicker.conversations.new"] == [
        ({"line": ONE}, 1),
        ({"line": TWO}, 1),
    ]


def test_a_router_that_is_gone_is_let_go(seen, clock):
    """What it counted stays; its lines are told of no more."""
    router = watched(seen, clock)
    router.reserve(PERSON)
    desk = weakref.ref(router._desk)
    del router
    gc.collect()
    assert desk() is None
    found = seen.metrics()
    assert "linepicker.budget.left" not in found
    assert len(found["linepicker.decisions"]) == 1


def test_threads_count_exactly_while_somebody_reads(seen, clock):
    """Eight threads reserve, another collects all the while, and no decision is missing."""
    router = watched(
        seen,
        clock,
        limits={"new_per_day": "off", "new_per_hour": "off"},
        pace={"new_gap": 0, "message_gap": 0},
    )
    done = threading.Event()

    def read():
        while not done.is_set():
            seen.metrics()

    reader = threading.Thread(target=read)
    reader.start()

    def work(name):
        for n in range(40):
            router.reserve(f"{name}-{n}@example.com")

    workers = [threading.Thread(target=work, args=[n]) for n in range(8)]
    for each in workers:
        each.start()
    for each in workers:
        each.join()
    done.set()
    reader.join()
    assert sum(count for _, count in seen.metrics()["linepicker.decisions"]) == 320


def test_what_a_shadow_saw_otherwise_is_counted(seen, clock):
    """By what was decided, and what the shadow would have."""
    watched(seen, clock)
    seen.telemetry.shadow_differs("default", "reserved", "held")
    found = seen.metrics()["linepicker.shadow.differences"]
    assert found == [({"outcome": "reserved", "shadow": "held"}, 1)]


# Prometheus and Grafana


def test_the_dashboard_is_one_and_asks_for_metrics_that_there_are(tmp_path):
    """Grafana's own models parse it, and each metric in its queries is on the Prometheus page of a router that did it all."""
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    register_default_plugins()
    parsed = Dashboard.from_json(dashboard())
    assert parsed.title == "linepicker"
    queries = [target.expr for panel in parsed.panels for target in panel.targets]
    assert len(queries) >= len(parsed.panels) >= 10
    assert len({panel.id_val for panel in parsed.panels}) == len(parsed.panels)
    asked = {name for query in queries for name in re.findall(r"linepicker_\w+", query)}
    assert asked == {
        "linepicker_budget_left",
        "linepicker_conflicts_total",
        "linepicker_conversations_new_total",
        "linepicker_decisions_total",
        "linepicker_delay_seconds_bucket",
        "linepicker_line_standing",
        "linepicker_moves_total",
        "linepicker_provider_duration_seconds_bucket",
        "linepicker_provider_duration_seconds_count",
        "linepicker_shadow_differences_total",
        "linepicker_snapshot_age_seconds",
        "linepicker_standing_changes_total",
        "linepicker_store_duration_seconds_bucket",
        "linepicker_store_duration_seconds_count",
        "linepicker_webhook_lag_seconds_bucket",
    }
    assert asked <= set(re.findall(r"^linepicker_\w+", exposed(tmp_path), re.MULTILINE))
    round_trip = json.loads(json.dumps(dashboard()))
    assert round_trip == dashboard()


def exposed(tmp_path):
    """The page that Prometheus reads, of a router that did everything there is."""
    from opentelemetry.exporter.prometheus import PrometheusMetricReader
    from prometheus_client import start_http_server

    meters, clock = MeterProvider([PrometheusMetricReader()]), ManualClock(NOON)
    telemetry = Telemetry(tracer_provider=NoOpTracerProvider(), meter_provider=meters)
    server, thread = start_http_server(0, "127.0.0.1")
    with (
        FakeLinq([ONE, TWO]) as fake,
        LinqSource(fake.token, base_url=fake.base_url) as source,
        Router(source, store=f"sqlite:///{tmp_path}/lines.db", clock=clock) as router,
        Router(source, store=f"sqlite:///{tmp_path}/lines.db", clock=clock) as other,
    ):
        telemetry.instrument(router)
        router.assign(PERSON, ONE)
        router.report(LineChanged(ONE, status="FLAGGED", at=clock.now()))
        for n in range(7):
            router.reserve(f"{n}@example.com")
            other.reserve(f"{n}@example.org")
        router.send(PERSON, lambda _: None)
        telemetry.shadow_differs("default", "reserved", "held")
        url = f"http://127.0.0.1:{server.server_port}/metrics"
        with urllib.request.urlopen(url) as page:
            text = page.read().decode()
    server.shutdown()
    server.server_close()
    thread.join()
    meters.shutdown()
    return text
