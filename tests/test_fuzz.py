"""Bytes of any kind into everything that reads what others wrote: what long runs of `fuzz.py` have reached, and some more."""

import base64
import logging
from pathlib import Path

import pytest
from fuzz_targets import TARGETS
from hypothesis import given, settings
from hypothesis import strategies as st

CORPUS = Path(__file__).with_name("corpus")
"""For each target what reached something that nothing before had, a row of base64 each."""


@pytest.fixture(autouse=True)
def quiet():
    """What is refused is logged, which is not at issue here."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("name", TARGETS)
def test_what_was_ever_reached_is_still_answered(name):
    """The seeds, and all that long runs kept."""
    target = TARGETS[name]
    kept = (CORPUS / f"{name}.txt").read_text().splitlines()
    assert kept
    for data in [*target.seeds, *map(base64.b64decode, kept)]:
        target.take(data)


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes_are_answered_as_documented(name):
    """Anything at all, and what resembles the seeds."""
    target = TARGETS[name]

    @settings(max_examples=20 if name == "arguments" else 200)
    @given(st.binary(max_size=300) | _like(target.seeds))
    def take(data):
        target.take(data)

    take()


@st.composite
def _like(draw, seeds):
    """A seed with some bytes changed, cut out or put in."""
    data = bytearray(draw(st.sampled_from(list(seeds))))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 8))] = draw(st.binary(max_size=8))
    return bytes(data)
