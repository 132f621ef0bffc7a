"""What every command takes: the shared options, and the router they describe."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Final

import attrs
import typer

from linepicker.model import Line, Verdict
from linepicker.policy import Policy
from linepicker.providers.linq import LinqSource
from linepicker.router import Router
from linepicker.stores import Handle
from linepicker.stores import open as open_store

__all__ = [
    "AsJson",
    "CommandError",
    "Config",
    "Patient",
    "Pool",
    "Settings",
    "Store",
    "To",
    "recipient",
]

STORE: Final = "sqlite:///linepicker.db"
POOL: Final = "default"

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, and no more.")]
Config = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="The policy, in TOML; else LINEPICKER_CONFIG, else the defaults."
    ),
]
Store = Annotated[
    str | None,
    typer.Option(metavar="URL", help=f"Where state is kept; else LINEPICKER_STORE, else {STORE}."),
]
Pool = Annotated[
    str | None, typer.Option(metavar="NAME", help=f"Whose assignments; else {POOL!r}.")
]


To = Annotated[
    list[str],
    typer.Argument(metavar="TO", help="A number (+1...) or email; several are one group."),
]


def recipient(to: list[str]) -> str | list[str]:
    """Whom TO names: one handle, or a group of them."""
    return to[0] if len(to) == 1 else to


class CommandError(Exception):
    """A command can't be run; the message is the sentence that says why."""


@attrs.frozen
class Settings:
    """What the shared options say; None where they were left out. What stands after the command's name wins."""

    as_json: bool = False
    config: Path | None = None
    url: str | None = None
    pool: str = POOL

    @classmethod
    def of(
        cls,
        context: typer.Context,
        as_json: bool,
        config: Path | None = None,
        store: str | None = None,
        pool: str | None = None,
    ) -> Settings:
        """The options of a command, on top of those before its name."""
        before = context.obj if isinstance(context.obj, Settings) else cls()
        return cls(
            as_json or before.as_json,
            config or before.config,
            store or before.url,
            pool or before.pool,
        )

    def policy(self) -> Policy | None:
        """The policy asked for, None if none was. Raises PolicyError."""
        path = self.config or os.environ.get("LINEPICKER_CONFIG")
        return Policy.from_toml(path) if path else None

    @contextlib.contextmanager
    def store(self) -> Iterator[Handle]:
        """The store asked for, open. Raises StoreError."""
        handle = open_store(self.url or os.environ.get("LINEPICKER_STORE") or STORE)
        try:
            yield handle
        finally:
            handle.close()

    @contextlib.contextmanager
    def router(self) -> Iterator[Router]:
        """A router on the account of LINQ_API_V3_API_KEY, and on that store. Raises PolicyError, SourceError, StoreError."""
        with self.opened() as (router, _):
            yield router

    @contextlib.contextmanager
    def opened(self) -> Iterator[tuple[Router, Handle]]:
        """That router, and its store beside it."""
        policy = self.policy()
        with (
            LinqSource() as source,
            self.store() as store,
            Router(Patient(source), policy=policy, store=store, pool=self.pool) as router,
        ):
            yield router, store


class Patient:
    """A source that takes the time it needs: one command is one question, with no older list to go on with."""

    def __init__(self, source: LinqSource) -> None:
        self._source = source

    def fetch(self) -> Iterable[Line]:
        """All lines, read afresh."""
        return self._source.fetch()

    def classify(self, result: object) -> Verdict | None:
        """What a send's result means."""
        return self._source.classify(result)
