"""Fixtures for pytest, which it finds by itself where linepicker is installed: `fake_linq` and `linepicker_clock`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from linepicker.testing import FakeLinq, ManualClock

__all__ = ["fake_linq", "linepicker_clock"]


@pytest.fixture
def linepicker_clock() -> ManualClock:
    """A clock that only moves when told: hand it to the router. It shows a Friday morning, 2027-01-15 08:00 UTC."""
    from linepicker.testing import ManualClock

    return ManualClock(start=1_800_000_000.0)


@pytest.fixture
def fake_linq(linepicker_clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeLinq]:
    """A provider with six lines, by that clock, which serves as long as the test lasts.

    The environment says that it is Linq, so that `LinqSource()` and `LinqAPIV3()` without arguments talk to it.
    """
    from linepicker.testing import FakeLinq

    with FakeLinq(lines=6, clock=linepicker_clock) as fake:
        monkeypatch.setenv("LINQ_API_V3_API_KEY", fake.token)
        monkeypatch.setenv("LINQ_API_V3_BASE_URL", fake.base_url)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.setenv(name, "127.0.0.1")
        yield fake
