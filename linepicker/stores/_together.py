"""Work that coroutines want of a thread, taken there several things at a time: the way there and back costs more CPU time than
a transaction does."""

from __future__ import annotations

import os
import time
from asyncio import AbstractEventLoop, Future, get_running_loop
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final, Generic, TypeVar

__all__ = ["OneThread", "Together"]

_A = TypeVar("_A")
_B = TypeVar("_B")

STUCK_AFTER: Final = 0.1
"""After how many seconds with one list a thread is held up by something else than its work."""


class Together(Generic[_A, _B]):
    """A coroutine function that has *work* done on the one thread of *threads*: what comes while that is busy is its next
    work, as a list of at most *at_once* things. *work* answers each of them, or says what is to be raised for it; what it
    raises is raised for all.

    For any number of event loops. What is cancelled before the thread takes it is left undone.
    """

    def __init__(
        self,
        work: Callable[[Sequence[_A]], Sequence[_B | Exception]],
        threads: Callable[[], ThreadPoolExecutor],
        *,
        at_once: int,
    ) -> None:
        self._work = work
        self._threads = threads
        self._at_once = at_once
        self._of: ThreadPoolExecutor | None = None
        self._waiting: deque[tuple[_A, Future[_B], AbstractEventLoop]] = deque()
        self._busy = False
        self._since = 0.0

    @property
    def stuck(self) -> bool:
        """Whether the thread does not come back."""
        return self._busy and time.monotonic() > self._since + STUCK_AFTER

    async def __call__(self, thing: _A) -> _B:
        """What comes of it. Raises what *work* says."""
        threads = self._threads()
        if threads is not self._of:  # the process was forked: what waits is the parent's
            self._of, self._waiting, self._busy = threads, deque(), False
        loop = get_running_loop()
        future: Future[_B] = loop.create_future()
        self._waiting.append((thing, future, loop))
        if not self._busy:
            self._busy, self._since = True, time.monotonic()
            threads.submit(self._do_all)
        return await future

    def _do_all(self) -> None:
        self._do_some()
        if not self._waiting:
            self._busy = False
            if not self._waiting or self._busy:
                return
            self._busy = True  # something came between the two, and nobody else saw to it
        try:
            assert self._of is not None
            self._of.submit(self._do_all)  # after whatever else waits for the thread
        except RuntimeError:  # it takes nothing more: what waits is told so by the work itself
            self._do_all()

    def _do_some(self) -> None:
        self._since = time.monotonic()
        taken: list[tuple[_A, Future[_B], AbstractEventLoop]] = []
        with suppress(IndexError):
            while len(taken) < self._at_once:
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


class OneThread:
    """A thread of this process, made when first asked for: threads don't come along into a fork."""

    def __init__(self) -> None:
        self._pid = 0

    def __call__(self) -> ThreadPoolExecutor:
        """The thread."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="linepicker-together")
        return self._thread
