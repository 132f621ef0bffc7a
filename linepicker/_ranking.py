"""The best eligible line in O(log N), kept up to date line by line.

Lines sit in a binary trie by a hash of their number; each node knows the best key below it. Among subtrees that hold the
same best key, a hash of (recipient, node) chooses. So the choice does not depend on the order of the list or on the process,
and removing a line that was not chosen changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from heapq import heapify, heappop, heappush
from typing import Final

__all__ = ["Key", "Ranking", "Trie"]

Key = tuple[float, float]
"""How good a line is, larger better: (0 if free now, else minus the second of its next slot; score)."""

_BITS: Final = 64
_NONE: Final[Key] = (float("-inf"), 0.0)
_MIX: Final = 0x9E3779B97F4A7C15


class Trie:
    """Numbers with keys. A node is a number as in a binary heap: 1 the root, 2n and 2n+1 the children of n."""

    def __init__(self) -> None:
        self._best: dict[int, Key] = {}
        self._leaf: dict[int, str] = {}
        self._place: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._place)

    def put(self, number: str, key: Key) -> None:
        """Set a number's key."""
        node = self._place.get(number)
        if node is None:
            node = self._make_place(number)
        elif self._best[node] == key:
            return
        self._best[node] = key
        self._update(node)

    def remove(self, number: str) -> None:
        """Take a number out, if it is in."""
        node = self._place.pop(number, None)
        if node is not None:
            del self._leaf[node], self._best[node]
            self._update(node)

    def first(self, salt: int) -> str | None:
        """The number with the best key; *salt* settles ties."""
        return self._descend(1, salt) if self._place else None

    def first_two(self, salt: int) -> Sequence[str]:
        """The two best, or as many as there are."""
        if not self._place:
            return ()
        best, leaf = self._best, self._leaf
        node, other, other_key = 1, 0, _NONE
        while node not in leaf:
            left, right = best.get(2 * node), best.get(2 * node + 1)
            if left == right:
                taken = self._preferred(node, salt)
            else:
                taken = 2 * node + (left is None or (right is not None and right > left))
            left_out = right if taken == 2 * node else left
            if left_out is not None and left_out >= other_key:  # on a tie the nearer one
                other, other_key = taken ^ 1, left_out
            node = taken
        return (leaf[node], self._descend(other, salt)) if other else (leaf[node],)

    def walk(self, salt: int) -> Iterator[str]:
        """All numbers, best first; the first is `first(salt)`. The trie must not change meanwhile."""
        if not self._place:
            return
        best, leaf = self._best, self._leaf
        slot, score = best[1]
        heap = [(-slot, -score, 0, 1)]
        width = 1 << 2 * _BITS
        while heap:
            _, _, order, node = heappop(heap)
            if node in leaf:
                yield leaf[node]
                continue
            step = width >> node.bit_length()
            preferred = self._preferred(node, salt)
            for child, place in ((preferred, order), (preferred ^ 1, order + step)):
                key = best.get(child)
                if key is not None:
                    heappush(heap, (-key[0], -key[1], place, child))

    def _preferred(self, node: int, salt: int) -> int:
        mixed = (salt ^ (node * _MIX)) * _MIX & 0xFFFFFFFFFFFFFFFF
        return 2 * node + (mixed >> 63)

    def _descend(self, node: int, salt: int) -> str:
        best, leaf = self._best, self._leaf
        while True:
            found = leaf.get(node)
            if found is not None:
                return found
            left, right = best.get(2 * node), best.get(2 * node + 1)
            if left == right:
                node = self._preferred(node, salt)
            elif right is None or (left is not None and left > right):
                node = 2 * node
            else:
                node = 2 * node + 1

    def _make_place(self, number: str) -> int:
        bits = _hash(number)
        depth, node = 0, 1
        while node in self._best and depth < _BITS:
            if node in self._leaf:  # two can't share a leaf: the one that is there moves one down
                other = self._leaf.pop(node)
                below = 2 * node + (_hash(other) >> (_BITS - 1 - depth) & 1)
                self._leaf[below], self._place[other] = other, below
                self._best[below] = self._best[node]
            node = 2 * node + (bits >> (_BITS - 1 - depth) & 1)
            depth += 1
        self._leaf[node], self._place[number] = number, node
        return node

    def _update(self, node: int) -> None:
        best = self._best
        while node > 1:
            node >>= 1
            left, right = best.get(2 * node), best.get(2 * node + 1)
            if left is None and right is None:
                best.pop(node, None)
                continue
            new = left if right is None or (left is not None and left > right) else right
            if new == best.get(node):
                return
            assert new is not None
            best[node] = new


class Ranking:
    """Eligible lines by tier (0 first) and, where asked for, by area; and when each must be looked at again."""

    def __init__(self, tiers: int, *, areas: bool) -> None:
        self._tiers = tuple(Trie() for _ in range(tiers))
        self._areas: dict[tuple[int, str], Trie] | None = {} if areas else None
        self._where: dict[str, tuple[int, str | None]] = {}
        self._due: list[tuple[float, str]] = []
        self._until: dict[str, float] = {}

    @property
    def tiers(self) -> tuple[Trie, ...]:
        """One trie per tier, the better tier first."""
        return self._tiers

    def area(self, tier: int, area: str) -> Trie | None:
        """The lines of one tier and area."""
        return None if self._areas is None else self._areas.get((tier, area))

    def put(self, number: str, tier: int, key: Key, area: str | None, until: float) -> None:
        """Rank a line; it is due again at *until*."""
        if self._where.get(number, (tier, area)) != (tier, area):
            self._take_out(number)
        self._where[number] = (tier, area)
        self._tiers[tier].put(number, key)
        if self._areas is not None and area is not None:
            self._areas.setdefault((tier, area), Trie()).put(number, key)
        self._watch(number, until)

    def exclude(self, number: str, until: float) -> None:
        """Take a line out of the ranking; it is due again at *until*."""
        self._take_out(number)
        self._watch(number, until)

    def forget(self, number: str) -> None:
        """The line is gone."""
        self._take_out(number)
        self._until.pop(number, None)

    @property
    def next_due(self) -> float:
        """Before this moment no line is due."""
        return self._due[0][0] if self._due else float("inf")

    def due(self, now: float) -> list[str]:
        """The lines whose moment has come. Each is named once; `put` or `exclude` gives it a new moment."""
        found = []
        while self._due and self._due[0][0] <= now:
            until, number = heappop(self._due)
            if self._until.get(number) == until:
                del self._until[number]
                found.append(number)
        return found

    def _watch(self, number: str, until: float) -> None:
        if self._until.get(number) == until:
            return
        self._until[number] = until
        heappush(self._due, (until, number))
        if len(self._due) > 8 * len(self._until) + 64:  # mostly moments that were overtaken
            self._due = [(moment, name) for name, moment in self._until.items()]
            heapify(self._due)

    def _take_out(self, number: str) -> None:
        where = self._where.pop(number, None)
        if where is not None:
            tier, area = where
            self._tiers[tier].remove(number)
            if self._areas is not None and area is not None:
                self._areas[where[0], area].remove(number)


def _hash(number: str) -> int:
    return int.from_bytes(blake2b(number.encode(), digest_size=8).digest())
