"""What a store must do, as a test of any store: `check_store(make)`, and `await check_async_store(make)`.

Each case is told once, as a generator that yields what it asks of the store and is sent the answer. A driver of a few lines
for each kind of store does the asking.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

from linepicker.errors import StoreError
from linepicker.stores import AsyncStore, Handle, Store, Write
from linepicker.testing._store_cases import CASES
from linepicker.testing._store_races import RACERS, RACES
from linepicker.testing._store_verbs import Call, Close, Flow, Read, Scan, Swap, apply, put

__all__ = ["check_async_store", "check_store"]

_T = TypeVar("_T")


def check_store(make: Callable[[], Store | Handle]) -> None:
    """Raise `AssertionError`, with a sentence, unless the stores that *make* gives do all that the port says.

    *make* is called many times; it gives a new, empty store, or a handle on one, which is closed afterwards. The store's
    clock must show a moment between the years 1970 and 2096. Starts threads, and takes seconds.
    """
    for case in CASES:
        with _made(make) as store:
            _drive(store, case())
    for race in RACES:
        with _made(make) as store, ThreadPoolExecutor(RACERS) as pool:
            _drive(store, race.start())
            running = [pool.submit(_drive, store, race.run(n)) for n in range(RACERS)]
            _drive(store, race.end([each.result() for each in running]))
    with _made(make) as store:
        _write_while_scanning(store)
    with _made(make) as one, _made(make) as two:
        _share_no_version(_drive(one, _some_versions()), _drive(two, _some_versions()))


async def check_async_store(make: Callable[[], AsyncStore | Handle]) -> None:
    """As `check_store`, for a store of coroutines. Starts tasks instead of threads."""
    for case in CASES:
        async with _amade(make) as store:
            await _adrive(store, case())
    for race in RACES:
        async with _amade(make) as store:
            await _adrive(store, race.start())
            running = [_adrive(store, race.run(n)) for n in range(RACERS)]
            await _adrive(store, race.end(await asyncio.gather(*running)))
    async with _amade(make) as one, _amade(make) as two:
        _share_no_version(
            await _adrive(one, _some_versions()), await _adrive(two, _some_versions())
        )


def _drive(store: Store, flow: Flow[_T]) -> _T:
    try:
        call = next(flow)
        while True:
            try:
                answer = _ask(store, call)
            except StoreError as error:
                call = flow.throw(error)
            else:
                call = flow.send(answer)
    except StopIteration as end:
        result: _T = end.value
        return result


async def _adrive(store: AsyncStore, flow: Flow[_T]) -> _T:
    try:
        call = next(flow)
        while True:
            try:
                answer = await _aask(store, call)
            except StoreError as error:
                call = flow.throw(error)
            else:
                call = flow.send(answer)
    except StopIteration as end:
        result: _T = end.value
        return result


def _ask(store: Store, call: Call) -> object:
    match call:
        case Read(keys):
            return store.read(keys)
        case Swap(writes, seen):
            return store.swap(writes, seen=seen)
        case Scan(prefix):
            return list(store.scan(prefix))
        case Close():
            store.close()
            return None


async def _aask(store: AsyncStore, call: Call) -> object:
    match call:
        case Read(keys):
            return await store.read(keys)
        case Swap(writes, seen):
            return await store.swap(writes, seen=seen)
        case Scan(prefix):
            return await store.scan(prefix)
        case Close():
            await store.close()
            return None


@contextmanager
def _made(make: Callable[[], Store | Handle]) -> Iterator[Store]:
    made = make()
    try:
        yield made.store() if isinstance(made, Handle) else made
    finally:
        made.close()


@asynccontextmanager
async def _amade(make: Callable[[], AsyncStore | Handle]) -> AsyncIterator[AsyncStore]:
    made = make()
    try:
        yield made.astore() if isinstance(made, Handle) else made
    finally:
        await (made.aclose() if isinstance(made, Handle) else made.close())


def _write_while_scanning(store: Store) -> None:
    """A scan half-way through must hold up no writer, and yield no key twice."""
    held = _drive(store, put({f"steady:{n}": b"" for n in range(1200)}))
    scan = store.scan("steady:")
    found = [next(scan)[0]]
    _drive(store, apply(*(Write(key, each.version, b"new") for key, each in held.items())))
    found += [key for key, _ in scan]
    assert sorted(found) == sorted(held), (
        "scan must yield each record that stays once, though it changes"
    )


def _some_versions() -> Flow[set[int]]:
    first = yield from put({"a": b"1", "b": b"2"})
    return {each.version for each in first.values()}


def _share_no_version(one: set[int], two: set[int]) -> None:
    assert not one & two, (
        "two stores must not use the same version: a wiped store would pass for the old one"
    )
