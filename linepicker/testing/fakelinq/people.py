"""Simulated people: what becomes of a message, and who answers what and when."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from random import Random

import attrs

from linepicker.testing.fakelinq.agenda import Agenda, Span, draw
from linepicker.testing.fakelinq.model import Chat, Happening, Message
from linepicker.testing.fakelinq.world import World

__all__ = ["FailurePlan", "People", "Person"]


def _share(instance: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{attribute.name} must be from 0 to 1, got {value!r}")


def _texts(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


@attrs.frozen(kw_only=True)
class Person:
    """How somebody behaves. Shares are of the messages written to them; times are seconds, or (least, most).

    A message is `delivered_after` it was sent, in the share `receives`; read `read_after` that, in the share `reads`;
    answered `answers_after` that, in the share `answers`. `says` are the answers, one after the other, the last one for
    ever; instead of them the share `stops` of the answers is STOP. After an opt-out they write "hi" once more
    `returns_after` it, in the share `returns`.

    Over SMS, and in groups, nobody tells what was delivered or read (Linq: protocol selection); people answer all the same.
    """

    receives: float = attrs.field(default=1.0, validator=_share)
    reads: float = attrs.field(default=0.0, validator=_share)
    answers: float = attrs.field(default=0.0, validator=_share)
    stops: float = attrs.field(default=0.0, validator=_share)
    returns: float = attrs.field(default=0.0, validator=_share)
    says: tuple[str, ...] = attrs.field(
        default=("ok",), converter=_texts, validator=attrs.validators.min_len(1)
    )
    delivered_after: Span = 0.0
    read_after: Span = 0.0
    answers_after: Span = 0.0
    returns_after: Span = 3600.0


@attrs.define
class FailurePlan:
    """The next `left` messages from `number` (None: any line) fail with `code`.

    All the same they are delivered `delivered_after` that, if it is not None.
    """

    left: int
    code: int
    number: str | None
    delivered_after: float | None


class People:
    """Everybody who has no line of the account. Those without a behaviour of their own behave as `everyone`."""

    def __init__(self, world: World, agenda: Agenda, dice: Random) -> None:
        self.everyone = Person()
        self.failures: list[FailurePlan] = []
        self.failing: dict[str, tuple[float, int]] = {}
        self._world = world
        self._agenda = agenda
        self._dice = dice
        self._people: dict[str, Person] = {}
        self._answers: defaultdict[str, Iterator[int]] = defaultdict(itertools.count)

    def behave(self, handle: str, person: Person) -> None:
        """From now on *handle* behaves so, and says its answers from the first."""
        self._people[handle] = person
        self._answers.pop(handle, None)

    def notice(self, happening: Happening) -> None:
        """Let people act on what happened."""
        chat, message = happening.chat, happening.message
        if chat is None or message is None:
            return
        if happening.type == "message.queued":
            self._after(0.0, lambda: self._world.advance(chat, message, "sent"))
        elif happening.type == "message.sent":
            self._sent(chat, message)
        elif happening.type == "message.received" and chat.health == "OPTED_OUT":
            self._left(chat, message)

    def _sent(self, chat: Chat, message: Message) -> None:
        failure = self._failure(chat.number)
        if failure is not None:
            self._after(0.0, lambda: self._world.fail(chat, message, failure.code))
            if failure.delivered_after is None:
                return
        for handle in chat.to:
            person = self._people.get(handle, self.everyone)
            after = failure.delivered_after if failure else None
            self._reach(chat, message, handle, person, after)

    def _failure(self, number: str) -> FailurePlan | None:
        for plan in self.failures:
            if plan.left > 0 and plan.number in (None, number):
                plan.left -= 1
                return plan
        share, code = self.failing.get(number, (0.0, 0))
        failed = self._dice.random() < share
        return FailurePlan(0, code, number, None) if failed else None

    def _reach(
        self, chat: Chat, message: Message, handle: str, person: Person, after: float | None
    ) -> None:
        receives, reads, answers = (
            self._dice.random() < share for share in (person.receives, person.reads, person.answers)
        )
        wait = draw(self._dice, person.delivered_after) if after is None else after
        told = not chat.is_group and message.service != "SMS"
        if receives and told:
            self._after(wait, lambda: self._world.advance(chat, message, "delivered"))
        if receives and reads:
            wait += draw(self._dice, person.read_after)
            if told:
                self._after(wait, lambda: self._world.advance(chat, message, "read"))
        if receives and answers:
            wait += draw(self._dice, person.answers_after)
            self._after(wait, partial(self._answer, chat, message, handle, person))

    def _answer(self, chat: Chat, message: Message, handle: str, person: Person) -> None:
        text = person.says[min(next(self._answers[handle]), len(person.says) - 1)]
        if self._dice.random() < person.stops:
            text = "STOP"
        self._write(chat, handle, text, message.service)

    def _left(self, chat: Chat, message: Message) -> None:
        handle = message.sender or ""
        person = self._people.get(handle, self.everyone)
        if self._dice.random() < person.returns:
            again = partial(self._write, chat, handle, "hi", message.service)
            self._after(draw(self._dice, person.returns_after), again)

    def _write(self, chat: Chat, handle: str, text: str, service: str) -> None:
        if chat.number in self._world.lines:
            self._world.receive(chat.number, handle, text, chat_id=chat.id, service=service)

    def _after(self, delay: Span, action: Callable[[], None]) -> None:
        self._agenda.after(draw(self._dice, delay), action)
