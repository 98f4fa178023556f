"""Names for versions: `<root>/<name>/labels/<label>` is a file that holds a version number.

`stable` names the version that answers by default; without it the latest does. Knows nothing of whether a version
can be loaded.
"""

from pathlib import Path

from taxon.bundle import atomic_files
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
    atomic_files.make_folder(folder)
    atomic_files.write(folder / label, f"{version}\n")


def remove(root: Path, name: str, label: str) -> None:
    """Takes a label away; one that is not there is gone already."""
    (root / name / FOLDER / check_name(label)).unlink(missing_ok=True)
