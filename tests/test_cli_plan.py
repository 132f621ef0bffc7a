"""`linepicker capacity` and `linepicker plan`: what they print, which files they read, and what they say of bad rows."""

import csv
import io
import json
import time

import pytest

from linepicker.cli import rows
from linepicker.cli.run import run
from linepicker.cli.settings import CommandError
from linepicker.testing import FakeLinq

ONE, TWO = "+12025550100", "+12025550101"


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Runs a command on an account with two lines and a store of its own: status, stdout, stderr."""
    with FakeLinq([ONE, TWO], token="tok-1") as fake:
        monkeypatch.setenv("LINQ_API_V3_API_KEY", "tok-1")
        monkeypatch.setenv("LINQ_API_V3_BASE_URL", fake.base_url)
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.delenv("LINEPICKER_CONFIG", raising=False)
        monkeypatch.chdir(tmp_path)

        def do(*arguments):
            status = run(arguments)
            said = capsys.readouterr()
            return status, said.out, said.err

        yield do


def written(folder, name, text):
    """A file of recipients."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


PEOPLE = [f"+1212555{n:04d}" for n in range(40)]


def test_capacity_says_how_many_fit(command):
    """By line and in all, until a moment or for a while; and when so many have fitted."""
    status, out, err = command("capacity")
    assert (status, err) == (0, "")
    assert out.startswith("100 new conversations fit before ")
    assert f"  {ONE}: 50\n" in out
    status, out, _ = command("capacity", "--by", "30s", "--for", "8")
    assert status == 0
    assert "8 of them by " in out
    status, out, _ = command("capacity", "--by", "1h", "--for", "31")
    assert (status, out.splitlines()[-1]) == (3, "31 do not fit: 1 are too many.")


def test_capacity_as_json_is_one_document(command):
    """The same facts; moments are epoch seconds."""
    status, out, _ = command("capacity", "--by", "1h", "--for", "10", "--json")
    found = json.loads(out)
    assert status == 0
    assert found["total"] == 30
    assert found["by_line"] == {ONE: 15, TWO: 15}
    assert found["for"] == 10
    assert abs(found["earliest"] - time.time()) < 60
    assert abs(found["until"] - time.time() - 3600) < 60
    assert (
        json.loads(command("capacity", "--by", "1h", "--for", "99", "--json")[1])["earliest"]
        is None
    )
    assert "for" not in json.loads(command("capacity", "--json")[1])


@pytest.mark.parametrize("when", ["soon", "3 weeks", "2026-13-01", "", "inf", "-3h"])
def test_a_moment_that_is_none_is_refused(command, when):
    """What is neither a length of time nor a date is an error that shows both."""
    status, out, err = command("capacity", f"--by={when}")
    assert (status, out) == (1, "")
    assert "is no moment: write 6h or 3d" in err


@pytest.mark.parametrize(
    "when", ["2030-01-01", "2030-01-01T12:00", "2030-01-01T12:00+02:00", "0.5h"]
)
def test_a_moment_is_a_date_or_a_while(command, tmp_path, when):
    """ISO 8601, in UTC unless it says otherwise; or a number with s, m, h or d."""
    file = written(tmp_path, "a.txt", PEOPLE[0])
    status, out, _ = command("plan", file, "--deadline", when)
    assert (status, out.startswith("All 1 fit before ")) == (0, True)


def test_a_plan_is_summed_up(command, tmp_path):
    """Without --format: how many, from which lines, from when to when."""
    file = written(tmp_path, "people.txt", "\n".join(PEOPLE))
    status, out, err = command("plan", file)
    assert (status, err) == (0, "")
    first, *lines = out.splitlines()
    assert first.startswith("All 40 fit before ")
    assert [each.split(":")[0].strip() for each in lines] == [ONE, TWO]
    status, out, _ = command("plan", file, "--deadline", "1h")
    assert status == 3
    assert out.startswith("30 of 40 fit before ")
    assert "; 3 more lines or 6 more hours would do." in out.splitlines()[0]


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_a_plan_is_written_row_by_row(command, tmp_path, form):
    """As JSON Lines or CSV: everybody once, the placed with line and moment, the others with the reason."""
    group = f"{PEOPLE[1]};{PEOPLE[2]}"
    file = written(tmp_path, "people.txt", "\n".join([group, *PEOPLE]))
    status, out, _ = command("plan", file, "--deadline", "1h", "--format", form)
    assert status == 3
    if form == "jsonl":
        found = [json.loads(row) for row in out.splitlines()]
    else:
        found = list(csv.DictReader(io.StringIO(out)))
        for each in found:
            each["to"] = each["to"].split(" ") if " " in each["to"] else each["to"]
    assert len(found) == 41
    assert [each["to"] for each in found if isinstance(each["to"], list)] == [PEOPLE[1:3]]
    placed = [each for each in found if each["number"]]
    assert len(placed) == 30
    moments = [float(each["at"]) for each in placed]
    assert moments == sorted(moments)
    assert all(each["time"][10] == "T" and each["time"].endswith("+00:00") for each in placed)
    left = [each for each in found if not each["number"]]
    assert {each["reason"] for each in left} == {"deadline"}


def test_a_plan_as_json_is_one_document(command, tmp_path):
    """Slots, unplaced, the shortfall, and what was wrong with the file."""
    text = "\n".join([*PEOPLE, "nobody", PEOPLE[0]])
    file = written(tmp_path, "people.txt", text)
    status, out, err = command("plan", file, "--deadline", "1h", "--json")
    found = json.loads(out)
    assert status == 1
    assert len(found["slots"]) == 30
    assert len(found["unplaced"]) == 10
    assert found["unplaced"][0]["reason"] == "deadline"
    assert found["shortfall"].startswith("30 of 40 fit")
    assert found["repeated"] == [42]
    assert [each["line"] for each in found["wrong"]] == [41]
    assert "line 41" in err


def test_bad_rows_lose_nobody(command, tmp_path):
    """They are named by their line, the first twenty one by one, and the others are planned."""
    text = "\n".join([PEOPLE[0], *["12x"] * 25, PEOPLE[1]])
    status, out, err = command("plan", written(tmp_path, "people.txt", text))
    assert status == 1
    assert out.startswith("All 2 fit before ")
    assert "people.txt, line 2: the handle " in err
    assert err.count("\n") == 21
    assert "5 more lines are wrong" in err
    assert "12x" not in err


def test_a_file_that_is_missing_is_named(command):
    """And nothing is printed."""
    status, out, err = command("plan", "nobody.csv")
    assert (status, out) == (1, "")
    assert "nobody.csv can't be read" in err


# Files


def read(tmp_path, name, text, region=None):
    """What a file of that name and text holds: recipients, lines that repeat, lines that are wrong."""
    found = (
        rows.read(tmp_path / name, region)
        if text is None
        else rows.read(_path(tmp_path, name, text), region)
    )
    return [each.to for each in found.recipients], found.repeated, [line for line, _ in found.wrong]


def _path(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


A, B, MAIL = "+12125550001", "+12125550002", "ann@example.com"


@pytest.mark.parametrize(
    ("name", "text", "people", "repeated", "wrong"),
    [
        ("a.txt", f"{A}\r\n\n  {B}  \n{MAIL}", [A, B, MAIL], [], []),
        ("a", f"\ufeff{A}\n+1 (212) 555-0001\n", [A], [2], []),
        (
            "a.txt",
            f"{B} {A}\n{A};{B};{MAIL}\n+1 212 555 0001 ; {B}",
            [(A, B), (A, B, MAIL)],
            [3],
            [],
        ),
        ("a.csv", f"name,to\nAnn,{A}\nBob,{B}\n", [A, B], [], []),
        ("a.CSV", f"{A}\n{B}\n", [A, B], [], []),
        ("a.csv", f'Phone,Name\n"{A}","Ann, ""A"""\n,Bob\n\n{B};{A}\n', [A, (A, B)], [], [3]),
        ("a.csv", f"name,email\nAnn,{MAIL}\nBob\n", [MAIL], [], [3]),
        ("a.csv", f"recipients\n{A}\n", [A], [], [1]),
        (
            "a.jsonl",
            f'"{A}"\n["{B}", "{A}"]\n{{"to": "{MAIL}", "x": 1}}\n\n',
            [A, (A, B), MAIL],
            [],
            [],
        ),
        ("a.ndjson", f'{{"to": ["{A}"]}}\n[]\n3\n{{}}\n{{\n["x", 3]\n', [A], [], [2, 3, 4, 5, 6]),
        ("a.jsonl", "[" * 100_000, [], [], [1]),
        ("a.txt", "", [], [], []),
    ],
)
def test_files_of_every_kind_are_read(tmp_path, name, text, people, repeated, wrong):
    """By the end of the name; groups, headers, blank lines, repetitions and rows that are none."""
    assert read(tmp_path, name, text) == (people, repeated, wrong)


def test_numbers_are_read_as_the_policy_says(tmp_path):
    """With a default region numbers need no plus sign."""
    assert read(tmp_path, "a.txt", "212 456-7890\n", "US") == (["+12124567890"], [], [])


def test_what_is_no_text_is_refused(tmp_path):
    """A file in another encoding, and a folder."""
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CommandError, match="is not text in UTF-8"):
        rows.read(tmp_path / "a.txt", None)
    with pytest.raises(CommandError, match="can't be read"):
        rows.read(tmp_path, None)


def test_a_csv_that_breaks_off_is_named(tmp_path):
    """A field too long for any recipient is wrong, not an exception."""
    path = _path(tmp_path, "a.csv", f"to\n{A}\n" + "x" * 200_000 + "\n")
    found = rows.read(path, None)
    assert [each.to for each in found.recipients] == [A]
    assert [line for line, _ in found.wrong] == [3]
