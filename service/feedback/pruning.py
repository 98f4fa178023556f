"""What is too old goes, once an hour, by the one process of a server that owns its workers."""

import asyncio

import structlog

from taxon.feedback.errors import StoreError
from taxon.service.config import Settings
from taxon.service.errors import StartError
from taxon.service.feedback.opening import open_store

EVERY_S = 3600.0

log = structlog.get_logger(__name__)


def check(settings: Settings) -> None:
    """Makes the store if there is none, before there are fronts that use it.

    Raises:
        StartError: It cannot be used.
    """
    try:
        open_store(settings).close()
    except StoreError as error:
        raise StartError(f"--feedback: {error}") from error


async def prune_for_ever(settings: Settings) -> None:
    """Begins at once. A store that cannot be used now is tried again the next time."""
    while True:
        try:
            if count := await asyncio.to_thread(_prune, settings):
                log.info("feedback was too old and is gone", pictures=count)
        except StoreError as error:
            log.error("feedback cannot be pruned", reason=str(error))
        await asyncio.sleep(EVERY_S)


def _prune(settings: Settings) -> int:
    store = open_store(settings)
    try:
        return store.prune()
    finally:
        store.close()
