"""Who belongs to which line: taken over from the account's chats, and read back from the store."""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator

from rich.console import Console

from linepicker._contact import Contact
from linepicker._record import contact_key
from linepicker.cli.settings import CommandError
from linepicker.model import Assignment
from linepicker.providers.linq import import_chats
from linepicker.providers.linq.classify import read_reply
from linepicker.router import Router
from linepicker.stores import Store

__all__ = ["known", "take_over"]


def take_over(router: Router) -> int:
    """Import the chats of the account of LINQ_API_V3_API_KEY; how many recipients have one. Tells of its progress on stderr,
    if that is a terminal. Raises CommandError where Linq does not answer."""
    try:
        from linq import LinqAPIV3, LinqApiv3Error
    except ModuleNotFoundError:
        raise CommandError(
            "import needs Linq's official client: pip install 'linepicker[linq]'"
        ) from None
    token = os.environ.get("LINQ_API_V3_API_KEY", "").strip()
    err = Console(stderr=True, highlight=False)
    with err.status("reading the account's chats") as status, LinqAPIV3(api_key=token) as client:
        try:
            return import_chats(
                client,
                router,
                progress=lambda done: status.update(f"{done} recipients so far"),
            )
        except LinqApiv3Error as error:
            reply = read_reply(error)
            what = f"answered {reply.status}" if reply else "could not be reached"
            raise CommandError(f"Linq {what} when asked for the account's chats") from error


def known(store: Store, pool: str, limit: int) -> tuple[list[Assignment], int]:
    """The latest assignments of a pool, newest first, and how many there are in all."""
    total = 0

    def found() -> Iterator[Assignment]:
        nonlocal total
        prefix = contact_key(pool, "")
        for key, record in store.scan(prefix):
            if record.value is not None:
                total += 1
                contact = Contact.decode(record.value)
                to = tuple(key.removeprefix(prefix).split(","))
                yield Assignment(
                    to if len(to) > 1 else to[0], contact.number, contact.since, contact.history
                )

    latest = heapq.nlargest(limit, found(), key=lambda each: each.since)
    return latest, total
