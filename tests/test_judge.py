"""The router before an independent judge: `tests/judge.py`, a plain model of the design, here for some seconds."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

JUDGE = Path(__file__).with_name("judge.py")
RESERVES = int(os.environ.get("LINEPICKER_RESERVES", "10000"))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The judge's command line."""
    command = [sys.executable, str(JUDGE), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_every_answer_of_the_router_is_one_that_the_design_allows():
    """No reserve, refusal, preview, settlement or report in some hundred random stories breaks the design."""
    told = run("--reserves", str(RESERVES), "--processes", "2")
    assert told.returncode == 0, told.stdout + told.stderr
    assert " 0 violations" in told.stdout


@pytest.fixture
def judge(monkeypatch):
    """The judge as a module."""
    spec = importlib.util.spec_from_file_location("judge", JUDGE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "judge", module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("seed", [3, 1_000_003])
def test_a_seed_tells_the_same_story_twice(judge, seed):
    """Every reservation of a seed has its line, kind and moment in each telling."""

    def story() -> list[tuple[object, ...]]:
        world = judge.World(seed)
        world.run(300)
        return [(made.to, made.number, made.kind, made.send_at) for made, _ in world.made]

    first = story()
    assert first
    assert first == story()
