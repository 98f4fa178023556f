"""Fixtures that several packages' tests share."""

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from tests.fakes import toy_bundle


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """A command that sets up its process's log does so in the tests' process too, on a captured standard error."""
    root, hook, kept = logging.getLogger(), sys.excepthook, structlog.get_config()
    handlers, level = [*root.handlers], root.level
    yield
    if root.handlers != handlers:
        logging.captureWarnings(False)
        root.handlers[:] = handlers
    root.setLevel(level)
    sys.excepthook = hook
    structlog.configure(**kept)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A repository with one model, `colors`, version 1."""
    root = tmp_path / "models"
    toy_bundle(root)
    return root
