"""Where the loop stands: what waits, what rounds came to, and what is next."""

import html
import json
import re
import shlex

import pytest

from taxon.feedback import review
from taxon.feedback.store import Store
from tests.taxon.console.conftest import EVIL
from tests.taxon.feedback.entries import entry

pytestmark = pytest.mark.asyncio(loop_scope="module")
COMPARED = {"held_out": {"accuracy_before": 0.9, "accuracy_after": 0.925}}
REFUSED = {
    "name": "colors",
    "started": "2026-11-01T10:00:00+00:00",
    "production": 1,
    "outcome": "refused",
    "reasons": [f"worse on {EVIL}"],
    "counts": {"merged": 12, "relabelled": 1, "suspicious": 5},
    "verdict": COMPARED,
}


@pytest.fixture
def rounds(tmp_path):
    return tmp_path / "my rounds"


def held(rounds, number, state):
    folder = rounds / str(number)
    folder.mkdir(parents=True)
    (folder / "round.json").write_text(state if isinstance(state, str) else json.dumps(state))


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / "feedback")
    yield opened
    opened.close()


async def test_what_waits_is_next_and_then_what_was_decided(shared, browse, rounds, store, tmp_path):
    held(rounds, 1, REFUSED)
    store.add([entry(0), entry(1), entry(2)])
    for case in review.cases(store)[:2]:
        review.decide(store, case, "accept", "ann")
    async with browse(shared.address, models=shared.models, feedback=tmp_path / "feedback", rounds=rounds) as browser:
        page = await browser.get("/loop")
        reviewed = [review.decide(store, case, "reject", "ann") for case in review.cases(store)]
        later = await browser.get("/loop")
    assert len(reviewed) == 1
    assert (page.status_code, later.status_code) == (200, 200)
    colors = page.text.partition("<h2>colors</h2>")[2].partition("</section>")[0]
    assert "1 picture waits for a decision." in colors
    assert colors.index("taxon feedback review") < colors.index("taxon round colors")
    assert "2 pictures were decided of that no round has learnt from." in colors
    assert f"--rounds {shlex.quote(str(rounds))}" in colors.replace("&#39;", "'")
    assert '<dt>In production</dt><dd><a href="/models/colors/1">1</a>' in colors
    assert '<dt>candidate</dt><dd><a href="/models/colors/1">1</a>' in colors
    assert '<span class="tag bad">refused</span> worse on &lt;img' in colors
    assert '<td class="number">13</td><td class="number">90.0% → 92.5%</td>' in colors
    assert "waits for a decision" not in later.text
    assert "3 pictures were decided of" in later.text
    assert "Nothing is to do" in page.text.partition("<h2>evil</h2>")[2]


@pytest.mark.slow
async def test_what_is_shown_as_a_command_is_one(shared, browse, rounds, store, tmp_path):
    from taxon.feedback import commands
    from taxon.training.commands import round as round_command

    store.add([entry(0), entry(1)])
    review.decide(store, review.cases(store)[0], "accept", "ann")
    async with browse(shared.address, models=shared.models, feedback=tmp_path / "feedback", rounds=rounds) as browser:
        page = (await browser.get("/loop")).text
    first, second = (shlex.split(html.unescape(shown)) for shown in re.findall("<code>(.+?)</code>", page))
    reviewing = commands._parser().parse_args(first[2:])
    holding = round_command._parser().parse_args(second[2:])
    assert (first[:2], second[:2]) == (["taxon", "feedback"], ["taxon", "round"])
    assert (reviewing.store, reviewing.model) == (str(tmp_path / "feedback"), "colors")
    assert (holding.models, holding.store, holding.rounds) == (shared.models, reviewing.store, rounds)


async def test_a_round_that_has_learnt_leaves_nothing_to_do(shared, browse, rounds, store, tmp_path):
    store.add([entry(0)])
    review.decide(store, *review.cases(store), "accept", "ann")
    held(rounds, 1, REFUSED)
    held(rounds, 2, REFUSED | {"started": "2999-01-01T00:00:00+00:00", "outcome": "promoted", "version": 2})
    held(rounds, 3, REFUSED | {"outcome": "nothing", "started": "2999-01-02T00:00:00+00:00"})
    async with browse(shared.address, feedback=tmp_path / "feedback", rounds=rounds) as browser:
        page = (await browser.get("/loop")).text
    colors = page.partition("<h2>colors</h2>")[2].partition("</section>")[0]
    assert "Nothing is to do" in colors
    assert colors.index("nothing to do</span>") < colors.index("promoted</span>") < colors.index("refused</span>")


async def test_an_interrupted_round_goes_first(browse, rounds, store, tmp_path):
    """Also while the server is away."""
    store.add([entry(0)])
    held(rounds, 10, REFUSED | {"outcome": ""})
    held(rounds, 9, REFUSED)
    async with browse(feedback=tmp_path / "feedback", rounds=rounds) as browser:
        page = await browser.get("/loop")
    assert page.status_code == 503
    assert "The server does not answer." in page.text
    assert "Round 10 is under way; if it was interrupted, the same command goes on." in page.text
    assert page.text.count("<code>taxon ") == 1


async def test_nothing_was_held_yet(shared, browse, rounds):
    async with browse(shared.address, rounds=rounds) as browser:
        page = await browser.get("/loop")
        missing = await browser.get("/loop/1/report")
        other = await browser.get("/loop/..%2f1/report")
    assert "None was held yet." in page.text
    assert "Start the console with <code>--feedback</code>" in page.text
    assert [missing.status_code, other.status_code] == [404, 404]


@pytest.mark.parametrize("odd", ["[", "[]", '{"name": 3, "counts": [], "verdict": 1, "reasons": "x", "started": null}'])
async def test_a_damaged_round_hides_no_other(shared, browse, rounds, odd):
    held(rounds, 1, REFUSED)
    held(rounds, 2, odd)
    async with browse(shared.address, rounds=rounds) as browser:
        page = await browser.get("/loop")
    assert page.status_code == 200
    assert "refused</span>" in page.text
    assert ("round.json is damaged" in page.text) == odd.startswith("[")


async def test_the_report_of_a_round_runs_no_script(browse, rounds):
    held(rounds, 1, REFUSED)
    (rounds / "1/report.html").write_text("<script>alert(1)</script>report")
    async with browse(rounds=rounds) as browser:
        report = await browser.get("/loop/1/report")
        page = await browser.get("/loop")
    assert report.text.endswith("report")
    assert "sandbox" in report.headers["content-security-policy"]
    assert '<a href="/loop/1/report"' in page.text


async def test_without_a_folder_of_rounds_there_is_no_such_page(browse):
    async with browse() as browser:
        assert (await browser.get("/loop")).status_code == 404
