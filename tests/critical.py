"""One process turns a line CRITICAL, again and again, while others reserve: none may get that line once the first one knows.

    python tests/critical.py --store valkey --trials 10000

A trial: a line is reported CRITICAL; after that call has returned, each of the other processes makes a whole call, for somebody
new; then the line is reported HEALTHY. No call that began after the first report had returned and ended before the second
began may have got the line. `--store` and `--plant` are as in `processes.py`; the exit status says whether it held.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import struct
import subprocess
import sys
import tempfile
import threading
import time
from bisect import bisect_right
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import attrs
import processes

from linepicker import Line, LineChanged, Policy, Router, stores

NUMBERS = ["+12125550000", "+12125550001", "+12125550002"]
CALL = struct.Struct("ddq")
"""When a call began and ended, and the line that it got, by its place among NUMBERS."""


@attrs.frozen
class Window:
    """Between the end of the report that a line is CRITICAL, and the beginning of the one that it is HEALTHY."""

    number: str
    since: float
    until: float


def router(store: str | stores.Handle) -> Router:
    """A router as every process opens it: without limits, and one good word makes a line HEALTHY."""
    limits = ("new_per_day", "new_per_hour", "messages_per_day", "pair_per_minute")
    policy = Policy.from_dict(
        {
            "limits": dict.fromkeys(limits, "off"),
            "pace": {"new_gap": 0, "message_gap": 0},
            "recovery": {"confirmations": 1},
            "learn": {"enabled": False},
        }
    )
    return Router([Line(number) for number in NUMBERS], policy=policy, store=store)


class Counts:
    """How many calls each process has ended, shared by all; the last of them says whether to go on."""

    ENDED: Final = 1 << 60

    def __init__(self, directory: Path, processes: int) -> None:
        path = directory / "counts"
        self.processes = processes
        if not path.exists():
            path.write_bytes(bytes(8 * (processes + 1)))
        with path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), 0)

    def get(self, process: int) -> int:
        """The count of one."""
        return int(struct.unpack_from("q", self._shared, 8 * process)[0])

    def put(self, process: int, count: int) -> None:
        """Set it."""
        struct.pack_into("q", self._shared, 8 * process, count)

    def wait(self, more: int) -> None:
        """Return when each process has ended so many more calls."""
        until = [min(self.get(process) + more, self.ENDED) for process in range(self.processes)]
        while any(self.get(process) < count for process, count in enumerate(until)):
            time.sleep(0.0002)


def work(directory: Path, process: int, count: int, store: str | stores.Handle) -> None:
    """Reserve for one new recipient after the other."""
    counts, place = Counts(directory, count), {number: i for i, number in enumerate(NUMBERS)}
    notes = os.open(directory / f"calls-{process}", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        with router(store) as mine:
            ended = 0
            while not counts.get(count):
                to = f"+1{200 + process}{2_000_000 + ended}"
                began = time.monotonic()
                made = mine.reserve(to)
                os.write(notes, CALL.pack(began, time.monotonic(), place[made.number]))
                ended += 1
                counts.put(process, ended)
                time.sleep(0.002)  # or one of them may be kept waiting by the others
    finally:  # whoever waits for its next call would wait for ever
        counts.put(process, Counts.ENDED)
        os.close(notes)


def trials(
    directory: Path, count: int, store: str | stores.Handle, *, wanted: int, seed: int
) -> list[Window]:
    """Report, wait, report: so many times."""
    dice, counts = random.Random(seed), Counts(directory, count)
    windows = []
    with router(store) as mine:
        counts.wait(1)
        for _ in range(wanted):
            number = dice.choice(NUMBERS)
            assert mine.report(LineChanged(number, reputation="CRITICAL", at=time.time()))
            since = time.monotonic()
            counts.wait(2)  # of which the second began in this window
            until = time.monotonic()
            assert mine.report(LineChanged(number, reputation="HEALTHY", at=time.time()))
            windows.append(Window(number, since, until))
            counts.wait(1)
    counts.put(count, 1)
    return windows


def judge(directory: Path, windows: list[Window]) -> dict[str, int]:
    """How many calls lay in a window, and how many got the line that they should not."""
    since = [each.since for each in windows]
    calls = within = wrong = 0
    for path in directory.glob("calls-*"):
        for began, ended, place in CALL.iter_unpack(path.read_bytes()):
            calls += 1
            window = windows[bisect_right(since, began) - 1]
            if window.since < began and ended < window.until:
                within += 1
                wrong += NUMBERS[place] == window.number
    return {"trials": len(windows), "calls": calls, "within": within, "wrong": wrong}


def run(directory: Path, count: int, url: str, *, wanted: int, seed: int) -> dict[str, int]:
    """Everything, with so many other processes (threads, for a store in memory)."""
    Counts(directory, count)
    if url.startswith("memory"):
        store = stores.open("memory://")
        threads = [
            threading.Thread(target=work, args=(directory, process, count, store))
            for process in range(count)
        ]
        for each in threads:
            each.start()
        windows = trials(directory, count, store, wanted=wanted, seed=seed)
        for each in threads:
            each.join()
        return judge(directory, windows)
    command = [sys.executable, __file__, f"--store={url}", f"--processes={count}"]
    command.append(f"--directory={directory}")
    running = [subprocess.Popen([*command, f"--process={process}"]) for process in range(count)]
    windows = trials(directory, count, url, wanted=wanted, seed=seed)
    failed = sum(each.wait() != 0 for each in running)
    return {**judge(directory, windows), "failed": failed}


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", default="sqlite")
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--processes", type=int, default=3, help="beside the one that reports")
    parser.add_argument("--plant", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--process", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.process is not None:
        work(given.directory, given.process, given.processes, given.store)
        return 0
    with ExitStack() as house:
        fresh = Path(house.enter_context(tempfile.TemporaryDirectory()))
        url, _ = processes.opened(given.store, fresh, house)
        if given.plant:
            processes.plant(url, fresh)
            rest = [each for each in sys.argv if each != "--plant"]
            command = [sys.executable, *rest, f"--store={url}"]
            return subprocess.run(command, check=False).returncode
        found = run(fresh, given.processes, url, wanted=given.trials, seed=given.seed)
    print(json.dumps(found))  # noqa: T201  a command prints
    return int(bool(found["wrong"] or found.get("failed")))


if __name__ == "__main__":
    sys.exit(main())
