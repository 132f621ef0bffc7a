"""Linq: the lines of an account, what its answers mean, sending, and the conversations that exist already."""

from linepicker.providers.linq.chats import aimport_chats, import_chats
from linepicker.providers.linq.classify import classify
from linepicker.providers.linq.client import AsyncLinqSource, LinqSource
from linepicker.providers.linq.messenger import AsyncLinqMessenger, LinqMessenger

__all__ = [
    "AsyncLinqMessenger",
    "AsyncLinqSource",
    "LinqMessenger",
    "LinqSource",
    "aimport_chats",
    "classify",
    "import_chats",
]
