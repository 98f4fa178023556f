"""Pages to look at: what the server serves and how it does, what was published and promoted, what was trained."""

import time
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from taxon.bundle import store
from taxon.console import faults, releases, run_folders
from taxon.console.faults import Fault
from taxon.console.releases import Release
from taxon.console.rendering import page, written_page
from taxon.console.run_folders import RunFolder
from taxon.console.upstream import Upstream
from taxon.errors import AccessError, ModelNotFoundError, TaxonError


async def models(request: Request) -> Response:
    """The server and its versions; the folder of published ones."""
    found, promoted = [], {}
    if root := request.app.state.console.models:
        try:
            found = releases.found(root)
            promoted = {name: releases.promotions(root, name) for name in {one.name: None for one in found}}
        except OSError as error:
            raise _unreadable(root, error) from error
    served = await _server(request)
    return page(request, "models.html", _status(served["fault"]), releases=found, promotions=promoted, **served)


async def version(request: Request) -> Response:
    """One version, as it is served and as it was published."""
    name, number = request.path_params["name"], request.path_params["version"]
    root: Path | None = request.app.state.console.models
    release = next((one for one in _published(root, name) if str(one.version) == number), None)
    model = fault = None
    try:
        model = await request.app.state.upstream.model(name, number)
    except ModelNotFoundError as error:
        if release is None:
            raise HTTPException(404, error.message) from error
    except TaxonError as error:
        if release is None:
            raise
        fault = faults.of(error)
    runs = {run.id: run.name for run in _runs(request)}
    return page(
        request,
        "version.html",
        _status(fault),
        name=name,
        number=number,
        model=model,
        fault=fault,
        release=release,
        run_names=runs,
    )


async def runs(request: Request) -> Response:
    """All runs."""
    return page(request, "runs.html", runs=_runs(request))


async def run(request: Request) -> Response:
    """One run, its epochs and what was published of it."""
    found = _run(request)
    root: Path | None = request.app.state.console.models
    published = [one for one in (releases.found(root) if root else []) if found.id and found.id in one.origins]
    return page(request, "run.html", run=found, published=published)


async def report(request: Request) -> Response:
    """The page that training has written, as it is."""
    found = _run(request)
    file = request.app.state.console.runs / found.name / run_folders.REPORT
    return written_page(file, "This run has no report.")


async def _server(request: Request) -> dict[str, Any]:
    """What the server says of itself now, or the fault that it does not."""
    upstream: Upstream = request.app.state.upstream
    told: dict[str, Any] = {"ready": False, "served": (), "rates": {}, "span": 0.0, "index": ()}
    told |= {"refused": "", "fault": None}
    try:
        told["ready"], told["served"] = await upstream.ready(), await upstream.models()
        try:
            statistics, told["index"] = await upstream.statistics(), await upstream.index()
            rates, told["span"] = request.app.state.rates.look(time.monotonic(), statistics)
            told["rates"] = {(rate.model, rate.version): rate for rate in rates}
        except AccessError as error:
            told["refused"] = error.message
    except TaxonError as error:
        told["fault"] = faults.of(error)
    return told


def _published(root: Path | None, name: str) -> list[Release]:
    if root is None:
        return []
    try:
        return list(releases.of_model(root, name)) if name in store.names(root) else []
    except OSError as error:
        raise _unreadable(root, error) from error


def _runs(request: Request) -> list[RunFolder]:
    root: Path | None = request.app.state.console.runs
    try:
        return run_folders.found(root) if root else []
    except OSError as error:
        raise _unreadable(request.app.state.console.runs, error) from error


def _run(request: Request) -> RunFolder:
    wanted = request.path_params["name"]
    found = next((one for one in _runs(request) if one.name == wanted), None)
    if found is None:
        raise HTTPException(404, "There is no such run.")
    return found


def _status(fault: Fault | None) -> int:
    return fault.status if fault else 200


def _unreadable(path: Path, error: OSError) -> HTTPException:
    return HTTPException(500, f"{error.filename or path} cannot be read: {error.strerror}.")
