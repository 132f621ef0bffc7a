"""Real processes on one store, racing and killed, their servers stopped: `tests/processes.py`, here for some seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("processes.py")
SERVERS = ["valkey", "redis6", "postgres"]


def trial(*flags: str, ends: int = 0, **options: object) -> dict[str, int]:
    """What the script's run with these options comes to."""
    given = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    told = subprocess.run(
        [sys.executable, str(SCRIPT), *given, *flags], capture_output=True, text=True, check=False
    )
    assert told.returncode == ends, told.stdout + told.stderr
    found: dict[str, int] = json.loads(told.stdout)
    return found


@pytest.mark.parametrize("store", ["memory", "sqlite", *SERVERS])
def test_racing_processes_assign_exactly_what_the_lines_may_take(store):
    """Of 300 recipients, each tried by two of four processes at once, four lines of 50 a day take exactly 200, and an order
    of all calls explains all answers."""
    found = trial(store=store, processes=4, recipients=300, lines=4, per_day=50)
    assert found["calls"] == 600
    assert found["new"] == found["known"] == found["assigned"] == found["charged"] == 200
    assert found["refused"] == 200
    assert found["tried_at_once"] > 0
    assert not found["wrong"]


@pytest.mark.parametrize("store", ["memory", "sqlite", *SERVERS])
def test_without_the_version_check_an_order_is_looked_for_in_vain(store):
    """A store that applies every swap is found out by what the processes noted: double lines, and charges that are gone."""
    found = trial("--plant", ends=1, store=store, processes=4, recipients=60, lines=2, per_day=20)
    assert found["wrong"]["new twice"] > 0
    assert found["wrong"]["charges lost"] > 0


def test_no_answer_is_lost_to_a_kill():
    """Processes killed between any two instructions lose no answer they gave, and charge nobody twice."""
    found = trial(processes=4, recipients=400, lines=6, per_day=50, kills=8)
    assert found["killed"] >= 6
    assert found["assigned"] == found["charged"] == 300
    assert not found["wrong"]


@pytest.mark.parametrize("store", SERVERS)
def test_no_answer_is_lost_to_a_server_that_stops_or_is_killed(store):
    """With its processes killed as well: who saves each write before answering has everything when it is back."""
    found = trial(
        store=store, processes=4, recipients=400, lines=6, per_day=50, kills=4, restarts=2
    )
    assert found["assigned"] == found["charged"] == 300
    assert not found["wrong"]


def test_what_a_server_that_saves_every_second_may_lose_is_told():
    """When its machine stops, some answers are gone; nothing worse comes of it, and the processes go on."""
    found = trial(
        store="valkey",
        appendfsync="everysec",
        cut=1.0,
        processes=2,
        recipients=1200,
        lines=12,
        per_day=100,
        restarts=1,
    )
    assert found["wrong"]["lost"] > 0
    assert found["wrong"].keys() <= {
        "lost",
        "two lines",
        "new twice",
        "new after it was known",
        "refused after it was known",
        "overspent",
        "charges lost",
        "opened after all was spent",
    }
