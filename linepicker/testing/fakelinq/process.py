"""The fake as a process of its own."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Iterable
from typing import TextIO

from linepicker.testing.fakelinq.fake import FakeLinq

__all__ = ["serve_forever"]


def serve_forever(
    *, port: int = 0, lines: int | Iterable[str] = 6, out: TextIO | None = None
) -> None:
    """Serve until SIGINT or SIGTERM, then return. To be called in the main thread.

    Writes one line of JSON to *out* (stdout if left out) as soon as it serves: `{"base_url": …, "token": …}`.
    """
    stop = threading.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in signals}
    try:
        with FakeLinq(lines, port=port) as fake:
            hello = json.dumps({"base_url": fake.base_url, "token": fake.token})
            print(hello, file=out or sys.stdout, flush=True)
            stop.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
