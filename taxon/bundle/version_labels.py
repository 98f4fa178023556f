"""Names for versions, a part of `traffic`: `stable` names the version that answers by default."""

from pathlib import Path

from taxon.bundle import traffic
from taxon.bundle.manifest import check_name
from taxon.bundle.traffic import STABLE

__all__ = ["STABLE", "read", "remove", "write"]


def read(root: Path, name: str) -> dict[str, int]:
    """All labels of a model with the versions that they name. Empty if it has none.

    Raises:
        BundleError: See `traffic.read`.
    """
    return traffic.read(root, name).labels


def write(root: Path, name: str, label: str, version: int) -> None:
    """Points a label at a version. A canary or shadow that becomes the default is one no more.

    Raises:
        BundleError: What is declared now cannot be read.
        ValueError: The label is not a name, or is a number and would hide the version of that number.
        OSError: The repository is not writable; the label is as it was.
    """
    if check_name(label).isdecimal():
        raise ValueError(f"label {label!r} is a number: it would hide the version {label}")
    traffic.change(root, name, lambda declared: declared.labelled(label, version))


def remove(root: Path, name: str, label: str) -> None:
    """Takes a label away; one that is not there is gone already.

    Raises:
        BundleError: What is declared now cannot be read.
        ValueError: A canary or shadow needs it.
        OSError: The repository is not writable; the label is as it was.
    """
    check_name(label)
    traffic.change(
        root,
        name,
        lambda declared: declared.changed(
            labels={other: version for other, version in declared.labels.items() if other != label}
        ),
    )
