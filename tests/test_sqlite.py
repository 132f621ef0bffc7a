"""What SQLite alone does: files that are locked, full, gone, foreign or damaged; many processes, kills and forks."""

import asyncio
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections import UserDict
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linepicker import stores
from linepicker.errors import StoreError
from linepicker.stores import ABSENT, COUNTER_BITS, SAME, Record, Write
from linepicker.stores._file import MIGRATIONS
from linepicker.stores._zeros import AT_MOST, restored, shortened
from linepicker.stores.sqlite import AsyncSqliteStore, SqliteStore
from linepicker.testing import ManualClock

ZEROS = b"\1" + bytes(37) + b"\x0c" + bytes(4) + b"+12025550100"
"""As a record of somebody of whom only the line is known."""


@pytest.fixture
def path(tmp_path):
    """Where the file will be."""
    return tmp_path / "lines.db"


@pytest.fixture
def store(path):
    """A store that was never used."""
    made = SqliteStore(path, durable=False, timeout=0.05)
    yield made
    made.close()


@pytest.fixture
def start():
    """Starts a process of its own that runs a script; none of them, nor their children, outlives the test."""
    started = []

    def start(script: str, *arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture
def run(start):
    """Runs a script in a process of its own, and gives the lines that it prints."""

    def run(script: str, *arguments: object) -> list[str]:
        process = start(script, *arguments)
        printed, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        return printed.splitlines()

    return run


def put(store: SqliteStore, **values: bytes) -> dict[str, int]:
    """The versions of new records."""
    answer = store.swap([Write(key, 0, value) for key, value in values.items()])
    assert answer.applied
    return {key: record.version for key, record in answer.records.items()}


def sql(path, *statements: str) -> object:
    """The first value that the last of *statements* gives, by a connection of its own."""
    db = sqlite3.connect(path, isolation_level=None)
    try:
        for statement in statements:
            row = db.execute(statement).fetchone()
        return row and row[0]
    finally:
        db.close()


# What is promised of the file.


def test_a_store_goes_on_where_it_stopped(path):
    """Records, versions and the epoch outlive the process, and versions grow on, also past what was deleted."""
    first = SqliteStore(path)
    versions = put(first, a=b"1", b=b"2")
    first.swap([Write("b", versions["b"], None)])
    first.close()
    second = SqliteStore(path)
    assert second.read(["a", "b"]).records == {"a": Record(versions["a"], b"1"), "b": ABSENT}
    assert put(second, b=b"3")["b"] > versions["b"]
    assert put(second, c=b"4")["c"] >> COUNTER_BITS == versions["a"] >> COUNTER_BITS
    second.close()


def test_a_swap_is_on_disk_before_it_is_acknowledged(path):
    """By default SQLite syncs the log at each commit; only synchronous=normal leaves that out."""
    for parameters, level in ((None, 2), ("synchronous=full", 2), ("synchronous=normal", 1)):
        handle = stores.open(f"sqlite:///{path}" + (f"?{parameters}" if parameters else ""))
        handle.store().read([])
        db = handle.store().file._connection
        assert db.execute("PRAGMA synchronous").fetchone() == (level,)
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        handle.close()


def test_the_numbers_of_a_url_count(path):
    """The least and the most that may be said are taken, and no more or less; what is left out is as the text says."""
    for parameters in ("timeout=0", "timeout=86400", "cached_statements=0"):
        stores.open(f"sqlite:///{path}?{parameters}").close()
    for parameters in ("timeout=-0.5", "timeout=86400.5", "cached_statements=-1"):
        with pytest.raises(StoreError, match="0 to 86400 s, cached_statements 0 or more"):
            stores.open(f"sqlite:///{path}?{parameters}")
    by_url, by_name = stores.open(f"sqlite:///{path}").store(), SqliteStore(path)
    for store in (by_url, by_name):
        assert isinstance(store, SqliteStore)
        file = store.file
        told = (file._name, file._timeout, file._durable, file._cached_statements)
        assert told == ("lp", 5.0, True, 128)


def test_expired_records_leave_the_file_bit_by_bit(path):
    """Each swap of records that expire takes out twice as many that have, from any namespace, and no more."""
    clock = ManualClock(0.0)
    other = SqliteStore(path, namespace="other", durable=False, time=clock.now)
    other.swap([Write(f"old:{n}", 0, b"", 10.0) for n in range(50)])
    other.close()
    store = SqliteStore(path, durable=False, time=clock.now)
    store.swap([Write("stays", 0, b"")])
    clock.advance(10.0)
    for n in range(10):
        store.swap([Write(f"new:{n}", 0, b"", 20.0), Write(f"more:{n}", 0, b"", 20.0)])
        assert sql(path, "SELECT count(*) FROM kept WHERE key LIKE 'old:%'") == 50 - 4 * (n + 1)
    clock.advance(10.0)
    for n in range(30):
        store.swap([Write(f"last:{n}", 0, b"", 1e9)])
    assert sql(path, "SELECT count(*) FROM kept") == 31
    store.close()


def test_a_swap_of_one_key_or_of_thousands_is_one_swap(store):
    """Conditions beyond what one statement takes are checked all the same."""
    keys = [f"k:{n}" for n in range(1701)]
    versions = put(store, **dict.fromkeys(keys, b"1"))
    writes = [Write(key, versions[key], SAME) for key in keys[:-1]] + [Write(keys[-1], 0, b"2")]
    answer = store.swap(writes)
    assert not answer.applied
    assert answer.records == {keys[-1]: Record(versions[keys[-1]], b"1")}


# What goes wrong.


def test_a_lock_of_another_process_is_waited_for_and_then_named(store, path, start):
    """Reads go on meanwhile; a swap waits for `timeout`, is refused with what to do, and works when the lock is gone."""
    put(store, a=b"1")
    other = start(
        """
        import sqlite3, sys
        db = sqlite3.connect(sys.argv[1], isolation_level=None)
        db.execute("BEGIN IMMEDIATE")
        print("locked", flush=True)
        sys.stdin.read()
        """,
        path,
    )
    assert other.stdout.readline() == "locked\n"
    assert store.read(["a"]).records["a"].value == b"1"
    with pytest.raises(StoreError, match=r"locked by another process.*timeout=") as caught:
        store.swap([Write("b", 0, b"2")])
    assert not caught.value.unknown
    other.communicate()
    put(store, b=b"2")


def test_a_lock_that_goes_in_time_is_not_noticed(path):
    """A swap that waits goes through as soon as the other process is done."""
    store = SqliteStore(path, timeout=30.0)
    put(store, a=b"1")
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    with ThreadPoolExecutor(1) as pool:
        swap = pool.submit(put, store, b=b"2")
        other.execute("COMMIT")
        assert swap.result().keys() == {"b"}
    other.close()
    store.close()


def test_threads_do_not_queue_for_ever(store):
    """A thread waits `timeout` for the others of its process, then is told."""
    with store.file.transaction("BEGIN"), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(store.read, ["a"])
        with pytest.raises(StoreError, match="busy with this process's other threads"):
            waiting.result()
    store.read(["a"])


def test_a_full_disk_is_named_and_nothing_is_half_written(store, path):
    """Where the file can't grow, the swap is refused whole; with room again it goes through."""
    versions = put(store, a=b"1")
    db = store.file._connection
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    db.execute(f"PRAGMA max_page_count = {pages + 2}")
    writes = [Write("a", versions["a"], b"2"), *(Write(f"k{n}", 0, bytes(3000)) for n in range(9))]
    with pytest.raises(StoreError, match="disk is full; make room") as caught:
        store.swap(writes)
    assert not caught.value.unknown
    assert dict(store.scan("")) == {"a": Record(versions["a"], b"1")}
    if store.file._connection is db:
        db.execute("PRAGMA max_page_count = 100000")
    assert store.swap(writes).applied


def test_a_write_that_fails_at_commit_is_unknown(path, run):
    """Where the disk fails the log itself, nobody can tell whether the swap will be there: `.unknown` says so."""
    printed = run(
        """
        import os, resource, signal, sys
        from linepicker.errors import StoreError
        from linepicker.stores import Write
        from linepicker.stores.sqlite import SqliteStore

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        store = SqliteStore(sys.argv[1])
        version = store.swap([Write("a", 0, b"1")]).records["a"].version
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (os.stat(sys.argv[1] + "-wal").st_size, hard))
        try:
            store.swap([Write("a", version, b"2")])
        except StoreError as error:
            print(error.unknown, "check the disk" in str(error))
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        value = store.read(["a"]).records["a"].value
        print(store.swap([Write("b", 0, b"3")]).applied, value in (b"1", b"2"))
        store.close()
        """,
        path,
    )
    assert printed == ["True True", "True True"]


def test_a_swap_stopped_anywhere_is_whole_or_not_at_all(path):
    """SQLite is interrupted at its n-th step, for n = 1, 2, 3…: each time all writes are there or none, and the
    store goes on."""
    stopped = 0
    store = SqliteStore(path, durable=False)
    held = {key: Record(version, b"-1") for key, version in put(store, a=b"-1", b=b"-1").items()}
    for n in range(1, 10_000):
        store.read([])  # a stopped swap may have given up its connection
        steps = iter([0] * (n - 1) + [1])
        store.file._connection.set_progress_handler(lambda steps=steps: next(steps, 0), 1)
        value = b"%d" % n
        writes = [Write("a", held["a"].version, value), Write("b", held["b"].version, value, 1e10)]
        try:
            applied = store.swap(writes).applied
        except StoreError as error:
            applied = None if error.unknown else False
            stopped += 1
        if store.file._connection is not None:
            store.file._connection.set_progress_handler(None, 1)
        found = store.read(["a", "b"]).records
        if {record.value for record in found.values()} == {value}:
            assert applied is not False
        else:
            assert found == held
            assert not applied
        held = dict(found)
        if next(steps, None) is not None:
            break
    assert stopped > 20
    store.close()


@pytest.mark.parametrize("verb", ["read", "swap", "scan"])
def test_a_file_that_vanishes_is_missed_at_once(store, path, verb):
    """Whoever removes or replaces the file under a running store stops it; putting it back starts it again."""
    put(store, a=b"1")
    call = {
        "read": lambda: store.read(["a"]),
        "swap": lambda: store.swap([Write("b", 0, b"2")]),
        "scan": lambda: list(store.scan("")),
    }[verb]
    aside = path.with_name("aside.db")
    path.rename(aside)
    with pytest.raises(StoreError, match="removed or replaced"):
        call()
    sql(path, "CREATE TABLE t (x)")
    with pytest.raises(StoreError, match="removed or replaced"):
        call()
    aside.rename(path)
    call()


def test_a_store_that_opens_its_file_again_wants_the_same_file(store, path, tmp_path):
    """After a fork, or an error, the file must be there, have the same epoch, and not be older than it was."""

    def reopen() -> None:
        store.file.before_fork()
        store.file.after_fork_in_parent()

    put(store, a=b"1")
    reopen()
    shutil.copy(path, tmp_path / "backup.db")
    put(store, b=b"2")
    reopen()
    path.rename(tmp_path / "aside.db")
    with pytest.raises(StoreError, match="can't be opened"):
        store.read(["a"])
    assert not path.exists()
    shutil.copy(tmp_path / "backup.db", path)
    with pytest.raises(StoreError, match="restored from a backup"):
        store.read(["a"])
    path.unlink()
    stranger = SqliteStore(path)
    put(stranger, a=b"1", b=b"2", c=b"3")
    stranger.close()
    with pytest.raises(StoreError, match="wiped, replaced"):
        store.read(["a"])
    (tmp_path / "aside.db").rename(path)
    assert {key for key, _ in store.scan("")} == {"a", "b"}


def test_who_is_sure_to_be_refused_waits_for_nobody(path):
    """While another process writes, a swap whose records have moved is refused without waiting for it; one that may yet be
    applied waits."""
    with closing(SqliteStore(path, durable=False, timeout=0.2)) as store:
        versions = put(store, a=b"1")
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="locked by another process"):
                store.swap([Write("a", versions["a"], b"2")])
            answer = store.swap([Write("a", 0, b"2")], seen={"b": 7, "a": versions["a"]})
            assert (answer.applied, set(answer.records)) == (False, {"a", "b"})
            with pytest.raises(StoreError, match="locked by another process"):
                store.swap([Write("a", versions["a"], b"2")])
        assert store.swap([Write("a", versions["a"], b"2")]).applied


def test_a_store_wiped_in_place_is_noticed(store, path):
    """Another epoch in the same file stops each swap before it writes."""
    put(store, a=b"1")
    sql(path, "UPDATE store SET epoch = randomblob(8)")
    with pytest.raises(StoreError, match="wiped, replaced"):
        store.swap([Write("b", 0, b"2")])
    assert sql(path, "SELECT count(*) FROM kept") == 1


def test_a_read_only_store_reads(path):
    """mode=ro reads and scans what is there, refuses to write, and makes no file."""
    with pytest.raises(StoreError, match="does it exist"):
        stores.open(f"sqlite:///{path}?mode=ro").store().read(["a"])
    with pytest.raises(StoreError, match="does it exist"):
        stores.open(f"sqlite:///{path}?mode=rw").store().read(["a"])
    assert not path.exists()
    writer = SqliteStore(path)
    put(writer, a=b"1")
    reader = stores.open(f"sqlite:///{path}?mode=ro")
    assert reader.store().read(["a"]).records["a"].value == b"1"
    assert [key for key, _ in reader.store().scan("")] == ["a"]
    with pytest.raises(StoreError, match="write permission") as caught:
        reader.store().swap([Write("b", 0, b"2")])
    assert not caught.value.unknown
    with pytest.raises(StoreError, match="write permission"):
        stores.open(f"sqlite:///{path}?mode=ro&namespace=nobody").store().read(["a"])
    reader.close()
    writer.close()


def test_a_missing_directory_is_named(tmp_path):
    """The message says which directory to make."""
    store = SqliteStore(tmp_path / "no" / "such" / "x.db")
    with pytest.raises(StoreError, match=r"make the directory .*no/such"):
        store.read(["a"])
    (tmp_path / "no" / "such").mkdir(parents=True)
    put(store, a=b"1")
    store.close()


def test_a_directory_is_not_a_store(tmp_path):
    """A path that names a directory is a StoreError."""
    with pytest.raises(StoreError, match="can't be opened"):
        SqliteStore(tmp_path).read(["a"])


def test_garbage_is_refused_and_left_alone(store, path):
    """A file that is no database is named, and not a byte of it changes."""
    garbage = random.Random(0).randbytes(20_000)
    path.write_bytes(garbage)
    with pytest.raises(StoreError, match="not a SQLite database"):
        store.swap([Write("a", 0, b"1")])
    assert path.read_bytes() == garbage


@pytest.mark.parametrize("keep", [100, 4096, 4096 * 3 + 5, 0.5])
def test_a_truncated_file_is_named(path, keep):
    """A file cut short is damaged, wherever it was cut, and the message says how to get on."""
    full = SqliteStore(path, durable=False)
    put(full, **{f"k{n}": bytes(1000) for n in range(200)})
    full.close()
    os.truncate(path, keep if keep > 1 else int(path.stat().st_size * keep))
    with (
        closing(SqliteStore(path)) as store,
        pytest.raises(StoreError, match=r"damaged.*(recover|backup)"),
    ):
        store.read(["k0"])


def test_damage_inside_the_file_is_named(path):
    """A page of garbage is found when it is used, as a StoreError."""
    full = SqliteStore(path, durable=False)
    put(full, **{f"k{n}": bytes(1000) for n in range(200)})
    full.close()
    with path.open("r+b") as file:
        for page in range(1, path.stat().st_size // 4096):
            file.seek(page * 4096)
            file.write(b"\xff" * 4096)
    with closing(SqliteStore(path)) as store, pytest.raises(StoreError, match="damaged"):
        list(store.scan(""))


def test_a_newer_file_asks_for_a_newer_linepicker(store, path):
    """A schema this version doesn't know is not touched."""
    put(store, a=b"1")
    store.close()
    sql(path, "PRAGMA user_version = 3")
    with pytest.raises(StoreError, match=r"schema 3, this one knows 2.*upgrade linepicker"):
        SqliteStore(path).read(["a"])
    assert sql(path, "PRAGMA user_version") == 3


def test_a_file_of_the_first_schema_keeps_its_records(path):
    """What the first schema wrote reads as it was, under its versions, and can be changed; older versions are kept out."""
    db = sqlite3.connect(path, isolation_level=None)
    for statement in MIGRATIONS[0]:
        db.execute(statement, {"epoch": bytes(7) + b"\1"})
    db.execute("PRAGMA application_id = 0x4C50434B")
    db.execute("PRAGMA user_version = 1")
    db.execute("INSERT INTO namespace VALUES (1, 'lp')")
    old = {"a": ZEROS, "b": b"\0\1\0", "c": b"plain"}
    db.executemany(
        "INSERT INTO record VALUES (1, ?, ?, ?, NULL)",
        [(key, place, value) for place, (key, value) in enumerate(old.items(), start=1)],
    )
    db.execute("UPDATE store SET counter = 3")
    with closing(SqliteStore(path)) as store:
        found = store.read(old).records
        assert {key: record.value for key, record in found.items()} == old
        assert [record.version & 0xFFFF for record in found.values()] == [1, 2, 3]
        assert store.swap([Write("a", found["a"].version, ZEROS + b"!")]).applied
        assert store.read(["a", "b"]).records["a"].value == ZEROS + b"!"
        assert dict(store.scan("")).keys() == old.keys()
    with pytest.raises(sqlite3.OperationalError, match="no such table: record"):
        db.execute("SELECT * FROM record")
    db.close()


@given(st.lists(st.sampled_from([b"\0", bytes(300), b"\1", b"\xff\0", b"text"])).map(b"".join))
def test_a_value_is_what_it_was_however_many_zeros_it_holds(value):
    """A small value is kept shorter where that helps, and comes back byte for byte."""
    short = shortened(value)
    assert short is None or (restored(short) == value and len(short) < len(value) <= AT_MOST)


def test_a_value_of_zeros_takes_less_in_the_file(store, path):
    """A record that is mostly zeros takes half of its size, and reads as it was written, alone and in a scan."""
    put(store, a=ZEROS, b=b"\0\1" * 20)
    assert sql(path, "SELECT length(value) FROM kept WHERE key = 'a'") < len(ZEROS) / 2
    assert store.read(["a"]).records["a"].value == ZEROS
    assert {key: record.value for key, record in store.scan("")} == {
        "a": ZEROS,
        "b": b"\0\1" * 20,
    }


@pytest.mark.parametrize(
    "statement",
    ["CREATE TABLE t (x)", "PRAGMA user_version = 1", "PRAGMA application_id = 7"],
)
def test_another_programs_database_is_left_alone(store, path, statement):
    """A database with tables, a version or an id that are not ours is refused before anything is written."""
    sql(path, statement)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="another program's database"):
        store.swap([Write("a", 0, b"1")])
    assert path.read_bytes() == before


def test_an_empty_file_becomes_a_store(store, path):
    """A file of no bytes, as a careful deployment may make it, is taken."""
    path.touch(mode=0o600)
    put(store, a=b"1")
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_key_that_is_no_text_is_a_store_error(store):
    """A lone surrogate can't be stored; the error does not show the key."""
    with pytest.raises(StoreError) as caught:
        store.read(["+15550001234\ud800"])
    assert "+1555" not in str(caught.value)
    put(store, a=b"1")


# Many processes.


def test_processes_that_start_together_make_one_store(path, start):
    """Eight first uses of one new file at once all succeed, with one epoch and no version twice."""
    script = """
        import sys
        from linepicker.stores import Write
        from linepicker.stores.sqlite import SqliteStore

        store = SqliteStore(sys.argv[1], durable=False, timeout=30.0)
        print("ready", flush=True)
        sys.stdin.readline()
        print(store.swap([Write(sys.argv[2], 0, b"1")]).records[sys.argv[2]].version)
        """
    processes = [start(script, path, n) for n in range(8)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    versions = [int(process.communicate()[0]) for process in processes]
    assert [process.returncode for process in processes] == [0] * 8
    assert len({version >> COUNTER_BITS for version in versions}) == 1
    assert len(set(versions)) == 8


def test_no_acknowledged_swap_is_lost_to_kills(path, start):
    """Four processes add to one counter and to their own in one swap; they are killed at random, 24 times, and replaced.
    Every addition that was acknowledged is there, none is there by half, and at most one a kill is there unacknowledged.
    """
    script = """
        import sys
        from linepicker.stores import Write
        from linepicker.stores.sqlite import SqliteStore

        store = SqliteStore(sys.argv[1], durable=False, timeout=30.0)
        keys = ["all", sys.argv[2]]
        held = dict(store.read(keys).records)
        while True:
            answer = store.swap(
                [Write(key, held[key].version, b"%d" % (int(held[key].value or 0) + 1)) for key in keys]
            )
            if answer.applied:
                print("done", flush=True)
                held = dict(store.read(keys).records)
            else:
                held |= answer.records
        """
    chance = random.Random(0)
    names = ["w0", "w1", "w2", "w3"]
    acknowledged = dict.fromkeys(names, 0)
    kills = dict.fromkeys(names, 0)
    running = {name: start(script, path, name) for name in names}
    for turn in range(24):
        name = names[turn % 4]
        process = running[name]
        for _ in range(chance.randint(1, 40)):
            acknowledged[name] += process.stdout.readline() == "done\n"
        process.kill()
        acknowledged[name] += process.stdout.read().count("done\n")
        process.communicate()
        kills[name] += 1
        if turn < 20:
            running[name] = start(script, path, name)
    store = SqliteStore(path)
    counts = {key: int(record.value) for key, record in store.scan("")}
    store.close()
    assert sum(acknowledged.values()) > 200
    assert counts.pop("all") == sum(counts.values())
    for name in names:
        assert acknowledged[name] <= counts[name] <= acknowledged[name] + kills[name]
    assert sql(path, "PRAGMA integrity_check") == "ok"


FORK = """
    import os, sys, threading
    from linepicker import stores
    from linepicker.errors import StoreError
    from linepicker.stores import Write

    handle = stores.open(f"sqlite:///{sys.argv[1]}?timeout=30")
    store = handle.store()

    def put(key):
        assert store.swap([Write(key, 0, b"1")]).applied

    def wait(child):
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


def test_a_child_opens_its_own_connection(path, run):
    """After a fork both sides write, and what the child wrote outlives a parent that closes first."""
    run(
        FORK
        + """
    there, back = os.pipe(), os.pipe()
    put("before")
    if (child := os.fork()) == 0:
        put("child 1")
        os.write(there[1], b"!")
        os.read(back[0], 1)
        put("child 2")
        sys.exit()
    os.read(there[0], 1)
    put("parent")
    handle.close()
    os.write(back[1], b"!")
    wait(child)
        """,
        path,
    )
    store = SqliteStore(path)
    assert {key for key, _ in store.scan("")} == {"before", "child 1", "parent", "child 2"}
    store.close()
    assert sql(path, "PRAGMA integrity_check") == "ok"


def test_a_fork_amid_other_threads_writes_breaks_nothing(path, run):
    """Forty forks while two threads write: every child writes and ends, and no write of anybody is lost."""
    run(
        FORK
        + """
    done = threading.Event()

    def keep_writing(name):
        n = 0
        while not done.is_set():
            put(f"{name}:{n}")
            n += 1
        print(n, flush=True)

    threads = [threading.Thread(target=keep_writing, args=(name,)) for name in "xy"]
    for thread in threads:
        thread.start()
    children = []
    for n in range(40):
        if (child := os.fork()) == 0:
            put(f"child:{n}")
            os._exit(0)
        children.append(child)
    for child in children:
        wait(child)
    done.set()
    for thread in threads:
        thread.join()
    found = len(list(store.scan("child:")))
    assert found == 40, found
        """,
        path,
    )
    assert sql(path, "PRAGMA integrity_check") == "ok"


def test_a_child_of_an_async_parent_has_its_own_thread(path, run):
    """The worker thread stays behind in a fork; the child starts another."""
    printed = run(
        FORK
        + """
    import asyncio

    async def count():
        return len(await handle.astore().scan(""))

    put("a")
    asyncio.run(count())
    if (child := os.fork()) == 0:
        print(asyncio.run(count()), flush=True)
        os._exit(0)
    wait(child)
    print(asyncio.run(count()), flush=True)
        """,
        path,
    )
    assert printed == ["1", "1"]


def test_a_fork_behind_pythons_back_is_refused(path, run):
    """A child of a fork that runs no hooks can't use the store safely, and is told so; the parent goes on."""
    printed = run(
        FORK
        + """
    import asyncio, ctypes

    put("a")
    if (child := ctypes.PyDLL(None).fork()) == 0:
        for call in (lambda: put("b"), lambda: asyncio.run(handle.astore().read(["a"]))):
            try:
                call()
            except StoreError as error:
                print("after the fork" in str(error), flush=True)
        os._exit(0)
    wait(child)
    put("c")
        """,
        path,
    )
    assert printed == ["True", "True"]


# The coroutine twin.


async def test_a_cancelled_swap_is_whole_or_not_at_all(path):
    """Swaps cancelled at every stage leave all their writes or none, and the store goes on."""
    store = SqliteStore(path, durable=False)
    twin = AsyncSqliteStore(store)
    for n in range(50):
        swap = asyncio.create_task(
            twin.swap([Write(f"a:{n}", 0, b"1"), *(Write(f"b:{n}:{i}", 0, b"1") for i in range(n))])
        )
        for _ in range(n % 5):
            await asyncio.sleep(0)
        swap.cancel()
        await asyncio.gather(swap, return_exceptions=True)
    await twin.read([])  # its turn comes after all that had begun
    found = {key for key, _ in await twin.scan("")}
    for n in range(50):
        parts = {f"a:{n}", *(f"b:{n}:{i}" for i in range(n))}
        assert parts <= found or not parts & found
    await twin.close()


async def test_the_worker_thread_ends_with_its_store(path):
    """There is no thread before the first call, one after it, and none once the store is closed."""

    def workers() -> set[threading.Thread]:
        return {each for each in threading.enumerate() if "linepicker-sqlite" in each.name}

    before = workers()
    twin = AsyncSqliteStore(SqliteStore(path))
    assert workers() == before
    await asyncio.gather(*(twin.read(["a"]) for _ in range(20)))
    (worker,) = workers() - before
    await twin.close()
    worker.join(timeout=30)
    assert not worker.is_alive()


async def test_what_was_seen_is_read_in_the_callers_thread(path):
    """*seen* may be the caller's live data: the worker gets a copy."""
    threads = []

    class Live(UserDict):
        def __iter__(self):
            threads.append(threading.current_thread())
            return super().__iter__()

    twin = AsyncSqliteStore(SqliteStore(path))
    await twin.swap([Write("a", 0, b"1")], seen=Live(b=0))
    assert set(threads) == {threading.current_thread()}
    await twin.close()


async def test_swaps_that_wait_together_are_one_transaction(path):
    """The first goes alone, the others meanwhile wait for the thread and are committed at once."""
    store = SqliteStore(path)
    twin, commits = AsyncSqliteStore(store), []
    await twin.read([])
    commit, waiting, begun = store.file.commit, threading.Event(), threading.Event()

    def counted(db):
        commits.append(db)
        begun.set()
        assert waiting.wait(60)
        commit(db)

    store.file.commit = counted
    first = asyncio.create_task(twin.swap([Write("first", 0, b"1")]))
    await asyncio.sleep(0)
    await asyncio.to_thread(begun.wait, 60)
    swaps = [asyncio.create_task(twin.swap([Write(f"a:{n}", 0, b"1")])) for n in range(20)]
    await asyncio.sleep(0)
    waiting.set()
    answers = await asyncio.gather(first, *swaps)
    assert all(answer.applied for answer in answers)
    assert len(commits) == 2
    assert len(await twin.scan("a:")) == 20
    await twin.close()


async def test_each_of_the_swaps_that_wait_together_is_applied_or_refused_by_itself(path):
    """One of them changes a key, the next ones find it changed; a write that no file could take is its own swap's fault."""
    twin = AsyncSqliteStore(SqliteStore(path))
    results = await asyncio.gather(
        *(twin.swap([Write("a", 0, b"%d" % n), Write(f"b:{n}", 0, b"1")]) for n in range(10)),
        twin.swap([Write("\ud800", 0, b"1")]),
        twin.swap([Write("c", 0, b"1")]),
        return_exceptions=True,
    )
    *rivals, bad, good = results
    assert [answer.applied for answer in rivals] == [True] + [False] * 9
    version = rivals[0].records["a"].version
    assert {answer.records["a"] for answer in rivals[1:]} == {Record(version, b"0")}
    assert isinstance(bad, StoreError)
    assert good.applied
    assert {key for key, _ in await twin.scan("b:")} == {"b:0"}
    await twin.close()


async def test_readers_have_their_turn_among_writers(path):
    """However many swaps follow each other, a read waits for one transaction at most."""
    twin = AsyncSqliteStore(SqliteStore(path, durable=False))
    over = False

    async def write(n: int) -> None:
        version = 0
        while not over:
            answer = await twin.swap([Write(f"a:{n}", version, b"1")])
            version = answer.records[f"a:{n}"].version

    writers = [asyncio.create_task(write(n)) for n in range(8)]
    for _ in range(20):
        await asyncio.wait_for(twin.read(["a:0"]), 60)
    over = True
    await asyncio.gather(*writers)
    await twin.close()


def test_swaps_of_one_transaction_follow_each_other(store):
    """What one writes or deletes the next one finds, and only what is left at the end is stored."""
    first = store.swap([Write("a", 0, b"1"), Write("b", 0, b"1")]).records
    made = [Write("a", first["a"].version, None)]
    refused, again = [Write("a", first["a"].version, b"2")], [Write("a", 0, b"3")]
    gone = [Write("b", first["b"].version, None)]
    answers = store.swap_all([(each, {}) for each in (made, refused, again, gone)])
    assert [answer.applied for answer in answers] == [True, False, True, True]
    assert answers[2].records["a"].version > first["b"].version
    found = dict(store.scan(""))
    assert found == {"a": Record(answers[2].records["a"].version, b"3")}
    assert not store.swap([Write("a", 0, b"4")]).applied
    last = [[Write("a", found["a"].version, b"5")], [Write("c", 0, b"1")], [Write("c", 1, None)]]
    assert [each.applied for each in store.swap_all([(each, {}) for each in last])] == [
        True,
        True,
        False,
    ]
