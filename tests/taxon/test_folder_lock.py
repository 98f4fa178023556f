"""Locks on folders: they exclude threads and processes, and end with their holder."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading

import pytest

from taxon.bundle import folder_lock

HOLDING = """
import sys
from pathlib import Path
from taxon.bundle import folder_lock
with folder_lock.held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_is_free_unless_it_is_held(tmp_path):
    assert folder_lock.is_free(tmp_path)
    with folder_lock.held(tmp_path):
        assert not folder_lock.is_free(tmp_path)
    assert folder_lock.is_free(tmp_path)


def test_the_second_waits_for_the_first(tmp_path):
    begun, order = threading.Event(), []

    def second() -> None:
        begun.set()
        with folder_lock.held(tmp_path):
            order.append("second")

    thread = threading.Thread(target=second)
    with folder_lock.held(tmp_path):
        thread.start()
        begun.wait(10)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_a_killed_process_holds_nothing(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        assert not folder_lock.is_free(tmp_path)
        process.send_signal(signal.SIGKILL)
    assert folder_lock.is_free(tmp_path)


def test_a_process_forked_meanwhile_does_not_keep_the_lock(tmp_path):
    read_end, write_end = os.pipe()
    with folder_lock.held(tmp_path):
        child = os.fork()
        if child == 0:
            os.close(write_end)
            os.read(read_end, 1)  # until the parent closes its end
            os._exit(0)
    try:
        assert folder_lock.is_free(tmp_path)
    finally:
        os.close(write_end)
        os.waitpid(child, 0)
        os.close(read_end)


def test_without_locks_nobody_waits_and_nothing_is_free(tmp_path, monkeypatch):
    def refuse(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with folder_lock.held(tmp_path), folder_lock.held(tmp_path):
        assert not folder_lock.is_free(tmp_path)


def test_a_folder_that_is_gone_is_not_free(tmp_path):
    assert not folder_lock.is_free(tmp_path / "gone")
    with pytest.raises(FileNotFoundError), folder_lock.held(tmp_path / "gone"):
        pass
