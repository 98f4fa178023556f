"""Installed beside an application, Taxon owns one top-level package."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_wheel_owns_one_package_that_holds_both_houses():
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert build["packages"] == ["taxon"]
    for house in ("service", "training"):
        link = ROOT / "taxon" / house
        assert link.is_symlink()
        assert link.resolve() == ROOT / house


def test_nothing_imports_a_house_by_its_bare_name():
    for path in [*(ROOT / "service").rglob("*.py"), *(ROOT / "training").rglob("*.py"), *(ROOT / "taxon").glob("*.py")]:
        for line in path.read_text().splitlines():
            assert not line.startswith(("from service", "from training", "import service", "import training")), path
