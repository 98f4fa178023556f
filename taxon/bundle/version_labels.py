"""Names for versions: `<root>/<name>/labels/<label>` is a file that holds a version number.

`stable` names the version that answers by default; without it the latest does. Knows nothing of whether a version
can be loaded.
"""

import os
import tempfile
from pathlib import Path

from taxon.bundle.manifest import BundleError, check_name

FOLDER = "labels"
STABLE = "stable"


def read(root: Path, name: str) -> dict[str, int]:
    """All labels of a model with the versions that they name. Empty if it has none.

    Raises:
        BundleError: A file does not hold a positive integer.
    """
    folder = root / name / FOLDER
    if not folder.is_dir():
        return {}
    labels = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue  # half written
        text = path.read_text(encoding="ascii", errors="replace").strip()
        if not text.isdecimal() or int(text) < 1:
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
    folder.mkdir(exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=".", dir=folder)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(f"{version}\n")
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        Path(temporary).replace(folder / label)
    finally:
        Path(temporary).unlink(missing_ok=True)
    folder_descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(folder_descriptor)
    finally:
        os.close(folder_descriptor)


def remove(root: Path, name: str, label: str) -> None:
    """Takes a label away; one that is not there is gone already."""
    (root / name / FOLDER / check_name(label)).unlink(missing_ok=True)
