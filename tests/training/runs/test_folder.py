import errno
import os
from dataclasses import replace

import pytest
import torch

from taxon.bundle import atomic_files
from taxon.bundle.manifest import PixelSpec
from taxon.training.config import Recipe
from taxon.training.dataset import data
from taxon.training.errors import TrainingError
from taxon.training.network import model
from taxon.training.runs.checkpoint import Checkpoint
from taxon.training.runs.folder import Run, open_or_create
from tests.training.folders import write_folder


@pytest.fixture
def source(tmp_path):
    write_folder(tmp_path / "pictures", 6)
    return data.with_splits(data.with_digests(data.scan(tmp_path / "pictures")), 0.3)


def checkpoint(epoch: int = 1) -> Checkpoint:
    return Checkpoint(
        model="small_cnn",
        labels=("a", "b"),
        task="single_label",
        pixels=PixelSpec(resize=8, crop=(8, 8)),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        state={"weight": torch.full((1000,), float(epoch))},
        metrics={"accuracy": 0.5},
        epoch=epoch,
        run_id="run",
    )


def test_every_network_comes_back_with_its_state(tmp_path):
    """MNASNet refuses a state that does not say of which version its modules are, and files do not."""
    network = model.build("mnasnet0_5", 2)
    replace(checkpoint(), model="mnasnet0_5", state=network.state_dict()).save(tmp_path / "c.pt")
    state = Checkpoint.load(tmp_path / "c.pt").build_model().state_dict()
    assert all(torch.equal(state[key], value) for key, value in network.state_dict().items())


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    checkpoint(3).save(tmp_path / "c.pt")
    found = Checkpoint.load(tmp_path / "c.pt")
    assert (found.pixels, found.labels, found.epoch) == (PixelSpec(resize=8, crop=(8, 8)), ("a", "b"), 3)
    assert torch.equal(found.state["weight"], checkpoint(3).state["weight"])


@pytest.mark.parametrize("content", [b"", b"text"])
def test_a_damaged_checkpoint_is_refused(tmp_path, content):
    (tmp_path / "c.pt").write_bytes(content)
    with pytest.raises(TrainingError, match="cannot be read"):
        Checkpoint.load(tmp_path / "c.pt")


def test_another_file_of_torch_is_no_checkpoint(tmp_path):
    torch.save({"weight": torch.zeros(1)}, tmp_path / "c.pt")
    with pytest.raises(TrainingError, match="not a checkpoint of this release"):
        Checkpoint.load(tmp_path / "c.pt")


def test_a_full_disk_leaves_the_previous_checkpoint_whole(tmp_path, source, monkeypatch):
    run = open_or_create(tmp_path / "run", source, Recipe())
    run.save(checkpoint(1), checkpoint(1))

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic_files.os, "fsync", full)
    with pytest.raises(TrainingError, match=r"No space left.*previous one is whole"):
        run.save(checkpoint(2), checkpoint(2))
    assert Checkpoint.load(run.last_path).epoch == 1
    assert [path.name for path in run.folder.iterdir() if path.name.endswith(".tmp")] == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux")  # noqa: PTH110 - a device
def test_a_disk_that_fills_while_torch_writes_is_said_as_such(tmp_path, source, monkeypatch):
    run = open_or_create(tmp_path / "run", source, Recipe())
    full = os.open("/dev/full", os.O_WRONLY)
    monkeypatch.setattr(atomic_files.tempfile, "mkstemp", lambda **_: (full, str(run.folder / ".last.pt.tmp")))
    with pytest.raises(TrainingError, match="could not be written"):
        run.save(None, checkpoint())


def test_samples_come_back_from_the_folder(tmp_path, source):
    run = open_or_create(tmp_path / "run", source, Recipe())
    again = Run.open(tmp_path / "run")
    for split in ("train", "val"):
        assert [s.path for s in again.samples(split)] == [s.path.resolve() for s in source.split(split)]
        assert [(s.label, s.sha256) for s in again.samples(split)] == [(s.label, s.sha256) for s in source.split(split)]
    assert run.data_digest == data.digest(source.samples, source.labels)


def test_further_columns_come_back_from_the_folder(tmp_path, source):
    samples = tuple(replace(s, columns=(("by", 'a, "ann"'), ("lens", ""))) for s in source.samples)
    open_or_create(tmp_path / "run", replace(source, samples=samples), Recipe())
    found = Run.open(tmp_path / "run").samples("val")
    assert {sample.columns for sample in found} == {(("by", 'a, "ann"'), ("lens", ""))}


def test_samples_below_a_link_are_listed_below_it(tmp_path):
    """Also where the classes are links of their own: the list holds no absolute path."""
    write_folder(tmp_path / "store", 6)
    (tmp_path / "real").mkdir()
    (tmp_path / "pictures").symlink_to(tmp_path / "real")
    for label in ("dark", "light"):
        (tmp_path / "pictures" / label).symlink_to(tmp_path / "store" / label)
    source = data.with_splits(data.with_digests(data.scan(tmp_path / "pictures")), 0.3)
    run = open_or_create(tmp_path / "run", source, Recipe())
    rows = (tmp_path / "run" / "samples.csv").read_text().splitlines()[1:]
    assert {row.partition("/")[0] for row in rows} == {"dark", "light"}
    assert all(sample.path.is_file() for split in ("train", "val") for sample in run.samples(split))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        *(("run.json", content) for content in ("", "{}", "[1", '"text"')),
        *(("labels.json", content) for content in ("", "{}", "[1", '"text"')),
        *(("samples.csv", content) for content in ("path,label\nx,y\n", "path,label,split,row\nx,y,train,z\n")),
        *(("metrics.jsonl", content) for content in ("{", "x\n", "\udce9")),
        *(("warnings.json", content) for content in ("", "{}", "[1", '"text"')),
    ],
)
def test_a_damaged_file_is_named(tmp_path, source, file, content):
    run = open_or_create(tmp_path / "run", source, Recipe())
    run.write_metrics([{"epoch": 1}])
    (tmp_path / "run" / file).write_text(content, errors="surrogateescape")
    again = Run.open(tmp_path / "run")
    reading = {
        "run.json": lambda: again.id,
        "labels.json": lambda: again.labels,
        "samples.csv": lambda: again.samples("train"),
        "metrics.jsonl": again.metrics,
        "warnings.json": again.warnings,
    }
    with pytest.raises(TrainingError, match=rf"{file} is damaged") as refused:
        reading[file]()
    assert "\n" not in str(refused.value)


def test_another_folder_is_no_run(tmp_path):
    with pytest.raises(TrainingError, match=r"no run\.json"):
        Run.open(tmp_path)
