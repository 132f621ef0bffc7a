"""The command line: each command run as a process, against a provider on the loopback and a store in a file."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import attrs
import pytest

from linepicker import Router
from linepicker import _words as words
from linepicker.cli import show
from linepicker.model import Line, LineView
from linepicker.providers.linq import LinqSource
from linepicker.recording import DecisionLog
from linepicker.testing import FakeLinq, ManualClock
from linepicker.testing.fakelinq import Guesses

TOKEN = "tok-3c1f77e0a9"
PERSON = "+13035550123"
FRIEND = "ann@example.com"
ONE, TWO, THREE = "+12025550100", "+12025550101", "+12025550102"


@attrs.frozen
class Ran:
    """What came of a command."""

    status: int
    out: str
    err: str

    @property
    def json(self):
        """Its one document."""
        return json.loads(self.out)


# Importing takes most of a command's time. So one process imports, and each command is a fork of it.
NURSERY = """
import json, os, sys, linq
from linepicker.cli import main, run
for row in sys.stdin:
    job = json.loads(row)
    child = os.fork()
    if not child:
        try:
            os.chdir(job["folder"])
            os.environ.clear()
            os.environ.update(job["env"])
            for fd, name in ((1, "stdout"), (2, "stderr")):
                os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), fd)
                encoding = os.environ.get("PYTHONIOENCODING", "utf-8")
                setattr(sys, name, open(fd, "w", encoding=encoding))
            status = main(job["arguments"])
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(status)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(70)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def nursery():
    """The process that the commands are forked from."""
    with subprocess.Popen(
        [sys.executable, "-c", NURSERY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        yield parent
        parent.stdin.close()


@attrs.frozen
class Command:
    """Runs `linepicker` as a process, in an environment and a folder of its own. None removes a variable."""

    nursery: subprocess.Popen[str]
    env: dict[str, str]
    folder: Path

    def __call__(self, *arguments, **env):
        """Run the command. Whatever happens, it shows no traceback and no token."""
        mine = {name: value for name, value in {**self.env, **env}.items() if value is not None}
        job = {"arguments": arguments, "env": mine, "folder": str(self.folder)}
        print(json.dumps(job), file=self.nursery.stdin, flush=True)
        status = int(self.nursery.stdout.readline())
        out, err = ((self.folder / name).read_text("utf-8") for name in ("stdout", "stderr"))
        return self.checked(status, out, err)

    def from_scratch(self, *start, **env):
        """Run a Python program from its first line: as `__call__`, and slower."""
        done = subprocess.run(
            [sys.executable, *start],
            env=self.env | env,
            cwd=self.folder,
            capture_output=True,
            timeout=60,
            check=False,
        )
        return self.checked(done.returncode, done.stdout.decode(), done.stderr.decode())

    def checked(self, status, out, err):
        """What came of it, if it is fit to be seen."""
        assert "Traceback" not in err
        assert TOKEN not in out + err
        return Ran(status, out, err)

    def fails(self, *arguments, status=1, **env):
        """Its one sentence on stderr, having printed nothing else."""
        ran = self(*arguments, **env)
        assert (ran.status, ran.out) == (status, "")
        assert ran.err.count("\n") == 1
        assert ran.err.startswith("linepicker: ")
        return ran.err


@pytest.fixture
def fake():
    """An account with three lines."""
    guesses = Guesses(audit_seconds=1.0)
    with FakeLinq([ONE, TWO, THREE], token=TOKEN, guesses=guesses) as provider:
        yield provider


@pytest.fixture
def command(nursery, fake, tmp_path):
    """The command, on that account and a new store."""
    env = {
        "LINQ_API_V3_API_KEY": TOKEN,
        "LINQ_API_V3_BASE_URL": fake.base_url,
        "PYTHONIOENCODING": "utf-8",
    }
    return Command(nursery, env, tmp_path)


@pytest.fixture
def router(fake, command):
    """A router of the application's, on the store the command finds by itself."""
    source = LinqSource(TOKEN, base_url=fake.base_url)
    with Router(source, store=f"sqlite:///{command.folder}/linepicker.db") as mine:
        yield mine


# Lines


def test_lines_shows_every_line_with_its_budget(command):
    """Each line has a row: number, type, reputation, standing, what is used and left, and when it has room."""
    ran = command("lines")
    assert (ran.status, ran.err) == (0, "")
    title, *rows = ran.out.splitlines()
    assert title.split() == [
        "line",
        "type",
        "reputation",
        "standing",
        "used",
        "left",
        "next",
        "slot",
    ]
    assert [row.split() for row in rows] == [
        [number, "iMessage", "HEALTHY", "open", "0/50", "50", "now"] for number in (ONE, TWO, THREE)
    ]


def test_lines_says_why_a_line_is_not_like_the_others(command, fake):
    """Under the table stand the reasons; an AT_RISK line has a smaller budget, a CRITICAL one none."""
    fake.set_reputation(ONE, "AT_RISK")
    fake.set_reputation(TWO, "CRITICAL")
    out = command("lines").out
    assert re.search(rf"\{ONE} +iMessage +AT_RISK +open, slower +0/25", out)
    assert re.search(rf"\{TWO} +iMessage +CRITICAL +nothing goes out", out)
    assert f"\n{ONE}: AT_RISK" in out
    assert f"\n{TWO}: CRITICAL" in out
    assert f"\n{THREE}:" not in out


def test_lines_as_json_is_one_document(command, router):
    """With --json stdout holds the same facts as one document; moments are epoch seconds."""
    router.reserve(PERSON, line=TWO)
    ran = command("lines", "--json")
    assert ran.status == 0
    views = {each["number"]: each for each in ran.json["lines"]}
    assert list(views) == [ONE, TWO, THREE]
    assert views[TWO] | {"next_slot_at": None, "as_of": None} == {
        "number": TWO,
        "line_type": "iMessage",
        "reputation": "HEALTHY",
        "standing": "ok",
        "budget": 50,
        "used": 1,
        "remaining": 49,
        "next_slot_at": None,
        "reasons": [],
        "outcomes": {"sent": 1, "opened": 1},
        "terms": [],
        "as_of": None,
    }
    assert abs(views[TWO]["next_slot_at"] - time.time()) < 60
    assert abs(views[TWO]["as_of"] - time.time()) < 60


def test_an_account_without_lines_is_said_to_have_none(capsys):
    """No lines are told in a sentence, not by an empty table."""
    show.lines([], 0.0)
    assert capsys.readouterr().out == "The account has no lines.\n"


def test_a_warning_of_the_library_stands_on_stderr(command, fake):
    """A reputation that this version has no word for is told once, and leaves stdout as it is."""
    fake.set_reputation(ONE, "TIRED")
    ran = command("lines", "--json")
    assert (ran.status, len(ran.json["lines"])) == (0, 3)
    assert ran.err.startswith("linepicker: warning: ")
    assert "TIRED" in ran.err


# Pick and why


def test_pick_previews_the_line_and_says_why(command, router):
    """The line it would take comes first, with its score; nothing is charged, nobody is assigned."""
    ran = command("pick", PERSON)
    assert (ran.status, ran.err) == (0, "")
    first, *rows = ran.out.splitlines()
    chosen = re.fullmatch(
        r"\+1•••••••123 is new, and would be written to from (\+\d+) now\.", first
    )
    assert next(row.split()[0] for row in rows) == chosen[1]
    assert sorted(row.split()[0] for row in rows) == [ONE, TWO, THREE]
    assert all("could, now: score 1" in row for row in rows)
    assert router.assignment(PERSON) is None
    assert [view.used for view in router.lines()] == [0, 0, 0]


def test_pick_of_somebody_known_is_their_line(command, router):
    """A known recipient's line is taken, with --json as the decision that the library gives."""
    router.assign(FRIEND, TWO)
    assert f"a•••@•••.com belongs to {TWO}" in command("pick", FRIEND).out
    made = command("pick", FRIEND, "--json").json
    assert (made["outcome"], made["kind"], made["number"]) == ("reserved", "known", TWO)
    assert made["to"] == "a•••@•••.com"


def test_pick_refused_is_status_3(command, fake):
    """Where no line may take a message the status is 3, and the text says when to ask again and what is wrong where."""
    for number in (ONE, TWO, THREE):
        fake.set_reputation(number, "CRITICAL")
    ran = command("pick", PERSON)
    assert (ran.status, ran.err) == (3, "")
    assert re.search(
        r"refused: no line may take a new conversation now; ask again in 1 min", ran.out
    )
    for number in (ONE, TWO, THREE):
        assert f"{number} is CRITICAL: nothing goes out until it is HEALTHY" in ran.out
    ran = command("--json", "pick", PERSON)
    assert ran.status == 3
    assert (ran.json["outcome"], ran.json["number"]) == ("no_line", None)
    assert ran.json["retry_at"] > time.time()
    assert {each["excluded"] for each in ran.json["candidates"]} == {"critical"}


def test_pick_takes_the_wishes_of_a_reservation(command, fake):
    """--exclude, --line, --line-type, --tag, --inbound and --max-delay mean what they mean to the router."""
    fake.add_line("+12025550199", line_type="RCS")
    made = command(
        "pick", PERSON, "--exclude", ONE, "--exclude", TWO, "--line-type", "rcs", "--json"
    )
    assert (made.status, made.json["number"]) == (0, "+12025550199")
    codes = {each["number"]: each["excluded"] for each in made.json["candidates"]}
    assert codes == {ONE: "line_type", TWO: "line_type", THREE: "line_type", "+12025550199": None}
    made = command("pick", PERSON, "--line", THREE, "--inbound", "--max-delay", "0", "--json")
    assert (made.status, made.json["number"]) == (0, THREE)
    made = command("pick", PERSON, "--tag", "sales", "--json")
    assert (made.status, {each["excluded"] for each in made.json["candidates"]}) == (3, {"tag"})


def test_several_handles_are_one_group(command):
    """Handles after one another are the members of one conversation, all of them masked."""
    assert command("pick", PERSON, FRIEND).out.startswith("+1•••••••123, a•••@•••.com is new")


def test_why_tells_a_person_apart_from_one_of_our_lines(command, fake, router):
    """Of a person it tells whose they are, what holds them and every line; of a line, how it stands and why."""
    router.assign(PERSON, TWO)
    fake.set_reputation(TWO, "CRITICAL")
    out = command("why", PERSON).out
    assert f"refused: {TWO} is CRITICAL" in out
    assert f"+1•••••••123 has belonged to {TWO} since " in out
    assert f"{ONE} could, now: score 1" in out
    told = command("why", PERSON, "--json").json
    assert (told["assignment"]["number"], told["assignment"]["history"]) == (TWO, [])
    assert (told["decision"]["outcome"], told["decision"]["reason"]) == ("held", "critical")
    out = command("why", TWO).out
    assert out.startswith(f"{TWO} CRITICAL\n  iMessage, nothing goes out\n")
    assert "\n  CRITICAL: " in out
    assert command("why", TWO, "--json").json["line"]["standing"] == "critical"


def test_why_tells_where_somebody_was_before(command, router):
    """A recipient who moved has a past."""
    router.assign(PERSON, TWO)
    router.move(PERSON, THREE)
    assert f"Before that to {TWO}, since " in command("why", PERSON).out


# The operator


def test_a_paused_line_is_passed_over_until_resumed(command):
    """Pause keeps a line from everybody, pick and lines show it with its reason, resume ends it."""
    assert 'Paused by the operator ("too hot").' in command("pause", ONE, "--reason", "too hot").out
    ran = command("pick", PERSON, "--line", ONE)
    assert (ran.status, f"{ONE} is paused by the operator" in ran.out) == (3, True)
    assert re.search(rf"\{ONE} +iMessage +HEALTHY +paused", command("lines").out)
    assert command("resume", ONE, "--json").json["line"]["standing"] == "ok"
    assert command("pick", PERSON, "--line", ONE).status == 0


def test_a_draining_line_serves_whom_it_knows(command, router):
    """Drain keeps new people from a line, and nobody else."""
    router.assign(PERSON, ONE)
    assert command("drain", ONE, "--json").json["line"]["standing"] == "draining"
    assert command("pick", PERSON).status == 0
    assert command("pick", FRIEND, "--line", ONE).status == 3


# Who belongs where


def open_chats(fake, *people):
    """Write to *people* from the second line, behind the library's back."""
    from linq import LinqAPIV3

    with LinqAPIV3(api_key=TOKEN, base_url=fake.base_url) as client:
        for person in people:
            client.chats.create(
                from_=TWO, to=[person], message={"parts": [{"type": "text", "value": "Hi"}]}
            )


def test_import_takes_over_the_chats_of_the_account(command, fake):
    """Everybody who has a chat belongs to its line afterwards; doing it again changes nothing."""
    open_chats(fake, PERSON, FRIEND)
    ran = command("import")
    assert ran.out == "2 recipients with a chat: each keeps the line it is on.\n"
    assert (ran.status, ran.err) == (0, "")
    assert command("import", "--json").json == {"imported": 2}
    assert command("pick", PERSON, "--json").json["number"] == TWO


def test_assignments_are_masked_unless_told_otherwise(command, fake, router):
    """Recipients are shown by their masks, in full only with --full-handles; the provider is not asked for anything."""
    router.assign(PERSON, ONE, since=1_700_000_000.0)
    router.assign([PERSON, FRIEND], TWO, since=1_600_000_000.0)
    asked = len(fake.requests)
    ran = command("assignments", LINQ_API_V3_API_KEY=None)
    assert ran.status == 0
    assert ran.out.splitlines() == [
        f"+1•••••••123 -> {ONE} since 2023-11-14 22:13:20 UTC",
        f"+1•••••••123, a•••@•••.com -> {TWO} since 2020-09-13 12:26:40 UTC",
    ]
    assert command("assignments", "--json").json == {
        "total": 2,
        "assignments": [
            {"to": "+1•••••••123", "number": ONE, "since": 1_700_000_000.0, "history": []},
            {
                "to": ["+1•••••••123", "a•••@•••.com"],
                "number": TWO,
                "since": 1_600_000_000.0,
                "history": [],
            },
        ],
    }
    full = command("assignments", "--full-handles", "--json").json["assignments"]
    assert [each["to"] for each in full] == [PERSON, [PERSON, FRIEND]]
    assert f"{PERSON}, {FRIEND} -> {TWO}" in command("assignments", "--full-handles").out
    assert len(fake.requests) == asked


def test_assignments_lists_the_latest_up_to_a_limit(command, router):
    """--limit cuts the list, and the text says how many there are."""
    router.assign_many([(f"+1303555{n:04d}", ONE, 1000.0 + n) for n in range(100, 170)])
    ran = command("assignments", "--limit", "2")
    assert ran.out.splitlines() == [
        f"+1•••••••169 -> {ONE} since 1970-01-01 00:19:29 UTC",
        f"+1•••••••168 -> {ONE} since 1970-01-01 00:19:28 UTC",
        "These are 2 of 70: --limit shows more.",
    ]
    assert len(command("assignments", "--json").json["assignments"]) == 50


# What every command takes


def test_shared_options_stand_before_or_after_the_command(command, tmp_path):
    """--store, --pool and --config are the same on both sides of the name, and after it they win."""
    (tmp_path / "policy.toml").write_text("[limits]\nnew_per_day = 7\n")
    (tmp_path / "other.toml").write_text("[limits]\nnew_per_day = 9\n")
    shared = ["--config", "policy.toml", "--store", "sqlite:///mine.db", "--json"]

    def budgets(ran):
        return {each["budget"] for each in ran.json["lines"]}

    assert budgets(command(*shared, "lines")) == {7}
    assert budgets(command("lines", *shared)) == {7}
    assert budgets(command(*shared, "lines", "--config", "other.toml")) == {9}
    assert sorted(path.name for path in tmp_path.glob("*.db")) == ["mine.db"]


def test_config_and_store_come_from_the_environment_too(command, tmp_path):
    """LINEPICKER_CONFIG and LINEPICKER_STORE stand in for options left out."""
    (tmp_path / "policy.toml").write_text("[limits]\nnew_per_day = 7\n")
    env = {"LINEPICKER_CONFIG": "policy.toml", "LINEPICKER_STORE": "sqlite:///elsewhere.db"}
    ran = command("lines", "--json", **env)
    assert ran.json["lines"][0]["budget"] == 7
    assert (tmp_path / "elsewhere.db").exists()
    ran = command("lines", "--store", "memory://", **env | {"LINEPICKER_CONFIG": None})
    assert "0/50" in ran.out


def test_pools_have_assignments_of_their_own(command):
    """An assignment of one pool is none of another."""
    command.env["LINEPICKER_STORE"] = f"sqlite:///{command.folder}/shared.db"
    source = [Line(ONE)]
    with Router(source, store=command.env["LINEPICKER_STORE"], pool="sales") as sales:
        sales.assign(PERSON, ONE)
    assert command("assignments", "--pool", "sales", "--json").json["total"] == 1
    assert command("--pool", "support", "assignments", "--json").json["total"] == 0
    assert "Nobody belongs to a line in pool 'default'" in command("assignments").out


def test_the_version_is_told_by_both_doors(command):
    """`linepicker` and `python -m linepicker` are the same command."""
    door = command.from_scratch(str(Path(sys.executable).with_name("linepicker")), "--version")
    assert re.fullmatch(r"linepicker \d+\.\d+\.\d+\S*\n", door.out)
    assert command.from_scratch("-m", "linepicker", "--version") == door == command("--version")
    assert list(command("--version", "--json").json) == ["version"]


# What goes wrong


def test_a_missing_token_is_one_sentence(command):
    """Without a token the error says which variable to set."""
    assert "LINQ_API_V3_API_KEY" in command.fails("lines", LINQ_API_V3_API_KEY=None)


@pytest.mark.parametrize(
    "arguments", [["lines"], ["pick", PERSON], ["why", PERSON], ["pause", ONE]]
)
def test_a_wrong_token_is_one_sentence(command, arguments):
    """A token that the provider refuses is an error, never a refusal of the message."""
    assert "401" in command.fails(*arguments, LINQ_API_V3_API_KEY="another")


@pytest.mark.parametrize("arguments", [["lines"], ["pick", PERSON], ["import"]])
def test_a_provider_that_is_down_is_one_sentence(command, fake, arguments):
    """No answer is an error that says so."""
    fake.close()
    assert "could not be read" in command.fails(*arguments)


def test_import_that_breaks_off_is_one_sentence(command, fake):
    """Where the list of chats is refused, the error names the status."""
    fake.fail_next(9, status=403, code=2005, path="/chats")
    assert "Linq answered 403 when asked for the account's chats" in command.fails("import")


def test_a_mistake_in_the_policy_is_named_with_its_nearest(command, tmp_path):
    """A misspelt tunable is told with the file and the nearest name there is."""
    (tmp_path / "linepicker.toml").write_text("[limits]\nnew_per_dya = 7\n")
    for arguments in (["lines"], ["assignments"], ["demo"]):
        error = command.fails(*arguments, "--config", "linepicker.toml")
        assert "linepicker.toml: limits.new_per_dya" in error
        assert "the nearest is limits.new_per_day" in error
    assert "nowhere.toml can't be read" in command.fails("lines", "--config", "nowhere.toml")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["pick", "5551234567"], "is neither E.164"),
        (["pick", PERSON, "--line", "x"], "must be E.164"),
        (["pick", PERSON, "--inbound"], "needs line="),
        (["pick", PERSON, "--max-delay", "-1"], "max_delay must be 0 or more"),
        (["pause", "+12025550177"], "+12025550177 is not a line of this account"),
        (["lines", "--pool", "a/b"], "pool must be"),
        (["lines", "--store", "mysql://x"], "unknown store 'mysql'"),
        (["lines", "--store", "sqlite:////no/such/folder/x.db"], "/no/such/folder"),
    ],
)
def test_a_wrong_argument_is_one_sentence(command, arguments, says):
    """What can't be meant is an error that says why."""
    assert says in command.fails(*arguments)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["picks"], "picks"),
        (["pick"], "TO"),
        (["lines", "--colour"], "--colour"),
        (["lines", PERSON], "+1•••••••123"),
        (["lines", FRIEND], "a•••@•••.com"),
        (["assignments", "--limit", "0"], "--limit"),
        (["demo", "--lines", "1"], "--lines"),
    ],
)
def test_wrong_usage_is_status_2(command, arguments, says):
    """A command line that can't be understood is told in one sentence, with handles masked."""
    assert says in command.fails(*arguments, status=2)


def test_no_command_is_answered_by_the_help(command):
    """Without a command, the help is printed and the status is that of wrong usage; asked for, it is 0."""
    ran = command()
    assert (ran.status, ran.err) == (2, "")
    assert all(name in ran.out for name in ("lines", "pick", "why", "import", "demo", "fake"))
    assert command("--help").status == 0
    assert "--max-delay" in command("pick", "--help").out


@pytest.mark.parametrize(
    ("arguments", "status", "kind"),
    [
        (["lines", "--store", "mysql://x"], 1, "StoreError"),
        (["pick", "5551234567"], 1, "InvalidRecipient"),
        (["lines", "--colour"], 2, "NoSuchOption"),
    ],
)
def test_errors_are_json_where_answers_are(command, arguments, status, kind):
    """With --json an error is a document on stdout too, of its type and its sentence, and the status is the same."""
    ran = command("--json", *arguments)
    assert (ran.status, ran.err) == (status, "")
    assert ran.json["error"]["type"] == kind
    assert ran.json["error"]["message"]


def test_a_mistake_of_our_own_is_one_sentence_too(command):
    """What nobody foresaw is told by its type and place, without what it may know of a recipient."""
    code = """
import sys, linepicker.router, linepicker.cli
def lines(self): raise KeyError("+13035550123")
linepicker.router.Router.lines = lines
sys.exit(linepicker.cli.main(["lines"]))
"""
    ran = command.from_scratch("-c", code)
    assert (ran.status, ran.out) == (1, "")
    assert re.fullmatch(r"linepicker: a mistake of linepicker's own: KeyError in .*\n", ran.err)
    assert "+1303" not in ran.err


@pytest.mark.parametrize(
    ("missing", "arguments", "extra"),
    [
        ("typer", ["lines"], "'linepicker[cli]'"),
        ("rich", ["lines"], "'linepicker[cli]'"),
        ("linq", ["import"], "'linepicker[linq]'"),
        ("linq", ["demo"], "'linepicker[cli,linq]'"),
    ],
)
def test_a_missing_extra_is_told_with_its_remedy(command, missing, arguments, extra):
    """Without its packages a command says what to install, in one sentence."""
    code = f"""
import sys
sys.modules[{missing!r}] = None
from linepicker.cli import main
sys.exit(main({arguments!r}))
"""
    ran = command.from_scratch("-c", code)
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.endswith(f"pip install {extra}\n")
    assert ran.err.count("\n") == 1


def test_a_reader_that_goes_away_is_no_mistake(command):
    """Output into a pipe that nobody reads ends the command, quietly."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        ran = subprocess.run(
            [sys.executable, "-m", "linepicker", "lines"],
            env=command.env,
            cwd=command.folder,
            stdout=pipe,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (ran.returncode, ran.stderr) == (1, b"")


# Any terminal


@pytest.mark.parametrize(
    "arguments",
    [["lines"], ["pick", PERSON], ["why", PERSON], ["why", ONE], ["assignments"], ["pause", TWO]],
)
def test_everything_can_be_read_on_the_plainest_terminal(command, fake, router, arguments):
    """40 columns of ASCII without colours: no row is longer, nothing is lost, and nothing breaks."""
    fake.set_reputation(ONE, "AT_RISK")
    router.assign(PERSON, THREE)
    plain = {"NO_COLOR": "1", "TERM": "dumb", "PYTHONIOENCODING": "ascii", "COLUMNS": "40"}
    ran = command(*arguments, **plain)
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.isascii()
    assert "\x1b" not in ran.out
    unbroken = [row for row in ran.out.splitlines() if "https://" not in row]
    assert max(map(len, unbroken)) <= 40
    if PERSON in arguments:
        assert "+1*******123" in ran.out


def test_json_keeps_its_masks_on_the_plainest_terminal(command):
    """What ASCII has no character for is escaped in JSON, not replaced."""
    arguments = ("-m", "linepicker", "pick", PERSON, "--json")
    ran = command.from_scratch(*arguments, PYTHONIOENCODING="ascii")
    assert ran.out.isascii()
    assert ran.json["to"] == "+1•••••••123"


# The fake


def test_fake_serves_an_account_until_interrupted(command):
    """`linepicker fake` tells its address and token in one line of JSON; the other commands work on it."""
    serving = subprocess.Popen(
        [sys.executable, "-m", "linepicker", "fake", "--lines", "2"],
        env=command.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        hello = json.loads(serving.stdout.readline())
        ran = command(
            "lines",
            "--json",
            LINQ_API_V3_BASE_URL=hello["base_url"],
            LINQ_API_V3_API_KEY=hello["token"],
        )
        assert len(ran.json["lines"]) == 2
    finally:
        serving.send_signal(signal.SIGINT)
        _, err = serving.communicate(timeout=20)
    assert (serving.returncode, err) == (0, "")


# Words


def test_every_code_of_the_contract_has_words():
    """No code reaches a reader as it is."""
    codes = (
        "not_in_fleet paused draining flagged ineligible failing critical recovering line_type tag excluded day_budget "
        "hour_budget spread messages moves pair pace stale quiet opted_out blocked deadline"
    )
    assert set(words.CODES) == set(codes.split())
    assert words.because("of_tomorrow") == "of_tomorrow"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "now"),
        (0.9, "in 1 s"),
        (59.4, "in 59 s"),
        (59.5, "in 1 min"),
        (3569, "in 59 min"),
        (3571, "in 1 h"),
        (7500, "in 2 h 5 min"),
        (86400, "in 24 h"),
        (172800, "in 2 d"),
        (180000, "in 2 d 2 h"),
    ],
)
def test_a_wait_is_told_in_the_units_that_matter(seconds, text):
    """Seconds below a minute, minutes below an hour, then hours, then days."""
    assert words.until(seconds) == text


@pytest.mark.parametrize(
    ("used", "budget", "text"),
    [
        (0, 50, "░░░░"),
        (1, 50, "█░░░"),
        (25, 50, "██░░"),
        (50, 50, "████"),
        (60, 50, "████"),
        (5, None, "░░░░"),
    ],
)
def test_a_bar_shows_what_is_used(used, budget, text):
    """A bar is full at the budget and no fuller; the first unit shows; without a limit it is empty."""
    assert words.bar(used, budget, 4) == text


def test_a_line_with_room_later_is_full_for_now():
    """A line that is in order but whose next slot is far off is not called open; one without a known slot neither."""
    view = LineView(Line(ONE), "ok", 50, 50, 0, 4000.0)
    assert (words.standing(view, 0.0), words.slot(view, 0.0)) == ("full for now", "in 1 h 7 min")
    assert words.standing(view, 3900.0) == "open"
    unknown = attrs.evolve(view, next_slot_at=None)
    assert (words.standing(unknown, 0.0), words.slot(unknown, 0.0)) == ("full for now", "-")


# Audits


def test_why_shows_the_providers_audit_beside_our_counts(command, fake):
    """With --audit what drives the line in Linq's eyes stands over what is counted here; the next one takes a while."""
    fake.set_reputation(ONE, "AT_RISK")
    ran = command("why", ONE, "--audit")
    assert ran.status == 0
    assert "AT_RISK, first of all overall_conversation_health" in ran.out
    assert "here: 0 of 0 conversations that were opened in 7 days were answered" in ran.out
    assert "1. Slow down: " in ran.out
    again = command("why", ONE, "--audit", "--json")
    assert again.json["line"]["number"] == ONE
    assert again.json["audit"]["cooling_down"] is True
    assert 3500 < again.json["audit"]["retry_after"] <= 3600
    assert (
        "takes no other audit of this line yet: ask again in" in command("why", ONE, "--audit").out
    )


def test_an_audit_is_of_a_line(command):
    """For a recipient --audit is an error in one sentence."""
    assert "--audit is for one of our own lines" in command.fails("why", PERSON, "--audit")


def test_an_audit_that_linq_refuses_is_an_error(command, fake):
    """What Linq answered is said."""
    fake.fail_next(status=500, code=3001, path="/reputation_audit")
    assert "Linq answered 500 when asked for an audit" in command.fails("why", ONE, "--audit")


# Replay


@pytest.fixture
def log(command):
    """What a router recorded of twelve decisions."""
    path = command.folder / "decisions.jsonl"
    with Router([Line(ONE), Line(TWO)], record=path, clock=ManualClock(1.7e9)) as mine:
        for i in range(12):
            mine.reserve(f"+1415555{i:04d}", max_delay=900.0)
    return path


def test_replay_makes_recorded_decisions_again(command, log):
    """All as recorded: a sentence, or one document; no account and no store is needed."""
    ran = command("replay", str(log), LINQ_API_V3_API_KEY=None)
    assert (ran.status, ran.err) == (0, "")
    assert ran.out == "12 decisions made again, each exactly as it was recorded.\n"
    assert command("replay", str(log), "--json").json == {
        "decisions": 12,
        "different": 0,
        "differences": [],
    }
    assert not (command.folder / "linepicker.db").exists()


def test_replay_shows_what_came_out_otherwise(command, log):
    """Line and fields are named, and the exit status is 4."""
    log.write_text(log.read_text("utf-8").replace('"delay": 0.0', '"delay": 1.5', 1), "utf-8")
    ran = command("replay", str(log))
    assert ran.status == 4
    assert "1 of 12 decisions came out otherwise" in ran.out
    assert "line 4: delay 1.5 -> 0.0" in " ".join(ran.out.split())
    told = command("replay", str(log), "--json")
    assert (told.status, told.json["different"]) == (4, 1)
    assert told.json["differences"][0]["fields"] == ["delay"]


def test_replay_says_what_another_policy_would_have_done(command, log):
    """Line by line, refusals by reason, and the differences one by one, as many as asked for."""
    policy = command.folder / "new.toml"
    policy.write_text("[limits]\nnew_per_hour = 2\n", "utf-8")
    ran = command("replay", str(log), "--policy", str(policy), "--differences", "3")
    assert (ran.status, ran.err) == (0, "")
    assert "12 requests: 8 would have ended otherwise." in ran.out
    assert "New conversations 12 -> 4" in ran.out
    assert re.search(rf"\{ONE} +6 -> 2 +6 -> 2", ran.out)
    assert re.search(r"no_line \(hour_budget\) +0 -> 8", ran.out)
    assert ran.out.count("(new) -> no_line") + ran.out.count("later) -> no_line") == 3
    assert "And 5 more" in ran.out
    told = command("replay", str(log), "--policy", str(policy), "--json").json
    assert (told["requests"], told["different"], len(told["differences"])) == (12, 8, 8)
    assert told["would"]["refusals"] == {"no_line (hour_budget)": 8}


def test_replay_of_what_is_no_log_is_an_error(command, log):
    """A damaged line is named; a file that isn't there, a key that can't be one and a wrong policy are told in a sentence."""
    log.write_bytes(log.read_bytes()[:-3])
    assert "line 15: it is cut short" in command.fails("replay", str(log))
    assert "No such file" in command.fails("replay", "nothing.jsonl")
    key = command.folder / "key"
    key.write_bytes(b"short")
    assert "holds 5 bytes" in command.fails("replay", str(log), "--key-file", str(key))


def test_replay_takes_the_key_of_a_log(command):
    """--key-file opens what DecisionLog(key=...) sealed."""
    path, key = command.folder / "decisions.jsonl", command.folder / "key"
    key.write_bytes(b"0123456789abcdef")
    recording = DecisionLog(path, key=key.read_bytes())
    with Router([Line(ONE)], record=recording, clock=ManualClock(1.7e9)) as mine:
        mine.reserve(PERSON)
    assert "sealed with a key that is not in the file" in command.fails("replay", str(path))
    assert "1 decision made again" in command("replay", str(path), "--key-file", str(key)).out
