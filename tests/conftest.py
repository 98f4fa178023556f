"""Fixtures that several packages' tests share."""

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from tests.fakes import toy_bundle


@pytest.fixture(scope="session", autouse=True)
def _power_that_stays_on() -> Iterator[None]:
    """No test can see whether a file would outlast a power cut, so in this process none waits for the disk. Commands in
    processes of their own do; and a test that replaces `os.fsync` sees when, and of what, it is called.
    """

    def check(descriptor: int) -> None:
        os.fstat(descriptor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", check)
        yield


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
