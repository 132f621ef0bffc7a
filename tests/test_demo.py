"""The demo: played as a process, into a pipe, as JSON, and on a terminal."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time

import attrs
import pytest

from linepicker.cli.day import FastClock
from linepicker.cli.screen import Entry, Frame, draw
from linepicker.cli.show import console
from linepicker.model import Line, LineView

LONGEST = 20.0  # seconds of the host that a demo of the usual length may take, with its start
FULL_HANDLE = re.compile(r"\+1(?!202)[0-9]{10}")  # the lines are in area 202, the people are not

PLAIN = ["--seconds", "6", "--recipients", "200"]
AS_JSON = ["--seconds", "4", "--recipients", "60", "--lines", "5", "--seed", "7", "--json"]
LIVE = ["--seconds", "3", "--recipients", "40", "--lines", "4"]


@attrs.frozen
class Played:
    """How a demo went."""

    status: int
    out: str
    err: str
    seconds: float


def play(*arguments, **env):
    """A demo's process, and when it began."""
    mine = {"PYTHONIOENCODING": "utf-8", "TERM": "xterm-256color", **env}
    command = [sys.executable, "-m", "linepicker", "demo", *arguments]
    return subprocess.Popen(
        command, env=mine, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def played(process, began):
    """How the demo of that process went."""
    out, err = process.communicate(timeout=60)
    return Played(process.returncode, out, err, time.monotonic() - began)


@pytest.fixture(scope="module")
def demos():
    """A demo into a pipe and one as JSON, played at the same time."""
    began = time.monotonic()
    processes = [play(*PLAIN), play(*AS_JSON, LINEPICKER_STORE="sqlite:////no/such/folder/x.db")]
    return [played(process, began) for process in processes]


def test_the_demo_ends_well_and_soon(demos):
    """Status 0, within twenty seconds, with nothing on stderr: also as JSON, and whatever store is configured."""
    for demo in demos:
        assert (demo.status, demo.err) == (0, "")
        assert demo.seconds < LONGEST


def test_the_demo_shows_nobody_in_full(demos):
    """Neither a recipient's handle nor the fake's token can be read, only masks."""
    for demo in demos:
        assert FULL_HANDLE.search(demo.out) is None
        assert re.search(r"Bearer|[\w-]{32,}", demo.out) is None
    assert "+1•••••••1" in demos[0].out


def test_the_demo_says_what_it_is(demos):
    """The first line names its size and that its clock is a fast one."""
    first = demos[0].out.splitlines()[0]
    assert first == "linepicker demo: 8 lines, 200 people, a clock 2,000 times faster"


def test_the_demo_explains_a_rerouting(demos):
    """A line that refuses is told with the provider's code and the line that took the message in its stead."""
    told = re.search(
        r"\+1•{7}\d{3}: line (\+1202\d{7}) refused \(403/2027 ineligible\), sent from (\+1202\d{7}) instead",
        demos[0].out,
    )
    assert told is not None
    refusing, taking = told.groups()
    assert refusing != taking
    assert f"Linq flags {refusing}" in demos[0].out
    assert f"{refusing} can't send, moved to " in demos[0].out


def test_the_demo_tells_of_every_standing(demos):
    """Lines turn AT_RISK, CRITICAL and FLAGGED on the way; people are held, and the person who wrote STOP is let be."""
    out = demos[0].out
    for name in ("AT_RISK", "CRITICAL", "HEALTHY"):
        assert re.search(rf"Linq calls \+1202\d{{7}} {name} from now on", out)
    assert re.search(r"The router: \+1202\d{7} is AT_RISK, 21 new people a day instead of 50", out)
    assert re.search(r"held, because \+1202\d{7} is CRITICAL; no other line is tried", out)
    assert "(403/2024 opted out), so not tried from another line" in out


def test_the_demo_ends_with_its_sums(demos):
    """The summary's parts add up to the messages sent, which are those that the provider counts; each line has its row."""
    out = demos[0].out
    ending = out[out.index("\nIn ") :]
    sums = re.search(r"(\d+) messages were sent; the provider counts (\d+)", ending)
    sent, counted = map(int, sums.groups())
    parts = [
        int(re.search(rf"(\d+)  {what}", ending)[1])
        for what in ("to new people", "to known people", "moved, because")
    ]
    assert sent == counted == sum(parts)
    assert int(re.search(r"(\d+)  re-routed", ending)[1]) >= 1
    rows = re.findall(r"^(\+1202\d{7}) +(\d+) messages, +(\d+) new", ending, re.MULTILINE)
    assert len(rows) == 8
    assert sum(int(count) for _, count, _ in rows) == sent
    assert all(int(new) <= 50 for _, _, new in rows)


def test_the_demo_as_json_is_one_document(demos):
    """With --json the demo shows nothing on its way, and its sums are one document."""
    result = json.loads(demos[1].out)
    assert result["sent"] == result["accepted_by_provider"] > 0
    assert result["sent"] == sum(result["by_kind"].values()) == sum(result["by_line"].values())
    assert result["rerouted"] >= 1
    assert result["unreached"] == 0
    assert len(result["lines"]) == 5
    assert all(line["used"] <= 50 for line in result["lines"])


def test_the_demo_is_alive_on_a_terminal():
    """On a terminal the table is drawn over itself, within its width and height, and the summary stays."""
    columns, rows = 60, 30
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    env = {"PYTHONIOENCODING": "utf-8", "TERM": "xterm-256color"}
    command = [sys.executable, "-m", "linepicker", "demo", *LIVE]
    process = subprocess.Popen(command, env=env, stdout=slave, stderr=subprocess.PIPE)
    os.close(slave)
    seen = bytearray()
    try:
        while chunk := os.read(master, 65536):
            seen += chunk
    except OSError:  # how a terminal says that its last user has gone
        pass
    os.close(master)
    assert (process.wait(timeout=20), process.stderr.read()) == (0, b"")
    process.stderr.close()
    text = seen.decode()
    assert "\x1b[" in text
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    assert max(len(row) for row in re.split(r"[\r\n]", plain)) <= columns
    assert "What just happened" in plain
    assert re.search(r"refused \(403/2027\s+ineligible\)", plain)
    assert "messages were" in plain[plain.rindex("What just happened") :]
    assert FULL_HANDLE.search(plain) is None


@pytest.mark.parametrize("rows", [12, 30])
@pytest.mark.parametrize("columns", [40, 60, 100, 200])
@pytest.mark.parametrize("lines", [4, 40])
def test_a_frame_fits_its_terminal(monkeypatch, columns, rows, lines):
    """However many lines and however long the log, a frame has at most as many rows and columns as the terminal."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("LINES", str(rows))
    frame = Frame("40 lines, 300 people, a clock 2,000 times faster", latest="+1•••••••123, new")
    frame.views = [
        LineView(Line(f"+1202555{n:04d}"), "critical", 50, 12, 38, 7200.0) for n in range(lines)
    ]
    frame.entries = [Entry(60.0 * n, "something that happened " * 5, "held") for n in range(50)]
    out = console()
    drawn = out.render_lines(draw(frame, out), pad=False)
    assert len(drawn) <= max(rows, 16)
    widths = [sum(segment.cell_length for segment in row) for row in drawn]
    assert max(widths) <= max(columns, 51)


@pytest.mark.parametrize("place", [0, 25, 49])
def test_the_last_rerouting_stays_in_sight(monkeypatch, place):
    """However much happened since, a frame shows the last re-routing, once, and under it the latest of the rest."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LINES", "24")
    frame = Frame("", views=[LineView(Line("+12025550100"), "ok", 50, 0, 50, 0.0)])
    frame.entries = [Entry(60.0 * n, f"entry {n}.", "held") for n in range(50)]
    frame.entries[place] = Entry(60.0 * place, "refused, sent from another.", "rerouted")
    out = console()
    rows = ["".join(part.text for part in row) for row in out.render_lines(draw(frame, out))]
    log = [row.strip() for row in rows if re.match(r"\+\d\d:\d\d (entry|refused)", row)]
    assert sum("sent from another" in row for row in log) == 1
    others = [row[7:] for row in log if "entry" in row]
    latest = [entry.text for entry in frame.entries if entry.kind == "held"][-len(others) :]
    assert others == latest
    assert len(log) > 5


def test_a_fast_clock_is_the_hosts_but_faster():
    """It starts at the host's time; what sleeps by it sleeps so many times shorter."""
    clock = FastClock(1000.0)
    began, start = time.monotonic(), clock.now()
    assert abs(start - time.time()) < 60.0
    clock.sleep(5.0)
    assert 0.005 <= time.monotonic() - began < 4.0
    assert clock.now() - start >= 5.0
