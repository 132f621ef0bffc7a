"""Hosts with wrong clocks get their share of a line: `tests/clocks.py`, here for some seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("clocks.py")


def run(*flags: str) -> list[int]:
    """How many slots each host got."""
    command = [sys.executable, str(SCRIPT), "--slots=160", "--gap=0.02", *flags]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.stdout, told.stderr
    found = json.loads(told.stdout)
    assert not found["failed"]
    got: list[int] = found["got"]
    return got


@pytest.mark.parametrize("store", ["valkey", "postgres"])
def test_a_wrong_clock_takes_nothing_from_the_others(store):
    """Of hosts whose clocks are right, right, 5 s fast and 60 s slow each gets at least half of an equal share.

    On a busy machine any host, whatever its clock, may get the processor more often for a second or two; what a clock takes, it
    takes in every run, so one fair run of four is enough.
    """
    flags = (f"--store={store}", "--off", "0", "0", "5", "-60")
    assert any(min(run(*flags)) >= 160 / 4 / 2 for _ in range(4))


def test_by_its_own_time_the_fastest_host_would_take_the_line():
    """What the store's time is for: hosts that go by their own clocks leave the slow ones nothing."""
    right, fast = run("--own-time", "--off", "0", "5")
    assert right < 160 / 2 / 2 < fast
