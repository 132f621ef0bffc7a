"""What an operator looks after beside the lines: where the account's webhooks go, and how far its clock is from ours."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final, Self
from urllib.parse import parse_qs, urlsplit

import attrs
import httpx

from linepicker.errors import SourceError
from linepicker.providers.linq.classify import trace_id
from linepicker.providers.linq.client import BASE_URL

__all__ = ["EVENTS", "VERSION", "Account", "Subscription"]

EVENTS: Final = frozenset(
    {
        "phone_number.status_updated",
        "phone_number.assigned",
        "phone_number.released",
        "environment.line_moved",
        "message.received",
        "message.sent",
        "message.delivered",
        "message.read",
        "message.failed",
        "chat.created",
    }
)
"""The types of events that have a bearing on routing."""

VERSION: Final = "2026-02-03"
"""The payloads' generation that is asked for, in the address's query."""


@attrs.frozen
class Subscription:
    """One address that Linq tells of events. `numbers`: only of these lines, if there are any."""

    id: str
    url: str
    events: frozenset[str]
    active: bool
    numbers: tuple[str, ...] = ()

    @property
    def version(self) -> str | None:
        """The payloads' generation, if the address pins one."""
        found = parse_qs(urlsplit(self.url).query).get("version")
        return found[0] if found else None

    @property
    def address(self) -> str:
        """The address without its query, which may hold a secret of yours."""
        return self.url.partition("?")[0]


class Account:
    """A Linq account's webhook subscriptions. *token*, *base_url*: as in `LinqSource`. Raises SourceError without a token."""

    def __init__(
        self, token: str | None = None, *, base_url: str | None = None, timeout: float = 10.0
    ) -> None:
        token = (token or os.environ.get("LINQ_API_V3_API_KEY") or "").strip()
        if not token:
            raise SourceError("no Linq API token: set LINQ_API_V3_API_KEY", fatal=True)
        base = base_url or os.environ.get("LINQ_API_V3_BASE_URL") or BASE_URL
        self._url = base.rstrip("/") + "/v3/webhook-subscriptions"
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        self._http = httpx.Client(headers=headers, timeout=timeout, follow_redirects=False)
        self.skew: float | None = None
        """By how many seconds Linq's clock was ahead of this host's at the last answer, to about a second; None: unknown."""

    def subscriptions(self) -> list[Subscription]:
        """All of them. Raises SourceError."""
        found = self._ask("GET", "").get("subscriptions")
        if not isinstance(found, list):
            raise SourceError("Linq's list of webhook subscriptions can't be read")
        return [_subscription(each) for each in found if isinstance(each, Mapping)]

    def subscribe(self, url: str, events: Collection[str] = EVENTS) -> str | None:
        """Have Linq tell *url*, an https address, of *events*: of all lines, in the generation this library reads best. The
        signing secret of a new subscription, which is shown this once; None where there was one, which is put right.

        Raises SourceError.
        """
        given = url if "version=" in url else f"{url}{'&' if '?' in url else '?'}version={VERSION}"
        for each in self.subscriptions():
            if each.address == url.partition("?")[0]:
                changes = {
                    "target_url": given,
                    "subscribed_events": sorted(each.events | set(events)),
                    "phone_numbers": [],
                    "is_active": True,
                }
                self._ask("PUT", f"/{each.id}", changes)
                return None
        made = self._ask("POST", "", {"target_url": given, "subscribed_events": sorted(events)})
        return str(made.get("signing_secret", ""))

    def _ask(self, method: str, path: str, body: object = None) -> Mapping[str, Any]:
        try:
            response = self._http.request(method, self._url + path, json=body)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise SourceError(
                f"Linq's webhook subscriptions could not be read: {type(error).__name__}"
            ) from error
        self._hear(response)
        status = response.status_code
        if not response.is_success:
            told = trace_id(response.headers)
            raise SourceError(
                f"Linq answered {status} when asked for its webhook subscriptions{_said(response)}",
                status=status,
                trace_id=told,
            )
        found = response.json() if response.content else {}
        return found if isinstance(found, Mapping) else {}

    def _hear(self, response: httpx.Response) -> None:
        try:
            theirs = parsedate_to_datetime(response.headers["date"]).timestamp()
        except (KeyError, ValueError, TypeError):
            return
        took = response.elapsed.total_seconds()
        self.skew = theirs + 0.5 - (time.time() - took / 2)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._http.close()


def _subscription(entry: Mapping[str, Any]) -> Subscription:
    events, numbers = entry.get("subscribed_events"), entry.get("phone_numbers")
    return Subscription(
        str(entry.get("id", "")),
        str(entry.get("target_url", "")),
        frozenset(map(str, events)) if isinstance(events, list) else frozenset(),
        entry.get("is_active") is not False,
        tuple(map(str, numbers)) if isinstance(numbers, list) else (),
    )


def _said(response: httpx.Response) -> str:
    """Linq's own words for a refusal of what was asked, which is about an address and no person."""
    try:
        error = response.json().get("error") or {}
        words = error.get("message")
    except (ValueError, AttributeError):
        return ""
    return f": {words}" if response.status_code in {400, 409} and isinstance(words, str) else ""
