"""What `linepicker doctor` looks at: policy, store, provider, lines, webhooks, clocks. Each look gives findings: what works, or
what is wrong and the command that mends it."""

from __future__ import annotations

import logging
import os
import re
import shlex
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs

from linepicker import _words as words
from linepicker._contact import Contact
from linepicker._decode import decode
from linepicker._record import EPOCH, contact_key, fleet_key
from linepicker._small import FleetRecord
from linepicker.cli import summary
from linepicker.cli.origins import changes
from linepicker.cli.settings import STORE, Patient, Settings
from linepicker.errors import LinePickerError, PolicyError, SourceError, StoreError
from linepicker.model import LineView
from linepicker.policy import Policy
from linepicker.providers.linq import LinqSource
from linepicker.providers.linq.account import EVENTS, Account, Subscription
from linepicker.router import Router
from linepicker.stores import Handle

__all__ = ["Finding", "examine"]

SKEW: Final = 30.0
"""Seconds that a clock may be off. Linq's webhooks are refused from 300 on; budgets shift by as much as clocks differ."""

_MENDS: Final = (
    (
        r"locked by another",
        "fuser -v {path}   # shows who holds it; then run linepicker doctor again",
    ),
    (
        r"is damaged: keep|not a SQLite",
        "cp {path} {path}.damaged && sqlite3 {path}.damaged .recover | sqlite3 {path}.new",
    ),
    (r"newer linepicker", "pip install --upgrade linepicker"),
    (r"disk is full|can't grow", "df -h {folder}"),
    (r"make the directory", "mkdir -p {folder}"),
    (r"permission|can't be opened|may this user", 'ls -l {folder}; chown "$USER" {path}'),
    (
        r"its epoch is (?P<epoch>[0-9A-Za-z_-]+), not",
        "linepicker doctor --store {url}   # with ?epoch={epoch}, if this is the right one",
    ),
    (r"maxmemory-policy", "{redis_cli} config set maxmemory-policy noeviction"),
    (
        r"synchronous_commit = off",
        "psql {url} -c 'ALTER ROLE CURRENT_USER SET synchronous_commit = on'",
    ),
    (r"read-only replica|is read only", "linepicker doctor --store URL   # of the primary"),
    (r"store was moved", "linepicker doctor --store URL   # which it names"),
    (
        r"wants another user or password",
        "{redis_cli} ping   # with the password that it takes, until it answers PONG; then use that",
    ),
    (r"pip install '(?P<extra>[^']+)'", "pip install '{extra}'"),
    (
        r"unknown store|store URL starts|write \w+://",
        "linepicker doctor --store sqlite:///lines.db",
    ),
)


@attrs.frozen
class Finding:
    """One thing that works, or doesn't. `mend`: the command that mends it, or that says more; empty where nothing is to do."""

    about: str
    ok: bool
    text: str
    mend: str = ""


def examine(settings: Settings, webhook_url: str | None) -> list[Finding]:
    """Everything, in order. Nothing is written but what reading the list of lines brings. Raises nothing."""
    policy, found = _policy(settings)
    url = settings.url or os.environ.get("LINEPICKER_STORE") or STORE
    by_line: Counter[str] = Counter()
    store_works = False
    with _warnings() as warned:
        try:
            with settings.store() as handle:
                found += _store(settings, handle, by_line, policy or Policy())
                store_works = all(each.ok for each in found if each.about == "store")
        except (StoreError, OSError) as error:
            found.append(Finding("store", False, _sentence(error), _mend(str(error), url)))
        for text in warned:
            found.append(Finding("store", False, _sentence(text), _mend(text, url)))
    with _warnings():  # which the findings tell
        found += _provider(settings, policy, by_line, webhook_url, store_works=store_works)
    return found


# The policy


def _policy(settings: Settings) -> tuple[Policy | None, list[Finding]]:
    path = settings.config or os.environ.get("LINEPICKER_CONFIG")
    try:
        policy = settings.policy()
    except PolicyError as error:
        where = shlex.quote(str(path))
        mend = f"linepicker config check --config {where}   # after correcting it"
        if not Path(str(path)).exists():
            mend = f"env -u LINEPICKER_CONFIG linepicker config show > {where}   # writes the defaults there"
        return None, [Finding("config", False, _sentence(error), mend)]
    if policy is None:
        return None, [Finding("config", True, "The policy is the default: no file is named.")]
    count = len(changes(policy))
    text = f"{path} is a policy, and changes {count} of the defaults."
    return policy, [Finding("config", True, text)]


# The store


def _store(
    settings: Settings, handle: Handle, by_line: Counter[str], policy: Policy
) -> list[Finding]:
    given, path = settings.url or os.environ.get("LINEPICKER_STORE"), _file(handle.url)
    if path is not None and not path.exists() and path.parent.is_dir():
        text = f"{handle.url} does not exist: to whoever starts on it everyone is new."
        if given is None:
            text += " It is the default; the application may use another."
        mend = "linepicker doctor --store URL   # of the application; or, on the first day: linepicker import"
        return [Finding("store", False, text, mend)]
    before = time.time()
    store, prefix, key = handle.store(), contact_key(settings.pool, ""), fleet_key(settings.pool)
    answer = store.read([key, EPOCH])
    took = time.time() - before
    for name, record in store.scan(prefix):
        contact: Contact | None = decode(name, record)
        if contact is not None:
            by_line[contact.number] += 1
    known = f"{words.recipients(sum(by_line.values()))} of pool {settings.pool!r}"
    found = [Finding("store", True, f"{handle.url} answers, and knows {known}.")]
    has = (answer.records[EPOCH].value or b"").decode(errors="replace")
    if handle.epoch and has != handle.epoch:
        text = f"{handle.url} is not the store that was asked for: its epoch is {has or 'unset'}, not {handle.epoch}."
        mend = (
            f"linepicker doctor --store 'URL?epoch={has}'"
            if has
            else "linepicker doctor --store URL"
        )
        return [Finding("store", False, text, f"{mend}   # if it is the right one; else name that")]
    if answer.now is not None:
        found.append(_clock("the store's", answer.now - (before + took / 2)))
    polls: FleetRecord | None = decode(key, answer.records[key])
    latest = max((at for at in polls.polls if at <= before + SKEW), default=None) if polls else None
    if latest is not None and before - latest > policy.health.max_age:
        old = words.duration(before - latest)
        found.append(
            Finding(
                "snapshot",
                False,
                f"The list of lines was last read {old} ago: no process of the application reads it.",
                "systemctl status YOUR-APPLICATION   # start it; in a quiet one use router.keep_fresh()",
            )
        )
    return found


def _file(url: str) -> Path | None:
    match = re.match(r"sqlite:///([^?#]+)", url)
    return Path(match[1]) if match else None


# The provider


def _provider(
    settings: Settings,
    policy: Policy | None,
    by_line: Counter[str],
    webhook_url: str | None,
    *,
    store_works: bool,
) -> list[Finding]:
    where = settings if store_works else attrs.evolve(settings, url="memory://")
    try:
        with (
            LinqSource() as source,
            where.store() as store,
            Router(Patient(source), policy=policy, store=store, pool=settings.pool) as router,
        ):
            views = router.lines()
    except SourceError as error:
        return [Finding("provider", False, _sentence(error), _provider_mend(error))]
    except LinePickerError as error:
        return [Finding("store", False, _sentence(error), _mend(str(error), settings.url or STORE))]
    found = [
        Finding(
            "provider",
            True,
            f"Linq answers, and lists {len(views)} line{'' if len(views) == 1 else 's'}.",
        )
    ]
    found += _lines(views, by_line)
    try:
        with Account() as account:
            subscriptions = account.subscriptions()
            skew = account.skew
    except SourceError as error:
        mend = "linepicker doctor   # again, with a token that may read them"
        return [*found, Finding("webhooks", False, _sentence(error), mend)]
    found.append(_webhooks(subscriptions, webhook_url))
    if skew is not None:
        found.append(_clock("Linq's", skew))
    return found


def _provider_mend(error: SourceError) -> str:
    if error.status in (401, 403) or (error.fatal and error.status is None):
        return "export LINQ_API_V3_API_KEY=...   # a token of this account, from Linq's dashboard"
    if error.status == 404:
        return "unset LINQ_API_V3_BASE_URL"
    if error.status is not None:
        return "linepicker doctor   # again in a minute; it is Linq's to mend"
    base = os.environ.get("LINQ_API_V3_BASE_URL")
    if "empty" in str(error) or "shrank" in str(error):
        return "linepicker lines   # again in a minute: a second such list counts"
    return f"curl -sS -o /dev/null -w '%{{http_code}}' {base or 'https://api.linqapp.com/api/partner'}/v3/phone_numbers"


def _lines(views: Sequence[LineView], by_line: Counter[str]) -> list[Finding]:
    now = time.time()
    if not views:
        return [
            Finding(
                "lines",
                False,
                "The account has no lines: nothing can be sent.",
                "linepicker lines   # when this token's environment has some",
            )
        ]
    text = summary.fleet(views, by_line, now)
    if any(summary.able(view, now) for view in views):
        return [Finding("lines", True, text)]
    paused = [view.line.number for view in views if view.standing in ("paused", "draining")]
    mend = "linepicker lines   # says of each when it opens; more lines, rather than more per line"
    if paused:
        mend = f"linepicker resume {paused[0]}"
    elif any(view.standing in ("critical", "recovering", "flagged") for view in views):
        mend = f"linepicker why {views[0].line.number}   # and so of each; they come back by themselves when HEALTHY"
    return [Finding("lines", False, text, mend)]


def _webhooks(subscriptions: Sequence[Subscription], url: str | None) -> Finding:
    mine = [each for each in subscriptions if url is None or each.address == url.partition("?")[0]]
    wanted = url or (subscriptions[0].address if subscriptions else "https://YOUR-HOST/linq")
    mend = f"linepicker subscribe {shlex.quote(wanted.partition('?')[0])}"
    if not subscriptions:
        text = "No webhook is subscribed: FLAGGED lines, replies and opt-outs are not heard of."
        return Finding("webhooks", False, text, mend)
    if not mine:
        others = ", ".join(each.address for each in subscriptions)
        return Finding("webhooks", False, f"Webhooks go to {others}, not to {url}.", mend)
    faults = [_faults(each) for each in mine]
    if all(faults):
        text = f"The webhook subscription of {mine[0].address} {faults[0]}."
        return Finding(
            "webhooks", False, text, f"linepicker subscribe {shlex.quote(mine[0].address)}"
        )
    good = mine[faults.index("")]
    return Finding("webhooks", True, f"Webhooks go to {good.address}.")


def _faults(each: Subscription) -> str:
    """What is wrong with a subscription, as the rest of a sentence; empty if nothing is."""
    if not each.active:
        return "is not active"
    missing = sorted(EVENTS - each.events)
    if missing:
        return f"leaves out {', '.join(missing)}"
    if each.numbers:
        return "is only for some lines, so events of others may be missing"
    return ""


# Small things


def _clock(whose: str, skew: float) -> Finding:
    if abs(skew) <= SKEW:
        return Finding("clock", True, f"This host's clock and {whose} agree.")
    which = "behind" if skew > 0 else "ahead of"
    text = f"This host's clock is {words.duration(abs(skew))} {which} {whose}: budgets shift by as much"
    text += ", and webhooks are refused." if abs(skew) >= 300 else "."
    return Finding(
        "clock", False, text, "timedatectl set-ntp true   # as root; or: chronyc makestep"
    )


def _sentence(error: Exception | str) -> str:
    text = str(error).strip()
    if text.partition(" ")[0].isalpha():  # else it begins with a name, which stays as it is
        text = text[:1].upper() + text[1:]
    return text if text.endswith(".") else f"{text}."


def _mend(text: str, url: str) -> str:
    path = _file(url) or Path("linepicker.db")
    shown = re.sub(r"(?<=//)([^/@:]*):[^/@]*@", r"\1:PASSWORD@", url.partition("?")[0])
    known = {
        "path": shlex.quote(str(path)),
        "folder": shlex.quote(str(path.parent)),
        "url": shlex.quote(shown),
        "redis_cli": _redis_cli(shown),
    }
    for pattern, command in _MENDS:
        match = re.search(pattern, text)
        if match:
            return command.format(**known, **match.groupdict())
    if url.startswith("redis"):
        return f"{known['redis_cli']} ping   # until it answers PONG: start the server, or correct the URL"
    if url.startswith("postgres"):
        return f"pg_isready -d {known['url']}   # until it accepts connections: start the server, or correct the URL"
    return "linepicker doctor --store URL   # after doing what it says"


def _redis_cli(url: str) -> str:
    """How Redis's own command is told of a server; it knows no more kinds of URL than these."""
    scheme, _, rest = url.partition("://")
    if scheme.endswith("unix"):
        return f"redis-cli -s {shlex.quote(rest)}"
    plain = f"{scheme.partition('+')[0]}://{rest.partition(',')[0]}"
    return f"redis-cli -u {shlex.quote(plain)}"


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """What the stores warn of meanwhile."""
    kept: list[str] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            kept.append(record.getMessage())

    log, keeper = logging.getLogger("linepicker"), Keeper(logging.WARNING)
    others, log.handlers = log.handlers, [keeper]  # else they would be told twice
    try:
        yield kept
    finally:
        log.handlers = others
