"""`linepicker simulate`, run as a process."""

import json
import subprocess
import sys

import attrs
import pytest

from linepicker.policy import Policy
from linepicker.simulate import Scenario, ablations, score

TINY = "days = 2\nlines = 2\nnewcomers = 0\n"


@pytest.fixture
def simulate(tmp_path):
    """Runs the command in a folder that holds a small scenario, s.toml."""
    (tmp_path / "s.toml").write_text(TINY)

    def run(*arguments, status=0):
        ran = subprocess.run(
            [sys.executable, "-m", "linepicker", "simulate", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert ran.returncode == status, ran.stderr
        return ran

    return run


def test_it_shows_everybody_beside_the_oracle(simulate):
    """One row per contender; on a stream that is no terminal there is no bar, and nothing is warned of."""
    ran = simulate("--scenario", "s.toml", "--seeds", "2")
    for contender in score.field():
        assert f"\n{contender.name} " in ran.stdout
    assert "world daily, 1 times what it bears, 2 runs of 2 days" in ran.stdout
    assert ran.stderr == ""


def test_its_json_is_one_document_with_every_run(simulate):
    """The scenario, the estimates with their intervals, and each run with its trace; the same on two processes."""
    arguments = ("--scenario", "s.toml", "--world", "crowds", "--demand", "1.3", "--json")
    told = json.loads(simulate(*arguments, "--seeds", "2").stdout)
    base = Scenario(days=2, lines=2, newcomers=0, world="crowds", demand=1.3)
    assert told["scenario"] == json.loads(json.dumps(attrs.asdict(base)))
    assert len(told["runs"]) == 2 * len(score.field())
    oracle = told["results"][0]
    assert (oracle["group"], oracle["contender"]) == ("crowds (held out)", "oracle")
    assert oracle["share"] == {"mean": 100.0, "half": 0.0}
    again = json.loads(simulate(*arguments, "--seeds", "2", "--processes", "2").stdout)
    assert again == told


def test_policies_are_compared(simulate, tmp_path):
    """Each under the name of its file, beside the oracle."""
    (tmp_path / "A.toml").write_text("")
    (tmp_path / "B.toml").write_text("[limits]\nnew_per_day = 5\n")
    ran = simulate(
        *(
            "--scenario",
            "s.toml",
            "--policy",
            "A.toml",
            "--policy",
            "B.toml",
            "--seeds",
            "1",
            "--json",
        )
    )
    results = {row["contender"]: row for row in json.loads(ran.stdout)["results"]}
    assert list(results) == ["oracle", "A", "B"]
    assert results["B"]["share"]["mean"] < results["A"]["share"]["mean"]


def test_files_are_written(simulate, tmp_path):
    """A picture, a page that needs nothing else, a table."""
    (tmp_path / "A.toml").write_text("")
    files = ("p.png", "p.html", "p.md")
    outputs = [each for name in files for each in ("--output", name)]
    simulate("--scenario", "s.toml", "--policy", "A.toml", "--seeds", "1", *outputs)
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    html = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert "<svg" in html
    assert html.count("<table>") == 1
    for outside in ("src=", "<link", "<script", 'href="http'):
        assert outside not in html
    assert (tmp_path / "p.md").read_text(encoding="utf-8").startswith("|  | % of oracle |")


def test_ablations_are_one_command(simulate):
    """The whole policy, and it without each mechanism."""
    ran = simulate("--scenario", "s.toml", "--ablations", "--seeds", "1", "--json")
    names = {row["contender"] for row in json.loads(ran.stdout)["results"]}
    assert names == {each.name for each in ablations.contenders(Policy())}


@pytest.mark.parametrize(
    ("text", "arguments", "said"),
    [
        ("days = 0", (), "s.toml: days must be a whole number from 1 to 366, got 0"),
        ("wrld = 'x'", (), "s.toml: wrld is not a name of a scenario; the nearest is world"),
        ("world = 'marsh'", (), "world must be one of daily, jumps, blend, crowds, silence, scars"),
        (TINY, ("--demand", "99"), "demand must be a number from 0.01 to 10, got 99.0"),
        (TINY, ("--output", "p.gif"), "--output must end in .png, .html or .md, got p.gif"),
        (TINY, ("--ablations", "--policy", "s.toml"), "leave out --policy"),
        (TINY, ("--policy", "s.toml"), "days is not a name of the policy"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(simulate, tmp_path, text, arguments, said):
    """Status 1, no traceback, and as JSON where that was asked for."""
    (tmp_path / "s.toml").write_text(text)
    ran = simulate("--scenario", "s.toml", *arguments, status=1)
    assert said in ran.stderr
    assert ran.stderr.startswith("linepicker: ")
    ran = simulate("--scenario", "s.toml", *arguments, "--json", status=1)
    assert said in json.loads(ran.stdout)["error"]["message"]
