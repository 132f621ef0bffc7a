"""Which server has a namespace, what that server must be, and what its errors mean. Nothing is connected here.

A namespace lies on one server, so all that is needed of Sentinel and of Redis Cluster is to be told which, and told anew when
that has changed.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import attrs
import hiredis
import redis.asyncio.connection as aio
import redis.connection as sync
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoScriptError,
    RedisError,
    ResponseError,
)
from redis.exceptions import TimeoutError as RedisTimeout
from redis.retry import Retry

from linepicker.errors import StoreError
from linepicker.stores._redis_keys import Command, Exchange

__all__ = ["FAILURES", "INSPECTION", "MOVES", "Address", "Course", "Target", "busy"]

Address: TypeAlias = tuple[str, int]
"""Host and port."""

FAILURES: Final = (RedisError, OSError)
"""All that the driver raises when a server can't be asked."""

MOVES: Final = 3
"""How often one call follows a namespace to another server."""

_ADVICE: Final = (
    (
        "NOPERM|NoPermission",
        "says its user may not: allow EVALSHA, EVAL, MGET, TIME, SCAN and ~{namespace}*",
    ),
    (
        "WRONGPASS|NOAUTH|Authentication|Authorization|invalid password",
        "wants another user or password: see the URL",
    ),
    ("READONLY|ReadOnly", "is a read-only replica: name the primary, or use redis+sentinel://"),
    (r"\bOOM\b|OutOfMemory", "is out of memory: raise its maxmemory"),
    ("MISCONF", "can't save to its disk, and so takes no writes: see to the disk"),
    ("NOREPLICAS", "has fewer replicas than its min-replicas-to-write: see to the replicas"),
    ("LOADING|BusyLoading", "is loading its data: try again when it has"),
    (
        "CLUSTERDOWN|ClusterDown",
        "is a cluster without a primary for this namespace: try again when it has one",
    ),
    (
        r"TRYAGAIN|TryAgain|\bASK\b|AskError",
        "is moving this namespace to another server: try again when it has",
    ),
    ("MOVED|Moved", "is a cluster: write redis+cluster://"),
    (r"\bBUSY\b", "is busy with somebody's script: try again, or SCRIPT KILL it"),
    ("WRONGTYPE", "holds something else under this namespace's keys: use another ?namespace="),
    ("Timeout", "did not answer in time: see to it and to the network, or raise ?socket_timeout="),
    (
        "max number of clients",
        "has its maxclients connected: raise that, or lower ?max_connections=",
    ),
)
_UNREACHABLE: Final = "can't be reached: start it, or check the URL"


@attrs.frozen(kw_only=True)
class Target:
    """Where to connect, and how.

    *kind*: "server", "sentinel" or "cluster", of which *addresses* are some (none: a Unix socket, see *options*); *service*:
    what Sentinel calls the primary. *secure* is TLS; *options* and *sentinel_options* are the driver's. *own* is the
    namespace's own key, *where* the store's name in messages. *patience*: seconds to wait for a free connection.
    """

    kind: str
    addresses: tuple[Address, ...]
    where: str
    own: str
    service: str = ""
    secure: bool = False
    options: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    sentinel_options: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    max_connections: int = 64
    patience: float = 5.0
    said: set[str] = attrs.field(factory=set, repr=False)
    """What was logged, and is not said again."""

    def connection(self, address: Address | None, *, asks: bool = False) -> Any:
        """A connection of redis-py's, yet to be made; one that *asks* Sentinel has other options. Raises TypeError for those
        that redis-py has not."""
        return self._connection(sync, Retry(NoBackoff(), 0), address, asks)

    def aconnection(self, address: Address | None, *, asks: bool = False) -> Any:
        """The same, for coroutines."""
        return self._connection(aio, AsyncRetry(NoBackoff(), 0), address, asks)

    def _connection(self, driver: Any, retry: object, address: Address | None, asks: bool) -> Any:  # noqa: FBT001
        options = self.sentinel_options if asks and self.kind == "sentinel" else self.options
        if address is None:
            return driver.UnixDomainSocketConnection(**options, retry=retry)
        kind = driver.SSLConnection if self.secure else driver.Connection
        return kind(**options, host=address[0], port=address[1], retry=retry)

    def locate(self, known: list[Address]) -> Generator[tuple[Address, bytes], Any, Address | None]:
        """Yields whom to ask what, is sent the reply or the error, and returns where the namespace is. Keeps in *known* the
        cluster's nodes."""
        if self.kind == "server":
            return self.addresses[0] if self.addresses else None
        cluster = self.kind == "cluster"
        primary: Command = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service)
        question = _packed(("CLUSTER", "SLOTS") if cluster else primary)
        error: object = None
        for address in dict.fromkeys([*known, *self.addresses]):
            reply = yield address, question
            if isinstance(reply, Exception):
                error = reply
            elif reply:
                found = _owner(reply, address, self.own, known) if cluster else _address(*reply)
                if found is not None:
                    return found
        cause = f" ({type(error).__name__})" if error is not None else ""
        raise StoreError(
            f"nobody at {self.where} could say where the store is{cause}: start the {self.kind}, or check the URL"
        )

    def explained(self, error: Exception, *, unknown: bool) -> StoreError:
        """The error as ours, with what to do, and without any key, since keys hold handles."""
        text = f"{type(error).__name__}: {error}"
        other = "failed" if isinstance(error, ResponseError) else _UNREACHABLE
        advice = next((each for words, each in _ADVICE if re.search(words, text)), other)
        shown = str(error).partition(", with args beginning")[0]
        shown = re.sub(re.escape(self.own) + r"\S*", self.own, shown)
        return StoreError(
            f"the store {self.where} {advice} ({shown})",
            unknown=unknown,
            answered="WRONGTYPE" in text,
        )


class Course:
    """What a link does about what came of an exchange; the same for both kinds of link."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.known: list[Address] = []

    def packed(self, ask: Exchange) -> bytes:
        """The commands as they go over the wire."""
        try:
            return _packed(*ask.commands)
        except UnicodeEncodeError as error:
            raise StoreError(
                f"the store {self.target.where} takes no key that is not Unicode text"
            ) from error

    def judge(self, replies: Sequence[object], attempt: int) -> bool:
        """Whether the replies will do; False: try again elsewhere. Raises StoreError."""
        wrong = next((each for each in replies if isinstance(each, Exception)), None)
        if wrong is None or isinstance(wrong, NoScriptError):
            return True
        text = f"{type(wrong).__name__}: {wrong}"
        moved = re.search(r"(?:MOVED|MovedError:) \d+ (\S*):(\d+)", text)
        if moved is not None and moved[1]:
            self.known.insert(0, (moved[1], int(moved[2])))
        elsewhere = moved is not None or re.search("READONLY|ReadOnly", text) is not None
        if elsewhere and attempt < MOVES:
            return False
        raise self.target.explained(wrong, unknown=False) from None

    def failed(self, ask: Exchange, error: Exception, attempt: int, *, sent: bool) -> None:
        """Raise StoreError, unless the exchange may be tried again."""
        answered = isinstance(error, ResponseError | BusyLoadingError | AuthenticationError)
        late = isinstance(error, RedisTimeout | TimeoutError)
        if answered or late or attempt or (sent and not ask.repeatable):
            unknown = sent and not answered and not ask.repeatable
            raise self.target.explained(error, unknown=unknown) from (None if answered else error)

    def inspect(self, info: object, save: object) -> None:
        """Say what is unsafe about a server, once; raise StoreError where it won't do. Takes the replies to `INSPECTION`."""
        where = self.target.where
        if not isinstance(info, bytes):
            self._say(
                logging.INFO, f"the store {where} can't be inspected: its user may not call INFO"
            )
            return
        facts = dict(re.findall(r"^(\w+):(.*?)\r?$", info.decode(errors="replace"), re.MULTILINE))
        version = re.match(r"(\d+)\.(\d+)", facts.get("redis_version", ""))
        if version is not None and (int(version[1]), int(version[2])) < (6, 2):
            raise StoreError(
                f"the store {where} is Redis {version[0]}: it must be 6.2 or later, or Valkey"
            )
        if facts.get("role", "master") != "master":
            raise StoreError(
                f"the store {where} is a read-only replica: name the primary, or use redis+sentinel://"
            )
        if facts.get("cluster_enabled") == "1" and self.target.kind == "server":
            raise StoreError(f"the store {where} is a cluster: write redis+cluster://")
        policy = facts.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            self._say(
                logging.WARNING,
                f"the store {where} may throw records away when memory is short (maxmemory-policy {policy}), and who was "
                "written to then counts as new: set maxmemory-policy noeviction",
            )
        if facts.get("aof_enabled") == "0" and save == [b"save", b""]:
            self._say(
                logging.INFO,
                f"the store {where} keeps nothing on disk: after a restart everyone is new. Set appendonly yes",
            )

    def _say(self, level: int, text: str) -> None:
        if text not in self.target.said:
            self.target.said.add(text)
            logging.getLogger("linepicker").log(level, text)


def _packed(*commands: Command) -> bytes:
    pack: Callable[[Command], bytes] = hiredis.pack_command  # type: ignore[assignment]  # its stub takes tuples of one
    return b"".join([pack(command) for command in commands])


INSPECTION: Final = _packed(("INFO",), ("CONFIG", "GET", "save"))
"""What `Course.inspect` wants answered."""


def busy(target: Target) -> StoreError:
    """What is raised where no connection comes free."""
    return StoreError(
        f"all {target.max_connections} connections to the store {target.where} were busy for {target.patience:g} s: raise "
        "?max_connections="
    )


def _address(host: bytes, port: bytes) -> Address:
    return host.decode(), int(port)


def _owner(slots: Sequence[Any], asked: Address, own: str, known: list[Address]) -> Address | None:
    """Which node has the key *own*, by CLUSTER SLOTS. A node that doesn't know its own name is where it was *asked*."""
    slot = key_slot(own.encode())
    nodes: list[Address] = []
    found = None
    for first, last, *servers in slots:
        some = [
            (asked[0] if host in {None, b"", b"?"} else host.decode(), int(port))
            for host, port, *_ in servers
        ]
        nodes += some
        if first <= slot <= last:
            found = some[0]
    known[:] = dict.fromkeys(nodes)
    return found
