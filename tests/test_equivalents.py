"""The table of mutants that change nothing: what it excuses is still there."""

from pathlib import Path

import pytest
from equivalents import EQUAL

LIBRARY = Path(__file__).parents[1] / "linepicker"


@pytest.mark.parametrize("equal", EQUAL, ids=lambda equal: f"{equal.room}: {equal.now}")
def test_what_a_mutant_is_excused_for_is_still_there(equal):
    """An entry whose lines were changed is judged anew."""
    lines = [line.strip() for line in (LIBRARY / f"{equal.room}.py").read_text().splitlines()]
    was = equal.was.splitlines()
    assert any(lines[i : i + len(was)] == was for i in range(len(lines)))
    assert equal.why
