"""Many real processes on one store, killed at random moments: an SQLite file, or what --store names, which has to be empty.

    python tests/processes.py --processes 8 --recipients 20000 --kills 50

Each recipient is tried by two processes at about the same time. Each process notes every answer in a file of its own, after
`reserve` has returned and before it goes on; one that is killed is started again and goes on where its notes end. At the end
every noted assignment must be in the store with the same line, no recipient may have two lines, no line more than its day's
budget, and every refusal must have been a NoLine with a moment to ask again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import attrs

from linepicker import Line, NoLine, Policy, Router


@attrs.frozen
class Trial:
    """How much, on what."""

    directory: Path
    processes: int
    recipients: int
    lines: int
    per_day: int
    store: str

    def router(self) -> Router:
        """A router as every process opens it."""
        policy = Policy.from_dict(
            {
                "limits": {"new_per_day": self.per_day, "new_per_hour": "off"},
                "pace": {"new_gap": 0, "message_gap": 0},
                "learn": {"enabled": False},
            }
        )
        lines = [Line(f"+1212555{i:04d}") for i in range(self.lines)]
        store = self.store or f"sqlite:///{self.directory / 'lines.db'}"
        return Router(lines, policy=policy, store=store)

    def notes(self, process: int) -> Path:
        """Where a process notes its answers."""
        return self.directory / f"notes-{process}"

    def tried_by(self, process: int) -> list[str]:
        """The recipients a process tries: each of them is tried by two."""
        others = max(1, self.processes - 1)
        return [
            f"+1415{i:07d}"
            for i in range(self.recipients)
            if process
            in (i % self.processes, (i + 1 + i // self.processes % others) % self.processes)
        ]

    def start(self, process: int) -> subprocess.Popen[bytes]:
        """Start (again) one process."""
        given = attrs.asdict(self)
        command = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
        return subprocess.Popen([sys.executable, __file__, *command, f"--process={process}"])


def work(trial: Trial, process: int) -> None:
    """One process: try each recipient that is not noted yet, note the answer."""
    path = trial.notes(process)
    done = path.read_bytes().count(b"\n") if path.exists() else 0
    notes = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    with trial.router() as router:
        for to in trial.tried_by(process)[done:]:
            try:
                made = router.reserve(to)
            except NoLine as refusal:
                answer = f"{to} - {refusal.retry_at > time.time()}\n"
            else:
                answer = f"{to} {made.number} {made.kind}\n"
            os.write(notes, answer.encode())


def run(trial: Trial, kills: int, seed: int) -> dict[str, object]:
    """All processes, each killed so many times at random moments; what is wrong afterwards, and some figures."""
    dice, began = random.Random(seed), time.monotonic()
    running = {process: trial.start(process) for process in range(trial.processes)}
    left = dict.fromkeys(running, kills)
    killed, failed = 0, 0
    while running:
        time.sleep(dice.uniform(0.0, 0.4 / trial.processes) if any(left.values()) else 0.05)
        victims = [process for process in running if left[process]]
        if victims:
            process = dice.choice(victims)
            notes = trial.notes(process)
            if notes.exists():  # it has begun
                running[process].send_signal(signal.SIGKILL)
                killed += running[process].wait() == -signal.SIGKILL
                left[process] -= 1
                running[process] = trial.start(process)
        for process, one in list(running.items()):
            if one.poll() is not None and not (left[process] and one.returncode == 0):
                failed += one.returncode != 0
                del running[process]
            elif one.poll() is not None:
                running[process] = trial.start(process)
                left[process] -= 1
    took = time.monotonic() - began
    return {**judge(trial), "failed": failed, "killed": killed, "seconds": round(took, 1)}


def judge(trial: Trial) -> dict[str, object]:
    """What the notes and the store say."""
    noted: dict[str, set[str]] = {}
    kinds: Counter[str] = Counter()
    hasty = tries = 0
    for process in range(trial.processes):
        rows = [line.split() for line in trial.notes(process).read_text().splitlines()]
        tries += len(rows)
        for to, number, kind in rows:
            if number == "-":
                hasty += kind != "True"
                kinds["refused"] += 1
            else:
                noted.setdefault(to, set()).add(number)
                kinds[kind] += 1
    with trial.router() as router:
        stored = {
            to: found.number
            for i in range(trial.recipients)
            if (found := router.assignment(to := f"+1415{i:07d}")) is not None
        }
        used = [view.used for view in router.lines()]
    return {
        "tries": tries,
        **kinds,
        "assigned": len(stored),
        "charged": sum(used),
        "most_on_a_line": max(used),
        "two_lines": sum(len(numbers) > 1 for numbers in noted.values()),
        "lost": sum(stored.get(to) not in numbers for to, numbers in noted.items()),
        "refused_without_a_moment": hasty,
    }


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--recipients", type=int, default=20_000)
    parser.add_argument("--lines", type=int, default=6)
    parser.add_argument("--per-day", type=int, default=50)
    parser.add_argument("--kills", type=int, default=0, help="of each process")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", default="", help="a URL")
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--process", type=int)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as fresh:
        directory = given.directory or Path(fresh)
        trial = Trial(
            directory,
            given.processes,
            given.recipients,
            given.lines,
            given.per_day,
            given.store,
        )
        if given.process is not None:
            work(trial, given.process)
            return 0
        found = run(trial, given.kills, given.seed)
    print(json.dumps(found))  # noqa: T201  a command prints
    wrong = ("two_lines", "lost", "refused_without_a_moment", "failed")
    over = int(str(found["most_on_a_line"])) > given.per_day
    return int(over or any(found[name] for name in wrong))


if __name__ == "__main__":
    sys.exit(main())
