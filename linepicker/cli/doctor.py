"""`linepicker doctor`: what works, what is wrong, and the command that mends it. One of these is `linepicker subscribe`."""

from __future__ import annotations

import os
from typing import Annotated

import attrs
import typer

from linepicker.cli import show
from linepicker.cli.checkup import examine
from linepicker.cli.settings import AsJson, Config, Pool, Settings, Store
from linepicker.providers.linq.account import Account

__all__ = ["doctor", "subscribe"]

WRONG = 1


def doctor(
    context: typer.Context,
    webhook_url: Annotated[
        str | None,
        typer.Option(
            "--webhook-url",
            metavar="URL",
            help="Where webhooks should go; else LINEPICKER_WEBHOOK_URL, else anywhere.",
        ),
    ] = None,
    as_json: AsJson = False,
    config: Config = None,
    store: Store = None,
    pool: Pool = None,
) -> None:
    """What works, what is wrong, and the command that mends it.

    Looks at policy, store, provider, lines, webhooks and clocks. The exit status is 1 where something is wrong.
    """
    settings = Settings.of(context, as_json, config, store, pool)
    found = examine(settings, webhook_url or os.environ.get("LINEPICKER_WEBHOOK_URL"))
    well = all(each.ok for each in found)
    if settings.as_json:
        show.document({"ok": well, "findings": [attrs.asdict(each) for each in found]})
    else:
        width = max(len(each.about) for each in found)
        for each in found:
            mark = "ok   " if each.ok else "WRONG"
            head = f"{mark} {each.about.ljust(width)}  "
            show.say(each.text, head=head, style="" if each.ok else "bold")
            if each.mend:
                show.say(each.mend, head=" " * len(head) + "-> ")
    if not well:
        raise typer.Exit(WRONG)


def subscribe(
    context: typer.Context,
    url: Annotated[
        str, typer.Argument(metavar="URL", help="Where the endpoint is reached: https only.")
    ],
    as_json: AsJson = False,
) -> None:
    """Have the provider tell an address of what it needs to know.

    A subscription of that address is put right; else one is made, and its signing secret printed, which is shown only once.
    """
    settings = Settings.of(context, as_json)
    with Account() as account:
        secret = account.subscribe(url)
    if settings.as_json:
        show.document({"url": url, "secret": secret})
    elif secret is None:
        show.say(
            f"The subscription of {url.partition('?')[0]} is put right; its secret is as it was."
        )
    else:
        show.say(
            f"Subscribed. Keep the secret where the endpoint finds it: LINQ_WEBHOOK_SECRET={secret}"
        )
