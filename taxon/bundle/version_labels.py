"""Names for versions: `<root>/<name>/labels/<label>` is a file that holds a version number.

`stable` names the version that answers by default; without it the latest does. Knows nothing of whether a version
can be loaded.
"""

import re
from pathlib import Path

from taxon.bundle import atomic_files
from taxon.bundle.manifest import BundleError, check_name
from taxon.bundle.reading import reading

FOLDER = "labels"
STABLE = "stable"


def read(root: Path, name: str) -> dict[str, int]:
    """All labels of a model with the versions that they name. Empty if it has none.

    Raises:
        BundleError: A file cannot be read, or does not hold a positive integer.
    """
    folder = root / name / FOLDER
    with reading(folder):
        paths = sorted(folder.iterdir()) if folder.is_dir() else []
    labels = {}
    for path in paths:
        if path.name.startswith("."):
            continue  # half written
        with reading(path):
            try:
                text = path.read_text(encoding="ascii", errors="replace").strip()
            except FileNotFoundError:
                continue  # taken away meanwhile
        if not re.fullmatch(r"0*[1-9][0-9]{0,17}", text):
            raise BundleError(f"the label {path} must hold a version number, not {text[:20]!r}")
        labels[path.name] = int(text)
    return labels


def write(root: Path, name: str, label: str, version: int) -> None:
    """Points a label at a version. Readers see the old or the new one, never a torn file.

    Raises:
        ValueError: The label is not a name, or is a number and would hide the version of that number.
        OSError: The repository is not writable; the label is as it was.
    """
    if check_name(label).isdecimal():
        raise ValueError(f"label {label!r} is a number: it would hide the version {label}")
    folder = root / name / FOLDER
    atomic_files.make_folder(folder)
    atomic_files.write(folder / label, f"{version}\n")


def remove(root: Path, name: str, label: str) -> None:
    """Takes a label away; one that is not there is gone already."""
    (root / name / FOLDER / check_name(label)).unlink(missing_ok=True)
