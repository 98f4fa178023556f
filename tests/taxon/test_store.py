"""Publishing and reading bundles: all or nothing, and every byte checked."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import onnx
import pytest

from taxon.bundle import store
from taxon.bundle.manifest import BundleError, Manifest
from tests.fakes import toy_bundle

DRAFT = Manifest.model_validate(
    {
        "name": "pets",
        "version": 1,
        "task": "single_label",
        "labels": ["cat", "dog"],
        "input": {"kind": "features", "shape": [2]},
        "golden": [{"file": "golden/0.json", "scores": [0.25, 0.75], "tolerance": 1e-3}],
        "variants": [{"file": "model.onnx", "precision": "fp32"}],
        "provenance": {"run_id": "r", "created": "2026-11-22T00:00:00Z", "data_digest": "d"},
    }
)


GRAPH = onnx.ModelProto(ir_version=8).SerializeToString()


def publish(root: Path) -> store.Bundle:
    with store.staging(root, "pets") as folder:
        (folder / "model.onnx").write_bytes(GRAPH)
        (folder / "golden").mkdir()
        (folder / "golden/0.json").write_text("[1, 2]")
        return store.publish(folder, DRAFT)


def test_versions_count_up_and_read_back(tmp_path):
    first, second = publish(tmp_path), publish(tmp_path)
    assert (first.manifest.version, second.manifest.version) == (1, 2)
    assert store.names(tmp_path) == ["pets"]
    assert store.versions(tmp_path, "pets") == [1, 2]
    bundle = store.read(tmp_path, "pets", 2)
    assert bundle == second
    assert bundle.read("model.onnx") == GRAPH
    assert set(bundle.manifest.files) == {"model.onnx", "golden/0.json"}


def test_nothing_is_left_of_a_staging_that_failed(tmp_path):
    def fail() -> None:
        with store.staging(tmp_path, "pets") as folder:
            (folder / "model.onnx").write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list((tmp_path / "pets").iterdir()) == []
    assert store.names(tmp_path) == []


def test_a_draft_whose_files_are_missing_is_not_published(tmp_path):
    with store.staging(tmp_path, "pets") as folder, pytest.raises(BundleError, match=r"model\.onnx"):
        store.publish(folder, DRAFT)
    assert store.versions(tmp_path, "pets") == []


def test_publishers_at_once_get_a_version_each(tmp_path):
    """Eight threads start together; none overwrites another."""
    start, published, failures = threading.Barrier(8), [], []

    def run() -> None:
        start.wait()
        try:
            published.append(publish(tmp_path).manifest.version)
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert sorted(published) == list(range(1, 9))
    for version in published:
        store.read(tmp_path, "pets", version)


PUBLISHING = """
import sys
from pathlib import Path
from tests.taxon.test_store import publish
root, count = Path(sys.argv[1]), int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(count):
    print(publish(root).manifest.version, flush=True)
"""


def publishing(root: Path, count: int) -> "subprocess.Popen[str]":
    """A process that publishes `count` times once a line is written to it."""
    process = subprocess.Popen(
        [sys.executable, "-c", PUBLISHING, str(root), str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": "."},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_processes_publishing_at_once_get_a_version_each(tmp_path):
    processes = [publishing(tmp_path, 10) for _ in range(2)]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    published = [[int(line) for line in process.communicate()[0].split()] for process in processes]
    assert sorted(published[0] + published[1]) == list(range(1, 21))
    for version in range(1, 21):
        assert store.read(tmp_path, "pets", version).manifest.version == version
    assert {path.name for path in (tmp_path / "pets").iterdir()} == {".last_version", *map(str, range(1, 21))}


def test_a_killed_publisher_leaves_whole_versions_only(tmp_path):
    """One that dies between taking a number and using it leaves a gap."""
    for attempt in range(4):
        with publishing(tmp_path, 10_000) as process:
            process.stdin.write("\n")
            process.stdin.flush()
            time.sleep(random.Random(attempt).uniform(0.005, 0.05))
            process.send_signal(signal.SIGKILL)
        found = store.versions(tmp_path, "pets")
        assert max(found, default=0) <= len(found) + attempt + 1
        for version in found:
            store.read(tmp_path, "pets", version)
    assert publish(tmp_path).manifest.version > max(found, default=0)


FULL = """
import resource, sys
from pathlib import Path
from tests.taxon.test_store import publish
publish(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), -1))
try:
    publish(Path(sys.argv[1]))
except OSError as error:
    sys.exit(error.strerror)
"""


@pytest.mark.parametrize("limit", [3, 300])
def test_a_file_that_the_system_cuts_off_is_never_published(tmp_path, limit):
    """Real short writes: 3 bytes tear the graph, 300 the manifest."""
    process = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path), str(limit)],
        env=os.environ | {"PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "File too large" in process.stderr
    assert {path.name for path in (tmp_path / "pets").iterdir()} == {".last_version", "1"}
    store.read(tmp_path, "pets", 1)


def test_a_full_disk_publishes_nothing(tmp_path, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        publish(tmp_path)
    assert list((tmp_path / "pets").iterdir()) == []


def damage(folder: Path, **parts: object) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, **parts}))


@pytest.mark.parametrize(
    ("break_it", "complaint"),
    [
        (lambda f: (f / "manifest.json").unlink(), "cannot be read"),
        (lambda f: (f / "model.onnx").unlink(), "model.onnx is missing"),
        (lambda f: (f / "model.onnx").write_bytes(GRAPH[:-1] + b"\x09"), "model.onnx has sha256"),
        (lambda f: (f / "golden/0.json").write_text("[1, 3]"), "golden/0.json has sha256"),
        (lambda f: damage(f, format_version=9), "upgrade taxon"),
        (lambda f: damage(f, name="cars"), "holds cars version 1"),
        (lambda f: damage(f, version=7), "holds pets version 7"),
        (lambda f: damage(f, files={}), "gives no digest for"),
    ],
)
def test_a_damaged_bundle_is_refused_with_the_reason(tmp_path, break_it, complaint):
    break_it(publish(tmp_path).folder)
    with pytest.raises(BundleError, match=complaint):
        store.read(tmp_path, "pets", 1)


def test_weights_of_maps_without_a_digest_are_refused(tmp_path):
    """Else whoever reads them finds it out, in two workers."""
    bundle = toy_bundle(tmp_path, maps=True)
    files = {file: digest for file, digest in bundle.manifest.files.items() if file != "maps.npy"}
    damage(bundle.folder, files=files)
    with pytest.raises(BundleError, match=r"gives no digest for \['maps.npy'\]"):
        store.read(tmp_path, "colors", 1)


def test_a_link_out_of_the_bundle_is_refused(tmp_path):
    folder = publish(tmp_path).folder
    secret = tmp_path / "secret"
    secret.write_bytes(GRAPH)
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").symlink_to(secret)
    with pytest.raises(BundleError, match="leads out"):
        store.read(tmp_path, "pets", 1)


def test_what_is_no_bundle_is_not_listed(tmp_path):
    publish(tmp_path)
    for name in ("pets/02", "pets/x", "pets/9", ".hidden/1", "empty"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "pets/9/model.onnx").write_bytes(b"half")
    assert store.names(tmp_path) == ["pets"]
    assert store.versions(tmp_path, "pets") == [1]


def test_a_published_bundle_is_readable_by_another_user(tmp_path):
    """The service's container runs as a user of its own."""
    assert publish(tmp_path).folder.stat().st_mode & 0o055 == 0o055


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_a_folder_that_cannot_be_read_hides_no_other_model(tmp_path, monkeypatch, code):
    publish(tmp_path)
    for folder in ("lost+found", "another"):
        (tmp_path / folder / "1").mkdir(parents=True)
    iterdir = Path.iterdir

    def refuse(path: Path):
        if path.name in ("lost+found", "another"):
            raise OSError(code, os.strerror(code), str(path))
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert store.names(tmp_path) == ["pets"]
    assert store.versions(tmp_path, "another") == []


def test_a_folder_whose_name_is_none_of_a_model_is_not_listed(tmp_path):
    """Its bundle could not be read: no manifest holds such a name."""
    shutil.copytree(publish(tmp_path).folder, tmp_path / "Pets" / "1")
    assert store.names(tmp_path) == ["pets"]


STAGING = """
import sys
from pathlib import Path
from taxon.bundle import store
with store.staging(Path(sys.argv[1]), "pets") as folder:
    (folder / "model.onnx").write_bytes(b"half")
    print(folder, flush=True)
    sys.stdin.read()
"""


def staged_by_a_process(root: Path) -> "tuple[subprocess.Popen[str], Path]":
    process = subprocess.Popen(
        [sys.executable, "-c", STAGING, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    folder = Path(process.stdout.readline().rstrip())
    assert folder.is_dir()
    return process, folder


def make_old(folder: Path) -> None:
    long_ago = time.time() - 2 * store.ABANDONED_AFTER_S
    os.utime(folder, (long_ago, long_ago))


def test_what_a_killed_publisher_left_is_removed_after_a_day(tmp_path):
    process, folder = staged_by_a_process(tmp_path)
    with process:
        process.send_signal(signal.SIGKILL)
    publish(tmp_path)
    assert folder.exists()
    make_old(folder)
    publish(tmp_path)
    assert not folder.exists()
    assert store.versions(tmp_path, "pets") == [1, 2]


def test_a_living_publisher_keeps_its_folder_however_long_it_takes(tmp_path):
    process, folder = staged_by_a_process(tmp_path)
    with process, store.staging(tmp_path, "pets") as own:
        for staged in (folder, own):
            make_old(staged)
        publish(tmp_path)
        assert (folder / "model.onnx").read_bytes() == b"half"
        assert own.is_dir()
        process.communicate("")
    assert not folder.exists()


def test_a_new_models_folder_is_synced_into_the_repository(tmp_path, monkeypatch):
    synced, sync = [], store.atomic_files.sync
    monkeypatch.setattr(store.atomic_files, "sync", lambda path: synced.append(path) or sync(path))
    root = tmp_path / "new" / "models"
    publish(root)
    assert {tmp_path, root.parent, root, root / "pets"} <= set(synced)
    assert synced.index(root) < synced.index(root / "pets")  # before what is in it, too
