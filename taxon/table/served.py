"""Answers of a server, so many calls at a time. A server that is busy, restarts or is away for a while is waited for;
what only it can be blamed for is no row of the table, but ends the run, which can go on later.
"""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator

from taxon import in_turns
from taxon.choice import Choice
from taxon.client import AsyncClient
from taxon.connection import Connection
from taxon.errors import DeadlineError, InvalidInputError, OverloadedError, ServerError, UnavailableError
from taxon.requests import MAX_MESSAGE_BYTES
from taxon.table.reading import TooLargeError, read
from taxon.table.rows import IMAGE_TOO_LARGE, Row, answered, failed, unreadable

PATIENCE_S = 120.0
"""So long a server may be away or busy."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
TRIES = 3
"""So often a file may take too long, or break the call, before that is what is said of it."""


def pinned(server: Connection, choice: Choice, timeout_s: float) -> tuple[str, str]:
    """The model and the version that `choice` means now: one table is of one version, whatever is promoted meanwhile.

    Raises:
        TaxonError: There is no such server or model.
    """

    async def ask() -> tuple[str, str]:
        async with AsyncClient(server, timeout_s=timeout_s) as client:
            model = await client.get_model(choice.model_name, choice.model_version)
            if not model.input.HasField("image"):
                raise ValueError(f"{model.name} takes numbers, not pictures")
            return model.name, model.version

    return asyncio.run(ask())


def answers(
    chunks: Iterator[list[str]], base: str, server: Connection, choice: Choice, timeout_s: float, concurrency: int
) -> Iterator[list[Row]]:
    """The rows of every file, in the order in which they are done.

    Args:
        chunks: Names of files; taken as they are needed.
        base: The folder that they are relative to.
        server: Which answers.
        choice: Of a model and version, see `pinned`.
        timeout_s: Of one call.
        concurrency: Calls under way at once.

    Raises:
        TaxonError: The server has been away or busy for longer than `PATIENCE_S`, or refuses this caller or model.
    """

    async def rows() -> AsyncGenerator[Row, None]:
        async with AsyncClient(server, timeout_s=timeout_s) as client:
            names = (name for chunk in chunks for name in chunk)
            async for row in in_turns.awaited(lambda name: _row(client, base, name, choice), names, concurrency):
                yield row

    with asyncio.Runner() as runner:
        each = rows()
        try:
            while some := runner.run(_some(each, concurrency)):
                yield some
        finally:
            runner.run(each.aclose())


async def _some(rows: AsyncIterator[Row], most: int) -> list[Row]:
    found = []
    async for row in rows:
        found.append(row)
        if len(found) >= most:
            break
    return found


async def _row(client: AsyncClient, base: str, name: str, choice: Choice) -> Row:
    path = os.path.join(base, name)  # noqa: PTH118 - a million times
    pause_s, faults, began = FIRST_PAUSE_S, 0, time.monotonic()
    while True:
        try:
            answer = await client.classify(
                await asyncio.to_thread(read, path, MAX_MESSAGE_BYTES),  # which may be far away
                model=choice.model_name,
                version=choice.model_version,
                max_results=choice.max_results,
                min_score=choice.min_score,
            )
        except OSError as error:
            return unreadable(name, error)
        except TooLargeError as error:
            return failed(name, IMAGE_TOO_LARGE, str(error))
        except InvalidInputError as error:
            return failed(name, error.reason or IMAGE_TOO_LARGE, error.message)  # gRPC gives its own refusal no reason
        except (DeadlineError, OverloadedError, ServerError, UnavailableError) as error:
            fault = isinstance(error, DeadlineError | ServerError)
            faults += fault
            if fault and (faults == TRIES or (isinstance(error, ServerError) and error.reason)):
                return failed(name, error.reason or error.code.name, error.message)
            if time.monotonic() - began > PATIENCE_S:
                raise
            await asyncio.sleep(max(pause_s, error.retry_after_s or 0.0))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            continue
        return answered(
            name,
            [found.label for found in answer.classifications],
            [found.score for found in answer.classifications],
            unknown=answer.unknown,
            familiarity=answer.familiarity if answer.HasField("familiarity") else None,
            variant=answer.variant,
        )
