"""The conversations an account has already, made a router's assignments: nobody gets a second number."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import attrs

from linepicker.errors import InvalidRecipient, SourceError
from linepicker.model import LineView

if TYPE_CHECKING:
    from linq import AsyncLinqAPIV3, LinqAPIV3
    from linq.types import Chat

__all__ = ["aimport_chats", "import_chats"]

_Item: TypeAlias = tuple[str | tuple[str, ...], str, float | None, str]

_PAGE: Final = 100  # Linq's largest
_BATCH: Final = 500

_log = logging.getLogger(__name__)


def import_chats(
    client: LinqAPIV3,
    router: _Router,
    *,
    usable: Collection[str] | None = None,
    progress: Callable[[int], object] | None = None,
) -> int:
    """Assign each recipient that the account has a chat with to the line of that chat; how many they were.

    Of several chats with the same recipients the one active last counts, before all others those on a line that can
    send now. Left out are archived chats, chats of lines that are not *usable* (numbers; by default all of
    `router.lines()`) or that the line has left, groups of which one person remains, and handles that are neither E.164
    nor email. Whoever has a line in the router keeps it. *progress* is called with the count so far after each batch of 500.

    Raises the SDK's exceptions, `SourceError` if the pages don't end, `StoreError`. Nothing is assigned before all chats are
    read; doing it again is harmless.
    """
    found = _Found.on(router.lines(), usable)
    page = client.chats.list_chats(limit=_PAGE)
    for each in page.iter_pages():
        found.add(each.chats, each.next_cursor)
    done = 0
    for batch in found.batches():
        waiting = [batch]
        while waiting:
            items = waiting.pop()
            try:
                router.assign_many(items, keep=True)
            except InvalidRecipient as error:
                waiting += _parts(items, error)
            else:
                done += len(items)
        if progress is not None:
            progress(done)
    return done


async def aimport_chats(
    client: AsyncLinqAPIV3,
    router: _AsyncRouter,
    *,
    usable: Collection[str] | None = None,
    progress: Callable[[int], object] | None = None,
) -> int:
    """As `import_chats`, with an SDK `AsyncLinqAPIV3` and an `AsyncRouter`."""
    found = _Found.on(await router.lines(), usable)
    page = await client.chats.list_chats(limit=_PAGE)
    async for each in page.iter_pages():
        found.add(each.chats, each.next_cursor)
    done = 0
    for batch in found.batches():
        waiting = [batch]
        while waiting:
            items = waiting.pop()
            try:
                await router.assign_many(items, keep=True)
            except InvalidRecipient as error:
                waiting += _parts(items, error)
            else:
                done += len(items)
        if progress is not None:
            progress(done)
    return done


class _Router(Protocol):
    """`assign_many` takes (recipient, line, since, chat id); *keep* leaves those alone who have another line."""

    def lines(self) -> Collection[LineView]: ...
    def assign_many(self, pairs: Collection[_Item], *, keep: bool) -> object: ...


class _AsyncRouter(Protocol):
    async def lines(self) -> Collection[LineView]: ...
    async def assign_many(self, pairs: Collection[_Item], *, keep: bool) -> object: ...


@attrs.frozen(order=True)
class _Candidate:
    """One chat that could stand for its recipients; the greatest does."""

    can_send: bool
    active: float
    created: float
    chat_id: str
    number: str


@attrs.define
class _Found:
    """The best chat for each set of recipients, of those seen so far."""

    lines: dict[str, bool]  # number → can send now
    best: dict[frozenset[str], _Candidate] = attrs.Factory(dict)
    seen: set[str] = attrs.Factory(set)
    cursors: set[str] = attrs.Factory(set)

    @classmethod
    def on(cls, views: Collection[LineView], usable: Collection[str] | None) -> _Found:
        stopped = {"flagged", "ineligible"}
        lines = {view.line.number: view.standing not in stopped for view in views}
        if usable is not None:
            lines = {number: lines.get(number, True) for number in usable}
        return cls(lines)

    def add(self, chats: Sequence[Chat], cursor: str | None) -> None:
        for chat in chats:
            # Cursors may be offsets: a chat that moved meanwhile is listed again.
            if chat.id not in self.seen:
                self.seen.add(chat.id)
                self._consider(chat)
        if cursor is not None and cursor in self.cursors:
            raise SourceError("Linq's list of chats leads back to a page that was read")
        self.cursors.add(cursor or "")

    def _consider(self, chat: Chat) -> None:
        number = self._line(chat)
        recipients = frozenset(
            handle.handle.lower()
            for handle in chat.handles
            if not handle.is_me and handle.handle != number and _present(handle)
        )
        as_said = len(recipients) > 1 if chat.is_group else len(recipients) == 1
        if number is None or chat.is_archived or not as_said:
            return
        created = _moment(chat.created_at)
        active = _moment(chat.updated_at) or created
        candidate = _Candidate(self.lines[number], active, created, chat.id, number)
        known = self.best.get(recipients)
        self.best[recipients] = candidate if known is None else max(known, candidate)

    def _line(self, chat: Chat) -> str | None:
        own = [handle for handle in chat.handles if handle.is_me]
        own = own or [handle for handle in chat.handles if handle.handle in self.lines]
        numbers = [
            handle.handle for handle in own if handle.handle in self.lines and _present(handle)
        ]
        return numbers[0] if numbers else None

    def batches(self) -> Iterator[list[_Item]]:
        items: list[_Item] = [
            (
                tuple(sorted(recipients)) if len(recipients) > 1 else next(iter(recipients)),
                chat.number,
                chat.created or None,
                chat.chat_id,
            )
            for recipients, chat in self.best.items()
        ]
        for start in range(0, len(items), _BATCH):
            yield items[start : start + _BATCH]


def _parts(items: list[_Item], error: InvalidRecipient) -> list[list[_Item]]:
    """The halves of a batch in which a handle can't be used, to be tried by themselves."""
    if len(items) == 1:
        _log.warning("a chat is not imported: %s", error)  # the handle is masked there
        return []
    middle = len(items) // 2
    return [items[middle:], items[:middle]]


def _present(handle: Any) -> bool:
    return handle.left_at is None and handle.status not in {"left", "removed"}


def _moment(value: Any) -> float:
    """Epoch seconds of what the SDK made of a timestamp, 0 if it is none."""
    if not isinstance(value, datetime):
        return 0.0
    return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
