"""Recorded decisions made again: exactly from their inputs, clearly refused where the log is not whole, and over the same
history under another policy."""

import contextlib
import importlib.util
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linepicker import (
    Blocked,
    Delivered,
    Failed,
    Held,
    Line,
    LineChanged,
    NoLine,
    NotNow,
    OptedOut,
    Policy,
    Replied,
    Router,
)
from linepicker.recording import DecisionLog
from linepicker.replay import LogError, check, what_if
from linepicker.testing import ManualClock

NOW = 1_790_000_000.0
NUMBERS = [f"+120255501{i:02d}" for i in range(6)]
KEY = b"sixteen bytes or more"
REFUSALS = (Blocked, Held, NoLine, NotNow)

_SPEC = importlib.util.spec_from_file_location(
    "histories", Path(__file__).with_name("histories.py")
)
histories = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(histories)


class Source:
    """Lines whose reputation may change."""

    def __init__(self) -> None:
        self.lines = {number: Line(number) for number in NUMBERS}

    def fetch(self) -> list[Line]:
        """All of them."""
        return list(self.lines.values())


def person(i: int) -> str:
    """One of many."""
    return f"+1415555{i:04d}"


@pytest.fixture
def day(tmp_path):
    """The log of half a day: 300 people are written to, some twice, and answer or not, while a line is CRITICAL for an hour."""
    path, clock, source = tmp_path / "decisions.jsonl", ManualClock(NOW), Source()
    rng = random.Random(5)
    with Router(source, record=path, clock=clock) as router:
        for i in range(400):
            clock.advance(rng.choice((5.0, 60.0, 200.0)))
            if i in (120, 180):
                word = "CRITICAL" if i == 120 else "HEALTHY"
                source.lines[NUMBERS[0]] = Line(NUMBERS[0], reputation=word)
                router.report(LineChanged(NUMBERS[0], reputation=word, at=clock.now()))
            if i == 200:
                router.pause(NUMBERS[1])
            if i == 220:
                router.report(OptedOut(person(7), at=clock.now()))
            try:
                made = router.reserve(person(rng.randrange(300)))
            except REFUSALS:
                continue
            outcome = rng.choices(("SENT", "NOT_SENT", "LINE_REFUSED"), (40, 2, 1))[0]
            if outcome != "SENT":
                made.settle(outcome, retry_after=600.0 if outcome == "LINE_REFUSED" else None)
                continue
            told = {"number": made.number, "to": made.to, "message_id": f"m{i}", "at": clock.now()}
            made.settle("SENT", message_id=f"m{i}", chat_id=f"c{made.to}")
            router.report(rng.choice((Delivered, Delivered, Delivered, Failed))(**told))
            if rng.random() < 0.2:
                router.report(Replied(made.number, made.to, at=clock.now()))
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    """A log's lines."""
    return [json.loads(row) for row in path.read_text("utf-8").splitlines()]


def written(path: Path, told: list[dict[str, Any]]) -> Path:
    """A log of these lines beside another."""
    other = path.with_name("other.jsonl")
    other.write_text("".join(json.dumps(each) + "\n" for each in told), "utf-8")
    return other


# Exactly


@settings(max_examples=15)
@given(seed=st.integers(0, 1 << 32))
def test_every_decision_of_a_random_history_is_made_again_exactly(seed, tmp_path_factory):
    """Keys, groups, pins, moves, opt-outs, reloads, lost lists and stores, clocks that step back: each decision follows from
    the log."""
    path = tmp_path_factory.mktemp("log") / "decisions.jsonl"
    rng, log = random.Random(seed), DecisionLog(path)
    history = histories.History(rng, log, routers=rng.choice((1, 2)))
    for _ in range(150):
        history.step()
    log.close()
    assert history.decided == 0 or check([path]).decisions >= history.decided
    assert not path.exists() or check([path]).differences == ()


def test_thousands_of_decisions_are_made_again_exactly(tmp_path):
    """4,000 decisions of long histories, as `python tests/histories.py` plays them by the hundred thousand."""
    path = tmp_path / "decisions.jsonl"
    outcomes = histories.play(4000, 3, path)
    checked = check([path])
    assert checked.decisions >= outcomes.total() == 4000
    assert checked.differences == ()
    assert min(outcomes[kind] for kind in ("new", "known", "moved", "held", "blocked")) > 10
    assert path.stat().st_size / checked.decisions < 3000


def test_a_decision_that_was_changed_is_found(day):
    """Whatever of a decision or of its inputs is not as it was, the line and what differs are named."""
    told = rows(day)
    chosen = [i for i, each in enumerate(told) if each["t"] == "decision"][50]
    number = told[chosen]["decision"]["number"]
    told[chosen]["decision"]["number"] = NUMBERS[NUMBERS.index(number) - 1]
    path = written(day, told)
    (found,) = check([path]).differences
    assert found.place == f"{path}, line {chosen + 1}"
    assert found.fields == ("number",)
    assert found.replayed["number"] == number
    told = rows(day)
    told[chosen]["at"] += 0.25
    (found,) = check([written(day, told)]).differences
    assert "at" in found.fields


def test_another_policy_in_the_log_decides_otherwise(day):
    """The recorded policy is what is replayed by: with another one in its place decisions come out otherwise."""
    told = rows(day)
    (place,) = [i for i, each in enumerate(told) if each["t"] == "policy"]
    told[place]["policy"]["limits"]["new_per_hour"] = 2
    checked = check([written(day, told)], most=3)
    assert checked.different > 3
    assert len(checked.differences) == 3


def test_many_lines_are_in_a_refusals_digest(tmp_path):
    """A refusal over 40 lines shows eight, and a difference in any of the others is still found."""
    path, clock = tmp_path / "decisions.jsonl", ManualClock(NOW)
    lines = [Line(f"+1202555{i:04d}") for i in range(40)]
    policy = Policy.from_dict({"limits": {"new_per_day": 1}})
    with Router(lines, record=path, clock=clock, policy=policy) as router:
        for i in range(40):
            router.reserve(person(i))
        with pytest.raises(NoLine) as refusal:
            router.reserve(person(40))
    assert len(refusal.value.decision.candidates) == 40
    assert check([path]).different == 0
    told = rows(path)
    assert (len(told[-1]["decision"]["candidates"]), told[-1]["of"]) == (8, 40)
    told[-1]["digest"] = "0" * 24
    (found,) = check([written(path, told)]).differences
    assert found.fields == ("candidates",)


# Logs that are not whole


def broken(path: Path, place: int, raw: bytes | None) -> Path:
    """The log with another line in that place, or (None) without it."""
    found = path.read_bytes().splitlines(keepends=True)
    found[place : place + 1] = [] if raw is None else [raw]
    other = path.with_name("broken.jsonl")
    other.write_bytes(b"".join(found))
    return other


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"{\n", "not JSON"),
        (b"\xff\xfe\n", "codec"),
        (b"[1]\n", "no JSON object"),
        (b"5\n", "no JSON object"),
        (b"{}\n", "'s' is missing"),
        (b"null\n", "no JSON object"),
        (None, "lines are missing before it"),
    ],
)
def test_a_damaged_line_is_named(day, raw, why):
    """A log with a line that can't be read, or without one, is a LogError that names the file and the line."""
    path = broken(day, 41, raw)
    with pytest.raises(LogError, match=why) as error:
        check([path])
    assert str(error.value).startswith(f"{path}, line 42: ")


def test_a_log_that_is_cut_short_is_named(day):
    """However many bytes of its last line are gone."""
    raw = day.read_bytes()
    last = len(raw.splitlines())
    for gone in (1, 2, 30):
        day.write_bytes(raw[:-gone])
        with pytest.raises(LogError, match=f"line {last}: it is cut short"):
            check([day])


@given(data=st.data())
@settings(max_examples=60)
def test_a_line_with_another_value_is_an_error_or_a_difference(data, tmp_path_factory):
    """Whatever stands in a decision's line, reading it ends in a result or in a LogError."""
    path = tmp_path_factory.mktemp("log") / "decisions.jsonl"
    with Router([Line(n) for n in NUMBERS], record=path, clock=ManualClock(NOW)) as router:
        for i in range(3):
            router.reserve(person(i), max_delay=900.0)
    told = rows(path)
    place = data.draw(st.integers(1, len(told) - 1))
    name = data.draw(st.sampled_from(sorted(told[place])))
    wrong: Any = data.draw(
        st.one_of(st.none(), st.booleans(), st.integers(), st.text(), st.floats(), st.just([]))
        | st.just({})
        | st.dictionaries(st.sampled_from([*NUMBERS, "outcome"]), st.integers())
    )
    told[place][name] = wrong
    with contextlib.suppress(LogError):
        assert check([written(path, told)]).decisions <= 3


def test_another_format_is_refused(day):
    """A log of another format is not guessed at; a file that is none is told from one."""
    other = broken(day, 0, b'{"t":"linepicker decisions","format":7}\n')
    with pytest.raises(LogError, match="line 1: the log has format 7, this linepicker reads 1"):
        check([other])
    other = broken(day, 0, None)
    with pytest.raises(LogError, match="line 1: it is not the first line of a log"):
        check([other])
    other.write_bytes(b"")
    with pytest.raises(LogError, match="it is empty"):
        check([other])


def test_a_log_under_a_key_needs_it(tmp_path):
    """Without the key that is not in the file, and with another, it says so; with it all is as recorded."""
    path = tmp_path / "decisions.jsonl"
    with Router(
        [Line(NUMBERS[0])], record=DecisionLog(path, key=KEY), clock=ManualClock(NOW)
    ) as router:
        router.reserve(person(1))
    for key in (None, b"another sixteen bytes"):
        with pytest.raises(LogError, match="line 2: its recipients are sealed"):
            check([path], key=key)
    assert check([path], key=KEY).decisions == 1


# Another policy over the same history


def test_the_policy_in_force_would_have_done_the_same(day):
    """Over a history of one router its own policy makes every decision as it was, and spends the same."""
    found = what_if([day], Policy())
    assert found.requests == 400
    assert found.differences == ()
    assert found.was == found.would
    assert found.was.refusals


def test_what_is_recorded_is_counted_as_it_was(day):
    """New conversations, what was given back left out, and refusals are those of the log; peaks are a rolling window's."""
    found, told = what_if([day], Policy()).was, rows(day)
    back = {each["id"] for each in told if each["t"] == "settled" and each["outcome"] != "SENT"}
    made = [each for each in told if each["t"] == "decision"]
    new = Counter(
        each["decision"]["number"]
        for each in made
        if each["decision"]["kind"] == "new"
        and each["decision"]["outcome"] == "reserved"
        and each["id"] not in back
    )
    assert {each.number: each.new for each in found.lines if each.new} == dict(new)
    refused = sum(each["decision"]["outcome"] != "reserved" for each in made)
    assert sum(found.refusals.values()) == refused
    assert max(each.busiest_hour for each in found.lines) <= 15
    assert all(
        each.busiest_hour <= each.busiest_day <= each.new + each.moves for each in found.lines
    )


def test_a_smaller_budget_adds_up(day):
    """With at most two new conversations an hour a line no line opens more in any, and refusals say so: budgets are spent by
    the new policy's own choices."""
    found = what_if([day], Policy.from_dict({"limits": {"new_per_hour": 2}}))
    assert max(each.busiest_hour for each in found.would.lines) == 2
    assert found.would.new < found.was.new
    assert found.would.refusals["no_line (hour_budget)"] > 0
    assert found.different == len(found.differences) > 0
    first = found.differences[0]
    assert first.would == "no_line (hour_budget)"
    assert first.masked.startswith("+1•••")
    assert rows(day)[int(first.place.rpartition(" ")[2]) - 1]["to"] == first.to


def test_a_larger_budget_lets_more_out(tmp_path):
    """Who was refused for want of budget gets a line under a policy that has more."""
    path, clock = tmp_path / "decisions.jsonl", ManualClock(NOW)
    policy = Policy.from_dict({"limits": {"new_per_day": 2}, "pace": {"spread": "off"}})
    with Router([Line(n) for n in NUMBERS[:2]], record=path, clock=clock, policy=policy) as router:
        for i in range(10):
            clock.advance(60.0)
            try:
                router.reserve(person(i))
            except NoLine:
                continue
    found = what_if([path], Policy())
    assert (found.was.new, found.would.new) == (4, 10)
    assert found.would.refusals == {}


def test_a_stricter_stickiness_moves_people(day):
    """With on_critical = "move" those whose line was CRITICAL move; without, they were held."""
    room = {"pace": {"spread": "off"}, "limits": {"new_per_day": 200, "new_per_hour": "off"}}
    held = what_if([day], Policy.from_dict(room)).would
    moving = {**room, "stickiness": {"on_critical": "move"}}
    moved = what_if([day], Policy.from_dict(moving)).would
    assert held.refusals["held (critical)"] > 0
    assert moved.moves > held.moves
    assert "held (critical)" not in moved.refusals


@settings(max_examples=8)
@given(seed=st.integers(0, 1 << 32), which=st.sampled_from(range(6)))
def test_a_what_if_takes_any_history(seed, which, tmp_path_factory):
    """Whatever is in a log, each request ends in one way under another policy, and no line exceeds its budget."""
    path = tmp_path_factory.mktemp("log") / "decisions.jsonl"
    log = DecisionLog(path)
    history = histories.History(random.Random(seed), log, routers=2, steps_back=False)
    for _ in range(200):
        history.step()
    log.close()
    if not path.exists():
        return
    policy = Policy.from_dict(histories.POLICIES[which])
    found = what_if([path], policy)
    for side in (found.was, found.would):
        assert all(each.messages >= each.new + each.moves >= 0 for each in side.lines)
    assert found.different <= found.requests <= check([path]).decisions
    lines = {each.number: each for each in found.would.lines}
    assert all(each.busiest_hour <= (policy.limits.new_per_hour or 0) for each in lines.values())
