"""The documentation as a site: complete, and silent towards everybody else."""

import re
import subprocess
import sys

import pytest

from tests.walkthrough import ROOT

pytest.importorskip("material", reason="the site needs the extra docs")
pytestmark = pytest.mark.slow
LOADED = re.compile(r'<(?:script|img|iframe|source|link)[^>]*\s(?:src|href)="?(?:https?:)?//')


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_there(site):
    pages = {page.relative_to(ROOT / "docs") for page in (ROOT / "docs").rglob("*.md")}
    expected = {page.with_name("index.md" if page.name == "README.md" else page.name) for page in pages}
    assert {page.with_suffix(".html") for page in expected} <= {page.relative_to(site) for page in site.rglob("*.html")}
    configured = (ROOT / "mkdocs.yml").read_text()
    assert [str(page) for page in sorted(pages) if f" {page}\n" not in configured] == []


def test_nothing_is_loaded_from_elsewhere(site):
    for page in site.rglob("*.html"):
        assert not LOADED.search(page.read_text(encoding="utf-8")), page.name
    for style in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import )[\"']?(?:https?:)?//", style.read_text(encoding="utf-8")), style.name
