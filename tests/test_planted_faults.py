"""The judge is shown to judge: each fault planted into a copy of the library is found, and the library as it is passes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

TESTS = Path(__file__).parent
LIBRARY = TESTS.parent / "linepicker"
RESERVES = 30_000


@attrs.frozen
class Fault:
    """One change of the code that a tired developer might make."""

    name: str
    file: str
    old: str
    new: str

    def planted(self, source: str) -> str:
        """The file with the fault in it."""
        assert source.count(self.old) == 1, (
            f"{self.file} has changed: {self.name} must be planted anew"
        )
        return source.replace(self.old, self.new)


FAULTS = [
    Fault(
        "a budget lets one too many through",
        "_line.py",
        "if left <= 0 and counts:",
        "if left < 0 and counts:",
    ),
    Fault(
        "recovering counts as recovered",
        "_line.py",
        'second = "critical" if level == 2 else "recovering" if recovering else None',
        'second = "critical" if level == 2 else None',
    ),
    Fault(
        "AT_RISK has the full budget",
        "_line.py",
        "scale = policy.at_risk.budget if at_risk else 1.0",
        "scale = 1.0",
    ),
    Fault(
        "the hour has thirty minutes",
        "_line.py",
        '("hour_budget", hour, HOUR)',
        '("hour_budget", hour, HOUR / 2)',
    ),
    Fault(
        "the caller's exclusions are forgotten",
        "_candidates.py",
        'return "excluded" if line.number in request.exclude else None',
        "return None",
    ),
    Fault(
        "a pair gets one too many a minute",
        "_core.py",
        "len(times) - windows.first_within(times, now, PAIR) >= limit:",
        "len(times) - windows.first_within(times, now, PAIR) > limit:",
    ),
    Fault(
        "a known recipient answers from any line that is asked for",
        "_core.py",
        "if number in request.exclude or request.line not in (None, number):",
        "if number in request.exclude:",
    ),
    Fault(
        "an opt-out is over once anything came back",
        "_small.py",
        "(self.back is None or moment >= self.back)",
        "self.back is None",
    ),
    Fault(
        "a contact remembers only its last message",
        "_contact.py",
        "times, ids = times[start:], self.ids[start:]",
        "times, ids = times[-1:], self.ids[-1:]",
    ),
    Fault(
        "the order prefers the worse",
        "_ranking.py",
        "_first(roots[keys[-1]], salt)",
        "_first(roots[keys[0]], salt)",
    ),
    Fault(
        "a line that gets worse keeps its place",
        "_ranking.py",
        "elif leaf.key == key:",
        "elif leaf.key >= key:",
    ),
    Fault(
        "pace is not advanced",
        "_charge.py",
        "spending.new_mark = max(send_at, mark) + budget.new_gap",
        "spending.new_mark = max(send_at, mark)",
    ),
    Fault(
        "a move is not charged",
        "_charge.py",
        'spending, new = was.copy(), grant.kind != "known"',
        'spending, new = was.copy(), grant.kind == "new"',
    ),
    Fault(
        "the wrong charge is given back",
        "_windows.py",
        "place = spending.ids.index(ident)\n",
        "place = 0\n",
    ),
    Fault(
        "a better report from before the worse one counts",
        "_observations.py",
        "since = [at for at in better if at > after_report]",
        "since = list(better)",
    ),
]


def judged(library: Path, reserves: int) -> subprocess.CompletedProcess[str]:
    """The judge's verdict on the copy of the library below that folder."""
    return subprocess.run(
        [sys.executable, TESTS / "judge.py", f"--reserves={reserves}", "--seed=0", "--most=1"],
        env={**os.environ, "PYTHONPATH": str(library)},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


def copied(folder: Path) -> Path:
    """The library in a folder of its own."""
    shutil.copytree(LIBRARY, folder / "linepicker", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_found(tmp_path, fault):
    """The judge finds it within so many reserves."""
    file = copied(tmp_path) / "linepicker" / fault.file
    file.write_text(fault.planted(file.read_text(encoding="utf-8")), encoding="utf-8")
    verdict = judged(tmp_path, RESERVES)
    assert verdict.returncode == 1, verdict.stdout + verdict.stderr
    assert "1 violations" in verdict.stdout


def test_the_library_as_it_is_passes(tmp_path):
    """Without a fault the same seeds hold."""
    verdict = judged(copied(tmp_path), 3_000)
    assert verdict.returncode == 0, verdict.stdout + verdict.stderr
