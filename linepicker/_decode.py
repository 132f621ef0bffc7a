"""Which record a key holds."""

from __future__ import annotations

from typing import Any, Final

from linepicker._contact import Contact
from linepicker._record import Spending, Standing
from linepicker._small import decode_block, decode_fleet, decode_link, decode_ticket
from linepicker._tally import Tally
from linepicker.stores import ABSENT, Record


def decode(key: str, record: Record) -> Any:
    """What a record holds; None if it is not there."""
    raw = record.value
    if raw is None or record.version == ABSENT.version:
        return None
    if key[:5] == "line/":
        return _OF_LINE[key.rpartition("/")[2]](raw)
    if key[:3] == "to/":
        return Contact.decode(raw)
    if key[:6] == "block/":
        return decode_block(raw)
    if key[:6] == "fleet/":
        return decode_fleet(raw)
    if key[:4] == "key/":
        return decode_ticket(raw)
    if key[:8] == "message/" or key[:5] == "chat/":
        return decode_link(raw)
    return raw


_OF_LINE: Final = {
    "standing": Standing.decode,
    "spending": Spending.decode,
    "tally": Tally.decode,
}
