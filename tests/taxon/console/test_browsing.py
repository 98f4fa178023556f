"""What is served, published, promoted and trained; and a server that is not there."""

import asyncio
import json
import re

import pytest

from taxon.service.access import keys_main
from tests.fakes import PROVENANCE

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def runs(tmp_path):
    """A finished run, one that has just begun, and a damaged one."""
    root = tmp_path / "runs"
    for name in ("first", "begun", "damaged"):
        (root / name / "report").mkdir(parents=True)
    facts = {"run_id": PROVENANCE.run_id, "created": "2026-11-01T10:00:00", "data": "<b>data</b>", "parents": []}
    (root / "first/run.json").write_text(json.dumps(facts))
    (root / "first/metrics.jsonl").write_text('{"epoch": 1, "accuracy": 0.5}\n{"epoch": 2, "accuracy": 0.875}\n')
    (root / "first/report/metrics.json").write_text('{"accuracy": 0.875}')
    (root / "first/report/index.html").write_text("<script>alert(1)</script>report")
    (root / "begun/run.json").write_text('{"run_id": "other"}')
    (root / "damaged/run.json").write_text("[")
    (root / "no-run").mkdir()
    return root


async def test_versions_with_roles_rates_and_what_is_refused(shared, browse, monkeypatch):
    now = 100.0
    monkeypatch.setattr("taxon.console.browsing.time.monotonic", lambda: now)
    async with browse(shared.address, models=shared.models) as browser:
        page = (await browser.get("/models")).text
        now = 102.0
        later = (await browser.get("/models")).text
        found = (await browser.get("/models/colors/2")).text
        missing = await browser.get("/models/colors/9")
    assert '<span class="tag good">ready</span>' in page
    assert '<span class="tag good">default</span>' in page
    assert "Rates come with the next look" in page
    assert "Rates of the last 2 s" in later
    assert re.search(r"colors 2</strong> <span class=\"tag bad\">unavailable</span> \S+", page)
    assert '<span class="tag">candidate</span>' in page
    assert "&lt;i&gt;first&lt;/i&gt;" in page
    assert "As it was published" in found
    assert "As it is served" not in found
    assert missing.status_code == 404


async def test_lineage_leads_from_a_version_to_its_run_and_back(shared, browse, runs):
    async with browse(shared.address, models=shared.models, runs=runs) as browser:
        version = (await browser.get("/models/colors/1")).text
        run = (await browser.get("/runs/first")).text
        listed = (await browser.get("/runs")).text
        for name in ("begun", "damaged"):
            assert (await browser.get(f"/runs/{name}")).status_code == 200
    assert '<a href="/runs/first">toy</a>' in version
    assert '<a href="/models/colors/1">colors 1</a>' in run
    assert "87.5%" in listed
    assert "damaged or cannot be read" in listed
    assert "no-run" not in listed
    assert "&lt;b&gt;data&lt;/b&gt;" in run
    assert run.count("<tr>") == 3


async def test_a_run_of_a_round_is_shown_and_what_was_published_of_it(shared, browse, runs):
    (runs.parent / "rounds/1").mkdir(parents=True)
    (runs / "first").rename(runs.parent / "rounds/1/run")
    async with browse(shared.address, models=shared.models, runs=runs.parent / "rounds") as browser:
        version = (await browser.get("/models/colors/1")).text
        run = (await browser.get("/runs/1/run")).text
        listed = (await browser.get("/runs")).text
        report = await browser.get("/runs/1/run/report")
    assert '<a href="/runs/1/run">toy</a>' in version
    assert '<a href="/models/colors/1">colors 1</a>' in run
    assert '<a href="/runs/1/run/report" aria-label' in listed
    assert report.text.endswith("report")


@pytest.mark.parametrize("figure", ['"x"', "null", "{}", "1" + 400 * "0", "NaN"])
async def test_a_run_with_odd_figures_hides_no_other(browse, runs, figure):
    (runs / "begun/report/metrics.json").write_text(f'{{"accuracy": {figure}, "accuracy_low": {figure}}}')
    (runs / "begun/run.json").write_text(f'{{"run_id": "other", "created": {figure}, "parents": 5}}')
    async with browse(runs=runs) as browser:
        listed, page = await browser.get("/runs"), await browser.get("/runs/begun")
    assert (listed.status_code, page.status_code) == (200, 200)
    assert "87.5%" in listed.text


@pytest.mark.parametrize("path", ["/runs/..%2fruns", "/runs/no-run", "/runs/begun/report", "/runs/x/report"])
async def test_only_runs_are_shown(browse, runs, path):
    async with browse(runs=runs) as browser:
        assert (await browser.get(path)).status_code == 404


async def test_a_report_runs_no_script(browse, runs):
    async with browse(runs=runs) as browser:
        report = await browser.get("/runs/first/report")
    assert report.text.endswith("report")
    policy = report.headers["content-security-policy"]
    assert "sandbox" in policy
    assert "script-src" not in policy
    assert "default-src 'none'" in policy


async def test_links_begin_with_the_path_of_the_proxy(shared, browse, runs):
    async with browse(shared.address, runs=runs, root_path="/taxon") as browser:
        for path in ("/taxon/models", "/models", "/taxon/runs", "/taxon/"):
            page = await browser.get(path)
            assert page.status_code == 200
            links = re.findall(r'(?:href|src|action|formaction)="(/[^"]*)"', page.text)
            assert links
            assert all(link.startswith("/taxon/") for link in links)
            assert (await browser.get(links[0])).status_code == 200


async def test_a_server_that_goes_away_and_comes_back(serve, browse, models):
    async with serve(models) as running:
        address = running.address
        async with browse(address, models=models) as browser:
            assert (await browser.get("/")).status_code == 200
    async with browse(address, models=models) as browser:
        for path in ("/", "/models", "/models/colors/1"):
            page = await browser.get(path)
            assert page.status_code == 503
            assert "The server does not answer." in page.text
            assert "data-retry" in page.text
        sent = await browser.post("/classify", files={"picture": ("a.png", b"x", "image/png")})
        assert sent.status_code == 503
        assert "data-retry" not in sent.text  # a form is not sent twice by itself
        async with serve(models, "--listen", address):
            async with asyncio.timeout(30):  # gRPC looks for it about once a second
                while (await browser.get("/")).status_code != 200:
                    pass


async def test_behind_keys(serve, browse, models, tmp_path, capsys):
    keys = tmp_path / "keys.json"
    assert keys_main.main(["add", "console", "--keys", str(keys), "--groups", "classify,feedback"]) == 0
    key = re.search(r"\S{40,}", capsys.readouterr().out)[0]
    async with serve(models, "--keys", str(keys)) as running:
        async with browse(running.address) as browser:
            assert (await browser.get("/")).status_code == 403
        async with browse(running.address, key=key) as browser:
            assert (await browser.get("/")).status_code == 200
            page = await browser.get("/models")
            assert page.status_code == 200
            assert "No rates:" in page.text  # which take the group `inference`
            assert key not in page.text
            said = {"request_id": "0" * 32, "contributor": "jane", "consent": "yes", "choice": "none"}
            assert (await browser.post("/say", data=said)).status_code == 501  # nobody has switched it on
