"""The table of mutants that change nothing: what it excuses is still there."""

from pathlib import Path

from equivalents import EQUAL

LIBRARY = Path(__file__).parents[1] / "linepicker"


def test_what_a_mutant_is_excused_for_is_still_there():
    """An entry whose lines were changed is judged anew."""
    for equal in EQUAL:
        source = (LIBRARY / f"{equal.room}.py").read_text()
        lines = [line.strip() for line in source.splitlines()]
        was = equal.was.splitlines()
        assert any(lines[i : i + len(was)] == was for i in range(len(lines))), equal
        assert equal.why, equal
