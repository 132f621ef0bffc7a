"""How many small faults in a room of the library do the tests notice? Mutants by Cosmic Ray, sampled and tried one by one.

    python tests/mutate.py _ranking _core --mutants 200 --processes 2

A mutant is the room with one operator, number, comparison or branch changed. It is tried in a copy of the checkout: of the
tests named for the room those that come to the changed statement run, the shortest first, until one fails. A mutant with which
one fails, or all take much longer than without a fault, is killed.
Survivors are printed as differences: each is a test that is missing, or changes nothing that anybody could notice. Those of
which `tests/equivalents.py` says why are counted as justified, without being tried.

Needs `pip install cosmic-ray`, and runs where there is `fork`. Left out: annotations, which nothing executes here, docstrings,
and assertions, which are for type checkers.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import io
import json
import math
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, pairwise
from pathlib import Path
from queue import Queue
from tokenize import generate_tokens
from types import FrameType
from typing import Any, Final

import attrs
import pytest
from equivalents import EQUAL

ROOT: Final = Path(__file__).parents[1]
BASE: Final = (
    *(
        "standing",
        "moments",
        "update",
        "outage",
        "nearness",
        "learn",
        "router",
        "priority",
        "quiet",
    ),
    *("sketch", "straight", "plan", "shadow", "conversations", "outcomes", "learned_promises"),
    *("core", "records", "moves_home", "interleavings", "invariants"),
)
"""The tests of the core's rooms: two minutes without a fault."""
TESTS: Final = {
    "_ranking": ("ranking", "straight", "plan", "router"),
    "_record": (
        "records",
        "fuzz",
        "standing",
        "learn",
        "moves_home",
        "priority",
        "interleavings",
        "straight",
    ),
    "fleet": ("fleet", *BASE, "shared_fleet", "linq_source"),
    "_flow": ("flow", *BASE, "async", "nth_failure", "critical"),
    "webhooks": ("webhooks_verify", "webhooks_events", "webhooks_fuzz", "push", "webhooks_app"),
    "stores/memory": ("stores", "stores_agree"),
    "stores/sqlite": ("sqlite", "stores", "stores_agree"),
    "stores/redis": ("redis", "stores", "stores_agree", "roundtrips"),
    "stores/postgres": ("postgres", "stores", "stores_agree", "roundtrips"),
}
OPERATORS: Final = tuple(
    f"core/{name}"
    for name in (
        *("NumberReplacer", "AddNot", "ZeroIterationForLoop"),
        *("ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr", "ReplaceOrWithAnd"),
        *("ReplaceBreakWithContinue", "ReplaceContinueWithBreak"),
        *("ReplaceUnaryOperator_Delete_USub", "ReplaceUnaryOperator_Delete_Not"),
        *(
            f"ReplaceBinaryOperator_{pair}"
            for pair in (
                *("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "FloorDiv_Mul", "Mod_Mul", "Pow_Mul"),
                *(
                    "LShift_RShift",
                    "RShift_LShift",
                    "BitAnd_BitOr",
                    "BitOr_BitAnd",
                    "BitXor_BitAnd",
                ),
            )
        ),
        *(
            f"ReplaceComparisonOperator_{pair}"
            for pair in (
                *("Lt_LtE", "LtE_Lt", "Gt_GtE", "GtE_Gt", "Lt_GtE", "LtE_Gt", "Gt_LtE", "GtE_Lt"),
                *("Eq_NotEq", "NotEq_Eq", "Is_IsNot", "IsNot_Is"),
            )
        ),
    )
)
"""What is changed. Others that Cosmic Ray has are left out: changes that any test would notice, and such as are none."""
PATIENCE: Final = 3.0
"""How many times the time that its tests take without a fault a mutant may take, and half a minute."""


@attrs.frozen
class Mutant:
    """One change to a room."""

    room: str
    line: int
    code: str


@attrs.frozen
class Tried:
    """What the tests said of a mutant. `fate`: "killed", "late", "survived", or "justified", which was not tried."""

    mutant: Mutant
    fate: str


def mutants(room: str) -> Iterator[Mutant]:
    """All that are looked at of a room."""
    from cosmic_ray import plugins
    from cosmic_ray.ast import get_ast
    from cosmic_ray.mutating import mutate_code

    source = _path(ROOT, room).read_text()
    skipped, nodes = _skipped(source), list(_walk(get_ast(source)))
    for name in OPERATORS:
        operator = plugins.get_operator(name)()
        places = [place for node in nodes for place in operator.mutation_positions(node)]
        for occurrence, (start, _) in enumerate(places):
            if any(first <= start <= last for first, last in skipped):
                continue
            code = mutate_code(source, operator, occurrence)
            if code is not None and code != source:
                yield Mutant(room, start[0], code)


def _walk(node: Any) -> Iterator[Any]:
    yield node
    for child in getattr(node, "children", ()):
        yield from _walk(child)


def _skipped(source: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Where annotations, docstrings, and what only type checkers read lie, and the stars of signatures, which are no products:
    pairs of (line, column)."""
    found: list[ast.expr | ast.stmt] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.AnnAssign) or (
            isinstance(node, ast.arg) and node.annotation is not None
        ):
            found.append(node.annotation)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns is not None:
            found.append(node.returns)
        elif (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) or isinstance(
            node, ast.Assert
        ):
            found.append(node)
    tokens = list(generate_tokens(io.StringIO(source).readline))
    stars = [
        one for one, next_one in pairwise(tokens) if (one.string, next_one.string) == ("*", ",")
    ]
    return [(each.start, each.end) for each in stars] + [
        ((each.lineno, each.col_offset), (each.end_lineno or 0, each.end_col_offset or 0))
        for each in found
    ]


def _path(root: Path, room: str) -> Path:
    return root / "linepicker" / f"{room}.py"


def _copied(folder: Path) -> Path:
    skipped = shutil.ignore_patterns("__pycache__", ".git", ".venv", ".*_cache", ".hypothesis")
    shutil.copytree(ROOT, folder, ignore=skipped)
    return folder


class Watch:
    """Which tests come to which lines of a room, and how long they take: a plugin of pytest's, which writes it to a file."""

    def __init__(self, room: Path, told: Path) -> None:
        self._room, self._told = str(room), told
        self._found: dict[str, tuple[float, list[int]]] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Around each test."""
        seen: set[int] = set()

        def called(frame: FrameType, event: str, arg: object) -> Any:
            return stepped if frame.f_code.co_filename == self._room else None

        def stepped(frame: FrameType, event: str, arg: object) -> Any:
            seen.add(frame.f_lineno)
            return stepped

        began = time.monotonic()
        threading.settrace(called)
        sys.settrace(called)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            threading.settrace(None)  # type: ignore[arg-type]  # which ends it, as above
            self._found[item.nodeid] = time.monotonic() - began, sorted(seen)

    def pytest_sessionfinish(self) -> None:
        """Write it down."""
        self._told.write_text(json.dumps(self._found))


def _ran(
    folder: Path, tests: Sequence[str], patience: float, watch: tuple[Path, Path] | None = None
) -> str:
    """Run the tests in that copy, in a child that has the libraries loaded: "survived" where none fails. *watch*: the room that
    is looked at meanwhile, and where what is found is written."""
    child = os.fork()
    if not child:
        try:
            os.setsid()
            os.chdir(folder)
            with Path(os.devnull).open("w") as nowhere:
                os.dup2(nowhere.fileno(), 1)
                os.dup2(nowhere.fileno(), 2)
            sys.path[:0] = [str(folder), str(folder / "tests")]
            os.environ["PYTHONPATH"] = str(folder)
            sys.dont_write_bytecode = True
            given = ["-x", "-q", "-p", "no:cacheprovider", "-W", "ignore:Module already imported"]
            code = pytest.main([*given, *tests], plugins=[Watch(*watch)] if watch else [])
            os._exit(int(code))
        except BaseException:  # noqa: BLE001  the child must not go on as its parent
            os._exit(99)
    until = time.monotonic() + patience
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return "survived" if status == 0 else "killed"
        time.sleep(0.02)
    os.killpg(child, 9)
    os.waitpid(child, 0)
    return "late"


def _statements(source: str) -> dict[int, range]:
    """For each line, the lines of the innermost statement that it belongs to; of one with a body, its head alone."""
    found: dict[int, range] = {}
    for node in ast.walk(ast.parse(source)):  # an outer one before those within
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            last = max(node.lineno, body[0].lineno - 1) if body else node.end_lineno
            lines = range(node.lineno, (last or node.lineno) + 1)
            found.update(dict.fromkeys(lines, lines))
    return found


def _wanted(found: Mapping[str, tuple[float, list[int]]], lines: range, within: float) -> list[str]:
    """The tests that come to these lines, the shortest first, as many as take so many seconds together; of all, where none
    does: they run when the room is loaded."""
    tests = [
        (seconds, name)
        for name, (seconds, seen) in found.items()
        if not set(lines).isdisjoint(seen)
    ]
    tests = sorted(tests or [(seconds, name) for name, (seconds, _) in found.items()])
    taken = accumulate(seconds for seconds, _ in tests)
    return [name for (_, name), so_far in zip(tests, taken, strict=True) if so_far <= within]


def main() -> int:
    """Sample, try, and tell."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("rooms", nargs="+", help="_core, webhooks, stores/sqlite, …")
    parser.add_argument("--mutants", type=int, default=200, metavar="N", help="of each room; 200")
    parser.add_argument("--seed", type=int, default=0, help="of the sample; 0")
    parser.add_argument(
        "--seconds",
        type=float,
        default=math.inf,
        metavar="S",
        help="tests that take longer together are not tried: what the shorter ones miss survives; all",
    )
    parser.add_argument("--processes", type=int, default=1, metavar="P", help="at a time; 1")
    given = parser.parse_args()
    for name in (
        "hypothesis",
        "httpx",
        "attr",
        "cachetools",
        "tenacity",
    ):
        __import__(name)  # once, not in each child
    assert "linepicker" not in sys.modules
    worst = 0
    with tempfile.TemporaryDirectory() as place:
        copies: Queue[Path] = Queue()
        for n in range(given.processes):
            copies.put(_copied(Path(place) / str(n)))
        for room in given.rooms:
            worst = max(worst, _told(room, given, copies))
    return worst


def _told(room: str, given: argparse.Namespace, copies: Queue[Path]) -> int:
    names = TESTS.get(room, BASE)
    tests = [f"tests/test_{name}.py" for name in names]
    some = list(mutants(room))
    chosen = random.Random(given.seed).sample(some, min(given.mutants, len(some)))
    source = _path(ROOT, room).read_text()
    folder = copies.get()
    watched = _path(folder, room), folder / "watched.json"
    if _ran(folder, tests, 3600.0, watched) != "survived":
        _say(f"{room}: the tests fail without any fault")
        return 1
    found = json.loads(watched[1].read_text())
    statements = _statements(source)
    copies.put(folder)

    def tried(mutant: Mutant) -> Tried:
        if _justified(mutant, source):
            return Tried(mutant, "justified")
        folder = copies.get()
        try:
            _path(folder, room).write_text(mutant.code)
            line = mutant.line  # of a decorator or an `except`, it is no statement's
            lines = statements.get(line, range(line, line + 1))
            wanted = _wanted(found, lines, given.seconds)
            patience = 30.0 + PATIENCE * sum(found[name][0] for name in wanted)
            return Tried(mutant, _ran(folder, wanted, patience))
        finally:
            _path(folder, room).write_text(source)
            copies.put(folder)

    survived, late, justified = [], 0, 0
    with ThreadPoolExecutor(given.processes) as pool:
        for n, each in enumerate(pool.map(tried, chosen), 1):
            late += each.fate == "late"
            justified += each.fate == "justified"
            if each.fate == "survived":
                survived.append(each.mutant)
                _say(_shown(each.mutant, source))
            if n % 50 == 0:
                _say(f"{room}: {n} of {len(chosen)}, {len(survived)} survived")
    killed = len(chosen) - len(survived) - justified
    share = killed / max(1, len(chosen))
    _say(
        f"{room}: {killed} of {len(chosen)} killed ({share:.1%}), {late} of them by taking too long; {justified} justified, "
        f"{len(survived)} survived; of {len(some)}"
    )
    return 0


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201  a command prints


def _justified(mutant: Mutant, source: str) -> bool:
    """Whether the table says why nobody can notice it."""
    changed = [_bare(line) for line in _changed(mutant, source)]
    return any(
        changed == [_bare(f"-{each.line}"), _bare(f"+{instead}")]
        for each in EQUAL
        if each.room == mutant.room
        for instead in each.instead
    )


def _bare(line: str) -> str:
    """A line of code without what is no code."""
    return "".join(line.partition("  #")[0].split())


def _changed(mutant: Mutant, source: str) -> list[str]:
    lines = difflib.unified_diff(source.splitlines(), mutant.code.splitlines(), lineterm="", n=0)
    return [line for line in lines if line[:1] in "+-" and line[:3] not in {"+++", "---"}]


def _shown(mutant: Mutant, source: str) -> str:
    changed = _changed(mutant, source)
    return f"{mutant.room}:{mutant.line}\n" + "\n".join(f"    {line}" for line in changed)


if __name__ == "__main__":
    sys.exit(main())
