"""Files that are wholly old or wholly new, whenever the machine stops, and folders that are still there afterwards."""

import errno
import glob
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

LEFT_BEHIND_S = 3600.0
"""A file that is being written has changed more recently."""


@contextmanager
def replacing(path: Path, mode: int = 0o644) -> Iterator[BinaryIO]:
    """A file to write into that takes the place of `path` at the end: synced, then renamed. Of several writers at
    once the last one's file stays.

    Args:
        path: Its folder must exist.
        mode: Of the new file, whatever the umask and the mode of the old one.

    Raises:
        OSError: Not writable, or the disk is full; a previous file is untouched. `filename` says where.
    """
    _remove_left_behind(path)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk names none
        raise
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)  # makes the renaming itself last


def write(path: Path, content: bytes | str, mode: int = 0o644) -> None:
    """Replaces a file; text is written in UTF-8.

    Raises:
        OSError: As for `replacing`.
    """
    with replacing(path, mode) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def check_writable(folder: Path) -> Path:
    """Whether something could be made in a folder, which itself may have to be made: before long work whose result it
    is to hold.

    Returns:
        The folder, or the nearest above it that is there.

    Raises:
        OSError: It cannot; `filename` is the place that is in the way.
    """
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not existing.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(existing))
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(existing))
    return existing


def make_folder(path: Path) -> None:
    """Makes a folder and those above it that are missing, so that their entries last. One that is there is left alone.

    Raises:
        OSError: A folder above is not writable, or a file is in the way.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        sync(folder.parent)


def sync(path: Path) -> None:
    """Returns once the disk holds a file's bytes, or a folder's entries.

    Raises:
        OSError: The disk is full or fails.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_left_behind(path: Path) -> None:
    """Removes what writers of `path` wrote before they were killed: checkpoints would add up to gigabytes."""
    for old in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with suppress(OSError):  # another writer has removed it, or it is not ours
            if time.time() - old.stat().st_mtime > LEFT_BEHIND_S:
                old.unlink()
