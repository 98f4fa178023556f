"""A number that a version has had is never another version's."""

import errno
import fcntl
import os
import shutil
import threading
from pathlib import Path

import pytest

from taxon.bundle import store, version_labels, version_numbers
from taxon.bundle.manifest import BundleError
from tests.taxon.test_store import publish

MARK = ".last_version"


def published(root: Path) -> int:
    return publish(root).manifest.version


def mark(root: Path) -> str:
    return (root / "pets" / MARK).read_text()


def test_the_number_of_a_deleted_version_is_not_used_again(tmp_path):
    assert [published(tmp_path) for _ in range(3)] == [1, 2, 3]
    for version in (2, 3):
        shutil.rmtree(tmp_path / "pets" / str(version))
    assert published(tmp_path) == 4
    assert store.versions(tmp_path, "pets") == [1, 4]
    assert mark(tmp_path) == "4\n"


def test_a_repository_of_an_earlier_release_goes_on_from_its_versions(tmp_path):
    for _ in range(2):
        publish(tmp_path)
    (tmp_path / "pets" / MARK).unlink()
    assert published(tmp_path) == 3


def test_without_the_mark_labels_remember_what_versions_do_not(tmp_path):
    for _ in range(3):
        publish(tmp_path)
    version_labels.write(tmp_path, "pets", "stable", 3)
    shutil.rmtree(tmp_path / "pets" / "3")
    (tmp_path / "pets" / MARK).unlink()
    assert published(tmp_path) == 4


def test_versions_that_were_copied_in_count_too(tmp_path):
    folder = publish(tmp_path).folder
    shutil.copytree(folder, tmp_path / "pets" / "7")
    assert published(tmp_path) == 8


def test_a_folder_in_the_way_is_left_alone(tmp_path):
    (tmp_path / "pets" / "1").mkdir(parents=True)
    (tmp_path / "pets" / "1" / "model.onnx").write_bytes(b"half")
    assert published(tmp_path) == 2
    assert (tmp_path / "pets" / "1" / "model.onnx").read_bytes() == b"half"
    assert mark(tmp_path) == "2\n"


def test_a_number_that_nobody_got_is_given_to_the_next(tmp_path, monkeypatch):
    publish(tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", full)
        with pytest.raises(OSError, match="No space"):
            publish(tmp_path)
    assert published(tmp_path) == 2


def test_a_publisher_that_dies_before_the_renaming_leaves_a_gap(tmp_path, monkeypatch):
    """It may have died behind it just as well, and the version may be deleted since."""

    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", die)
        with pytest.raises(Killed):
            publish(tmp_path)
    assert published(tmp_path) == 2


@pytest.mark.parametrize("content", [b"", b"seven", b"-1", b"\xff\xfe", b"9" * 5000])
def test_a_damaged_mark_is_named_and_nothing_published(tmp_path, content):
    publish(tmp_path)
    (tmp_path / "pets" / MARK).write_bytes(content)
    with pytest.raises(BundleError, match=r"\.last_version must hold the highest version number"):
        publish(tmp_path)
    assert store.versions(tmp_path, "pets") == [1]


def test_publishers_at_once_keep_the_highest_mark(tmp_path):
    """Each deletes what it has published, so that only the mark remembers."""
    start, numbers = threading.Barrier(6), []

    def run() -> None:
        start.wait(10)
        for _ in range(4):
            bundle = publish(tmp_path)
            numbers.append(bundle.manifest.version)
            shutil.rmtree(bundle.folder)

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 25))
    assert mark(tmp_path) == "24\n"


def test_two_publishers_without_locks_get_a_version_each(tmp_path, monkeypatch):
    """On NFS: the one who comes second finds its number's folder there, and goes on."""
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    others, give_away = [], version_numbers.give_away

    def overtaken(root: Path, name: str, version: int) -> None:
        if not others:
            others.append(None)
            others[0] = published(tmp_path)
        give_away(root, name, version)

    monkeypatch.setattr(version_numbers, "give_away", overtaken)
    assert published(tmp_path) == 2
    assert others == [1]
    assert mark(tmp_path) == "2\n"
