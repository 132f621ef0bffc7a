"""Real processes on one SQLite file, racing and killed: `tests/processes.py`, here for some seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("processes.py")


def trial(**options: int) -> dict[str, int]:
    """What the script's run with these options comes to."""
    given = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    told = subprocess.run(
        [sys.executable, str(SCRIPT), *given], capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stdout + told.stderr
    found: dict[str, int] = json.loads(told.stdout)
    return found


def test_racing_processes_assign_exactly_what_the_lines_may_take():
    """Of 2,000 recipients, each tried by two of four processes, six lines of 50 a day take exactly 300."""
    found = trial(processes=4, recipients=2000, lines=6, per_day=50)
    assert found["tries"] == 4000
    assert found["new"] == found["assigned"] == found["charged"] == 300
    assert found["most_on_a_line"] == 50
    assert found["two_lines"] == found["lost"] == 0
    assert found["refused"] == 3400
    assert found["refused_without_a_moment"] == 0


def test_no_acknowledged_assignment_is_lost_to_a_kill():
    """Processes killed between any two instructions lose no answer they gave, and charge nobody twice."""
    found = trial(processes=4, recipients=800, lines=12, per_day=50, kills=4)
    assert found["killed"] >= 8
    assert found["assigned"] == found["charged"] == 600
    assert found["most_on_a_line"] == 50
    assert found["two_lines"] == found["lost"] == 0
