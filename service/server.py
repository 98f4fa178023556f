"""The composition root: builds every part in order, starts, drains, stops. `taxon serve` calls `main`.

The only module that sees the settings whole.
"""

import asyncio
import functools
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import grpc
import pydantic
import structlog

from taxon.bundle import signing
from taxon.bundle.picture_limits import Limits
from taxon.bundle.signing import KeyFileError
from taxon.inference.open_inference_service_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
from taxon.service import config
from taxon.service.api import early_refusal, reflection
from taxon.service.api.classification import MAX_BATCH_ENTRIES, SERVICE, ClassificationService
from taxon.service.api.health import Readiness
from taxon.service.config import Settings
from taxon.service.errors import StartError
from taxon.service.machine import available_cores, keep_freed_memory
from taxon.service.models.control import Makers, ModelControl
from taxon.service.models.repository import Repository, Served, ranking_of
from taxon.service.open_inference.inference import Inference
from taxon.service.open_inference.service import SERVICE as OPEN_INFERENCE
from taxon.service.open_inference.service import Limit, OpenInferenceService
from taxon.service.pipeline import Permits, Pipeline
from taxon.service.runtime.bundle_proof import Proven
from taxon.service.runtime.graph_proof import ProvenGraph, ServedGraph, prove_graph
from taxon.service.runtime.session import CPU, choose_device
from taxon.service.scheduling.batching import Batcher
from taxon.service.scheduling.executors import Placement, Threads, Workers, buckets, worker_count
from taxon.service.scheduling.worker_main import WorkerSettings
from taxon.service.telemetry import logs
from taxon.service.telemetry.metrics import Metrics, MetricsPage

LARGEST_BATCH = {"cpu": 8, "gpu": 64}

log = structlog.get_logger(__name__)


def main(argv: list[str]) -> int:
    """`taxon serve`: serves until SIGTERM or SIGINT. Returns the exit status: 0 after a drain, 1 if the server
    could not start, 2 if a setting is wrong.
    """
    try:
        settings = config.parse(argv)
    except pydantic.ValidationError as error:
        for fault in error.errors():
            sys.stderr.write(f"taxon serve: {'.'.join(map(str, fault['loc']))}: {fault['msg']}\n")
        return 2
    logs.configure(settings.log_format, settings.log_level)
    keep_freed_memory()
    try:
        asyncio.run(_serve(settings))
    except (StartError, KeyFileError) as error:
        sys.stderr.write(f"taxon serve: {error}\n")
        return 1
    return 0


async def _serve(settings: Settings) -> None:
    await Server(settings).serve()


class Server:
    """Every part of one serving process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._cores = settings.threads or available_cores()
        self._limits = Limits(settings.max_picture_bytes, settings.max_picture_pixels)
        self._device = choose_device(settings.device, settings.cuda_graphs, settings.engine_cache)
        self._check_signature = signing.checker(settings.require_signature) if settings.require_signature else None
        kind = "cpu" if self._device.provider == CPU else "gpu"
        self._buckets = buckets(settings.max_batch_size or LARGEST_BATCH[kind])
        self._metrics = Metrics()
        self._readiness = Readiness()
        self._repository: Repository[Served] = Repository(settings.models, self._on_publish, self._on_retire)
        self._tensor_models: Repository[ServedGraph] = Repository(
            settings.models, self._on_publish_graph, self._on_retire_graph
        )
        self._placement = self._place()
        self._control = ModelControl(
            settings.models, self._repository, self._tensor_models, self._makers(), self._metrics.refused_bundles.set
        )
        self._stop = asyncio.Event()
        self.loaded = asyncio.Event()
        """Set once every bundle has been tried."""
        self.metrics_port: int | None = None
        """Where the metrics page is, once `serve` has begun."""

    def stop(self) -> None:
        """Begins the drain, as SIGTERM does."""
        self._stop.set()

    async def serve(self) -> None:
        """Starts, loads, serves until told to stop, drains.

        Raises:
            StartError: The address cannot be bound.
        """
        for signum in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(signum, self.stop)
        page = None if self._settings.metrics_port is None else self._open_page(self._settings.metrics_port)
        self.metrics_port = page.port if page else None
        try:
            server, port = await self._start()
            loading = asyncio.create_task(self._load())
            watching = asyncio.create_task(self._watch())
            log.info("listening", port=port, metrics_port=self.metrics_port, threads=self._cores)
            told = asyncio.create_task(self._stop.wait())
            await asyncio.wait({told, loading}, return_when=asyncio.FIRST_COMPLETED)
            if loading.done():
                loading.result()  # a fault of the loader itself must end the process, not hide in a task
            await told
            watching.cancel()
            await self._drain(server, loading)
        finally:
            await asyncio.to_thread(self._close)
            if page:
                page.close()
        log.info("stopped")

    async def _start(self) -> tuple[grpc.aio.Server, int]:
        settings = self._settings
        server = grpc.aio.server(options=_channel_options(settings.max_message_bytes))
        permits = Permits(settings.max_queued_requests, self._metrics, self._placement.predicted_wait_s)
        pipeline = Pipeline(self._repository, permits, self._placement, self._metrics)
        servicer = ClassificationService(pipeline, self._repository, self._metrics, settings.max_call_seconds)
        early_refusal.add_to_server(servicer, server, permits, self._placement.predicted_wait_s, self._metrics)
        inference = Inference(
            pipeline, self._repository, self._tensor_models, self._control, self._buckets, MAX_BATCH_ENTRIES
        )
        add_GRPCInferenceServiceServicer_to_server(
            OpenInferenceService(
                inference,
                self._control,
                self._metrics,
                lambda: self._readiness.serving,
                Limit(settings.max_call_seconds, settings.max_queued_requests, settings.model_control == "explicit"),
            ),
            server,
        )
        self._readiness.register(server)
        if settings.reflection:
            reflection.register(server, [SERVICE, OPEN_INFERENCE, "grpc.health.v1.Health"])
        try:
            port = server.add_insecure_port(settings.listen)
        except RuntimeError as error:
            raise StartError(f"--listen {settings.listen} cannot be bound: {error}") from error
        await server.start()
        if settings.port_file:
            _write_atomically(settings.port_file, f"{port}\n")
        return server, port

    async def _load(self) -> None:
        await self._control.load_all()
        self.loaded.set()
        if count := len(self._repository) + len(self._tensor_models):
            self._readiness.set_serving(True)
            log.info("serving", models=count)
        else:
            log.error("nothing is servable; staying up as NOT_SERVING", folder=str(self._settings.models))

    async def _watch(self) -> None:
        """Follows the placement: not ready while nothing can run a model."""
        while True:
            able = await self._placement.changed()
            if self.loaded.is_set():
                log.warning("models run again" if able else "no model can run")
                self._readiness.set_serving(able)

    def _makers(self) -> Makers:
        settings = self._settings
        return Makers(
            prove_bundle=self._placement.prove,
            prove_graph=functools.partial(
                prove_graph,
                settings.models,
                provider=self._device.provider,
                thread_count=self._cores,
                buckets=self._buckets,
                max_batch_size=MAX_BATCH_ENTRIES,
            ),
            serve_bundle=self._serve_bundle,
            serve_graph=self._serve_graph,
            check_signature=self._check_signature,
        )

    def _serve_bundle(self, proven: Proven) -> Served:
        manifest = proven.manifest
        return Served(
            manifest,
            proven.variant.precision,
            proven.session.provider,
            ranking_of(manifest),
            self._placement.runs(proven, self._on_batch(manifest.name)),
        )

    def _serve_graph(self, proven: ProvenGraph) -> ServedGraph:
        described, most_s = proven.described, self._settings.max_run_seconds
        name, on_batch = f"{described.name}-{described.version}", self._on_batch(described.name)
        return ServedGraph(described, Batcher(name, proven.run, proven.run_s, on_batch, max_run_s=most_s))

    def _on_batch(self, name: str) -> Callable[[int, int], None]:
        batch_size, dropped = self._metrics.batch_size.labels(name), self._metrics.dropped.labels(name)

        def on_batch(size: int, dropped_count: int) -> None:
            if size:
                batch_size.observe(size)
            dropped.inc(dropped_count)

        return on_batch

    def _place(self) -> Placement:
        settings = self._settings
        count = worker_count(settings.workers, self._device.provider, self._cores)
        if not count:
            return Threads(
                settings.variant, self._device, self._cores, self._buckets, self._limits, settings.max_run_seconds
            )
        told = WorkerSettings(
            str(settings.models),
            settings.variant,
            self._device,
            tuple(self._buckets),
            settings.max_picture_bytes,
            settings.max_picture_pixels,
            settings.log_format,
            settings.log_level,
            None if settings.require_signature is None else str(settings.require_signature),
        )
        return Workers(told, count, settings.max_run_seconds)

    def _on_publish(self, served: Served) -> None:
        self._metrics.model_info.labels(served.name, served.version, served.precision, served.provider).set(1)

    def _on_retire(self, served: Served) -> None:
        self._metrics.model_info.remove(served.name, served.version, served.precision, served.provider)

    def _on_publish_graph(self, graph: ServedGraph) -> None:
        described = graph.described
        self._metrics.model_info.labels(graph.name, graph.version, described.variant, described.provider).set(1)

    def _on_retire_graph(self, graph: ServedGraph) -> None:
        described = graph.described
        self._metrics.model_info.remove(graph.name, graph.version, described.variant, described.provider)

    async def _drain(self, server: grpc.aio.Server, loading: "asyncio.Task[None]") -> None:
        log.info("draining", delay_s=self._settings.drain_delay_seconds, grace_s=self._settings.drain_grace_seconds)
        self._readiness.leave()
        if self._settings.drain_delay_seconds:
            await asyncio.sleep(self._settings.drain_delay_seconds)
        self._readiness.end_watches()
        await server.stop(self._settings.drain_grace_seconds)
        await loading

    def _open_page(self, port: int) -> MetricsPage:
        try:
            return MetricsPage(self._metrics, port)
        except OSError as error:
            raise StartError(f"--metrics-port {port} cannot be bound: {error.strerror}") from error

    def _close(self) -> None:
        self._placement.close()
        self._repository.close()
        self._tensor_models.close()


def _channel_options(max_message_bytes: int) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        # Two servers on one port would share its calls by chance: refuse to start instead.
        ("grpc.so_reuseport", 0),
    ]


def _write_atomically(path: Path, text: str) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)
    Path(name).replace(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
