"""The folder of bundles → what may be served. Reports what is refused, and goes on with the others."""

from collections.abc import Callable, Iterator
from pathlib import Path

import structlog

from service.proving import Proven
from taxon.bundle import store
from taxon.bundle.manifest import BundleError
from taxon.bundle.store import Bundle

log = structlog.get_logger(__name__)


def load_all(root: Path, prove: Callable[[Bundle], Proven], on_refused: Callable[[], None]) -> Iterator[Proven]:
    """Reads and proves every version of every model, latest versions first, so that each model is servable as
    soon as can be.

    Args:
        root: The repository.
        prove: Raises `BundleError` for a bundle that must not be served.
        on_refused: Called for each bundle that is refused; the reason is in the log.
    """
    try:
        found = [(name, version) for name in store.names(root) for version in reversed(store.versions(root, name))]
    except OSError as error:
        log.error("model folder cannot be read", folder=str(root), reason=str(error))
        return
    if not found:
        log.error("model folder holds no bundle", folder=str(root))
    for name, version in found:
        try:
            proven = prove(store.read(root, name, version))
        except BundleError as error:
            log.error("bundle refused", model=name, version=version, reason=str(error))
            on_refused()
            continue
        log.info(
            "bundle proven",
            model=name,
            version=version,
            variant=proven.variant.precision,
            execution_provider=proven.session.provider,
            largest_difference=proven.largest_difference,
            run_ms={bucket: round(seconds * 1e3, 3) for bucket, seconds in proven.run_s.items()},
        )
        yield proven
