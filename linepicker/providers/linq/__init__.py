"""Linq: the lines of an account, what its answers mean, sending, the conversations that exist already, reputation audits."""

from linepicker.providers.linq.audit import AsyncLinqAudits, LinqAudits
from linepicker.providers.linq.chats import aimport_chats, import_chats
from linepicker.providers.linq.classify import classify
from linepicker.providers.linq.client import AsyncLinqSource, LinqSource
from linepicker.providers.linq.messenger import AsyncLinqMessenger, LinqMessenger

__all__ = [
    "AsyncLinqAudits",
    "AsyncLinqMessenger",
    "AsyncLinqSource",
    "LinqAudits",
    "LinqMessenger",
    "LinqSource",
    "aimport_chats",
    "classify",
    "import_chats",
]
