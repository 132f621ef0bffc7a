"""The best eligible line in O(log N), kept up to date line by line.

Lines sit in a binary trie by a hash of their number; each node knows the best key below it. Where both subtrees of a fork hold
the same best key, one bit of the recipient's hash chooses, another one at each depth. So the choice does not depend on the
order of the list or on the process, and removing a line that was not chosen changes nothing.
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
_SALT_BITS: Final = 32


class _Node:
    """A place in the trie: a leaf with a number, or a fork.

    `name` is its place as in a binary heap: 1 the root, 2n and 2n + 1 the children of n. `bit`: the bit of a recipient's salt
    that settles ties here. The best key below it is None while nothing is; `lead` is the child that holds it, None where both
    do.
    """

    __slots__ = ("best", "bit", "lead", "left", "name", "number", "parent", "right")

    def __init__(self, name: int, parent: _Node | None) -> None:
        self.name = name
        self.bit = 1 << (name.bit_length() - 1) % _SALT_BITS
        self.parent = parent
        self.best: Key | None = None
        self.number: str | None = None
        self.lead: _Node | None = None
        self.left: _Node | None = None
        self.right: _Node | None = None


class Trie:
    """Numbers with keys."""

    def __init__(self) -> None:
        self._root = _Node(1, None)
        self._leaves: dict[str, _Node] = {}

    def __len__(self) -> int:
        return len(self._leaves)

    def put(self, number: str, key: Key) -> None:
        """Set a number's key."""
        leaf = self._leaves.get(number)
        if leaf is None:
            leaf = self._leaves[number] = self._plant(number)
        elif leaf.best == key:
            return
        leaf.best = key
        _update(leaf.parent)

    def remove(self, number: str) -> None:
        """Take a number out, if it is in."""
        leaf = self._leaves.pop(number, None)
        if leaf is not None:
            leaf.best = leaf.number = None
            _update(leaf.parent)

    def first_two(self, salt: int) -> Sequence[str]:
        """The two best, or as many as there are. *salt*, a number of 32 bits, settles ties."""
        if self._root.best is None:
            return ()
        best, tied = _descend(self._root, salt)
        other = tied or _beside(best)
        found = [best] if other is None else [best, _descend(other, salt)[0]]
        return [leaf.number for leaf in found]  # type: ignore[misc]  # a leaf has one

    def walk(self, salt: int) -> Iterator[str]:
        """All numbers, best first, beginning with `first_two`'s first. The trie must not change meanwhile."""
        return _walk(self._root, salt)

    def _plant(self, number: str) -> _Node:
        bits, node, depth = _hash(number), self._root, 0
        while node.number is not None or node.left is not None or node.right is not None:
            if (
                node.number is not None
            ):  # two can't share a leaf: the one that is there moves one down
                below = _child(node, _hash(node.number) >> (_BITS - 1 - depth) & 1)
                below.number, below.best, node.lead = node.number, node.best, below
                self._leaves[node.number], node.number = below, None
            node = _child(node, bits >> (_BITS - 1 - depth) & 1)
            depth += 1
        node.number = number
        return node


def _descend(node: _Node, salt: int) -> tuple[_Node, _Node | None]:
    """The best leaf below a node that holds any, and the nearest subtree beside its path that holds one as good."""
    tied = None
    while node.number is None:
        lead = node.lead
        if (
            lead is None
        ):  # both hold it: as `_left_first`, written out since nearly all the time goes here
            if salt & node.bit:
                lead, tied = node.right, node.left
            else:
                lead, tied = node.left, node.right
        assert lead is not None
        node = lead
    return node, tied


def _beside(leaf: _Node) -> _Node | None:
    """The best of the subtrees beside the path to a leaf; on a tie the nearer one."""
    found, best, node, parent = None, _NONE, leaf, leaf.parent
    while parent is not None:
        other = parent.right if node is parent.left else parent.left
        if other is not None and other.best is not None and other.best > best:
            found, best = other, other.best
        node, parent = parent, parent.parent
    return found


def _child(node: _Node, right: int) -> _Node:
    found = node.right if right else node.left
    if found is None:
        found = _Node(2 * node.name + right, node)
        if right:
            node.right = found
        else:
            node.left = found
    return found


def _update(node: _Node | None) -> None:
    """Bring the best keys up to date from *node* to the root."""
    while node is not None:
        left, right = node.left, node.right
        one = None if left is None else left.best
        two = None if right is None else right.best
        if two is None or (one is not None and one > two):
            best, node.lead = one, left
        elif one is None or two > one:
            best, node.lead = two, right
        else:
            best, node.lead = one, None
        if best == node.best:
            return
        node.best = best
        node = node.parent


def _left_first(node: _Node, salt: int) -> bool:
    """Of two equally good subtrees of a node, whether the left one comes first for this recipient."""
    return not salt & node.bit


def _walk(root: _Node, salt: int) -> Iterator[str]:
    if root.best is None:
        return
    heap: list[tuple[float, float, int, int, _Node]] = [(0.0, 0.0, 0, root.name, root)]
    width = 1 << 2 * _BITS
    while heap:
        _, _, order, _, node = heappop(heap)
        if node.number is not None:
            yield node.number
            continue
        step = width >> node.name.bit_length()
        places = (order, order + step) if _left_first(node, salt) else (order + step, order)
        for child, place in zip((node.left, node.right), places, strict=True):
            if child is not None and child.best is not None:
                slot, score = child.best
                heappush(heap, (-slot, -score, place, child.name, child))


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
