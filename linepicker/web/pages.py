"""The page's HTML, from the templates beside this file. Every value is escaped by them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from linepicker.web.ring import Choice
from linepicker.web.rows import Found, Freshness, Hour, Row, Summary

__all__ = [
    "choices",
    "figures",
    "found",
    "fresh",
    "message",
    "notice",
    "outlook",
    "page",
    "row",
    "summary",
]

_templates: Final = Environment(
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    loader=PackageLoader("linepicker.web"),
)
_PARTS: Final[Any] = _templates.get_template("parts.html").module


def row(line: Row, *, operable: bool) -> str:
    """A line's cells. *operable*: its number is a button."""
    return str(_PARTS.row(line, operable))


def summary(told: Summary) -> str:
    """How the fleet stands."""
    return str(_PARTS.summary(told))


def fresh(told: Freshness) -> str:
    """How old what is shown is."""
    return str(_PARTS.fresh(told))


def outlook(hours: Sequence[Hour] | None, *, more: bool = False) -> str:
    """How much fits into the next hours; None: that is not worked out yet. *more*: it may be more than was looked ahead."""
    return str(_PARTS.outlook(hours, more))


def choices(latest: Sequence[Choice]) -> str:
    """The latest choices."""
    return str(_PARTS.choices(latest))


def found(told: Found) -> str:
    """What is known of a recipient."""
    return str(_PARTS.found(told))


def notice(text: str, *, good: bool) -> str:
    """What came of what was asked for."""
    return str(_PARTS.notice(text, good))


def figures(text: str) -> str:
    """A sentence as it stands in the page."""
    return str(Markup.escape(text))


def message(title: str, text: str) -> str:
    """A page that says one thing."""
    return _templates.get_template("message.html").render(title=title, text=text)


def page(
    *,
    pool: str,
    at: str,
    since: str,
    parts: Mapping[str, str],
    lines: str,
    proof: str | None,
    asks_token: bool,
    found: str = "",
    operated: str = "",
) -> str:
    """The whole page. *parts* and *lines* are HTML already; *proof* is what a form of this page proves itself with, None on
    a page that is read only; *asks_token*: the form must hold the token as well."""
    return _templates.get_template("page.html").render(
        pool=pool,
        at=at,
        since=since,
        parts={name: Markup(part) for name, part in parts.items()},  # noqa: S704  of these templates
        lines=Markup(lines),  # noqa: S704  as above
        proof=proof,
        asks_token=asks_token,
        found=Markup(found),  # noqa: S704  as above
        operated=Markup(operated),  # noqa: S704  as above
    )
