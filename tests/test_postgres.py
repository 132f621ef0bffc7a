"""What PostgreSQL alone does: servers that stop, crash and are full, poolers, races over machines, and what is said of them."""

import asyncio
import itertools
import logging
import os
import queue
import random
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress

import psycopg
import pytest
from servers import POSTGRES_SOCKET, Proxy

from linepicker import AsyncRouter, Line, Policy, Router, stores
from linepicker.errors import NoLine, StoreError
from linepicker.stores import ABSENT, COUNTER_BITS, SAME, Record, Write
from linepicker.stores.postgres import PostgresStore, may_repeat

LINES = [Line("+12025550100"), Line("+12025550101")]
BUSY = Policy.from_dict(
    {
        "limits": {"new_per_hour": "off"},
        "pace": {"new_gap": 0.0, "message_gap": 0.0},
        "learn": {"enabled": False},
    }
)


@pytest.fixture
def open_store(postgres):
    """Gives stores in the new database; all are closed in the end."""
    made = []

    def make(url: str | None = None, **parameters: object) -> PostgresStore:
        namespace = parameters.pop("namespace", "lp")
        made.append(PostgresStore(url or postgres.url(**parameters), namespace=namespace))
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture
def store(open_store):
    """A store that was never used."""
    return open_store()


@pytest.fixture
def start():
    """Starts a process of its own that runs a script; none outlives the test."""
    started = []

    def start(script: str, *arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(script), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
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


def put(store: PostgresStore, **values: bytes) -> dict[str, int]:
    """The versions of new records."""
    answer = store.swap([Write(key, 0, value) for key, value in values.items()])
    assert answer.applied
    return {key: record.version for key, record in answer.records.items()}


# On the wire.


@pytest.fixture
def proxy(postgres, tmp_path_factory):
    """A proxy before the server; its folder's name is short."""
    made = Proxy(tmp_path_factory.mktemp("p") / POSTGRES_SOCKET, postgres.server.socket)
    yield made
    made.close()


async def test_every_read_and_every_swap_is_one_round_trip(postgres, proxy):
    """Counted at the socket: applied, refused, of one key or of many, by threads' door and by coroutines'."""
    handle = stores.open(postgres.url(host=proxy.folder))
    store, astore = handle.store(), handle.astore()
    many = [Write(f"k{n}", 0, b"") for n in range(300)]
    calls = [
        ("read", (["a"],), {}),
        ("swap", ([Write("a", 0, b"1"), Write("b", 0, SAME)],), {}),
        ("swap", ([Write("a", 0, b"1")],), {"seen": dict.fromkeys(map(str, range(200)), 7)}),
        ("swap", (many,), {}),
        ("read", ([each.key for each in many],), {}),
    ]
    store.read([])
    await astore.read([])
    for verb, arguments, options in calls:
        before = proxy.turns
        getattr(store, verb)(*arguments, **options)
        assert proxy.turns == before + 1, verb
        await getattr(astore, verb)(*arguments, **options)
        assert proxy.turns == before + 2, verb
    await handle.aclose()


async def test_a_reservation_is_one_round_trip(postgres, proxy):
    """Of a new person and of a known one, where this router alone uses the lines, by either door."""
    url = postgres.url(host=proxy.folder)
    async with AsyncRouter(LINES, policy=BUSY, store=url, pool="other") as arouter:
        with Router(LINES, policy=BUSY, store=url) as router:
            for n in range(2):
                router.reserve(f"+1212555010{n}")
            before = proxy.turns
            for n in range(2, 7):
                router.reserve(f"+1212555010{n}")
            assert proxy.turns == before + 5
            for n in range(2, 7):
                router.reserve(f"+1212555010{n}")
            assert proxy.turns == before + 10
        for n in range(2):
            await arouter.reserve(f"+1212555011{n}")
        before = proxy.turns
        for n in range(2, 7):
            await arouter.reserve(f"+1212555011{n}")
        assert proxy.turns == before + 5


@pytest.mark.parametrize("cut", ["before", "after", "told"])
def test_a_connection_lost_during_a_swap_leaves_it_unknown(open_store, proxy, cut):
    """Whether it arrived or not: `.unknown` says that nobody can tell, and the store goes on by another connection."""
    store = open_store(host=proxy.folder, max_size=1)
    version = put(store, a=b"1")["a"]
    proxy.cut = cut
    with pytest.raises(StoreError, match="not known") as caught:
        store.swap([Write("a", version, b"2")])
    assert caught.value.unknown
    assert store.read(["a"]).records["a"].value == (b"2" if cut == "after" else b"1")


@pytest.mark.parametrize("cut", ["before", "after", "told"])
async def test_a_connection_lost_during_a_read_is_not_noticed(postgres, proxy, cut):
    """A read is asked again, once, by either door."""
    handle = stores.open(postgres.url(host=proxy.folder, max_size=1))
    put(handle.store(), a=b"1")
    proxy.cut = cut
    assert handle.store().read(["a"]).records["a"].value == b"1"
    await handle.astore().read(["a"])
    proxy.cut = cut
    assert (await handle.astore().read(["a"])).records["a"].value == b"1"
    proxy.cut = cut
    with pytest.raises(StoreError, match="not known") as caught:
        await handle.astore().swap([Write("b", 0, b"2")])
    assert caught.value.unknown
    await handle.aclose()


class Pooler(Proxy):
    """A pooler that lends out connections for one transaction at a time, two in turn, and discards the session after each."""

    def __init__(self, folder, server, database: str) -> None:
        self.idle: queue.Queue[socket.socket] = queue.Queue()
        self.greeting = b""
        for _ in range(2):
            there = socket.socket(socket.AF_UNIX)
            there.connect(str(server.socket))
            words = f"user\0postgres\0database\0{database}\0\0".encode()
            there.sendall(struct.pack("!ii", 8 + len(words), 196608) + words)
            self.greeting = b"".join(self.answer(there))
            self.idle.put(there)
        self.used: list[int] = []
        super().__init__(folder / POSTGRES_SOCKET, server.socket)

    def message(self, there: socket.socket) -> bytes:
        """The next message of the server."""
        head = there.recv(5, socket.MSG_WAITALL)
        length = struct.unpack("!xi", head)[0] - 4
        return head + (there.recv(length, socket.MSG_WAITALL) if length else b"")

    def answer(self, there: socket.socket) -> list[bytes]:
        """All that the server says until it is ready, and in no transaction."""
        said = [self.message(there)]
        while (said[-1][:1], said[-1][-1:]) != (b"Z", b"I"):
            said.append(self.message(there))
        return said

    def pass_on(self, client: socket.socket, there: socket.socket) -> None:
        """Serve a client by whatever connection is idle."""
        there.close()
        with client, suppress(OSError, struct.error):
            client.recv(1 << 16)
            client.sendall(self.greeting)
            while (said := client.recv(1 << 16)) and said[:1] != b"X":
                lent = self.idle.get(timeout=30)
                self.used.append(lent.fileno())
                lent.sendall(said)
                while True:
                    if client in select.select([client, lent], [], [])[0]:
                        lent.sendall(client.recv(1 << 16))
                        continue
                    said = self.message(lent)
                    if (said[:1], said[-1:]) == (b"Z", b"I"):
                        break
                    client.sendall(said)
                discard = b"DISCARD ALL\0"
                lent.sendall(b"Q" + struct.pack("!i", 4 + len(discard)) + discard)
                self.answer(lent)
                self.idle.put(lent)
                client.sendall(said)

    def close(self) -> None:
        """Leave nothing behind."""
        super().close()
        while not self.idle.empty():
            self.idle.get().close()


async def test_a_pooler_may_stand_between(postgres, tmp_path_factory):
    """Each transaction by another server's session, all of which is discarded after it: nothing of ours is in a session."""
    pooler = Pooler(tmp_path_factory.mktemp("p"), postgres.server, postgres.name)
    handle = stores.open(postgres.url(host=pooler.folder))
    version = 0
    for n in range(10):
        version = handle.store().swap([Write("a", version, b"%d" % n)]).records["a"].version
        assert not handle.store().swap([Write("a", 0, SAME)]).applied
        version = (await handle.astore().read(["a"])).records["a"].version
    put(handle.store(), **{f"k{n}": b"" for n in range(600)})
    assert len(list(handle.store().scan(""))) == len(await handle.astore().scan("")) == 601
    assert len(set(pooler.used)) == 2
    await handle.aclose()
    pooler.close()


# Races.


def test_no_update_is_lost_among_processes(store, postgres, start):
    """Four processes of four threads each move one at a time between two records, often meeting: the sum stays, and
    exactly what was acknowledged was moved."""
    put(store, **{"from": b"1000", "to": b"0"})
    script = """
        import sys
        from concurrent.futures import ThreadPoolExecutor
        from linepicker.stores import SAME, Write
        from linepicker.stores.postgres import PostgresStore

        store = PostgresStore(sys.argv[1])

        def move(thread):
            done = 0
            held = dict(store.read(["from", "to", "epoch"]).records)
            while done < 15:
                new = {"from": int(held["from"].value) - 1, "to": int(held["to"].value) + 1}
                writes = [Write(key, held[key].version, b"%d" % new[key]) for key in new]
                writes.append(Write("epoch", held["epoch"].version, SAME))
                if thread % 2:
                    writes.reverse()
                answer = store.swap(writes)
                done += answer.applied
                held |= answer.records
                if answer.applied:
                    held |= {key: each._replace(value=b"%d" % new[key])
                        for key, each in answer.records.items() if key in new}

        sys.stdin.readline()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(move, range(4)))
        store.close()
        """
    running = [start(script, postgres.url()) for _ in range(4)]
    for process in running:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in running:
        _, said = process.communicate(timeout=100)
        assert (process.returncode, said) == (0, "")
    found = store.read(["from", "to"]).records
    assert [found[key].value for key in ("from", "to")] == [b"760", b"240"]


SLOW = """
    CREATE OR REPLACE FUNCTION linepicker.slow() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM pg_sleep({seconds}); RETURN NEW; END $$;
    CREATE TRIGGER slow BEFORE INSERT ON linepicker.record FOR EACH ROW EXECUTE FUNCTION linepicker.slow();
"""


@pytest.mark.parametrize("filler", [0, 200], ids=["locked by key", "locked by namespace"])
def test_of_two_swaps_that_demand_what_the_other_makes_one_is_refused(store, postgres, filler):
    """A demand that a record be absent binds until the swap is done, against a record that comes meanwhile too: here with
    a long while between look and write."""
    more = [Write(f"filler:{n}", 0, SAME) for n in range(filler)]
    meet = threading.Barrier(2)
    store.read([])
    postgres.sql(SLOW.format(seconds=0.02))

    def create(mine: str, other: str) -> bool:
        meet.wait(30)
        return store.swap([Write(other, 0, SAME), Write(mine, 0, b""), *more]).applied

    with ThreadPoolExecutor(2) as pool:
        for n in range(10):
            a = pool.submit(create, f"a{n}", f"b{n}")
            b = pool.submit(create, f"b{n}", f"a{n}")
            assert [a.result(), b.result()].count(True) == 1


def test_a_demand_holds_until_the_swap_is_done(store, postgres):
    """Whatever only checks a record is applied before its change or refused after it: none passes on an old look."""
    switch = put(store, switch=b"on")["switch"]
    postgres.sql(SLOW.format(seconds=0.005))
    off = threading.Event()

    def use(thread: int) -> int:
        for n in itertools.count():
            was_off = off.is_set()
            answer = store.swap([Write("switch", switch, SAME), Write(f"use:{thread}:{n}", 0, b"")])
            assert not (answer.applied and was_off)
            if not answer.applied:
                return n
        raise AssertionError

    with ThreadPoolExecutor(4) as pool:
        users = [pool.submit(use, thread) for thread in range(4)]
        while ABSENT in store.read([f"use:{n}:9" for n in range(4)]).records.values():
            pass
        after = store.swap([Write("switch", switch, b"off")]).records["switch"].version
        off.set()
        used = sum(each.result() for each in users)
    records = dict(store.scan("use:"))
    assert len(records) == used
    assert all(record.version < after for record in records.values())


def test_swaps_of_thousands_of_keys_and_of_one_wait_for_each_other(open_store):
    """More keys than are locked one by one lock their namespace: no update is lost between large swaps and small ones."""
    store = open_store(timeout=60)
    keys = [f"k{n}" for n in range(400)]
    put(store, **dict.fromkeys(keys, b"0"))

    def add(some: list[str]) -> None:
        held = dict(store.read(some).records)
        done = 0
        while done < 10:
            values = {key: b"%d" % (int(held[key].value) + 1) for key in some}
            answer = store.swap([Write(key, held[key].version, values[key]) for key in some])
            held |= answer.records
            if answer.applied:
                done += 1
                held |= {key: Record(held[key].version, values[key]) for key in some}

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, [keys, keys[::-1], keys[:1], keys[:2]]))
    found = store.read(keys).records
    assert [found[key].value for key in keys] == [b"40", b"30", *[b"20"] * 398]


def test_many_may_come_first(postgres, start):
    """Of processes that all find an empty database, one makes the tables and none fails."""
    script = """
        import sys
        from linepicker.stores import Write
        from linepicker.stores.postgres import PostgresStore

        sys.stdin.readline()
        store = PostgresStore(sys.argv[1])
        print(store.swap([Write(sys.argv[2], 0, b"")]).applied)
        store.close()
        """
    running = [start(script, postgres.url(), n) for n in range(5)]
    for process in running:
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.communicate(timeout=60)[:2] for process in running] == [("True\n", "")] * 5
    assert postgres.sql("SELECT count(*) FROM linepicker.store") == [(1,)]


@pytest.mark.parametrize("state", ["40001", "40P01"])
def test_what_the_server_undid_for_others_sake_is_made_again(store, postgres, state):
    """A serialization failure or a deadlock, which others may cause, applied nothing: the swap is made three times, and then
    refused as not applied."""
    store.read([])
    postgres.sql(
        f"""
        CREATE SEQUENCE linepicker.attempt;
        CREATE FUNCTION linepicker.fail() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF nextval('linepicker.attempt') < 3 OR NEW.key = 'b' THEN
                RAISE EXCEPTION 'undone' USING ERRCODE = '{state}';
            END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER fail BEFORE INSERT ON linepicker.record FOR EACH ROW EXECUTE FUNCTION linepicker.fail();
        """
    )
    assert store.swap([Write("a", 0, b"1")]).applied
    with pytest.raises(StoreError) as caught:
        store.swap([Write("b", 0, b"1")])
    assert not caught.value.unknown
    assert postgres.sql("SELECT last_value FROM linepicker.attempt") == [(6,)]
    assert [key for key, _ in store.scan("")] == ["a"]


# Servers that go and come.


def test_a_restart_between_two_calls_is_not_noticed(open_store, postgres):
    """A connection that the server has closed meanwhile is found before anything is sent by it: neither door fails."""
    store = open_store()
    versions = put(store, a=b"1")
    with ThreadPoolExecutor(4) as pool:  # some connections
        list(pool.map(lambda _: store.read(["a"]), range(40)))
    for how in (signal.SIGINT, signal.SIGKILL):
        postgres.server.stop(how)
        postgres.server.start()
        answer = store.swap([Write("a", versions["a"], b"2")])
        assert answer.applied
        versions = {"a": answer.records["a"].version}


def test_nothing_acknowledged_is_lost_when_the_server_is_killed(open_store, postgres):
    """Writers go on through three crashes or more, until one of them leaves a write unknown: each failure is a StoreError, what
    was answered is there, and what was unknown is there whole or not at all."""
    store = open_store(timeout=20)
    store.read([])
    stop = threading.Event()
    known: dict[str, bool | None] = {}

    def write(thread: int) -> None:
        for n in itertools.count():
            if stop.is_set():
                return
            name = f"{thread}:{n}"
            try:
                known[name] = store.swap(
                    [Write(f"a:{name}", 0, b""), Write(f"b:{name}", 0, b"")]
                ).applied
            except StoreError as error:
                known[name] = None if error.unknown else False

    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(write, thread) for thread in range(4)]
        crashes = 0
        while crashes < 3 or (crashes < 30 and None not in list(known.values())):
            before, crashes = len(known), crashes + 1
            while len(known) < before + 40:
                for writer in writers:
                    assert not writer.done() or writer.result()
            postgres.server.kill()
            postgres.server.start()
        stop.set()
        for writer in writers:
            writer.result()
    there = {key for key, _ in store.scan("")}
    for name, applied in known.items():
        found = {f"a:{name}" in there, f"b:{name}" in there}
        assert len(found) == 1
        assert applied is None or found == {applied}
    assert None in known.values()


async def test_a_server_that_is_gone_is_named_until_it_comes_back(postgres):
    """Both doors say that it can't be reached, in about `timeout`, and work again afterwards, without a restart."""
    handle = stores.open(postgres.url(timeout=0.3))
    put(handle.store(), a=b"1")
    await handle.astore().read(["a"])
    postgres.server.stop()
    try:
        for _ in range(2):
            with pytest.raises(
                StoreError, match="can't be reached: is it running.*database right"
            ) as caught:
                handle.store().swap([Write("b", 0, b"2")])
            assert not caught.value.unknown
            with pytest.raises(StoreError, match="can't be reached"):
                await handle.astore().read(["a"])
        fresh = stores.open(postgres.url(timeout=0.3))
        with pytest.raises(StoreError, match="can't be reached"):
            await fresh.astore().read(["a"])
        await fresh.aclose()
    finally:
        postgres.server.start()
    assert handle.store().read(["a"]).records["a"].value == b"1"
    assert (await handle.astore().read(["a"])).records["a"].value == b"1"
    await handle.aclose()


def test_a_standby_is_not_read_from(open_store, postgres):
    """What a standby has may be old: reads too are a StoreError there, and go on once it is promoted."""
    running, late = open_store(), open_store()
    put(running, a=b"1")
    postgres.server.stop()
    signal_file = postgres.server.data / "standby.signal"
    signal_file.touch()
    postgres.server.start()
    try:
        for store in (running, late):
            for call in (
                lambda store=store: store.read(["a"]),
                lambda store=store: list(store.scan("")),
                lambda store=store: store.swap([Write("b", 0, b"2")]),
            ):
                with pytest.raises(StoreError, match="read only: name the primary") as caught:
                    call()
                assert not caught.value.unknown
    finally:
        postgres.server.sql("SELECT pg_promote()")
    for store in (running, late):
        assert store.read(["a"]).records["a"].value == b"1"
    put(running, b=b"2")


def test_a_failover_that_forgets_is_noticed(postgres_server):
    """The URL names both servers. Whoever had later writes acknowledged than the standby got is told; others go on, on what
    is there."""
    servers = [type(postgres_server)()]
    try:
        primary = servers[0]
        primary.start()
        url = f"{primary.url()},{{}}&target_session_attrs=read-write&timeout=20"
        with closing(PostgresStore(primary.url())) as first:
            put(first, a=b"1")
        standby = type(postgres_server)(primary)
        servers.append(standby)
        url = url.format(standby.folder)
        busy, quiet = PostgresStore(url), PostgresStore(url)
        version = quiet.read(["a"]).records["a"].version
        for n in range(100):
            put(busy, **{f"lost{n}": b""})
        primary.kill()
        standby.start()
        standby.sql("SELECT pg_promote()")
        with pytest.raises(StoreError, match="restored from a backup"):
            busy.swap([Write("b", 0, b"2")])
        assert quiet.swap([Write("a", version, b"2")]).applied
        assert [key for key, _ in quiet.scan("")] == ["a"]
        busy.close()
        quiet.close()
    finally:
        for server in servers:
            if server.process is not None and server.process.poll() is None:
                server.kill()
            shutil.rmtree(server.folder)


# What is said at the start.


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("SET default_transaction_read_only = on", "read only: name the primary"),
        ("SET default_transaction_isolation = 'serializable'", "READ COMMITTED"),
        ("CONNECTION LIMIT 0", "can't be reached.*too many connections"),
        ("ALLOW_CONNECTIONS false", "can't be reached.*not currently accepting"),
    ],
)
def test_a_database_that_will_not_do_is_named_at_once(new_postgres, change, says):
    """The first swap says what is wrong with it, and what to do."""
    new_postgres.server.sql(f"CREATE ROLE r{new_postgres.name} LOGIN")
    new_postgres.server.sql(f"ALTER DATABASE {new_postgres.name} {change}")
    new_postgres.server.sql(f"ALTER DATABASE {new_postgres.name} OWNER TO r{new_postgres.name}")
    url = new_postgres.url().replace("postgres@", f"r{new_postgres.name}@")
    with (
        closing(PostgresStore(url)) as store,
        pytest.raises(StoreError, match=says) as caught,
    ):
        store.swap([Write("a", 0, b"1")])
    assert not caught.value.unknown


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql://postgres@/nosuchdatabase", "can't be reached.*does not exist"),
        ("postgresql://nosuchrole@/postgres", "can't be reached.*does not exist"),
        ("postgresql://me:s3cret@127.0.0.1:1/x", "can't be reached"),
        ("postgresql://me:s3cret@nosuchhost.invalid/x", "can't be reached"),
    ],
)
def test_what_is_not_there_is_named_without_a_password(postgres_server, url, says):
    """Neither the message, nor what it came from, nor the store's repr holds the password."""
    host = "" if "s3cret" in url else f"?host={postgres_server.folder}"
    handle = stores.open(url + host)
    with pytest.raises(StoreError, match=says) as caught:
        handle.store().read([])
    chain = [caught.value, caught.value.__cause__, caught.value.__context__, handle, handle.store()]
    assert "s3cret" not in " ".join(map(repr, chain)) + " ".join(map(str, chain))
    handle.close()


def test_a_database_in_another_encoding_is_refused(new_postgres):
    """Keys are any text, so the database must be in UTF-8."""
    options = "TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'"
    new_postgres.server.sql(f"CREATE DATABASE latin{new_postgres.name} {options}")
    url = new_postgres.server.url(f"latin{new_postgres.name}")
    with (
        closing(PostgresStore(url)) as store,
        pytest.raises(StoreError, match="LATIN1; create it with ENCODING 'UTF8'"),
    ):
        store.read([])


def test_a_newer_schema_asks_for_an_upgrade(open_store, store, postgres):
    """An older linepicker leaves alone what a newer one wrote."""
    store.migrate()
    postgres.sql("UPDATE linepicker.store SET version = 9")
    with pytest.raises(StoreError, match=r"newer linepicker \(schema 9.*upgrade linepicker"):
        open_store().read([])


@pytest.mark.parametrize(("setting", "said"), [("off", 1), ("on", 0), ("local", 0)])
def test_a_server_that_may_forget_is_said_once(open_store, caplog, setting, said):
    """synchronous_commit=off is a warning in the log, once a store."""
    store = open_store(options=f"-c synchronous_commit={setting}")
    with caplog.at_level(logging.WARNING, "linepicker"):
        for _ in range(3):
            store.read([])
    warnings = [each for each in caplog.messages if "synchronous_commit = off" in each]
    assert len(warnings) == said


def test_a_role_with_no_more_than_it_needs_is_enough(store, postgres):
    """Who migrates may be another role than those who then read and write."""
    role = "plain"
    postgres.sql("DROP ROLE IF EXISTS plain")
    postgres.sql("CREATE ROLE plain LOGIN")
    url = postgres.url().replace("postgres@", f"{role}@")
    with closing(PostgresStore(url)) as plain:
        with pytest.raises(StoreError, match="grant this role CREATE"):
            plain.read([])
        store.migrate()
        with pytest.raises(StoreError, match="grant this role"):
            plain.read([])
        postgres.sql(f"GRANT USAGE ON SCHEMA linepicker TO {role}")
        tables = "ALL TABLES IN SCHEMA linepicker"
        postgres.sql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO {role}")
        postgres.sql(f"GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA linepicker TO {role}")
        versions = put(plain, a=b"1", b=b"1")
        assert plain.swap([Write("a", versions["a"], None), Write("c", 0, b"", 1.0)]).applied
        assert [key for key, _ in plain.scan("")] == ["b"]


def test_parameters_that_are_not_ours_reach_the_driver(open_store, postgres):
    """Any parameter of libpq's works, as it is written."""
    store = open_store(application_name="a b+c", options="-c work_mem=1234kB")
    store.read([])
    ((found,),) = postgres.sql(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'a b+c'"
    )
    assert found in {1, 2}  # the one that looked at the tables may be ending still
    connection = store.database.connect()
    assert connection.execute("SHOW work_mem").fetchone() == ("1234kB",)
    for name in ("transaction_timeout", "lock_timeout"):  # ours hold for a transaction
        assert connection.execute(f"SHOW {name}").fetchone() == ("0",)
    store.database.release(connection)


# What is lost under a running store.


LOSSES = {
    "DROP TABLE linepicker.record": "lost a table",
    "DROP TABLE linepicker.store": "lost a table",
    "DROP FUNCTION linepicker.enter": "lost a function",
    "DROP SEQUENCE linepicker.counter": "lost a table",
    "DROP SCHEMA linepicker CASCADE": "lost its schema",
    "TRUNCATE linepicker.store": "not the one",
    "UPDATE linepicker.store SET epoch = 7": "not the one",
    "SELECT setval('linepicker.counter', 2)": "restored from a backup",
}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_store_that_loses_what_it_had_says_so(store, postgres, loss):
    """Neither reads, nor lists, nor writes, and never takes it for empty; only a restart may begin with nothing."""
    put(store, a=b"1", b=b"2", c=b"3")
    postgres.sql(loss)
    for _ in range(2):
        for call in (
            lambda: store.read(["a"]),
            lambda: store.swap([Write("d", 0, b"4")]),
            lambda: list(store.scan("")),
        ):
            with pytest.raises(StoreError, match=LOSSES[loss]) as caught:
                call()
            assert not caught.value.unknown


def test_a_store_made_anew_by_another_process_is_not_taken_for_the_old_one(
    store, open_store, postgres
):
    """The epoch differs, so whoever had the old one is told, after a fork too, and puts no third one in its place."""
    put(store, a=b"1")
    postgres.sql("DROP SCHEMA linepicker CASCADE")
    put(open_store(), a=b"1", b=b"2")
    with pytest.raises(StoreError, match="not the one"):
        store.swap([Write("c", 0, b"3")])
    store.database.after_fork_in_child()
    with pytest.raises(StoreError, match="not the one"):
        store.read(["a"])
    postgres.sql("DROP SCHEMA linepicker CASCADE")
    store.database.after_fork_in_child()
    with pytest.raises(StoreError, match="not the one"):
        store.read(["a"])
    assert postgres.sql("SELECT nspname FROM pg_namespace WHERE nspname = 'linepicker'") == []


@pytest.mark.parametrize("loss", ["TRUNCATE linepicker.record", "DROP SCHEMA linepicker CASCADE"])
async def test_a_router_never_takes_everyone_for_new(postgres, loss):
    """Where its records are gone, a running router raises StoreError for known people and for new ones, by both doors."""
    with Router(LINES, store=postgres.url()) as router:
        async with AsyncRouter(LINES, store=postgres.url()) as arouter:
            router.reserve("+12125550100").settle("SENT")
            assert (await arouter.reserve("+12125550100")).kind == "known"
            postgres.sql(loss)
            for to in ("+12125550100", "+12125550101"):
                with pytest.raises(StoreError):
                    router.reserve(to)
                with pytest.raises(StoreError):
                    await arouter.reserve(to)
            if loss.startswith("TRUNCATE"):
                assert postgres.sql("SELECT count(*) FROM linepicker.record") == [(0,)]


# Waiting, and being full.


def test_a_lock_is_waited_for_and_then_named(open_store, postgres):
    """Reads go on meanwhile; a swap waits for `timeout`, is refused with what to do, and works when the lock is gone."""
    store = open_store(timeout=0.1)
    version = put(store, a=b"1")["a"]
    with psycopg.connect(postgres.url()) as other:
        other.execute("SELECT 1 FROM linepicker.record FOR UPDATE")
        assert store.read(["a"]).records["a"].value == b"1"
        with pytest.raises(StoreError, match=r"locked by another transaction.*timeout=") as caught:
            store.swap([Write("a", version, b"2")])
        assert not caught.value.unknown
    assert store.swap([Write("a", version, b"2")]).applied


def test_a_swap_that_takes_too_long_is_ended(open_store, postgres):
    """Twice `timeout` is all that a transaction has, whatever it is doing; the server ends the connection with it."""
    store = open_store(timeout=0.1)
    put(store, a=b"1")
    postgres.sql(SLOW.format(seconds=60))
    with pytest.raises(StoreError, match="took too long"):
        store.swap([Write("b", 0, b"2")])
    assert store.read(["a", "b"]).records["b"] == ABSENT


async def test_a_server_that_stands_still_is_given_up(postgres):
    """Connected, but silent: after three times `timeout` it is a StoreError, unknown for a swap, by either door."""
    handle = stores.open(postgres.url(timeout=0.1, max_size=1))
    store, astore = handle.store(), handle.astore()
    put(store, a=b"1")
    await astore.read([])
    connection = store.database.connect()
    pids = [connection.info.backend_pid]
    store.database.release(connection)
    aconnection = await store.database.aconnect()
    pids.append(aconnection.info.backend_pid)
    await store.database.arelease(aconnection)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(StoreError, match="no answer for 0.3 s") as caught:
            store.swap([Write("b", 0, b"2")])
        assert caught.value.unknown
        with pytest.raises(StoreError, match="no answer for 0.3 s") as caught:
            await astore.swap([Write("b", 0, b"2")])
        assert caught.value.unknown
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    assert store.read(["a"]).records["a"].value == b"1"
    assert (await astore.read(["a"])).records["a"].value == b"1"
    await handle.aclose()


async def test_who_finds_no_free_connection_is_told(postgres):
    """A thread or task waits `timeout` for others, then is told which parameter to raise."""
    handle = stores.open(postgres.url(timeout=0.1, max_size=1))
    database = handle.store().database
    connection = database.connect()
    with pytest.raises(StoreError, match="all of this process's 1 connections were busy.*max_size"):
        handle.store().read([])
    database.release(connection)
    handle.store().read([])
    aconnection = await database.aconnect()
    with pytest.raises(StoreError, match="1 connections were busy"):
        await handle.astore().read([])
    await database.arelease(aconnection)
    await handle.astore().read([])
    await handle.aclose()


def test_what_postgresql_can_not_hold_is_refused(store):
    """A NUL or half a surrogate pair in a key, or a key longer than an index takes, is a StoreError, and not unknown."""
    for key in ("a\0b", "\ud800", random.Random(0).randbytes(9000).hex()):
        for call in (lambda key=key: store.swap([Write(key, 0, b"")]),):
            with pytest.raises(StoreError) as caught:
                call()
            assert not caught.value.unknown
    put(store, a=b"1")


def test_expired_records_leave_the_table_bit_by_bit(open_store, postgres):
    """Each swap of records that expire takes out twice as many that have, from any namespace, and no more."""
    left = "SELECT count(*) FROM linepicker.record WHERE key LIKE 'old:%'"
    with closing(PostgresStore(postgres.url(), namespace="other", time=lambda: 0.0)) as other:
        other.swap([Write(f"old:{n}", 0, b"", 10.0) for n in range(50)])
    store = open_store()
    put(store, stays=b"")
    assert postgres.sql(left) == [(50,)]
    for n in range(10):
        store.swap([Write(f"new:{n}", 0, b"", 5e9), Write(f"more:{n}", 0, b"", 5e9)])
        assert postgres.sql(left) == [(50 - 4 * (n + 1),)]


def test_a_record_written_over_and_over_takes_no_more_room(store, postgres):
    """Its old versions are taken out as new ones come, without a vacuum, and no index grows."""
    held = put(store, line=b"x" * 200)
    for _ in range(500):
        written = store.swap([Write("line", held["line"], b"x" * 200)]).records
        held = {"line": written["line"].version}
    size = "SELECT pg_table_size('linepicker.record') + pg_indexes_size('linepicker.record')"
    assert postgres.sql(size)[0][0] <= 128 * 1024


def test_a_version_of_another_store_is_none_of_this_one(store):
    """Neither of a record that is there, nor of one that is absent."""
    version = put(store, a=b"1")["a"]
    foreign = version + (1 << COUNTER_BITS)
    answer = store.swap([Write("a", foreign, b"2"), Write("b", foreign, SAME)], seen={"c": foreign})
    assert not answer.applied
    assert answer.records == {"a": Record(version, b"1"), "b": ABSENT, "c": ABSENT}


def test_a_scan_skips_nothing_where_its_pages_meet(store):
    """Also where the next key is the last one and a little more."""
    keys = {"!"} | {f"k:{n:04}{end}" for n in range(600) for end in ("", "\1")}
    put(store, **dict.fromkeys(keys, b""))
    assert [key for key, _ in store.scan("")] == sorted(keys)
    assert [key for key, _ in store.scan("k:")] == sorted(keys - {"!"})


@pytest.mark.parametrize(
    ("prefix", "upper"),
    [
        ("to/", "to0"),
        ("a\ud7ff", "a\ue000"),
        ("a\ud7fe", "a\ud7ff"),
        ("a\uffff", "a\U00010000"),
        ("ab\U0010ffff\U0010ffff", "ac"),
        ("\U0010ffff", ""),
        ("", ""),
    ],
)
def test_a_scan_ends_before_the_first_key_that_has_not_the_prefix(prefix, upper):
    """No character follows the last one, and what would lie among the surrogates is the first one behind them."""
    store = PostgresStore("postgresql://host/name")
    _, parameters = store.words.scan(prefix, "from")
    assert parameters[-4:-1] == ("from", "lp" if upper else "lp\1", upper)
    store.close()


def test_a_call_is_made_again_where_it_can_not_count_twice():
    """A read that was lost once; anything that the server undid, twice."""
    undone, lost = psycopg.errors.SerializationFailure(), psycopg.OperationalError()
    again = {
        (attempt, writing): (
            may_repeat(undone, attempt, lost=False, writing=writing),
            may_repeat(lost, attempt, lost=True, writing=writing),
            may_repeat(lost, attempt, lost=False, writing=writing),
        )
        for attempt in (1, 2, 3)
        for writing in (False, True)
    }
    assert again == {
        (1, False): (True, True, False),
        (1, True): (True, False, False),
        (2, False): (True, False, False),
        (2, True): (True, False, False),
        (3, False): (False, False, False),
        (3, True): (False, False, False),
    }


def test_namespaces_share_a_table_and_nothing_else(open_store):
    """Two namespaces see no records of each other, however alike their names, and never the same version."""
    names = ["lp", "lp-", "lp.2", "l", "LP"]
    made = {name: open_store(namespace=name) for name in names}
    versions = [put(each, a=name.encode())["a"] for name, each in made.items()]
    assert versions == sorted(set(versions))
    assert len({version >> COUNTER_BITS for version in versions}) == 1
    for name, each in made.items():
        assert [(key, record.value) for key, record in each.scan("")] == [("a", name.encode())]


# Forks, loops and tasks.


def test_a_fork_takes_no_connection_along(postgres, start):
    """Parent and child each go on by their own, also where a thread of the parent was at work, and end without a word."""
    process = start(
        """
        import os, sys, threading
        from linepicker.stores import Write
        from linepicker.stores.postgres import PostgresStore

        store = PostgresStore(sys.argv[1])
        version = store.swap([Write("a", 0, b"0")]).records["a"].version
        stop = threading.Event()

        def busy():
            while not stop.is_set():
                store.read(["a"])

        thread = threading.Thread(target=busy)
        thread.start()
        for n in range(5):
            if (child := os.fork()) == 0:
                version = store.swap([Write("a", version, b"%d" % n)]).records["a"].version
                os._exit(0 if store.read(["a"]).records["a"].version == version else 1)
            assert os.waitpid(child, 0)[1] == 0
            version = store.read(["a"]).records["a"].version
        if (child := os.fork()) == 0:
            store.close()
            sys.exit()
        assert os.waitpid(child, 0)[1] == 0
        stop.set()
        thread.join()
        print(store.read(["a"]).records["a"].value)
        store.close()
        """,
        postgres.url(),
    )
    printed, said = process.communicate(timeout=60)
    assert (printed, said) == ("b'4'\n", "")


async def test_a_cancelled_task_leaves_the_store_in_order(postgres):
    """Wherever it is stopped, the next calls work, and its swap is there whole or not at all."""
    handle = stores.open(postgres.url(max_size=1))
    store = handle.astore()
    await store.read([])
    for n in range(30):
        swap = store.swap([Write(f"a{n}", 0, b""), Write(f"b{n}", 0, b"")])
        task = asyncio.create_task(swap)
        for _ in range(n):
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        found = (await store.read([f"a{n}", f"b{n}"])).records
        assert len({record.value for record in found.values()}) == 1
    await handle.aclose()


def test_closing_from_outside_ends_what_a_stopped_loop_has_open(postgres, start):
    """A handle that coroutines used is closed by either door, and nobody complains of what is left over."""
    process = start(
        """
        import asyncio, sys
        from linepicker import stores

        handle = stores.open(sys.argv[1])
        loop = asyncio.new_event_loop()
        loop.run_until_complete(handle.astore().read([]))
        handle.close()
        loop.close()
        asyncio.run(stores.open(sys.argv[1]).astore().read([]))
        unclosed = stores.open(sys.argv[1])
        unclosed.store().read([])
        """,
        postgres.url(),
    )
    printed, said = process.communicate(timeout=60)
    assert (process.returncode, printed, said) == (0, "", "")


# Routers.


def test_routers_of_many_processes_spend_one_budget(postgres, start):
    """Three processes that each try the same people on two lines of ten a day open twenty conversations in all."""
    script = """
        import logging
        import sys
        from linepicker import Line, NoLine, Policy, Router

        logging.getLogger("linepicker").setLevel("ERROR")  # refusals are warned of
        policy = Policy.from_dict({
            "limits": {"new_per_day": 10, "new_per_hour": "off"},
            "pace": {"new_gap": 0.0, "message_gap": 0.0},
            "learn": {"enabled": False},
        })
        sys.stdin.readline()
        with Router([Line("+12025550100"), Line("+12025550101")], policy=policy, store=sys.argv[1]) as router:
            for n in range(40):
                try:
                    made = router.reserve(f"+1212555{n:04d}")
                except NoLine as refusal:
                    assert refusal.retry_at
                else:
                    print(made.to, made.number, made.kind)
        """
    running = [start(script, postgres.url()) for _ in range(3)]
    for process in running:
        process.stdin.write("go\n")
        process.stdin.flush()
    lines = []
    for process in running:
        printed, said = process.communicate(timeout=100)
        assert (process.returncode, said) == (0, "")
        lines += [line.split() for line in printed.splitlines()]
    assert sum(kind == "new" for *_, kind in lines) == 20
    assert len({to for to, *_ in lines}) == len({(to, number) for to, number, _ in lines}) == 20


async def test_both_routers_share_one_store(postgres):
    """What one door learned the other knows, each line's budget is one, and a key is one reservation."""
    with Router(LINES, policy=BUSY, store=postgres.url()) as router:
        async with AsyncRouter(LINES, policy=BUSY, store=postgres.url()) as arouter:
            first = router.reserve("+12125550100", key="k")
            again = await arouter.reserve("+12125550100", key="k")
            assert (again.id, again.number) == (first.id, first.number)
            await again.settle("SENT")
            router.pause(first.number, reason="a look")
            other = await arouter.reserve("+12125550101")
            assert other.number != first.number
            assert (await arouter.assignment("+12125550100")).number == first.number
            await arouter.pause(other.number)
            with pytest.raises(NoLine):
                router.reserve("+12125550102")
