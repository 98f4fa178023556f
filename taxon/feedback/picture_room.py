"""The pictures of a store: named by their content, encrypted if a key is given.

Callers hold the index's turn (`Index.writing`) whenever they write or remove, so that no two are at work.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping

from taxon.blobs import Blobs
from taxon.feedback.sealing import Seal, SealError

FOLDER = "pictures"
SEALED = ".sealed"
OWN = re.compile(rf"{FOLDER}/([0-9a-f]{{2}})/(?:(\1[0-9a-f]{{62}})|\.\1[0-9a-f]{{62}})\.[^/]+")
"""What a store calls its pictures, and what files are called while they are written. All else is somebody else's."""
Named = tuple[str, str]
"""A picture's name, see `name_of`, and its extension."""


def name_of(content: bytes) -> str:
    """What a picture is called: the SHA-256 of its content, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def picture_of(blob: str) -> str:
    """Which picture a blob is, by its name; empty: it is what a killed writer has left half done."""
    found = OWN.fullmatch(blob)
    return (found and found[2]) or ""


class PictureRoom:
    """Those of one store."""

    def __init__(self, blobs: Blobs, seal: Seal | None) -> None:
        self._blobs = blobs
        self._seal = seal

    def put(self, pictures: Mapping[Named, bytes]) -> None:
        """Returns once all are kept. What is there already is written again: it may be half of one.

        Raises:
            OSError: There is no room, or the place fails; some may have been kept.
        """
        seal = self._seal
        if seal is None:
            self._blobs.put({_blob(*named): content for named, content in pictures.items()})
        else:
            self._blobs.put({_blob(*n) + SEALED: seal.closed(content, n[0]) for n, content in pictures.items()})

    def read(self, picture: str, extension: str) -> bytes:
        """The content.

        Raises:
            OSError: It is not there, or cannot be read.
            SealError: It was closed with another key or has been changed, or a key is needed.
        """
        blob = _blob(picture, extension)
        try:
            return self._opened(blob, picture) if self._seal else self._blobs.get(blob)
        except FileNotFoundError:  # of a time with, or without, a key
            return self._blobs.get(blob) if self._seal else self._opened(blob, picture)

    def _opened(self, blob: str, picture: str) -> bytes:
        sealed = self._blobs.get(blob + SEALED)
        if self._seal is None:
            raise SealError("the pictures are encrypted: give the key")
        return self._seal.opened(sealed, picture)

    def remove(self, pictures: Iterable[Named]) -> None:
        """Removes pictures, encrypted or not; one that is not there is gone already."""
        self._blobs.remove(_blob(*named) + ending for named in pictures for ending in ("", SEALED))

    def holds(self, picture: str, extension: str) -> bool:
        """Whether it lies there, encrypted or not."""
        return any(self._blobs.size(_blob(picture, extension) + ending) is not None for ending in ("", SEALED))

    def blobs(self) -> Iterator[str]:
        """Everything of ours that lies there, see `picture_of`. What others have put there is none of it."""
        return (blob for blob in self._blobs.names(FOLDER) if OWN.fullmatch(blob))

    def remove_blobs(self, blobs: Iterable[str]) -> None:
        """Those of `blobs`."""
        self._blobs.remove(blobs)


def _blob(picture: str, extension: str) -> str:
    return f"{FOLDER}/{picture[:2]}/{picture}.{extension}"
