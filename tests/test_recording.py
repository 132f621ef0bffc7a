"""Decisions written down: what a log holds and what it never holds, within which bounds, by whom, and what it may not hurt."""

import asyncio
import importlib.util
import json
import logging
import os
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from linepicker import Blocked, Line, NoLine, OptedOut, Policy, Replied, Router
from linepicker.recording import DecisionLog
from linepicker.replay import check
from linepicker.testing import ManualClock

NOW = 1_790_000_000.0
A, B = "+12125550100", "+12125550101"
ANN = "+14155550101"
KEY = b"sixteen bytes or more"

_SPEC = importlib.util.spec_from_file_location(
    "histories", Path(__file__).with_name("histories.py")
)
histories = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(histories)


def router(record: Any, clock: ManualClock | None = None, **given: Any) -> Router:
    """A router with two lines and a clock that stands."""
    return Router([Line(A), Line(B)], record=record, clock=clock or ManualClock(NOW), **given)


def lines(path: Path) -> list[dict[str, Any]]:
    """What a log tells, line by line."""
    return [json.loads(row) for row in path.read_text("utf-8").splitlines()]


def test_every_decision_is_a_line(tmp_path):
    """Reservations and refusals are recorded with what came of them, after a header, the session and its policy."""
    path = tmp_path / "decisions.jsonl"
    with router(path) as mine:
        mine.reserve(ANN)
        mine.report(OptedOut(ANN, at=NOW))
        with pytest.raises(Blocked):
            mine.reserve(ANN)
    told = lines(path)
    assert [each["t"] for each in told] == [
        "linepicker decisions",
        "session",
        "policy",
        "decision",
        "report",
        "decision",
    ]
    assert [each["n"] for each in told[1:]] == [1, 2, 3, 4, 5]
    assert [each["decision"]["outcome"] for each in told if "decision" in each] == [
        "reserved",
        "blocked",
    ]
    assert told[2]["policy"] == Policy().to_dict()


def test_no_recipient_and_nothing_they_wrote_is_in_a_log(tmp_path):
    """Handles, keys, chats, messages, texts and an operator's reasons are hashed, masked or left out."""
    path = tmp_path / "decisions.jsonl"
    with router(path) as mine:
        made = mine.reserve(ANN, key="order-77", text="my text")
        made.settle("SENT", chat_id="chat-1", message_id="message-1")
        mine.report(Replied(made.number, ANN, text="a secret", at=NOW, event_id="event-1"))
        mine.pause(A, reason="ask bob@example.com")
        mine.reserve([ANN, "bob@example.com"])
        mine.reserve(ANN, line=made.number) if made.number == B else None
    raw = path.read_bytes()
    clear = ("4155550101", "bob", "order-77", "chat-1", "message-1", "secret", "my text", "event-1")
    assert [each for each in clear if each.encode() in raw] == []
    assert "+1•••••••101" in raw.decode()


def test_the_same_recipient_has_one_name_where_the_key_is_the_same(tmp_path):
    """A file is gone on with under the key it begins with; a key of one's own stands in no file."""
    first, second, third = (tmp_path / name for name in ("a", "b", "c"))
    for path, key in ((first, None), (first, None), (second, KEY), (third, KEY)):
        log = DecisionLog(path, key=key)
        with router(log) as mine:
            mine.reserve(ANN)
        log.close()
    names = [
        {each["to"] for each in lines(path) if each["t"] == "decision"}
        for path in (first, second, third)
    ]
    assert [len(each) for each in names] == [1, 1, 1]
    assert names[0] != names[1] == names[2]
    assert "key" in lines(first)[0]
    assert "key" not in lines(second)[0]
    assert KEY.hex() not in second.read_text("utf-8")


def test_what_settles_ties_is_sealed(tmp_path):
    """The number that orders equal lines would tell who somebody is: it stands in a log only under the key."""
    path = tmp_path / "decisions.jsonl"
    with router(DecisionLog(path, key=KEY)) as mine:
        mine.reserve(ANN)
        salt = mine._desk.who(ANN).salt
    raw = path.read_text("utf-8")
    assert str(salt) not in raw
    assert salt.to_bytes(4).hex() not in raw


def test_a_log_is_its_owners_alone(tmp_path):
    """Nobody else may read a new file."""
    path = tmp_path / "decisions.jsonl"
    with router(path) as mine:
        mine.reserve(ANN)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_log_stays_within_its_bounds(tmp_path):
    """A full file becomes path.1, at most so many stay, and each can be replayed by itself."""
    path, clock = tmp_path / "decisions.jsonl", ManualClock(NOW)
    log = DecisionLog(path, max_bytes=65_536, keep=2)
    with router(log, clock) as mine:
        for i in range(1000):
            try:
                mine.reserve(f"+1415556{i:04d}")
            except NoLine:
                clock.advance(3600.0)
    log.close()
    found = sorted(each.name for each in tmp_path.iterdir())
    assert found == ["decisions.jsonl", "decisions.jsonl.1", "decisions.jsonl.2"]
    assert max(each.stat().st_size for each in tmp_path.iterdir()) < 65_536 + 64 * 4096
    for each in tmp_path.iterdir():
        checked = check([each])
        assert checked.decisions > 10
        assert checked.different == 0


def test_no_older_file_is_kept_where_none_is_asked_for(tmp_path):
    """keep=0 begins anew in place."""
    path, clock = tmp_path / "decisions.jsonl", ManualClock(NOW)
    with router(DecisionLog(path, max_bytes=65_536, keep=0), clock) as mine:
        for i in range(300):
            try:
                mine.reserve(f"+1415556{i:04d}")
            except NoLine:
                clock.advance(3600.0)
    assert [each.name for each in tmp_path.iterdir()] == ["decisions.jsonl"]
    assert check([path]).decisions < 300


def test_what_cannot_be_written_hurts_nobody(tmp_path, caplog):
    """In a folder that isn't there each line is lost and counted, the log says it once, and reservations go on."""
    log = DecisionLog(tmp_path / "nowhere" / "decisions.jsonl")
    with caplog.at_level(logging.WARNING), router(log) as mine:
        for i in range(5):
            mine.reserve(f"+1415556{i:04d}")
    assert log.lost >= 5
    assert len([each for each in caplog.records if "can't be recorded" in each.message]) == 1
    assert "4155" not in caplog.text


def test_a_log_that_comes_back_is_begun_anew(tmp_path):
    """After lines were lost the next one begins a session, so that what was written before and after can be replayed."""
    folder = tmp_path / "there"
    folder.mkdir()
    log = DecisionLog(folder / "decisions.jsonl")
    with router(log) as mine:
        mine.reserve(ANN)
        log.close()
        folder.rename(tmp_path / "away")
        mine.reserve("+14155550102")
        (tmp_path / "away").rename(folder)
        mine.reserve("+14155550103")
        mine.reserve("+14155550104")
    assert log.lost > 0
    assert check([log.path]).different == 0
    assert sum(each["t"] == "session" for each in lines(log.path)) == 2


def test_half_a_line_is_ended_before_the_next(tmp_path):
    """What a crash cut short stays on a line of its own: the session after it is whole."""
    path = tmp_path / "decisions.jsonl"
    for _ in range(2):
        with router(path) as mine:
            mine.reserve(ANN)
        with path.open("ab") as file:
            file.write(b'{"t":"decision","s":"x')
    with router(path) as mine:
        mine.reserve(ANN)
    rows = path.read_bytes().splitlines()
    broken = [i for i, row in enumerate(rows) if not row.endswith(b"}")]
    assert [rows[i] for i in broken] == [b'{"t":"decision","s":"x'] * 2


def test_an_object_with_write_takes_the_lines():
    """Whatever has write(str) is a log: each call is one whole line."""
    told: list[str] = []

    class Given:
        def write(self, text: str) -> None:
            told.append(text)

    with router(Given()) as mine:
        mine.reserve(ANN)
    assert [json.loads(each)["t"] for each in told] == [
        "linepicker decisions",
        "session",
        "policy",
        "decision",
    ]
    assert all(each.endswith("\n") for each in told)


def test_an_object_that_fails_hurts_nobody(tmp_path, caplog):
    """What write raises is said once, and after it a session begins anew: what was taken can be replayed."""
    path = tmp_path / "decisions.jsonl"
    told: list[str] = []

    class Given:
        calls = 0

        def write(self, text: str) -> None:
            self.calls += 1
            if self.calls in (5, 6):
                raise RuntimeError("full")
            told.append(text)

    with caplog.at_level(logging.WARNING), router(Given()) as mine:
        for i in range(6):
            mine.reserve(f"+1415556{i:04d}")
    path.write_text("".join(told), "utf-8")
    assert check([path]).decisions == 4
    assert check([path]).different == 0
    assert len([each for each in caplog.records if "could not be recorded" in each.message]) == 1


@pytest.mark.parametrize("record", [5, object(), ["a"], b"decisions.jsonl"])
def test_what_is_no_log_is_refused(record):
    """A path, a DecisionLog, or an object with write: anything else is a TypeError that says so."""
    with pytest.raises(TypeError, match="record must be a path"):
        router(record)


@pytest.mark.parametrize(
    "given", [{"max_bytes": 100}, {"keep": -1}, {"key": b"short"}, {"key": "k" * 20}]
)
def test_bounds_and_keys_are_checked(given, tmp_path):
    """What can't be a bound or a key is a ValueError."""
    with pytest.raises(ValueError, match=next(iter(given))):
        DecisionLog(tmp_path / "decisions.jsonl", **given)
    with pytest.raises(ValueError, match="path"):
        DecisionLog("")


def test_many_threads_and_routers_write_one_file(tmp_path):
    """Four routers on one store, each called by two threads: no line is torn, and each decision can be made again."""
    path = tmp_path / "decisions.jsonl"
    log, store = DecisionLog(path), f"sqlite:///{tmp_path / 'lines.db'}"
    routers = [router(log, store=store) for _ in range(4)]

    def work(number: int) -> None:
        for i in range(20):
            try:
                routers[number % 4].reserve(f"+1415556{i:04d}", max_delay=1e6)
            except NoLine:
                continue

    threads = [threading.Thread(target=work, args=[i]) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in routers:
        each.close()
    log.close()
    checked = check([path])
    assert checked.decisions >= 160
    assert checked.different == 0


def test_a_forked_child_writes_a_session_of_its_own(tmp_path):
    """Parent and child go on in one file, and neither confuses the other."""
    path = tmp_path / "decisions.jsonl"
    store = f"sqlite:///{tmp_path / 'lines.db'}"
    mine = router(path, store=store)
    mine.reserve(ANN)
    child = os.fork()
    if not child:
        status = 1
        try:
            mine.reserve("+14155550102")
            mine.reserve("+14155550103")
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    mine.reserve("+14155550104")
    mine.close()
    checked = check([path])
    assert checked.decisions >= 4  # one more where the parent had not yet heard of the child's
    assert checked.different == 0
    assert sum(each["t"] == "session" for each in lines(path)) == 2


@pytest.mark.parametrize("seed", range(3))
def test_both_doors_write_the_same(seed, tmp_path):
    """A random history through async routers leaves the log that it leaves through sync ones, names of reservations and
    sessions aside."""
    told = []
    with asyncio.Runner() as runner:
        for name, loop in (("sync", None), ("async", runner.get_loop())):
            path = tmp_path / name
            log = DecisionLog(path, key=KEY)
            history = histories.History(random.Random(seed), log, loop=loop)
            for _ in range(400):
                history.step()
            log.close()
            told.append(plain(path))
    assert told[0] == told[1]
    assert len(told[0]) > 100


def plain(path: Path) -> list[dict[str, Any]]:
    """A log without what chance names: reservations and sessions are numbered, versions and records are left out."""
    names: dict[str, int] = {}
    found = lines(path)
    for each in found:
        for what in ("id", "s"):
            if what in each:
                each[what] = names.setdefault(each[what], len(names))
        if "records" in each:
            each["records"] = {number: sorted(both) for number, both in each["records"].items()}
        each.pop("contact", None)  # it remembers ids
    return found
