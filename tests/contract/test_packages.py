"""Installed beside an application, Taxon owns one top-level package."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_wheel_owns_one_package_that_holds_both_houses():
    build = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert build["packages"] == ["taxon"]
    for house in ("service", "training"):
        link = ROOT / "taxon" / house
        assert link.is_symlink()
        assert link.resolve() == ROOT / house


def test_nothing_imports_a_house_by_its_bare_name():
    for path in [*(ROOT / "service").rglob("*.py"), *(ROOT / "training").rglob("*.py"), *(ROOT / "taxon").glob("*.py")]:
        for line in path.read_text().splitlines():
            assert not line.startswith(("from service", "from training", "import service", "import training")), path


def test_nobody_is_told_to_install_a_stranger_s_package():
    """PyPI's `taxon` is not ours: extras are installed from a checkout, and are there."""
    texts = {
        path: path.read_text()
        for room in ("taxon", "service", "training", "docs", "examples", "deploy")
        for path in (ROOT / room).rglob("*")
        if path.suffix in (".py", ".md", ".html", ".yaml", ".toml")
    }
    texts |= {path: path.read_text() for path in ROOT.glob("*.md")}
    assert len(texts) > 300
    assert not [
        path for path, text in texts.items() if re.search(r"""install\s[^\n`]*(?<![\w/.-])taxon(?![\w/.-])""", text)
    ]
    named = {name for text in texts.values() for name in re.findall(r"extras\.install\(['\"](\w+)", text)}
    assert len(named) > 8
    assert named <= PROJECT["project"]["optional-dependencies"].keys()
