"""The command-line options of everything that reads a store."""

import argparse
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from taxon.feedback.errors import StoreError
from taxon.feedback.opening import place_of
from taxon.feedback.sealing import Seal
from taxon.feedback.store import Bounds, Store


def add_store(parser: argparse.ArgumentParser) -> None:
    """Adds where the store is, and its key."""
    parser.add_argument("--store", required=True, metavar="PLACE", help="that of `taxon serve --feedback`")
    parser.add_argument("--pictures", metavar="URL", help="that of `taxon serve --feedback-pictures`")
    parser.add_argument("--key", type=Path, metavar="FILE", help="that of `taxon serve --feedback-key`")


@contextmanager
def opened(options: argparse.Namespace, bounds: Bounds = Bounds()) -> Iterator[Store]:
    """The store that `add_store` asked for, closed after its use; none is made.

    Raises:
        StoreError: There is none, or it cannot be used.
        SealError: The key is none.
    """
    place = place_of(options.store, options.pictures)
    if isinstance(place, Path) and not place.is_dir():
        raise StoreError(f"{place} is not there: give the folder of `taxon serve --feedback`")
    store = Store(place, bounds, seal=options.key and Seal(options.key))
    with closing(store):
        yield store
