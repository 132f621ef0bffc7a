"""Records outlive the version that wrote them, and damage is told, never guessed at."""

import json
from array import array

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from linepicker import StoreError
from linepicker import _small as small
from linepicker._bytes import FORMAT, NEWEST_READABLE
from linepicker._contact import PLAIN, Contact, Seldom
from linepicker._learned import Learned
from linepicker._observations import Observations
from linepicker._record import Spending, Standing
from linepicker._small import Block, FleetRecord, Link, Ticket

moments = st.floats(-1e12, 1e12, allow_nan=False)
idents = st.integers(0, 2**32 - 1)
texts = st.text(max_size=20)
numbers = st.from_regex(r"\+[0-9]{7,15}", fullmatch=True)
observations = st.builds(
    Observations,
    st.dictionaries(st.sampled_from(["HEALTHY", "AT_RISK"]), st.lists(moments).map(tuple)),
    st.dictionaries(st.just("CRITICAL"), st.lists(st.tuples(moments, moments)).map(tuple)),
)


@st.composite
def spendings(draw):
    """Any spending."""
    times = sorted(draw(st.lists(moments, max_size=60)))
    buckets = draw(st.lists(st.tuples(st.integers(-99, 2**31 - 1), st.integers(1, 9)), max_size=9))
    return Spending(
        array("d", times),
        array("I", [draw(idents) for _ in times]),
        bytes(draw(st.integers(0, 1)) for _ in times),
        array("i", [n for pair in buckets for n in pair]),
        sum(count for _, count in buckets),
        array("i", draw(st.lists(st.integers(0, 9), max_size=4)) * 4),
        *(draw(strategy) for strategy in (idents, moments, idents, moments)),
        *(draw(moments) for _ in range(3)),
        draw(idents),
        draw(moments),
    )


learned = st.builds(
    Learned,
    st.floats(0, 1e6),
    st.floats(0, 1e6),
    st.floats(0, 1e6),
    moments,
    day=st.integers(0, 99),
    drivers=st.dictionaries(st.sampled_from(["volume_spike", "other"]), st.floats(0, 1)),
    leads=st.lists(moments, max_size=3).map(tuple),
)
standings = st.builds(
    Standing,
    moments,
    st.booleans(),
    observations,
    observations,
    st.none() | moments,
    moments,
    moments,
    st.booleans(),
    st.sampled_from(["", "paused", "draining"]),
    texts,
    moments,
    moments,
    st.integers(0, 99),
    moments,
    st.sampled_from(["", "streak", "share", "probe"]),
    st.floats(0.1, 1.0),
    moments,
    learned,
    st.lists(st.tuples(moments, st.sampled_from(["HEALTHY", "FLAGGED"])), max_size=3).map(tuple),
)
seldom = st.builds(
    Seldom,
    history=st.lists(st.tuples(numbers, moments), max_size=3).map(tuple),
    chats=st.dictionaries(numbers, texts, max_size=3),
    views=st.dictionaries(numbers, st.tuples(st.sampled_from(["HEALTHY", "CRITICAL"]), moments)),
    home=st.just("") | numbers,
    limited_at=moments,
)
contacts = st.builds(
    lambda times, **fields: Contact(
        times=array("d", sorted(times)), ids=array("I", range(len(times))), **fields
    ),
    times=st.lists(moments, max_size=40),
    number=numbers,
    since=moments,
    opened=idents,
    made=idents,
    wait_until=moments,
    unanswered=st.integers(0, 255),
    replied_at=moments,
    seldom=st.just(PLAIN) | seldom,
)
links = st.builds(
    Link,
    texts,
    texts,
    numbers,
    moments,
    st.booleans(),
    st.booleans(),
    st.none() | moments,
    st.none() | st.integers(1000, 9999),
    st.booleans(),
)
blocks = st.builds(Block, *[st.none() | moments] * 3)
fleets = st.builds(
    FleetRecord,
    st.lists(moments).map(tuple),
    st.none() | moments,
    texts,
    texts,
    moments,
    st.booleans(),
)
tickets = st.builds(
    Ticket,
    st.from_regex(r"[0-9a-f]{24}", fullmatch=True),
    texts,
    numbers,
    st.sampled_from(["new", "known", "moved"]),
    moments,
    moments,
    texts,
    st.none() | numbers,
    st.none() | texts,
)
KINDS = {
    "standing": (standings, Standing.encode, Standing.decode),
    "spending": (spendings(), Spending.encode, Spending.decode),
    "contact": (contacts, Contact.encode, Contact.decode),
    "block": (blocks, small.encode_small, small.decode_block),
    "fleet": (fleets, small.encode_small, small.decode_fleet),
    "link": (links, small.encode_small, small.decode_link),
    "key": (tickets, small.encode_small, small.decode_ticket),
}
anything = pytest.mark.parametrize("kind", KINDS)


@anything
@given(st.data())
def test_a_record_is_read_as_it_was_written(kind, data):
    """Its bytes hold all of it."""
    strategy, encode, decode = KINDS[kind]
    record = data.draw(strategy)
    assert decode(encode(record)) == record


@anything
@given(st.data())
def test_what_a_later_version_added_is_carried_along(kind, data):
    """This version changes what it knows, and writes the rest back under the number it came with."""
    strategy, encode, decode = KINDS[kind]
    raw = encode(data.draw(strategy))
    if kind in {"spending", "contact"}:
        later = bytes([NEWEST_READABLE]) + raw[1:] + b"added later"
    else:
        later = bytes([NEWEST_READABLE]) + raw[1:-1] + b',"added":[1,{"later":true}]}'
    again = encode(decode(later))
    assert again[0] == NEWEST_READABLE
    assert decode(again) == decode(later)
    assert b"later" in again


def test_what_is_carried_along_survives_a_change():
    """A message on a contact, a sending day on a spending, a pause of a line: the added part stays."""
    contact = Contact("+12025550100", 1.0).having(tail=b"added", rest={"more": 1})
    changed = Contact.decode(contact.messaged(2.0, 2.0, 7, 32).encode()).seldom
    assert (changed.tail, dict(changed.rest)) == (b"added", {"more": 1})
    spending = attrs.evolve(Spending(), rest=b"added").copy()
    assert Spending.decode(spending.encode()).rest == b"added"
    standing = attrs.evolve(Standing(rest={"more": 1}), operator="paused")
    assert dict(Standing.decode(standing.encode()).rest) == {"more": 1}


@given(spendings(), contacts)
def test_a_copy_has_all_that_the_record_has(spending, contact):
    """A new field must be copied too, though no constructor asks for it: of a contact all that a message leaves as it is."""
    assert spending.copy() == spending
    contact.encode()
    after = contact.messaged(contact.since, contact.since, 7, 32)
    for field in attrs.fields(Contact):
        if field.name not in {"made", "times", "ids", "unanswered"}:
            assert getattr(after, field.name) == getattr(contact, field.name)
    assert after.made == contact.made + 1


@pytest.mark.parametrize("impossible", ["NaN", "Infinity", "-1e999"])
@pytest.mark.parametrize("name", ["first_seen", "out_until", "vitality", "weighed_at", "released"])
def test_a_standing_with_an_impossible_number_is_damaged(name, impossible):
    """What can't be compared would put the ranking in disorder."""
    raw = json.loads(Standing(released=1.0).encode()[1:])
    raw[name] = "here"
    there = json.dumps(raw).replace('"here"', impossible).encode()
    with pytest.raises(StoreError, match="impossible number"):
        Standing.decode(bytes([FORMAT]) + there)


@pytest.mark.parametrize(
    "impossible",
    [
        {"times": array("d", [float("nan")]), "ids": array("I", [1]), "moved": b"\0"},
        {"new_mark": float("inf")},
        {"buckets": array("i", [3])},
        {"buckets": array("i", [3, 4, 5])},
        {"week": array("i", [1])},
        {"week": array("i", [1, 2])},
        {"week": array("i", [1, 2, 3, 4, 5, 6])},
    ],
    ids=str,
)
def test_a_spending_with_numbers_that_pair_with_nothing_is_damaged(impossible):
    """Each alone is enough: what is no time, half a bucket, and less than a whole row of the week."""
    with pytest.raises(StoreError, match="impossible numbers"):
        Spending.decode(Spending(**impossible).encode())


def test_a_standing_tells_of_a_refusal_only_once_there_was_one():
    """Lines never refused stay small, and a record of the versions before reads as never refused."""
    assert b"refused_at" not in Standing().encode()
    assert b"refused_at" in Standing(refused_at=5.0).encode()
    assert Standing.decode(Standing().encode()).refused_at == 0.0


def test_what_a_later_version_wrote_is_not_printed():
    """This version can't know whether a recipient stands in it."""
    assert "+12025550123" not in repr(Standing(rest={"later": "+12025550123"}))


@anything
@given(st.data())
def test_a_format_from_the_future_says_to_upgrade(kind, data):
    """What this version can't know it does not touch."""
    strategy, encode, decode = KINDS[kind]
    raw = encode(data.draw(strategy))
    with pytest.raises(StoreError, match="upgrade"):
        decode(bytes([NEWEST_READABLE + 1]) + raw[1:])


@anything
@given(st.data())
def test_damaged_bytes_are_a_store_error_or_a_record(kind, data):
    """Cut, flipped or replaced: no other exception, and nothing that can't be written again."""
    strategy, encode, decode = KINDS[kind]
    raw = bytearray(encode(data.draw(strategy)))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    cut = data.draw(st.integers(0, len(raw)))
    for damaged in (bytes(raw), bytes(raw[:cut])):
        try:
            record = decode(damaged)
        except StoreError:
            continue
        encode(record)


@anything
@given(st.binary(max_size=200))
@example(b"")
@example(bytes([FORMAT]))
@example(bytes([FORMAT]) + b"[" * 100_000)
@example(bytes([FORMAT]) + b'{"out":"x"}')
@example(bytes([FORMAT]) + b'{"polls":[NaN]}')
def test_any_bytes_are_a_store_error_or_a_record(kind, raw):
    """A store that holds something else altogether is told so."""
    _, encode, decode = KINDS[kind]
    try:
        record = decode(raw)
    except StoreError:
        return
    encode(record)


def test_a_fresh_record_is_nothing_but_zeros():
    """So what was never written and what was written empty are the same, whichever version did."""
    packed = Spending().encode()
    assert (packed[:1], packed[1:]) == (bytes([FORMAT]), bytes(len(packed) - 1))
    assert Spending() == Spending.decode(packed)
    standing, empty = json.loads(Standing().encode()[1:]), Observations().to_json()
    for name, value in {"reputation": empty, "status": empty, "vitality": 1.0}.items():
        assert standing.pop(name) == value
    assert not any(standing.values())


@pytest.mark.parametrize("record", [Spending, Contact])
def test_records_have_the_same_bytes_on_hosts_of_either_byte_order(monkeypatch, record):
    """A host with the other byte order swaps its numbers before it writes them, each kind where it belongs."""
    times, ids = array("d", [1.5, 2.5]), array("I", [7, 8])
    if record is Spending:
        counts = {"buckets": array("i", [3, 4]), "week": array("i", [5, 6, 7, 8])}
        one = Spending(times=times, ids=ids, moved=b"\0\1", **counts)
        other = attrs.evolve(one, **{name: _turned(each) for name, each in counts.items()})
    else:
        one = other = Contact("+12025550100", 1.0)
    there = attrs.evolve(other, times=_turned(times), ids=_turned(ids))
    here = attrs.evolve(one, times=times, ids=ids).encode()
    monkeypatch.setattr(f"{record.__module__}.LITTLE", False)
    assert there.encode() == here


def _turned(values: array) -> array:
    values = values[:]
    values.byteswap()
    return values
