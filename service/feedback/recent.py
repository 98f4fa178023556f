"""The last answers of one front, so that they can be spoken of by their ids."""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from taxon.service.pipeline import Answer
from taxon.service.scheduling.picture_size import Encoded


class Remembered(NamedTuple):
    """One answer and its picture."""

    picture: Encoded
    answer: Answer
    at: float


class Recent:
    """Bounded in bytes and age. Lives on the event loop; every call passes here, so it does next to nothing."""

    def __init__(self, max_bytes: int, max_age_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._clock = clock
        self._answers: OrderedDict[str, Remembered] = OrderedDict()
        self._byte_count = 0

    def remember(self, request_id: str, picture: Encoded, answer: Answer) -> None:
        """Keeps an answer, and lets go of those that are too old or too many."""
        now = self._clock()
        self._answers[request_id] = Remembered(picture, answer, now)
        self._byte_count += len(picture)
        oldest = now - self._max_age_s
        while self._answers:
            first_id, first = next(iter(self._answers.items()))
            if self._byte_count <= self._max_bytes and first.at > oldest:
                break
            del self._answers[first_id]
            self._byte_count -= len(first.picture)

    def find(self, request_id: str) -> Remembered | None:
        """The answer, if it is remembered."""
        found = self._answers.get(request_id)
        return found if found and found.at > self._clock() - self._max_age_s else None
