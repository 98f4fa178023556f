"""Fixtures that several packages' tests share."""

from pathlib import Path

import pytest

from tests.fakes import toy_bundle


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A repository with one model, `colors`, version 1."""
    root = tmp_path / "models"
    toy_bundle(root)
    return root
