"""The README tells the truth: its examples run and print what it says, and its tables are those of the code.

An example's section is the text under one heading, `##` or `###`. Its Python blocks run in order, in one namespace and one
empty directory, each section by itself; what a block prints must be the `text` block right after it. Run as a script, this
file writes the README's table of tunables anew.
"""

import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
import typer

import linepicker
from linepicker import AsyncRouter, LinePickerError, Outcome, Policy, PolicyError, Router
from linepicker import _words as words
from linepicker.cli.app import app
from linepicker.cli.origins import values
from linepicker.testing import FakeLinq

ROOT = Path(__file__).parents[1]
FILE = ROOT / "README.md"
README = FILE.read_text(encoding="utf-8")
BEGIN, END = "<!-- configuration: begin -->\n", "<!-- configuration: end -->\n"


class Block(NamedTuple):
    """A fenced block: under which heading, in which language, the line its text begins on."""

    heading: str
    language: str
    line: int
    text: str
    follows: bool
    """Whether nothing but an empty line is between it and the block before."""


def read_blocks() -> Iterator[Block]:
    """The README's fenced blocks."""
    heading, language, start, ended = "", None, 0, -2
    lines = README.splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        if line.startswith("```"):
            if language is None:
                language, start = line[3:].strip(), number
            else:
                text = "".join(lines[start : number - 1])
                yield Block(heading, language, start + 1, text, follows=start == ended + 2)
                language, ended = None, number
        elif language is None and line.startswith("#"):
            heading = line.strip("# \n")


BLOCKS = list(read_blocks())
PROSE = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
SPANS = re.findall(r"`([^`\n]+)`", PROSE)
SECTIONS = sorted({block.heading for block in BLOCKS if block.language == "python"})


def blocks_of(heading, *languages):
    """The blocks of a section in these languages."""
    return [block for block in BLOCKS if block.heading == heading and block.language in languages]


def rows_under(heading):
    """What is code in the first column of a section's table."""
    sections = re.split(r"^##+ (.*)$", PROSE, flags=re.MULTILINE)
    section = sections[sections.index(heading) + 1]
    rows = re.findall(r"^\| (`[^|]+) \|", section, flags=re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row)]


# Examples


@pytest.fixture
def plain_log():
    """The root logger is as it was afterwards: a worker of Celery's takes it over."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.mark.parametrize("heading", SECTIONS)
@pytest.mark.usefixtures("plain_log")
def test_the_examples_do_what_is_said(heading, tmp_path, monkeypatch, capsys):
    """A section's Python blocks run as they stand, and print the text that follows each of them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("LINQ_API_V3_API_KEY", "LINQ_API_V3_BASE_URL", "LINQ_WEBHOOK_SECRET"):
        monkeypatch.setenv(name, "")  # so that what an example sets is undone
        monkeypatch.delenv(name)
    namespace = {"__name__": "readme"}
    blocks = blocks_of(heading, "python", "text")
    if any("django" in block.text for block in blocks):  # Celery looks for it too
        monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "django.conf.global_settings")
    for block, after in zip(blocks, [*blocks[1:], None], strict=True):
        if block.language == "python":
            source = (
                "\n" * (block.line - 1) + block.text
            )  # so that a traceback names the README's line
            exec(compile(source, str(FILE), "exec", dont_inherit=True), namespace)
            told = after is not None and after.language == "text" and after.follows
            assert capsys.readouterr().out == (after.text if told else "")


def test_the_example_tests_pass(tmp_path):
    """What is shown as a test is one: pytest finds the fixtures that it asks for."""
    shown = [
        block for block in BLOCKS if block.language == "python" and "\ndef test_" in block.text
    ]
    assert shown
    for number, block in enumerate(shown):
        (tmp_path / f"test_{number}.py").write_text(block.text, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ran.returncode, f"{len(shown)} passed" in ran.stdout) == (0, True), ran.stdout


@pytest.mark.parametrize("server", ["valkey", "redis6", "postgres"])
def test_many_machines_need_no_more_than_another_url(
    server, request, tmp_path, monkeypatch, capsys
):
    """The section's program, as it stands, on servers that any number of machines may share."""
    url = request.getfixturevalue(server).url(namespace="readme")
    monkeypatch.setenv("LINEPICKER_STORE", url)
    heading = "From one process to many machines"
    test_the_examples_do_what_is_said(heading, tmp_path, monkeypatch, capsys)
    assert not (tmp_path / "shared.db").exists()


def test_no_block_is_left_out():
    """Each fenced block is one that some test here reads, and each output belongs to an example."""
    assert {block.language for block in BLOCKS} == {"python", "sh", "text", "toml"}
    for before, block in pairwise(BLOCKS):
        if block.language == "text":
            assert (before.language, block.follows) == ("python", True)


@pytest.mark.parametrize("heading", ["Run it", "Test it"])
def test_set_up_is_one_line_of_shell(heading):
    """What sets everything up is one command line, which asks for extras that exist."""
    (block,) = blocks_of(heading, "sh")
    assert block.text.count("\n") == 1
    (extras,) = re.findall(r'"\.\[([a-z,]+)\]"', block.text)
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert all(re.search(rf"^{extra} = \[", pyproject, re.MULTILINE) for extra in extras.split(","))


def test_there_is_no_other_shell():
    """Only those two blocks are commands to be pasted."""
    shells = [block.heading for block in BLOCKS if block.language == "sh"]
    assert shells == ["Run it", "Test it"]


def test_the_example_policies_are_policies(tmp_path):
    """Every TOML block is read by `Policy.from_toml`, and says something that is not the default."""
    examples = [block for block in BLOCKS if block.language == "toml"]
    assert examples
    for block in examples:
        path = tmp_path / "policy.toml"
        path.write_text(block.text, encoding="utf-8")
        assert Policy.from_toml(path) != Policy()


# The command line


def commands():
    """The commands there are, each with the names of its options, and those of all under ""."""
    group = typer.main.get_command(app)
    found = {
        name: {option for param in command.params for option in param.opts}
        for name, command in group.commands.items()
    }
    found[""] = {option for param in group.params for option in param.opts}
    return found


def test_the_commands_named_are_the_commands_there_are():
    """The table of commands names each of them, and nothing on the page names another one."""
    known = commands()
    told = [row.split()[1] for row in rows_under("Command line")]
    assert sorted(told) == sorted(known.keys() - {""})
    shells = [block.text for block in BLOCKS if block.language == "sh"]
    used = [re.search(r"(?:^|/)linepicker(?: ([a-z]+)|$)", text) for text in [*SPANS, *shells]]
    named = {match[1] for match in used if match is not None and match[1] is not None}
    assert named == known.keys() - {""}


def test_the_options_named_are_options():
    """Each option in the prose is one of some command; of a benchmark, one of its own."""
    known, named = set().union(*commands().values()), set()
    for span in SPANS:
        options = set(re.findall(r"(?<!\S)--[a-z-]+", span))
        benchmark = re.match(r"python -m benchmarks ([a-z-]+) ", span)
        if benchmark is not None and options:
            command = [sys.executable, "-m", "benchmarks", benchmark[1], "--help"]
            told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            assert options <= set(re.findall(r"--[a-z-]+", told))
        else:
            named |= options
    assert named
    assert named <= known


# Tables


def test_every_reason_is_explained():
    """The table of reasons has each code once."""
    assert sorted(rows_under("Reasons")) == sorted(words.CODES)


def test_every_error_is_explained():
    """The table of errors has each of the public errors once."""
    public = {name for name in linepicker.__all__ if _is_error(getattr(linepicker, name))}
    assert sorted(rows_under("Errors")) == sorted(public - {"LinePickerError"})


def _is_error(thing):
    return isinstance(thing, type) and issubclass(thing, LinePickerError)


def test_every_outcome_is_explained():
    """The table of outcomes has each once."""
    assert sorted(rows_under("Any HTTP client")) == sorted(Outcome)


@pytest.mark.parametrize("door", [Router, AsyncRouter])
def test_every_verb_is_explained(door):
    """The table of verbs has each public method of both routers once."""
    public = [name for name in vars(door) if not name.startswith("_")]
    assert sorted(rows_under("The router's verbs")) == sorted(public)


def test_the_switches_named_are_the_fakes():
    """What the page calls a switch of the fake provider is one."""
    text = PROSE.split("Its other switches: ")[1].split("\n\n")[0].split("`linepicker.testing")[0]
    named = re.findall(r"`(\w+)`", text)
    assert named
    assert all(callable(getattr(FakeLinq, name)) for name in named)


# Tunables


def bounds(section, name):
    """What a tunable may be, in the words of the code that refuses it."""
    with pytest.raises(PolicyError) as error:
        section(**{name: object()})
    said = re.search(r" must be (.*), got <object", str(error.value))[1]
    return said.replace(f" to {10**12:,}", " up").replace(f" and at most {10**12:,}", "")


def table():
    """The README's table of tunables, as the code has it."""
    rows = [
        "| name | default | may be | meaning | source of the default |",
        "|---|---|---|---|---|",
    ]
    policy = Policy()
    for each in values(policy, None):
        title, _, name = each.place.rpartition(".")
        may_be = bounds(type(getattr(policy, title) if title else policy), name)
        if each.value in (None, "off"):
            default = each.value or "left out"
        else:
            word = str(each.value).lower() if isinstance(each.value, bool) else each.value
            default = f"`{word}`"
        rows.append(f"| `{each.place}` | {default} | {may_be} | {each.meaning} | {each.source} |")
    return "".join(f"{row}\n" for row in rows)


def test_the_table_of_tunables_is_the_codes():
    """Meanings, bounds, defaults and sources are those of `policy.py`. If this fails: `python tests/test_readme.py`."""
    assert README.split(BEGIN)[1].split(END)[0].strip("\n") + "\n" == table()


def test_every_tunable_is_in_the_table():
    """Each value of a policy has its row."""
    tables = Policy(default_region="US").to_dict()
    names = {
        f"{name}.{inner}" if inner else name
        for name, value in tables.items()
        for inner in (value if isinstance(value, dict) else [""])
    }
    assert names == set(re.findall(r"^\| `([\w.]+)` \|", table(), re.MULTILINE))


# Links


def test_links_lead_somewhere():
    """Each link is to a file that exists, or to a heading of this page."""
    headings = re.findall(r"^#+ (.+)$", PROSE, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings}
    targets = re.findall(r"\]\(([^)\s]+)\)", PROSE)
    assert targets
    for target in targets:
        if target.startswith("#"):
            assert target[1:] in anchors
        else:
            assert (ROOT / target).is_file()


def rewrite():
    """Write the table of tunables into the README."""
    before, rest = README.split(BEGIN)
    after = rest.split(END)[1]
    FILE.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    rewrite()
