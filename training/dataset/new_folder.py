"""Folders that are wholly there or not at all, whoever else writes the same one."""

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from taxon.bundle.atomic_files import sync
from taxon.training.errors import TrainingError

SYNCS_AT_ONCE = 32
"""File systems join what is synced at once: a third of the time for thousands of small files."""


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to write into that becomes `folder` at the end: everything in it synced, then renamed.

    Where another process was first, its folder stays, and what was written here is removed: both write the same.

    Raises:
        TrainingError: Not writable, or the disk is full; there is no `folder` then.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
            new = Path(temporary, folder.name)
            new.mkdir()
            yield new
            with ThreadPoolExecutor(SYNCS_AT_ONCE) as pool:
                list(pool.map(sync, [new, *new.rglob("*")]))
            try:
                new.rename(folder)
            except OSError:
                if not folder.is_dir():
                    raise
            sync(folder.parent)
    except OSError as error:
        raise TrainingError(f"{folder} cannot be written: {error.strerror or error}") from error
