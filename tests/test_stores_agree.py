"""Memory and SQLite side by side: whatever is asked of both, they answer alike."""

import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from linepicker.stores import SAME, Answer, Write
from linepicker.stores.memory import MemoryStore
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
    """

    @initialize()
    def open(self):
        """Start both empty."""
        self.folder = tempfile.TemporaryDirectory()
        self.clock = ManualClock(1000.0)
        self.stores = [MemoryStore(time=self.clock.now), self.sqlite()]
        self.versions = [[0], [0]]

    def sqlite(self):
        """The SQLite store, opened anew."""
        return SqliteStore(Path(self.folder.name) / "x.db", durable=False, time=self.clock.now)

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
        """SQLite starts again from its file."""
        self.stores[1].close()
        self.stores[1] = self.sqlite()

    @invariant()
    def alike(self):
        """Both hold the same, always."""
        self.scan("")

    def teardown(self):
        """Leave nothing open."""
        for store in self.stores:
            store.close()
        self.folder.cleanup()


class TestAgreement(Agreement.TestCase):
    """No sequence of calls tells memory from SQLite."""

    settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
