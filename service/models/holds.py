"""Models that calls are not done with: one of many inputs goes on with the version that it began with."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Holds:
    """Those of one front. Lives on the event loop."""

    def __init__(self) -> None:
        """Nothing is held."""
        self._counts: Counter[int] = Counter()
        self._changed = asyncio.Event()

    @contextmanager
    def held(self, model: int) -> Iterator[None]:
        """For a call that runs a model more than once."""
        self._counts[model] += 1
        try:
            yield
        finally:
            self._counts[model] -= 1
            if not self._counts[model]:
                del self._counts[model]
                self._changed.set()

    async def let_go(self, model: int) -> None:
        """Returns once no call holds a model."""
        while self._counts[model]:
            self._changed.clear()
            await self._changed.wait()
