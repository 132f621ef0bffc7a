"""`linepicker doctor` and its companions: each fault is named with the command that mends it; lines are told in sentences."""

import json
import os
import pty
import re
import select
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import tomllib

import pytest

from linepicker import Line, Policy, Router
from linepicker.cli import main, summary
from linepicker.cli.watch import changed
from linepicker.model import LineView
from linepicker.providers.linq import LinqSource
from linepicker.providers.linq.account import EVENTS, Account
from linepicker.testing import FakeLinq, ManualClock

TOKEN = "tok-3c1f77e0a9"
HOOK = "https://example.com/linq"
ONE, TWO, THREE = "+12025550100", "+12025550101", "+12025550102"
PERSON = "+13035550123"


@pytest.fixture
def fake():
    """An account in order: three lines, and a webhook."""
    with FakeLinq([ONE, TWO, THREE], token=TOKEN) as provider:
        provider.subscribe(HOOK)
        yield provider


@pytest.fixture
def home(fake, tmp_path, monkeypatch):
    """A folder with a store in use, and an environment that names the account. Everything is well."""
    monkeypatch.chdir(tmp_path)
    for name in [each for each in os.environ if each.startswith(("LINQ_", "LINEPICKER_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LINQ_API_V3_API_KEY", TOKEN)
    monkeypatch.setenv("LINQ_API_V3_BASE_URL", fake.base_url)
    monkeypatch.setenv("LINEPICKER_STORE", "sqlite:///lines.db")
    monkeypatch.setenv("LINEPICKER_WEBHOOK_URL", HOOK)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("COLUMNS", "400")
    with (
        LinqSource(TOKEN, base_url=fake.base_url) as source,
        Router(source, store="sqlite:///lines.db") as router,
    ):
        router.refresh()
        router.reserve(PERSON).settle("SENT")
    return tmp_path


@pytest.fixture
def doctor(home, capsys):
    """Runs `doctor`, and gives what it found."""

    def run(*arguments):
        capsys.readouterr()
        status = main(["doctor", "--json", *arguments])
        out, err = capsys.readouterr()
        assert TOKEN not in out + err
        assert PERSON not in out + err
        found = json.loads(out)
        assert status == (0 if found["ok"] else 1)
        assert found["ok"] == all(each["ok"] for each in found["findings"])
        return found["findings"]

    return run


def wrong(findings):
    """What is wrong: about what, the text, and the command; each fault has one."""
    faults = [(each["about"], each["text"], each["mend"]) for each in findings if not each["ok"]]
    assert all(mend for _, _, mend in faults)
    return faults


def only(findings):
    """The one fault."""
    (fault,) = wrong(findings)
    return fault


def test_an_account_in_order_is_well(doctor):
    """Every look finds what works, and the exit status is 0."""
    findings = doctor()
    assert wrong(findings) == []
    assert [each["about"] for each in findings] == [
        "config",
        "store",
        "provider",
        "lines",
        "webhooks",
        "clock",
    ]
    assert "knows 1 recipient of pool" in findings[1]["text"]
    assert findings[3]["text"].startswith("3 of 3 lines can take a new conversation; 1 known")


# The prepared faults


def test_a_policy_that_is_not_there(doctor, monkeypatch):
    """The file is named, and how to write one."""
    monkeypatch.setenv("LINEPICKER_CONFIG", "policy.toml")
    about, text, mend = only(doctor())
    assert about == "config"
    assert "policy.toml can't be read: No such file" in text
    assert mend.startswith("env -u LINEPICKER_CONFIG linepicker config show > policy.toml")


def test_a_policy_that_is_no_toml(doctor, home, monkeypatch):
    """The place in the file is named, and how to look again."""
    (home / "policy.toml").write_text("[limits\nnew_per_day = 50\n")
    monkeypatch.setenv("LINEPICKER_CONFIG", "policy.toml")
    about, text, mend = only(doctor())
    assert (about, "policy.toml is not TOML" in text) == ("config", True)
    assert mend.startswith("linepicker config check --config policy.toml")


def test_a_policy_with_an_unknown_name(doctor, home, monkeypatch):
    """The name and the nearest one there is."""
    (home / "policy.toml").write_text("[limits]\nnew_per_dya = 50\n")
    monkeypatch.setenv("LINEPICKER_CONFIG", "policy.toml")
    about, text, mend = only(doctor())
    assert about == "config"
    assert (
        "limits.new_per_dya is not a name of the policy; the nearest is limits.new_per_day" in text
    )
    assert "config check" in mend


def test_a_store_that_does_not_exist(doctor):
    """Everyone would be new; it is not made by looking."""
    about, text, mend = only(doctor("--store", "sqlite:///other.db"))
    assert (about, "everyone is new" in text) == ("store", True)
    assert "linepicker doctor --store" in mend
    assert "linepicker import" in mend
    assert not os.path.exists("other.db")  # noqa: PTH110


def test_a_store_that_is_locked(doctor, home):
    """By another process, and how to see which."""
    with sqlite3.connect(home / "lines.db", isolation_level=None) as db:
        db.execute("BEGIN EXCLUSIVE")
        faults = wrong(doctor("--store", "sqlite:///lines.db?timeout=0.05"))
    about, text, mend = faults[0]
    assert (about, "locked" in text) == ("store", True)
    assert mend.startswith("fuser -v lines.db")
    db.close()


def test_a_store_that_is_damaged(doctor, home):
    """What is left is copied before anything is tried."""
    (home / "lines.db").write_bytes(b"SQLite format 3\x00" + b"\xff" * 5000)
    for name in ("lines.db-wal", "lines.db-shm"):
        (home / name).unlink(missing_ok=True)
    about, text, mend = wrong(doctor())[0]
    assert (about, "damaged" in text) == ("store", True)
    assert mend.startswith("cp lines.db lines.db.damaged && sqlite3")


def test_a_store_of_a_newer_version(doctor, home):
    """This linepicker is to be upgraded."""
    with sqlite3.connect(home / "lines.db") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    about, text, mend = wrong(doctor())[0]
    assert (about, "newer linepicker" in text) == ("store", True)
    assert mend == "pip install --upgrade linepicker"


def test_a_store_that_is_out_of_reach(doctor):
    """A server that is not there, for Redis and for PostgreSQL; passwords are not shown."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        about, _, mend = wrong(doctor("--store", f"redis://:secret@127.0.0.1:{port}/0"))[0]
        assert about == "store"
        assert mend.startswith(f"redis-cli -u redis://:PASSWORD@127.0.0.1:{port}/0 ping")
        about, _, mend = wrong(
            doctor("--store", f"postgresql://ann:secret@127.0.0.1:{port}/db?timeout=1")
        )[0]
        assert about == "store"
        assert mend.startswith(f"pg_isready -d postgresql://ann:PASSWORD@127.0.0.1:{port}/db")


def test_a_store_that_is_not_the_one_asked_for(doctor):
    """The epoch it has is named."""
    about, text, mend = wrong(doctor("--store", "sqlite:///lines.db?epoch=other"))[0]
    assert (about, "its epoch is " in text) == ("store", True)
    assert re.search(r"linepicker doctor --store .*epoch=\w+", mend)


def test_a_store_that_may_evict(doctor, valkey):
    """The setting, and the command that changes it."""
    url = valkey.url(namespace="doctor")
    valkey.call("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        about, text, mend = wrong(doctor("--store", url))[0]
    finally:
        valkey.call("CONFIG", "SET", "maxmemory-policy", "noeviction")
    assert (about, "allkeys-lru" in text) == ("store", True)
    assert mend == f"redis-cli -s {valkey.socket} config set maxmemory-policy noeviction"


def test_no_token(doctor, monkeypatch):
    """Which variable it is read from."""
    monkeypatch.delenv("LINQ_API_V3_API_KEY")
    about, text, mend = only(doctor())
    assert (about, "no Linq API token" in text.replace("No", "no")) == ("provider", True)
    assert mend.startswith("export LINQ_API_V3_API_KEY=")


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_that_is_refused(doctor, fake, status):
    """Wrong, or without the permission."""
    fake.fail_next(9, status=status)
    about, text, mend = only(doctor())
    assert (about, f"Linq answered {status}" in text) == ("provider", True)
    assert mend.startswith("export LINQ_API_V3_API_KEY=")


def test_a_provider_that_is_out_of_reach(doctor, monkeypatch):
    """How to see whether it can be reached at all."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("LINQ_API_V3_BASE_URL", url)
        about, text, mend = only(doctor())
    assert (about, "could not be read" in text) == ("provider", True)
    assert mend.startswith("curl ")
    assert url in mend


def test_a_wrong_address(doctor, fake, monkeypatch):
    """Nothing is there: the variable is to go."""
    monkeypatch.setenv("LINQ_API_V3_BASE_URL", f"{fake.base_url}/v2")
    about, _, mend = only(doctor())
    assert (about, mend) == ("provider", "unset LINQ_API_V3_BASE_URL")


def test_an_empty_list(doctor, fake):
    """It counts when it comes twice; until then that is said."""
    fake.raw_lines([])
    about, text, mend = only(doctor())
    assert about in {"provider", "lines"}
    assert "empty" in text or "no lines" in text
    assert mend.startswith("linepicker lines")


def test_all_lines_critical(doctor, fake):
    """Nobody can take a conversation, and who is known is held."""
    for number in fake.numbers:
        fake.set_reputation(number, "CRITICAL")
    about, text, mend = only(doctor("--store", "memory://"))
    assert about == "lines"
    assert text.startswith("0 of 3 lines can take a new conversation: 3 CRITICAL")
    assert mend.startswith("linepicker why +1202555")


def test_all_lines_paused(doctor, fake):
    """By whom and why, and how to end it."""
    for number in fake.numbers:
        assert main(["pause", number, "--reason", "carrier test", "--json"]) == 0
    about, text, mend = only(doctor())
    assert about == "lines"
    assert '3 paused by the operator ("carrier test")' in text
    assert text.endswith("0 known recipients are still served, 1 held.")
    assert mend == f"linepicker resume {ONE}"


def test_all_lines_full(doctor, home, fake, monkeypatch):
    """What they spent, and when the first has room."""
    (home / "policy.toml").write_text("[limits]\nnew_per_day = 1\n")
    monkeypatch.setenv("LINEPICKER_CONFIG", "policy.toml")
    policy = Policy.from_toml("policy.toml")
    with (
        LinqSource() as source,
        Router(source, store="sqlite:///lines.db", policy=policy) as router,
    ):
        router.refresh()
        for n in range(2):
            router.reserve(f"{n}@example.com")
    about, text, mend = only(doctor())
    assert about == "lines"
    assert re.search(r"^0 of 3 lines can .*: 3 at 1/1 today \(first slot .*UTC\); 3 known", text)
    assert mend.startswith("linepicker lines")


def test_no_webhook(doctor, fake):
    """What is not heard of, and how to subscribe."""
    fake.webhooks.subscriptions.clear()
    about, text, mend = only(doctor())
    assert (about, "opt-outs are not heard of" in text) == ("webhooks", True)
    assert mend == f"linepicker subscribe {HOOK}"


def test_a_webhook_elsewhere(doctor, monkeypatch):
    """Where they go, and where they should."""
    monkeypatch.setenv("LINEPICKER_WEBHOOK_URL", "https://example.com/new")
    about, text, mend = only(doctor())
    assert (about, text) == ("webhooks", f"Webhooks go to {HOOK}, not to https://example.com/new.")
    assert mend == "linepicker subscribe https://example.com/new"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"is_active": False}, "is not active"),
        ({"subscribed_events": ("message.sent",)}, "leaves out"),
        ({"phone_numbers": (ONE,)}, "only for some lines"),
    ],
)
def test_a_webhook_that_is_not_right_and_is_put_right(doctor, fake, change, said, capsys):
    """Inactive, without some events, or of some lines: the command it names mends it."""
    (mine,) = fake.webhooks.subscriptions
    fake.webhooks.update(mine, change)
    about, text, mend = only(doctor())
    assert (about, said in text) == ("webhooks", True)
    assert main(mend.split()[1:]) == 0
    assert wrong(doctor()) == []


@pytest.mark.parametrize(("ahead", "said"), [(400.0, "behind"), (-400.0, "ahead of")])
def test_a_clock_that_is_off(doctor, monkeypatch, ahead, said):
    """By minutes, by the provider's word; webhooks would be refused."""
    with FakeLinq([ONE], token=TOKEN, clock=ManualClock(time.time() + ahead)) as other:
        other.subscribe(HOOK)
        monkeypatch.setenv("LINQ_API_V3_BASE_URL", other.base_url)
        about, text, mend = only(doctor("--store", "memory://"))
    assert about == "clock"
    assert re.search(rf"clock is [67] min .*{said} Linq's.*webhooks are refused", text)
    assert mend.startswith("timedatectl set-ntp true")


def test_a_list_that_nobody_reads(doctor, fake, home):
    """The application's processes have not read it for hours: they are not running."""
    clock = ManualClock(time.time() - 7200.0)
    (home / "lines.db").unlink()
    with LinqSource() as source, Router(source, store="sqlite:///lines.db", clock=clock) as router:
        router.refresh()
    about, text, mend = only(doctor())
    assert (about, "last read 2 h" in text) == ("snapshot", True)
    assert mend.startswith("systemctl status")


def test_several_faults_are_all_told(doctor, fake, monkeypatch, home):
    """A broken policy hides neither the lines nor the webhooks."""
    (home / "policy.toml").write_text("nonsense")
    monkeypatch.setenv("LINEPICKER_CONFIG", "policy.toml")
    fake.webhooks.subscriptions.clear()
    findings = doctor()
    assert [about for about, _, _ in wrong(findings)] == ["config", "webhooks"]
    assert "lines" in [each["about"] for each in findings]


def test_as_text_a_fault_has_its_command_below_it(home, fake, capsys):
    """A mark, what it is about, a sentence; and the command behind an arrow."""
    fake.webhooks.subscriptions.clear()
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "ok    config    The policy is the default: no file is named.\n" in out
    assert "WRONG webhooks  No webhook is subscribed" in out
    assert f"                -> linepicker subscribe {HOOK}\n" in out


# The sentence


def view(number, standing="ok", *, budget=50, used=0, slot=None, reasons=(), reputation="HEALTHY"):
    """A line as it stands."""
    left = None if budget is None else budget - used
    line = Line(number, reputation=reputation)
    return LineView(line, standing, budget, used, left, slot, tuple(reasons))


def test_the_fleet_is_told_in_one_sentence():
    """How many can, what keeps each of the others and until when, and who is served all the same."""
    now = 1_800_000_000.0  # 08:00 UTC
    views = [
        *(view(f"+1202555010{n}", used=50, slot=now + 3600.0 + n) for n in range(3)),
        view("+12025550103", "critical", reputation="CRITICAL"),
        view("+12025550104", "paused", reasons=['Paused by the operator ("carrier test").']),
        view("+12025550105", budget=10, used=10, reasons=["Warming up: sending day 1."]),
    ]
    known = {"+12025550100": 12_000, "+12025550103": 7, "+12025550105": 403}
    assert summary.fleet(views, known, now) == (
        "0 of 6 lines can take a new conversation: 3 at 50/50 today (first slot 09:00 UTC), 1 CRITICAL, "
        '1 paused by the operator ("carrier test"), 1 warming 10/10; 12,403 known recipients are still served, 7 held.'
    )
    assert (
        summary.fleet([view(ONE, slot=now)], {}, now) == "1 of 1 line can take a new conversation."
    )


# subscribe


def test_subscribing_prints_the_secret_once(home, fake, capsys):
    """A new subscription has a secret, which is that of the provider; a second call mends, and shows none."""
    url = "https://example.com/other"
    assert main(["subscribe", url]) == 0
    (made,) = (each for each in fake.webhooks.subscriptions.values() if url in each.target_url)
    assert f"LINQ_WEBHOOK_SECRET={made.secret}" in capsys.readouterr().out
    assert made.version == "2026-02-03"
    assert set(made.subscribed_events) >= EVENTS
    assert main(["subscribe", url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"url": url, "secret": None}


def test_an_address_that_the_provider_refuses_is_said(home, capsys):
    """Its words, as one sentence."""
    assert main(["subscribe", "http://example.com/linq"]) == 1
    assert "HTTPS" in capsys.readouterr().err


def test_the_account_knows_how_far_its_clock_is_from_ours(home):
    """From the answer's Date; nothing before the first answer."""
    with Account() as account:
        assert account.skew is None
        account.subscriptions()
        assert abs(account.skew) < 30.0


# config


def test_the_policy_in_force_can_be_read_back_and_says_where_it_is_from(home, capsys, monkeypatch):
    """TOML, each value with the file's name or the default's source behind it."""
    (home / "policy.toml").write_text(
        '[limits]\nnew_per_day = 40\n[line."+12025550100".limits]\nnew_per_day = 5\n'
    )
    monkeypatch.setenv("LINEPICKER_CONFIG", "policy.toml")
    assert main(["config", "show"]) == 0
    out = capsys.readouterr().out
    assert Policy.from_dict(tomllib.loads(out)) == Policy.from_toml("policy.toml")
    assert "new_per_day = 40  # policy.toml\n" in out
    assert "new_per_day = 5  # policy.toml\n" in out
    assert (
        "new_per_hour = 15  # default; Sendblue's published cap; Linq: spread activity out.\n"
        in out
    )


def test_what_a_policy_changes_is_told(home, capsys, monkeypatch):
    """Only what differs, with the default; of a single line, with what holds for the others."""
    (home / "policy.toml").write_text(
        'default_region = "US"\n[limits]\nnew_per_day = 40\nmessages_per_day = "off"\n[pace]\nnew_gap = 20.0\n'
        '[line."+12025550100".limits]\nnew_per_day = 5\n'
    )
    monkeypatch.setenv("LINEPICKER_CONFIG", "policy.toml")
    assert main(["config", "diff"]) == 0
    assert capsys.readouterr().out == (
        'default_region = "US"   (default left out)\n'
        "limits.new_per_day = 40   (default 50)\n"
        'limits.messages_per_day = "off"   (default 7000)\n'
        'line."+12025550100".limits.new_per_day = 5   (instead of limits.new_per_day, 40)\n'
    )
    assert main(["config", "check"]) == 0
    out = capsys.readouterr().out
    assert "policy.toml is a policy: it changes 4 of " in out
    assert "Named, and the same as the default: pace.new_gap." in out
    assert main(["config", "diff", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["changes"]["limits.new_per_day"]
    assert (told["value"], told["default"], told["from"]) == (40, 50, "policy.toml")


def test_a_policy_that_is_wrong_is_named_by_check(home, capsys):
    """One sentence with the place, and the exit status 1."""
    (home / "bad.toml").write_text("[pace]\nspread = 7\n")
    assert main(["config", "check", "--config", "bad.toml"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("linepicker: bad.toml: pace.spread must be")
    assert err.count("\n") == 1


def test_without_a_file_all_is_default(home, capsys):
    """Which is said."""
    assert main(["config", "diff"]) == 0
    assert main(["config", "check"]) == 0
    assert capsys.readouterr().out == (
        "Nothing: every value is the default.\nNo file is named: the policy is the default.\n"
    )


# why


def test_a_line_is_told_with_its_people(home, capsys, fake):
    """Whether it can take somebody new, who belongs to it, what becomes of them, and the command that changes it."""
    owner = sqlite_owner()
    assert main(["pause", owner, "--reason", "carrier test"]) == 0
    capsys.readouterr()
    assert main(["why", owner]) == 0
    out = capsys.readouterr().out
    assert f"{owner} can't take a new conversation: it is paused by the operator.\n" in out
    assert (
        "1 recipient belongs to it in pool 'default', and is held until it may be used again.\n"
        in out
    )
    assert f"-> linepicker resume {owner}\n" in out
    assert main(["why", PERSON]) == 0
    assert f"-> linepicker resume {owner}\n" in capsys.readouterr().out
    assert main(["why", owner, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["line"]["known_recipients"] == 1


def test_the_people_of_a_flagged_line_move(home, capsys, fake):
    """As the policy has it."""
    owner = sqlite_owner()
    with LinqSource() as source, Router(source, store="sqlite:///lines.db") as router:
        from linepicker import LineChanged

        router.report(LineChanged(owner, status="FLAGGED", at=time.time()))
    assert main(["why", owner]) == 0
    out = capsys.readouterr().out
    assert (
        "1 recipient belongs to it in pool 'default', and moves to another line with the next message.\n"
        in out
    )


def sqlite_owner():
    """The line that the known person belongs to."""
    with LinqSource() as source, Router(source, store="sqlite:///lines.db") as router:
        return router.assignment(PERSON).number


# watch


def test_what_changes_between_two_looks_is_told():
    """New, gone, another standing, conversations opened."""
    before = [view(ONE, slot=0.0), view(TWO, slot=0.0)]
    after = [
        view(ONE, "critical", used=1, reputation="CRITICAL"),
        view(THREE, slot=0.0),
    ]
    assert changed(before, after) == [
        f"{ONE} is CRITICAL: nothing goes out until it is HEALTHY (CRITICAL).",
        f"{ONE} opened 1 conversation, 49 left.",
        f"{THREE} is new.",
        f"{TWO} has left the account.",
    ]


def test_watching_without_a_terminal_tells_changes_line_by_line(home):
    """The lines once, and then what is new, while another process spends."""
    process = subprocess.Popen(
        [sys.executable, "-m", "linepicker", "watch", "--every", "0.1"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii", "COLUMNS": "100"},
    )
    seen = []
    for row in process.stdout:
        seen.append(row)
        if "can take a new conversation" in row:
            assert main(["pause", ONE, "--json"]) == 0
        if f"{ONE} is paused by the operator" in row:
            break
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert any(row.startswith(THREE) for row in seen)


def test_watching_as_json_is_a_document_a_look(home, capsys):
    """Lines, the moment, and what changed."""
    assert main(["watch", "--json", "--count", "2", "--every", "0.1"]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert [each["number"] for each in first["lines"]] == [ONE, TWO, THREE]
    assert (first["news"], second["news"]) == ([], [])


@pytest.mark.parametrize(("columns", "rows"), [(100, 24), (40, 12), (20, 6)])
@pytest.mark.parametrize("colour", [True, False])
def test_watching_on_a_terminal_fits_it(home, columns, rows, colour):
    """No row is wider than the terminal, and no frame higher; without colour there is none."""
    out = on_a_terminal(columns, rows, {} if colour else {"NO_COLOR": "1"})
    assert ONE[:12] in out
    assert "\x1b[?25h" in out  # the cursor is back
    assert ("\x1b[32m" in out or "\x1b[1;32m" in out) == colour
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out)
    assert max(len(row) for row in plain.replace("\r", "\n").split("\n")) <= columns
    assert out.split("\x1b[2K")[-1].count("\n") <= rows


def on_a_terminal(columns, rows, env):
    """What two looks write to a terminal of that size."""
    main_end, other = pty.openpty()
    subprocess.run(["stty", "cols", str(columns), "rows", str(rows)], stdin=other, check=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "linepicker", "watch", "--count", "2", "--every", "0.1"],
        stdin=other,
        stdout=other,
        env={k: v for k, v in os.environ.items() if k not in {"COLUMNS", "LINES"}}
        | {"TERM": "xterm"}
        | env,
    )
    os.close(other)
    found = b""
    while select.select([main_end], [], [], 60.0)[0]:
        try:
            found += os.read(main_end, 65536)
        except OSError:  # the other side is closed
            break
    assert process.wait(60) == 0
    os.close(main_end)
    return found.decode()
