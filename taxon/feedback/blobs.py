"""Where the pictures of a store lie: in a folder, or in an object store that several machines share.

Whatever is put is wholly there or not at all, and lasts once `put` has returned.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from taxon.bundle import atomic_files
from taxon.object_store import open_place, told

MODE = 0o600
LOCAL = ("file", "local")


class Blobs(Protocol):
    """Contents by name, such as `pictures/ab/abcd.png`. Every method raises `OSError`, which says where."""

    def put(self, contents: Mapping[str, bytes]) -> None:
        """Keeps all of them; those that are there already are written again."""
        ...

    def get(self, name: str) -> bytes:
        """A content; `FileNotFoundError` if it is not there."""
        ...

    def names(self, folder: str) -> Iterator[str]:
        """Everything below a folder, with what writers that were killed have left half done."""
        ...

    def remove(self, names: Iterable[str]) -> None:
        """What is gone already is gone."""
        ...


class FolderBlobs:
    """See `Blobs`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, contents: Mapping[str, bytes]) -> None:
        """See `Blobs`. Written and synced one by one."""
        for name, content in contents.items():
            path = self._folder / name
            atomic_files.make_folder(path.parent)
            atomic_files.write(path, content, MODE)

    def get(self, name: str) -> bytes:
        """See `Blobs`."""
        return (self._folder / name).read_bytes()

    def names(self, folder: str) -> Iterator[str]:
        """See `Blobs`."""
        for path in (self._folder / folder).rglob("*"):
            if path.is_file():
                yield path.relative_to(self._folder).as_posix()

    def remove(self, names: Iterable[str]) -> None:
        """See `Blobs`."""
        for name in names:
            (self._folder / name).unlink(missing_ok=True)


class ObjectBlobs:
    """See `Blobs`. For stores whose objects are written as a whole, and last once that is confirmed."""

    def __init__(self, url: str) -> None:
        """Opens the place.

        Raises:
            OSError: See `object_store.open_place`.
        """
        self._url = url.rstrip("/")
        self._files, self._root = open_place(self._url)

    def put(self, contents: Mapping[str, bytes]) -> None:
        """See `Blobs`. All at once, where the library can."""
        with told(self._url):
            self._files.pipe({f"{self._root}/{name}": content for name, content in contents.items()})

    def get(self, name: str) -> bytes:
        """See `Blobs`."""
        with told(f"{self._url}/{name}"):
            content: bytes = self._files.cat_file(f"{self._root}/{name}")
        return content

    def names(self, folder: str) -> Iterator[str]:
        """See `Blobs`."""
        with told(f"{self._url}/{folder}"):
            found = self._files.find(f"{self._root}/{folder}")
        for path in found:
            yield path[len(self._root) + 1 :]

    def remove(self, names: Iterable[str]) -> None:
        """See `Blobs`."""
        with told(self._url):
            for name in names:
                try:
                    self._files.rm_file(f"{self._root}/{name}")
                except FileNotFoundError:
                    continue


def open_blobs(place: str) -> Blobs:
    """Of a folder or a URL; a folder is made if there is none.

    Raises:
        OSError: It cannot be used.
    """
    scheme, is_url, path = place.partition("://")
    if is_url and scheme not in LOCAL:
        return ObjectBlobs(place)
    folder = Path(path if is_url else place)  # files here are synced, which no library of URLs does
    if not folder.exists():
        atomic_files.make_folder(folder)
        folder.chmod(0o700)
    return FolderBlobs(folder)
