"""Labels that change while the server runs. No model is loaded here."""

import asyncio

import pytest
from structlog.testing import capture_logs

from taxon.bundle import version_labels
from taxon.service.models import control
from taxon.service.models.control import ModelControl
from taxon.service.models.repository import Repository
from tests.service.models.known_models import model
from tests.waiting import until


@pytest.fixture
async def followed(tmp_path, monkeypatch):
    """A repository of two versions, whose labels are followed."""
    monkeypatch.setattr(control, "TRAFFIC_PERIOD_S", 0.001)
    repository = Repository()
    repository.publish(model("colors", 1))
    repository.publish(model("colors", 2))
    (tmp_path / "colors").mkdir()
    version_labels.write(tmp_path, "colors", "stable", 1)
    following = asyncio.create_task(ModelControl(tmp_path, repository, None, None, None).watch_traffic())
    await until(lambda: repository.default_version("colors") == 1)
    yield repository
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def test_the_default_follows_the_label(followed, tmp_path):
    version_labels.write(tmp_path, "colors", "stable", 2)
    await until(lambda: followed.default_version("colors") == 2)
    version_labels.remove(tmp_path, "colors", "stable")
    version_labels.write(tmp_path, "colors", "canary", 1)
    await until(lambda: followed.known.traffic["colors"].labels == {"canary": 1})
    assert followed.find("colors", "canary").version == 1
    assert followed.default_version("colors") == 2


async def test_labels_that_cannot_be_read_leave_the_last_ones(followed, tmp_path):
    """Else the latest version would answer, which nobody promoted."""
    file = tmp_path / "colors" / "traffic.json"
    with capture_logs() as events:
        file.write_text("nonsense")
        await until(lambda: len(events) >= 2)  # read twice
    assert followed.default_version("colors") == 1
    file.unlink()
    version_labels.write(tmp_path, "colors", "stable", 2)
    await until(lambda: followed.default_version("colors") == 2)


async def test_what_is_declared_is_followed_while_a_version_that_it_names_is_loaded(tmp_path, monkeypatch):
    """Whoever regrets a promotion must not have to wait for it."""
    monkeypatch.setattr(control, "TRAFFIC_PERIOD_S", 0.001)
    repository, loads = Repository(), []

    def stable():
        return repository.known.traffic["colors"].labels["stable"] if repository.known.traffic else None

    repository.finish_loading()
    repository.publish(model("colors", 1))
    (tmp_path / "colors" / "2").mkdir(parents=True)
    (tmp_path / "colors" / "2" / "manifest.json").touch()

    class Pool:
        async def load(self, name, version, *_):
            loads.append((name, version))
            await asyncio.get_running_loop().create_future()

    made = ModelControl(tmp_path, repository, Pool(), lambda *_: None, None)
    following = asyncio.create_task(made.watch_traffic())
    for version in (2, 1, 2, 1):
        version_labels.write(tmp_path, "colors", "stable", version)
        await until(lambda version=version: stable() == version)
        await until(lambda: loads)
    assert loads == [("colors", 2)]
    assert repository.default_version("colors") == 1
    following.cancel()
    made.close()
    await asyncio.gather(following, return_exceptions=True)
