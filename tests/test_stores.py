"""Every store does what the port says, and a store that does not is found out; handles, and what memory alone does."""

import asyncio
import fnmatch
import subprocess
import sys
import textwrap
import threading
import time
import unicodedata
from collections.abc import Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from linepicker import AsyncRouter, Line, Router, stores
from linepicker._record import Spending
from linepicker.errors import StoreError
from linepicker.stores import ABSENT, COUNTER_BITS, SAME, Answer, Handle, Record, Write
from linepicker.stores.memory import AsyncMemoryStore, MemoryStore
from linepicker.testing import ManualClock, check_async_store, check_store

URLS = ["memory://", "sqlite:///{}?synchronous=full", "sqlite:///{}?synchronous=normal"]
SERVERS = ["redis6", "valkey", "postgres"]
NAMES = count()


@pytest.fixture(params=[*URLS, *SERVERS])
def make(request, tmp_path):
    """Gives a handle on a new, empty store at each call."""
    numbers = count()
    if request.param in SERVERS:
        server = request.getfixturevalue(request.param)
        return lambda: stores.open(server.url(namespace=f"stores-{next(NAMES)}"))
    return lambda: stores.open(request.param.format(tmp_path / f"{next(numbers)}.db"))


def run(script: str, *arguments: object) -> str:
    """What *script* prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_store_does_what_the_port_says(make):
    """Each store passes the public suite, with threads."""
    check_store(make)


async def test_every_async_store_does_what_the_port_says(make):
    """Each store's coroutine twin passes the same suite, with tasks."""
    await check_async_store(make)


def test_stores_are_taken_as_they_are_too():
    """The suite takes a store as well as a handle."""
    check_store(MemoryStore)


async def test_async_stores_are_taken_as_they_are_too():
    """The suite takes an async store as well as a handle."""
    await check_async_store(lambda: AsyncMemoryStore(MemoryStore()))


# A store with one fault is found out.


class Toy:
    """A small right store, and with a *fault* a wrong one."""

    epochs = count(1)

    def __init__(self, fault: str | None = None) -> None:
        self.fault = fault
        self.lock = threading.Lock()
        self.meeting = threading.Barrier(2)
        self.swapped = threading.Event()
        self.records: dict[str, tuple[Record, float | None]] = {}
        epoch = 1 if fault == "one epoch for all" else next(self.epochs)
        self.counter = epoch << COUNTER_BITS
        self.closed = False

    def check_open(self, verb: str) -> None:
        """Raise what a closed store raises."""
        if self.closed and self.fault != f"{verb} when closed":
            raise StoreError("closed")

    def key(self, key: str) -> str:
        """The key under which a record lies."""
        if self.fault == "keys lose their case":
            return key.lower()
        if self.fault == "keys are normalised":
            return unicodedata.normalize("NFC", key)
        if self.fault == "keys are stripped":
            return key.strip()
        return key

    def get(self, key: str) -> Record:
        """The record as it is now."""
        record, expires = self.records.get(self.key(key), (ABSENT, None))
        gone = expires is not None and expires <= time.time()
        if self.fault == "records expire at once":
            gone = expires is not None
        return ABSENT if gone and self.fault != "expired records stay" else record

    def read(self, keys) -> Answer:
        """As `Store.read`."""
        self.check_open("read")
        records = {}
        with self.lock:
            for key in keys:
                records[key] = self.get(key)
                if self.fault == "read is not of one moment" and key == "from":
                    self.lock.release()
                    self.swapped.clear()
                    self.swapped.wait(timeout=0.05)
                    self.lock.acquire()
        if self.fault == "absent records are left out":
            records = {key: record for key, record in records.items() if record.version}
        return Answer(True, None, records)

    def swap(self, writes, *, seen: Mapping[str, int] = {}) -> Answer:
        """As `Store.swap`."""
        self.check_open("swap")
        with self.lock:
            given = {write.key: write.version for write in writes}
            if self.fault == "SAME is ignored":
                given = {write.key: write.version for write in writes if write.value is not SAME}
            if self.fault == "seen binds":
                given |= seen
            moved = {key for key, version in given.items() if self.get(key).version != version}
            if self.fault == "deletes are not checked":
                moved -= {write.key for write in writes if write.value is None}
            if self.fault == "absence is not checked":
                moved -= {key for key, version in given.items() if version == 0}
            if self.fault == "versions are not checked":
                moved = set()
            if moved:
                if self.fault == "part is applied":
                    self.apply(write for write in writes if write.key not in moved)
                return self.refuse(moved, given, seen)
            if self.fault == "check and write are two steps" and "count" in given:
                self.lock.release()
                with suppress(threading.BrokenBarrierError):
                    self.meeting.wait(timeout=1.0)
                self.lock.acquire()
            self.swapped.set()
            return Answer(True, None, self.apply(writes))

    def refuse(self, moved, given, seen) -> Answer:
        """The answer of a refused swap."""
        if self.fault == "refusals bring nothing":
            return Answer(False, None, {})
        moved = moved | {key for key, version in seen.items() if self.get(key).version != version}
        if self.fault == "refusals bring the written only":
            moved &= given.keys()
        if self.fault == "refusals bring everything":
            moved |= given.keys() | seen.keys()
        if self.fault == "refusals leave out the absent":
            moved = {key for key in moved if self.get(key).version}
        records = {key: self.get(key) for key in moved}
        if self.fault == "refusals bring no values":
            records = {key: Record(record.version, None) for key, record in records.items()}
        return Answer(False, None, records)

    def apply(self, writes) -> dict[str, Record]:
        """Make the writes; the records written."""
        records = {}
        for key, version, value, expires in writes:
            if value is SAME:
                if self.fault == "SAME makes a version" and version:
                    self.counter += 1
                    self.records[key] = (Record(self.counter, self.get(key).value), None)
                continue
            if value is None and self.fault != "deletes are forgotten":
                self.records.pop(self.key(key), None)
                records[key] = ABSENT
                if self.fault == "versions come again after a delete":
                    self.counter -= bool(version)
                continue
            self.counter += self.fault != "a swap has one version" or not records
            number = version + 1 if self.fault == "versions are per key" else self.counter
            if not value and self.fault == "empty is absent":
                records[key] = ABSENT
                continue
            text = value and self.fault == "values are text"
            records[key] = Record(
                number, value.decode(errors="replace").encode() if text else value
            )
            self.records[self.key(key)] = (records[key], expires)
            if self.fault == "the first write is lost" and len(records) == 1:
                del self.records[self.key(key)]
        return {} if self.fault == "swap answers without versions" else records

    def scan(self, prefix):
        """As `Store.scan`."""
        self.check_open("scan")
        with self.lock:
            keys = [key for key in self.records if self.starts(key, prefix)]
            found = [(key, self.get(key)) for key in keys]
        if self.fault == "scan yields the expired":
            return iter([(key, self.records[key][0]) for key in keys])
        if self.fault == "scan yields twice":
            found += found[:1]
        if self.fault == "scan stops at a thousand":
            found = found[:1000]
        return iter([(key, record) for key, record in found if record.version])

    def starts(self, key: str, prefix: str) -> bool:
        """Whether a scan yields this key."""
        if self.fault == "scan takes a pattern":
            return fnmatch.fnmatchcase(key, prefix + "*")
        return key.startswith(prefix) or self.fault == "scan ignores the prefix"

    def close(self) -> None:
        """As `Store.close`."""
        if self.closed and self.fault == "close once":
            raise StoreError("closed already")
        self.closed = True


FAULTS = [
    "versions are not checked",
    "absence is not checked",
    "deletes are not checked",
    "part is applied",
    "the first write is lost",
    "check and write are two steps",
    "read is not of one moment",
    "versions are per key",
    "versions come again after a delete",
    "a swap has one version",
    "one epoch for all",
    "swap answers without versions",
    "SAME is ignored",
    "SAME makes a version",
    "seen binds",
    "deletes are forgotten",
    "absent records are left out",
    "refusals bring nothing",
    "refusals bring everything",
    "refusals bring no values",
    "refusals bring the written only",
    "refusals leave out the absent",
    "expired records stay",
    "records expire at once",
    "scan yields the expired",
    "scan yields twice",
    "scan stops at a thousand",
    "scan ignores the prefix",
    "scan takes a pattern",
    "keys lose their case",
    "keys are normalised",
    "keys are stripped",
    "values are text",
    "empty is absent",
    "read when closed",
    "swap when closed",
    "scan when closed",
]


def test_a_store_without_a_fault_passes():
    """The toy whose faults follow is right without them."""
    check_store(Toy)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_store_with_a_fault_is_found_out(fault):
    """The suite fails a store with any one of these faults, with a sentence."""
    with pytest.raises(AssertionError, match=r"\w+ \w+"):
        check_store(lambda: Toy(fault))


def test_a_store_that_closes_only_once_is_found_out():
    """Closing twice is nothing: an error then comes through."""
    with pytest.raises(StoreError):
        check_store(lambda: Toy("close once"))


class AsyncToy:
    """A toy with coroutines."""

    def __init__(self, fault: str | None = None) -> None:
        self.toy = Toy(fault)

    async def read(self, keys) -> Answer:
        """As `Store.read`."""
        return self.toy.read(keys)

    async def swap(self, writes, *, seen: Mapping[str, int] = {}) -> Answer:
        """As `Store.swap`."""
        return self.toy.swap(writes, seen=seen)

    async def scan(self, prefix):
        """As `Store.scan`."""
        return list(self.toy.scan(prefix))

    async def close(self) -> None:
        """As `Store.close`."""
        self.toy.close()


async def test_an_async_store_with_a_fault_is_found_out():
    """The coroutine suite passes the right toy, and fails wrong ones in a case and in a race."""
    await check_async_store(AsyncToy)
    for fault in ("part is applied", "scan stops at a thousand", "one epoch for all"):
        with pytest.raises(AssertionError):
            await check_async_store(lambda fault=fault: AsyncToy(fault))


# Handles.


def test_a_handle_names_its_store():
    """The namespace and the epoch are taken out of the URL; what the rest opens is the driver's business."""
    handle = stores.open("memory://")
    assert (handle.url, handle.namespace, handle.epoch) == ("memory://", "lp", None)
    handle = stores.open("sqlite:///x.db?namespace=eu-1&epoch=0123abcd&timeout=1.5")
    assert (handle.namespace, handle.epoch) == ("eu-1", "0123abcd")


def test_a_handle_opens_nothing_until_it_is_used(tmp_path):
    """Neither opening nor asking for a store nor closing makes the file."""
    path = tmp_path / "x.db"
    with_nothing = stores.open(f"sqlite:///{path}")
    with_nothing.store()
    with_nothing.astore()
    with_nothing.close()
    assert not path.exists()
    used = stores.open(f"sqlite:///{path}")
    used.store().read(["a"])
    used.close()
    assert path.exists()


async def test_a_handle_is_one_store_by_both_doors(make):
    """What the sync store wrote, the async store reads, and each is the same object every time."""
    handle = make()
    assert handle.store() is handle.store()
    assert handle.astore() is handle.astore()
    written = handle.store().swap([Write("a", 0, b"1")])
    read = await handle.astore().read(["a"])
    assert read.records == {"a": Record(written.records["a"].version, b"1")}
    await handle.aclose()
    with pytest.raises(StoreError, match="closed"):
        handle.store().read(["a"])


async def test_a_handle_is_closed_as_often_as_you_like(make):
    """Closing an unused handle, or a closed one, by either door, is nothing; then neither door works."""
    handle = make()
    handle.close()
    handle.close()
    await handle.aclose()
    await handle.aclose()
    with pytest.raises(StoreError, match="closed"):
        await handle.astore().read(["a"])
    with pytest.raises(StoreError, match="closed"):
        handle.store().swap([])


def test_two_memory_urls_are_two_stores():
    """A memory store is its handle's alone."""
    one, two = stores.open("memory://"), stores.open("memory://")
    one.store().swap([Write("a", 0, b"1")])
    assert two.store().read(["a"]).records == {"a": ABSENT}


def test_a_path_is_relative_to_where_the_handle_was_made(tmp_path, monkeypatch):
    """A later change of directory moves no store; four slashes are an absolute path, and % escapes hold."""
    monkeypatch.chdir(tmp_path)
    relative = stores.open("sqlite:///here%3F%23%20.db")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    relative.store().read([])
    relative.close()
    assert (tmp_path / "here?# .db").exists()
    absolute = stores.open(f"sqlite:///{tmp_path}/there.db")
    absolute.store().read([])
    absolute.close()
    assert (tmp_path / "there.db").exists()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "memory://"),
        ("linepicker.db", "sqlite:///"),
        ("mysql://host/db", "unknown store 'mysql'"),
        ("redis://", "redis://host:6379"),
        ("redis+bogus://host", "redis[+]sentinel://"),
        ("postgresql://host/db?timeuot=1", "can't read the store's URL"),
        ("postgresql://host/db?timeout=soon", "must be numbers"),
        ("postgresql://host/db?timeout=0", "0.05 to 86400"),
        ("postgresql://host/db?max_size=0", "1 or more"),
        ("postgresql://me:pass/word@host/db", "write @ as %40"),
        ("postgresql://me:pass@word@host/db", "write @ as %40"),
        ("postgresql://me:pass#word@host/db", "write @ as %40"),
        ("postgresql://me:pass?word@host/db", "can't be read"),
        ("postgresql://me:pass%word@host/db", "can't read the store's URL"),
        ("http://[", "can't be read"),
        ("memory://?namespace", "can't be read"),
        ("memory://?namespace=", "namespace must be"),
        ("memory://?namespace=a/b", "namespace must be"),
        ("memory://?namespace=a&namespace=b", "twice"),
        ("memory://?epoch=", "epoch must not be empty"),
        ("memory://?timeout=1", "no parameters"),
        ("memory://name", "no path"),
        ("sqlite://x.db", "sqlite:///relative.db"),
        ("sqlite:///", "sqlite:///relative.db"),
        ("sqlite:///x#y.db", "sqlite:///relative.db"),
        ("sqlite:///:memory:", "memory://"),
        ("sqlite:///x.db?timeuot=1", "unknown parameter 'timeuot'"),
        ("sqlite:///x.db?timeout=soon", "must be numbers"),
        ("sqlite:///x.db?timeout=-1", "0 to 86400"),
        ("sqlite:///x.db?timeout=nan", "0 to 86400"),
        ("sqlite:///x.db?cached_statements=-1", "0 or more"),
        ("sqlite:///x.db?synchronous=off", "full or normal"),
        ("sqlite:///x.db?mode=memory", "ro, rw or rwc"),
    ],
)
def test_a_wrong_url_is_refused_with_what_to_write(url, says):
    """A URL that names no store is a StoreError at once."""
    with pytest.raises(StoreError, match=says):
        stores.open(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://me:s3cret@h?db=x",
        "postgresql://me:s3cret@h/d?x=1",
        "postgresql://me:s3cret%zz@h/d",
        "postgresql://me:x@s3cret@h/d",
        "postgresql://me:s3cret/@h/d",
        "postgres://me:s3cret#@h/d",
        "x://me:s3cret@h",
        "me:s3cret@h",
    ],
)
def test_a_refused_url_does_not_tell_its_password(url):
    """No message about a URL holds more of it than the scheme and the parameters."""
    with pytest.raises(StoreError) as caught:
        stores.open(url)
    assert "s3cret" not in str(caught.value)


def test_a_handle_shows_what_it_is():
    """Its repr has the URL, the namespace and the epoch."""
    assert repr(stores.open("memory://?epoch=e")) == (
        "Handle(url='memory://?epoch=e', namespace='lp', epoch='e')"
    )
    assert isinstance(stores.open("memory://"), Handle)


def test_a_read_is_always_applied(make):
    """Its answer says so, whether anything is there or not."""
    store = make().store()
    assert store.read(["a"]).applied
    store.swap([Write("a", 0, b"1")])
    assert store.read(["a"]).applied


@pytest.mark.parametrize("url", URLS)
def test_versions_of_stores_begin_with_epochs_of_their_own(url, tmp_path):
    """So none is ever used twice, however often a store is made anew."""
    made = []
    for n in range(4):
        store = stores.open(url.format(tmp_path / f"{n}.db")).store()
        made.append(store.swap([Write("a", 0, b"1")]).records["a"].version)
    epochs = {version >> COUNTER_BITS for version in made}
    assert len(epochs) == 4
    assert max(epochs) > 1 << 32
    assert all(version % (1 << COUNTER_BITS) < 1 << 20 for version in made)


# What memory alone does.


class Told(MemoryStore):
    """Notes what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.seen, self.values = [], []

    def swap(self, writes, *, seen: Mapping[str, int] = {}) -> Answer:
        """As `Store.swap`."""
        self.seen.append(dict(seen))
        self.values += [write.value for write in writes]
        return super().swap(writes, seen=seen)


async def test_memory_is_told_what_it_needs_and_no_more():
    """Not which versions were seen, though others write; and the spending of a line as it is, as nobody else reads bytes."""
    store = Told()
    lines = [Line("+12025550100")]
    with Router(lines, store=store) as one, Router(lines, store=store) as other:
        async with AsyncRouter(lines, store=AsyncMemoryStore(store)) as third:
            for n in range(3):
                one.reserve(f"+1212555010{n}")
                other.reserve(f"+1212555011{n}")
                await third.reserve(f"+1212555012{n}")
    assert not any(store.seen)
    assert sum(isinstance(value, Spending) for value in store.values) >= 9


def test_memory_forgets_a_record_at_its_moment():
    """A record is there until its expires_at by the store's clock, and absent from then on."""
    clock = ManualClock(100.0)
    store = MemoryStore(time=clock.now)
    version = store.swap([Write("a", 0, b"1", 110.0)]).records["a"].version
    clock.advance(9.999)
    assert store.read(["a"]).records["a"].version == version
    assert store.swap([Write("a", version, SAME)]).applied
    clock.advance(0.001)
    assert store.read(["a"]).records == {"a": ABSENT}
    assert store.swap([Write("a", 0, b"2")]).applied


def test_memory_keeps_a_record_that_no_longer_expires():
    """A later write without expires_at makes the record stay; one with a later moment moves it."""
    clock = ManualClock(0.0)
    store = MemoryStore(time=clock.now)
    first = store.swap([Write("stays", 0, b"1", 10.0), Write("later", 0, b"1", 10.0)]).records
    store.swap(
        [
            Write("stays", first["stays"].version, b"2"),
            Write("later", first["later"].version, b"2", 20.0),
        ]
    )
    clock.advance(10.0)
    assert {key for key, _ in store.scan("")} == {"stays", "later"}
    clock.advance(10.0)
    assert {key for key, _ in store.scan("")} == {"stays"}


def test_memory_is_bounded_by_what_is_there():
    """Neither expired records nor moments that were replaced pile up."""
    clock = ManualClock(0.0)
    store = MemoryStore(time=clock.now)
    version = 0
    for n in range(5000):
        store.swap([Write(f"short:{n}", 0, b"", clock.now() + 10.0)])
        version = store.swap([Write("long", version, b"", 1e6 + n)]).records["long"].version
        clock.advance(1.0)
    assert len(store._records) <= 11
    assert len(store._expires) <= 11
    assert len(store._due) <= 2 * 11 + 64


def test_memory_of_a_parent_is_refused_in_its_child():
    """After a fork the child's copy raises StoreError, even where a thread of the parent held its lock."""
    printed = run("""
        import os, threading
        from linepicker import stores
        from linepicker.errors import StoreError
        from linepicker.stores import Write

        used, unused = stores.open("memory://"), stores.open("memory://")
        used.store().swap([Write("a", 0, b"1")])
        used.store()._lock.acquire()
        if (child := os.fork()) == 0:
            try:
                used.store().read(["a"])
            except StoreError as error:
                print("refused:", "fork" in str(error))
            print("unused:", unused.store().swap([Write("a", 0, b"1")]).applied, flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        used.store()._lock.release()
        print("parent:", used.store().read(["a"]).records["a"].value)
    """)
    assert printed.splitlines() == ["refused: True", "unused: True", "parent: b'1'"]


def test_memory_knows_its_process_by_any_id(monkeypatch):
    """In a container the process is often number 1: there too a store is its own alone, and closed once it is closed."""
    monkeypatch.setattr("linepicker.stores.memory.process", lambda: 1)
    mine, closed = MemoryStore(), MemoryStore()
    assert mine.swap([Write("a", 0, b"1")]).applied
    closed.close()
    with pytest.raises(StoreError, match="closed"):
        closed.read(["a"])
    monkeypatch.setattr("linepicker.stores.memory.process", lambda: 2)
    with pytest.raises(StoreError, match="fork"):
        mine.read(["a"])


def test_both_doors_of_memory_like_to_be_written_to_alike():
    """What one takes unpacked, and is not told, the other is written as well."""
    assert AsyncMemoryStore.packs is MemoryStore.packs is True
    assert AsyncMemoryStore.wants_seen is MemoryStore.wants_seen is False


@pytest.mark.parametrize("told", [True, False])
def test_a_fork_that_python_is_not_told_of_is_seen_under_uwsgi(told):
    """Workers of uWSGI are forked so: there each call asks the system which process it is. Else Python's own forks are seen."""
    printed = run(f"""
        import ctypes, os, sys, types
        if not {told}:
            sys.modules["uwsgi"] = types.ModuleType("uwsgi")
        fork = os.fork if {told} else ctypes.PyDLL(None).fork
        from linepicker import Line, Router, stores
        from linepicker.errors import StoreError

        with Router([Line("+12025550100")]) as router, Router([Line("+12025550101")]) as other:
            router.reserve("+12125550123")
            other.reserve("+12125550123")
            if (child := fork()) == 0:
                for each in (router, other):
                    try:
                        each.reserve("+12125550124")
                    except StoreError as error:
                        print("refused:", "fork" in str(error), flush=True)
                os._exit(0)
            os.waitpid(child, 0)
            print("parent:", router.reserve("+12125550123").kind)
    """)
    assert printed.splitlines() == ["refused: True", "refused: True", "parent: known"]


def test_async_memory_never_suspends():
    """Its coroutines end at their first step, outside any event loop."""
    store = AsyncMemoryStore(MemoryStore())
    for call in (
        store.swap([Write("a", 0, b"1")]),
        store.read(["a"]),
        store.scan(""),
        store.close(),
    ):
        with pytest.raises(StopIteration):
            call.send(None)


def test_a_handle_serves_one_event_loop_after_another(make):
    """Nothing of a store stays bound to a loop that has ended."""
    handle = make()

    async def add(key: str) -> int:
        await handle.astore().swap([Write(key, 0, b"1")])
        return len(await handle.astore().scan(""))

    assert [asyncio.run(add(key)) for key in "abc"] == [1, 2, 3]
    asyncio.run(handle.aclose())


@pytest.mark.parametrize("make", URLS, indirect=True)
def test_a_refusal_alone_looks_at_what_was_seen(make):
    """Where a swap is sent nowhere, an applied one never iterates *seen*, which may be costly to compute."""

    class Costly(dict):
        def __iter__(self):
            raise AssertionError("iterated")

        items = keys = values = __iter__

    handle = make()
    assert handle.store().swap([Write("a", 0, b"1")], seen=Costly(b=0)).applied
    handle.close()


def test_namespaces_share_a_file_and_nothing_else(tmp_path):
    """Two namespaces of one file see no records of each other, and never the same version."""
    one = stores.open(f"sqlite:///{tmp_path}/x.db?namespace=one")
    two = stores.open(f"sqlite:///{tmp_path}/x.db?namespace=two")
    first = one.store().swap([Write("a", 0, b"1")]).records["a"].version
    assert two.store().read(["a"]).records == {"a": ABSENT}
    second = two.store().swap([Write("a", 0, b"2")]).records["a"].version
    assert second > first
    assert second >> COUNTER_BITS == first >> COUNTER_BITS
    assert [each.value for _, each in one.store().scan("")] == [b"1"]
    one.close()
    two.close()
    assert Path(tmp_path / "x.db").exists()
