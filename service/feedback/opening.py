"""The store of a server, as its settings say."""

from taxon.feedback.errors import StoreError
from taxon.feedback.opening import place_of
from taxon.feedback.sealing import Seal, SealError
from taxon.feedback.store import Bounds, Store
from taxon.service.config import Settings

DAY_S = 86400.0


def open_store(settings: Settings) -> Store:
    """For the thread that calls; it is made if there is none.

    Raises:
        StoreError: It cannot be used, or its key cannot; the message says why.
    """
    if settings.feedback is None:
        raise StoreError("no place for feedback is given")
    place = place_of(settings.feedback, settings.feedback_pictures)
    bounds = Bounds(settings.feedback_max_bytes, settings.feedback_max_days * DAY_S, settings.feedback_max_per_hour)
    try:
        seal = None if settings.feedback_key is None else Seal(settings.feedback_key)
    except SealError as error:
        raise StoreError(str(error)) from error
    return Store(place, bounds, seal)
