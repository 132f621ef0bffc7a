"""`linepicker copy`, `export` and `migrate`: a deployment's records to another store, to a file, to a newer schema."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from linepicker.cli import show
from linepicker.cli.settings import AsJson, CommandError, Settings, Store
from linepicker.cli.transfer import copy as copy_records
from linepicker.cli.transfer import dump, load
from linepicker.stores import open as open_store

__all__ = ["copy", "export", "load_file", "migrate"]


def copy(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="FROM", help="The store's URL that is in use.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="The URL of an empty store.")],
    place: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="How FROM shall name TO; else TO without a password."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Move a deployment to another store, while it runs.

    Most is copied while FROM is in use. Then FROM is closed for good: routers on it raise StoreError, which names TO. What was
    written meanwhile follows. If it ends early, run it again.
    """
    settings = Settings.of(context, as_json)
    one, other = open_store(source), open_store(target)
    try:
        done = copy_records(
            one.store(), other.store(), place or _without_password(target), time.time(), _progress
        )
    finally:
        one.close()
        other.close()
    _tell(
        settings,
        "copied",
        done,
        f"{done} records are in the new store. Start the routers with its URL.",
    )


def export(
    context: typer.Context,
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Where to; else standard output.")
    ] = None,
    as_json: AsJson = False,
    store: Store = None,
) -> None:
    """Write all records of a store to a file, one JSON object a line. It holds recipients in clear."""
    settings = Settings.of(context, as_json, None, store)
    done = 0
    with settings.store() as handle:
        if file is None:
            for line in dump(handle.store()):
                print(line)
            return
        with file.open("w", encoding="utf-8") as out:
            for line in dump(handle.store()):
                out.write(line + "\n")
                done += 1
    _tell(settings, "exported", done, f"{done} records written.")


def migrate(context: typer.Context, as_json: AsJson = False, store: Store = None) -> None:
    """Make a store ready, its tables made or brought up to date, before the first process needs them.

    Processes do that themselves, where they may. On PostgreSQL another role can do it: theirs then needs no right to create.
    """
    settings = Settings.of(context, as_json, None, store)
    with settings.store() as handle:
        handle.store().read([])
    if settings.as_json:
        show.document({"ready": handle.url})
    else:
        show.say(f"{handle.url} is ready.")


def load_file(settings: Settings, file: Path) -> None:
    """Read an exported file into an empty store."""
    with settings.store() as handle, file.open(encoding="utf-8") as lines:
        done = load(handle.store(), lines, time.time(), _progress)
    _tell(settings, "imported", done, f"{done} records read.")


def _tell(settings: Settings, what: str, done: int, text: str) -> None:
    if settings.as_json:
        show.document({what: done})
    else:
        show.say(text)


def _progress(done: int) -> None:
    if done and done % 100_000 == 0:
        print(f"{done} records …", file=sys.stderr)


def _without_password(url: str) -> str:
    """A store's address as others may see it."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        raise CommandError("TO must be the URL of a store, as in sqlite:///lines.db")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path.partition('?')[0]}"
