"""Read, change, swap: how every record but a reservation's is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from linepicker._asks import ATTEMPTS, Dice, Flow, Now, Read, Sleep, Swap, Who
from linepicker._decode import decode
from linepicker._kept import Guess
from linepicker._record import EPOCH
from linepicker._small import Block, FleetRecord, Link, Ticket, encode_small
from linepicker.errors import StoreError
from linepicker.fleet import Fleet
from linepicker.stores import SAME, Answer, Write

MOVED: Final = b"moved "
"""What the epoch of a store begins with whose records were taken elsewhere: the old epoch and the new place follow."""


def moved_away(epoch: bytes) -> StoreError:
    """What is raised by a store that was moved."""
    place = epoch.decode(errors="replace").split(" ", 2)[-1]
    return StoreError(
        f"the store was moved: its records are at {place}. Start the router with that URL",
        answered=True,
    )


def absorb(
    fleet: Fleet, answer: Answer, who: Who | None = None, refused: Sequence[Write] = ()
) -> None:
    """Take in what a store answered, as it *refused* these writes or otherwise. Raises StoreError if it is another store than
    before."""
    epoch = answer.records.get(EPOCH)
    if epoch is not None and epoch.version != fleet.same.version:
        if (epoch.value or b"").startswith(MOVED):
            raise moved_away(epoch.value or b"")
        raise StoreError(
            "the store is not the one this router began with: it was wiped, restored or replaced. "
            "Bring the old store back, or start anew with a new router",
            answered=True,
        )
    fleet.learn(answer.records, {write.key: write.version for write in refused})
    if who is not None:
        who.learn(answer.records)


def update(
    fleet: Fleet,
    keys: Sequence[str],
    change: Callable[[Mapping[str, Any], float], Mapping[str, Any] | None],
    *,
    who: Who | None = None,
    expires: Mapping[str, float] = {},
    glimpsed: str = "",
) -> Flow[bool]:
    """Give the records at *keys* the values that *change* makes of them, all or none. False: it changed nothing.

    *who*: the recipient whose records are among them. *glimpsed*: a key whose record others write all the time: once it was
    read, what they write meanwhile does not matter. *change* is a pure function of the decoded records (None where there
    is none) and of the moment after they were read, as of which nothing they hold is yet to come, unless the clock was turned
    back; it is asked anew when somebody else wrote meanwhile. Raises StoreError after too many such races, and whatever
    *change* raises.

    Where all of the records are kept here, it is first asked what it makes of these, and a swap that demands them all
    spares the reading; a refusal brings those that have moved. What is kept may only say yes: if it comes to nothing, or to
    an error, they are read.
    """
    held = _kept(fleet, keys, who)
    guessed = held is not None
    for attempt in range(ATTEMPTS):
        if attempt > 1 and not attempt % 2:  # after a pause: it only looks, the next acts at once
            dice: float = yield Dice()
            yield Sleep(0.01 * dice)
        if held is None:
            answer: Answer = yield Read([*keys, EPOCH])
            absorb(fleet, answer, who)
            held = _seen(fleet, keys, answer)
        was = {key: guess.value for key, guess in held.items()}
        now = fleet.at((yield Now()))
        try:
            after = change(was, now)
        except Exception:
            if not guessed:
                raise
            after = None
        writes = _writes(held, after, expires)
        if not writes:
            if not guessed:
                return False
            held, guessed = None, False
            continue
        assert after is not None
        changed = {write.key for write in writes}
        if not guessed:
            changed.add(glimpsed)
        demands = [Write(key, held[key].version, SAME) for key in keys if key not in changed]
        answer = yield Swap([*writes, *demands, fleet.same], {})
        if answer.applied:
            for key, _, value, _ in writes:
                version = 0 if value is None else answer.records[key].version
                _wrote(fleet, who, key, version, after[key])
            return True
        absorb(fleet, answer, who, writes)
        held.update(_seen(fleet, [key for key in keys if key in answer.records], answer))
        guessed = False
    raise busy()


def _kept(fleet: Fleet, keys: Sequence[str], who: Who | None) -> dict[str, Guess] | None:
    """The records as they are kept here; None: not all of them are, or they hold what the store does not."""
    if fleet.owed or fleet.debts:
        return None
    found: dict[str, Guess] = {}
    for key in keys:
        theirs = who is not None and key in (who.contact_key, who.block_key)
        guess = _of_recipient(who, key) if who is not None and theirs else _of_fleet(fleet, key)
        if guess is None or guess.version < 0:
            return None
        found[key] = guess
    return found


def _of_recipient(who: Who, key: str) -> Guess | None:
    if not (who.contact_version or who.block_seen):
        return None  # nobody asked yet
    if key == who.contact_key:
        return Guess(who.contact_version, who.contact)
    return Guess(who.block_version, who.block)


_UNHEARD: Final = Guess(0, None)
"""An event is taken for one that was not heard of, until a store says otherwise."""


def _of_fleet(fleet: Fleet, key: str) -> Guess | None:
    kind = key[:5]
    if kind == "event":
        return _UNHEARD
    if kind == "fleet":
        return Guess(fleet.record_version, fleet.record) if fleet.record_version else None
    if _is_kept(key):
        return fleet.kept.get(key)
    state = fleet.state(key[5 : key.rindex("/")]) if kind == "line/" else None
    if state is None:
        return None
    if key == state.standing_key:
        return Guess(state.standing_version, state.standing if state.standing_version else None)
    return Guess(state.spending_version, state.spending if state.spending_version else None)


def _is_kept(key: str) -> bool:
    """Whether a record is of those that neither the fleet nor a recipient holds."""
    return key[:5] == "chat/" or key[:8] == "message/" or key.endswith("/tally")


def _seen(fleet: Fleet, keys: Sequence[str], answer: Answer) -> dict[str, Guess]:
    """What an answer says of these keys, kept where nobody else does."""
    found: dict[str, Guess] = {}
    for key in keys:
        record = answer.records[key]
        found[key] = Guess(record.version, decode(key, record))
        if _is_kept(key):
            fleet.kept.put(key, found[key])
    return found


def _writes(
    held: Mapping[str, Guess], after: Mapping[str, Any] | None, expires: Mapping[str, float]
) -> list[Write]:
    return [
        Write(key, held[key].version, encoded(value), expires.get(key))
        for key, value in (after or {}).items()
        if value is not held[key].value and value != held[key].value
    ]


def _wrote(fleet: Fleet, who: Who | None, key: str, version: int, record: Any) -> None:
    """Take in what this process has just written."""
    if who is not None and key == who.contact_key:
        who.contact_version, who.contact = version, record
    elif who is not None and key == who.block_key:
        who.blocked(version, record)
    else:
        fleet.wrote(key, version, record)
        if _is_kept(key):
            fleet.kept.put(key, Guess(version, record))


def busy() -> StoreError:
    """What is raised when others always wrote in between."""
    return StoreError(
        f"{ATTEMPTS} attempts met other writers each time: the store is busier than this library is made for",
        answered=True,
    )


def encoded(record: Any) -> bytes | None:
    """The bytes of any record."""
    if record is None or isinstance(record, bytes):
        return record
    if isinstance(record, Block | FleetRecord | Link | Ticket):
        return encode_small(record)
    raw: bytes = record.encode()
    return raw
