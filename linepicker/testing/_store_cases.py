"""The cases of `check_store`: what a store must do for one caller. Each is a flow on a new store."""

from __future__ import annotations

import random
from collections.abc import Callable
from reprlib import repr as short
from types import MappingProxyType
from typing import Final

from linepicker.errors import StoreError
from linepicker.stores import ABSENT, SAME, Record, Write
from linepicker.testing._store_verbs import (
    Call,
    Close,
    Flow,
    Read,
    Scan,
    Swap,
    apply,
    put,
    read,
    refuse,
    scan,
)

__all__ = ["CASES"]

_PAST: Final = 1.0
_FUTURE: Final = 4_000_000_000.0


def _nothing_is_there() -> Flow[None]:
    assert (yield from read("a", "b")) == {"a": ABSENT, "b": ABSENT}, "a new store must be empty"
    assert (yield from read()) == {}, "no keys, no records"
    assert (yield from scan("")) == {}, "a new store must be empty"
    assert (yield from apply()) == {}, "a swap of nothing must be applied"


def _a_version_lets_one_write_pass() -> Flow[None]:
    first = (yield from put({"a": b"1"}))["a"]
    yield from refuse(Write("a", 0, b"2"), moved={"a": first})
    versions = yield from apply(Write("a", first.version, b"2"))
    second = Record(versions["a"], b"2")
    yield from refuse(Write("a", first.version, b"3"), moved={"a": second})
    yield from refuse(Write("a", second.version + 1, b"3"), moved={"a": second})
    yield from refuse(Write("b", second.version, b"3"), moved={"b": ABSENT})
    assert (yield from read("a", "b")) == {"a": second, "b": ABSENT}, (
        "a refusal must change nothing"
    )


def _versions_only_grow() -> Flow[None]:
    last = 0
    for value in (b"1", b"2", None, b"3", None, b"4", b"4"):
        held = yield from read("a", "b")
        versions = yield from apply(*(Write(key, held[key].version, value) for key in held))
        if value is not None:
            assert len(set(versions.values())) == len(versions), (
                "each write must have its own version"
            )
            assert min(versions.values()) > last, (
                "a later write must have a larger version, whatever the key and what was deleted: "
                f"{min(versions.values())} after {last}"
            )
            last = max(versions.values())
            found = yield from read("a", "b")
            assert {key: each.version for key, each in found.items()} == versions, (
                "a record must have the version its swap answered with"
            )


def _all_or_none() -> Flow[None]:
    old = yield from put({"a": b"1", "b": b"2", "c": b"3"})
    a, b, c = (old[key].version for key in "abc")
    now = Record((yield from apply(Write("b", b, b"new")))["b"], b"new")
    for order in (1, -1):
        writes = (
            Write("a", a, b"x"),
            Write("b", b, b"x"),
            Write("c", c, None),
            Write("d", 0, b"x"),
        )
        yield from refuse(*writes[::order], moved={"b": now})
    left = yield from read("a", "b", "c", "d")
    assert left == {"a": old["a"], "b": now, "c": old["c"], "d": ABSENT}, (
        "a refused swap must change nothing, whichever write was refused"
    )
    yield from apply(
        *(each._replace(version=now.version) if each.key == "b" else each for each in writes)
    )
    left = yield from read("a", "b", "c", "d")
    assert [left[key].value for key in "abcd"] == [b"x", b"x", None, b"x"], (
        "an applied swap must make all its writes"
    )


def _same_checks_and_changes_nothing() -> Flow[None]:
    old = yield from put({"a": b"1", "b": b"2"})
    a, b = (old[key].version for key in "ab")
    yield from apply(Write("a", a, SAME))
    yield from apply(Write("a", a, SAME), Write("nobody", 0, SAME), Write("b", b, b"3"))
    found = yield from read("a", "nobody")
    assert found == {"a": old["a"], "nobody": ABSENT}, "SAME must change neither value nor version"
    b = (yield from read("b"))["b"].version
    yield from refuse(
        Write("a", 0, SAME), Write("nobody", a, SAME), moved={"a": old["a"], "nobody": ABSENT}
    )
    yield from refuse(Write("b", b, b"4"), Write("a", a + 1, SAME), moved={"a": old["a"]})
    yield from refuse(Write("b", b, b"4"), Write("nobody", a, SAME), moved={"nobody": ABSENT})
    assert (yield from read("b"))["b"] == Record(b, b"3"), "SAME must hold back the other writes"


def _deleted_is_absent() -> Flow[None]:
    old = yield from put({"a": b"1", "b": b"2"})
    yield from refuse(Write("a", old["b"].version, None), moved={"a": old["a"]})
    yield from apply(Write("a", old["a"].version, None), Write("nobody", 0, None))
    assert (yield from read("a", "nobody")) == {"a": ABSENT, "nobody": ABSENT}
    assert (yield from scan("")) == {"b": old["b"]}, "scan must not yield what was deleted"
    yield from refuse(Write("a", old["a"].version, b"2"), moved={"a": ABSENT})
    yield from put({"a": b"again"})


def _a_refusal_brings_what_moved() -> Flow[None]:
    old = yield from put({key: key.encode() for key in ("a", "b", "kept", "changed", "gone")})
    held = {key: each.version for key, each in old.items()} | {"new": 0, "nobody": 0}
    versions = yield from apply(
        Write("changed", held["changed"], b"now"),
        Write("gone", held["gone"], None),
        Write("new", 0, b"n"),
    )
    a = Record((yield from apply(Write("a", held["a"], b"moved")))["a"], b"moved")
    moved = {
        "changed": Record(versions["changed"], b"now"),
        "gone": ABSENT,
        "new": Record(versions["new"], b"n"),
    }
    seen = {key: held[key] for key in ("kept", "changed", "gone", "new", "nobody")}
    writes = (Write("a", held["a"], b"x"), Write("b", held["b"], b"x"))
    yield from refuse(*writes, seen=seen, moved={"a": a, **moved})
    yield from refuse(*writes, seen=MappingProxyType(seen), moved={"a": a, **moved})
    yield from refuse(Write("a", held["a"], SAME), seen={"kept": seen["kept"]}, moved={"a": a})
    yield from apply(Write("b", held["b"], b"x"), seen=seen)  # what was seen doesn't bind


def _expired_is_absent() -> Flow[None]:
    versions = yield from apply(
        Write("past", 0, b"1", _PAST), Write("future", 0, b"2", _FUTURE), Write("never", 0, b"3")
    )
    there = {"future": Record(versions["future"], b"2"), "never": Record(versions["never"], b"3")}
    assert (yield from read("past", "future", "never")) == {"past": ABSENT, **there}, (
        "a record must read as absent from its expires_at, and not before"
    )
    assert (yield from scan("")) == there, "scan must yield what has not expired, and no more"
    yield from refuse(Write("past", versions["past"], b"x"), moved={"past": ABSENT})
    yield from refuse(
        Write("never", 0, b"x"),
        seen={"past": versions["past"]},
        moved={"past": ABSENT, "never": there["never"]},
    )
    yield from apply(Write("past", 0, SAME), Write("future", there["future"].version, SAME))
    assert (yield from read("future"))["future"] == there["future"], "SAME must keep expires_at"
    again = (yield from put({"past": b"again"}))["past"]
    assert again.version > max(versions.values()), "an expired record's version must not come again"
    yield from apply(Write("past", again.version, b"once more", _PAST))
    assert (yield from read("past"))["past"] == ABSENT, "the last write's expires_at must hold"


def _any_bytes_are_a_value() -> Flow[None]:
    yield from put(
        {
            "empty": b"",
            "zeros": bytes(9),
            "all": bytes(range(256)),
            "large": random.Random(0).randbytes(1 << 20),
        }
    )


def _any_text_is_a_key() -> Flow[None]:
    keys = [
        "a",
        "A",
        "a ",
        " a",
        "",
        "é",
        "e\u0301",
        "日本",
        "🦊",
        "\u202eabc",
        "\U0010ffff",
        "k" * 1000,
    ]
    keys += [
        "a%",
        "a_",
        "a*",
        "a?",
        "a[",
        "a]",
        "a\\",
        "a'",
        'a"',
        "a:b:c",
        "a{b}",
        "a\n",
        "a\U0010ffff",
    ]
    old = yield from put({key: key.encode() for key in keys})
    for prefix in keys:
        found = yield from scan(prefix)
        assert found == {key: old[key] for key in keys if key.startswith(prefix)}, (
            f"scan({short(prefix)}) must yield all keys with that prefix"
        )
    assert (yield from scan("nobody")) == {}


def _many_at_once() -> Flow[None]:
    old = yield from put({f"many:{n}": b"%d" % n for n in range(3000)})
    assert (yield from scan("many:")) == old, "scan must yield every record"
    stale = dict.fromkeys(old, 0)
    yield from refuse(Write("many:0", 0, SAME), seen=stale, moved=old)
    yield from apply(*(Write(key, each.version, None) for key, each in old.items()))
    assert (yield from scan("")) == {}


def _any_collection_is_asked_for() -> Flow[None]:
    old = yield from put({"a": b"1", "b": b"2"})
    for keys in (["a", "b"], {"a", "b"}, old.keys()):
        assert (yield Read(keys)).records == old, f"read must take a {type(keys).__name__}"


def _at_random() -> Flow[None]:
    chance = random.Random(0)
    model: dict[str, Record] = {}
    past = [0]
    for step in range(300):
        writes = []
        for key in chance.sample("abcdef", chance.randint(1, 3)):
            holds = chance.random() < 0.8
            version = model.get(key, ABSENT).version if holds else chance.choice(past)
            writes.append(
                Write(key, version, chance.choice((SAME, None, b"%d" % step, b"%d" % step)))
            )
        seen = {
            key: chance.choice(past) for key in "abcdef" if key not in {each.key for each in writes}
        }
        given = {each.key: each.version for each in writes}
        if all(model.get(key, ABSENT).version == version for key, version in given.items()):
            versions = yield from apply(*writes, seen=seen)
            for key, _, value, _ in writes:
                if isinstance(value, bytes):
                    model[key] = Record(versions[key], value)
                    past.append(versions[key])
                elif value is None:
                    model.pop(key, None)
        else:
            given |= seen
            now = {key: model.get(key, ABSENT) for key in given}
            moved = {key: each for key, each in now.items() if each.version != given[key]}
            yield from refuse(*writes, seen=seen, moved=moved)
        assert (yield from scan("")) == model, f"after step {step} the records must be {model}"


def _closed_is_closed() -> Flow[None]:
    yield from put({"a": b"1"})
    yield Close()
    yield Close()
    calls: tuple[Call, ...] = (Read(("a",)), Swap((Write("a", 0, b"2"),), {}), Scan(""))
    for call in calls:
        try:
            yield call
        except StoreError:
            continue
        raise AssertionError(
            f"{type(call).__name__[1:].lower()} on a closed store must be a StoreError"
        )


CASES: Final[tuple[Callable[[], Flow[None]], ...]] = (
    _nothing_is_there,
    _a_version_lets_one_write_pass,
    _versions_only_grow,
    _all_or_none,
    _same_checks_and_changes_nothing,
    _deleted_is_absent,
    _a_refusal_brings_what_moved,
    _expired_is_absent,
    _any_bytes_are_a_value,
    _any_text_is_a_key,
    _many_at_once,
    _any_collection_is_asked_for,
    _at_random,
    _closed_is_closed,
)
