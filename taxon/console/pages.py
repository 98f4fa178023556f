"""The application: which page answers which path, and what is said when one cannot."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from taxon.connection import Connection
from taxon.console import asking, browsing, faults, loop, reviewing
from taxon.console.faults import Fault
from taxon.console.guard import Guard
from taxon.console.rates import Rates
from taxon.console.rendering import page
from taxon.console.upstream import Upstream
from taxon.errors import TaxonError
from taxon.feedback.errors import StoreError
from taxon.feedback.opening import Place
from taxon.feedback.sealing import Seal
from taxon.feedback.store import Store

STATIC = Path(__file__).parent / "static"
FORM_BYTES = 64 * 1024
"""Room for what is sent beside a picture."""
HEADINGS = {
    400: "That cannot be done.",
    404: "There is nothing here.",
    405: "That page only takes what a form sends.",
    409: "That has changed.",
    413: "That is too large.",
}


@dataclass(frozen=True, slots=True)
class Console:
    """What the pages show."""

    connection: Connection
    """To the server that is asked."""
    runs: Path | None = None
    """Folder of runs of `taxon train`, or of rounds of `taxon round`."""
    models: Path | None = None
    """Repository of published models."""
    feedback: Place | None = None
    """That of `taxon serve --feedback`."""
    seal: Seal | None = None
    """Opens what is kept there."""
    rounds: Path | None = None
    """Folder of rounds of `taxon round`, whether one was held or not."""
    root_path: str = ""
    """What proxies put before every path."""
    hosts: tuple[str, ...] = ()
    """Names by which it may be reached, beside those of this machine."""
    max_picture_bytes: int = 8 * 2**20
    """Of a picture that is sent."""


def application(console: Console) -> Guard:
    """The pages as an ASGI application. Its lifespan holds the connection to the server, and opens the store.

    Raises:
        StoreError: At its start: the store of feedback cannot be used.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.console, app.state.rates, app.state.rooms = console, Rates(), _rooms(console)
        app.state.store = Store(console.feedback, seal=console.seal) if console.feedback else None
        async with Upstream(console.connection) as app.state.upstream:
            yield
        if app.state.store:
            app.state.store.close()

    app = Starlette(
        routes=_routes(console),
        exception_handlers={TaxonError: _failed, HTTPException: _refused, StoreError: _away, Exception: _unforeseen},
        lifespan=lifespan,
    )
    most = console.max_picture_bytes + FORM_BYTES
    return Guard(app, hosts=console.hosts, root_path=console.root_path, max_body_bytes=most)


def _rooms(console: Console) -> list[tuple[str, str]]:
    """What the navigation leads to."""
    found = [("/", "Classify"), ("/models", "Models")]
    found += [("/runs", "Runs")] if console.runs else []
    found += [("/loop", "Loop")] if console.rounds else []
    return found + ([("/feedback", "Feedback")] if console.feedback else [])


def _routes(console: Console) -> list[Route | Mount]:
    routes: list[Route | Mount] = [
        Route("/", asking.ask),
        Route("/classify", asking.classify, methods=["POST"]),
        Route("/explain", asking.explain, methods=["POST"]),
        Route("/say", asking.say, methods=["POST"]),
        Route("/models", browsing.models),
        Route("/models/{name}/{version}", browsing.version),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    if console.runs:
        routes += [
            Route("/runs", browsing.runs),
            Route("/runs/{name:path}/report", browsing.report),
            Route("/runs/{name:path}", browsing.run),
        ]
    if console.rounds:
        routes += [Route("/loop", loop.loop), Route("/loop/{number:int}/report", loop.report)]
    if console.feedback:
        routes += [
            Route("/feedback", reviewing.feedback),
            Route("/feedback/decide", reviewing.decide, methods=["POST"]),
            Route("/feedback/undo", reviewing.undo, methods=["POST"]),
            Route("/feedback/pictures/{picture}.{extension}", reviewing.picture),
        ]
    return routes


async def _failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, TaxonError)  # noqa: S101 - as it is registered
    return _fault(request, faults.of(error))


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - as it is registered
    heading = HEADINGS.get(error.status_code, "That did not work.")
    return _fault(request, Fault(error.status_code, heading, error.detail))


async def _away(request: Request, error: Exception) -> Response:
    return _fault(request, Fault(503, "The store of feedback does not answer.", f"{error}.", passes=True))


async def _unforeseen(request: Request, _: Exception) -> Response:
    return _fault(request, Fault(500, "The console has failed.", "What it has written to its log says why."))


def _fault(request: Request, fault: Fault) -> Response:
    again = request.method == "GET" and fault.passes
    return page(request, "fault.html", fault.status, fault=fault, again=again)
