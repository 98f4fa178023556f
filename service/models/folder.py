"""The folder of models → what may be served. Reports what is refused, and goes on with the others."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import structlog

from taxon.bundle import store
from taxon.bundle.manifest import BundleError
from taxon.bundle.signing import Check
from taxon.bundle.store import Bundle
from taxon.service.runtime import graph_proof
from taxon.service.runtime.bundle_proof import Proven
from taxon.service.runtime.config_pbtxt import read_config
from taxon.service.runtime.graph_proof import ProvenGraph

OnRefused = Callable[[str, int, str], None]
"""Told the name and version of a model that must not be served, and the reason."""
ProvenT = TypeVar("ProvenT")

log = structlog.get_logger(__name__)


def load_bundles(
    root: Path,
    names: Sequence[str],
    is_wanted: Callable[[str, int], bool],
    prove: Callable[[Bundle], Proven],
    on_refused: OnRefused,
    check_signature: Check | None = None,
) -> Iterator[Proven]:
    """Reads and proves the versions of bundles, latest versions first, so that each model is servable as soon as
    can be.

    Args:
        root: The repository.
        names: Of the models.
        is_wanted: Whether a version is to be read.
        prove: Raises `BundleError` for a bundle that must not be served.
        on_refused: Called for each that is refused; the reason is in the log too.
        check_signature: Raises `BundleError` for a manifest without the required signature; None requires none.
    """
    found = [
        (name, version)
        for name in names
        for version in reversed(store.versions(root, name))
        if is_wanted(name, version)
    ]

    def read_and_prove(name: str, version: int) -> Proven:
        return prove(store.read(root, name, version, check_signature))

    for proven in _each(found, read_and_prove, on_refused):
        log.info(
            "bundle proven",
            model=proven.manifest.name,
            version=proven.manifest.version,
            variant=proven.variant.precision,
            execution_provider=proven.session.provider,
            largest_difference=proven.largest_difference,
            run_ms=_milliseconds(proven.run_s.items()),
        )
        yield proven


def load_graphs(
    root: Path, names: Sequence[str], prove: Callable[[str, int], ProvenGraph], on_refused: OnRefused
) -> Iterator[ProvenGraph]:
    """As `load_bundles`, for models without manifests. Versions that a model's configuration leaves out are left
    out here.
    """
    found = []
    for name in names:
        newest_first = list(reversed(graph_proof.versions(root, name)))
        try:
            config = read_config(root / name)
        except BundleError as error:
            for version in newest_first:
                _refuse(name, version, error, on_refused)
            continue
        found += [(name, version) for newer, version in enumerate(newest_first) if config.serves(version, newer)]
    for proven in _each(found, prove, on_refused):
        log.info(
            "graph proven",
            model=proven.described.name,
            version=proven.described.version,
            execution_provider=proven.described.provider,
            max_batch_size=proven.described.max_batch_size,
            run_ms=_milliseconds(proven.run_s.items()),
        )
        yield proven


def _each(
    found: Iterable[tuple[str, int]], prove: Callable[[str, int], ProvenT], on_refused: OnRefused
) -> Iterator[ProvenT]:
    for name, version in found:
        try:
            proven = prove(name, version)
        except BundleError as error:
            _refuse(name, version, error, on_refused)
            continue
        yield proven


def _refuse(name: str, version: int, error: BundleError, on_refused: OnRefused) -> None:
    log.error("bundle refused", model=name, version=version, reason=str(error))
    on_refused(name, version, str(error))


def _milliseconds(run_s: Iterable[tuple[int, float]]) -> dict[int, float]:
    return {bucket: round(seconds * 1e3, 3) for bucket, seconds in run_s}
