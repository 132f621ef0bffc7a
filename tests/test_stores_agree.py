"""Memory, and beside it another store: whatever is asked of both, they answer alike."""

import asyncio
import itertools
import time
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from linepicker import stores
from linepicker.stores import SAME, Answer, AsyncStore, Store, Write
from linepicker.stores.memory import MemoryStore
from linepicker.stores.postgres import AsyncPostgresStore, PostgresStore
from linepicker.stores.sqlite import SqliteStore
from linepicker.testing import ManualClock

KEYS = st.sampled_from(["", "a", "a:1", "é", "🦊"])
VALUES = st.sampled_from([SAME, None]) | st.binary(max_size=4)
HELD = -1
TOKENS = st.sampled_from([HELD, HELD, HELD, 0]) | st.integers(0, 8)
LIVES = st.sampled_from([None, None, -1.0, 0.0, 1.0, 2.0, 9.0])
WRITES = st.lists(
    st.tuples(KEYS, TOKENS, VALUES, LIVES), max_size=5, unique_by=lambda each: each[0]
)


class Agreement(RuleBasedStateMachine):
    """Both stores see the same calls and the same clock.

    Their version numbers differ, so versions are compared by token: the n-th version given out is n in both, absent is 0.
    A call names a version by what is held under the key, or by a token of long ago.

    *other* opens the store beside memory: under the same name, the same store anew.
    """

    numbers = itertools.count()

    def __init__(self, other: Callable[[str, ManualClock], Store]) -> None:
        super().__init__()
        self.other = other

    @initialize()
    def open(self):
        """Start both empty."""
        self.name = f"n{next(self.numbers)}"
        self.clock = ManualClock(1000.0)
        self.stores = [MemoryStore(time=self.clock.now), self.other(self.name, self.clock)]
        self.versions = [[0], [0]]

    def version(self, which: int, key: str, token: int) -> int:
        """What store *which* has for a token."""
        if token == HELD:
            return self.stores[which].read([key]).records[key].version
        return self.versions[which][min(token, len(self.versions[which]) - 1)]

    def token(self, which: int, version: int) -> int:
        """The token of a version of store *which*: a new one for a new version, which must be the largest."""
        known = self.versions[which]
        if version not in known:
            assert version > known[-1], "versions must grow"
            known.append(version)
        return known.index(version)

    def told(self, which: int, answer: Answer, *, values: bool) -> dict[str, object]:
        """The answer's records, with tokens for versions, in the order of versions."""
        records = sorted(answer.records.items(), key=lambda each: each[1].version)
        return {
            key: (self.token(which, version), value if values else None)
            for key, (version, value) in records
        }

    @rule(writes=WRITES, seen=st.dictionaries(KEYS, TOKENS, max_size=4))
    def swap(self, writes, seen):
        """Both apply, or both refuse, with the same records."""
        written = {key for key, *_ in writes}
        answers = []
        for which, store in enumerate(self.stores):
            answer = store.swap(
                [
                    Write(
                        key,
                        self.version(which, key, token),
                        value,
                        None if life is None else self.clock.now() + life,
                    )
                    for key, token, value, life in writes
                ],
                seen={
                    key: self.version(which, key, seen[key]) for key in seen if key not in written
                },
            )
            answers.append((answer.applied, self.told(which, answer, values=not answer.applied)))
        assert answers[0] == answers[1]

    @rule(keys=st.lists(KEYS, max_size=4))
    def read(self, keys):
        """Both read the same."""
        one, two = (
            self.told(which, store.read(keys), values=True)
            for which, store in enumerate(self.stores)
        )
        assert one == two

    @rule(prefix=KEYS)
    def scan(self, prefix):
        """Both list the same."""
        one, two = (
            {
                key: (self.token(which, version), value)
                for key, (version, value) in store.scan(prefix)
            }
            for which, store in enumerate(self.stores)
        )
        assert one == two

    @rule(seconds=st.sampled_from([0.5, 1.0, 8.0]))
    def advance(self, seconds):
        """Time passes for both."""
        self.clock.advance(seconds)

    @rule()
    def reopen(self):
        """The other starts again from what it has kept."""
        self.stores[1].close()
        self.stores[1] = self.other(self.name, self.clock)

    @invariant()
    def alike(self):
        """Both hold the same, always."""
        self.scan("")

    def teardown(self):
        """Leave nothing open."""
        for store in self.stores:
            store.close()


class Awaited:
    """A store of coroutines, each of which is waited for."""

    def __init__(self, store: AsyncStore) -> None:
        self.store = store
        self.runner = asyncio.Runner()

    def read(self, keys):
        """As `Store.read`."""
        return self.runner.run(self.store.read(keys))

    def swap(self, writes, *, seen):
        """As `Store.swap`."""
        return self.runner.run(self.store.swap(writes, seen=seen))

    def scan(self, prefix):
        """As `Store.scan`."""
        return self.runner.run(self.store.scan(prefix))

    def close(self):
        """As `Store.close`."""
        self.runner.run(self.store.close())
        self.runner.close()


class Hurried:
    """A store by its server's own clock, on which a thousand seconds pass for each of the test's.

    Time that has passed for the test is taken from what the records have left, before anything else is asked.
    """

    HURRY = """
        for _, key in ipairs(redis.call('KEYS', ARGV[1])) do
            local left = redis.call('PTTL', key)
            if left > 0 then redis.call('PEXPIRE', key, left - ARGV[2]) end
        end
    """

    def __init__(self, store: Store, server, name: str, clock: ManualClock) -> None:
        self.store, self.server, self.name, self.clock = store, server, name, clock
        self.until = clock.now()

    def hurry(self):
        """Let as much time pass as has passed."""
        passed = round((self.clock.now() - self.until) * 1e6)
        if passed:
            self.server.call("EVAL", self.HURRY, 0, f"{{{self.name}}}*", passed)
        self.until = self.clock.now()

    def read(self, keys):
        """As `Store.read`."""
        self.hurry()
        return self.store.read(keys)

    def swap(self, writes, *, seen):
        """As `Store.swap`."""
        self.hurry()
        zero, now = time.time(), self.clock.now()
        times = [
            None if each.expires_at is None else zero + 1000 * (each.expires_at - now)
            for each in writes
        ]
        return self.store.swap(
            [each._replace(expires_at=at) for each, at in zip(writes, times, strict=True)],
            seen=seen,
        )

    def scan(self, prefix):
        """As `Store.scan`."""
        self.hurry()
        return self.store.scan(prefix)

    def close(self):
        """As `Store.close`."""
        self.hurry()
        self.store.close()


def agree(other: Callable[[str, ManualClock], Store], examples: int) -> None:
    """Fail if any of so many sequences of calls tells memory from the other."""
    run_state_machine_as_test(
        lambda: Agreement(other),
        settings=settings(max_examples=examples, stateful_step_count=30, deadline=None),
    )


def test_memory_and_sqlite_agree(tmp_path):
    """No sequence of calls tells memory from SQLite."""
    agree(
        lambda name, clock: SqliteStore(tmp_path / name, durable=False, time=clock.now),
        examples=100,
    )


def test_memory_and_postgresql_agree(postgres):
    """No sequence of calls tells memory from PostgreSQL, through threads' door and through coroutines'."""

    def made(name: str, clock: ManualClock) -> PostgresStore:
        return PostgresStore(postgres.url(), namespace=name, time=clock.now)

    agree(made, examples=40)
    agree(lambda name, clock: Awaited(AsyncPostgresStore(made(name, clock))), examples=20)


@pytest.mark.parametrize("name", ["redis6", "valkey"])
def test_memory_and_redis_agree(name, request):
    """No sequence of calls tells memory from Redis or Valkey, through threads' door and through coroutines'."""
    server = request.getfixturevalue(name)

    def threads(name: str, clock: ManualClock) -> Hurried:
        store = stores.open(server.url(namespace=f"threads-{name}")).store()
        return Hurried(store, server, f"threads-{name}", clock)

    def coroutines(name: str, clock: ManualClock) -> Hurried:
        handle = stores.open(server.url(namespace=f"coroutines-{name}"))
        return Hurried(Awaited(handle.astore()), server, f"coroutines-{name}", clock)

    agree(threads, examples=33)
    agree(coroutines, examples=17)
