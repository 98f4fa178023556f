"""The bytes of one file."""

import os

import pytest

from taxon.table.reading import TooLargeError, read


def test_a_file_is_read_unless_it_is_too_large(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    assert read(str(tmp_path / "a"), 5) == b"12345"
    with pytest.raises(TooLargeError, match="has 5 bytes, at most 4"):
        read(str(tmp_path / "a"), 4)


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(OSError, match="not a regular file"):
            read(str(path), 5)
    with pytest.raises(FileNotFoundError):
        read(str(tmp_path / "gone"), 5)
