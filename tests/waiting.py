"""Waiting for what no event tells of."""

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], bool]) -> None:
    """Waits for what other threads and processes bring about."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - nothing here could set an event
            await asyncio.sleep(0.005)
