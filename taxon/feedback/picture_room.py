"""The pictures of a store as files: named by their content, written whole and synced, encrypted if a key is given.

Callers hold the index's turn (`index.writing`) whenever they write or remove, so that no two are at work.
"""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from taxon.bundle import atomic_files
from taxon.feedback.sealing import Seal, SealError

FOLDER = "pictures"
MODE = 0o600


def name_of(content: bytes) -> str:
    """What a picture is called: the SHA-256 of its content, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


class PictureRoom:
    """The files of one store."""

    def __init__(self, folder: Path, seal: Seal | None) -> None:
        self._folder = folder / FOLDER
        self._seal = seal

    def put(self, picture: str, extension: str, content: bytes) -> None:
        """Returns once the disk holds it. A file that is there already is written again: it may be half of one.

        Raises:
            OSError: The disk is full or fails; nothing is left behind.
        """
        path = self._path(picture, extension)
        if self._seal is not None:
            path, content = _sealed(path), self._seal.closed(content, picture)
        atomic_files.make_folder(path.parent)
        atomic_files.write(path, content, MODE)

    def read(self, picture: str, extension: str) -> bytes:
        """The content.

        Raises:
            OSError: It is not there, or cannot be read.
            SealError: It was closed with another key or has been changed, or a key is needed.
        """
        path = self._path(picture, extension)
        if not _sealed(path).exists():
            return path.read_bytes()
        if self._seal is None:
            raise SealError("the pictures are encrypted: give the key")
        return self._seal.opened(_sealed(path).read_bytes(), picture)

    def remove(self, picture: str) -> None:
        """Removes a picture under whatever ending; one that is not there is gone already."""
        for path in self._folder.glob(f"{picture[:2]}/{picture}.*"):
            path.unlink(missing_ok=True)

    def sweep(self, is_kept: Callable[[str], bool]) -> int:
        """Removes what no row speaks of: somebody was killed between file and row. Returns how many files."""
        count = 0
        for path in self._folder.glob("*/*"):
            if path.name.startswith(".") or not is_kept(path.name.partition(".")[0]):
                with suppress(FileNotFoundError):
                    path.unlink()
                    count += 1
        return count

    def _path(self, picture: str, extension: str) -> Path:
        return self._folder / picture[:2] / f"{picture}.{extension}"


def _sealed(path: Path) -> Path:
    return path.with_name(path.name + ".sealed")
