"""`linepicker webhooks`: the endpoint for the provider's webhooks, as a process of its own."""

from __future__ import annotations

import logging
import os
import socket
import sys
from typing import Annotated

import typer

from linepicker.cli import show
from linepicker.cli.settings import AsJson, CommandError, Config, Pool, Settings, Store
from linepicker.errors import SourceError
from linepicker.providers.linq import LinqSource
from linepicker.router import Router

__all__ = ["webhooks"]


def webhooks(
    context: typer.Context,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where to listen; 0.0.0.0 is everywhere.")
    ] = "127.0.0.1",
    secret_env: Annotated[
        str, typer.Option(metavar="NAME", help="The variable that holds the signing secret.")
    ] = "LINQ_WEBHOOK_SECRET",  # noqa: S107  the name of a variable
    legacy: Annotated[
        bool, typer.Option("--legacy", help="Take the deprecated X-Webhook-Signature too.")
    ] = False,
    as_json: AsJson = False,
    config: Config = None,
    store: Store = None,
    pool: Pool = None,
) -> None:
    """Take the provider's webhooks, until interrupted.

    What they say is in the store before they are answered. The variable may hold several secrets, with blanks between
    them, while they are rotated. Put TLS in front of it: the provider calls https only.
    """
    try:
        import uvicorn

        from linepicker.webhooks import WebhookApp
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"standardwebhooks", "starlette", "uvicorn"}:
            raise
        raise CommandError("this command needs: pip install 'linepicker[web]'") from None

    settings = Settings.of(context, as_json, config, store, pool)
    secrets = os.environ.get(secret_env, "").split()
    if not secrets:
        raise CommandError(
            f"{secret_env} must hold the signing secret that the provider gave with the subscription"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with (
        LinqSource() as source,
        settings.store() as handle,
        Router(source, policy=settings.policy(), store=handle, pool=settings.pool) as router,
        socket.create_server((host, port), family=family) as listening,
    ):
        app = WebhookApp(router, secrets, legacy=legacy)
        missing = _first_list(router)
        # From here on what the library warns of is told at once.
        logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        if missing is not None:
            logging.getLogger(__name__).warning("starting without a list of lines: %s", missing)
        # Else every answer with a body waits some 40 ms for the other side's acknowledgement.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        name = f"[{host}]" if ":" in host else host
        url = f"http://{name}:{listening.getsockname()[1]}"
        if settings.as_json:
            show.document({"url": url})
        else:
            show.say(f"Taking webhooks at {url}")
        sys.stdout.flush()
        options = uvicorn.Config(app, log_config=None, access_log=False, server_header=False)
        with router.keep_fresh():
            uvicorn.Server(options).run(sockets=[listening])


def _first_list(router: Router) -> SourceError | None:
    """Read the lines; what went wrong, if that can pass. Raises SourceError if it can't."""
    try:
        router.refresh()
    except SourceError as error:
        if error.fatal:
            raise
        return error
    return None
