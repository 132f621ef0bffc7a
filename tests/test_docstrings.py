"""The reference in the docstrings: its examples run and print what they say, and each name of the contract has its say."""

import doctest
import importlib
import inspect
from pathlib import Path

import pytest

import linepicker
from linepicker import testing

LIBRARY = Path(linepicker.__file__).parent
MODULES = sorted(
    ".".join(("linepicker", *path.relative_to(LIBRARY).with_suffix("").parts)).removesuffix(
        ".__init__"
    )
    for path in LIBRARY.rglob("*.py")
    if ">>>" in path.read_text(encoding="utf-8")
)
SHOWN = [
    "Router",
    "AsyncRouter",
    "Reservation",
    "Line",
    "Policy",
    "LineChanged",
    "Replied",
    "OptedOut",
]
SHOWN += ["Decision", "LineView", "Plan", "Capacity", "Verdict"]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_do_what_is_said(name, tmp_path, monkeypatch):
    """Every example in a docstring of the library runs as it stands, in an empty directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert found.attempted > 0
    assert found.failed == 0


@pytest.mark.parametrize("name", SHOWN)
def test_what_is_used_first_is_shown_in_use(name):
    """The names that most programs use have an example."""
    assert ">>> " in inspect.getdoc(getattr(linepicker, name))


@pytest.mark.parametrize("owner", [linepicker, testing], ids=lambda owner: owner.__name__)
def test_each_public_name_says_what_it_means(owner):
    """Every public class, method and property of the two public modules has a docstring of its own."""
    silent = []
    for name in owner.__all__:
        thing = getattr(owner, name)
        members = vars(thing) if isinstance(thing, type) else {}
        public = {each: member for each, member in members.items() if not each.startswith("_")}
        told = {name: thing} | {
            f"{name}.{each}": member
            for each, member in public.items()
            if callable(member) or isinstance(member, property | classmethod | staticmethod)
        }
        silent += [each for each, member in told.items() if not (member.__doc__ or "").strip()]
    assert silent == []


@pytest.mark.parametrize("owner", [linepicker.Router, linepicker.AsyncRouter])
@pytest.mark.parametrize(
    "verb", ["reserve", "send", "report", "assign", "move", "pause", "plan", "lines"]
)
def test_each_verb_says_what_it_raises(owner, verb):
    """What a verb raises is in its docstring, or it is that of the Router's verb of the same name."""
    text = inspect.getdoc(getattr(owner, verb))
    assert "Raises" in text or "errors are" in text or "As `Router" in text
