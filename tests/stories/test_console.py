"""A real `taxon serve`, a real `taxon console` and a real browser."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from taxon.feedback.store import Store
from tests.fakes import COLORS, PROVENANCE, picture, toy_bundle
from tests.taxon.feedback.entries import entry

pytestmark = pytest.mark.slow
playwright = pytest.importorskip("playwright.sync_api", reason="the stories of the console need playwright")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="they need axe-playwright-python")
CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
DESK = {"viewport": {"width": 1100, "height": 900}}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "color_scheme": "dark"}
WAIT_MS = 20_000


@dataclass
class Place:
    """Folders, a server and a console."""

    folder: Path
    url: str = ""
    port: str = "0"

    @contextmanager
    def serving(self) -> Iterator[None]:
        """A server, at the same port each time."""
        port_file = self.folder / "port"
        port_file.unlink(missing_ok=True)
        folders = ["--models", self.folder / "models", "--feedback", self.folder / "feedback"]
        where = ["--listen", f"127.0.0.1:{self.port}", "--port-file", port_file, "--workers", 1]
        with self._running("serve", *folders, *where, "--drain-delay-seconds", 0) as process:
            until = time.monotonic() + 30
            while not port_file.exists() and process.poll() is None and time.monotonic() < until:
                time.sleep(0.02)
            self.port = port_file.read_text().strip()
            health = [sys.executable, "-m", "taxon.cli", "health", "--server", f"127.0.0.1:{self.port}"]
            subprocess.run([*health, "--wait-s", "30"], check=True, capture_output=True)
            yield

    @contextmanager
    def showing(self) -> Iterator[None]:
        """The console of that server."""
        rooms = [
            word for room in ("models", "runs", "rounds", "feedback") for word in (f"--{room}", self.folder / room)
        ]
        with self._running(
            "console", "--server", f"127.0.0.1:{self.port}", "--listen", "127.0.0.1:0", *rooms
        ) as process:
            line = process.stderr.readline()
            self.url = re.search(r"http://\S+", line)[0]
            yield

    @contextmanager
    def _running(self, *words: object) -> Iterator[subprocess.Popen]:
        command = [sys.executable, "-m", "taxon.cli", *map(str, words)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            try:
                yield process
            finally:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("console")
    toy_bundle(folder / "models", maps=True, thumbnails=("1" * 64, "2" * 64, "3" * 64))
    (folder / "rounds/1").mkdir(parents=True)
    held = {"number": 1, "name": "colors", "started": "2026-11-01T10:00:00+00:00", "production": 1}
    held |= {"outcome": "refused", "reasons": ["of the held-out pictures 2 more are wrong"], "counts": {"merged": 120}}
    held |= {"verdict": {"held_out": {"accuracy_before": 0.96, "accuracy_after": 0.95}}}
    (folder / "rounds/1/round.json").write_text(json.dumps(held))
    (folder / "rounds/1/report.html").write_text("<!doctype html><title>Round</title><h1>Version 1 stays</h1>")
    run = folder / "runs/first"
    (run / "report").mkdir(parents=True)
    facts = {"run_id": PROVENANCE.run_id, "created": "2026-11-01T10:00:00", "task": "single_label"}
    (run / "run.json").write_text(json.dumps(facts))
    (run / "metrics.jsonl").write_text('{"epoch": 1, "accuracy": 0.5}\n')
    (run / "report/metrics.json").write_text('{"accuracy": 0.5}')
    (run / "report/index.html").write_text("<!doctype html><title>Report</title><h1>Half of it is right</h1>")
    Store(folder / "feedback").close()
    for color in COLORS:
        (folder / f"{color}.png").write_bytes(picture(COLORS[color], size=(60, 40)))
    return Place(folder)


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM}")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS])
        yield chromium
        chromium.close()


@contextmanager
def looking(browser, place, settings) -> Iterator[object]:
    """A page; nothing outside is asked for, and the browser finds nothing to complain of."""
    complaints, elsewhere = [], []
    context = browser.new_context(**settings)
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    own = (place.url, "blob:", "data:")
    page.on("request", lambda request: None if request.url.startswith(own) else elsewhere.append(request.url))
    page.goto(place.url)
    yield page
    context.close()
    assert not elsewhere
    assert not [text for text in complaints if "Failed to load resource" not in text]


def first_load_ms(browser, place) -> float:
    """Until all of the first page is there, in a browser that has never seen it."""
    context = browser.new_context(**DESK)
    page = context.new_page()
    page.goto(place.url)
    timing = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
    context.close()
    assert timing > 0
    return timing


def check_accessible(page) -> None:
    found = axe.Axe().run(page).response["violations"]
    assert not [
        (fault["id"], fault["nodes"][0]["html"]) for fault in found if fault["impact"] in ("serious", "critical")
    ]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_drop_a_picture_and_say_what_it_shows(browser, place):
    """Dropped, answered, spoken of: the store has it."""
    with place.serving(), place.showing(), looking(browser, place, DESK) as page:
        assert min(first_load_ms(browser, place) for _ in range(5)) < 1000  # others use this machine too
        check_accessible(page)
        encoded = [*(place.folder / "green.png").read_bytes()]
        page.evaluate(
            """bytes => {
                const dataTransfer = new DataTransfer();
                dataTransfer.items.add(new File([new Uint8Array(bytes)], "<b>leaf</b>.png", {type: "image/png"}));
                document.querySelector("#drop").dispatchEvent(new DragEvent("drop", {dataTransfer, bubbles: true}));
            }""",
            encoded,
        )
        page.wait_for_selector("#result meter")
        assert page.inner_text("#result h2 >> nth=0") == "<b>leaf</b>.png"
        assert page.inner_text("#result tbody th >> nth=0") == "green"
        assert page.evaluate("document.querySelector('#preview').naturalWidth") == 60
        check_accessible(page)
        page.get_by_label("Another label").fill("moss")
        assert page.get_by_label("another one:").is_checked()
        page.locator("[name=contributor]").fill("jane")
        page.get_by_label("Models may be trained").check()
        page.get_by_role("button", name="Send").click()
        page.wait_for_selector("#said .good")
        assert "Proposed as new: moss" in page.inner_text("#said")
        assert page.locator("#result meter").count() == 3  # the answer is still there
        check_accessible(page)
    store = Store(place.folder / "feedback")
    (kept,) = store.said()
    store.close()
    assert (kept.labels, kept.answered[0]) == (("moss",), "green")


def test_ask_why_by_keyboard_alone(browser, place):
    with place.serving(), place.showing(), looking(browser, place, DESK) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "picture"
        page.set_input_files("#picture", place.folder / "blue.png")  # the chooser itself is the system's
        page.wait_for_selector("#result meter")
        for _ in range(20):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.textContent") == "Why?":
                break
        page.keyboard.press("Enter")
        page.wait_for_selector("#why img")
        assert "Why blue?" in page.inner_text("#why")
        assert page.evaluate("document.querySelector('#why img').naturalWidth") > 0
        alike = page.get_by_role("list", name="Training pictures that the model sees most alike").get_by_role(
            "listitem"
        )
        assert [text.split()[0] for text in alike.all_inner_texts()] == ["blue", "red", "green"]
        assert page.evaluate("[...document.querySelectorAll('.alike img')].every(image => image.naturalWidth > 0)")
        check_accessible(page)


def test_review_on_a_phone(browser, place):
    """One picture after the other; a decision can be taken back."""
    with place.serving(), place.showing(), looking(browser, place, PHONE) as page:
        for color in ("red", "blue"):
            page.goto(place.url)
            page.set_input_files("#picture", place.folder / f"{color}.png")
            page.wait_for_selector("#result meter")
            page.locator("#result fieldset label").first.tap()
            page.locator("[name=contributor]").fill(f"reader of {color}")
            page.get_by_label("Models may be trained").check()
            page.get_by_role("button", name="Send").tap()
            page.wait_for_selector("#said .good")
        check_accessible(page)
        page.get_by_role("link", name="Feedback").tap()
        page.wait_for_selector(".review")
        check_accessible(page)
        waiting = int(re.search(r"of (\d+) that wait", page.inner_text(".review h2"))[1])
        page.locator("[name=reviewer]").first.fill("ann")
        page.get_by_role("button", name="Accept").tap()
        page.wait_for_selector("text=Accepted")
        assert page.locator("form [name=reviewer]").last.input_value() == "ann"
        page.get_by_label("Right would be").fill("sky")
        page.get_by_role("button", name="Correct").tap()
        page.wait_for_selector("text=Corrected: sky")
        check_accessible(page)
        page.get_by_role("button", name="Undo").tap()
        page.wait_for_selector(f"text=of {waiting - 1} that wait")
    store = Store(place.folder / "feedback")
    decided = store.decisions().values()
    store.close()
    assert [(one.verdict, one.reviewer) for one in decided] == [("accept", "ann")]


def test_look_at_models_rates_lineage_and_reports(browser, place):
    with place.serving(), place.showing(), looking(browser, place, DESK | {"color_scheme": "dark"}) as page:
        page.set_input_files("#picture", place.folder / "red.png")
        page.wait_for_selector("#result meter")
        page.get_by_role("link", name="Models").click()
        page.wait_for_selector("text=Rates of the last")  # by itself, at the second look
        check_accessible(page)
        page.get_by_role("link", name="colors 1").click()
        page.wait_for_selector("text=As it was published")
        check_accessible(page)
        page.get_by_text("3 labels").click()
        assert page.get_by_text("green").is_visible()
        page.get_by_role("link", name=PROVENANCE.run_id).click()
        page.wait_for_selector("text=published as")
        check_accessible(page)
        assert page.get_by_role("link", name="colors 1").is_visible()
        page.get_by_role("link", name="Read the report").click()
        page.wait_for_selector("text=Half of it is right")
        page.go_back()
        page.get_by_role("link", name="Runs").first.click()
        page.wait_for_selector("text=Epochs")
        check_accessible(page)


@pytest.mark.parametrize("settings", [DESK, PHONE])
def test_see_where_the_loop_stands(browser, place, settings):
    store = Store(place.folder / "feedback")
    store.add([entry(7), entry(8, who="joe")])
    store.close()
    with place.serving(), place.showing(), looking(browser, place, settings) as page:
        page.get_by_role("link", name="Loop").click()
        page.wait_for_selector("text=for a decision")
        check_accessible(page)
        assert "taxon feedback review" in page.inner_text("section.card ol")
        assert "refused" in page.inner_text("table")
        page.get_by_role("link", name="Report of round 1").click()
        page.wait_for_selector("text=Version 1 stays")
        page.go_back()
        page.get_by_role("link", name="Review", exact=True).click()
        page.wait_for_selector(".review")


def test_a_server_goes_away_and_comes_back(browser, place):
    """What is on the page stays; the message comes in its place, and goes by itself."""
    if place.port == "0":
        with place.serving():
            pass  # from now on its port is known
    with place.showing(), looking(browser, place, PHONE) as page:
        page.wait_for_selector("text=The server does not answer.")
        check_accessible(page)
        with place.serving():
            page.wait_for_selector("#picture")
        page.set_input_files("#picture", place.folder / "red.png")
        page.wait_for_selector("#result .bad")
        assert "The server does not answer." in page.inner_text("#result")
        assert page.locator("#preview").is_visible()
        with place.serving():
            page.get_by_role("button", name="Classify").tap()
            page.wait_for_selector("#result meter")
