"""The door: what `linepicker` offers, and what importing it costs."""

import ast
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import linepicker

NAMES = {
    # the router and what it gives
    "AsyncRouter",
    "Reservation",
    "Router",
    # what it is given
    "Line",
    "Outcome",
    "Policy",
    "Reputation",
    "ServiceStatus",
    "Verdict",
    # what it tells
    "Assignment",
    "Candidate",
    "Capacity",
    "Decision",
    "LineView",
    "Plan",
    # what it is told
    "ChatHealthChanged",
    "Delivered",
    "Failed",
    "LineAssigned",
    "LineChanged",
    "LineReleased",
    "MessageRead",
    "OptedIn",
    "OptedOut",
    "Replied",
    # what it raises
    "AlreadySent",
    "Blocked",
    "Held",
    "InvalidRecipient",
    "LinePickerError",
    "NoLine",
    "NotNow",
    "PolicyError",
    "SourceError",
    "StaleHealth",
    "StoreError",
}

EXTRAS = ["linq", "phonenumbers", "pydantic", "rich", "starlette", "typer"]
HEAVY = ["anyio", "httpcore", "httpx", "tenacity"]


def test_the_door_offers_the_contract_and_nothing_else():
    """`linepicker` exports exactly the names of its contract, sorted, each once."""
    assert set(linepicker.__all__) == NAMES
    assert linepicker.__all__ == sorted(NAMES)


def test_every_exported_name_is_there():
    """Each exported name is one of the package's own classes, and has a docstring."""
    for name in linepicker.__all__:
        thing = getattr(linepicker, name)
        assert isinstance(thing, type)
        assert thing.__name__ == name
        assert thing.__module__.startswith("linepicker.")
        assert thing.__doc__


def test_nothing_else_lies_about():
    """Beside its exports the package has only its own modules."""
    rest = {
        name: value
        for name, value in vars(linepicker).items()
        if name.isidentifier()  # pytest's own, by which it explains asserts, are none
        and not name.startswith("_")
        and name not in linepicker.__all__
    }
    assert all(isinstance(value, ModuleType) for value in rest.values())
    assert all(value.__name__ == f"linepicker.{name}" for name, value in rest.items())


def test_the_door_does_nothing_but_name():
    """The package's own file is a docstring, imports, and the list of exports."""
    tree = ast.parse(Path(linepicker.__file__).read_text(encoding="utf-8"))
    docstring, *imports, exports = tree.body
    assert isinstance(docstring, ast.Expr)
    assert all(isinstance(node, ast.ImportFrom) for node in imports)
    assert isinstance(exports, ast.Assign)


@pytest.fixture(scope="module")
def loaded():
    """The modules of a fresh process that has imported linepicker and done nothing else."""
    script = "import sys, linepicker; print(*sys.modules)"
    said = subprocess.run(
        [sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True
    )
    return set(said.stdout.split())


@pytest.mark.parametrize("package", EXTRAS)
def test_importing_needs_no_extra(loaded, package):
    """`import linepicker` leaves the packages of its extras alone."""
    assert "linepicker" in loaded
    assert package not in loaded


@pytest.mark.parametrize("package", HEAVY)
def test_importing_is_light(loaded, package):
    """`import linepicker` leaves HTTP to those who use it."""
    assert "linepicker.errors" in loaded
    assert package not in loaded


def test_without_the_extras_it_imports_all_the_same():
    """Where no extra is installed, nothing is missing."""
    blocked = "; ".join(f"sys.modules[{name!r}] = None" for name in EXTRAS)
    script = f"import sys; {blocked}; from linepicker import *; print(Policy().prefer)"
    said = subprocess.run(
        [sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True
    )
    assert said.stdout == "healthiest\n"
