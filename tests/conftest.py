"""What all tests share: how Hypothesis runs, and servers that the tests start themselves."""

import shutil

import pytest
from hypothesis import settings
from servers import PostgresDatabase, PostgresServer, RedisServer

# A loaded machine is slow, and that is not a fault of the code: no deadline per example.
settings.register_profile("linepicker", deadline=None, print_blob=True)
settings.load_profile("linepicker")


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
