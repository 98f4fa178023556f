"""The threads on which an event loop waits for what blocks: files, processes that end."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

from taxon.service.errors import StartError

THREAD_COUNT = 8
"""A few are taken for good, by whoever watches files."""


def begin() -> None:
    """Begins all that the running loop will have. Where a container has no process left to give later, none can be
    begun, and whatever wants to wait on one fails.

    Raises:
        StartError: There are none to be had now.
    """
    pool = ThreadPoolExecutor(THREAD_COUNT, "blocking")
    together = threading.Barrier(THREAD_COUNT)  # else the first would do what the others should be begun for
    try:
        for begun in [pool.submit(together.wait) for _ in range(THREAD_COUNT)]:
            begun.result()
    except RuntimeError as error:
        together.abort()
        raise StartError(f"no more threads are to be had: {error}") from None
    asyncio.get_running_loop().set_default_executor(pool)
