"""Signed bodies of any shape are events, reports, or refused: a short run of the fuzzer, which runs long by hand."""

import json
import subprocess
import sys
from pathlib import Path


def test_no_signed_body_does_anything_unheard_of():
    """Of 20,000 bodies none raises what is not documented; each kind of report, and of refusal, is among what comes of them."""
    script = Path(__file__).with_name("fuzz_webhooks.py")
    command = [sys.executable, str(script), "--bodies", "20000", "--processes", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.pop("wrong") == 0
    assert found.pop("bodies") == 20000 == sum(found.values())
    kinds = "body NoneType LineChanged LineAssigned LineReleased Replied Delivered MessageRead Failed ChatHealthChanged"
    assert set(kinds.split()) <= found.keys()
