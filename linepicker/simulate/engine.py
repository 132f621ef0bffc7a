"""One run: people come, a chooser finds them lines, the provider judges, people answer.

Discrete events, no sleeping, no chance but the seed's: the same scenario, chooser and seed give the same trace.
"""

from __future__ import annotations

import heapq
import random
import struct
from collections import Counter, deque
from collections.abc import Callable, Iterator
from hashlib import blake2b
from itertools import count
from typing import Final

import attrs

from linepicker.model import Line, LineChanged, OptedOut, Replied, Reputation
from linepicker.policy import Policy
from linepicker.simulate.choosers import Chooser, Gone, Make, Offer, Setting, Wait
from linepicker.simulate.clock import SimulatedClock
from linepicker.simulate.measures import Measures, Sample, fairness, median
from linepicker.simulate.provider import LANDS, REPLIES, Provider, World
from linepicker.simulate.scenario import DAY, HOUR, START, Scenario
from linepicker.simulate.traffic import Person, people

__all__ = ["Run", "play"]

TRIES: Final = 3
"""How many lines may refuse a message before it has to wait."""
AGAIN: Final = 300.0
SAMPLE_EVERY: Final = 6 * HOUR
STRANGE: Final = 0.5
"""What is left of the wish to answer a number that never wrote before, within a conversation that another one began."""
PUSHED: Final = (5.0, 240.0)
"""The least and the most seconds until a webhook arrives."""


@attrs.frozen
class Run:
    """What came of a run, and the lines over time."""

    measures: Measures
    samples: tuple[Sample, ...]


@attrs.define
class Owed:
    """A message that is due to somebody. `turn`: the how-manyth answer it may get; `first`: it opens the conversation."""

    person: Person
    since: float
    deadline: float
    turn: int
    first: bool = False
    refused: int = 0


@attrs.define
class Queue:
    """Who waits for the same thing: the first one asks, at `until`."""

    waiting: deque[Owed] = attrs.Factory(deque)
    until: float = 0.0
    armed: bool = False


def play(
    scenario: Scenario, world: World, make: Make, *, seed: int, policy: Policy | None = None
) -> Run:
    """Play one scenario with one chooser. *policy*: linepicker's, and the caps that the oracle obeys; None: the defaults."""
    return _Play(scenario, world, make, seed, policy or Policy()).run()


class _Play:
    def __init__(
        self, scenario: Scenario, world: World, make: Make, seed: int, policy: Policy
    ) -> None:
        self.scenario, self.clock = scenario, SimulatedClock(START)
        self.provider = Provider(world, scenario, self.clock, seed)
        if scenario.poll:
            ttl = scenario.poll
            health = attrs.evolve(
                policy.health,
                ttl=ttl,
                max_age=max(3 * ttl, policy.health.max_age),
                max_age_hard=max(24 * ttl, policy.health.max_age_hard),
            )
            policy = attrs.evolve(policy, health=health)
        self.told: dict[str, tuple[Reputation, float]] = {}
        setting = Setting(self, self.clock, policy, seed, self.provider)
        self.chooser: Chooser = make(setting)
        self.posts = random.Random(f"posts {seed}")
        self.people = people(scenario, self.provider.bears, seed)
        self.fresh = Queue()
        self.held: dict[str, Queue] = {}
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.order = count()
        self.hash = blake2b(digest_size=16)
        self.tally: Counter[str] = Counter()
        self.opened: Counter[str] = Counter()
        self.days: Counter[str] = Counter()
        self.opens: dict[str, deque[float]] = {number: deque() for number in self.provider.lines}
        self.waits: list[float] = []
        self.samples: list[Sample] = []

    def at(self, moment: float, do: Callable[[], None]) -> None:
        heapq.heappush(self.events, (moment, next(self.order), do))

    def run(self) -> Run:
        scenario, world = self.scenario, self.provider.world
        for moment in _every(world.score_every, scenario.days):
            self.at(moment, self.score)
        for moment in _every(SAMPLE_EVERY, scenario.days):
            self.at(moment, self.sample)
        for person in self.people:
            self.at(person.at, lambda person=person: self.asks(person))  # type: ignore[misc]
        while self.events:
            moment, _, do = heapq.heappop(self.events)
            if moment >= scenario.end:
                break
            self.clock.moment = moment
            do()
        self.chooser.close()
        return Run(self.measures(), tuple(self.samples))

    # What the chooser is shown

    def fetch(self) -> list[Line]:
        """The list of lines; what it shows counts as known from here on."""
        listed = self.provider.fetch()
        for line in listed:
            _, out = self.told.get(line.number, (None, 0.0))
            self.told[line.number] = (line.reputation, out)
        return listed

    def push(self, number: str) -> None:
        """Tell a change by a webhook, perhaps; at the end of an outage if there is one."""
        arrives = self.clock.moment + self.posts.uniform(*PUSHED)
        if self.posts.random() >= self.scenario.pushes:
            return
        arrives = max(
            [arrives, *(end for begin, end in self.provider.outages if begin <= arrives < end)]
        )
        news = self.provider.news(number, self.clock.moment, f"e{next(self.order)}")
        self.at(arrives, lambda: self.deliver(news))

    def deliver(self, news: LineChanged) -> None:
        """A webhook arrives."""
        assert news.reputation is not None
        out = self.clock.moment + DAY if news.status == "FLAGGED" else 0.0
        self.told[news.number] = (news.reputation, out)
        self.chooser.report(news)

    # The provider's clockwork

    def score(self) -> None:
        """Judge every line."""
        now = self.clock.moment
        for line in self.provider.lines.values():
            if line.joined > now:
                continue
            shown_at = self.provider.score(line, now)
            if shown_at is not None:
                self.at(shown_at, lambda n=line.number, v=line.level: self.publish(n, v))  # type: ignore[misc]

    def publish(self, number: str, level: int) -> None:
        """Show a verdict."""
        self.provider.lines[number].shown = level
        self.push(number)

    def sample(self) -> None:
        """Look at every line, for the picture and the line-days."""
        now, budgets = self.clock.moment, self.chooser.budgets()
        for line in self.provider.lines.values():
            if line.joined > now:
                continue
            number = line.number
            shown, flagged = self.provider.shown(number, now), self.provider.flagged(number, now)
            opens = self.opens[number]
            while opens and opens[0] <= now - DAY:
                opens.popleft()
            limit = self.provider.limit(line, now)
            self.samples.append(
                Sample(now, number, shown, flagged, limit, budgets.get(number), len(opens))
            )
            self.days["flagged"] += flagged
            self.days[str(shown)] += 1

    # People

    def asks(self, person: Person) -> None:
        """Somebody wants a first message."""
        now = self.clock.moment
        owed = Owed(person, now, now + self.scenario.patience, 0, first=True)
        self.fresh.waiting.append(owed)
        self.serve(self.fresh)

    def serve(self, queue: Queue) -> None:
        """Ask for those who wait, in their order, until one has to go on waiting."""
        while queue.waiting and self.clock.moment >= queue.until:
            owed = queue.waiting.popleft()
            if self.clock.moment > owed.deadline or owed.person.gone:
                continue
            wait = self.ask(owed)
            if wait is None:
                continue
            if queue is not self.fresh and wait.number is None:
                self.at(wait.until, lambda owed=owed: self.follow_up(owed))  # type: ignore[misc]
                continue
            queue.waiting.appendleft(owed)
            queue.until = wait.until
        if queue.waiting and not queue.armed:
            queue.armed = True
            self.at(queue.until, lambda: self.wake(queue))

    def wake(self, queue: Queue) -> None:
        """The moment a queue waited for has come."""
        queue.armed = False
        self.serve(queue)

    def follow_up(self, owed: Owed) -> None:
        """A message to somebody known is due."""
        if self.clock.moment > owed.deadline or owed.person.gone:
            return
        queue = self.held.get(owed.person.numbers[-1])
        if queue is not None and queue.waiting:
            queue.waiting.append(owed)
            return
        wait = self.ask(owed)
        if wait is None:
            return
        if wait.number is None:
            self.at(wait.until, lambda: self.follow_up(owed))
            return
        queue = self.held.setdefault(wait.number, Queue())
        queue.waiting.append(owed)
        queue.until = wait.until
        self.serve(queue)

    def ask(self, owed: Owed) -> Wait | None:
        """Ask the chooser, and act on what it says; a Wait is the caller's."""
        answer = self.chooser.choose(owed.person.to)
        if isinstance(answer, Wait):
            return answer
        if isinstance(answer, Gone):
            return None
        if answer.send_at > self.clock.moment:
            self.at(answer.send_at, lambda: self.confirm(owed, answer))
            return None
        return self.send(owed, answer)

    def confirm(self, owed: Owed, offer: Offer) -> None:
        """The moment of an offer has come."""
        answer = self.chooser.confirm(owed.person.to, offer)
        wait = self.send(owed, answer) if isinstance(answer, Offer) else answer
        if isinstance(wait, Wait):
            again = self.ask_again if owed.first else self.follow_up
            self.at(wait.until, lambda: again(owed))

    def ask_again(self, owed: Owed) -> None:
        """Somebody new whose offer came to nothing is the next one to ask."""
        self.fresh.waiting.appendleft(owed)
        self.serve(self.fresh)

    # Messages

    def send(self, owed: Owed, offer: Offer) -> Wait | None:
        """A message leaves, or is refused by its line: then another is asked for, three times."""
        now, number, person = self.clock.moment, offer.number, owed.person
        reputation, out_until = self.told.get(number, (Reputation.HEALTHY, 0.0))
        self.tally["on_critical"] += reputation == "CRITICAL"
        self.tally["on_flagged"] += out_until > now
        self.tally["after_opt_out"] += person.gone
        if self.provider.flagged(number, now):
            self.tally["refused"] += 1
            self.told[number] = (reputation, now + DAY)
            self.chooser.settle(person.to, offer, sent=False)
            owed.refused += 1
            if owed.refused % TRIES == 0:
                return Wait(now + AGAIN)
            return self.ask(owed)
        opens = number not in person.numbers
        strange = opens and bool(person.numbers)
        level, flags = self.provider.messaged(number, now, opened=opens)
        if flags:
            self.push(number)
            self.at(self.provider.lines[number].flagged_until, lambda: self.push(number))
        self.chooser.settle(person.to, offer, sent=True)
        self.hash.update(struct.pack("<d", now) + f"{number} {person.to};".encode())
        self.tally["messages"] += 1
        self.tally["moved"] += bool(person.numbers) and person.numbers[-1] != number
        if opens:
            self.opened[number] += 1
            self.opens[number].append(now)
        if not person.numbers or person.numbers[-1] != number:
            person.numbers.append(number)
        self.lands(owed, level, strange=strange)
        return None

    def lands(self, owed: Owed, level: int, *, strange: bool) -> None:
        """What a message comes to: reached in time or not, an opt-out, an answer."""
        now, person, scenario = self.clock.moment, owed.person, self.scenario
        chance = person.turns[min(owed.turn, len(person.turns) - 1)]
        if chance.lands >= LANDS[level]:
            return
        in_time = now <= owed.deadline
        if owed.first:
            self.tally["reached" if in_time else "late"] += 1
            self.waits += [now - owed.since] if in_time else []
            if person.remind_after is not None:
                self.at(now + person.remind_after, lambda: self.owes(person, len(person.turns) - 1))
        else:
            self.tally["answered"] += in_time
        number = person.numbers[-1]
        if chance.leaves < scenario.opt_outs:
            self.at(now + chance.after, lambda: self.leaves(person, number))
            return
        eager = person.eager if owed.turn == 0 else scenario.continues
        eager *= REPLIES[level] * (STRANGE if strange else 1.0)
        if chance.willing < eager:
            self.at(now + chance.after, lambda: self.replies(person, number, owed.turn + 1))

    def replies(self, person: Person, number: str, turn: int) -> None:
        """Somebody answers, and is owed one."""
        if person.gone:
            return
        now = self.clock.moment
        self.provider.lines[number].strain.replied(now)
        self.chooser.report(Replied(number, person.to, at=now, event_id=f"e{next(self.order)}"))
        if turn < len(person.turns):
            self.owes(person, turn)

    def owes(self, person: Person, turn: int) -> None:
        """A follow-up is due, unless they want none."""
        if person.gone:
            return
        now = self.clock.moment
        self.tally["due"] += 1
        self.follow_up(Owed(person, now, now + self.scenario.answer_within, turn))

    def leaves(self, person: Person, number: str) -> None:
        """Somebody wants no more messages."""
        if person.gone:
            return
        now, person.gone = self.clock.moment, True
        self.provider.lines[number].strain.opted_out(now)
        self.chooser.report(OptedOut(person.to, at=now, event_id=f"e{next(self.order)}"))

    def measures(self) -> Measures:
        """What came of it."""
        tally, part = self.tally, SAMPLE_EVERY / DAY
        bears = {line.number: line.base for line in self.provider.lines.values()}
        return Measures(
            people=len(self.people),
            reached=tally["reached"],
            late=tally["late"],
            due=tally["due"],
            answered=tally["answered"],
            wait=median(self.waits),
            opened=self.opened.total(),
            messages=tally["messages"],
            moved=tally["moved"],
            at_risk_days=self.days["1"] * part,
            critical_days=self.days["2"] * part,
            flagged_days=self.days["flagged"] * part,
            on_critical=tally["on_critical"],
            on_flagged=tally["on_flagged"],
            refused=tally["refused"],
            after_opt_out=tally["after_opt_out"],
            fairness=fairness(self.opened, bears),
            trace=self.hash.hexdigest(),
        )


def _every(seconds: float, days: int) -> Iterator[float]:
    moment = START + seconds
    while moment < START + days * DAY:
        yield moment
        moment += seconds
