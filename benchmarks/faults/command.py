"""Many seeds' stories, told on several processes: `python -m benchmarks simulate-faults`."""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections import Counter
from multiprocessing import Pool

from benchmarks.faults.telling import STEPS, Told, shortened, story_of, tell


def arguments(parser: argparse.ArgumentParser) -> None:
    """What may be asked for."""
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="the first one")
    parser.add_argument("--seeds", type=int, default=1, metavar="M", help="how many")
    parser.add_argument("--processes", type=int, default=1, metavar="P", help="on so many")
    parser.add_argument("--steps", type=int, default=STEPS, metavar="S", help="of each story")
    parser.add_argument(
        "--first", action="store_true", help="stop at the first that fails, as it is"
    )
    parser.add_argument(
        "--stalls",
        action="store_true",
        help="calls may be suspended for hours between two questions",
    )
    parser.add_argument("--twice", action="store_true", help="tell each twice: it must be the same")


def run(asked: argparse.Namespace) -> int:
    """Tell them; 1 where a promise was broken. Says how often what happened, so that it is seen that nothing is idle."""
    begun, seen = time.perf_counter(), Counter[str]()
    done = decisions = reserved = broken = 0
    jobs = (
        (seed, asked.steps, asked.twice, asked.stalls)
        for seed in range(asked.seed, asked.seed + asked.seeds)
    )
    with Pool(asked.processes, gc.disable) as pool:
        for each in pool.imap_unordered(_told, jobs, 1 if asked.first else 4):
            done, decisions, reserved = (
                done + 1,
                decisions + each.decisions,
                reserved + each.reserved,
            )
            seen.update(each.seen)
            if each.violation:
                broken += 1
                print(f"seed {each.seed}: {each.violation}", flush=True)
                if asked.first:
                    break
                _say(shortened(each, stalls=asked.stalls))
    took = time.perf_counter() - begun
    width = max(map(len, seen), default=0)
    for name, often in sorted(seen.items()):
        print(f"{name:{width}} {often:>12,}")
    print(
        f"{done:,} seeds from {asked.seed} on, {decisions:,} decisions, {reserved:,} reserved, {broken} broken, "
        f"{took:.0f} s, {decisions / took:,.0f} decisions a second"
    )
    return int(broken > 0)


def _told(job: tuple[int, int, bool, bool]) -> Told:
    seed, steps, twice, stalls = job
    gc.collect()  # between stories, which make little that is not freed at once
    told = tell(seed, story_of(seed, steps), stalls=stalls)
    if twice and not told.violation:
        again = tell(seed, story_of(seed, steps), stalls=stalls)
        if again.trace != told.trace:
            sys.exit(f"seed {seed} is told otherwise the second time")
    return told


def _say(short: Told) -> None:
    print(f"  with {len(short.steps)} steps: {short.violation}")
    print(
        "  tell(" + f"{short.seed}, {[(each.kind, each.seed) for each in short.steps]})", flush=True
    )
