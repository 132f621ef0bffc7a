"""Many real processes on one store, racing, killed at random moments, and their server stopped and started under them.

    python tests/processes.py --store postgres --processes 32 --recipients 50000 --kills 200 --restarts 20

`--store` is `sqlite` (a file), `valkey`, `redis6` or `postgres` (a server of its own, started here), `memory` (threads instead
of processes), or the URL of an empty store. Each recipient is tried by two processes, which wait for each other to do so at the
same time. Each process notes the beginning and the answer of every call in a file of its own, before it goes on
(`history.py`); one that is killed is started again, and goes on where its notes end; one whose store is out tries again.

At the end `history.py` judges what was noted and what is in the store: nobody has two lines, no line has more than its budget,
nothing that was answered is lost, who was refused had a moment to ask again and no line had room. The exit status says
whether that held. `--plant` takes the version check out of a copy of the store first, and so has to end badly.

`--cut 1` (with `--appendfsync everysec`) makes each stop of the server one of its machine: what it wrote to its file in the
last second is gone. Then the exit status is 0, and what was lost is told.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import attrs
import history
from servers import REDIS, PostgresServer, RedisServer

import linepicker
from linepicker import Line, NoLine, Policy, Router, StoreError, stores

LIBRARY = Path(linepicker.__file__).parent
UNCHECKED = {
    "memory": ("memory.py", "if held(key, ABSENT)[0] != version:", "if False:"),
    "sqlite": (
        "sqlite.py",
        "if version != (base | held[key] if key in held else 0):",
        "if False:",
    ),
    "redis": (
        "_redis_keys.py",
        "if redis.call('GETRANGE', KEYS[1 + i], 0, 5) ~= ARGV[3 + 3 * i] then",
        "if false then",
    ),
    "postgres": ("_postgres_schema.py", "applied := NOT EXISTS (", "applied := true OR EXISTS ("),
}
"""A store's version check, and what it is without."""


@attrs.frozen
class Trial:
    """How much, on what."""

    directory: Path
    processes: int
    recipients: int
    lines: int
    per_day: int
    store: str

    @property
    def numbers(self) -> list[str]:
        """The lines."""
        return [f"+1212555{i:04d}" for i in range(self.lines)]

    def router(self, store: str | stores.Handle = "") -> Router:
        """A router as every process opens it."""
        policy = Policy.from_dict(
            {
                "limits": {"new_per_day": self.per_day, "new_per_hour": "off"},
                "pace": {"new_gap": 0, "message_gap": 0},
                "learn": {"enabled": False},
            }
        )
        lines = [Line(number) for number in self.numbers]
        return Router(lines, policy=policy, store=store or self.store)

    def notes(self, process: int) -> Path:
        """Where a process notes what it does."""
        return self.directory / f"notes-{process}"

    def pair(self, place: int) -> tuple[int, int]:
        """The two processes that try a recipient."""
        others = max(1, self.processes - 1)
        first = place % self.processes
        return first, (first + 1 + place // self.processes % others) % self.processes

    def tried_by(self, process: int) -> list[int]:
        """The recipients a process tries."""
        return [place for place in range(self.recipients) if process in self.pair(place)]

    def start(self, process: int) -> subprocess.Popen[bytes]:
        """Start (again) one process."""
        given = attrs.asdict(self)
        command = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
        return subprocess.Popen([sys.executable, __file__, *command, f"--process={process}"])


class Places:
    """How far each process is, shared by all, so that two can meet. Who has ended, or was killed, is ahead of all."""

    ENDED = 1 << 60

    def __init__(self, trial: Trial) -> None:
        self._form = struct.Struct(f"{trial.processes}q")
        path = trial.directory / "places"
        if not path.exists():
            path.write_bytes(struct.pack(f"{trial.processes}q", *[-1] * trial.processes))
        with path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), 0)

    def slowest(self) -> int:
        """How far the last is."""
        return int(min(self._form.unpack(self._shared)))

    def put(self, process: int, place: int) -> None:
        """Say how far a process is."""
        struct.pack_into("q", self._shared, 8 * process, place)

    def meet(self, process: int, other: int, place: int) -> None:
        """Say how far this process is, and wait until the *other* is there too, or further."""
        self.put(process, place)
        while struct.unpack_from("q", self._shared, 8 * other)[0] < place:
            time.sleep(0.0002)


def work(trial: Trial, process: int, store: str | stores.Handle = "") -> None:
    """One process: try each recipient that is not noted yet, note the answer."""
    path, places = trial.notes(process), Places(trial)
    ends = {" n ", " k ", " r "}
    earlier = path.read_text().splitlines() if path.exists() else []
    done = sum(any(end in line for end in ends) for line in earlier)
    notes = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(*words: object) -> None:
        os.write(notes, f"{time.monotonic():.6f} {' '.join(map(str, words))}\n".encode())

    with trial.router(store) as router:
        for place in trial.tried_by(process)[done:]:
            first, second = trial.pair(place)
            places.meet(process, second if first == process else first, place)
            to, answered = f"+1415{place:07d}", False
            while not answered:
                note("i", to)
                try:
                    made = router.reserve(to)
                except NoLine as refusal:
                    note("r", to, int(refusal.retry_at > time.time()))
                    answered = True
                except StoreError as error:
                    note("u" if error.unknown else "f", to)
                    if error.answered:
                        raise
                    time.sleep(0.02)
                else:
                    note("n" if made.kind == "new" else "k", to, made.number)
                    answered = True
    places.put(process, Places.ENDED)
    os.close(notes)


def run(trial: Trial, kills: int, stops: list[Callable[[], None]], seed: int) -> dict[str, object]:
    """All processes, so many of them killed at random moments, and each of *stops* called at one; what came of it."""
    dice, began = random.Random(seed), time.monotonic()
    places = Places(trial)
    budgets = dict.fromkeys(trial.numbers, trial.per_day)
    (trial.directory / "budgets.json").write_text(json.dumps(budgets))
    charging = min(trial.recipients, trial.lines * trial.per_day)
    due = [  # three of four while there is something to charge
        (dice.uniform(0.02, 0.98) * (charging if dice.random() < 0.75 else trial.recipients), stop)
        for stop in [*[None] * kills, *stops]
    ]
    due.sort(key=lambda each: each[0], reverse=True)
    running = {process: trial.start(process) for process in range(trial.processes)}
    killed = failed = 0
    while running:
        time.sleep(dice.uniform(0.0, 0.01))
        if due and places.slowest() >= due[-1][0]:
            stop = due.pop()[1]
            if stop is not None:
                stop()
            else:
                process = dice.choice(list(running))
                running[process].send_signal(signal.SIGKILL)
                killed += running[process].wait() == -signal.SIGKILL
                places.put(process, Places.ENDED)
                running[process] = trial.start(process)
        for process, one in list(running.items()):
            if one.poll() is not None:
                failed += one.returncode != 0
                places.put(process, Places.ENDED)
                del running[process]
    took = time.monotonic() - began
    return {**judged(trial), "failed": failed, "killed": killed, "seconds": round(took, 1)}


def run_threads(trial: Trial) -> dict[str, object]:
    """The same with threads, which change as often as they can, on a store in memory."""
    began, every = time.monotonic(), sys.getswitchinterval()
    budgets = dict.fromkeys(trial.numbers, trial.per_day)
    (trial.directory / "budgets.json").write_text(json.dumps(budgets))
    store, places, failed = stores.open("memory://"), Places(trial), list[int]()

    def one(process: int) -> None:
        try:
            work(trial, process, store)
        except BaseException:
            failed.append(process)
            raise
        finally:  # whoever waits to meet it would wait for ever
            places.put(process, Places.ENDED)

    threads = [threading.Thread(target=one, args=(process,)) for process in range(trial.processes)]
    try:
        sys.setswitchinterval(1e-6)
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    finally:
        sys.setswitchinterval(every)
    took = time.monotonic() - began
    found = judged(trial, store)
    return {**found, "failed": len(failed), "killed": 0, "seconds": round(took, 1)}


def judged(trial: Trial, store: str | stores.Handle = "") -> dict[str, object]:
    """What the notes and the store say."""
    with trial.router(store) as router:
        assigned = {
            to: found.number
            for i in range(trial.recipients)
            if (found := router.assignment(to := f"+1415{i:07d}")) is not None
        }
        used = {view.line.number: view.used for view in router.lines()}
    (trial.directory / "end.json").write_text(json.dumps({"assigned": assigned, "used": used}))
    verdict = history.check(*history.read(trial.directory))
    return {
        **verdict.figures,
        "assigned": len(assigned),
        "charged": sum(used.values()),
        "wrong": dict(verdict.wrong),
        "example": verdict.example,
    }


# Where

SAVING: Final = ("--appendonly", "yes", "--appendfsync", "always")
"""How a Redis is to save, where nothing else is said: each write before it answers."""


def opened(
    name: str, directory: Path, house: ExitStack, saving: Sequence[str] = SAVING
) -> tuple[str, object]:
    """The URL of the store that was asked for, and its server, if it is of our own."""
    if name == "sqlite":
        return f"sqlite:///{directory / 'lines.db'}", None
    if name == "postgres":
        postgres = PostgresServer()
        house.callback(shutil.rmtree, postgres.folder)
        postgres.start("fsync=on", "max_connections=200")
        house.callback(postgres.kill)
        return postgres.url(), postgres
    if name in REDIS:
        redis = RedisServer(name)
        house.callback(shutil.rmtree, redis.folder)
        redis.start(*saving)
        house.callback(redis.kill)
        return redis.url(), redis
    return name, None


def saving(given: argparse.Namespace) -> list[str]:
    """How a Redis is to save."""
    often = [*SAVING[:-1], given.appendfsync]
    return [*often, *(["--aof-timestamp-enabled", "yes"] if given.cut else [])]


def stops(given: argparse.Namespace, server: object) -> list[Callable[[], None]]:
    """What stops the server and starts it again: every other time as a crash does."""
    dice = random.Random(given.seed + 1)

    def stop(how: signal.Signals) -> None:
        if isinstance(server, RedisServer):
            server.stop(signal.SIGKILL if given.cut else how)
            if given.cut:
                cut(server, given.cut)
            time.sleep(dice.uniform(0.0, 0.5))
            server.start(*saving(given))
        elif isinstance(server, PostgresServer):
            server.stop(how)
            time.sleep(dice.uniform(0.0, 0.5))
            server.start("fsync=on", "max_connections=200")
        else:
            raise SystemExit("--restarts needs a server: --store valkey, redis6 or postgres")

    hows = [signal.SIGKILL, signal.SIGINT]
    return [lambda n=n: stop(hows[n % 2]) for n in range(given.restarts)]


def cut(server: RedisServer, seconds: float) -> None:
    """Take from a dead server's file what it wrote in its last *seconds*, as a crash of its machine may."""
    file = max(
        (server.folder / "appendonlydir").glob("*.incr.aof"),
        key=lambda path: int(path.name.split(".")[-3]),
    )
    content, until = file.read_bytes(), int(time.time() - seconds)
    end = len(content)
    while (place := content.rfind(b"#TS:", 0, end)) >= 0:
        if int(content[place + 4 : content.index(b"\r\n", place)]) <= until:
            break
        end = place
    os.truncate(file, end if place >= 0 else 0)


def plant(url: str, directory: Path) -> None:
    """Have the processes use a copy of the library whose store does not look at versions."""
    scheme = url.partition(":")[0]
    name = next((each for each in UNCHECKED if scheme.startswith(each)), "")
    file, old, new = UNCHECKED[name]
    shutil.copytree(LIBRARY, directory / "linepicker", ignore=shutil.ignore_patterns("__pycache__"))
    copied = directory / "linepicker" / "stores" / file
    source = copied.read_text()
    assert source.count(old) == 1, f"{file} has changed: plant the fault anew"
    copied.write_text(source.replace(old, new))
    os.environ["PYTHONPATH"] = str(directory)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--recipients", type=int, default=20_000)
    parser.add_argument("--lines", type=int, default=12)
    parser.add_argument("--per-day", type=int, default=250)
    parser.add_argument("--kills", type=int, default=0, help="how many in all")
    parser.add_argument("--restarts", type=int, default=0, help="of the server")
    parser.add_argument("--appendfsync", default="always", help="of Valkey and Redis")
    parser.add_argument("--cut", type=float, default=0.0, help="seconds that a stop undoes")
    parser.add_argument("--plant", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", default="sqlite")
    parser.add_argument("--directory", type=Path, help="keeps the history")
    parser.add_argument("--process", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    with ExitStack() as house:
        fresh = Path(house.enter_context(tempfile.TemporaryDirectory()))
        directory = (given.directory or fresh).absolute()
        directory.mkdir(exist_ok=True)
        sizes = (given.processes, given.recipients, given.lines, given.per_day)
        if given.process is not None:
            work(Trial(directory, *sizes, given.store), given.process)
            return 0
        url, server = opened(given.store, directory, house, saving(given))
        if given.plant:
            plant(url, fresh)
            rest = [each for each in sys.argv if each != "--plant"]
            command = [sys.executable, *rest, f"--directory={directory}"]
            return subprocess.run([*command, f"--store={url}"], check=False).returncode
        trial = Trial(directory, *sizes, url)
        found = (
            run_threads(trial)
            if given.store.startswith("memory")
            else run(trial, given.kills, stops(given, server), given.seed)
        )
    print(json.dumps(found))  # noqa: T201  a command prints
    return int(bool(found["failed"] or (found["wrong"] and not given.cut)))


if __name__ == "__main__":
    sys.exit(main())
