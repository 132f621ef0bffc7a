"""Which part of the library asks: a swap alone does not tell whether it reserves, gives back, or writes a poll."""

from __future__ import annotations

from collections.abc import Mapping
from types import CodeType
from typing import Any, Final

from linepicker import _flow, _move, _outage, _polls, _receipts, _replies, _settle, _update, _upkeep

_PARTS: Final[Mapping[CodeType, str]] = {
    part.__code__: name
    for name, part in (
        ("reserve", _flow.reserve),
        ("again", _flow._resumed),
        ("move", _move.move),
        ("settle", _settle.settle),
        ("pay", _outage._charged),
        ("poll", _polls._absorb_poll),
        ("lease", _polls._left_to_another),
        ("open", _polls.open_store),
        ("line", _upkeep.report_line),
        ("operate", _upkeep.operate),
        ("assign", _upkeep.assign),
        ("forget", _upkeep.forget),
        ("person", _replies.report_person),
        ("reply", _replies.report_reply),
        ("receipt", _receipts.report_receipt),
        ("chat", _receipts.report_chat),
    )
}


def purpose(flow: Any) -> tuple[str, Mapping[str, Any]]:
    """The innermost part that is at work in a flow, and its variables, with the moment as of which it last changed records."""
    found = moment = None
    while flow is not None:
        if flow.gi_code in _PARTS:
            found, moment = flow, None
        elif flow.gi_code is _update.update.__code__:
            moment = flow.gi_frame.f_locals.get("now")
        flow = flow.gi_yieldfrom
    if found is None:
        return "", {}
    its = found.gi_frame.f_locals
    return _PARTS[found.gi_code], its if moment is None else {**its, "now": moment}
