"""A deployment moves to another store while it runs, or through a file: nobody and nothing that was spent is lost."""

import json

import pytest

from linepicker import Line, OptedOut, Policy, Replied, Router, StoreError
from linepicker.cli import main
from linepicker.cli.settings import CommandError
from linepicker.cli.transfer import copy, dump, load
from linepicker.stores import open as open_store
from linepicker.testing import ManualClock

NOW = 1_790_000_000.0
A, B = "+12025550100", "+12025550101"


def people(count):
    """Recipients, each once."""
    return [f"+1415556{n:04d}" for n in range(count)]


@pytest.fixture
def stores(tmp_path):
    """Two SQLite stores."""
    handles = [
        open_store(f"sqlite:///{tmp_path / name}.db?synchronous=normal") for name in ("one", "two")
    ]
    yield handles
    for handle in handles:
        handle.close()


def router(handle, clock=None):
    """A router on a store."""
    rules = Policy.from_dict({"pace": {"new_gap": 0, "spread": "off"}})
    lines = [Line(A), Line(B)]
    return Router(lines, policy=rules, store=handle, clock=clock or ManualClock(NOW))


def used(handle, count=20):
    """A router that has written to *count* people, one of whom opted out and one of whom answered."""
    made = router(handle)
    for to in people(count):
        made.reserve(to).settle("SENT", message_id=f"m-{to}", chat_id=f"c-{to}")
    made.report(OptedOut(people(1)[0], at=NOW))
    made.report(Replied(A, people(2)[1], at=NOW, event_id="e-1"))
    return made


def known(made, count=20):
    """What a router knows of people and lines."""
    assigned = [made.assignment(to) for to in people(count)]
    blocked = [made.preview(to).outcome for to in people(count)]
    return assigned, blocked, [(view.used, view.outcomes) for view in made.lines()]


def test_a_deployment_goes_on_in_the_new_store(stores):
    """Lines, budgets, people, opt-outs and counts are what they were."""
    one, two = stores
    before = known(used(one))
    done = copy(one.store(), two.store(), "two.db", NOW, lambda _: None)
    assert done >= 20 * 3
    assert known(router(two)) == before


def test_routers_on_the_old_store_are_told_where_it_went(stores):
    """Running ones and new ones: StoreError names the place."""
    one, two = stores
    running = used(one)
    copy(one.store(), two.store(), "the new one", NOW, lambda _: None)
    for old in (running, router(one)):
        with pytest.raises(StoreError, match="moved: its records are at the new one"):
            old.reserve(people(30)[-1])


def test_what_is_written_meanwhile_is_moved_too(stores):
    """Someone new, someone moved and someone forgotten while it copies: the target has it as the source did last."""
    one, two = stores
    made, calls = used(one), []

    def meanwhile(done):
        if not calls:
            calls.append(done)
            made.reserve("+14155569999")
            made.forget(people(3)[2])

    copy(one.store(), two.store(), "two.db", NOW, meanwhile)
    after = router(two)
    assert calls
    assert after.assignment("+14155569999") is not None
    assert after.assignment(people(3)[2]) is None
    assert sum(view.used for view in after.lines()) == 21


def test_a_copy_that_ended_early_is_run_again(stores):
    """Before the source was closed, or after it: nothing is lost, nothing is there twice."""
    one, two = stores
    before = known(used(one))

    def torn(moment):
        calls = []

        def progress(_):
            calls.append(1)
            if len(calls) == moment:
                raise KeyboardInterrupt

        return progress

    for moment in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            copy(one.store(), two.store(), "two.db", NOW, torn(moment))
    copy(one.store(), two.store(), "two.db", NOW, lambda _: None)
    assert known(router(two)) == before


def test_nothing_is_copied_over_a_store_in_use(stores):
    """Nor from one that is empty."""
    one, two = stores
    with pytest.raises(CommandError, match="nothing to copy"):
        copy(one.store(), two.store(), "two.db", NOW, lambda _: None)
    used(one)
    router(two).reserve(people(1)[0])
    with pytest.raises(CommandError, match="in use"):
        copy(one.store(), two.store(), "two.db", NOW, lambda _: None)


def test_a_file_brings_everything_back(stores):
    """Exported and imported, a deployment knows what it knew."""
    one, two = stores
    before = known(used(one))
    lines = list(dump(one.store()))
    load(two.store(), lines, NOW, lambda _: None)
    assert known(router(two)) == before


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "[]",
        '{"key": "to/p/x"}',
        '{"key": "to/p/x", "value": "?"}',
        '{"key": "to/p/x", "value": "AA=="}',
    ],
)
def test_a_file_that_is_none_is_named_by_its_line(stores, line):
    """The line's number, never its content."""
    with pytest.raises(CommandError, match="^line 2 of the file") as error:
        load(stores[0].store(), ["", line], NOW, lambda _: None)
    assert "to/p" not in str(error.value)


def test_a_file_that_ends_early_is_no_store(stores):
    """Its last record is the epoch: without it nothing can be begun with what was read."""
    one, two = stores
    used(one)
    *lines, _ = dump(one.store())
    with pytest.raises(CommandError, match="ends early"):
        load(two.store(), lines, NOW, lambda _: None)


def test_the_commands_do_it(tmp_path, capsys, monkeypatch):
    """`copy`, `export` and `import`, and what they say."""
    monkeypatch.chdir(tmp_path)
    handle = open_store("sqlite:///one.db")
    used(handle)
    handle.close()
    url = ["--store", "sqlite:///one.db"]
    assert main(["export", "all.jsonl", *url, "--json"]) == 0
    exported = json.loads(capsys.readouterr().out)["exported"]
    assert exported == len((tmp_path / "all.jsonl").read_text().splitlines()) > 60
    assert main(["export", *url]) == 0
    assert len(capsys.readouterr().out.splitlines()) == exported
    assert main(["import", "all.jsonl", "--store", "sqlite:///two.db", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"imported": exported - 1}
    assert main(["copy", "sqlite:///one.db", "sqlite:///three.db", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"copied": exported - 1}
    assert main(["copy", "sqlite:///one.db", "nowhere"]) != 0


def test_a_store_is_made_ready_beforehand(tmp_path, capsys, monkeypatch, postgres):
    """`migrate` makes what the first process would make, and again it changes nothing; a password is not shown."""
    monkeypatch.chdir(tmp_path)
    made = []
    for _ in range(2):
        assert main(["migrate", "--store", "sqlite:///one.db", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"ready": "sqlite:///one.db"}
        made.append((tmp_path / "one.db").read_bytes())
    assert made[0] == made[1]
    url = postgres.url(password="secret")
    assert main(["migrate", "--store", url]) == 0
    said = capsys.readouterr().out
    assert "is ready" in said
    assert "secret" not in said
    assert postgres.sql("SELECT count(*) FROM linepicker.record") == [(0,)]
