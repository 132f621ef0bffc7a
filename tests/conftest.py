"""What all tests share: how Hypothesis runs, and servers that the tests start themselves."""

import itertools
import shutil
import signal
from typing import Any

import pytest
from hypothesis import settings
from servers import PostgresDatabase, PostgresServer, RedisServer

from linepicker import AsyncRouter, Line, Policy, Reservation, Router
from linepicker.stores import open as open_store
from linepicker.testing import ManualClock

# A loaded machine is slow, and that is not a fault of the code: no deadline per example.
settings.register_profile("linepicker", deadline=None, print_blob=True)
settings.load_profile("linepicker")

# A shell's background job ignores Ctrl-C, and so would every command that is started here and ended by it.
signal.signal(signal.SIGINT, signal.default_int_handler)


# A router's world behind each of its doors, told once for threads and coroutines.

DOORS = ("sync memory", "async memory", "sync sqlite", "async sqlite")


class Awaited:
    """A Router, or one of its reservations, with the verbs of an AsyncRouter."""

    def __init__(self, owner: Any) -> None:
        self._owner = owner

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._owner, name)
        if not callable(value):
            return value

        async def verb(*arguments, **keywords):
            result = value(*arguments, **keywords)
            return Awaited(result) if isinstance(result, Reservation) else result

        return verb


class Account:
    """A provider with two lines."""

    def __init__(self) -> None:
        self.lines = [Line("+12025550100"), Line("+12025550101")]

    def fetch(self):
        """The list."""
        return list(self.lines)


class AsyncAccount(Account):
    """The same, awaited."""

    async def fetch(self):
        """The list."""
        return list(self.lines)


class World:
    """A clock, an account and a store behind one of the doors; its routers have what *policy* makes unless they are given
    another."""

    def __init__(self, policy, doors: str = "sync memory", path=None) -> None:
        self.policy = policy
        self.door, store = doors.split()
        self.url = (
            "memory://" if store == "memory" else f"sqlite:///{path}/lp.db?synchronous=normal"
        )
        self.clock = ManualClock(1_790_000_000.0)
        self.account = Account() if self.door == "sync" else AsyncAccount()
        self.handle = open_store(self.url)
        self.numbers = itertools.count(1)

    def router(self, policy: Policy | None = None, **more) -> Any:
        """Another process."""
        more = {
            "policy": policy or self.policy(),
            "store": self.handle,
            "clock": self.clock,
            **more,
        }
        if self.door == "sync":
            return Awaited(Router(self.account, **more))
        return AsyncRouter(self.account, **more)

    def stored(self) -> dict[str, bytes | None]:
        """All that is stored."""
        return {key: record.value for key, record in self.handle.store().scan("")}


@pytest.fixture(scope="module")
def new_world(request):
    """Makes a world, whose routers have what the module's `loose` makes."""
    return lambda *where: World(request.module.loose, *where)


@pytest.fixture(params=DOORS)
def world(new_world, request, tmp_path):
    """A new world behind each door."""
    world = new_world(request.param, tmp_path)
    yield world
    world.handle.close()


# PostgreSQL.


@pytest.fixture(scope="session")
def postgres_server():
    """A running server; who stops it starts it again."""
    server = PostgresServer()
    server.start()
    yield server
    server.kill()
    shutil.rmtree(server.folder)


@pytest.fixture(scope="session")
def postgres_database(postgres_server):
    """A database of the running server."""
    return PostgresDatabase(postgres_server)


@pytest.fixture
def postgres(postgres_database):
    """A database with nothing of ours in it: the same each time, emptied, which is quicker than a new one."""
    postgres_database.sql("DROP SCHEMA IF EXISTS linepicker CASCADE")
    return postgres_database


@pytest.fixture
def new_postgres(postgres_server):
    """A new database, whose settings may be changed."""
    return PostgresDatabase(postgres_server)


# Redis and Valkey.


@pytest.fixture
def redis_server():
    """Starts nothing: gives a server by its name in REDIS, and cleans up after it."""
    made = []

    def make(name: str = "valkey") -> RedisServer:
        made.append(RedisServer(name))
        return made[-1]

    yield make
    for server in made:
        if server.process is not None and server.process.poll() is None:
            server.kill()
        shutil.rmtree(server.folder)


def running(name: str):
    """A fixture: a running server, which no test stops."""

    @pytest.fixture(scope="session", name=name)
    def server():
        server = RedisServer(name)
        server.start()
        yield server
        server.stop()
        shutil.rmtree(server.folder)

    return server


redis6 = running("redis6")
valkey = running("valkey")
