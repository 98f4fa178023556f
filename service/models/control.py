"""Loads and unloads models, and follows what is declared of their traffic. Knows folders and the pool of workers; not
the wire.
"""

import asyncio
import re
import threading
import time
from collections.abc import Awaitable, Callable, Container, Coroutine, Iterable, Sequence, Set
from pathlib import Path
from typing import Any, TypeVar

import structlog

from taxon.bundle.traffic import Traffic
from taxon.service.errors import FieldInvalidError, ModelNotFoundError, ModelRefusedError, cut
from taxon.service.models import folder
from taxon.service.models.folder import NAME_PATTERN, Found
from taxon.service.models.model import NO_VERSION, Model, VersionState, model_of
from taxon.service.models.repository import Repository
from taxon.service.telemetry.metrics import OnBatch
from taxon.service.workers.worker_pool import WorkerPool
from taxon.service.workers.worker_protocol import Loaded

# Models that are proved at the same time: more would only share the cores.
MOST_AT_ONCE = 2
TRAFFIC_PERIOD_S = 0.2
# A file can change twice within one tick of its file system's clock: what is so young is read again.
SETTLED_NS = 1_000_000_000

Done = TypeVar("Done")

log = structlog.get_logger(__name__)


class ModelControl:
    """The models of one folder. Lives on the event loop."""

    def __init__(
        self,
        root: Path,
        repository: Repository,
        pool: WorkerPool,
        on_batch: Callable[[str, int], OnBatch],
        heard: Callable[[int], Awaitable[None]],
    ) -> None:
        """Loads nothing yet.

        Args:
            root: The folder.
            repository: Where proven models are published.
            pool: What proves and runs them.
            on_batch: Makes what is told of the batches of one version of a model.
            heard: Returns once every front knows what the repository knows, and no call holds this model any more; 0:
                none.
        """
        self._root = root
        self._repository = repository
        self._pool = pool
        self._on_batch = on_batch
        self._heard = heard
        self._turn = asyncio.Lock()
        self._traffic_seen: dict[str, tuple[int, ...]] = {}
        self._named: set[tuple[str, int]] = set()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def load_all(self) -> None:
        """Loads every version of every model; each is served as soon as it is proven. Refusals are logged."""
        async with self._turn:
            await self._load(None)
            self._repository.finish_loading()

    async def load(self, name: str) -> None:
        """Loads the versions of a model that are not served yet; a graph without a manifest is read again.

        Raises:
            FieldInvalidError: It is no name of a model.
            ModelNotFoundError: The folder has no version of it.
            ModelRefusedError: One of its versions may not be served; the others are.
        """
        if not re.fullmatch(NAME_PATTERN, name):
            raise FieldInvalidError("model_name", f"must match {NAME_PATTERN}")
        mine = await self._finish(self._load_in_turn([name]))
        await self._heard(0)
        if not mine:
            raise ModelNotFoundError(name, "", f"failed to load {name!r}: the repository has no such model")
        numbered = [state for state in mine if state.version != NO_VERSION]
        if refused := [state for state in numbered or mine if state.state != "READY"]:
            version = f" version {refused[0].version}" if numbered else ""
            raise ModelRefusedError(f"failed to load {name!r}{version}: {refused[0].reason}")

    async def unload(self, name: str) -> None:
        """Ends the serving of a model. What still waits for it is answered, or refused as not serving.

        Raises:
            ModelNotFoundError: There is no such model.
        """
        await self._finish(self._unload_in_turn(name))
        await self._heard(0)

    async def load_versions(self, name: str, versions: Container[int]) -> None:
        """Loads some versions of a model, beside what is served of it; refusals are logged. Versions of a graph that
        its configuration wants no more, since there are newer ones, leave then.
        """
        await self._finish(self._load_in_turn([name], versions))
        found = {one.version for one in await asyncio.to_thread(folder.scan, self._root, [name])}
        for version in self._repository.versions(name) if found else ():
            if version not in found:
                await self.remove(name, version)

    async def remove(self, name: str, version: int) -> None:
        """Forgets a version that the folder has no more, and ends its serving; what has come in is answered."""
        await self._finish(self._remove_in_turn(name, version))

    def close(self) -> None:
        """Gives up what is being loaded and unloaded."""
        for task in self._tasks:
            task.cancel()

    async def _finish(self, work: Coroutine[Any, Any, Done]) -> Done:
        """Does work to its end, even if the caller leaves: a model half loaded would stay so."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def _load_in_turn(self, names: Sequence[str], only: Container[int] | None = None) -> list[VersionState]:
        """Returns what the models' versions are then: whose turn is next may change it."""
        async with self._turn:
            await self._load(names, only)
            return [state for state in self._repository.index() if state.name in names]

    async def _unload_in_turn(self, name: str) -> None:
        async with self._turn:
            repository = self._repository
            mine = [state for state in repository.index() if state.name == name and state.version != NO_VERSION]
            if not mine:
                raise ModelNotFoundError(name, "", f"failed to unload {cut(name)!r}: there is no such model")
            retired = [model for model in repository.listing() if model.name == name]
            for model in retired:
                repository.retire(model, "unloaded")
                repository.note(VersionState(model.name, model.version, "UNLOADING"))
            await asyncio.gather(*(self._end(model) for model in retired))
            for state in mine:
                repository.note(VersionState(state.name, state.version, "UNAVAILABLE", "unloaded"))
            log.info("unloaded", model=name, versions=[model.version for model in retired])

    async def _remove_in_turn(self, name: str, version: int) -> None:
        async with self._turn:
            model = self._repository.known.models.get(name, {}).get(version)
            if model is not None:
                self._repository.retire(model, "it is not in the folder any more")
                await self._end(model)
            self._repository.forget(name, version)
            log.info("version has left", model=name, version=version)

    async def _end(self, model: Model) -> None:
        """Has workers forget what nobody finds any more, once nobody runs it."""
        await self._heard(model.number)
        await self._pool.unload(model.number)

    def lose(self, number: int, reason: str) -> None:
        """A model that was served can be run no more."""
        for model in self._repository.listing():
            if model.number == number:
                self._repository.retire(model, reason)

    async def watch_traffic(self) -> None:
        """Follows what is declared for all models: the default, the labels, canary and shadow change with it, and a
        version that it names is loaded. By polling, which works on network file systems too.
        """
        over = threading.Event()
        try:
            async with asyncio.TaskGroup() as loads:
                while True:
                    await asyncio.to_thread(self._await_traffic, over)
                    for name, versions in (await self._look_at_traffic()).items():
                        loads.create_task(self._load_named(name, versions))
        finally:
            over.set()

    async def _load_named(self, name: str, versions: Set[int]) -> None:
        """Loads what a declaration names; meanwhile others are followed."""
        orders = {(name, version) for version in versions}
        self._named |= orders
        try:
            await self._finish(self._load_in_turn([name], versions))
        finally:
            self._named -= orders

    def _await_traffic(self, over: threading.Event) -> None:
        """Blocks until something may have changed. On one thread: handing each look to another costs ten times what
        looking does.
        """
        while not over.wait(TRAFFIC_PERIOD_S):
            names = {name for name, _ in list(self._repository.known.states)}
            if any(self._traffic_seen.get(name, (0,)) != folder.traffic_print(self._root, name) for name in names):
                return

    async def _look_at_traffic(self) -> dict[str, Set[int]]:
        """Looks once. Returns versions that are named and that nobody has tried, by model."""
        names = sorted({state.name for state in self._repository.index()})
        untried: dict[str, Set[int]] = {}
        for name, traffic in (await asyncio.to_thread(self._changed_traffic, names)).items():
            self._repository.declare(name, traffic)
            tried = {state.version for state in self._repository.index() if state.name == name}
            tried |= {version for other, version in self._named if other == name}
            if traffic.versions - tried:
                untried[name] = traffic.versions - tried
        return untried

    def _changed_traffic(self, names: Iterable[str]) -> dict[str, Traffic]:
        changed = {}
        for name in names:
            seen = folder.traffic_print(self._root, name)
            if seen == self._traffic_seen.get(name, (0,)):
                continue
            traffic = folder.declared(self._root, name)
            if traffic is not None:  # else the last one holds
                changed[name] = traffic
            if time.time_ns() - seen[0] > SETTLED_NS:
                self._traffic_seen[name] = seen
        return changed

    async def _load(self, names: Sequence[str] | None, only: Container[int] | None = None) -> None:
        repository = self._repository
        everything = await asyncio.to_thread(folder.scan, self._root, names)
        left_out = await asyncio.to_thread(folder.left_out, self._root, names)
        served = {(model.name, model.version): model for model in repository.listing()}
        if only is None:
            found = {(one.name, one.version) for one in everything} | {(one.name, NO_VERSION) for one in left_out}
            for state in repository.index():
                key = state.name, state.version
                if key not in found and key not in served and (names is None or state.name in names):
                    repository.forget(*key)
            for other in left_out:
                log.warning("not served", model=other.name, reason=other.reason)
                repository.note(VersionState(other.name, NO_VERSION, "UNAVAILABLE", other.reason))
        for name in {one.name for one in everything} - {one.name for one in left_out}:
            if (name, NO_VERSION) in repository.known.states:
                repository.forget(name, NO_VERSION)
        chosen = [
            one
            for one in everything
            if (one.config is not None or (one.name, one.version) not in served)
            and (only is None or one.version in only)
        ]
        for one in chosen:
            if (one.name, one.version) not in served:
                repository.note(VersionState(one.name, one.version, "LOADING"))
        for name in dict.fromkeys(one.name for one in chosen):
            traffic = await asyncio.to_thread(folder.declared, self._root, name)
            if traffic is not None:
                repository.declare(name, traffic)
            elif name not in repository.known.traffic:
                repository.declare(name, folder.UNREADABLE)
        turns = asyncio.Semaphore(MOST_AT_ONCE)

        async def load(one: Found) -> None:
            async with turns:
                await self._load_one(one)

        async with asyncio.TaskGroup() as group:
            for one in chosen:
                group.create_task(load(one))

    async def _load_one(self, one: Found) -> None:
        if one.refused:
            self._refuse(one, one.refused)
            return
        loaded = await self._pool.load(
            one.name,
            one.version,
            one.config,
            self._on_batch(one.name, one.version),
            lambda: self._repository.takes_over(one.name, one.version),
        )
        if loaded.refused:
            self._refuse(one, loaded.refused)
            return
        _tell(loaded)
        replaced = self._repository.publish(model_of(loaded))
        if replaced:
            await self._end(replaced)

    def _refuse(self, one: Found, reason: str) -> None:
        log.error("model refused", model=one.name, version=one.version, reason=reason)
        served = {(model.name, model.version) for model in self._repository.listing()}
        if (one.name, one.version) not in served:  # a graph that was to be read again goes on as it was
            self._repository.note(VersionState(one.name, one.version, "UNAVAILABLE", reason))


def _tell(loaded: Loaded) -> None:
    model: Model = model_of(loaded)
    log.info(
        "model proven",
        model=model.name,
        version=model.version,
        kind="bundle" if model.manifest else "graph",
        variant=model.description.variant,
        execution_provider=model.description.provider,
        speedup={trial.variant: trial.speedup for trial in model.description.trials if trial.speedup},
        not_served={trial.variant: trial.reason for trial in model.description.trials if trial.reason},
        largest_difference=loaded.largest_difference,
        run_ms={bucket: round(seconds * 1e3, 3) for bucket, seconds in loaded.run_s.items()},
    )
