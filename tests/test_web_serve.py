"""`linepicker serve`: the status page as a process of its own."""

import json
import os
import re
import signal
import subprocess
import sys

import httpx
import pytest

from linepicker.testing import FakeLinq

TOKEN = "a token that nobody guesses"


@pytest.fixture
def serve(tmp_path):
    """Starts the command against a fake provider, with these arguments and variables."""
    started = []
    with FakeLinq(lines=3) as fake:

        def start(*arguments, **variables):
            env = {name: value for name, value in os.environ.items() if "LINE" not in name}
            env |= {"LINQ_API_V3_API_KEY": fake.token, "LINQ_API_V3_BASE_URL": fake.base_url}
            env |= {"NO_PROXY": "127.0.0.1", "LINEPICKER_STORE": f"sqlite:///{tmp_path / 'l.db'}"}
            command = [sys.executable, "-m", "linepicker", "serve", "--port", "0", *arguments]
            streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
            started.append(subprocess.Popen(command, env=env | variables, text=True, **streams))
            return started[-1]

        yield start
        for each in started:
            each.kill()
            each.communicate()


def test_it_serves_and_operates_until_interrupted(serve):
    """The page is where it says; who operated what is on stderr; with a page open it ends as soon as it is told to."""
    process = serve("--json", LINEPICKER_TOKEN=TOKEN)
    url = json.loads(process.stdout.readline())["url"]
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url)
    with httpx.Client(base_url=url, timeout=30) as http:
        page = http.get("/").text
        assert "3 of 3 lines can take a new conversation now." in page
        number = re.search(r"\+1202\d+", page.split("<tbody")[1])[0]
        form = {"number": number, "verb": "pause", "reason": "carrier test"}
        bearer = {"authorization": f"Bearer {TOKEN}"}
        assert http.post("/operate", data=form, headers=bearer).status_code == 200
        with http.stream("GET", "/events") as events:
            assert "carrier test" in next(each for each in events.iter_lines() if "data" in each)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
    assert f"status page: {number} from 127.0.0.1: paused (carrier test)" in errors
    assert TOKEN not in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "token", "said"),
    [
        (["--host", "0.0.0.0"], "", "0.0.0.0 is not this machine alone: put a token"),
        (["--host", "::"], "", ":: is not this machine alone: put a token"),
        (["--host", "192.0.2.1"], "", "put a token"),
        ([], "short", "LINEPICKER_TOKEN: token must be 16 or more printable ASCII characters"),
    ],
)
def test_it_refuses_to_listen_elsewhere_without_a_token(serve, arguments, token, said):
    """And with a token that could be guessed: one sentence, and nothing listens."""
    process = serve(*arguments, LINEPICKER_TOKEN=token)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said in errors
    assert out == ""
    assert "short" not in errors


def test_elsewhere_it_asks_for_the_token(serve):
    """Listening everywhere, the page is for who gives the token; another name of this machine is elsewhere."""
    process = serve("--json", "--host", "0.0.0.0", LINEPICKER_TOKEN=TOKEN)
    port = json.loads(process.stdout.readline())["url"].rpartition(":")[2]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
        headers = {"host": "lines.example"}
        assert http.get("/", headers=headers).status_code == 401
        assert http.get("/", headers=headers, auth=("ops", TOKEN)).status_code == 200
