"""Published versions below a folder: manifests as they are written, and what became the default when.

Checks no digest: that is for whoever serves a bundle, and takes as long as reading it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taxon.bundle import default_history, store, traffic
from taxon.bundle.manifest import BundleError, Manifest, parse
from taxon.bundle.reading import reading


@dataclass(frozen=True, slots=True)
class Release:
    """One version."""

    name: str
    version: int
    roles: tuple[str, ...]
    """Labels that name it, and trials that it is on."""
    manifest: Manifest | None
    fault: str = ""
    """Why there is no manifest, or no roles."""

    @property
    def origins(self) -> tuple[str, ...]:
        """Ids of runs and `name/version` of bundles that it was made from."""
        provenance = self.manifest and self.manifest.provenance
        return (provenance.run_id, *provenance.parents) if provenance else ()


def found(root: Path) -> list[Release]:
    """Every version of every model, newest first.

    Raises:
        OSError: `root` cannot be read.
    """
    return [release for name in store.names(root) for release in of_model(root, name)]


def of_model(root: Path, name: str) -> Iterator[Release]:
    """The versions of one model, newest first."""
    try:
        declared, fault = traffic.read(root, name), ""
    except BundleError as error:
        declared, fault = traffic.Traffic(), str(error)
    trials = {"canary": declared.canary, "shadow": declared.shadow}
    for version in reversed(store.versions(root, name)):
        roles = [label for label, labelled in declared.labels.items() if labelled == version]
        roles += [f"{role} {trial.share:.3g}" for role, trial in trials.items() if trial and trial.version == version]
        try:
            yield Release(name, version, tuple(roles), _manifest(root / name / str(version) / store.MANIFEST), fault)
        except BundleError as error:
            yield Release(name, version, tuple(roles), None, str(error))


def promotions(root: Path, name: str) -> list[dict[str, Any]]:
    """Every change of the default, newest first.

    Raises:
        OSError: The record cannot be read.
    """
    return default_history.read(root, name)[::-1]


def _manifest(file: Path) -> Manifest:
    with reading(file):
        return parse(file.read_bytes())
