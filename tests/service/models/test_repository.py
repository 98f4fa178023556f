import os

import pytest
from structlog.testing import capture_logs

from taxon.bundle import version_labels
from taxon.service.errors import FieldInvalidError, ModelNotFoundError, NotServingError
from taxon.service.models.repository import Repository, Served, ranking_of
from tests.fakes import toy_bundle


class NoRuns:
    closed = 0

    def close(self):
        self.closed += 1


@pytest.fixture
def repository(tmp_path):
    return Repository(tmp_path)


def publish(repository, tmp_path, name, count=1):
    for _ in range(count):
        manifest = toy_bundle(tmp_path, name).manifest
        repository.publish(Served(manifest, "fp32", "CPUExecutionProvider", ranking_of(manifest), NoRuns()))


def test_an_empty_repository_serves_nothing(repository):
    with pytest.raises(NotServingError):
        repository.find("", "")


def test_the_only_model_needs_no_name(repository, tmp_path):
    publish(repository, tmp_path, "a", 2)
    assert repository.find("", "").manifest.version == 2
    assert repository.find("", "1").manifest.version == 1
    publish(repository, tmp_path, "b")
    with pytest.raises(FieldInvalidError):
        repository.find("", "")


def test_stable_is_the_default_if_it_is_served(repository, tmp_path):
    publish(repository, tmp_path, "a", 2)
    for labelled, default in [(1, 1), (9, 2), (2, 2), (1, 1)]:
        version_labels.write(tmp_path, "a", "stable", labelled)
        assert repository.default_version("a") == default


def test_labels_that_cannot_be_read_leave_the_last_ones(repository, tmp_path):
    publish(repository, tmp_path, "a", 2)
    version_labels.write(tmp_path, "a", "stable", 1)
    folder = tmp_path / "a" / "labels"
    os.utime(folder, ns=(0, 0))  # long settled
    assert repository.default_version("a") == 1
    (folder / "odd").write_text("nonsense")
    with capture_logs() as events:
        assert repository.default_version("a") == 1
    assert "must hold a version number" in events[0]["reason"]


@pytest.mark.parametrize("version", ["3", "0", "01", "-1", "1.0", "canary", "../labels/stable", "x" * 99, "\0", "²"])
def test_versions_that_do_not_exist(repository, tmp_path, version):
    publish(repository, tmp_path, "a", 2)
    with pytest.raises(ModelNotFoundError):
        repository.find("a", version)


def test_close_ends_every_models_runs(repository, tmp_path):
    publish(repository, tmp_path, "a", 2)
    runs = [served.runs for served in repository.listing()]
    repository.close()
    assert [run.closed for run in runs] == [1, 1]
    assert len(repository) == 0
