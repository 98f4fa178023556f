"""Replacing files: old or new, never in between, and nothing left lying about."""

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from taxon.bundle import atomic_files


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_text_and_bytes_replace_what_was_there(tmp_path):
    file = tmp_path / "a"
    atomic_files.write(file, "größer")
    assert file.read_bytes() == "größer".encode()
    atomic_files.write(file, b"\xff")
    assert file.read_bytes() == b"\xff"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("mode", [0o644, 0o600])
def test_the_mode_is_the_one_that_was_asked_for(tmp_path, mode):
    """Whatever the umask: the service's user must read what an operator with a strict one writes."""
    before = os.umask(0o077)
    try:
        atomic_files.write(tmp_path / "a", "new", mode)
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == mode


def fails_after_writing(path: Path) -> None:
    with atomic_files.replacing(path) as file:
        file.write(b"half")
        raise RuntimeError


def test_a_writer_that_fails_leaves_the_old_file(tmp_path):
    atomic_files.write(tmp_path / "a", "old")
    with pytest.raises(RuntimeError):
        fails_after_writing(tmp_path / "a")
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    atomic_files.write(tmp_path / "a", "old")

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space") as failed:
        atomic_files.write(tmp_path / "a", "new")
    assert failed.value.filename == str(tmp_path / "a")
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_the_file_is_synced_before_the_renaming_and_the_folder_after_it(tmp_path, monkeypatch):
    steps, fsync, replace = [], os.fsync, Path.replace

    def noted_sync(descriptor: int) -> None:
        steps.append("folder" if Path(f"/proc/self/fd/{descriptor}").is_dir() else "file")
        fsync(descriptor)

    def noted_replace(path: Path, target: Path) -> None:
        steps.append("rename")
        replace(path, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    atomic_files.write(tmp_path / "a", "new")
    assert steps == ["file", "rename", "folder"]


def test_writers_at_once_never_mix(tmp_path):
    """Each writes in two parts, with all others between them."""
    count, written = 8, threading.Barrier(8)

    def run(letter: bytes) -> None:
        with atomic_files.replacing(tmp_path / "a") as file:
            file.write(letter * 1000)
            file.flush()
            written.wait(10)
            file.write(letter * 1000)

    threads = [threading.Thread(target=run, args=(b"%d" % number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    content = (tmp_path / "a").read_bytes()
    assert content == content[:1] * 2000
    assert names(tmp_path) == ["a"]


KILLED = """
import sys
from pathlib import Path
from taxon.bundle import atomic_files
with atomic_files.replacing(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    print("written", flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_writer_left_is_removed_in_the_end(tmp_path):
    """Not at once: it could be a living writer's."""
    target = tmp_path / "model [1].pt"
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(target)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout.readline() == "written\n"
        writer.send_signal(signal.SIGKILL)
    (left,) = tmp_path.iterdir()
    atomic_files.write(target, "new")
    assert names(tmp_path) == sorted([left.name, target.name])
    os.utime(left, (0, 0))
    atomic_files.write(tmp_path / "other", "new")
    assert left.exists()
    atomic_files.write(target, "new")
    assert names(tmp_path) == [target.name, "other"]


def test_every_new_folder_is_synced_into_its_parent(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(atomic_files, "sync", synced.append)
    atomic_files.make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    assert set(synced) == {tmp_path, tmp_path / "a"}
    synced.clear()
    atomic_files.make_folder(tmp_path / "a" / "b")
    assert synced == []


@pytest.mark.parametrize("folder", ["", "a", "a/b/c"])
def test_a_folder_that_could_be_made_is_writable_where_it_would_begin(tmp_path, monkeypatch, folder):
    assert atomic_files.check_writable(tmp_path / folder) == tmp_path
    monkeypatch.chdir(tmp_path)
    assert atomic_files.check_writable(Path(folder)).samefile(tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize("folder", ["file", "file/below"])
def test_a_file_in_the_way_of_a_folder_is_named(tmp_path, folder):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError) as refused:
        atomic_files.check_writable(tmp_path / folder)
    assert refused.value.filename == str(tmp_path / "file")
