"""Random histories of routers that share a store and a log of decisions, and whether each decision can be made again.

    python tests/histories.py --decisions 100000 --seed 1

Several routers with one clock reserve for new and known people and groups, with keys, tags, exclusions and pins; settle in
every way, move, pause, reload; hear of replies, opt-outs, failures, CRITICAL and FLAGGED lines; lose the provider's list, the
store, and now and then the true time. Then every decision in the log is made again from what the log tells.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from linepicker import (
    AlreadySent,
    AsyncRouter,
    Blocked,
    ChatHealthChanged,
    Delivered,
    Failed,
    Held,
    Line,
    LineChanged,
    LineReleased,
    MessageRead,
    NoLine,
    NotNow,
    OptedIn,
    OptedOut,
    Policy,
    Replied,
    Router,
    SourceError,
    StaleHealth,
    StoreError,
)
from linepicker.recording import DecisionLog
from linepicker.replay import check
from linepicker.stores.memory import AsyncMemoryStore, MemoryStore
from linepicker.testing import ManualClock

START = 1_700_000_000.0
REFUSALS = (Blocked, Held, NoLine, NotNow, StaleHealth)
POLICIES: tuple[dict[str, Any], ...] = (
    {},
    {"limits": {"new_per_day": 12, "new_per_hour": 6}, "pace": {"new_gap": 5, "spread": "off"}},
    {"prefer": "weighted", "affinity": {"area_code": 0.5}},
    {"on_store_error": "known_only", "conversation": {"unanswered": "shadow"}},
    {"stickiness": {"on_critical": "move", "return_home": 7200}, "health": {"on_stale": "refuse"}},
    {"tag": {"vip": {"limits": {"new_per_day": 5}}}, "pace": {"max_delay": 20}},
    {
        "quiet": {
            "hours": "22:00-07:00",
            "zone": "Asia/Kathmandu",
            "prefix": {"+1212": {"zone": "America/New_York"}, "+1907": {"hours": "12:00-23:59"}},
        },
        "limits": {"new_per_day": 12, "new_per_hour": 6},
    },
    {"priority": {"urgent_share": 0.3}, "limits": {"new_per_day": 12, "messages_per_day": 30}},
    {
        "learn": {"floor": 2, "hold": 0, "lag": 0, "jump": 1.5, "reply_sample": 2, "warn": 0.6},
        "limits": {"new_per_day": 12, "new_per_hour": 6},
    },
)


class Source:
    """A list of lines that changes, and can't always be had."""

    def __init__(self, rng: random.Random) -> None:
        self.lines = {}
        self.away = False
        for i in range(rng.choice((3, 8, 12, 40))):
            number = f"+1{rng.choice((212, 415, 646))}555{i:04d}"
            self.lines[number] = Line(
                number,
                tags=rng.sample(("vip", "eu"), rng.randrange(3)),
                line_type=rng.choice((None, None, "RCS")),
                weight=rng.choice((1.0, 1.0, 2.0)),
            )

    def fetch(self) -> list[Line]:
        """The list, or SourceError."""
        if self.away:
            raise SourceError("away")
        return list(self.lines.values())


class AsyncSource(Source):
    """The same, for coroutines."""

    async def fetch(self) -> list[Line]:  # type: ignore[override]
        """The list, or SourceError."""
        return super().fetch()


class Flaky:
    """A store that can be away."""

    wants_seen = True

    def __init__(self, store: Any) -> None:
        self.store, self.away = store, False

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self.store, name)

        def there(*given: Any, **more: Any) -> Any:
            if self.away:
                raise StoreError("the store is away")
            return verb(*given, **more)

        return there


class Awaited:
    """An async object whose verbs are run to their end, each at once."""

    def __init__(self, loop: asyncio.AbstractEventLoop, inner: Any) -> None:
        self._loop, self._inner = loop, inner

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if not asyncio.iscoroutinefunction(value):
            return value

        def run(*given: Any, **more: Any) -> Any:
            found = self._loop.run_until_complete(value(*given, **more))
            return Awaited(self._loop, found) if name == "reserve" else found

        return run


class History:
    """One random history. *loop*: with async routers, run on it."""

    def __init__(
        self,
        rng: random.Random,
        record: Any,
        *,
        routers: int = 2,
        loop: asyncio.AbstractEventLoop | None = None,
        steps_back: bool = True,
        shadow: Policy | None = None,
    ) -> None:
        self.rng, self.loop, self.steps_back = rng, loop, steps_back
        self.clock = ManualClock(START)
        self.source = Source(rng) if loop is None else AsyncSource(rng)
        memory = MemoryStore(time=self.clock.now)
        self.store = Flaky(memory if loop is None else AsyncMemoryStore(memory))
        self.policies = [Policy.from_dict(each) for each in POLICIES]
        policy = rng.choice(self.policies)
        self.routers = []
        for _ in range(routers):
            given = {
                "policy": policy,
                "store": self.store,
                "clock": self.clock,
                "record": record,
                "shadow": shadow,
            }
            made = (Router if loop is None else AsyncRouter)(self.source, **given)
            made._dice.seed(len(self.routers))  # how long a failed list is let be is drawn, too
            self.routers.append(made if loop is None else Awaited(loop, made))
        self.people: list[Any] = []
        self.open: list[Any] = []
        self.messages: list[tuple[str, Any, str]] = []
        self.count = 0
        self.outcomes: Counter[str] = Counter()

    @property
    def decided(self) -> int:
        """How many decisions there were, keys that stood for an earlier one not counted."""
        return sum(n for what, n in self.outcomes.items() if what != "again")

    def step(self) -> None:
        """Something happens."""
        rng = self.rng
        router = rng.choice(self.routers)
        what = rng.choices(
            (
                self.reserve,
                self.settle,
                self.hear,
                self.pass_time,
                self.meddle,
                self.break_something,
            ),
            (60, 20, 8, 25, 2, 1),
        )[0]
        try:
            what(router)
        except (StoreError, SourceError, ValueError, AlreadySent) as error:
            self.outcomes[type(error).__name__] += 0

    def reserve(self, router: Any) -> None:
        """A message is to go out."""
        rng, given = self.rng, {}
        if self.people and rng.random() < 0.45:
            to = rng.choice(self.people)
        else:
            self.count += 1
            to = f"+1{rng.choice((212, 415, 907))}{4000000 + self.count}"
            to = rng.choices(
                (to, f"p{self.count}@example.com", (to, f"g{self.count}@example.com")), (8, 1, 1)
            )[0]
            self.people.append(to)
        numbers = list(self.source.lines) or ["+12125550000"]
        if rng.random() < 0.2:
            given |= rng.choice(
                (
                    {"tags": ("vip",)},
                    {"line_type": "rcs"},
                    {"exclude": rng.sample(numbers, min(2, len(numbers)))},
                    {"line": rng.choice(numbers)},
                    {"max_delay": rng.choice((0.0, 5.0, 900.0))},
                    {"inbound": True, "line": rng.choice(numbers)},
                    {"override_optout": True},
                    {"priority": "urgent"},
                    {"text": f"Hello, this is offer {self.count} of ours"},
                    {"chat_health": rng.choice(("HEALTHY", "AT_RISK", "CRITICAL", "OPTED_OUT"))},
                    {"key": f"k{rng.randrange(self.count + 1)}"},
                )
            )
        try:
            made = router.reserve(to, **given)
        except REFUSALS as refusal:
            self.outcomes[refusal.decision.outcome] += 1
            return
        inner = made if self.loop is None else made._inner
        fresh = not inner._made.resumed
        self.outcomes[made.kind if fresh else "again"] += 1
        self.open.append(made)
        if len(self.open) > 50:
            self.open.pop(0)

    def settle(self, router: Any) -> None:
        """What became of one."""
        if not self.open:
            return
        rng, made = self.rng, self.open.pop(self.rng.randrange(len(self.open)))
        outcome = rng.choices(
            ("SENT", "NOT_SENT", "LINE_REFUSED", "RECIPIENT_REFUSED", "RATE_LIMITED", "UNKNOWN"),
            (80, 6, 2, 1, 3, 2),
        )[0]
        more: dict[str, Any] = {}
        if outcome == "SENT" and rng.random() < 0.5:
            self.count += 1
            more = {"message_id": f"m{self.count}", "chat_id": f"c{made.to}{made.number}"}
            self.messages.append((made.number, made.to, more["message_id"]))
        if outcome in ("LINE_REFUSED", "RATE_LIMITED") and rng.random() < 0.5:
            more = {"retry_after": rng.choice((30.0, 3600.0))}
        made.settle(outcome, **more)

    def hear(self, router: Any) -> None:
        """Something is reported."""
        rng, at = self.rng, self.clock.now() - self.rng.choice((0.0, 3.0, 400.0))
        number = rng.choice(list(self.source.lines) or ["+12125550000"])
        kind = rng.randrange(8)
        if kind == 0:
            word = rng.choice(("HEALTHY",) * 6 + ("AT_RISK", "CRITICAL"))
            if number in self.source.lines:
                old = self.source.lines[number]
                self.source.lines[number] = Line(
                    number,
                    reputation=word,
                    tags=old.tags,
                    line_type=old.line_type,
                    weight=old.weight,
                )
            router.report(LineChanged(number, reputation=word, at=at))
        elif kind == 1:
            router.report(
                LineChanged(number, status=rng.choice(("ACTIVE", "ACTIVE", "FLAGGED")), at=at)
            )
        elif self.messages and kind <= 4:
            line, to, message = rng.choice(self.messages)
            which = rng.choice((Delivered, Failed, MessageRead))
            router.report(which(number=line, to=to, message_id=message, at=at))
        elif self.people:
            to = rng.choice(self.people)
            if kind == 5 or not isinstance(to, str):
                router.report(Replied(number, to, text="a secret", at=at))
            elif kind == 6:
                router.report(rng.choice((OptedOut, OptedIn))(to, at=at))
            else:
                health = rng.choice(("HEALTHY", "AT_RISK", "CRITICAL"))
                router.report(ChatHealthChanged(to, health, number=number, at=at))

    def pass_time(self, router: Any) -> None:
        """The clock goes on; rarely it steps back."""
        rng = self.rng
        if self.steps_back and rng.random() < 0.005:
            self.clock.advance(-rng.choice((1.0, 50.0, 4000.0)))
        else:
            seconds = rng.choices(
                (1.0, 30.0, 120.0, 1200.0, 20000.0, 90000.0), (10, 30, 30, 15, 2, 1)
            )
            self.clock.advance(seconds[0] * rng.random())

    def meddle(self, router: Any) -> None:
        """An operator does something, or looks."""
        rng, number = self.rng, self.rng.choice(list(self.source.lines) or ["+12125550000"])
        choice = rng.randrange(9)
        if choice == 0:
            router.pause(number, reason="ask ann@example.com")
        elif choice == 1:
            router.drain(number)
        elif choice <= 3:
            for each in self.source.lines:
                router.resume(each)
        elif choice == 4:
            router.lines()
        elif choice == 5:
            router.reload(rng.choice(self.policies))
        elif choice == 6 and self.people:
            router.preview(rng.choice(self.people))
        elif self.people:
            with contextlib.suppress(*REFUSALS):
                router.move(rng.choice(self.people), rng.choice((None, number)))

    def break_something(self, router: Any) -> None:
        """The list, the store or a line goes away, or comes back."""
        rng = self.rng
        choice = rng.randrange(10)
        if choice == 0:
            self.source.away = not self.source.away
        elif choice == 1:
            self.store.away = True
        elif choice == 2 and len(self.source.lines) > 3:
            number = rng.choice(list(self.source.lines))
            del self.source.lines[number]
            router.report(LineReleased(number, at=self.clock.now()))
        elif choice == 3:
            number = f"+1212556{rng.randrange(10000):04d}"
            self.source.lines[number] = Line(number)
        else:
            self.store.away = self.source.away = False


def play(decisions: int, seed: int, path: Path) -> Counter[str]:
    """Histories one after the other until the log has so many decisions."""
    outcomes: Counter[str] = Counter()
    rng = random.Random(seed)
    log = DecisionLog(path, max_bytes=1 << 40)
    while outcomes.total() < decisions:
        history = History(rng, log, routers=rng.choice((1, 2, 3)))
        while history.decided < 4000 and outcomes.total() + history.decided < decisions:
            history.step()
        outcomes += history.outcomes
        del outcomes["again"]
    log.close()
    return outcomes


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decisions", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log", type=Path)
    given = parser.parse_args()
    logging.disable()
    with tempfile.TemporaryDirectory() as folder:
        path = given.log or Path(folder) / "decisions.jsonl"
        begun = time.perf_counter()
        outcomes = play(given.decisions, given.seed, path)
        played = time.perf_counter()
        checked = check([path])
        done = time.perf_counter()
        size = path.stat().st_size
    told = ", ".join(f"{what} {n}" for what, n in outcomes.most_common())
    report = [
        f"seed {given.seed}: {outcomes.total()} decisions ({told})",
        f"recorded in {played - begun:.0f} s, {size / checked.decisions:.0f} bytes a decision",
        f"made again in {done - played:.0f} s: {checked.decisions}, and {checked.different} came out otherwise",
    ]
    for each in checked.differences[:5]:
        report += [f"{each.place}: {', '.join(each.fields)}", f"  {each.recorded}"]
        report += [f"  {each.replayed}"]
    sys.stdout.write("\n".join(report) + "\n")
    return int(checked.different > 0 or checked.decisions < outcomes.total())


if __name__ == "__main__":
    sys.exit(main())
