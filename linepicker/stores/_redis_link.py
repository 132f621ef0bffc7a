"""Connections to a Redis, for threads and for coroutines: kept open, each used by one call at a time, dropped when in doubt."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Any

from redis.exceptions import ResponseError

from linepicker.stores._redis_keys import Exchange
from linepicker.stores._redis_server import (
    FAILURES,
    INSPECTION,
    MOVES,
    Address,
    Course,
    Target,
    busy,
)

__all__ = ["AsyncLink", "Link"]


class Link(Course):
    """Connections for threads. A fork leaves the child without any, to make its own."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._closed = False
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._free: list[Any] = []
        self._slots: SimpleQueue[None] = SimpleQueue()  # a tenth of what a semaphore costs
        for _ in range(self.target.max_connections):
            self._slots.put(None)

    def exchange(self, ask: Exchange) -> list[Any]:
        """The replies. Raises StoreError."""
        if self._pid != os.getpid():
            self._begin()  # what was open is the parent's
        packed = self.packed(ask)
        for attempt in range(MOVES + 1):
            sent = False
            try:
                self._slots.get(timeout=self.target.patience)
            except Empty:
                raise busy(self.target) from None
            try:
                connection = self._opened()
                try:
                    sent = True
                    connection.send_packed_command([packed])
                    replies = [_reply(connection) for _ in ask.commands]
                except BaseException:
                    connection.disconnect()  # its replies would come to the next user
                    raise
                self._free.append(connection)
            except FAILURES as error:
                self._drop()
                self.failed(ask, error, attempt, sent=sent)
            else:
                if self._closed:
                    self._drop()
                if self.judge(replies, attempt):
                    return replies
                self._drop()
            finally:
                self._slots.put(None)
        raise AssertionError  # the last attempt returns or raises

    def _opened(self) -> Any:
        while self._free:
            with suppress(IndexError, *FAILURES):
                connection = self._free.pop()
                if not connection.can_read():
                    return connection
                connection.disconnect()  # what can be read is that the server has closed it
        connection = self.target.connection(self._located())
        try:
            connection.connect()
            connection.send_packed_command([INSPECTION])
            self.inspect(_reply(connection), _reply(connection))
        except BaseException:
            connection.disconnect()
            raise
        return connection

    def _located(self) -> Address | None:
        flow = self.target.locate(self.known)
        try:
            address, question = next(flow)
            while True:
                address, question = flow.send(self._asked(address, question))
        except StopIteration as end:
            found: Address | None = end.value
            return found

    def _asked(self, address: Address, question: bytes) -> object:
        connection = self.target.connection(address, asks=True)
        try:
            connection.connect()
            connection.send_packed_command([question])
            return _reply(connection)
        except FAILURES as error:
            return error
        finally:
            connection.disconnect()

    def _drop(self) -> None:
        while self._free:
            with suppress(IndexError):
                self._free.pop().disconnect()

    def close(self) -> None:
        """Let go of all, now or as soon as they are free."""
        self._closed = True
        if self._pid == os.getpid():
            self._drop()


class AsyncLink(Course):
    """Connections for the coroutines of one event loop, closed at the latest when that ends."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._free: list[Any] = []
        self._slots = asyncio.Semaphore(target.max_connections)
        self._closed = False
        self._watch: AsyncGenerator[None] | None = None

    async def exchange(self, ask: Exchange) -> list[Any]:
        """As `Link.exchange`."""
        packed = self.packed(ask)
        for attempt in range(MOVES + 1):
            sent = False
            try:
                async with self._connection() as connection:
                    sent = True
                    await connection.send_packed_command([packed])
                    replies = [await _areply(connection) for _ in ask.commands]
            except FAILURES as error:
                await self._drop()
                self.failed(ask, error, attempt, sent=sent)
            else:
                if self.judge(replies, attempt):
                    return replies
                await self._drop()
        raise AssertionError  # the last attempt returns or raises

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        try:
            async with asyncio.timeout(self.target.patience if self._slots.locked() else None):
                await self._slots.acquire()
        except TimeoutError:
            raise busy(self.target) from None
        try:
            connection = await self._opened()
            try:
                yield connection
            except BaseException:
                await connection.disconnect(nowait=True)
                raise
            self._free.append(connection)
            if self._closed:
                await self._drop()
        finally:
            self._slots.release()

    async def _opened(self) -> Any:
        while self._free:
            connection, ended = self._free.pop(), True
            try:
                with suppress(*FAILURES):
                    ended = await _has_data(connection)  # as in `Link`
            finally:
                if ended:
                    await connection.disconnect(nowait=True)
            if not ended:
                return connection
        if self._watch is None:
            self._watch = self._until_the_loop_ends()
            await anext(self._watch)
        connection = self.target.aconnection(await self._located())
        try:
            await connection.connect()
            await connection.send_packed_command([INSPECTION])
            self.inspect(await _areply(connection), await _areply(connection))
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection

    async def _until_the_loop_ends(self) -> AsyncGenerator[None]:
        """A loop that ends closes the generators that were begun on it, and so this link."""
        try:
            yield
        finally:
            await self._drop()

    async def _located(self) -> Address | None:
        flow = self.target.locate(self.known)
        try:
            address, question = next(flow)
            while True:
                address, question = flow.send(await self._asked(address, question))
        except StopIteration as end:
            found: Address | None = end.value
            return found

    async def _asked(self, address: Address, question: bytes) -> object:
        connection = self.target.aconnection(address, asks=True)
        try:
            await connection.connect()
            await connection.send_packed_command([question])
            return await _areply(connection)
        except FAILURES as error:
            return error
        finally:
            await connection.disconnect(nowait=True)

    async def _drop(self) -> None:
        while self._free:
            await self._free.pop().disconnect()

    async def close(self) -> None:
        """As `Link.close`."""
        self._closed = True
        await self._drop()
        if self._watch is not None:
            await self._watch.aclose()


def _reply(connection: Any) -> object:
    try:
        return connection.read_response(disable_decoding=True)
    except ResponseError as error:
        return error


async def _areply(connection: Any) -> object:
    try:
        return await connection.read_response(disable_decoding=True)
    except ResponseError as error:
        return error


async def _has_data(connection: Any) -> bool:
    look = (
        getattr(connection, "can_read", None) or connection.can_read_destructive
    )  # before redis-py 8
    found: bool = await look()
    return found
