"""Many things to do, some of them at a time, without a task or a thread for each that waits."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


async def awaited(
    work: Callable[[ItemT], Awaitable[ResultT]], items: Iterable[ItemT], concurrency: int
) -> AsyncIterator[ResultT]:
    """The results as they are done. Takes the next item when there is room for it; of what `work` raises the first ends
    all.

    Args:
        work: For one item.
        items: May be endless.
        concurrency: So many at once.
    """
    pending: set[asyncio.Future[ResultT]] = set()
    try:
        for item in items:
            pending.add(asyncio.ensure_future(work(item)))
            if len(pending) >= concurrency:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    yield task.result()
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield task.result()
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)


def in_threads(work: Callable[[ItemT], ResultT], items: Iterable[ItemT], concurrency: int) -> Iterator[ResultT]:
    """As `awaited`, in so many threads."""
    pending: set[Future[ResultT]] = set()
    with ThreadPoolExecutor(concurrency) as threads:
        try:
            for item in items:
                pending.add(threads.submit(work, item))
                if len(pending) >= concurrency:
                    done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield future.result()
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        finally:
            threads.shutdown(cancel_futures=True)
