"""Fuzzing, guided by what the bytes reach. Needs `pip install atheris`, and a Python that it has a wheel for.

    python tests/fuzz.py policy --seconds 600 --corpus FOLDER

Without a target, each in turn. What reached something new is kept in FOLDER/TARGET, and begins the next run; bytes that broke
something are printed, and belong among the examples of test_fuzz.py. Exits with 1 then.
"""

from __future__ import annotations

import argparse
import base64
import logging
import subprocess
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["linepicker", "tomllib"]):
    from fuzz_targets import TARGETS


def run(target: str, seconds: int, corpus: Path) -> None:
    """One target, in this process, which libFuzzer ends."""
    logging.disable()
    folder = corpus / target
    folder.mkdir(parents=True, exist_ok=True)
    kept = Path(__file__).with_name("corpus") / f"{target}.txt"
    reached = map(base64.b64decode, kept.read_text().splitlines())
    for n, seed in enumerate([*TARGETS[target].seeds, *reached]):
        (folder / f"seed-{n}").write_bytes(seed)
    flags = [
        f"-max_total_time={seconds}",
        "-timeout=30",
        "-print_final_stats=1",
        "-rss_limit_mb=4096",
    ]
    words = corpus / f"{target}.words"
    words.write_text("#\n" + "".join(f'"{word}"\n' for word in TARGETS[target].words))
    flags += [f"-dict={words}", f"-artifact_prefix={folder.parent}/{target}-"]
    atheris.Setup([sys.argv[0], *flags, str(folder)], TARGETS[target].take)
    atheris.Fuzz()


def main() -> None:
    """Read the command line; each target runs in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", nargs="?", choices=[*TARGETS])
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--corpus", type=Path, default=Path("corpus"))
    given = parser.parse_args()
    if given.target is not None:
        run(given.target, given.seconds, given.corpus)
        return
    options = [f"--seconds={given.seconds}", f"--corpus={given.corpus}"]
    ended = {
        target: subprocess.run([sys.executable, __file__, target, *options], check=False).returncode
        for target in TARGETS
    }
    broken = [target for target, status in ended.items() if status]
    sys.exit(f"broken: {', '.join(broken)}" if broken else 0)


if __name__ == "__main__":
    main()
