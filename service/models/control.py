"""Loads and unloads models, and knows in what state each version is.

Proves on a thread, publishes on the event loop. Knows folders and repositories; not the wire.
"""

import asyncio
import functools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import structlog

from taxon.bundle import store
from taxon.bundle.signing import Check
from taxon.bundle.store import Bundle
from taxon.service.errors import FieldInvalidError, ModelNotFoundError, ModelRefusedError, NotServingError
from taxon.service.models.folder import load_bundles, load_graphs
from taxon.service.models.repository import Model, Repository, Served
from taxon.service.runtime import graph_proof
from taxon.service.runtime.bundle_proof import Proven
from taxon.service.runtime.graph_proof import ProvenGraph, ServedGraph, refuse_unsigned

log = structlog.get_logger(__name__)

State = Literal["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]


@dataclass(frozen=True, slots=True)
class VersionState:
    """One version of a model, in the repository's folder or served."""

    name: str
    version: int
    state: State
    reason: str = ""
    """Why it is not ready."""


@dataclass(frozen=True, slots=True)
class Makers:
    """How a folder becomes a served model. The first two run on a thread, the others on the event loop."""

    prove_bundle: Callable[[Bundle], Proven]
    prove_graph: Callable[[str, int], ProvenGraph]
    serve_bundle: Callable[[Proven], Served]
    serve_graph: Callable[[ProvenGraph], ServedGraph]
    check_signature: Check | None = None
    """Of every bundle before it is proven; None if none is required."""


class ModelControl:
    """The models of one folder. Lives on the event loop."""

    def __init__(
        self,
        root: Path,
        bundles: Repository[Served],
        tensor_models: Repository[ServedGraph],
        makers: Makers,
        on_change: Callable[[int], None],
    ) -> None:
        """Loads nothing yet.

        Args:
            root: The folder.
            bundles: Where proven bundles are published.
            tensor_models: Where proven graphs without a manifest are published.
            makers: What proves and serves.
            on_change: Told the number of versions that are refused, after each load and unload.
        """
        self._root = root
        self._bundles = bundles
        self._tensor_models = tensor_models
        self._makers = makers
        self._on_change = on_change
        self._turn = asyncio.Lock()
        self._states: dict[tuple[str, int], VersionState] = {}
        self.loading = True
        """Whether the first load of the whole folder is still under way."""

    async def load_all(self) -> None:
        """Loads every version of every model; each is served as soon as it is proven. Refusals are logged."""
        async with self._turn:
            await self._load(None)
            self.loading = False

    async def load(self, name: str) -> None:
        """Loads the versions of a model that are not served yet; a graph without a manifest is read again.

        Raises:
            FieldInvalidError: It is no name of a model.
            ModelNotFoundError: The folder has no version of it.
            ModelRefusedError: One of its versions may not be served; the others are.
        """
        if not re.fullmatch(graph_proof.NAME_PATTERN, name):
            raise FieldInvalidError("model_name", f"must match {graph_proof.NAME_PATTERN}")
        async with self._turn:
            await self._load([name])
            mine = [state for key, state in self._states.items() if key[0] == name]
        if not mine:
            raise ModelNotFoundError(name, "", f"failed to load {name!r}: the repository has no such model")
        if refused := [state for state in mine if state.state != "READY"]:
            raise ModelRefusedError(f"failed to load {name!r} version {refused[0].version}: {refused[0].reason}")

    async def unload(self, name: str) -> None:
        """Ends the serving of a model. What still waits for it is answered, or refused as not serving.

        Raises:
            ModelNotFoundError: There is no such model.
        """
        async with self._turn:
            mine = [key for key in self._states if key[0] == name]
            if not mine:
                raise ModelNotFoundError(name, "", f"failed to unload {name!r}: there is no such model")
            for key in mine:
                self._states[key] = VersionState(*key, "UNLOADING")
            retired: list[Model] = [*self._bundles.retire(name), *self._tensor_models.retire(name)]
            for model in retired:
                await asyncio.to_thread(model.runs.close)
            for key in mine:
                self._states[key] = VersionState(*key, "UNAVAILABLE", "unloaded")
            log.info("unloaded", model=name, versions=[model.version for model in retired])
            self._report()

    def index(self) -> Sequence[VersionState]:
        """Every version that is served, or was tried, by name and version."""
        return [self._states[key] for key in sorted(self._states)]

    def why_missing(self, name: str, version: str) -> Exception:
        """The error for a model that no repository has: what is still being loaded may yet come."""
        known = [state.state for key, state in self._states.items() if key[0] == name]
        if "LOADING" in known or (self.loading and not self._states):  # the folder has not even been listed
            return NotServingError(f"model {name!r} is being loaded")
        return ModelNotFoundError(name, version)

    def knows(self, name: str, version: str) -> bool:
        """Whether a version, or any if none is given, is served or in the folder."""
        return any(key[0] == name and version in ("", str(key[1])) for key in self._states)

    async def _load(self, names: Sequence[str] | None) -> None:
        loop = asyncio.get_running_loop()

        def on_loop(step: Callable[[], None]) -> None:
            """Runs on the loop what touches states and repositories."""

            async def steps() -> None:
                step()

            asyncio.run_coroutine_threadsafe(steps(), loop).result()

        def on_refused(name: str, version: int, reason: str) -> None:
            on_loop(lambda: self._note(VersionState(name, version, "UNAVAILABLE", reason)))

        def load() -> None:
            chosen = _names(self._root) if names is None else names
            found = list(_versions(self._root, chosen))
            on_loop(lambda: self._begin(chosen, found))
            makers = self._makers
            prove_graph = makers.prove_graph if makers.check_signature is None else refuse_unsigned
            for proven in load_bundles(
                self._root, chosen, self._is_new, makers.prove_bundle, on_refused, makers.check_signature
            ):
                on_loop(functools.partial(self._publish_bundle, proven))
            for graph in load_graphs(self._root, chosen, prove_graph, on_refused):
                on_loop(functools.partial(self._publish_graph, graph, replaced))

        replaced: list[ServedGraph] = []
        await asyncio.to_thread(load)
        for graph in replaced:
            await asyncio.to_thread(graph.runs.close)
        self._report()

    def _is_new(self, name: str, version: int) -> bool:
        return version not in self._bundles.versions(name)

    def _begin(self, names: Sequence[str], found: Sequence[tuple[str, int]]) -> None:
        models: list[Model] = [*self._bundles.listing(), *self._tensor_models.listing()]
        served = {(model.name, model.version) for model in models}
        for key in [key for key in self._states if key[0] in names and key not in served]:
            del self._states[key]
        for key in found:
            if key not in served:
                self._note(VersionState(*key, "LOADING"))

    def _note(self, state: VersionState) -> None:
        self._states[state.name, state.version] = state

    def _publish_bundle(self, proven: Proven) -> None:
        served = self._makers.serve_bundle(proven)
        self._bundles.publish(served)
        self._note(VersionState(served.name, served.version, "READY"))

    def _publish_graph(self, proven: ProvenGraph, replaced: list[ServedGraph]) -> None:
        served = self._makers.serve_graph(proven)
        if served.version in self._tensor_models.versions(served.name):
            replaced.append(self._tensor_models.find(served.name, str(served.version)))
        self._tensor_models.publish(served)
        self._note(VersionState(served.name, served.version, "READY"))

    def _report(self) -> None:
        self._on_change(
            sum(state.state == "UNAVAILABLE" and state.reason != "unloaded" for state in self._states.values())
        )


def _names(root: Path) -> list[str]:
    try:
        return sorted({*store.names(root), *graph_proof.names(root)})
    except OSError as error:
        log.error("model folder cannot be read", folder=str(root), reason=str(error))
        return []


def _versions(root: Path, names: Sequence[str]) -> Iterator[tuple[str, int]]:
    for name in names:
        for version in (*store.versions(root, name), *graph_proof.versions(root, name)):
            yield name, version
