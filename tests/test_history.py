"""The history checker finds what is wrong, and nothing in what is right."""

from __future__ import annotations

from itertools import permutations
from math import inf

import history
import pytest
from history import Call, End
from hypothesis import given, settings
from hypothesis import strategies as st

A, B = "+12125550000", "+12125550001"
ANN, BOB, CAT = "+14155550101", "+14155550102", "+14155550103"


def call(to, began, ended, answer, number="", process=0) -> Call:
    """A call of a process."""
    return Call(process, to, float(began), float(ended), answer, number)


def wrong(*some: Call, end: End | None = None, **budgets: int) -> set[str]:
    """What the checker says of these calls, on lines with these budgets."""
    return set(history.check(some, {A: budgets.get("a", 5), B: budgets.get("b", 5)}, end).wrong)


FAULTS = {
    "two lines": [call(ANN, 0, 1, "new", A), call(ANN, 2, 3, "known", B)],
    "new twice": [call(ANN, 0, 9, "new", A), call(ANN, 1, 9, "new", A)],
    "known, and nobody wrote": [call(ANN, 0, 1, "known", A), call(ANN, 2, 3, "unknown")],
    "new after it was known": [call(ANN, 0, 1, "known", A), call(ANN, 2, 3, "new", A)],
    "refused after it was known": [
        *(call(BOB + str(n), 0, 1, "new", A) for n in range(5)),
        *(call(CAT + str(n), 0, 1, "new", B) for n in range(5)),
        call(BOB + "0", 2, 3, "refused"),
    ],
    "a line that nobody proposed": [call(ANN, 0, 1, "new", "+1")],
    "refused without a moment to ask again": [call(ANN, 0, 1, "hasty")],
    "overspent": [call(ANN + str(n), 0, 1, "new", A) for n in range(6)],
    "refused with budget left": [call(ANN, 0, 1, "refused"), call(BOB, 0, 1, "new", A)],
    "opened after all was spent": [call(ANN, 0, 1, "refused"), call(BOB, 2, 3, "new", A)],
}


@pytest.mark.parametrize("what", FAULTS)
def test_each_fault_in_what_was_answered_is_found(what):
    """Whatever no order of the calls explains has its name."""
    assert what in wrong(*FAULTS[what])


@pytest.mark.parametrize(
    ("what", "some", "end"),
    [
        ("lost", [call(ANN, 0, 1, "new", A)], End({}, {A: 1})),
        ("lost", [call(ANN, 0, 1, "new", A)], End({ANN: B}, {A: 1})),
        ("charges lost", [call(ANN, 0, 1, "new", A)], End({ANN: A}, {A: 0})),
        ("in the store, and never tried", [], End({ANN: A}, {A: 1})),
        ("in the store, and nobody wrote", [call(ANN, 0, 1, "failed")], End({ANN: A}, {})),
        ("charges that nobody made", [call(ANN, 0, 1, "failed")], End({}, {A: 1})),
        ("charges that nobody made", [call(ANN, 0, inf, "unknown")], End({}, {A: 1, B: 1})),
        ("overspent in the store", [call(ANN, 0, inf, "unknown")], End({ANN: A}, {A: 6})),
    ],
)
def test_each_fault_in_the_store_is_found(what, some, end):
    """What was answered is there at the end, and nothing that nobody tried."""
    assert what in wrong(*some, end=end)


def test_what_is_right_is_not_blamed():
    """Calls that overlap, fail, are refused or unknown, in an order that explains them all."""
    story = [
        call(ANN, 0, 3, "new", A),
        call(ANN, 1, 2, "known", A, process=1),  # it saw what the other one wrote a moment before
        call(BOB, 2, inf, "unknown"),  # it wrote
        call(BOB, 4, 5, "known", B),
        call(CAT, 4, 5, "failed"),
        call(CAT, 6, 7, "refused"),
    ]
    found = history.check(story, {A: 1, B: 1}, End({ANN: A, BOB: B}, {A: 1, B: 1}))
    assert not found.wrong
    assert found.figures["tried_at_once"] == 1
    assert found.figures["recovered"] == 0
    unseen = history.check([call(BOB, 2, inf, "unknown")], {A: 1}, End({BOB: A}, {A: 1}))
    assert not unseen.wrong
    assert unseen.figures["recovered"] == 1


def explained(some: list[Call]) -> bool:
    """Whether any order of the calls to one recipient, each between its beginning and its end, gives their answers."""
    perhaps = [each for each in some if each.answer == "unknown"]
    for order in permutations(some):
        if any(
            late.ended < early.began
            for place, early in enumerate(order)
            for late in order[place + 1 :]
        ):
            continue
        for wrote in range(1 << len(perhaps)):
            line: str | None = None
            for each in order:
                if each.answer == "refused" and line is not None:
                    break
                if each.answer == "known" and line not in {each.number, "?"}:
                    break
                if each.answer == "new" and line is not None:
                    break
                if each.answer in {"new", "known"}:
                    line = each.number
                elif each.answer == "unknown" and wrote >> perhaps.index(each) & 1 and line is None:
                    line = "?"  # on any line: the next answer says which
            else:
                return True
    return False


@st.composite
def histories(draw) -> list[Call]:
    """Some calls to one recipient, each by a process of its own."""
    some = []
    for process in range(draw(st.integers(1, 5))):
        began = draw(st.integers(0, 6))
        answer = draw(st.sampled_from(["new", "known", "known", "refused", "unknown"]))
        ended = inf if answer == "unknown" else began + draw(st.integers(1, 4)) - 0.5
        number = draw(st.sampled_from([A, A, A, B])) if answer in {"new", "known"} else ""
        some.append(call(ANN, began, ended, answer, number, process))
    return some


@settings(max_examples=400)
@given(some=histories())
def test_a_recipients_calls_are_blamed_exactly_where_no_order_explains_them(some):
    """The checker, which looks at each call once, agrees with a search through all orders."""
    lines = dict.fromkeys((A, B), 0)  # so that whoever is refused was rightly so
    counted = {"overspent", "opened after all was spent"}
    blamed = set(history.check(some, lines).wrong) - counted
    assert (not blamed) == explained(some)


def test_what_a_process_noted_is_read_back():
    """A call without an end may have been written; one that failed was not, and was made again."""
    noted = f"1.0 i {ANN}\n1.5 f {ANN}\n2.0 i {ANN}\n2.5 n {ANN} {A}\n3.0 i {BOB}\n4.0 i {BOB}\n"
    noted += (
        f"4.5 k {BOB} {B}\n5.0 i {CAT}\n5.5 r {CAT} 1\n6.0 i {CAT}\n6.5 r {CAT} 0\n7.0 i {CAT}\n"
    )
    assert list(history.calls(3, noted)) == [
        Call(3, ANN, 1.0, 1.5, "failed"),
        Call(3, ANN, 2.0, 2.5, "new", A),
        Call(3, BOB, 3.0, inf, "unknown"),
        Call(3, BOB, 4.0, 4.5, "known", B),
        Call(3, CAT, 5.0, 5.5, "refused"),
        Call(3, CAT, 6.0, 6.5, "hasty"),
        Call(3, CAT, 7.0, inf, "unknown"),
    ]
    with pytest.raises(ValueError, match="had not begun"):
        list(history.calls(3, f"1.0 n {ANN} {A}\n"))
