"""Which version numbers of a model are taken: a number means one model for ever, also after its version is deleted,
because labels, running servers and people remember it.

`<root>/<name>/.last_version` holds the highest that was ever given away. Whoever publishes holds the model's folder
(see `folder_lock`) from `last` to the end of publication.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from taxon.bundle import atomic_files, traffic
from taxon.bundle.manifest import BundleError
from taxon.bundle.reading import reading

MARK = ".last_version"


def last(root: Path, name: str, published: Iterable[int]) -> int:
    """The highest number that must not be given away again; 0 if there is none.

    Args:
        root: The repository.
        name: Of the model, whose folder exists.
        published: The versions that are there. Where the mark is missing (an older release published, or somebody
            removed it) they and what labels and trials name say what is taken.

    Raises:
        BundleError: The mark, or in its absence what is declared, cannot be read or is not valid.
    """
    highest = max(published, default=0)
    mark = root / name / MARK
    if not mark.exists():
        return max(highest, *traffic.read(root, name).versions, 0)
    with reading(mark):
        text = mark.read_text(encoding="ascii", errors="replace").strip()
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise BundleError(f"{mark} must hold the highest version number so far, not {text[:20]!r}")
    return max(highest, int(text))


def give_away(root: Path, name: str, version: int) -> None:
    """Marks a number as taken. Before a version gets it: a publisher that dies between the two leaves a gap, never a
    number that a deleted version has had.

    Raises:
        OSError: Not writable, or the disk is full; the mark is as it was.
    """
    atomic_files.write(root / name / MARK, f"{version}\n")
