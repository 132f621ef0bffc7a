"""What Redis and Valkey alone do: round trips, lost answers, wiped and restarted servers, replicas, Sentinel, clusters, TLS."""

import asyncio
import logging
import os
import re
import select
import signal
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count

import pytest
import trustme

from linepicker import AsyncRouter, Line, Router, stores
from linepicker.errors import StoreError
from linepicker.stores import ABSENT, COUNTER_BITS, SAME, Record, Write
from linepicker.stores.redis import RedisStore
from linepicker.testing import check_async_store, check_store

NAMES = count()
A, B = "+12025550100", "+12025550101"
ANN, BOB = "+14155550101", "+14155550102"
TICKS = 62_500
"""Of a counter, a second."""


@pytest.fixture(params=["redis6", "valkey"])
def either(request):
    """A running server of either kind."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def server(redis_server):
    """A Valkey of the test's own, to stop and to kill."""
    return redis_server().start()


@pytest.fixture
def opened():
    """Opens a store at a URL; all are closed at the end."""
    handles = []

    def open_at(url: str):
        handles.append(stores.open(url))
        return handles[-1].store()

    open_at.handles = handles
    yield open_at
    for handle in handles:
        handle.close()


@pytest.fixture
def name():
    """A namespace that is new."""
    return f"redis-{next(NAMES)}"


def put(store, **values: bytes) -> dict[str, int]:
    """New records; their versions."""
    answer = store.swap([Write(key, 0, value) for key, value in values.items()])
    assert answer.applied
    return {key: record.version for key, record in answer.records.items()}


class Proxy:
    """Stands between clients and a server, on a socket or port of its own, and counts round trips.

    `.trips`: how often a client spoke after it was silent. `.swallow`: of how many requests from now on the answers are read
    from the server, and not given to the client, whose connection ends. `.secure`: TLS towards the client.
    """

    def __init__(self, server, secure: ssl.SSLContext | None = None) -> None:
        self.trips = 0
        self.swallow = 0
        self.connections = 0
        self.server = server
        self.secure = secure
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        self.thread = threading.Thread(target=self.accept, daemon=True)
        self.thread.start()

    def accept(self) -> None:
        """Serve each connection on a thread of its own."""
        with suppress(OSError):
            while True:
                client, _ = self.listening.accept()
                self.connections += 1
                threading.Thread(target=self.serve, args=[client], daemon=True).start()

    def serve(self, plain: socket.socket) -> None:
        """Carry bytes both ways until one side ends."""
        with plain, socket.socket(socket.AF_UNIX) as upstream, suppress(OSError):
            upstream.connect(str(self.server.socket))
            if self.secure is None:
                self.carry(plain, upstream, lambda: 0)
            else:
                with self.secure.wrap_socket(plain, server_side=True) as client:
                    self.carry(client, upstream, client.pending)

    def carry(self, client: socket.socket, upstream: socket.socket, pending) -> None:
        """The same, between two that are connected."""
        speaking = False
        while True:
            waiting = [client] if pending() else select.select([client, upstream], [], [])[0]
            for one in waiting:
                data = one.recv(1 << 16)
                if not data:
                    return
                if one is client:
                    self.trips += not speaking
                    speaking = True
                    upstream.sendall(data)
                elif self.swallow:
                    self.swallow -= 1
                    return
                else:
                    speaking = False
                    client.sendall(data)

    def close(self) -> None:
        """Take no more."""
        self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()
        self.thread.join()


@pytest.fixture
def proxy(either):
    """A proxy to a running server."""
    made = Proxy(either)
    yield made
    made.close()


# Round trips.


def test_a_read_and_a_swap_are_one_round_trip_each(proxy, opened, name):
    """Counted at the socket: whatever is read, written, refused or seen, there and back is once."""
    store = opened(f"redis://127.0.0.1:{proxy.port}?namespace={name}")
    versions = put(store, **{f"k{n}": b"1" for n in range(100)})
    other = opened(f"redis://127.0.0.1:{proxy.port}?namespace={name}")
    other.read([])
    moved = store.swap([Write("k1", versions["k1"], b"2")]).records["k1"].version
    calls = [
        lambda: store.read(["k0", "nobody"]),
        lambda: store.read(versions),
        lambda: store.swap([Write("k0", versions["k0"], b"2"), Write("k2", versions["k2"], SAME)]),
        lambda: store.swap([Write("new", 0, b"1", 4e9)], seen=versions),
        lambda: other.swap([Write("k2", 0, b"2")], seen=versions),
    ]
    trips = []
    for call in calls:
        before = proxy.trips
        answer = call()
        trips.append(proxy.trips - before)
    assert trips == [1] * len(calls)
    assert not answer.applied
    assert set(answer.records) == {"k0", "k1", "k2"}
    assert answer.records["k1"] == Record(moved, b"2")


async def test_a_coroutines_read_and_swap_are_one_round_trip_each(proxy, name):
    """The same for coroutines."""
    handle = stores.open(f"redis://127.0.0.1:{proxy.port}?namespace={name}")
    store = handle.astore()
    version = (await store.swap([Write("a", 0, b"1")])).records["a"].version
    before = proxy.trips
    await store.read(["a", "b"])
    assert proxy.trips == before + 1
    assert (await store.swap([Write("a", version, b"2")], seen={"b": 0})).applied
    assert proxy.trips == before + 2
    assert not (await store.swap([Write("a", version, b"3")], seen={"b": 1})).applied
    assert proxy.trips == before + 3
    await handle.aclose()


def test_a_reserve_is_one_round_trip(proxy, name):
    """A router alone on its store reserves for new and for known recipients in one swap each."""
    with Router(
        [Line(A), Line(B)], store=f"redis://127.0.0.1:{proxy.port}?namespace={name}"
    ) as router:
        router.reserve(ANN)
        before = proxy.trips
        router.reserve(BOB)
        assert proxy.trips == before + 1


def test_a_script_that_the_server_forgot_is_sent_again(either, opened, name):
    """After SCRIPT FLUSH, or on a new server, a swap and a scan take one more round trip and succeed."""
    store = opened(either.url(namespace=name))
    for n in range(3):
        put(store, **{f"k{n}": b"1"})
        either.call("SCRIPT", "FLUSH")
        assert len(list(store.scan(""))) == n + 1
        either.call("SCRIPT", "FLUSH")


def test_the_answers_time_is_the_servers(either, opened, name):
    """`now` is the server's clock, in answers to reads, swaps and refusals."""
    store = opened(either.url(namespace=name))
    before = time.time()
    answers = [
        store.read([]),
        store.swap([Write("a", 0, b"")]),
        store.swap([Write("a", 0, b"")]),
    ]
    seconds, micros = either.call("TIME")
    after = seconds + micros / 1e6
    assert before <= answers[0].now <= answers[1].now <= answers[2].now <= after


# Versions, and which store it is.


def test_the_first_writer_makes_the_epoch(either, opened, name):
    """Of eight processes' stores that write first at once, all get versions of one epoch, and all different; a store that is
    only read has none."""
    racers = [opened(either.url(namespace=name)) for _ in range(8)]
    assert racers[0].read(["a"]).records == {"a": ABSENT}
    assert either.call("KEYS", f"{{{name}}}*") == []
    with ThreadPoolExecutor(8) as pool:
        made = pool.map(lambda n: put(racers[n], **{f"k{n}": b""})[f"k{n}"], range(8))
        versions = set(made)
    assert len(versions) == 8
    assert len({version >> COUNTER_BITS for version in versions}) == 1


def test_versions_are_not_lost_in_luas_numbers(either, opened, name):
    """A counter near the end of its 48 bits, larger than any clock's, counts on by one."""
    store = opened(either.url(namespace=name))
    first = put(store, a=b"")["a"]
    late = (1 << COUNTER_BITS) - 1000
    epoch = (first >> COUNTER_BITS).to_bytes(8, "big")
    either.call("SET", f"{{{name}}}", epoch + late.to_bytes(6, "big"))
    versions = put(store, b=b"", c=b"")
    low = (1 << COUNTER_BITS) - 1
    assert [versions[key] & low for key in "bc"] == [late + 1, late + 2]
    assert store.read(["c"]).records["c"].version == versions["c"]
    assert store.swap([Write("c", versions["c"], b"2"), Write("b", versions["b"], SAME)]).applied
    assert not store.swap([Write("c", versions["c"] - 1, b"3")]).applied


@pytest.mark.parametrize("verb", ["read", "swap", "scan"])
def test_a_wiped_store_is_noticed_and_left_empty(server, opened, verb):
    """After FLUSHALL no call of a store that was in use succeeds, and none writes."""
    store = opened(server.url())
    put(store, a=b"1")
    server.call("FLUSHALL")
    calls = {
        "read": lambda: store.read(["a"]),
        "swap": lambda: store.swap([Write("b", 0, b"2")]),
        "scan": lambda: list(store.scan("")),
    }
    for _ in range(2):
        with pytest.raises(StoreError, match=r"wiped; check it, then restart") as caught:
            calls[verb]()
        assert not caught.value.unknown
    assert server.call("DBSIZE") == 0
    put(opened(server.url()), b=b"2")
    with pytest.raises(StoreError, match="replaced"):
        calls[verb]()


def test_a_running_router_stops_when_its_store_is_wiped(server):
    """FLUSHALL under a router: nobody is taken for new."""
    with Router([Line(A), Line(B)], store=server.url()) as router:
        router.reserve(ANN)
        server.call("FLUSHALL")
        for to in (ANN, BOB):
            with pytest.raises(StoreError, match="wiped"):
                router.reserve(to)
        assert server.call("DBSIZE") == 0
    late = Router([Line(A), Line(B)], store=server.url(epoch="another"))
    with late, pytest.raises(StoreError, match="not the store that was asked for"):
        late.reserve(ANN)


async def test_a_running_async_router_stops_when_its_store_is_wiped(server):
    """The same for coroutines."""
    async with AsyncRouter([Line(A), Line(B)], store=server.url()) as router:
        await router.reserve(ANN)
        server.call("FLUSHALL")
        for to in (ANN, BOB):
            with pytest.raises(StoreError, match="wiped"):
                await router.reserve(to)


def test_an_answer_that_others_overtook_is_no_loss(either, opened, name):
    """What was read before the first write, or before the last, is handed out though another thread knows more by then."""
    store = opened(either.url(namespace=name))
    version = 0
    for value in (b"1", b"2"):
        reading = store.keyspace.read(["a"])
        replies = store.link.exchange(next(reading))
        later = store.swap([Write("a", version, value)]).records["a"].version
        with pytest.raises(StopIteration) as ended:
            reading.send(replies)
        assert ended.value.value.records["a"].version == version
        version = later
    assert store.read(["a"]).records["a"] == Record(version, b"2")


def test_an_own_key_that_was_evicted_is_missed(either, opened, name):
    """Records without their namespace's key are never read as a store's."""
    put(opened(either.url(namespace=name)), a=b"1")
    either.call("DEL", f"{{{name}}}")
    with pytest.raises(StoreError, match="evicted or deleted"):
        opened(either.url(namespace=name)).read(["a"])


def test_a_store_that_lost_its_last_seconds_goes_on_and_says_so(server, opened, caplog):
    """A crash that undoes what was not yet saved is a warning; no version that was lost comes again."""
    store = opened(server.url())
    versions = put(store, a=b"1")
    server.call("SAVE")
    lost = put(store, b=b"2")["b"]
    server.kill()
    server.start()
    assert store.read(["a", "b"]).records == {"a": Record(versions["a"], b"1"), "b": ABSENT}
    store.read(["a"])
    (warning,) = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert re.search(r"has lost what was written in its last 0\.\d s", warning.getMessage())
    assert put(store, b=b"3")["b"] > lost


def test_a_store_that_lost_more_was_restored_from_a_backup(either, opened, name):
    """One that is more than a minute behind what it was answers nothing and takes nothing."""
    store = opened(either.url(namespace=name))
    version = put(store, a=b"1")["a"]
    low = (version & (1 << COUNTER_BITS) - 1) - 61 * TICKS
    epoch = (version >> COUNTER_BITS).to_bytes(8, "big")
    either.call("SET", f"{{{name}}}", epoch + low.to_bytes(6, "big"))
    with pytest.raises(StoreError, match=r"last 61 s: it was restored from a backup"):
        store.read(["a"])
    with pytest.raises(StoreError, match="restored from a backup") as caught:
        store.swap([Write("b", 0, b"2")])
    assert not caught.value.unknown
    assert either.call("EXISTS", f"{{{name}}}:b") == 0


# Answers that never came.


def test_an_answer_that_is_lost_is_unknown_and_the_swap_is_made_once(proxy, opened, either, name):
    """A connection that ends after the swap was sent: `.unknown`; it is there once, and was not sent again."""
    store = opened(f"redis://127.0.0.1:{proxy.port}?namespace={name}")
    version = put(store, count=b"0")["count"]
    proxy.swallow, before = 1, proxy.trips
    with pytest.raises(StoreError, match="can't be reached") as caught:
        store.swap([Write("count", version, b"1")])
    assert caught.value.unknown
    assert proxy.trips == before + 1
    assert store.read(["count"]).records["count"].value == b"1"


async def test_an_answer_that_is_lost_to_a_coroutine_is_unknown(proxy, name):
    """The same for coroutines."""
    handle = stores.open(f"redis://127.0.0.1:{proxy.port}?namespace={name}")
    version = (await handle.astore().swap([Write("a", 0, b"0")])).records["a"].version
    proxy.swallow, before = 1, proxy.trips
    with pytest.raises(StoreError, match="can't be reached") as caught:
        await handle.astore().swap([Write("a", version, b"1")])
    assert caught.value.unknown
    assert proxy.trips == before + 1
    assert (await handle.astore().read(["a"])).records["a"].value == b"1"
    await handle.aclose()


def test_a_read_whose_answer_is_lost_is_made_again_once(proxy, opened, name):
    """Reading twice harms nobody; after two lost answers it is a StoreError, which is not unknown."""
    store = opened(f"redis://127.0.0.1:{proxy.port}?namespace={name}")
    put(store, a=b"1")
    proxy.swallow = 1
    assert store.read(["a"]).records["a"].value == b"1"
    put(store, b=b"1")
    assert proxy.connections == 2


def test_a_swap_that_could_not_be_sent_is_not_unknown(redis_server, opened):
    """Where nobody listens, nothing was written."""
    store = opened(redis_server().url())
    for call in (lambda: store.swap([Write("a", 0, b"1")]), lambda: store.read(["a"])):
        with pytest.raises(
            StoreError, match="can't be reached: start it, or check the URL"
        ) as caught:
            call()
        assert not caught.value.unknown


def test_a_server_that_hangs_is_given_up_in_time(server, opened):
    """A stopped process answers nobody: `socket_timeout` later a swap is unknown, a read is not; then it goes on."""
    store = opened(server.url(socket_timeout=0.2))
    put(store, a=b"1")
    server.process.send_signal(signal.SIGSTOP)
    with pytest.raises(StoreError, match="did not answer in time") as caught:
        store.swap([Write("b", 0, b"2")])
    assert caught.value.unknown
    began = time.monotonic()
    with pytest.raises(StoreError, match="did not answer in time") as caught:
        store.read(["a"])
    assert not caught.value.unknown
    assert time.monotonic() - began < 5.0
    server.process.send_signal(signal.SIGCONT)
    assert store.read(["a"]).records["a"].value == b"1"


def test_connections_are_bounded_and_waited_for(server, opened):
    """Who finds all connections busy waits for `socket_timeout`, then is told."""
    store = opened(server.url(socket_timeout=1.0, max_connections=1))
    store.read([])
    store.link._slots.get()  # as one who is at it
    with pytest.raises(StoreError, match=r"all 1 connections.*\?max_connections="):
        store.read(["a"])
    store.link._slots.put(None)
    store.read(["a"])
    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(lambda n: put(store, **{f"k{n}": b""}), range(100)))) == 100
    assert len(store.link._free) == 1


async def test_a_cancelled_swap_leaves_no_answer_to_the_next(server):
    """What is cancelled half-way gives up its connection: nobody gets another's reply."""
    handle = stores.open(server.url(max_connections=2))
    store = handle.astore()
    await store.swap([Write("a", 0, b"1")])
    for n in range(200):
        call = asyncio.ensure_future(store.swap([Write(f"k{n}", 0, b"%d" % n)]))
        for _ in range(n % 20):
            await asyncio.sleep(0)
        call.cancel()
        with suppress(asyncio.CancelledError):
            await call
        assert (await store.read(["a"])).records["a"].value == b"1"
    await handle.aclose()


# Servers that die and come back.


@pytest.mark.parametrize("name", ["redis6", "valkey"])
def test_what_was_acknowledged_survives_the_servers_death(redis_server, opened, name):
    """With `appendfsync always`: killed in the middle of eight threads' writing, each gets a StoreError; when it is back, all
    that was acknowledged is there, what was not unknown is not, and the store goes on by itself."""
    server = redis_server(name).start("--appendonly", "yes", "--appendfsync", "always")
    store = opened(server.url())
    acknowledged, unknown, failed = [], [], []
    begun = threading.Barrier(9)

    def write(writer: int) -> None:
        for n in range(100_000):
            key = f"{writer}:{n}"
            try:
                put(store, **{key: key.encode()})
            except StoreError as error:
                (unknown if error.unknown else failed).append(key)
                return
            acknowledged.append(key)
            if n == 20:
                begun.wait(30)

    with ThreadPoolExecutor(8) as pool:
        writing = [pool.submit(write, writer) for writer in range(8)]
        begun.wait(30)
        server.kill()
        for each in writing:
            each.result()
    assert len(unknown) + len(failed) == 8
    with pytest.raises(StoreError, match="can't be reached"):
        store.read(["0:0"])
    server.start("--appendonly", "yes", "--appendfsync", "always")
    there = {key for key, _ in store.scan("")}
    assert set(acknowledged) <= there <= {*acknowledged, *unknown}
    put(store, after=b"")


def test_a_restarted_server_costs_the_next_call_nothing(server, opened):
    """An idle connection that the server closed is noticed before anything is sent: a swap succeeds at once."""
    store = opened(server.url())
    put(store, a=b"1")
    server.call("SAVE")
    server.stop()
    server.start()
    put(store, b=b"2")


async def test_a_restarted_server_costs_the_next_coroutine_nothing(server):
    """The same for coroutines."""
    handle = stores.open(server.url())
    await handle.astore().swap([Write("a", 0, b"1")])
    server.call("SAVE")
    await asyncio.to_thread(server.stop)
    server.start()
    assert (await handle.astore().swap([Write("b", 0, b"2")])).applied
    await handle.aclose()


def test_a_scan_goes_on_over_a_restart(server, opened):
    """A cursor of the old server means nothing to the new one: the scan begins again, and yields each record once."""
    store = opened(server.url())
    keys = {f"k{n}" for n in range(5000)}
    put(store, **dict.fromkeys(keys, b"1"))
    server.call("SAVE")
    scan = store.scan("k")
    found = [next(scan)[0] for _ in range(1500)]
    server.stop()
    server.start()
    found += [key for key, _ in scan]
    assert sorted(found) == sorted(keys)


# Servers that won't do, or are unsafe.


def test_a_replica_is_refused(server, redis_server, opened):
    """A read-only replica is named as one, before a read could be stale."""
    primary = redis_server().start(port=True)
    server.call("REPLICAOF", "127.0.0.1", primary.port)
    store = opened(server.url())
    for call in (lambda: store.read(["a"]), lambda: store.swap([Write("a", 0, b"1")])):
        with pytest.raises(StoreError, match="read-only replica") as caught:
            call()
        assert not caught.value.unknown


@pytest.mark.parametrize("kind", ["redis6", "valkey"])
def test_a_primary_that_became_a_replica_takes_nothing_more(redis_server, opened, kind):
    """Connections that are open don't hide it: neither reads nor swaps are answered from then on, on either."""
    one, two = redis_server(kind).start(port=True), redis_server(kind).start(port=True)
    store = opened(one.url())
    version = put(store, a=b"1")["a"]
    one.call("REPLICAOF", "127.0.0.1", two.port)
    with pytest.raises(StoreError, match="read-only replica") as caught:
        store.swap([Write("a", version, b"2")])
    assert not caught.value.unknown
    with pytest.raises(StoreError, match="read-only replica"):
        store.read(["a"])


def test_an_unsafe_server_is_said_once(redis_server, opened, caplog):
    """An eviction policy is a warning, and a server that saves nothing a note, once for each store."""
    server = redis_server().start("--maxmemory-policy", "allkeys-lru")
    caplog.set_level(logging.INFO, "linepicker")
    store = opened(server.url())
    put(store, a=b"1")
    server.call("CLIENT", "KILL", "TYPE", "normal")
    store.read(["a"])
    asyncio.run(opened.handles[0].astore().read(["a"]))
    said = [(each.levelname, each.getMessage()) for each in caplog.records]
    assert len(said) == 2
    assert said[0][0] == "WARNING"
    assert "maxmemory-policy allkeys-lru" in said[0][1]
    assert "set maxmemory-policy noeviction" in said[0][1]
    assert said[1][0] == "INFO"
    assert "keeps nothing on disk" in said[1][1]


def test_a_safe_server_is_not_spoken_of(redis_server, opened, caplog):
    """Nothing is logged of a server that saves and does not evict."""
    caplog.set_level(logging.INFO, "linepicker")
    server = redis_server().start("--appendonly", "yes")
    put(opened(server.url()), a=b"1")
    assert caplog.records == []


def test_a_full_server_is_named_and_nothing_is_half_written(server, opened):
    """Beyond maxmemory a swap is refused whole, and goes through when there is room."""
    store = opened(server.url())
    versions = put(store, a=b"1")
    server.call("CONFIG", "SET", "maxmemory", "1")
    writes = [Write("a", versions["a"], b"2"), Write("b", 0, b"3")]
    with pytest.raises(StoreError, match="out of memory: raise its maxmemory") as caught:
        store.swap(writes)
    assert not caught.value.unknown
    assert store.read(["a", "b"]).records == {"a": Record(versions["a"], b"1"), "b": ABSENT}
    server.call("CONFIG", "SET", "maxmemory", "0")
    assert store.swap(writes).applied


def test_somebody_elses_keys_are_left_alone(either, opened, name):
    """A key of another type under the namespace is refused, not overwritten."""
    either.call("RPUSH", f"{{{name}}}:a", "theirs")
    with pytest.raises(StoreError, match="something else under this namespace's keys"):
        opened(either.url(namespace=name)).swap([Write("a", 0, b"1")])
    assert either.call("LLEN", f"{{{name}}}:a") == 1


@pytest.mark.parametrize("kind", ["redis6", "valkey"])
def test_no_message_tells_a_handle(redis_server, opened, kind):
    """A server that repeats the command in its error is not quoted."""
    server = redis_server(kind).start("--rename-command", "EVALSHA x")
    store = opened(server.url())
    with pytest.raises(StoreError) as caught:
        store.swap([Write(f"to/default/{ANN}", 0, b"1")])
    assert ANN not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_user_that_may_not_is_told_what_to_allow(either, opened, name):
    """A missing permission is named without naming a key."""
    either.call("ACL", "SETUSER", name, "on", ">pw", "~*", "+@all", "-evalsha")
    store = opened(f"{either.url(namespace=name, username=name, password='pw')}")
    assert store.read(["a"]).records == {"a": ABSENT}
    with pytest.raises(StoreError, match="allow EVALSHA, EVAL, MGET, TIME, SCAN"):
        store.swap([Write("a", 0, b"1")])


# Secrets.


def test_a_password_is_told_to_nobody(redis_server, opened):
    """Neither the handle, nor its repr, nor any error holds it, right or wrong, before the host or among the parameters."""
    server = redis_server().start(port=True)
    server.call("CONFIG", "SET", "requirepass", "s3cret")
    place = f"127.0.0.1:{server.port}"
    for url in (f"redis://:s3cret@{place}/0", f"redis://{place}?password=s3cret"):
        handle = stores.open(url)
        handle.store().read(["a"])
        assert "s3cret" not in repr(handle) + handle.url + repr(handle.store().target)
        handle.close()
    for url in (f"redis://me:wr0ng@{place}", f"redis://{place}?password=wr0ng"):
        with pytest.raises(StoreError, match="wants another user or password") as caught:
            opened(url).read(["a"])
        assert "wr0ng" not in str(caught.value)
    with pytest.raises(StoreError, match="wants another user or password"):
        opened(f"redis://{place}").read(["a"])
    for url in ("redis://:wr0ng@h:x", "redis://:wr0ng@h?durable=wr0ng", "redis+x://:wr0ng@h"):
        with pytest.raises(StoreError) as caught:
            stores.open(url)
        assert "wr0ng" not in str(caught.value)


def test_tls_is_spoken_and_checked(either, name, tmp_path):
    """`rediss` speaks TLS, with the driver's own parameters, and refuses a certificate that it can't check."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    proxy = Proxy(either, context)
    url = f"rediss://127.0.0.1:{proxy.port}?namespace={name}"
    handle = stores.open(f"{url}&ssl_ca_certs={tmp_path / 'ca.pem'}")
    assert put(handle.store(), a=b"1") == {
        "a": asyncio.run(handle.astore().read(["a"])).records["a"].version
    }
    handle.close()
    stranger = stores.open(url)
    with pytest.raises(StoreError, match=r"can't be reached.*certificate"):
        stranger.store().read(["a"])
    stranger.close()
    proxy.close()


# URLs.


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis:///0", "redis://host:6379"),
        ("redis+unix://", "redis://host:6379"),
        ("redis+unix://host/path", "redis://host:6379"),
        ("redis+sentinel://host", "redis[+]sentinel://host:26379,host:26379/service"),
        ("redis+cluster://host/1", "only the database 0"),
        ("redis://host?cluster=yes", "cluster must be 0 or 1"),
        ("redis+sentinel://host/name?cluster=1", "don't go together"),
        ("redis://host#x", "redis[+]sentinel://"),
        ("redis://host:port", "host:port|can't be read"),
        ("redis://host?durable=1.5", "durable must be a number"),
        ("redis://host?durable=-1", "0 to 86400"),
        ("redis://host?durable_timeout=-0.5", "0 to 86400"),
        ("redis://host?durable_timeout=86400.5", "0 to 86400"),
        ("redis://host?durable=1&durable_timeout=5", "less than socket_timeout"),
        ("redis://host?durable=1&durable_timeout=2&socket_timeout=1.5", "less than socket_timeout"),
        ("redis://host?max_connections=0", "1 or more"),
        ("redis://host?max_connections=1.5", "max_connections must be a number"),
        ("redis://:6379", "host:port"),
        ("redis://[::1]:", "host:port"),
        ("redis://host?socket_timeout=soon", "socket_timeout can't be read"),
        ("redis://host?db=first", "db can't be read"),
        ("redis://host?colour=red", "no 'colour'"),
        ("redis://host?ssl_ca_certs=x", "no 'ssl_ca_certs'"),
        ("redis://host?retry_on_timeout=1", "a swap is never sent twice"),
    ],
)
def test_a_wrong_redis_url_is_refused_with_what_to_write(url, says):
    """A URL that names no Redis is a StoreError at once, before anything is connected to."""
    with pytest.raises(StoreError, match=says):
        stores.open(url)


@pytest.mark.parametrize(
    ("url", "addresses"),
    [
        ("redis://host", [("host", 6379)]),
        ("redis://me:secret@host:7000/2", [("host", 7000)]),
        ("redis://[::1]", [("::1", 6379)]),
        ("redis://[::1]:7000", [("::1", 7000)]),
        ("redis+cluster://one,two:7000", [("one", 6379), ("two", 7000)]),
        ("redis+sentinel://one,two:7000/name", [("one", 26379), ("two", 7000)]),
        ("redis+unix:///run/redis.sock", []),
    ],
)
def test_what_a_url_leaves_out_is_as_the_text_above_says(url, addresses):
    """Ports, times, and numbers."""
    store = stores.open(url).store()
    assert isinstance(store, RedisStore)
    target, options = store.target, store.target.options
    assert list(target.addresses) == addresses
    assert (target.max_connections, target.patience) == (64, 5.0)
    assert (options["socket_timeout"], options["socket_connect_timeout"]) == (5.0, 5.0)
    assert options["protocol"] == 2
    assert store.keyspace._wait == ()
    store.close()


def test_the_numbers_of_a_url_count():
    """The least and the most that may be said are taken, and what waits for replicas waits a second at most if none is said."""
    for parameters in ("durable_timeout=0", "durable_timeout=86400", "max_connections=1"):
        stores.open(f"redis://host?{parameters}").close()
    named = stores.open("redis://host?durable=2&max_connections=7&socket_timeout=1.5").store()
    assert isinstance(named, RedisStore)
    assert named.keyspace._wait == (("WAIT", 2, 1000),)
    assert (named.target.max_connections, named.target.patience) == (7, 1.5)
    brief = stores.open("redis://host?durable=1&durable_timeout=0.25&socket_timeout=0.5").store()
    assert isinstance(brief, RedisStore)
    assert brief.keyspace._wait == (("WAIT", 1, 250),)


def test_the_drivers_parameters_reach_the_driver(either, opened, name):
    """What is not ours is redis-py's: a client's name, a database, a protocol."""
    store = opened(either.url(namespace=name, client_name="lines", db=3, protocol=3))
    put(store, a=b"1")
    assert "name=lines" in str(either.call("CLIENT", "LIST"))
    assert either.call("EXISTS", f"{{{name}}}:a") == 0


def test_a_missing_driver_is_named():
    """Without redis-py or without hiredis, the message says what to install."""
    script = """
        import sys
        sys.modules[sys.argv[1]] = None
        from linepicker import StoreError, stores
        try:
            stores.open("redis://host")
        except StoreError as error:
            print(error)
    """
    for module in ("redis", "hiredis"):
        told = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script), module],
            capture_output=True,
            text=True,
            check=True,
        )
        assert "pip install 'linepicker[redis]'" in told.stdout


# Forks.


def test_a_fork_gives_each_side_its_own_connections(either, opened, name):
    """A store in use is used on in parent and child at once, and no one gets the other's answers."""
    store = opened(either.url(namespace=name))
    version = put(store, count=b"0")["count"]
    children = []
    for child in range(4):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                for n in range(50):
                    put(store, **{f"{child}:{n}": b"%d" % n})
                    assert store.read([f"{child}:{n}"]).records[f"{child}:{n}"].value == b"%d" % n
                code = 0
            finally:
                os._exit(code)
        children.append(pid)
    for n in range(50):
        version = store.swap([Write("count", version, b"%d" % n)]).records["count"].version
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4
    assert len(list(store.scan(""))) == 201


# Replicas, Sentinel and clusters: real processes, each time.


def until(holds, seconds: float = 30.0):
    """What *holds* returns, as soon as it is true."""
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.02)
    return found


@pytest.fixture
def pair(redis_server):
    """A primary and its replica, in step."""
    primary, replica = (
        redis_server().start("--repl-diskless-sync-delay", "0", port=True) for _ in "ab"
    )
    replica.call("REPLICAOF", "127.0.0.1", primary.port)
    warm = stores.open(primary.url(namespace="warm", durable=1, durable_timeout=0.1))

    def acknowledges() -> bool:
        with suppress(StoreError):
            return put(warm.store(), **{f"{next(NAMES)}": b""}) != {}
        return False

    until(acknowledges)
    warm.close()
    return primary, replica


def test_a_durable_swap_is_on_the_replica_when_it_returns(pair, opened):
    """`durable=1`: what was answered is there after a failover that follows at once."""
    primary, replica = pair
    store = opened(primary.url(durable=1))
    versions = put(store, **{f"k{n}": b"1" for n in range(20)})
    primary.kill()
    replica.call("REPLICAOF", "NO", "ONE")
    after = opened(replica.url())
    assert {key: each.version for key, each in after.scan("")} == versions
    assert put(after, new=b"1")["new"] > max(versions.values())


def test_a_durable_swap_that_no_replica_has_in_time_is_unknown(pair, opened):
    """It is written, and answered as unknown; refusals, reads and swaps that change nothing don't wait."""
    primary, replica = pair
    store = opened(primary.url(durable=1, durable_timeout=0.1))
    version = put(store, a=b"1")["a"]
    replica.process.send_signal(signal.SIGSTOP)
    with pytest.raises(StoreError, match=r"0 of 1 replicas.*durable_timeout=") as caught:
        store.swap([Write("a", version, b"2")])
    assert caught.value.unknown
    held = store.read(["a"]).records["a"]
    assert held.value == b"2"
    assert not store.swap([Write("a", version, b"3")]).applied
    assert store.swap([Write("a", held.version, SAME)]).applied
    replica.process.send_signal(signal.SIGCONT)
    put(store, b=b"1")


async def test_a_durable_reservation_that_no_replica_has_in_time_stands(pair):
    """The router finds that its swap went in: the charge stands once, on one line, for threads and for coroutines."""
    primary, replica = pair
    url = primary.url(durable=1, durable_timeout=0.1)
    with Router([Line(A), Line(B)], store=url) as router:
        router.reserve(ANN)
        replica.process.send_signal(signal.SIGSTOP)
        made = router.reserve(BOB)
        assert router.assignment(BOB).number == made.number
        assert sum(view.used for view in router.lines()) == 2
    async with AsyncRouter([Line(A), Line(B)], store=url) as router:
        made = await router.reserve("+14155550103")
        assert (await router.assignment("+14155550103")).number == made.number
        assert sum(view.used for view in await router.lines()) == 3


async def test_sentinel_names_the_primary_and_its_successor(pair, redis_server, opened):
    """The store follows a failover by itself, for threads and for coroutines; a Sentinel that is down is passed over."""
    primary, replica = pair
    sentinel = redis_server()
    sentinel.program = [*sentinel.program, str(sentinel.folder / "sentinel.conf"), "--sentinel"]
    (sentinel.folder / "sentinel.conf").write_text(
        f"sentinel monitor lines 127.0.0.1 {primary.port} 1\n"
        "sentinel down-after-milliseconds lines 300\nsentinel failover-timeout lines 3000\n"
    )
    sentinel.start(port=True)
    until(lambda: sentinel.call("SENTINEL", "REPLICAS", "lines"))
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        down = nobody.getsockname()[1]
    url = f"redis+sentinel://127.0.0.1:{down},127.0.0.1:{sentinel.port}/lines?durable=1"
    handle = stores.open(url)
    store = handle.store()
    version = put(store, a=b"1")["a"]
    assert (await handle.astore().read(["a"])).records["a"].version == version
    primary.kill()
    with pytest.raises(StoreError):
        store.swap([Write("a", version, b"2")])
    until(
        lambda: (
            sentinel.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "lines")[1] == b"%d" % replica.port
        )
    )

    def back() -> bool:
        with suppress(StoreError):
            return bool(store.read(["a"]).records["a"].value)
        return False

    until(back)
    assert store.read(["a"]).records["a"] == Record(version, b"1")
    assert (await handle.astore().read(["a"])).records["a"] == Record(version, b"1")
    await handle.aclose()
    sentinel.kill()
    late = opened(url)
    with pytest.raises(StoreError, match="nobody at .* could say where the store is"):
        late.read(["a"])


@pytest.fixture
def cluster(redis_server):
    """Three nodes, each with a third of the slots."""
    nodes = [redis_server() for _ in range(3)]
    for node in nodes:
        with socket.socket() as chosen:
            chosen.bind(("127.0.0.1", 0))
            bus = str(chosen.getsockname()[1])
        node.start("--cluster-enabled", "yes", "--cluster-port", bus, port=True)
        node.bus = bus
    for n, node in enumerate(nodes):
        node.call("CLUSTER", "ADDSLOTSRANGE", 5462 * n, min(5462 * n + 5461, 16383))
        nodes[0].call("CLUSTER", "MEET", "127.0.0.1", node.port, node.bus)
    until(lambda: all(b"cluster_state:ok" in node.call("CLUSTER", "INFO") for node in nodes))
    return nodes


def sizes(nodes) -> list[int]:
    """How many keys each has."""
    return [node.call("DBSIZE") for node in nodes]


async def test_a_cluster_is_a_store_like_any_other(cluster):
    """Each namespace lies on one node, and they spread over all; the port holds, for threads and for coroutines."""
    url = f"redis+cluster://127.0.0.1:{cluster[0].port}"
    check_store(lambda: stores.open(f"{url}?namespace=n{next(NAMES)}"))
    await check_async_store(lambda: stores.open(f"{url}?namespace=n{next(NAMES)}"))
    assert all(sizes(cluster))


def test_a_namespace_lies_on_one_node(cluster, opened):
    """A hundred records of one namespace are all on the same node, and one node of a cluster can't be taken for a server."""
    one, two, three = cluster
    store = opened(f"redis://127.0.0.1:{three.port},127.0.0.1:{two.port}?cluster=1")
    put(store, **{f"k{n}": b"" for n in range(100)})
    assert sorted(sizes(cluster)) == [0, 0, 101]
    with pytest.raises(StoreError, match=r"write redis[+]cluster://"):
        opened(one.url()).read(["a"])


def test_a_node_that_is_down_is_passed_over(cluster, opened):
    """Whoever of the nodes can be asked tells where a namespace is; that of a dead node is a StoreError, and not unknown."""
    for node in cluster:
        node.call("CONFIG", "SET", "cluster-require-full-coverage", "no")
    hosts = ",".join(f"127.0.0.1:{node.port}" for node in cluster)
    tried = [opened(f"redis+cluster://{hosts}?namespace=n{n}") for n in range(12)]
    for store in tried:
        put(store, a=b"1")
    cluster[0].kill()
    gone = []
    for n, store in enumerate(tried):
        late = opened(f"redis+cluster://{hosts}?namespace=n{n}")
        for each in (store, late):
            try:
                assert each.swap([Write("b", 0, b"2")]).applied != (each is late)
            except StoreError as error:
                gone.append(error.unknown)
    assert 0 < len(gone) < 24
    assert not any(gone)


async def test_a_namespace_that_moves_to_another_node_is_followed(cluster):
    """Connections that are open are redirected: nothing is lost, and no call fails once the slot has moved."""
    handle = stores.open(f"redis+cluster://127.0.0.1:{cluster[0].port}?namespace=moving")
    store = handle.store()
    version = put(store, a=b"1", b=b"1")["a"]
    await handle.astore().read(["a"])
    slot = cluster[0].call("CLUSTER", "KEYSLOT", "{moving}")
    source = next(node for node in cluster if node.call("DBSIZE"))
    target = next(node for node in cluster if node is not source)
    ids = {node.port: node.call("CLUSTER", "MYID").decode() for node in (source, target)}
    target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source.port])
    source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target.port])
    source.call("MIGRATE", "127.0.0.1", target.port, "{moving}:a", 0, 5000)
    with pytest.raises(StoreError, match="is moving this namespace to another server") as caught:
        store.swap([Write("a", version, b"2"), Write("b", 0, SAME)])
    assert not caught.value.unknown
    source.call("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", "{moving}", "{moving}:b")
    for node in (target, source, *cluster):
        node.call("CLUSTER", "SETSLOT", slot, "NODE", ids[target.port])
    assert store.swap([Write("a", version, b"2")]).applied
    assert (await handle.astore().read(["a"])).records["a"].value == b"2"
    assert len(list(store.scan(""))) == 2
    await handle.aclose()


# Routers.


def test_two_routers_on_one_redis_keep_one_map(either, name):
    """What one process decided binds the other; a person keeps one line over restarts, and budgets are one."""
    url = either.url(namespace=name)
    with Router([Line(A), Line(B)], store=url) as one, Router([Line(A), Line(B)], store=url) as two:
        people = [f"+1415555{n:04d}" for n in range(8)]
        homes = {
            to: (one, two)[n % 2].reserve(to, max_delay=3600).number for n, to in enumerate(people)
        }
        assert {to: two.reserve(to, max_delay=3600).number for to in people} == homes
        assert sum(view.used for view in one.lines()) == 8
        one.pause(A, reason="test")
        assert two.reserve(BOB, max_delay=3600).number == B
    with Router([Line(A), Line(B)], store=url) as later:
        assert {to: later.assignment(to).number for to in people} == homes
        made = later.reserve(ANN, key="k", max_delay=3600)
        assert later.reserve(ANN, key="k", max_delay=3600).id == made.id


async def test_an_async_router_runs_on_redis(either, name):
    """The same through coroutines: a hundred at once, each with one line, none twice."""
    url = either.url(namespace=name)
    async with AsyncRouter([Line(A), Line(B)], store=url) as router:
        people = [f"+1415555{n % 10:04d}" for n in range(20)]
        made = await asyncio.gather(*(router.reserve(to, max_delay=3600) for to in people))
        homes = {}
        for to, each in zip(people, made, strict=True):
            assert homes.setdefault(to, each.number) == each.number
        assert sum(view.used for view in await router.lines()) == 10
    async with AsyncRouter([Line(A), Line(B)], store=url) as later:
        for to, number in homes.items():
            assert (await later.assignment(to)).number == number
