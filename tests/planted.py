"""What a tired developer might do to the library, as changes to a copy of it; and how soon the simulation of faults finds each.

    python tests/planted.py --seeds 1000 --processes 2

says after how many seeds from 0 on each is found. The tests tell the story of a seed that is known to find it.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from multiprocessing.pool import ThreadPool
from pathlib import Path

import attrs

ROOT = Path(__file__).resolve().parent.parent


@attrs.frozen
class Bug:
    """One change of the code. `seed`: one that finds it."""

    name: str
    file: str
    old: str
    new: str
    seed: int = 0

    def planted(self, folder: Path) -> None:
        """Copy the library and the simulation to a folder, with the bug in it."""
        ignored = shutil.ignore_patterns("__pycache__")
        for name in ("linepicker", "benchmarks"):
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        file = folder / "linepicker" / self.file
        source = file.read_text(encoding="utf-8")
        assert source.count(self.old) == 1, f"{self.file} has changed: plant {self.name!r} anew"
        file.write_text(source.replace(self.old, self.new), encoding="utf-8")


BUGS = (
    Bug(
        "a swap looks at no versions but the first",
        "stores/memory.py",
        "if held(key, ABSENT)[0] != version:",
        "if key == writes[0].key and held(key, ABSENT)[0] != version:",
    ),
    Bug(
        "what only has to be the same is not looked at",
        "stores/memory.py",
        "if held(key, ABSENT)[0] != version:",
        "if value is not SAME and held(key, ABSENT)[0] != version:",
        1,
    ),
    Bug(
        "a reservation does not ask for the line's standing to be the same",
        "_straight.py",
        "        state.same if opened is None else with_standing(state, opened),\n",
        "        *([] if opened is None else [with_standing(state, opened)]),\n",
    ),
    Bug(
        "a refusal teaches nothing",
        "_update.py",
        "    fleet.learn(answer.records, {write.key: write.version for write in refused})",
        "    fleet.learn({} if refused else answer.records)",
        seed=9,
    ),
    Bug(
        "the wrong charge is given back",
        "_windows.py",
        "spending.ids.index(ident)\n",
        "0\n",
        1,
    ),
    Bug(
        "a message is given back twice",
        "_charge.py",
        "        windows.add_message(mine, at, now, -1)\n",
        "        windows.add_message(mine, at, now, -1)\n        windows.add_message(mine, at, now, -1)\n",
    ),
    Bug(
        "a settlement is written as often as it is told",
        "_settle.py",
        "    if made.outcome is not None:\n        return\n    if verdict",
        "    if verdict",
        1,
    ),
    Bug(
        "the hour is a second short",
        "_line.py",
        '("hour_budget", hour, HOUR)',
        '("hour_budget", hour, HOUR - 600)',
        seed=41,
    ),
    Bug(
        "the day is from midnight to midnight",
        "_line.py",
        '("day_budget", day, DAY)',
        '("day_budget", day, now % DAY)',
    ),
    Bug(
        "a budget lets one too many through",
        "_line.py",
        "if left <= 0 and counts:",
        "if left < 0 and counts:",
    ),
    Bug(
        "an old poll revives a line",
        "_observations.py",
        "since.extend(moment for moment in moments if moment > after_poll)",
        "since.extend(moments)",
    ),
    Bug(
        "a key's ticket is not written",
        "_flow.py",
        "            written.append(_keyed(made, ticket.key, ticket.version, now))\n",
        "",
    ),
    Bug(
        "a key is tried anew after UNKNOWN",
        "_flow.py",
        'if ticket.outcome in ("NOT_SENT",',
        'if ticket.outcome in ("UNKNOWN", "NOT_SENT",',
        seed=6,
    ),
    Bug(
        "another line is tried after UNKNOWN",
        "_send.py",
        'made.outcome is Outcome.LINE_REFUSED and made.kind == "new"',
        'made.outcome in ("LINE_REFUSED", "UNKNOWN") and made.kind == "new"',
        1,
    ),
    Bug(
        "moves have no limit",
        "_candidates.py",
        "return moves[-limit] + DAY if limit is not None and len(moves) >= limit else None",
        "return None",
        3,
    ),
    Bug(
        "an operator's move is not charged",
        "_move.py",
        "            Write(state.spending_key, state.spending_version, spending.encode()),\n",
        "            Write(state.spending_key, state.spending_version, state.spending.encode()),\n",
        2,
    ),
    Bug(
        "a pause is not looked at",
        "_line.py",
        'elif standing.operator == "paused":',
        'elif standing.operator == "stopped":',
    ),
    Bug(
        "a draining line takes newcomers",
        "_line.py",
        "    if state.conclusion.draining and",
        "    if not state and",
        1,
    ),
    Bug(
        "an opt-out does not bar",
        "_small.py",
        '(("opted_out", self.out), ("blocked", self.refused))',
        '(("blocked", self.refused),)',
        1,
    ),
    Bug(
        "an opt-out while it waits is not looked at",
        "_check.py",
        "    code = block.code if block and not made.override_optout else None\n",
        "    code = None\n",
        1,
    ),
    Bug("a poll keeps its lease", "_small.py", "            lease_until=0.0,\n", ""),
    Bug(
        "the right to poll is not given back",
        "_polls.py",
        "    finally:\n        flight.release()",
        "    finally:\n        fleet.hurry = False",
    ),
    Bug(
        "a trial keeps the line to itself",
        "_settle.py",
        "        cleared.probe = 0\n",
        "",
        1,
    ),
    Bug(
        "a poll undoes what the operator did",
        "_listed.py",
        "status=status, released=released)",
        'status=status, released=released, operator="")',
    ),
    Bug(
        "a report that a line is FLAGGED is lost",
        "_upkeep.py",
        "    if report.status is not None:",
        '    if report.status == "ACTIVE":',
    ),
    Bug(
        "CRITICAL is over at AT_RISK",
        "_line.py",
        '"recovering" if recovering else None',
        "None",
        1,
    ),
    Bug(
        "a line is as good as new after CRITICAL",
        "_line.py",
        "        scale *= min(1.0, policy.recovery.share",
        "        scale *= max(1.0, policy.recovery.share",
    ),
    Bug(
        "AT_RISK has the full budget",
        "_line.py",
        "scale = policy.at_risk.budget if at_risk else 1.0",
        "scale = 1.0",
    ),
    Bug(
        "a pair has no limit",
        "_core.py",
        "if limit is not None and len(times) - windows",
        "if limit is None and len(times) - windows",
        2,
    ),
    Bug(
        "a restart forgets what a line has spent",
        "_polls.py",
        "decode(spending_key, spent) or Spending()",
        "(fleet.state(line.number) and decode(spending_key, spent)) or Spending()",
    ),
    Bug(
        "a line is taken back from a recipient with a second message",
        "_charge.py",
        "if contact.opened == ident and contact.made == 1:",
        "if contact.opened == ident:",
        1,
    ),
    Bug(
        "a lost answer counts as not written",
        "_flow.py",
        "            if error.unknown and (yield from _went_in(fleet, who, made.ident)):\n"
        "                yield from gates(fleet, made)  # as they are after that while\n"
        "                return made\n",
        "            if error.unknown:\n                made_id = made_id[::-1]\n                continue\n",
        seed=148,
    ),
    Bug(
        "the pace of new conversations does not advance",
        "_charge.py",
        "spending.new_mark = max(send_at, mark) + budget.new_gap",
        "spending.new_mark = max(send_at, mark)",
        1,
    ),
    Bug(
        "quiet hours are not looked at",
        "_core.py",
        "    if who.rest and not awake and not request.inbound:\n",
        "    if who.rest and awake and not request.inbound:\n",
        2,
    ),
    Bug(
        "a refusal of a line is forgotten",
        "_line.py",
        "    if standing.out_until > now:\n",
        "    if standing.out_until > now + 300.0:\n",
        1,
    ),
    Bug(
        "messages of an outage are never charged",
        "_outage.py",
        "            yield from _charged(fleet, made)\n",
        "            yield from ()\n",
        seed=29,
    ),
    Bug(
        "another store is taken for the old one",
        "_update.py",
        "    if epoch is not None and epoch.version != fleet.same.version:",
        "    if epoch is not None and epoch.value and epoch.version != fleet.same.version:",
        3,
    ),
    Bug(
        "a reply that comes twice counts twice",
        "_replies.py",
        "        if event is not None and was[event] is not None:\n            return None\n",
        "",
    ),
)


@attrs.frozen
class Verdict:
    """What the simulation said of a copy."""

    found: bool
    seeds: int
    text: str


def told(folder: Path, seed: int, seeds: int) -> Verdict:
    """Tell stories to the copy below a folder until one fails."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks", "simulate-faults", "--first"),
            *(f"--seed={seed}", f"--seeds={seeds}"),
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=3000,
        check=False,
    )
    text = done.stdout + done.stderr
    counted = re.search(r"([\d,]+) seeds from", done.stdout)
    violations = "\n".join(line for line in done.stdout.splitlines() if line.startswith("seed "))
    if counted is None:
        raise AssertionError(text)
    return Verdict(
        done.returncode == 1, int(counted[1].replace(",", "")), violations or text[-2000:]
    )


def main() -> int:
    """Look for each."""
    parser = argparse.ArgumentParser(description="Plant bugs, and see how soon they are found.")
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--only", default="", help="those whose names hold this")
    asked = parser.parse_args()

    def look(bug: Bug) -> bool:
        with tempfile.TemporaryDirectory() as folder:
            bug.planted(Path(folder))
            verdict = told(Path(folder), 0, asked.seeds)
        what = f"found by seed {verdict.seeds - 1}" if verdict.found else "NOT FOUND"
        print(f"{bug.name}: {what}: {verdict.text[:150]}", flush=True)  # noqa: T201  a command prints
        return verdict.found

    with ThreadPool(asked.processes) as pool:
        found = pool.map(look, [bug for bug in BUGS if asked.only in bug.name], 1)
    return int(not all(found))


if __name__ == "__main__":
    sys.exit(main())
