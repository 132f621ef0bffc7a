"""A seed's story told, and made as short as it gets while it still fails."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import attrs

from benchmarks.faults.story import KINDS, Step, Story
from benchmarks.faults.written import Violation

STEPS: Final = 950


@attrs.frozen
class Told:
    """What a seed came to. `steps`: what is left of its story, if it failed. `seen`: how often what happened."""

    seed: int
    decisions: int
    reserved: int
    trace: str
    violation: str = ""
    steps: tuple[Step, ...] = ()
    seen: Counter[str] = attrs.field(factory=Counter, eq=False)


def story_of(seed: int, steps: int = STEPS) -> list[Step]:
    """What happens in a seed's story."""
    dice = random.Random(seed * 2 + 1)
    kinds = dice.choices(list(KINDS), list(KINDS.values()), k=steps)
    return [Step(kind, dice.getrandbits(48)) for kind in kinds]


def tell(
    seed: int, steps: Sequence[Step | tuple[str, int]] | None = None, *, stalls: bool = False
) -> Told:
    """One seed's story, or what *steps* leave of it."""
    mine = story_of(seed) if steps is None else [_step(each) for each in steps]
    story, broken = Story(seed, stalls=stalls), ""
    try:
        story.tell(mine)
    except Violation as error:
        broken = str(error)
    except Exception as error:  # noqa: BLE001  an error that is not documented breaks a promise, too
        broken = f"{type(error).__name__}: {error}"
    world = story.world
    left = tuple(mine[: story.told]) if broken else ()
    told = world.trace.hexdigest()
    return Told(seed, world.decisions, world.ledger.reserved, told, broken, left, world.seen)


def _step(given: Step | tuple[str, int]) -> Step:
    return given if isinstance(given, Step) else Step(*given)


def shortened(
    found: Told, say: Callable[[str], None] = lambda _: None, *, stalls: bool = False
) -> Told:
    """The same failure with as few steps as can be found by leaving some out."""
    size, kind = max(1, len(found.steps) // 2), _kind(found.violation)
    while True:
        start, less = 0, False
        while start < len(found.steps):
            tried = tell(
                found.seed, found.steps[:start] + found.steps[start + size :], stalls=stalls
            )
            if _kind(tried.violation) == kind:
                found, less = tried, True
                say(f"{len(found.steps)} steps")
            else:
                start += size
        if size == 1 and not less:
            return found
        size = max(1, size // 2)


def _kind(violation: str) -> str:
    """A violation without its numbers."""
    return re.sub(r"[0-9a-f]{24}|[-+0-9.]+", "#", violation)
