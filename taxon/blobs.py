"""Contents by name, in a folder or wherever a URL points: s3://…, gs://…, whatever fsspec knows (extra `objects`).

Whatever is put is wholly there or not at all, and lasts once it has been put. Every error is an `OSError` that says
where, whichever library stands behind the URL.
"""

import errno
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from taxon import extras
from taxon.bundle import atomic_files
from taxon.mistaken import first_line

LOCAL = ("file", "local")


class Blobs(Protocol):
    """Names are such as `pictures/ab/abcd.png`. Every method raises `OSError`."""

    def put(self, contents: Mapping[str, bytes]) -> None:
        """Keeps all of them; those that are there already are written again."""
        ...

    def put_file(self, name: str, file: Path) -> None:
        """The same of a file, which need not fit into memory."""
        ...

    def get(self, name: str) -> bytes:
        """A content; `FileNotFoundError` if it is not there."""
        ...

    def get_file(self, name: str, file: Path) -> None:
        """Writes a content into a new file, or a part of it if that fails; `FileNotFoundError` if it is not there."""
        ...

    def size(self, name: str) -> int | None:
        """Bytes of a content; None if it is not there."""
        ...

    def names(self, folder: str) -> Iterator[str]:
        """Everything below a folder, with what writers that were killed have left half done."""
        ...

    def remove(self, names: Iterable[str]) -> None:
        """What is gone already is gone."""
        ...


class FolderBlobs:
    """See `Blobs`."""

    def __init__(self, folder: Path, mode: int) -> None:
        """Uses a folder.

        Args:
            folder: Need not be there yet.
            mode: Of the files in it.
        """
        self.folder = folder
        self._mode = mode

    def put(self, contents: Mapping[str, bytes]) -> None:
        """See `Blobs`. Written and synced one by one."""
        for name, content in contents.items():
            atomic_files.write(self._place(name), content, self._mode)

    def put_file(self, name: str, file: Path) -> None:
        """See `Blobs`."""
        with file.open("rb") as opened, atomic_files.replacing(self._place(name), self._mode) as new:
            shutil.copyfileobj(opened, new)

    def _place(self, name: str) -> Path:
        path = self.folder / name
        atomic_files.make_folder(path.parent)
        return path

    def get(self, name: str) -> bytes:
        """See `Blobs`."""
        return (self.folder / name).read_bytes()

    def get_file(self, name: str, file: Path) -> None:
        """See `Blobs`."""
        shutil.copyfile(self.folder / name, file)

    def size(self, name: str) -> int | None:
        """See `Blobs`."""
        try:
            return (self.folder / name).stat().st_size
        except FileNotFoundError:
            return None

    def names(self, folder: str) -> Iterator[str]:
        """See `Blobs`."""
        for path in (self.folder / folder).rglob("*"):
            if path.is_file():
                yield path.relative_to(self.folder).as_posix()

    def remove(self, names: Iterable[str]) -> None:
        """See `Blobs`."""
        for name in names:
            (self.folder / name).unlink(missing_ok=True)


class ObjectBlobs:
    """See `Blobs`. For stores whose objects are written as a whole, and last once that is confirmed."""

    def __init__(self, url: str) -> None:
        """Opens the place.

        Raises:
            OSError: A package is missing, nobody knows the scheme, or it cannot be reached; the message says which.
        """
        self._url = url.rstrip("/")
        try:
            from fsspec.core import url_to_fs
        except ImportError as error:
            raise OSError(errno.ENOPKG, f"{error}; install it with: {extras.install('objects')}", url) from error
        with self._told():
            # What others have written meanwhile must be seen.
            self._files, self._root = url_to_fs(self._url, use_listings_cache=False)

    def put(self, contents: Mapping[str, bytes]) -> None:
        """See `Blobs`. All at once, where the library can."""
        with self._told():
            self._files.pipe({self._path(name): content for name, content in contents.items()})

    def put_file(self, name: str, file: Path) -> None:
        """See `Blobs`."""
        with self._told(name):
            self._files.put_file(str(file), self._path(name))

    def get(self, name: str) -> bytes:
        """See `Blobs`."""
        with self._told(name):
            content: bytes = self._files.cat_file(self._path(name))
        return content

    def get_file(self, name: str, file: Path) -> None:
        """See `Blobs`."""
        with self._told(name):
            self._files.get_file(self._path(name), str(file))

    def size(self, name: str) -> int | None:
        """See `Blobs`."""
        try:
            with self._told(name):
                found: dict[str, Any] = self._files.info(self._path(name))
        except FileNotFoundError:
            return None
        return int(found["size"])

    def names(self, folder: str) -> Iterator[str]:
        """See `Blobs`."""
        with self._told(folder):
            found = self._files.find(self._path(folder))
        for path in found:
            yield path[len(self._root) + 1 :]

    def remove(self, names: Iterable[str]) -> None:
        """See `Blobs`."""
        with self._told():
            for name in names:
                try:
                    self._files.rm_file(self._path(name))
                except FileNotFoundError:
                    continue

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextmanager
    def _told(self, name: str = "") -> Iterator[None]:
        """What the library says, as `OSError` with the place in it."""
        where = f"{self._url}/{name}".rstrip("/")
        try:
            yield
        except FileNotFoundError as error:
            raise FileNotFoundError(errno.ENOENT, "it is not there", where) from error
        except OSError as error:
            raise OSError(error.errno or errno.EIO, error.strerror or first_line(error), where) from error
        except Exception as error:  # each library has errors of its own
            raise OSError(errno.EIO, f"{type(error).__name__}: {first_line(error)}", where) from error


def open_blobs(place: str, *, mode: int = 0o644) -> Blobs:
    """Of a folder or a URL; a folder need not be there yet.

    Args:
        place: A path, file://PATH, or another URL.
        mode: Of files in a folder.

    Raises:
        OSError: It cannot be used.
    """
    scheme, is_url, path = place.partition("://")
    if is_url and scheme not in LOCAL:
        return ObjectBlobs(place)
    return FolderBlobs(Path(path if is_url else place), mode)  # synced, which no library of URLs does
