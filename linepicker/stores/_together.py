"""Work that coroutines want of a thread, taken there all at once: to go there and back costs more than most of the work."""

from __future__ import annotations

from asyncio import AbstractEventLoop, Future, get_running_loop
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final, Generic, TypeVar

__all__ = ["Together"]

_A = TypeVar("_A")
_B = TypeVar("_B")

AT_ONCE: Final = 64
"""How many things are worked on at once."""


class Together(Generic[_A, _B]):
    """A coroutine function that has *work* done on a thread of *threads*: what comes while that thread is busy is its next
    work, as one list. *work* answers each thing, or says what is to be raised for it.

    For any number of event loops. What is cancelled before the thread takes it is left undone.
    """

    def __init__(
        self,
        work: Callable[[Sequence[_A]], Sequence[_B | Exception]],
        threads: Callable[[], ThreadPoolExecutor],
    ) -> None:
        self._work = work
        self._threads = threads
        self._of: ThreadPoolExecutor | None = None
        self._waiting: deque[tuple[_A, Future[_B], AbstractEventLoop]] = deque()
        self._busy = False

    async def __call__(self, thing: _A) -> _B:
        """What comes of it. Raises what *work* says."""
        threads = self._threads()
        if threads is not self._of:  # the process was forked: what waits is the parent's
            self._of, self._waiting, self._busy = threads, deque(), False
        loop = get_running_loop()
        future: Future[_B] = loop.create_future()
        self._waiting.append((thing, future, loop))
        if not self._busy:
            self._busy = True
            threads.submit(self._do_all)
        return await future

    def _do_all(self) -> None:
        while True:
            while self._waiting:
                self._do_some()
            self._busy = False
            if not self._waiting or self._busy:
                return
            self._busy = True  # something came between the two, and nobody else saw to it

    def _do_some(self) -> None:
        taken: list[tuple[_A, Future[_B], AbstractEventLoop]] = []
        with suppress(IndexError):
            while len(taken) < AT_ONCE:
                taken.append(self._waiting.popleft())
        taken = [each for each in taken if not each[1].cancelled()]
        results: Sequence[_B | Exception]
        try:
            results = self._work([thing for thing, _, _ in taken]) if taken else []
        except Exception as error:  # noqa: BLE001  which is theirs who wait
            results = [error] * len(taken)
        told: dict[AbstractEventLoop, list[tuple[Future[_B], _B | Exception]]] = {}
        for (_, future, loop), result in zip(taken, results, strict=True):
            told.setdefault(loop, []).append((future, result))
        for loop, mine in told.items():
            with suppress(RuntimeError):  # the loop is closed: nobody waits there
                loop.call_soon_threadsafe(_tell, mine)


def _tell(told: Sequence[tuple[Future[_B], _B | Exception]]) -> None:
    for future, result in told:
        if future.done():
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
