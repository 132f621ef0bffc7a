"""A line that one process knows to be CRITICAL is reserved by no other: `tests/critical.py`, here for some seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("critical.py")
TRIALS = {"memory": 150, "sqlite": 30, "valkey": 60, "postgres": 60}


def run(*flags: str, ends: int = 0) -> dict[str, int]:
    """What the script tells."""
    told = subprocess.run(
        [sys.executable, str(SCRIPT), *flags], capture_output=True, text=True, check=False
    )
    assert told.returncode == ends, told.stdout + told.stderr
    found: dict[str, int] = json.loads(told.stdout)
    return found


@pytest.mark.parametrize("store", TRIALS)
def test_no_other_process_reserves_a_line_once_one_knows_it_to_be_critical(store):
    """Of the calls that began after the report had returned, at least one of each of two processes, none got the line."""
    found = run(f"--store={store}", f"--trials={TRIALS[store]}", "--processes=2")
    assert found["trials"] == TRIALS[store]
    assert found["within"] >= 2 * found["trials"]
    assert found["wrong"] == 0


def test_a_store_without_the_version_check_is_found_out():
    """What others keep of a line is then never corrected, and they go on reserving it: in every second trial or third, so
    that in eighty some always do, however busy the machine."""
    assert run("--plant", "--trials=80", "--processes=2", ends=1)["wrong"] > 0
