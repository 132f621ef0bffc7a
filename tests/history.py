"""What many processes noted while they reserved, read afterwards: is there an order of all calls that explains all answers?

    python tests/history.py DIRECTORY

A history is a file `notes-N` for each process, one event a line: when (the machine's monotonic clock, seconds), what, whom:

    i   a call begins                               n   it returned a new conversation, on a line
    f   it failed, and nothing was written          k   it returned a known one, on a line
    u   it failed, and may have been written        r   it was refused, with (1) or without (0) a moment to ask again

A call that has no end was killed, and may have been written at any time after it began. Judged is, as in Jepsen's tests, each
object by itself (what holds for each holds for all together: linearizability is local):

- a recipient is a register that is written once. All answers name one line; at most one says "new"; nobody is refused, nor new,
  after an answer with a line was there; what was answered is in the store at the end, and nothing else is.
- a line is a counter of charges with a budget. It never has more; who is refused saw all budgets spent, so enough charges had
  begun by then, and none begins afterwards; at the end it shows all that were answered, and no more than were tried.
"""

from __future__ import annotations

import json
import sys
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from math import inf
from pathlib import Path

import attrs

ENDS = {"n": "new", "k": "known", "r": "refused", "f": "failed", "u": "unknown"}


@attrs.frozen
class Call:
    """One call: who made it, for whom, between which moments, and its answer. An unknown one has no end."""

    process: int
    to: str
    began: float
    ended: float
    answer: str
    number: str = ""

    @property
    def placed(self) -> bool:
        """Whether it was answered with a line."""
        return self.answer in {"new", "known"}


@attrs.frozen
class End:
    """What the store says when all is over: recipients' lines, and what the lines have spent."""

    assigned: Mapping[str, str]
    used: Mapping[str, int]


@attrs.define
class Verdict:
    """What is wrong, how often, with an example of each; and some figures."""

    wrong: Counter[str] = attrs.field(factory=Counter)
    example: dict[str, str] = attrs.field(factory=dict)
    figures: dict[str, int] = attrs.field(factory=dict)

    def blame(self, what: str, whom: object, times: int = 1) -> None:
        """Count a violation."""
        self.wrong[what] += times
        self.example.setdefault(what, str(whom))


def calls(process: int, text: str) -> Iterator[Call]:
    """The calls that a process noted."""
    began: tuple[str, float] | None = None
    for line in text.splitlines():
        moment, what, to, *rest = line.split()
        if what == "i":
            if began is not None:
                yield Call(process, *began, inf, "unknown")
            began = (to, float(moment))
            continue
        if began is None or began[0] != to:
            raise ValueError(f"process {process} ended a call that it had not begun: {line!r}")
        answer = ENDS[what]
        if answer == "refused" and rest != ["1"]:
            answer = "hasty"
        ended = inf if answer == "unknown" else float(moment)
        yield Call(process, *began, ended, answer, rest[0] if what in "nk" else "")
        began = None
    if began is not None:
        yield Call(process, *began, inf, "unknown")


def check(history: Iterable[Call], budgets: Mapping[str, int], end: End | None = None) -> Verdict:
    """Judge a history of lines with these budgets, all of which no window ends during it."""
    found = Verdict()
    by_recipient: dict[str, list[Call]] = {}
    answers: Counter[str] = Counter()
    for each in history:
        by_recipient.setdefault(each.to, []).append(each)
        answers[each.answer] += 1
        if each.placed and each.number not in budgets:
            found.blame("a line that nobody proposed", each)
        if each.answer == "hasty":
            found.blame("refused without a moment to ask again", each)
    found.figures = {"calls": answers.total(), **answers}
    found.figures["recovered"] = found.figures["tried_at_once"] = 0
    for to, some in by_recipient.items():
        _register(found, to, some, None if end is None else end.assigned.get(to, ""))
    if end is not None:
        for to in end.assigned.keys() - by_recipient:
            found.blame("in the store, and never tried", to)
    _counters(found, [call for some in by_recipient.values() for call in some], budgets, end)
    return found


def _register(found: Verdict, to: str, some: list[Call], final: str | None) -> None:
    placed = [each for each in some if each.placed]
    made = [each for each in placed if each.answer == "new"]
    writers = made or [each for each in some if each.answer == "unknown"]
    refused = [each.began for each in some if each.answer in {"refused", "hasty"}]
    first = min(some, key=lambda each: each.began)
    found.figures["tried_at_once"] += any(
        each.process != first.process and each.began < first.ended for each in some
    )
    if len({each.number for each in placed}) > 1:
        found.blame("two lines", to)
    if len(made) > 1:
        found.blame("new twice", to)
    if placed:
        # The moment of the write: after its call began, before any answer that shows it, after each refusal began.
        latest = min(each.ended for each in placed)
        if not writers or min(each.began for each in writers) > latest:
            found.blame("known, and nobody wrote", to)
        if any(each.began > latest for each in made):
            found.blame("new after it was known", to)
        if any(began > latest for began in refused):
            found.blame("refused after it was known", to)
    if final is None:
        return
    if placed and final not in {each.number for each in placed}:
        found.blame("lost", to)
    elif not placed and final:
        found.figures["recovered"] += 1
        if not writers:
            found.blame("in the store, and nobody wrote", to)


def _counters(
    found: Verdict, history: list[Call], budgets: Mapping[str, int], end: End | None
) -> None:
    made: dict[str, list[float]] = {number: [] for number in budgets}
    for each in history:
        if each.answer == "new" and each.number in made:
            made[each.number].append(each.began)
    perhaps = sorted(each.began for each in history if each.answer == "unknown")
    refused = [each.ended for each in history if each.answer in {"refused", "hasty"}]
    first = min(refused, default=inf)  # a later refusal needs no more than this one
    for number, budget in budgets.items():
        times = sorted(made[number])
        if len(times) > budget:
            found.blame("overspent", number, len(times) - budget)
        if refused and bisect_left(times, first) + bisect_left(perhaps, first) < budget:
            found.blame("refused with budget left", number)
        if late := len(times) - bisect_left(times, first):
            found.blame("opened after all was spent", number, late)
        if end is not None:
            used = end.used.get(number, 0)
            if used > budget:
                found.blame("overspent in the store", number, used - budget)
            if used < len(times):
                found.blame("charges lost", number, len(times) - used)
            if used > len(times) + len(perhaps):
                found.blame("charges that nobody made", number, used - len(times) - len(perhaps))
    if end is not None:
        opened, used = sum(map(len, made.values())), sum(end.used.values())
        if used > opened + len(perhaps):
            found.blame("charges that nobody made", "all lines", used - opened - len(perhaps))


def read(directory: Path) -> tuple[list[Call], dict[str, int], End | None]:
    """The history in a directory, the budgets, and the end, if it came to one."""
    history = [
        call
        for path in sorted(directory.glob("notes-*"))
        for call in calls(int(path.name.partition("-")[2]), path.read_text())
    ]
    budgets = json.loads((directory / "budgets.json").read_text())
    end = directory / "end.json"
    return history, budgets, End(**json.loads(end.read_text())) if end.exists() else None


def main() -> int:
    """The command line."""
    if len(sys.argv) != 2:
        print(__doc__)  # noqa: T201  a command prints
        return 2
    verdict = check(*read(Path(sys.argv[1])))
    print(json.dumps(attrs.asdict(verdict)))  # noqa: T201
    return int(bool(verdict.wrong))


if __name__ == "__main__":
    sys.exit(main())
