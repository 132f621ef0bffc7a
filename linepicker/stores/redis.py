"""A store in Redis 6.2 or later, or Valkey: for any number of processes on any number of machines.

    redis://[user:password@]host[:6379][/db]                       one server
    redis+unix:///path/to/socket[?db=0]                            one server of this machine
    redis+sentinel://[user:password@]host[:26379][,host…]/service  the primary that these Sentinels name
    redis+cluster://[user:password@]host[:6379][,host…]            a cluster of which these are some nodes; or ?cluster=1

`rediss` instead of `redis` is TLS. URL parameters:

    durable=0                 how many replicas must have a swap before it is answered
    durable_timeout=1.0       seconds to wait for them; then the answer is a `StoreError` with `.unknown`: it is written here
    max_connections=64        of each process; who finds none free waits for `socket_timeout`, then gets a `StoreError`
    sentinel_username=, sentinel_password=
    socket_timeout=5.0, socket_connect_timeout=5.0, and all others: as redis-py has them

A read is one round trip, and so is a swap, one script. A swap that was sent and not answered is never sent again: it is a
`StoreError` with `.unknown`. A namespace lies on one server, and namespaces spread over a cluster's. While a cluster moves a
namespace's slot key by key, its calls are `StoreError`s. `scan` walks through all keys of that server.

What survives is what the server saves: with `appendonly yes` and `appendfsync always` all that was acknowledged, with
`everysec` all but the last second or two. A failover loses what had not reached the replica that takes over; with
`durable=1` that is only what was answered as unknown, as long as that replica is the one that acknowledged. Set
`min-replicas-to-write 1`, so that a primary that is cut off takes no writes. Who was written to in the time lost counts as new,
perhaps on another line, and what their lines spent in it may be spent twice. Such a loss is
logged as a warning; one of more than a minute is taken for a restored backup, and a `StoreError`. No version ever comes again.

An eviction policy other than `noeviction` is a warning in the log, since it makes people new. A replica is a `StoreError`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final, Self, TypeVar
from urllib.parse import SplitResult, urlencode

from linepicker.errors import StoreError
from linepicker.stores import Answer, Record, Write

try:
    from redis.connection import parse_url
    from redis.exceptions import RedisError

    from linepicker.stores._redis_keys import Keyspace, Page, Talk
    from linepicker.stores._redis_link import AsyncLink, Link
    from linepicker.stores._redis_server import Target
except ModuleNotFoundError as error:
    raise StoreError("redis needs its driver: pip install 'linepicker[redis]'") from error

__all__ = ["AsyncRedisStore", "RedisStore"]

_T = TypeVar("_T")

_parse_url: Callable[[str], dict[str, Any]] = parse_url
_PORTS: Final = {"server": 6379, "cluster": 6379, "sentinel": 26379}


class RedisStore:
    """A `linepicker.stores.Store` in the Redis at *target*, which is connected to by the first call that needs it.

    A fork is safe at any moment: each side has its own connections. `.link` makes them, `.keyspace` knows what to say.
    """

    def __init__(self, target: Target, keyspace: Keyspace) -> None:
        self.target = target
        self.keyspace = keyspace
        self.link = Link(target)

    @classmethod
    def from_url(
        cls, parts: SplitResult, parameters: Mapping[str, str], *, namespace: str = "lp"
    ) -> Self:
        """The store that a URL's *parts* name, but for its query: *parameters*. Raises `StoreError` where they are wrong."""
        rest = dict(parameters)
        kind, secure = _kind(parts, rest)
        hosts = parts.netloc.rpartition("@")[2]
        where = f"{parts.scheme}://{hosts}{parts.path}"
        replicas = int(_number(rest, "durable", 0, whole=True))
        patience = _number(rest, "durable_timeout", 1.0)
        connections = int(_number(rest, "max_connections", 64, whole=True))
        asking = {
            name: rest.pop(f"sentinel_{name}")
            for name in ("username", "password")
            if f"sentinel_{name}" in rest
        }
        service = ""
        if kind == "sentinel":
            service, _, db = parts.path.strip("/").partition("/")
            parts = parts._replace(path=f"/{db}")
            if not service:
                raise StoreError("write redis+sentinel://host:26379,host:26379/service")
        options = _options(parts, rest, secure=secure)
        unix = "path" in options
        if unix == bool(hosts) or (unix and kind != "server"):
            raise StoreError("write redis://host:6379 or redis+unix:///path/to/socket")
        if kind == "cluster" and options.get("db"):
            raise StoreError("redis: a cluster has only the database 0")
        wait = float(options.get("socket_timeout") or 5.0)
        if replicas and patience >= wait:
            raise StoreError("redis: durable_timeout must be less than socket_timeout")
        if connections < 1:
            raise StoreError("redis: max_connections must be 1 or more")
        keyspace = Keyspace(namespace, where, replicas=replicas, patience=patience)
        target = Target(
            kind=kind,
            addresses=()
            if unix
            else tuple(_address(each, _PORTS[kind]) for each in hosts.split(",")),
            where=where,
            own=keyspace.own,
            service=service,
            secure=secure,
            options=options,
            sentinel_options=asking
            | {key: options[key] for key in options if key.startswith(("socket_", "ssl_"))},
            max_connections=connections,
            patience=wait,
        )
        try:
            target.connection(target.addresses[0] if target.addresses else None)
        except TypeError as error:
            name = str(error).partition("argument ")[2] or "parameter"
            raise StoreError(f"redis: redis-py has no {name} for such a connection") from None
        except (RedisError, ValueError, OSError) as error:
            raise StoreError(
                f"redis: redis-py refuses a parameter ({type(error).__name__})"
            ) from None
        return cls(target, keyspace)

    def read(self, keys: Collection[str]) -> Answer:
        """As `Store.read`."""
        return self._drive(self.keyspace.read(keys))

    def swap(self, writes: Sequence[Write], *, seen: Mapping[str, int] = {}) -> Answer:
        """As `Store.swap`. *seen* is sent along."""
        return self._drive(self.keyspace.swap(writes, seen))

    def scan(self, prefix: str) -> Iterator[tuple[str, Record]]:
        """As `Store.scan`, a page at a time: it blocks no writer. Keeps the keys it has yielded, so as to yield none twice."""
        page = Page()
        while not page.ended:
            self._drive(self.keyspace.scan(prefix, page))
            yield from page.found

    def close(self) -> None:
        """As `Store.close`."""
        self.keyspace.closed = True
        self.link.close()

    def _drive(self, talk: Talk[_T]) -> _T:
        try:
            ask = next(talk)
            while True:
                ask = talk.send(self.link.exchange(ask))
        except StopIteration as end:
            result: _T = end.value
            return result


class AsyncRedisStore:
    """The coroutine twin of a `RedisStore`: the same records, by connections of each event loop's own.

    A cancelled swap may have been applied. What a loop leaves open is closed as `asyncio.run` ends.
    """

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self._links: dict[asyncio.AbstractEventLoop, AsyncLink] = {}

    async def read(self, keys: Collection[str]) -> Answer:
        """As `AsyncStore.read`."""
        return await self._drive(self._store.keyspace.read(keys))

    async def swap(self, writes: Sequence[Write], *, seen: Mapping[str, int] = {}) -> Answer:
        """As `AsyncStore.swap`. *seen* is sent along."""
        return await self._drive(self._store.keyspace.swap(writes, seen))

    async def scan(self, prefix: str) -> Sequence[tuple[str, Record]]:
        """As `AsyncStore.scan`; other calls have their turn between pages."""
        page = Page()
        found: list[tuple[str, Record]] = []
        while not page.ended:
            await self._drive(self._store.keyspace.scan(prefix, page))
            found += page.found
        return found

    async def close(self) -> None:
        """As `AsyncStore.close`."""
        self._store.close()
        link = self._links.pop(asyncio.get_running_loop(), None)
        if link is not None:
            await link.close()

    async def _drive(self, talk: Talk[_T]) -> _T:
        try:
            ask = next(talk)
            link = self._link()
            while True:
                ask = talk.send(await link.exchange(ask))
        except StopIteration as end:
            result: _T = end.value
            return result

    def _link(self) -> AsyncLink:
        loop = asyncio.get_running_loop()
        link = self._links.get(loop)
        if link is None:
            link = AsyncLink(self._store.target)
            left = {old: each for old, each in self._links.items() if not old.is_closed()}
            self._links = {**left, loop: link}
        return link


def _kind(parts: SplitResult, rest: dict[str, str]) -> tuple[str, bool]:
    scheme, _, kind = parts.scheme.partition("+")
    cluster = rest.pop("cluster", "0")
    if cluster not in {"0", "1"}:
        raise StoreError(f"redis: cluster must be 0 or 1, got {cluster!r}")
    if parts.fragment or kind not in {"", "unix", "sentinel", "cluster"}:
        raise StoreError(
            "write redis://host, redis+unix:///path, redis+sentinel://host/service or redis+cluster://host"
        )
    if cluster == "1" and kind in {"", "cluster"}:
        return "cluster", scheme == "rediss"
    if cluster == "1":
        raise StoreError(f"redis: {parts.scheme}:// and cluster=1 don't go together")
    return ("server" if kind in {"", "unix"} else kind), scheme == "rediss"


def _options(parts: SplitResult, rest: dict[str, str], *, secure: bool) -> dict[str, Any]:
    """The driver's options, as the driver reads a URL."""
    for name in ("retry_on_timeout", "retry_on_error"):
        if name in rest:
            raise StoreError(f"redis: {name} can't be set, since a swap is never sent twice")
    scheme = "unix" if parts.scheme.endswith("unix") else "rediss" if secure else "redis"
    user, at, hosts = parts.netloc.rpartition("@")
    query = urlencode({"socket_timeout": 5.0, "socket_connect_timeout": 5.0, "protocol": 2} | rest)
    netloc = user + at + hosts.split(",")[0]
    try:
        options: dict[str, Any] = _parse_url(f"{scheme}://{netloc}{parts.path}?{query}")
    except ValueError as error:
        name = str(error).partition("'")[2].partition("'")[0]
        raise StoreError(f"redis: {name or 'the URL'} can't be read") from None
    for name in ("connection_class", "host", "port"):
        options.pop(name, None)
    return options


def _number(rest: dict[str, str], name: str, default: float, *, whole: bool = False) -> float:
    text = rest.pop(name, str(default))
    try:
        value = int(text) if whole else float(text)
    except ValueError:
        raise StoreError(f"redis: {name} must be a number") from None
    if not 0 <= value <= 86400:
        raise StoreError(f"redis: {name} must be 0 to 86400")
    return value


def _address(text: str, port: int) -> tuple[str, int]:
    host, colon, given = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    if not colon:
        host, given = text, str(port)
    if not host or not given.isdecimal():
        raise StoreError("redis: a server is written host:port")
    return host.strip("[]"), int(given)
