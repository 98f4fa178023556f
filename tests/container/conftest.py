"""Images, each built once. What a Docker daemon is not there for is skipped."""

import pytest

from tests.container import docker
from tests.fakes import toy_bundle


@pytest.fixture(scope="session")
def image():
    """Builds by target."""
    if not docker.is_here():
        pytest.skip("no Docker daemon answers here")
    built = {}

    def build(target):
        if target not in built:
            built[target] = docker.build(target)
        return built[target]

    return build


@pytest.fixture
def models(tmp_path):
    """A repository that the container's user may read."""
    root = tmp_path / "models"
    toy_bundle(root)
    for path in (*tmp_path.parents, tmp_path, *tmp_path.rglob("*")):
        if path.is_relative_to(tmp_path.parents[1]):
            path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))
    return root
