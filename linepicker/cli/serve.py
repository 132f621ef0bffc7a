"""`linepicker webhooks` and `linepicker serve`: the endpoint for the provider's webhooks, and the status page, each as a
process of its own."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
from collections.abc import Iterator
from typing import Annotated, Final

import typer

from linepicker.cli import show
from linepicker.cli.settings import AsJson, CommandError, Config, Pool, Settings, Store
from linepicker.errors import SourceError
from linepicker.providers.linq import LinqSource
from linepicker.router import Router

__all__ = ["serve", "webhooks"]

_AT_ONCE: Final = 200
"""How many connections the page's server has at once; it turns others away."""


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
    with _listening(settings, host, port) as (router, listening):
        app = WebhookApp(router, secrets, legacy=legacy)
        missing = _first_list(router)
        _tell_at_once(missing)
        _announce(settings, host, listening, "Taking webhooks at")
        options = uvicorn.Config(app, log_config=None, access_log=False, server_header=False)
        with router.keep_fresh():
            uvicorn.Server(options).run(sockets=[listening])


def serve(
    context: typer.Context,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8001,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where to listen; elsewhere only with a token.")
    ] = "127.0.0.1",
    token_env: Annotated[
        str, typer.Option(metavar="NAME", help="The variable that may hold the operators' token.")
    ] = "LINEPICKER_TOKEN",  # noqa: S107  the name of a variable
    as_json: AsJson = False,
    config: Config = None,
    store: Store = None,
    pool: Pool = None,
) -> None:
    """Show the lines on a page that follows them, until interrupted.

    It is read only, and for this machine. With a token of 16 or more characters in the variable lines can be paused, drained
    and resumed, and it may listen elsewhere: who reads it then gives the token as password. Put TLS in front of it.
    """
    try:
        import uvicorn

        from linepicker.web import StatusApp
        from linepicker.web.guard import is_loopback
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {
            "jinja2",
            "markupsafe",
            "starlette",
            "uvicorn",
        }:
            raise
        raise CommandError("this command needs: pip install 'linepicker[web]'") from None

    settings = Settings.of(context, as_json, config, store, pool)
    token = os.environ.get(token_env) or None
    if token is None and not is_loopback(host):
        raise CommandError(
            f"{host} is not this machine alone: put a token of 16 or more characters into {token_env}, or leave --host out"
        )

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            app.close()  # else open pages would be waited for
            await super().shutdown(sockets)

    with _listening(settings, host, port) as (router, listening):
        try:
            app = StatusApp(router, token=token)
        except ValueError as error:
            raise CommandError(f"{token_env}: {error}") from None
        missing = _first_list(router)
        _tell_at_once(missing)
        logging.getLogger("linepicker.web").setLevel(logging.INFO)  # who operated what
        _announce(settings, host, listening, "The lines are at")
        options = uvicorn.Config(
            app,
            http="h11",  # which bounds what headers may hold
            limit_concurrency=_AT_ONCE,
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=2,
        )
        with router.keep_fresh():
            Server(options).run(sockets=[listening])


@contextlib.contextmanager
def _listening(settings: Settings, host: str, port: int) -> Iterator[tuple[Router, socket.socket]]:
    """The router that the options describe, and a socket that listens."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with (
        LinqSource() as source,
        settings.store() as handle,
        Router(source, policy=settings.policy(), store=handle, pool=settings.pool) as router,
        socket.create_server((host, port), family=family) as listening,
    ):
        # Else every answer with a body waits some 40 ms for the other side's acknowledgement.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield router, listening


def _tell_at_once(missing: SourceError | None) -> None:
    """From here on what the library warns of is told at once."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if missing is not None:
        logging.getLogger(__name__).warning("starting without a list of lines: %s", missing)


def _announce(settings: Settings, host: str, listening: socket.socket, words: str) -> None:
    name = f"[{host}]" if ":" in host else host
    url = f"http://{name}:{listening.getsockname()[1]}"
    if settings.as_json:
        show.document({"url": url})
    else:
        show.say(f"{words} {url}")
    sys.stdout.flush()


def _first_list(router: Router) -> SourceError | None:
    """Read the lines; what went wrong, if that can pass. Raises SourceError if it can't."""
    try:
        router.refresh()
    except SourceError as error:
        if error.fatal:
            raise
        return error
    return None
