"""What goes wrong while a bundle is read has one name, `BundleError`: whoever reads many refuses one and goes on."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from taxon.bundle.manifest import BundleError


@contextmanager
def reading(file: Path | str) -> Iterator[None]:
    """Surrounds the reading of one file or folder.

    Raises:
        BundleError: The system does not let it be read (missing, not permitted, a failing disk or network); the
            message names it and says why.
    """
    try:
        yield
    except OSError as error:
        raise BundleError(f"{file} cannot be read: {error.strerror or error}") from error
