"""The demo: a fake provider, real HTTP, the real router, and a day to play with them."""

from __future__ import annotations

import random
from typing import Any, Final

import attrs

from linepicker.cli.day import Day, FastClock, Watched
from linepicker.cli.screen import screen, summary
from linepicker.cli.settings import CommandError
from linepicker.cli.show import line_json
from linepicker.policy import Pace, Policy
from linepicker.providers.linq import LinqMessenger, LinqSource
from linepicker.router import Router
from linepicker.testing import FakeLinq

__all__ = ["play"]

SPEED: Final = 2000.0
POLICY: Final = Policy(pace=Pace(spread=None))
"""The defaults, but for the spread: a day's budget may be used within the few hours that the demo lasts."""


def play(
    *, seed: int, lines: int, recipients: int, seconds: float, policy: Policy | None, quiet: bool
) -> dict[str, Any]:
    """Play the day within about *seconds*, show it unless *quiet*, and answer what came of it as JSON. Raises CommandError
    without Linq's official client."""
    try:
        from linq import DefaultHttpxClient, LinqAPIV3
    except ModuleNotFoundError:
        raise CommandError(
            "the demo sends with Linq's official client: pip install 'linepicker[cli,linq]'"
        ) from None
    clock = FastClock(SPEED)
    with (
        FakeLinq(lines, clock=clock) as fake,
        DefaultHttpxClient(trust_env=False) as http,  # a proxy has no way to this loopback
        Router(
            LinqSource(fake.token, base_url=fake.base_url, client=http),
            policy=policy or POLICY,
            clock=clock,
            seed=seed,
        ) as router,
        screen(quiet=quiet) as shown,
    ):
        client = LinqAPIV3(api_key=fake.token, base_url=fake.base_url, http_client=http)
        watched = Watched(router)
        messenger = LinqMessenger(client, watched, sleep=clock.sleep)
        day = Day(
            clock, fake, router, messenger, watched, shown, random.Random(seed), seconds * SPEED
        )
        day.plan(recipients)
        day.live()
        frame, accepted = day.frame, len(fake.sent)
    if not quiet:
        summary(frame, accepted, frame.elapsed / SPEED)
    return {
        **attrs.asdict(frame.tally),
        "accepted_by_provider": accepted,
        "seconds": round(frame.elapsed),
        "lines": [line_json(view) for view in frame.views],
    }
