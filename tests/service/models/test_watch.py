"""The folder changes while its models are served."""

import shutil

import pytest

from taxon.bundle import version_labels
from taxon.service.models.watch import Watch
from taxon.v1 import classification_service_pb2 as pb
from tests.fakes import COLORS, picture, toy_bundle
from tests.tensor_models import simple
from tests.waiting import until

RED = picture(COLORS["red"])


@pytest.fixture
def watch(serve, models):
    """A server, and a watch that looks when it is told to."""

    class Watched:
        async def __aenter__(self):
            self.context = serve(models, "--watch-seconds", "0")
            self.running = await self.context.__aenter__()
            self.repository = self.running.server.repository
            self.watch = Watch(models, self.repository, self.running.server._control)
            await self.watch.begin()
            return self

        async def __aexit__(self, *error):
            await self.context.__aexit__(*error)

        async def look(self, times=2):
            for _ in range(times):
                await self.watch.look()

        def states(self):
            return {(one.name, one.version): one.state for one in self.repository.index()}

        async def answering(self, **choice):
            reply = await self.running.stub.Classify(pb.ClassifyRequest(image=RED, **choice), timeout=10)
            return reply.model_version

    return Watched()


async def test_a_new_version_is_served_once_its_files_stay_the_same(watch, models):
    async with watch as one:
        toy_bundle(models)
        await one.look(1)
        assert one.repository.versions("colors") == [1]
        await one.look(1)
        assert one.repository.versions("colors") == [1, 2]
        assert await one.answering() == "2"
        assert await one.answering(model_name="colors", model_version="1") == "1"


async def test_a_new_version_does_not_replace_the_labelled_one(watch, models):
    version_labels.write(models, "colors", version_labels.STABLE, 1)
    async with watch as one:
        toy_bundle(models)
        await one.look()
        assert one.repository.versions("colors") == [1, 2]
        assert await one.answering() == "1"


async def test_a_new_model_is_served(watch, models):
    (models / "birds").mkdir()  # which is told to hold no version
    async with watch as one:
        toy_bundle(models, "birds")
        simple(models)
        await one.look()
        states = one.states()
        assert states.pop(("simple", 1)) == "READY"
        assert states == {("colors", 1): "READY", ("birds", 1): "READY"}


async def test_a_bad_version_is_tried_again_only_when_its_files_change(watch, models, monkeypatch):
    async with watch as one:
        bad = toy_bundle(models)
        graph = (bad.folder / "model.onnx").read_bytes()
        (bad.folder / "model.onnx").write_bytes(b"half of it")
        pool, tries = one.running.server.pool, []
        load = pool.load
        monkeypatch.setattr(
            pool, "load", lambda name, version, *rest: tries.append(version) or load(name, version, *rest)
        )
        await one.look(6)
        assert tries == [2]
        assert one.states() == {("colors", 1): "READY", ("colors", 2): "UNAVAILABLE"}
        assert "sha256" in one.repository.known.states["colors", 2].reason
        assert await one.answering() == "1"
        (bad.folder / "model.onnx").write_bytes(graph)
        await one.look(6)
        assert tries == [2, 2]
        assert await one.answering() == "2"


async def test_a_bad_version_that_is_deleted_is_refused_no_more(watch, models):
    """Else it would be listed, and the alert go on, until the server is started again."""
    async with watch as one:
        bad = toy_bundle(models)
        (bad.folder / "model.onnx").write_bytes(b"half of it")
        await one.look()
        assert one.repository.refused_count == 1
        shutil.rmtree(bad.folder)
        await one.look()
        assert one.states() == {("colors", 1): "READY"}
        assert one.repository.refused_count == 0


async def test_a_deleted_version_leaves_and_comes_back(watch, models):
    bundle = toy_bundle(models)
    async with watch as one:
        assert await one.answering() == "2"
        kept = models.parent / "kept"
        bundle.folder.rename(kept)
        await one.look(1)
        assert await one.answering() == "2"  # it may be on its way
        await one.look(1)
        assert one.states() == {("colors", 1): "READY"}
        assert await one.answering() == "1"
        kept.rename(bundle.folder)
        await one.look()
        assert await one.answering() == "2"


async def test_a_deleted_model_leaves(watch, models):
    toy_bundle(models, "birds")
    async with watch as one:
        shutil.rmtree(models / "birds")
        await one.look()
        assert one.states() == {("colors", 1): "READY"}


@pytest.mark.parametrize("empty", [True, False])
async def test_a_folder_that_is_away_takes_nothing_along(watch, models, empty):
    """As one whose file system is not mounted for a while."""
    async with watch as one:
        models.rename(models.parent / "away")
        if empty:
            models.mkdir()
        await one.look(3)
        assert one.repository.versions("colors") == [1]
        if empty:
            models.rmdir()
        (models.parent / "away").rename(models)
        await one.look(3)
        assert await one.answering() == "1"


async def test_a_model_that_cannot_be_read_stays(watch, models, monkeypatch):
    async with watch as one:
        toy_bundle(models, "birds")
        iterdir = type(models).iterdir

        def refusing(folder):
            if folder.name == "colors":
                raise PermissionError(13, "Permission denied", str(folder))
            return iterdir(folder)

        monkeypatch.setattr(type(models), "iterdir", refusing)
        await one.look(3)
        assert set(one.states()) == {("colors", 1), ("birds", 1)}


async def test_a_graph_that_was_rewritten_is_read_again(watch, models):
    simple(models)
    async with watch as one:
        (before,) = [model for model in one.repository.listing() if model.name == "simple"]
        simple(models)
        await one.look()
        (after,) = [model for model in one.repository.listing() if model.name == "simple"]
        assert after.number != before.number
        await one.look(3)
        (last,) = [model for model in one.repository.listing() if model.name == "simple"]
        assert last.number == after.number


async def test_what_was_unloaded_by_call_stays_so(watch, models):
    async with watch as one:
        await one.running.server._control.unload("colors")
        await one.look(3)
        assert one.states() == {("colors", 1): "UNAVAILABLE"}


async def test_a_server_watches_by_itself(serve, models):
    async with serve(models, "--watch-seconds", "0.02") as running:
        toy_bundle(models)
        await until(lambda: running.server.repository.versions("colors") == [1, 2])
