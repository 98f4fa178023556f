"""Names for versions, a part of `traffic`: `stable` names the version that answers by default."""

from pathlib import Path

from taxon.bundle import store, traffic
from taxon.bundle.manifest import BundleError, check_name
from taxon.bundle.traffic import STABLE

__all__ = ["STABLE", "named", "read", "remove", "write"]


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


def named(root: Path, name: str = "", version: str = "") -> tuple[str, int]:
    """The model and the version that a caller means, as a service of this repository would understand it.

    Args:
        root: The repository.
        name: Empty for its only model.
        version: A number or a label; empty for the default.

    Raises:
        BundleError: There is no such model or version, or several models and no name.
        OSError: The repository cannot be read.
    """
    if not name:
        models = store.names(root)
        if len(models) != 1:
            raise BundleError(f"{root} holds {', '.join(models) or 'no model'}: name one")
        (name,) = models
    published = store.versions(root, check_name(name))
    if not published:
        raise BundleError(f"{root} holds no model {name!r}")
    labels = read(root, name)
    if version.isascii() and version.isdecimal():
        number = int(version)
    elif version and version not in labels:
        raise BundleError(f"{name} has no version that is labelled {version!r}")
    else:
        number = labels.get(version or STABLE, published[-1])
    if number not in published:
        raise BundleError(f"{name} has no version {number}: there is {', '.join(map(str, published))}")
    return name, number
