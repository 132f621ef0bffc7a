"""The status page in a real browser, beside a router that sends through a fake provider. `pytest -m browser` runs these; they
need the extra `browser`, and a chromium (`CHROMIUM` names another one than that on the path).

With `SCREENSHOTS=folder` the pictures are kept there, to be looked at.
"""

import os
import re
import shutil
import socket
import threading
from pathlib import Path

import attrs
import pytest
import uvicorn

from linepicker import Policy, Router
from linepicker.providers.linq import LinqMessenger, LinqSource
from linepicker.testing import FakeLinq
from linepicker.web import StatusApp

pytestmark = pytest.mark.browser

TOKEN = "a token that nobody guesses"
PERSON = "+12125550123"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
LOOKS = [(size, scheme) for size in SIZES for scheme in ("light", "dark")]


@attrs.define
class World:
    """A provider, a router that sends through it, and the page."""

    fake: FakeLinq
    router: Router
    messenger: LinqMessenger
    url: str


@pytest.fixture(scope="module")
def browser():
    """A headless chromium."""
    from playwright.sync_api import sync_playwright

    program = os.environ.get("CHROMIUM") or shutil.which("chromium")
    assert program, "no chromium is on the path: apt-get install chromium, or set CHROMIUM"
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield found
        found.close()


@pytest.fixture
def world():
    """Six lines, of which one is paused, one draining and one AT_RISK, and some people who were written to."""
    from linq import DefaultHttpxClient, LinqAPIV3

    policy = Policy(health={"ttl": 1.0}, pace={"new_gap": 0.0})
    with (
        FakeLinq(lines=6) as fake,
        DefaultHttpxClient(trust_env=False) as http,
        LinqSource(fake.token, base_url=fake.base_url, client=http) as source,
        Router(source, policy=policy) as router,
        socket.create_server(("127.0.0.1", 0)) as listening,
    ):
        client = LinqAPIV3(api_key=fake.token, base_url=fake.base_url, http_client=http)
        messenger = LinqMessenger(client, router)
        app = StatusApp(router, token=TOKEN, every=0.2)
        fake.set_reputation(fake.numbers[3], "AT_RISK")
        router.refresh()
        router.pause(fake.numbers[1], reason="carrier test")
        router.drain(fake.numbers[2], reason="new SIM card on Monday")
        for person in (PERSON, "ann@example.com", *(f"+1212555{n:04d}" for n in range(20))):
            messenger.send(person, "Your bicycle is ready.")
        config = uvicorn.Config(app, http="h11", log_config=None, access_log=False)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield World(fake, router, messenger, f"http://127.0.0.1:{listening.getsockname()[1]}/")
        app.close()
        server.should_exit = True
        thread.join()


@pytest.fixture
def view(browser, world):
    """Opens the page in a window of its own, and sees to it that nothing goes wrong in it."""
    wrong, contexts = [], []

    def opened(size="desktop", scheme="light", **more):
        width, height = SIZES[size]
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, **more
        )
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: said.type == "error" and wrong.append(said.text))
        page.goto(world.url)
        return page

    opened.wrong = wrong
    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


def row(page, number):
    """A line's row."""
    return page.locator("#rows tr").filter(has_text=number)


def expect(locator):
    """What is to come true within a while."""
    from playwright.sync_api import expect as expected

    expected.set_options(timeout=20_000)
    return expected(locator)


def live(page):
    """The page, once it follows."""
    expect(page.locator("#link")).to_have_text(", live")
    return page


def drawn(page):
    """Let the browser draw what has come into sight."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def operate(page, number, verb, *, reason="maintenance", token=TOKEN):
    """Fill in the form and send it."""
    if not page.locator("#operate").is_visible():
        page.locator("#operating summary").click()
    page.get_by_label("Line", exact=True).fill(number)
    page.get_by_label(verb).check()
    page.get_by_label("Reason").fill(reason)
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Do it").click()


def test_a_line_is_seen_to_fall_without_a_reload(view, world):
    """The provider calls a line CRITICAL: its row and the summary tell, on the page that was opened before."""
    page = live(view())
    page.evaluate("window.here = true")
    number = world.fake.numbers[0]
    expect(row(page, number)).to_contain_text("HEALTHY")
    world.fake.set_reputation(number, "CRITICAL")
    expect(row(page, number)).to_contain_text("nothing goes out")
    expect(row(page, number).locator("td.c")).to_have_text("CRITICAL")
    expect(page.locator("#summary")).to_contain_text("1 CRITICAL")
    assert page.evaluate("window.here") is True


def test_a_choice_is_seen_as_it_is_made(view, world):
    """Somebody is written to: it is among the recent decisions, masked."""
    page = live(view())
    world.messenger.send("bob@example.org", "Hello")
    expect(page.locator("#choices li").first).to_contain_text("b•••@•••.org")
    assert "bob@" not in page.content()


def test_a_recipient_is_found(view):
    """Their line, masked, without leaving the page; and what is no recipient is said."""
    page = live(view())
    page.get_by_label("Number or email").fill(PERSON)
    page.get_by_role("button", name="Find").click()
    expect(page.locator("#found")).to_contain_text("+1•••••••123 has belonged to +1202")
    page.get_by_label("Number or email").fill("nobody")
    page.get_by_label("Number or email").press("Enter")
    expect(page.locator("#found")).to_contain_text("is neither E.164")
    view.wrong[:] = [each for each in view.wrong if "status of 400" not in each]


def test_a_line_is_paused_with_the_token_and_not_without(view, world):
    """A wrong token is refused with a sentence and changes nothing; with the right one the row tells at once."""
    page = live(view())
    number = world.fake.numbers[0]
    operate(page, number, "pause", token="not the token at all")
    expect(page.locator("#operated")).to_contain_text("That is not the token. Nothing was changed.")
    assert world.router.lines()[0].standing == "ok"
    view.wrong[:] = [each for each in view.wrong if "status of 403" not in each]
    operate(page, number, "pause")
    expect(page.locator("#operated")).to_contain_text(f"{number} is paused: maintenance")
    expect(row(page, number)).to_contain_text('Paused by the operator ("maintenance").')
    assert world.router.lines()[0].standing == "paused"
    operate(page, number, "resume")
    expect(row(page, number)).not_to_contain_text("Paused")


def test_it_is_operated_by_keyboard_alone(view, world):
    """From a line's number to the form and through it, without a pointer; a row that changes keeps the focus."""
    page = live(view())
    number = world.fake.numbers[4]
    row(page, number).get_by_role("button").focus()
    world.fake.set_reputation(number, "AT_RISK")
    expect(row(page, number).locator("td.a")).to_be_visible()
    assert page.evaluate("document.activeElement.textContent") == number
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.name") == "verb"
    page.keyboard.press("Space")
    assert page.get_by_label("Line", exact=True).input_value() == number
    page.get_by_label("Line", exact=True).focus()
    page.keyboard.press("Tab")
    page.keyboard.type("by keyboard")
    page.keyboard.press("Tab")
    page.keyboard.type(TOKEN)
    page.keyboard.press("Enter")
    expect(row(page, number)).to_contain_text("by keyboard")


def test_the_lines_are_narrowed_down(view, world):
    """What is typed keeps the rows that hold it, and goes on doing so as they change."""
    page = live(view())
    page.get_by_label("Only those with").fill("paused, critical")
    expect(page.locator("#shown")).to_have_text("1 of 6")
    world.fake.set_reputation(world.fake.numbers[5], "CRITICAL")
    expect(page.locator("#shown")).to_have_text("2 of 6")
    page.get_by_label("Only those with").fill("")
    expect(page.locator("#rows tr:visible")).to_have_count(6)


def test_it_does_without_javascript(view, world):
    """Everything is there and every form works; only following is missing, and the page says so."""
    page = view(java_script_enabled=False)
    assert page.locator("noscript p").is_visible()
    page.locator("#to").fill(PERSON)
    page.get_by_role("button", name="Find").click()
    expect(page.locator("#found")).to_contain_text("+1•••••••123 has belonged to")
    operate(page, world.fake.numbers[0], "drain")
    expect(page.locator("#operated")).to_contain_text("is draining: maintenance")
    expect(row(page, world.fake.numbers[0])).to_contain_text("known people only")


@pytest.mark.parametrize(("size", "scheme"), LOOKS)
def test_it_looks_well_and_is_accessible(view, world, size, scheme, tmp_path):
    """Nothing is wider than the screen, and axe finds nothing serious, in light and dark, on a desktop and a phone, with the
    form open and an answer shown. The pictures are to be looked at."""
    from axe_playwright_python.sync_playwright import Axe

    world.fake.set_reputation(world.fake.numbers[0], "CRITICAL")
    page = live(view(size, scheme))
    expect(page.locator("#rows")).to_contain_text("CRITICAL")
    page.locator("#operating summary").click()
    page.get_by_label("Number or email").fill(PERSON)
    page.get_by_role("button", name="Find").click()
    expect(page.locator("#found")).to_contain_text("has belonged to")
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    page.locator("#rows").scroll_into_view_if_needed()
    drawn(page)
    page.screenshot(path=folder / f"lines-{size}-{scheme}.png")
    page.set_viewport_size(
        {"width": SIZES[size][0], "height": 5000}
    )  # else rows out of sight stay blank
    drawn(page)
    page.screenshot(path=folder / f"page-{size}-{scheme}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]
    found = Axe().run(page).response["violations"]
    told = [
        (each["id"], each["impact"], [node["html"] for node in each["nodes"]][:3]) for each in found
    ]
    assert [each for each in told if each[1] in {"serious", "critical"}] == []


def test_zoomed_in_it_still_fits(view):
    """At a width of 320 pixels, which is what 400 % makes of a desktop, there is nothing to scroll sideways."""
    page = live(view("phone"))
    page.set_viewport_size({"width": 320, "height": 600})
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    assert re.search("can take a new conversation", page.inner_text("#summary"))
