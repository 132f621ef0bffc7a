"""The best eligible line, found in O(log N) steps and kept up to date line by line.

Lines that are as good as each other sit in a binary trie by a hash of their number. Where it forks, one bit of the recipient's
hash chooses, another one at each depth. So the choice does not depend on the order of the list or on the process, and removing
a line that was not chosen changes nothing.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from heapq import heapify, heappop, heappush
from typing import Final

__all__ = ["Key", "Order", "Ranking"]

Key = tuple[float, float]
"""How good a line is, larger better: (0 if free now, else minus the second of its next slot; score)."""

_BITS: Final = 64
_SALT_BITS: Final = 32


class _Node:
    """A place in a trie: a leaf with a number, or a fork, where numbers part whose hashes are alike until then.

    Of a fork's `hash` only the bits from `alike` up count: all hashes below have them. `part`: the next one, by which they go
    left or right. `bit`: the bit of a recipient's salt that chooses here. Leaves have none of the last five, forks no `key`.
    """

    __slots__ = ("alike", "bit", "hash", "key", "left", "number", "parent", "part", "right")

    number: str | None
    hash: int
    parent: _Node | None
    key: Key
    left: _Node
    right: _Node
    part: int
    alike: int
    bit: int


def _leaf(number: str) -> _Node:
    leaf = _Node()
    leaf.number, leaf.hash, leaf.parent = number, _hash(number), None
    return leaf


def _planted(root: _Node, leaf: _Node) -> _Node:
    """The root of a trie with one leaf more."""
    node, parent, bits = root, None, leaf.hash
    while node.number is None and bits ^ node.hash < node.alike:
        node, parent = node.right if bits & node.part else node.left, node
    size = (bits ^ node.hash).bit_length()
    fork = _Node()
    fork.number, fork.hash = None, bits
    fork.alike, fork.part = 1 << size, 1 << size - 1
    fork.bit = 1 << (_BITS - size) % _SALT_BITS
    fork.left, fork.right = (node, leaf) if bits & fork.part else (leaf, node)
    node.parent = leaf.parent = fork
    return _put_below(root, parent, node, fork)


def _uprooted(root: _Node, leaf: _Node) -> _Node | None:
    """The root of a trie without one of its leaves; None: that was the last."""
    fork = leaf.parent
    if fork is None:
        return None
    leaf.parent = None
    return _put_below(root, fork.parent, fork, fork.left if leaf is fork.right else fork.right)


def _put_below(root: _Node, parent: _Node | None, was: _Node, node: _Node) -> _Node:
    """Put a node where another one was; the root then."""
    node.parent = parent
    if parent is None:
        return node
    if parent.left is was:
        parent.left = node
    else:
        parent.right = node
    return root


def _first(node: _Node, salt: int) -> tuple[_Node, _Node | None]:
    """The leaf below a node that a salt chooses, and the nearest subtree beside its path."""
    beside = None
    while node.number is None:
        if salt & node.bit:
            node, beside = node.right, node.left
        else:
            node, beside = node.left, node.right
    return node, beside


def _all(node: _Node, salt: int) -> Iterator[_Node]:
    """All leaves below a node, in the order in which a salt would choose them."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if node.number is not None:
            yield node
        elif salt & node.bit:
            waiting += (node.left, node.right)
        else:
            waiting += (node.right, node.left)


class Order:
    """Numbers by their keys."""

    def __init__(self) -> None:
        self._leaves: dict[str, _Node] = {}
        self._roots: dict[Key, _Node] = {}
        self._keys: list[Key] = []
        """Those of `_roots`, the best last."""

    def __len__(self) -> int:
        return len(self._leaves)

    def put(self, number: str, key: Key) -> None:
        """Set a number's key."""
        leaf = self._leaves.get(number)
        if leaf is None:
            leaf = self._leaves[number] = _leaf(number)
        elif leaf.key == key:
            return
        else:
            self._take_out(leaf)
        leaf.key = key
        root = self._roots.get(key)
        if root is None:
            self._roots[key] = leaf
            insort(self._keys, key)
        else:
            self._roots[key] = _planted(root, leaf)

    def remove(self, number: str) -> None:
        """Take a number out, if it is in."""
        leaf = self._leaves.pop(number, None)
        if leaf is not None:
            self._take_out(leaf)

    def first_two(self, salt: int) -> Sequence[str]:
        """The two best, or as many as there are. *salt*, a number of 32 bits, settles ties."""
        keys, roots = self._keys, self._roots
        if not keys:
            return ()
        best, beside = _first(roots[keys[-1]], salt)
        if beside is None:
            if len(keys) == 1:
                return (best.number,)  # type: ignore[return-value]  # a leaf has one
            beside = roots[keys[-2]]
        return best.number, _first(beside, salt)[0].number  # type: ignore[return-value]  # so have these

    def walk(self, salt: int) -> Iterator[str]:
        """All numbers, best first, beginning with `first_two`. The order must not change meanwhile."""
        for key in reversed(self._keys):
            for leaf in _all(self._roots[key], salt):
                yield leaf.number  # type: ignore[misc]  # a leaf has one

    def _take_out(self, leaf: _Node) -> None:
        key = leaf.key
        root = _uprooted(self._roots[key], leaf)
        if root is None:
            del self._roots[key]
            del self._keys[bisect_left(self._keys, key)]
        else:
            self._roots[key] = root


class Ranking:
    """Eligible lines by tier (0 first) and, where asked for, by area; and when each must be looked at again."""

    def __init__(self, tiers: int, *, areas: bool) -> None:
        self._tiers = tuple(Order() for _ in range(tiers))
        self._areas: dict[tuple[int, str], Order] | None = {} if areas else None
        self._where: dict[str, tuple[int, str | None]] = {}
        self._due: list[tuple[float, str]] = []
        self._until: dict[str, float] = {}

    @property
    def tiers(self) -> tuple[Order, ...]:
        """The lines of each tier, the better tier first."""
        return self._tiers

    def area(self, tier: int, area: str) -> Order | None:
        """The lines of one tier and area."""
        return None if self._areas is None else self._areas.get((tier, area))

    def put(self, number: str, tier: int, key: Key, area: str | None, until: float) -> None:
        """Rank a line; it is due again at *until*."""
        if self._where.get(number, (tier, area)) != (tier, area):
            self._take_out(number)
        self._where[number] = (tier, area)
        self._tiers[tier].put(number, key)
        if self._areas is not None and area is not None:
            self._areas.setdefault((tier, area), Order()).put(number, key)
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
