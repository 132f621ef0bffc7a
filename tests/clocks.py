"""Hosts whose wall clocks are wrong share one line on one store: who gets how much of it?

    python tests/clocks.py --store valkey --slots 1000 --off 0 0 5 -60

Each process has its wall clock shifted by so many seconds, and reserves the line's next slot for somebody new whenever it may,
at once or not at all, until so many slots are gone. With `--own-time` each goes by its own clock instead of the store's, for
comparison. The exit status says whether each had at least half of an equal share.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import processes
from critical import Counts

from linepicker import Line, NoLine, Policy, Router


class WallClock:
    """A router's clock that is the host's wall clock."""

    def now(self) -> float:
        """Epoch seconds, as this host has them."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Return that much later."""
        time.sleep(seconds)


def work(given: argparse.Namespace) -> None:
    """Take slots until all are gone; say how many."""
    right, shift = time.time, given.off[given.process]
    time.time = lambda: right() + shift  # type: ignore[assignment]
    policy = Policy.from_dict(
        {
            "limits": {"new_per_day": "off", "new_per_hour": "off"},
            "pace": {"new_gap": given.gap, "new_burst": 1, "message_gap": 0, "spread": "off"},
            "learn": {"enabled": False},
        }
    )
    counts, mine = Counts(given.directory, len(given.off)), 0
    clock = WallClock() if given.own_time else None
    with Router([Line("+12125550000")], policy=policy, store=given.store, clock=clock) as router:
        router.lines()
        counts.put(given.process, 1)  # here
        while not all(counts.get(process) for process in range(len(given.off))):
            time.sleep(0.001)
        tries = 0
        while sum(counts.get(process) - 1 for process in range(len(given.off))) < given.slots:
            tries += 1
            try:
                router.reserve(f"+1{200 + given.process}{2_000_000 + tries}", max_delay=0)
            except NoLine as refusal:
                time.sleep(max(0.0, refusal.retry_at - refusal.decision.at))
            else:
                mine += 1
                counts.put(given.process, 1 + mine)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", default="valkey")
    parser.add_argument("--slots", type=int, default=1000)
    parser.add_argument("--gap", type=float, default=0.02, help="seconds between two slots")
    parser.add_argument("--off", type=float, nargs="+", default=[0.0, 0.0, 5.0, -60.0])
    parser.add_argument("--own-time", action="store_true")
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--process", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.process is not None:
        work(given)
        return 0
    with ExitStack() as house:
        fresh = Path(house.enter_context(tempfile.TemporaryDirectory()))
        url, _ = processes.opened(given.store, fresh, house)
        counts = Counts(fresh, len(given.off))
        command = [sys.executable, *sys.argv, f"--store={url}", f"--directory={fresh}"]
        running = [subprocess.Popen([*command, f"--process={n}"]) for n in range(len(given.off))]
        failed = sum(each.wait() != 0 for each in running)
        got = [counts.get(process) - 1 for process in range(len(given.off))]
    print(json.dumps({"off": given.off, "got": got, "failed": failed}))  # noqa: T201  a command prints
    return int(bool(failed) or min(got) < given.slots / len(got) / 2)


if __name__ == "__main__":
    sys.exit(main())
