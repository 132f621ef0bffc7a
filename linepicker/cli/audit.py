"""What the provider's audit says of a line, beside what is counted here."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import attrs
from rich.console import Console

from linepicker import _words as words
from linepicker.cli import show
from linepicker.cli.settings import CommandError
from linepicker.model import LineView
from linepicker.providers.linq import LinqAudits
from linepicker.providers.linq.audit import Audit, CoolingDown
from linepicker.providers.linq.classify import read_reply

__all__ = ["audit_json", "audited", "show_audit"]


def audited(number: str) -> Audit | CoolingDown:
    """Linq's audit of a line, waited for up to a minute. Raises CommandError where there is none to be had."""
    try:
        from linq import LinqAPIV3, LinqApiv3Error
    except ModuleNotFoundError:
        raise CommandError(
            "--audit needs Linq's official client: pip install 'linepicker[linq]'"
        ) from None
    token = os.environ.get("LINQ_API_V3_API_KEY", "").strip()
    err = Console(stderr=True, highlight=False)
    with err.status("waiting for Linq's audit"), LinqAPIV3(api_key=token) as client:
        try:
            return LinqAudits(client).run(number)
        except LinqApiv3Error as error:
            reply = read_reply(error)
            what = f"answered {reply.status}" if reply else "could not be reached"
            raise CommandError(f"Linq {what} when asked for an audit of {number}") from error


def audit_json(found: Audit | CoolingDown) -> dict[str, Any]:
    """An audit as JSON; `cooling_down` where there is none yet."""
    return {"cooling_down": isinstance(found, CoolingDown), **attrs.asdict(found)}


def show_audit(found: Audit | CoolingDown, view: LineView) -> None:
    """An audit in sentences, each driver with our own count of the same."""
    if isinstance(found, CoolingDown):
        wait = found.retry_after
        when = "it does not say when" if wait is None else f"ask again {words.until(wait)}"
        show.say(f"Linq takes no other audit of this line yet: {when}.")
        return
    if found.status != "complete":
        why = f": {found.error}" if found.error else ""
        show.say(f"Linq's audit is {found.status}{why}. Its id is {found.id}.")
        return
    at = "" if found.generated_at is None else f" of {words.moment(found.generated_at)}"
    first = f"first of all {found.primary_driver}" if found.primary_driver else "nothing to act on"
    show.say(f"Linq's audit{at}: {found.severity or 'no severity'}, {first}.", style="bold")
    for driver in found.drivers:
        metric = f" ({driver.metric})" if driver.metric else ""
        show.say(f"{driver.key}{metric}: {driver.summary}", indent=2)
        ours = _OURS.get(driver.key)
        if ours is not None:
            show.say(f"here: {ours(view)}", indent=4)
    for action in found.actions:
        show.say(f"{action.priority}. {action.title}: {action.detail}", indent=2)
    chats = len(found.unhealthy_chats)
    if chats or found.stopped_chats:
        after = sum(each.messages_after_stop for each in found.stopped_chats)
        show.say(
            f"It names {chats} conversations that are not well, and {len(found.stopped_chats)} that the recipient ended, "
            f"with {after} messages after that.",
            indent=2,
        )


def _opened(view: LineView) -> str:
    limit = "without a limit" if view.budget is None else f"of at most {view.budget}"
    return f"{view.used} new conversations in the rolling day, {limit}"


def _volume(view: LineView) -> str:
    sent = view.outcomes.get("sent", 0)
    return f"{sent} messages in 7 days, {view.outcomes.get('answered', 0)} conversations answered"


def _health(view: LineView) -> str:
    opened, answered = view.outcomes.get("opened", 0), view.outcomes.get("answered", 0)
    return f"{answered} of {opened} conversations that were opened in 7 days were answered"


def _stops(view: LineView) -> str:
    return f"{view.outcomes.get('opted_out', 0)} opt-outs in 7 days; nobody who opted out is written to"


def _standing(view: LineView) -> str:
    return f"the line's standing is {view.standing}"


_OURS: Final[Mapping[str, Callable[[LineView], str]]] = MappingProxyType(
    {
        "new_conversation_rate": _opened,
        "volume_spike": _volume,
        "overall_conversation_health": _health,
        "opt_out_handling": _stops,
        "flagged": _standing,
    }
)
