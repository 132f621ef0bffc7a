"""The benchmarks run: `--self-check`, which `.ci/run` calls, runs each. What they measure is reported, never asserted."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m benchmarks` with these arguments."""
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )


def test_a_run_as_json_says_where_it_ran_and_what_it_found():
    """Only JSON comes on standard output; a goal without its figures has no ratio, and says what was wanted."""
    done = run("pick", "--json", "--quick", "--repeats", "1", "--lines", "10")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["surroundings"]["command"].endswith("pick --json --quick --repeats 1 --lines 10")
    assert found["figures"]["new, 10 lines"]["median"] > 0
    unmeasured = found["ratios"]["LiteLLM simple-shuffle / new: 1,000 lines"]
    assert unmeasured == {"ratio": None, "middle_half": None, "wanted": ">= 120", "ok": None}


def test_a_command_line_that_names_nothing_is_refused():
    """Without a benchmark there is a usage message and exit status 2."""
    done = run()
    assert done.returncode == 2
    assert "name a benchmark" in done.stderr
