"""The commands. Each asks the router one thing, and shows the answer."""

from __future__ import annotations

import json
import time
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Final

import typer

from linepicker import _words as words
from linepicker.cli import config as config_
from linepicker.cli import show
from linepicker.cli.doctor import doctor, subscribe
from linepicker.cli.moving import copy, export, load_file, migrate
from linepicker.cli.planning import capacity, plan
from linepicker.cli.replay import replay
from linepicker.cli.serve import serve, webhooks
from linepicker.cli.settings import (
    AsJson,
    CommandError,
    Config,
    Pool,
    Settings,
    Store,
    To,
    recipient,
)
from linepicker.cli.simulate import simulate
from linepicker.cli.takeover import known, take_over
from linepicker.cli.watch import watch
from linepicker.cli.why import why
from linepicker.model import LineView
from linepicker.router import Router

__all__ = ["app"]

USAGE: Final = 2
REFUSED: Final = 3

app = typer.Typer(
    help="From which of our phone lines may this message go out, and when?",
    epilog="The account is that of LINQ_API_V3_API_KEY, at LINQ_API_V3_BASE_URL if that is set.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Number = Annotated[
    str, typer.Argument(metavar="NUMBER", help="One of our lines, in E.164: +12025550100.")
]


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    show_version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    as_json: AsJson = False,
    config: Config = None,
    store: Store = None,
    pool: Pool = None,
) -> None:
    """From which of our phone lines may this message go out, and when?"""
    context.obj = Settings.of(context, as_json, config, store, pool)
    if show_version:
        number = version("linepicker")
        if as_json:
            show.document({"version": number})
        else:
            print(f"linepicker {number}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(USAGE)


@app.command()
def lines(
    context: typer.Context,
    as_json: AsJson = False,
    config: Config = None,
    store: Store = None,
    pool: Pool = None,
) -> None:
    """Every line: reputation, budget, and when it has room."""
    settings = Settings.of(context, as_json, config, store, pool)
    with settings.router() as router:
        views = router.lines()
    if settings.as_json:
        show.document({"lines": [show.line_json(view) for view in views]})
    else:
        show.lines(views, time.time())


@app.command()
def pick(
    context: typer.Context,
    to: To,
    tag: Annotated[
        list[str] | None, typer.Option(metavar="TAG", help="Only lines with it; repeatable.")
    ] = None,
    line_type: Annotated[
        str | None, typer.Option(metavar="TYPE", help="Only such lines: iMessage, RCS.")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="NUMBER", help="Not this line; repeatable.")
    ] = None,
    line: Annotated[str | None, typer.Option(metavar="NUMBER", help="This line or none.")] = None,
    inbound: Annotated[bool, typer.Option("--inbound", help="They wrote first.")] = False,
    max_delay: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="How long it may wait for its slot.")
    ] = None,
    as_json: AsJson = False,
    config: Config = None,
    store: Store = None,
    pool: Pool = None,
) -> None:
    """The line a message would go out from, and why.

    Nothing is charged and nothing is sent. The exit status is 3 where no line may take it.
    """
    settings = Settings.of(context, as_json, config, store, pool)
    with settings.router() as router:
        made = router.preview(
            recipient(to),
            tags=tag or (),
            line_type=line_type,
            exclude=exclude or (),
            line=line,
            inbound=inbound,
            max_delay=max_delay,
        )
        if made.outcome == "stale":
            router.lines()  # raises what went wrong, where no list of lines was ever read
    if settings.as_json:
        show.document(json.loads(made.to_json()))
    else:
        show.decision(made)
        show.candidates(made)
    if made.outcome != "reserved":
        raise typer.Exit(REFUSED)


@app.command("import")
def import_(
    context: typer.Context,
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="What `linepicker export` wrote, into an empty store."),
    ] = None,
    as_json: AsJson = False,
    config: Config = None,
    store: Store = None,
    pool: Pool = None,
) -> None:
    """Take over the account's chats: nobody gets a second number. Or read an exported file.

    Everyone who has a chat is assigned to its line; those who have a line already keep it. It may be repeated.
    """
    settings = Settings.of(context, as_json, config, store, pool)
    if file is not None:
        load_file(settings, file)
        return
    with settings.router() as router:
        done = take_over(router)
    if settings.as_json:
        show.document({"imported": done})
    else:
        show.say(f"{words.recipients(done)} with a chat: each keeps the line it is on.")


@app.command()
def assignments(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, help="How many, the latest first.")] = 50,
    full_handles: Annotated[
        bool, typer.Option("--full-handles", help="Show recipients unmasked.")
    ] = False,
    as_json: AsJson = False,
    config: Config = None,
    store: Store = None,
    pool: Pool = None,
) -> None:
    """Who belongs to which line.

    Recipients are masked. The provider is not asked.
    """
    settings = Settings.of(context, as_json, config, store, pool)
    settings.policy()
    with settings.store() as handle:
        found, total = known(handle.store(), settings.pool, limit)
        where = handle.url
    if settings.as_json:
        listed = [show.assignment_json(each, full_handles=full_handles) for each in found]
        show.document({"total": total, "assignments": listed})
        return
    show.assignments(found, full_handles=full_handles)
    if not total:
        show.say(f"Nobody belongs to a line in pool {settings.pool!r} of {where}.")
    elif total > len(found):
        show.say(f"These are {len(found)} of {total}: --limit shows more.")


@app.command()
def pause(
    context: typer.Context,
    number: Number,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="For whoever asks why.")] = "",
    as_json: AsJson = False,
    config: Config = None,
    store: Store = None,
    pool: Pool = None,
) -> None:
    """Let nothing out on a line until `resume`."""
    settings = Settings.of(context, as_json, config, store, pool)
    with settings.router() as router:
        _view(router, number)
        router.pause(number, reason=reason)
        _show_line(settings, _view(router, number))


@app.command()
def drain(
    context: typer.Context,
    number: Number,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="For whoever asks why.")] = "",
    as_json: AsJson = False,
    config: Config = None,
    store: Store = None,
    pool: Pool = None,
) -> None:
    """Open no new conversations on a line.

    The people it knows are served.
    """
    settings = Settings.of(context, as_json, config, store, pool)
    with settings.router() as router:
        _view(router, number)
        router.drain(number, reason=reason)
        _show_line(settings, _view(router, number))


@app.command()
def resume(
    context: typer.Context,
    number: Number,
    as_json: AsJson = False,
    config: Config = None,
    store: Store = None,
    pool: Pool = None,
) -> None:
    """End a pause or drain."""
    settings = Settings.of(context, as_json, config, store, pool)
    with settings.router() as router:
        _view(router, number)
        router.resume(number)
        _show_line(settings, _view(router, number))


app.command()(capacity)
app.command()(plan)
app.command()(why)
app.command()(webhooks)
app.command()(doctor)
app.command()(watch)
app.command()(subscribe)
app.add_typer(config_.app, name="config")
app.command()(serve)
app.command()(copy)
app.command()(export)
app.command()(simulate)
app.command()(migrate)
app.command()(replay)


@app.command()
def fake(
    context: typer.Context,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 0,
    lines: Annotated[int, typer.Option(min=1, max=1000, help="How many the account has.")] = 6,
    as_json: AsJson = False,
) -> None:
    """Serve a fake provider on the loopback, until interrupted.

    Prints its address and the token it takes as one line of JSON.
    """
    from linepicker.testing.fakelinq import serve_forever

    serve_forever(port=port, lines=lines)


@app.command()
def demo(
    context: typer.Context,
    seed: Annotated[int, typer.Option(help="Another seed, another day.")] = 1,
    lines: Annotated[int, typer.Option(min=4, max=40, help="How many lines.")] = 8,
    recipients: Annotated[
        int | None, typer.Option(min=20, max=2000, help="How many people; else what fits.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=3.0, max=120.0, help="How long it runs.")] = 10.0,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Watch hundreds of messages find their lines.

    The provider is a fake on the loopback, the HTTP is real, and so is every decision; the clock runs 2,000 times faster.
    Lines become AT_RISK, CRITICAL and FLAGGED on the way. Nothing leaves this machine and nothing is kept.
    """
    from linepicker.cli.demo import play

    settings = Settings.of(context, as_json, config)
    result = play(
        seed=seed,
        lines=lines,
        recipients=recipients or min(2000, max(20, round(min(30, 3.75 * lines) * seconds))),
        seconds=seconds,
        policy=settings.policy(),
        quiet=settings.as_json,
    )
    if settings.as_json:
        show.document(result)


def _view(router: Router, number: str) -> LineView:
    """One line as it stands. Raises CommandError if there is none, SourceError where that can't be known."""
    for view in router.lines():
        if view.line.number == number:
            return view
    raise CommandError(f"{number} is not a line of this account")


def _show_line(settings: Settings, view: LineView) -> None:
    if settings.as_json:
        show.document({"line": show.line_json(view)})
    else:
        show.line(view, time.time())
