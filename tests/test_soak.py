"""Everything at once on every store: a few seconds of what runs for an hour by hand."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("store", ["sqlite", "valkey", "postgres"])
def test_traffic_with_faults_ends_without_a_warning_or_anything_left(store):
    """Threads and coroutines use one store, whose connections break; nothing is raised that is not documented."""
    script = Path(__file__).with_name("soak.py")
    command = [sys.executable, str(script), f"--store={store}", "--minutes=0.12"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads(done.stdout)["counts"]
    assert {"send", "report", "async send", "async report", "preview"} <= counts.keys()
    assert sum(counts.values()) > 100
