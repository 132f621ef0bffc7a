"""The table of changes that nobody can notice names what is there."""

from pathlib import Path

import pytest
from equivalents import EQUAL

ROOMS = Path(__file__).parents[1] / "linepicker"


@pytest.mark.parametrize("equal", EQUAL, ids=lambda equal: f"{equal.room}: {equal.line}")
def test_a_line_of_the_table_is_in_its_room(equal):
    """As it stands there, but for a comment behind it; and a reason is given."""
    lines = (ROOMS / f"{equal.room}.py").read_text(encoding="utf-8").splitlines()
    assert equal.line in [line.partition("  #")[0].strip() for line in lines]
    assert equal.line not in equal.instead
    assert equal.why
