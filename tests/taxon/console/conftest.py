"""The console as browsers ask it, in front of a real server of this process."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from taxon.bundle import default_history, version_labels
from taxon.connection import Connection
from taxon.console.pages import Console, application
from tests.fakes import toy_bundle
from tests.service.conftest import Running, running

ORIGIN = "http://127.0.0.1:8600"
OWN = {"sec-fetch-site": "same-origin"}
"""What a browser says of a form on one of our own pages."""
NOBODY = "127.0.0.1:1"
"""Where no server is, for pages that ask none."""
EVIL = "<img src=x onerror=alert(1)>"


@asynccontextmanager
async def opened(
    address: str = NOBODY, *, key: str | None = None, **settings: object
) -> AsyncIterator[httpx.AsyncClient]:
    """A browser that has come to a console for the server at this address."""
    guarded = application(Console(Connection(address, key=key), **settings))
    async with guarded.app.router.lifespan_context(guarded.app):
        transport = httpx.ASGITransport(guarded)
        async with httpx.AsyncClient(transport=transport, base_url=ORIGIN, headers=OWN) as browser:
            yield browser


@pytest.fixture
def browse() -> Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]:
    return opened


@pytest.fixture
def serve() -> Callable[..., AbstractAsyncContextManager[Running]]:
    return running


@dataclass
class Shared:
    """A server that many tests ask: its model `colors` has a version that is refused, `evil` has labels of HTML,
    and `alike` thumbnails too.
    """

    models: Path
    feedback: Path
    address: str


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory) -> AsyncIterator[Shared]:
    root = tmp_path_factory.mktemp("console")
    models, feedback = root / "models", root / "feedback"
    toy_bundle(models)
    toy_bundle(models, golden_shift=0.3)
    toy_bundle(models, "evil", labels=("red", EVIL, '"quoted"'))
    toy_bundle(models, "alike", labels=("red", EVIL, '"quoted"'), maps=True, thumbnails=("1" * 64, "2" * 64))
    version_labels.write(models, "colors", "candidate", 1)
    default_history.record(models, "colors", {"action": "promote", "from": None, "to": 1, "reason": "<i>first</i>"})
    async with running(models, "--feedback", str(feedback)) as server:
        yield Shared(models, feedback, server.address)
