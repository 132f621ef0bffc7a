"""How records lie in Redis, and what is said to read and write them. No sockets here.

Each verb is told once, as a generator that yields what is to be sent and is sent the replies; a driver of a few lines for
each kind of connection does the sending.

A record is a string, `{namespace}:key`: six bytes of counter, then the value; Redis itself lets it expire. Beside them
lies `{namespace}`: eight bytes of epoch, six bytes of the counter last given out. What stands in braces is all that Redis
Cluster hashes, so a namespace lies in one slot and its swaps in one script.
"""

from __future__ import annotations

import hashlib
import logging
import math
import re
import secrets
from collections.abc import Collection, Generator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

import attrs
from redis.exceptions import NoScriptError

from linepicker.errors import StoreError
from linepicker.stores import ABSENT, COUNTER_BITS, SAME, Answer, Record, Write

__all__ = ["Command", "Exchange", "Keyspace", "Page", "Talk"]

_T = TypeVar("_T")
Command: TypeAlias = tuple[str | bytes | int, ...]

_log = logging.getLogger("linepicker")

_TICKS: Final = 62_500
"""Counters run with the server's clock, in ticks of 16 µs (48 bits of them last until 2112), and faster where writes come
faster. So no counter comes twice, though the server forget its last writes in a crash or a failover, or be restored."""

_LOSS: Final = 60.0
"""Seconds. A store that has lost more than a crash or a failover loses is taken for one restored from a backup."""

_LOSS_TICKS: Final = int(_LOSS * _TICKS)

_PAGE: Final = 1000
"""Keys looked at in one step of a scan."""

_EPOCH_BYTES: Final = 8
_COUNTER_BYTES: Final = COUNTER_BITS // 8
_LAST_MOMENT: Final = 253_402_300_800_000
"""The year 10000, in ms: a record that expires later never does."""

_NO_SUCH_VERSION: Final = b"-"

# KEYS: the namespace's own key, then those written, then those seen.
# ARGV: how many are written; the epoch expected ('': any); one to begin with; the counter seen, and how far behind it the
# store may be; for each key written its version ('': absent), what to do ('=': nothing; '-': delete; '': put; else put until
# then), and the value; for each key seen its version.
# Replies: the verdict (1 applied, 0 refused, -1 another store), the time, the namespace's key as it was; then, if applied,
# the counter before the first write; if refused, place and record of what moved.
_SWAP: Final = """\
local written, expected, seen, loss = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[4]), tonumber(ARGV[5])
local time = redis.call('TIME')
local was = redis.call('GET', KEYS[1]) or ''
local epoch, counter = string.sub(was, 1, 8), 0
if was ~= '' then counter = struct.unpack('>I6', was, 9) end
if (expected ~= '' and epoch ~= expected) or seen - counter > loss then
    return {-1, time[1], time[2], was}
end
for i = 1, written do
    if redis.call('GETRANGE', KEYS[1 + i], 0, 5) ~= ARGV[3 + 3 * i] then
        local reply, args = {0, time[1], time[2], was}, {}
        for j = 1, written do args[j] = ARGV[3 + 3 * j] end
        for j = 1, #KEYS - 1 - written do args[written + j] = ARGV[5 + 3 * written + j] end
        for j = 1, #args do
            if redis.call('GETRANGE', KEYS[1 + j], 0, 5) ~= args[j] then
                reply[#reply + 1] = j
                reply[#reply + 1] = redis.call('GET', KEYS[1 + j]) or ''
            end
        end
        return reply
    end
end
counter = math.max(counter, time[1] * 62500 + math.floor(time[2] / 16))
local before = counter
for i = 1, written do
    local what = ARGV[4 + 3 * i]
    if what == '-' then
        redis.call('DEL', KEYS[1 + i])
    elseif what ~= '=' then
        counter = counter + 1
        local record = struct.pack('>I6', counter) .. ARGV[5 + 3 * i]
        if what == '' then
            redis.call('SET', KEYS[1 + i], record)
        else
            redis.call('SET', KEYS[1 + i], record, 'PXAT', what)
        end
    end
end
if counter > before then
    if epoch == '' then epoch = ARGV[3] end
    redis.call('SET', KEYS[1], epoch .. struct.pack('>I6', counter))
end
return {1, time[1], time[2], was, before, epoch}
"""
_SWAP_DIGEST: Final = hashlib.sha1(_SWAP.encode(), usedforsecurity=False).hexdigest()

# One step of a scan. Which server it was tells whether the cursor means anything to the next.
_STEP: Final = """\
local _, info = pcall(redis.call, 'INFO', 'server')
local server = type(info) == 'string' and string.match(info, 'run_id:(%w+)') or ''
local found = redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[3])
local reply = {server, redis.call('GET', KEYS[1]) or '', found[1]}
for _, key in ipairs(found[2]) do
    local record = redis.call('GET', key)
    if record then
        reply[#reply + 1] = key
        reply[#reply + 1] = record
    end
end
return reply
"""
_STEP_DIGEST: Final = hashlib.sha1(_STEP.encode(), usedforsecurity=False).hexdigest()


class Exchange(NamedTuple):
    """Commands to be sent together to the server that has the namespace. *repeatable*: sending them twice is harmless."""

    commands: tuple[Command, ...]
    repeatable: bool


Talk: TypeAlias = Generator[Exchange, list[Any], _T]
"""Yields exchanges, is sent their replies, and returns something. A reply that is an error is raised by who exchanges, but
for NOSCRIPT."""


@attrs.define
class Page:
    """How far a scan has come: *cursor*, of the server *server*; the keys yielded before; what this step found."""

    cursor: bytes = b"0"
    server: bytes = b""
    keys: set[str] = attrs.field(factory=set)
    found: list[tuple[str, Record]] = attrs.field(factory=list)
    ended: bool = False


class Keyspace:
    """The records of one *namespace*, and what is known of their store. *where* names it in messages.

    *replicas*: how many must have a swap within *patience* seconds, or it is answered as unknown. `.closed`: no more verbs.
    """

    def __init__(self, namespace: str, where: str, *, replicas: int, patience: float) -> None:
        self.where = where
        self.closed = False
        self._own = f"{{{namespace}}}"
        self._prefix = f"{self._own}:"
        self._replicas = replicas
        self._wait: tuple[Command, ...] = (
            (("WAIT", replicas, max(1, round(patience * 1000))),) if replicas else ()
        )
        self._epoch = b""
        self._base = 0
        self._counter = 0

    @property
    def own(self) -> str:
        """The key that says in which slot the namespace lies."""
        return self._own

    def read(self, keys: Collection[str]) -> Talk[Answer]:
        """`Store.read`."""
        self.check_open()
        known, floor = self._epoch, self._counter
        names = [self._prefix + key for key in keys]
        time, found = yield Exchange((("TIME",), ("MGET", self._own, *names)), True)
        self._know(found[0] or b"", known, floor)
        if not found[0] and any(found[1:]):
            raise StoreError(
                f"the store {self.where} has lost its key {self._own} and kept others: it was evicted or deleted. Bring a "
                "backup back, or delete the namespace's other keys to begin anew",
                answered=True,
            )
        records = {
            key: ABSENT if raw is None else self._record(raw)
            for key, raw in zip(keys, found[1:], strict=True)
        }
        return Answer(True, _moment(*time), records)

    def swap(self, writes: Sequence[Write], seen: Mapping[str, int]) -> Talk[Answer]:
        """`Store.swap`."""
        self.check_open()
        epoch, base, floor = self._epoch, self._base, self._counter
        keys = [write.key for write in writes]
        args: list[str | bytes | int] = [
            *(
                len(writes),
                epoch,
                b"" if epoch else secrets.token_bytes(_EPOCH_BYTES),
                floor,
                _LOSS_TICKS,
            )
        ]
        changing = False
        for _, version, value, expires_at in writes:
            args.append(_given(version, base))
            if value is SAME:
                args += (b"=", b"")
                continue
            changing = True
            args += (b"-", b"") if value is None else (_until(expires_at), value)
        written = set(keys)
        for key, version in seen.items():
            if key not in written:
                keys.append(key)
                args.append(_given(version, base))
        prefix = self._prefix
        names = [self._own, *[prefix + key for key in keys]]
        wait = self._wait if changing else ()
        reply, *acknowledged = yield from _run(_SWAP, _SWAP_DIGEST, names, args, wait)
        verdict, seconds, micros, was, *rest = reply
        now = _moment(seconds, micros)
        if verdict != 1:
            self._know(was, epoch, floor, final=verdict < 0)
            moved = {
                keys[place - 1]: self._record(raw) if raw else ABSENT
                for place, raw in zip(rest[::2], rest[1::2], strict=True)
            }
            return Answer(False, now, moved)
        self._know(was or rest[1], epoch, floor)
        counter = rest[0]
        records: dict[str, Record] = {}
        for key, _, value, _ in writes:
            if value is None:
                records[key] = ABSENT
            elif value is not SAME:
                counter += 1
                records[key] = Record(self._base | counter, None)
        self._counter = max(self._counter, counter if counter > rest[0] else 0)
        if acknowledged and acknowledged[0] < self._replicas:
            raise StoreError(
                f"the store {self.where} has written, but {acknowledged[0]} of {self._replicas} replicas said so in time: "
                "see to the replicas, raise ?durable_timeout=, or lower ?durable=",
                unknown=True,
            )
        return Answer(True, now, records)

    def scan(self, prefix: str, page: Page) -> Talk[None]:
        """One step of `Store.scan`: what *page* finds next."""
        self.check_open()
        known, floor = self._epoch, self._counter
        pattern = re.sub(r"([*?\[\]\\])", r"\\\1", self._prefix + prefix) + "*"
        args = (page.cursor, pattern, _PAGE)
        ((server, was, cursor, *rest),) = yield from _run(
            _STEP, _STEP_DIGEST, [self._own], args, (), repeatable=True
        )
        self._know(was, known, floor)
        if page.server not in {b"", server}:
            page.cursor, page.server, page.found = b"0", server, []
            return  # the cursor was another server's: what this step found is not all there was
        page.server, page.cursor, page.ended = server, cursor, cursor == b"0"
        page.found = []
        for name, raw in zip(rest[::2], rest[1::2], strict=True):
            key = name[len(self._prefix) :].decode()
            if key not in page.keys:
                page.keys.add(key)
                page.found.append((key, self._record(raw)))

    def check_open(self) -> None:
        """Raise `StoreError` after closing."""
        if self.closed:
            raise StoreError(f"the store {self.where} is closed")

    def _record(self, raw: bytes) -> Record:
        counter = int.from_bytes(raw[:_COUNTER_BYTES], "big")
        return Record(self._base | counter, raw[_COUNTER_BYTES:])

    def _know(self, was: bytes, known: bytes, floor: int, *, final: bool = False) -> None:
        """Take in the namespace's own key, which must be that of the same store as ever. *known* and *floor* are the epoch
        and the counter that were known when the question was sent; meanwhile others may have learned more."""
        epoch, counter = was[:_EPOCH_BYTES], int.from_bytes(was[_EPOCH_BYTES:], "big")
        if epoch != known and (known or (self._epoch and epoch not in {b"", self._epoch})):
            raise StoreError(
                f"the store {self.where} is not the one this process began with: it was "
                f"{'replaced' if epoch else 'wiped'}; check it, then restart",
                answered=True,
            )
        lost = (floor - counter) / _TICKS if counter else 0.0
        if lost > _LOSS or final:
            raise StoreError(
                f"the store {self.where} has lost what was written in its last {lost:.0f} s: it was restored from a backup, "
                "or failed over to a replica that lagged; check it, then restart",
                answered=True,
            )
        if epoch:
            self._base = int.from_bytes(epoch, "big") << COUNTER_BITS
            self._epoch = epoch  # in this order: who finds an epoch finds its base
        if lost > 0 and self._counter >= floor:
            _log.warning(
                "the store %s has lost what was written in its last %.1f s, in a crash or a failover: who was written to "
                "then counts as new",
                self.where,
                lost,
            )
            self._counter = counter
        else:
            self._counter = max(self._counter, counter)


def _run(
    script: str,
    digest: str,
    keys: Sequence[str],
    args: Sequence[str | bytes | int],
    wait: tuple[Command, ...],
    *,
    repeatable: bool = False,
) -> Talk[list[Any]]:
    rest = (len(keys), *keys, *args)
    replies = yield Exchange((("EVALSHA", digest, *rest), *wait), repeatable)
    if isinstance(
        replies[0], NoScriptError
    ):  # a server that was started anew; EVAL keeps the script
        replies = yield Exchange((("EVAL", script, *rest), *wait), repeatable)
    return replies


def _given(version: int, base: int) -> bytes:
    """How the script knows a version: by its counter, if it is of the store with that *base*."""
    if version == 0:
        return b""
    counter = version - base
    if base and 0 < counter < 1 << COUNTER_BITS:
        return counter.to_bytes(_COUNTER_BYTES, "big")
    return _NO_SUCH_VERSION


def _moment(seconds: bytes, micros: bytes) -> float:
    return int(seconds) + int(micros) / 1e6


def _until(expires_at: float | None) -> bytes:
    """Redis keeps a key until the millisecond that it is told is over."""
    if expires_at is None or expires_at * 1000 >= _LAST_MOMENT:
        return b""
    return b"%d" % max(1, math.floor(expires_at * 1000) - 1)
