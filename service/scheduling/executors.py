"""Where models run: on threads of this process, or in worker processes. The one place that decides.

Threads suit a GPU, which one process must own, and which leaves the interpreter lock alone while it works. On CPUs
worker processes of one thread each win; see docs/decisions.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Literal, Protocol

from numpy.typing import NDArray

from taxon.bundle.manifest import BundleError, Manifest
from taxon.bundle.picture_limits import Limits
from taxon.bundle.store import Bundle
from taxon.service.models.repository import Runs
from taxon.service.runtime import bundle_proof
from taxon.service.runtime.bundle_proof import Proven, RemoteSession
from taxon.service.runtime.decoding import Array, Decoder, Encoded, Payload, is_large, to_array
from taxon.service.runtime.session import CPU, Device, Session
from taxon.service.scheduling.admission import Lane
from taxon.service.scheduling.batching import Batcher, Scored
from taxon.service.scheduling.worker_main import WorkerSettings
from taxon.service.scheduling.worker_pool import Crew
from taxon.service.scheduling.worker_protocol import Loaded

OnBatch = Callable[[int, int], None]
"""Told the size of each batch, and of inputs dropped before their run."""


def buckets(largest: int) -> Sequence[int]:
    """The batch sizes that occur: 1, 2, 4 … up to `largest`."""
    return [1 << power for power in range(largest.bit_length())]


def worker_count(workers: int | Literal["auto"], provider: str, cores: int) -> int:
    """How many worker processes: as asked; by default one for each core, and none on a GPU."""
    if workers != "auto":
        return workers
    return cores if provider == CPU else 0


class Placement(Protocol):
    """How bundles are proven and where their inputs go."""

    def prove(self, bundle: Bundle) -> Proven:
        """Proves a bundle where it will run. Blocks; must not be called on the event loop.

        Raises:
            BundleError: It must not be served.
        """
        ...

    def runs(self, proven: Proven, on_batch: OnBatch) -> Runs:
        """Begins to take inputs for a proven bundle. Must be called on the event loop."""
        ...

    async def decode(self, payload: Payload, manifest: Manifest, deadline: float) -> Array | Encoded:
        """What `Runs.submit` takes for an input."""
        ...

    def predicted_wait_s(self) -> float:
        """How long a new input would wait."""
        ...

    async def changed(self) -> bool:
        """Waits until what can run models has changed; returns whether anything can."""
        ...

    def close(self) -> None:
        """Ends threads and processes. Blocks."""
        ...


class Threads:
    """Everything in this process: a pool that decodes, a batcher for each model."""

    def __init__(
        self,
        precision: Literal["fp32", "fp16", "int8"],
        device: Device,
        cores: int,
        buckets: Sequence[int],
        limits: Limits,
        max_run_s: float,
    ) -> None:
        self._max_run_s = max_run_s
        self._hanging = 0
        self._hang_changed = asyncio.Event()
        self._precision = precision
        self._device = device
        self._cores = cores
        self._buckets = buckets
        self._limits = limits
        self._decoder = Decoder(cores, limits)
        self._batchers: list[Batcher] = []

    def prove(self, bundle: Bundle) -> Proven:
        """See `Placement`."""
        return bundle_proof.prove(bundle, self._precision, self._device, self._cores, self._buckets, self._limits)

    def runs(self, proven: Proven, on_batch: OnBatch) -> Runs:
        """See `Placement`."""
        if not isinstance(proven.session, Session):
            raise TypeError("proven elsewhere")
        name = f"{proven.manifest.name}-{proven.manifest.version}"
        return self.batcher(name, proven.session.run, proven.run_s, on_batch)

    def batcher(
        self, name: str, run: Callable[[Any], NDArray[Any]], run_s: dict[int, float], on_batch: OnBatch
    ) -> Batcher:
        """The thread of one model."""
        batcher = Batcher(name, run, run_s, on_batch, max_run_s=self._max_run_s, on_hang=self._count_hanging)
        self._batchers.append(batcher)
        return batcher

    async def decode(self, payload: Payload, manifest: Manifest, deadline: float) -> Array | Encoded:
        """See `Placement`."""
        return await self._decoder.decode(payload, manifest, deadline)

    def predicted_wait_s(self) -> float:
        """See `Placement`."""
        return max((batcher.predicted_wait_s() for batcher in self._batchers), default=0.0)

    async def changed(self) -> bool:
        """See `Placement`. One model that hangs makes the whole server unready: only a new process helps."""
        was_able = not self._hanging
        while (not self._hanging) == was_able:
            self._hang_changed.clear()
            await self._hang_changed.wait()
        return not was_able

    def _count_hanging(self, hangs: bool) -> None:
        self._hanging += 1 if hangs else -1
        self._hang_changed.set()

    def close(self) -> None:
        """See `Placement`."""
        self._decoder.close()
        for batcher in self._batchers:
            batcher.close()


class Workers:
    """Models in worker processes, which decode too."""

    def __init__(self, settings: WorkerSettings, count: int, max_run_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._limits = Limits(settings.max_picture_bytes, settings.max_picture_pixels)
        self.crew = Crew(settings, count, max_run_s)

    def prove(self, bundle: Bundle) -> Proven:
        """See `Placement`. The first worker's word counts; the others go on proving."""
        manifest = bundle.manifest
        answer: Future[Loaded] = asyncio.run_coroutine_threadsafe(
            self.crew.load(manifest.name, manifest.version), self._loop
        )
        loaded = answer.result()
        if loaded.refused:
            raise BundleError(loaded.refused)
        variant = next(variant for variant in manifest.variants if variant.precision == loaded.precision)
        return Proven(manifest, variant, RemoteSession(loaded.provider), loaded.run_s, loaded.largest_difference)

    def runs(self, proven: Proven, on_batch: OnBatch) -> Runs:
        """See `Placement`."""
        manifest = proven.manifest
        return LaneRuns(self.crew, Lane(manifest.name, manifest.version, dict(proven.run_s), on_batch))

    async def decode(self, payload: Payload, manifest: Manifest, deadline: float) -> Array | Encoded:  # noqa: ARG002 - workers look at it
        """See `Placement`. Encoded pictures pass as they are."""
        if isinstance(payload, bytes | memoryview) and manifest.pixels is not None:
            return payload
        return to_array(payload, manifest, self._limits)

    def predicted_wait_s(self) -> float:
        """See `Placement`."""
        return self.crew.predicted_wait_s()

    async def changed(self) -> bool:
        """See `Placement`."""
        was_able = self.crew.ready_count > 0
        while (self.crew.ready_count > 0) == was_able:
            self.crew.ready_changed.clear()
            await self.crew.ready_changed.wait()
        return not was_able

    def close(self) -> None:
        """See `Placement`."""
        self.crew.close()


class LaneRuns:
    """Where one model's inputs go: a lane of a crew."""

    def __init__(self, crew: Crew, lane: Lane) -> None:
        self._crew = crew
        self._lane = lane
        self._loop = asyncio.get_running_loop()
        crew.open_lane(lane)

    async def submit(self, payload: Array | Encoded, deadline: float, priority: int = 0) -> Scored:
        """Waits for the scores of one input. Cancelling the call keeps it from being run.

        Args:
            payload: An encoded picture, or what the graph takes without the batch axis.
            deadline: Point of `time.monotonic()`.
            priority: 1 is the most urgent, 0 less urgent than any other.

        Raises:
            ServiceError: See `service.errors`.
            PictureError: See `taxon.bundle.pixels`.
        """
        return await self._crew.submit(self._lane, payload, deadline, priority, is_large(payload))

    def close(self) -> None:
        """Ends the lane once it is empty. Blocks; must not be called on the event loop."""
        asyncio.run_coroutine_threadsafe(self._crew.close_lane(self._lane), self._loop).result()
