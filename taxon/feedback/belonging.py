"""Which index and which place of pictures are one store: both hold the same random id.

Without it a mistyped, a second or an emptied database would take another's pictures for what killed writers have left
behind, and sweep them away. Parts of earlier releases have no id: they get one if they fit together, see `_fit`.
"""

import secrets

from taxon.blobs import Blobs
from taxon.feedback.errors import StoreError
from taxon.feedback.index import Index
from taxon.feedback.picture_room import PictureRoom, picture_of
from taxon.feedback.pseudonyms import FILE as KEY
from taxon.feedback.pseudonyms import Pseudonyms

FILE = "store.id"
ID_BYTES = 16
LOOKED_FOR = 16
"""Pictures of an index, the newest first, of which one must lie in a place that has no id."""


def joined(index: Index, blobs: Blobs, pictures: PictureRoom) -> Pseudonyms:
    """Makes sure that an index and a place are of one store, and makes them so if both are new.

    The id is committed in the index before it is written to the place: whoever is killed in between leaves a place
    without an id, which is given it by the next one, and never a place whose id no index has.

    Returns:
        The pseudonyms of the place.

    Raises:
        StoreError: They are of different stores, or the key of the pseudonyms has gone; nothing has changed.
        OSError: The place cannot be read or written.
    """
    with index.writing():
        here, there = _id_of(index), _id_at(blobs)
        if there is None:
            _check_fit(index, pictures)
        elif there != here:
            raise StoreError(
                f"the place of pictures is another store's: its {FILE} is not that of this index. Give the index that "
                "it was made with, or an empty place; remove that file only if the index was restored from a backup of "
                "before there were such files"
            )
        if here is not None and blobs.size(KEY) is None:
            raise StoreError(f"{KEY} is not where the pictures are: give the place that this index was made with")
        pseudonyms = Pseudonyms(blobs)
        index.check_key(pseudonyms.digest)
        if here is None:
            here = secrets.token_hex(ID_BYTES)
            index.execute("INSERT INTO store VALUES (?)", (here,))
    if there is None:
        with index.writing():
            if _id_at(blobs) is None:
                blobs.put({FILE: here.encode()})
    return pseudonyms


def _id_of(index: Index) -> str | None:
    row = index.first("SELECT id FROM store")
    return str(row[0]) if row else None


def _id_at(blobs: Blobs) -> str | None:
    try:
        return blobs.get(FILE).decode(errors="replace").strip()
    except FileNotFoundError:
        return None


def _check_fit(index: Index, pictures: PictureRoom) -> None:
    """Of an index and a place that has no id: one of the index's newest pictures lies there, as all of them do in a
    store that is whole; or there are no pictures in either.
    """
    newest = [*index.execute("SELECT id, extension FROM pictures ORDER BY kept_at DESC LIMIT ?", (LOOKED_FOR,))]
    if newest and not any(pictures.holds(*named) for named in newest):
        raise StoreError(
            "the place of pictures holds none of those that this index speaks of: give the place that it was made with"
        )
    if not newest and any(picture_of(blob) for blob in pictures.blobs()):
        raise StoreError(
            "the place of pictures holds some already, and this index speaks of none: they would be taken for left "
            "over and removed. Give the index that they were kept with, or an empty place"
        )
