"""Where a store is → its index and its pictures: a folder with both, or PostgreSQL and a place for pictures."""

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl

from taxon.blobs import Blobs, FolderBlobs, open_blobs
from taxon.bundle import atomic_files, folder_lock
from taxon.feedback.errors import StoreError
from taxon.feedback.index import Index
from taxon.feedback.postgres_index import SCHEMES, PostgresIndex
from taxon.feedback.sqlite_index import SqliteIndex


@dataclass(frozen=True, slots=True)
class Shared:
    """A store of several machines."""

    database: str = field(repr=False)
    """postgresql://USER@HOST/DATABASE?…"""
    pictures: str
    """s3://BUCKET/PREFIX or another URL, or a folder that all of them mount."""


Place = Path | Shared
"""A folder is for the processes of one machine."""


def place_of(store: str, pictures: str | None) -> Place:
    """As options say it.

    Raises:
        StoreError: One is given without the other, a scheme is none of PostgreSQL's, or there is a password in a URL.
    """
    scheme, is_url, _ = store.partition("://")
    if not is_url:
        if pictures:
            raise StoreError("a folder holds its pictures itself: give a place of pictures to postgresql://… only")
        return Path(store)
    if scheme not in SCHEMES:
        raise StoreError(f"a store is a folder or postgresql://…, not {scheme}://…")
    if not pictures:
        raise StoreError("a store in PostgreSQL needs a place for pictures, such as s3://BUCKET/PREFIX")
    # Whoever is on the machine can read the words that a process was started with, and logs tell URLs.
    if _has_password(store):
        raise StoreError(
            "the URL of the store has a password in it: leave it out, and give it in the variable PGPASSWORD, in the "
            "file that PGPASSFILE names or in a service file"
        )
    if _has_password(pictures):
        raise StoreError(
            "the URL of the pictures has a password in it: leave it out, and give it as fsspec takes it elsewhere, "
            f"such as in the variable FSSPEC_{pictures.partition('://')[0].upper()}_PASSWORD"
        )
    return Shared(store, pictures)


def _has_password(url: str) -> bool:
    """Wherever libpq or `urllib` would look for one."""
    after_scheme = url.partition("://")[2]
    user_and_password = after_scheme.partition("/")[0].rpartition("@")[0]
    names = {name for name, _ in parse_qsl(after_scheme.partition("?")[2])}
    return bool(user_and_password.partition(":")[2] or names & {"password", "sslpassword"})


def open_parts(place: Place) -> tuple[Index, Blobs]:
    """Opens both, and makes them if there are none.

    Raises:
        StoreError: The index cannot be used.
        OSError: The folder or the place of pictures cannot.
    """
    if isinstance(place, Shared):
        blobs = _private(place.pictures)
        return PostgresIndex(place.database), blobs
    blobs = _private(str(place))
    with folder_lock.held(place):  # SQLite waits for nobody when it changes its journal
        return SqliteIndex(place), blobs


def _private(place: str) -> Blobs:
    """A folder is made if there is none, and is nobody else's."""
    blobs = open_blobs(place, mode=0o600)
    if isinstance(blobs, FolderBlobs) and not blobs.folder.exists():
        atomic_files.make_folder(blobs.folder)
        blobs.folder.chmod(0o700)
    return blobs
