"""What the status page costs: its weight and paint with 1,000 lines, and what is left of the router beside it.

Painting: a headless chromium loads, in turns, the page and a static one of as many bytes (one table of text, the same style
and script files, which does nothing). Measured is the time from the start of the navigation to the first contentful paint, as
the browser tells it. The page is served by uvicorn beside its router; the static one is a file in memory, served in the same
way. Every second round runs backwards.

Reserving: one process reserves for known and new recipients as fast as it can, in turns with no page, and with a page that is
open and streaming to a reader who reads all of it. The router is a Router on a store in memory.

Painting needs the extra `browser` and a chromium; without them it is said to be not measured.
"""

from __future__ import annotations

import contextlib
import gzip
import itertools
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import attrs

from benchmarks.measure import Figures, Goal, version

PACKAGES = ("linepicker", "starlette", "uvicorn", "jinja2", "playwright")
PAGE, STATIC = "first paint, the page", "first paint, static"
ALONE, OPEN = "reserve, no page", "reserve, page streaming"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PAINTED = """() => new Promise((done) => {
  const look = (found) => found.getEntriesByName("first-contentful-paint").map((each) => done(each.startTime));
  new PerformanceObserver(look).observe({type: "paint", buffered: true});
})"""
"""When the page was first painted, in milliseconds; awaited so, since the page's policy forbids `eval`."""
HEAVIEST = 250_000
"""How many bytes the page with its files may have."""


@attrs.define
class Scale:
    """How much is measured: rounds, lines, loads and seconds of reserving in each timing. `weights` is found on the way."""

    repeats: int = 9
    lines: int = 1000
    loads: int = 3
    seconds: float = 6.0
    weights: str = ""

    def words(self) -> Sequence[str]:
        """How it was measured, and what the page weighs."""
        return (
            f"rounds: {self.repeats}, each of {self.loads} loads, and of {self.seconds:g} s of reserving, {self.lines:,} lines",
            self.weights,
        )


QUICK = Scale(repeats=3, seconds=3.0)
TINY = Scale(repeats=1, lines=20, loads=1, seconds=0.3)


def missing() -> list[str]:
    """What can't be measured here, in words."""
    if version("jinja2") is None or version("uvicorn") is None:
        return ["the extra is not installed: pip install -e '.[web]'"]
    if version("playwright") is None or _chromium() is None:
        return ["painting: it takes pip install -e '.[browser]' and apt-get install chromium"]
    return []


def goals() -> list[Goal]:
    """What is compared with what, and what is wanted of it."""
    return [
        Goal("the page / a static page of as many bytes", PAGE, STATIC, 3.0),
        Goal("reserves in a second, page streaming / no page", ALONE, OPEN, 0.75, at_least=True),
    ]


def figures(scale: Scale, say: Callable[[str], None]) -> dict[str, Figures]:
    """Seconds to the first paint, and seconds for a reserve, round by round."""
    found: dict[str, list[float]] = {name: [] for name in (PAGE, STATIC, ALONE, OPEN)}
    calls = dict.fromkeys(found, scale.loads)
    with contextlib.ExitStack() as house:
        router, numbers = _fleet(scale.lines)
        port = house.enter_context(_serving(_page_of(router)))
        text = _get(port, "/")
        static = house.enter_context(_serving(_static(text)))
        scale.weights = _weights(text)
        say(scale.weights)
        paint = house.enter_context(_painter()) if not missing() else None
        fresh = itertools.count()
        for turn in range(scale.repeats):
            say(f"round {turn + 1} of {scale.repeats}")
            for name in reversed(found) if turn % 2 else found:
                if name in (PAGE, STATIC):
                    if paint is not None:
                        where = port if name == PAGE else static
                        found[name].append(_median(paint(where) for _ in range(scale.loads)))
                    continue
                with _reader(port) if name == OPEN else contextlib.nullcontext():
                    count, seconds = _reserve(router, numbers, fresh, scale.seconds)
                found[name].append(seconds / count)
                calls[name] = count
    return {name: Figures(calls[name], tuple(times)) for name, times in found.items() if times}


# The router, and its page


def _fleet(lines: int) -> tuple[Any, list[str]]:
    """A router whose lines have a week behind them: spending, replies, and a fall here and there."""
    from linepicker import Line, Policy, Router

    numbers = [f"+1202555{i:04d}" for i in range(lines)]
    names = ["HEALTHY"] * 17 + ["AT_RISK"] * 2 + ["CRITICAL"]
    fleet = [Line(each, reputation=names[i % 20]) for i, each in enumerate(numbers)]
    limits = {
        "new_per_day": "off",
        "new_per_hour": "off",
        "messages_per_day": "off",
        "pair_per_minute": "off",
    }
    pace = {"new_gap": 0.0, "message_gap": 0.0}
    clock = _Clock(time.time() - 7 * 86400.0)
    router = Router(fleet, policy=Policy(limits=limits, pace=pace), clock=clock)
    chance, person = random.Random(1), itertools.count()
    for _ in range(28):
        for each in chance.sample(numbers, lines * 2 // 3):
            with contextlib.suppress(Exception):  # of a line that may not
                router.reserve(f"past-{next(person)}@example.com", line=each).settle("SENT")
        clock.ahead += 6 * 3600.0
    clock.ahead = 0.0
    clock.start = None
    router.pause(numbers[0], reason="carrier test")
    return router, numbers


class _Clock:
    """The host's, but in the past until told otherwise."""

    def __init__(self, start: float) -> None:
        self.start: float | None = start
        self.ahead = 0.0

    def now(self) -> float:
        return time.time() if self.start is None else self.start + self.ahead

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def _page_of(router: Any) -> Any:
    from linepicker.web import StatusApp

    return StatusApp(router, token="a token for operators")


def _static(text: str) -> Any:
    """An application that serves a page of as many bytes: as many rows, of text alone, and files that do as much as none."""
    files_of = {name: _file(name) for name in ("page.css", "page.js", "icon.svg")}
    head, rest = text.split("<tbody id=rows>")
    body, foot = rest.split("</tbody>")
    count = max(1, body.count("<tr>"))
    each = len(body.encode()) // count - len("<tr><td><td>")
    words = ("lorem ipsum dolor sit amet consectetur " * (each // 30 + 1))[: max(1, each)]
    rows = f"<tr><td>{words[: each // 2]}<td>{words[each // 2 :]}" * count
    page = f"{head}<tbody>{rows}</tbody>{foot}".replace(
        '<script src="static/page.js" defer></script>', ""
    )
    page += " " * (len(text.encode()) - len(page.encode()))
    kinds = {"css": b"text/css", "js": b"text/javascript", "svg": b"image/svg+xml"}

    async def app(scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        name = scope["path"].rpartition("/")[2]
        kind = kinds.get(name.rpartition(".")[2], b"text/html; charset=utf-8")
        content = files_of[name] if name in files_of else gzip.compress(page.encode(), 5)
        headers = [(b"content-type", kind), (b"content-length", b"%d" % len(content))]
        if name not in files_of:
            headers.append((b"content-encoding", b"gzip"))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    return app


def _file(name: str) -> bytes:
    return (files("linepicker.web") / "static" / name).read_bytes()


def _weights(text: str) -> str:
    size = len(text.encode())
    more = sum(len(_file(name)) for name in ("page.css", "page.js", "icon.svg"))
    small = len(gzip.compress(text.encode(), 5))
    verdict = "under" if size + more < HEAVIEST else "NOT UNDER"
    return f"the page weighs {size:,} bytes ({small:,} as sent, compressed), its files {more:,}: {verdict} {HEAVIEST:,}"


@contextlib.contextmanager
def _serving(app: Any) -> Iterator[int]:
    """The application under uvicorn in a thread; its port."""
    import uvicorn

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        config = uvicorn.Config(app, http="h11", log_config=None, access_log=False, lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            server.force_exit = server.should_exit = True
            thread.join()


def _get(port: int, path: str) -> str:
    import httpx

    with httpx.Client(trust_env=False, timeout=60) as http:
        for _ in range(2):  # by the second time the next hours are worked out
            text = http.get(f"http://127.0.0.1:{port}{path}").text
            time.sleep(2.5)
    return text


# What is timed


@contextlib.contextmanager
def _painter() -> Iterator[Callable[[int], float]]:
    """Gives the function that loads what is served at a port, and tells when it was first painted, in seconds."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_chromium(), args=list(FLAGS))

        def paint(port: int) -> float:
            context = browser.new_context(viewport={"width": 1280, "height": 900})
            page = context.new_page()
            page.goto(f"http://127.0.0.1:{port}/")
            told = page.evaluate(PAINTED)
            context.close()
            return float(told) / 1000.0

        yield paint
        browser.close()


@contextlib.contextmanager
def _reader(port: int) -> Iterator[None]:
    """A page that is open: all that is streamed is read, in a process of its own, as a browser is."""
    code = (
        "import socket, sys\n"
        "s = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n"
        "s.sendall(b'GET /events HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\n\\r\\n')\n"
        "print(len(s.recv(100)), flush=True)\n"
        "while s.recv(65536): pass\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(port)], stdout=subprocess.PIPE
    ) as reader:
        assert reader.stdout is not None
        reader.stdout.readline()
        try:
            yield
        finally:
            reader.kill()


def _reserve(
    router: Any, numbers: Sequence[str], fresh: Iterator[int], seconds: float
) -> tuple[int, float]:
    """Reserve for so long: every second one for somebody new. How many were made, in how many seconds."""
    count, start = 0, time.perf_counter()
    until = start + seconds
    while time.perf_counter() < until:
        n = next(fresh)
        router.reserve(f"new-{n}@example.com").settle("SENT")
        router.reserve(f"new-{n}@example.com").settle("SENT")
        count += 2
    return count, time.perf_counter() - start


def _median(values: Iterator[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2]


def _chromium() -> str | None:
    found = os.environ.get("CHROMIUM") or shutil.which("chromium")
    return found if found and Path(found).exists() else None
