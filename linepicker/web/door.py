"""What the page asks of a router, of either kind: a Router is asked in a worker thread, an AsyncRouter is awaited."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from anyio import CapacityLimiter
from anyio.to_thread import run_sync

from linepicker._asks import Flow, Made
from linepicker._overview import Overview, overview
from linepicker._windows import HOUR
from linepicker.arouter import AsyncRouter
from linepicker.errors import Blocked, Held, NoLine, NotNow, StaleHealth
from linepicker.fleet import Fleet
from linepicker.model import Assignment, Decision
from linepicker.plans import Capacity
from linepicker.router import Router

__all__ = ["MOST", "AnyRouter", "Door"]

AnyRouter: TypeAlias = Router | AsyncRouter

MOST: Final = 50_000
"""So many new conversations are looked ahead, which takes a few seconds; lines without limits would never end."""
_THREADS: Final = 2
"""How many questions a Router is asked at once: the page must not crowd out those who send."""


class Door:
    """A router, asked by coroutines. Lives as long as the page. Every verb raises what the router's does."""

    def __init__(self, router: AnyRouter) -> None:
        self._router = router
        self._threads: CapacityLimiter | None = None

    def watch(self, listener: Callable[[Made | Decision], None]) -> None:
        """Tell *listener* of every choice from now on: the reservation, or the decision of a refusal
        before it is raised. It must be quick and never raise, for it is called in the middle of the call.

        It stands in the way of the router's own function, so that nothing is asked where nobody watches."""
        desk = self._router._desk
        plain = desk.reserve

        def watched(*values: Any, **more: Any) -> Flow[Made]:
            try:
                made: Made = yield from plain(*values, **more)
            except (NoLine, Held, NotNow, Blocked, StaleHealth) as refusal:
                listener(refusal.decision)
                raise
            listener(made)
            return made

        desk.straight = lambda *_: None  # type: ignore[method-assign]  # nobody goes past it
        desk.reserve = watched  # type: ignore[method-assign]  # as said

    @property
    def pool(self) -> str:
        """Whose assignments are shown."""
        return self._router._desk.pool

    @property
    def ttl(self) -> float:
        """Seconds after which the list of lines is read again."""
        return self._router._desk.policy.health.ttl

    async def overview(self) -> Overview:
        """All lines, read anew."""
        found: Overview = await self._flow(overview)
        return found

    async def outlook(self, hours: int) -> tuple[int, ...]:
        """How many new conversations fit into each of the next hours; the first `MOST` of them."""
        now, found = self._router._clock.now(), [0] * hours
        desk = self._router._desk
        fits: Capacity = await self._flow(lambda _, at: desk.capacity(at, hours * HOUR, MOST))
        for at in fits.moments:
            found[min(hours - 1, max(0, int((at - now) // HOUR)))] += 1
        return tuple(found)

    async def assignment(self, to: str | list[str]) -> Assignment | None:
        """Whose line a recipient has."""
        found: Assignment | None = await self._ask(self._router.assignment, to)
        return found

    async def preview(self, to: str | list[str]) -> Decision:
        """What a message to them would meet."""
        found: Decision = await self._ask(self._router.preview, to)
        return found

    async def operate(self, verb: str, number: str, reason: str) -> None:
        """Pause, drain or resume a line."""
        if verb == "resume":
            await self._ask(self._router.resume, number)
        else:
            verbs = {"pause": self._router.pause, "drain": self._router.drain}
            await self._ask(verbs[verb], number, reason=reason)

    async def in_a_thread(self, work: Callable[[], Any]) -> Any:
        """What *work* gives, while the event loop goes on."""
        if self._threads is None:
            self._threads = CapacityLimiter(_THREADS)  # belongs to the loop it is made in
        return await run_sync(work, limiter=self._threads)

    async def _ask(self, verb: Callable[..., Any], *values: Any, **more: Any) -> Any:
        if inspect.iscoroutinefunction(verb):
            return await verb(*values, **more)
        return await self.in_a_thread(lambda: verb(*values, **more))

    async def _flow(self, begin: Callable[[Fleet, float], Flow[Any]]) -> Any:
        router = self._router
        router._alive()
        flow = begin(router._desk.fleet, router._clock.now())
        if isinstance(router, AsyncRouter):
            return await router._drive(flow)
        return await self.in_a_thread(lambda: router._drive(flow))
