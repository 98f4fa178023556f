"""The composition root: builds every part in order, starts, drains, stops. `taxon serve` calls `main`.

The only module that sees the settings whole, besides a front of its own process.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

import pydantic
import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from taxon.bundle import atomic_files, signing
from taxon.bundle.picture_limits import Limits
from taxon.bundle.signing import KeyFileError
from taxon.service import config, threads
from taxon.service.access.entry import Entry, EntryFiles
from taxon.service.access.expiry import expires
from taxon.service.access.page import readers
from taxon.service.api.classification import MAX_BATCH_ENTRIES
from taxon.service.config import Settings
from taxon.service.errors import StartError
from taxon.service.fronts.admin_front import AdminFront, admin_front
from taxon.service.fronts.front import Front, Shared, memory_of
from taxon.service.fronts.hub import Hub
from taxon.service.fronts.server_options import most_connections
from taxon.service.machine import available_cores, connection_count, keep_freed_memory, private_bytes
from taxon.service.models.control import ModelControl
from taxon.service.models.repository import Repository
from taxon.service.models.rollback import Rollback
from taxon.service.models.watch import Watch
from taxon.service.runtime.device import Device, choose_device
from taxon.service.scheduling.arena import Arena
from taxon.service.scheduling.board import Board
from taxon.service.scheduling.memory import Memory
from taxon.service.telemetry import logs, tracing
from taxon.service.telemetry.families import Added
from taxon.service.telemetry.gpus import Gpus, Nvml
from taxon.service.telemetry.metrics import Metrics
from taxon.service.telemetry.page import MetricsPage
from taxon.service.telemetry.standard_error import gathered
from taxon.service.telemetry.statistics import Figures, Key
from taxon.service.telemetry.triton_names import TritonNames
from taxon.service.workers.executor import Executor
from taxon.service.workers.layout import layout
from taxon.service.workers.worker_pool import WorkerPool
from taxon.service.workers.worker_process import StartWorker, WorkerProcesses
from taxon.service.workers.worker_protocol import WorkerSettings
from taxon.service.workers.worker_slots import Patience

# Who signals a process and its group signals the process twice.
SAME_SIGNAL_S = 0.5
LOOPBACK = "127.0.0.1"

log = structlog.get_logger(__name__)


def main(argv: list[str]) -> int:
    """`taxon serve`: serves until SIGTERM or SIGINT. Returns the exit status: 0 after a drain, 1 if the server
    could not start, 2 if a setting is wrong.
    """
    try:
        settings = config.parse(argv)
    except pydantic.ValidationError as error:
        faults: dict[str, list[str]] = {}
        for fault in error.errors():  # of a setting that takes a word or a number there are two
            flag = f"--{fault['loc'][0]}".replace("_", "-") if fault["loc"] else ""
            faults.setdefault(flag, []).append(fault["msg"].removeprefix("Value error, "))
        for flag, reasons in faults.items():
            sys.stderr.write(f"taxon serve: {flag + ': ' if flag else ''}{', or '.join(reasons)}\n")
        return 2
    keep_freed_memory()
    try:
        with gathered() if settings.log_format == "json" else contextlib.nullcontext(sys.stderr) as file:
            logs.configure(settings.log_format, settings.log_level, file)
            asyncio.run(_serve(settings))
    except (StartError, KeyFileError) as error:
        sys.stderr.write(f"taxon serve: {error}\n")
        return 1
    return 0


async def _serve(settings: Settings) -> None:
    threads.begin()
    await Server(settings).serve()


class Server:
    """Every part of one server."""

    def __init__(
        self, settings: Settings, start_worker: Callable[[WorkerSettings, list[int]], StartWorker] = WorkerProcesses
    ) -> None:
        """Builds every part; starts the workers. Must be called on the event loop.

        Args:
            settings: Of the server.
            start_worker: Makes what starts workers; tests have fakes.

        Raises:
            StartError: The device does not work, or memory does not suffice.
            KeyFileError: The file of public keys cannot be read.
        """
        self._settings = settings
        device = choose_device(settings.device, settings.cuda_graphs, settings.engine_cache)
        if settings.require_signature:
            signing.checker(settings.require_signature)  # a wrong file ends the start, not every worker
        tracing.check(settings.otlp_endpoint)  # else each front of its own would find out
        if settings.feedback:
            from taxon.service.feedback import pruning

            pruning.check(settings)
        self._entry_files = EntryFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca, settings.keys)
        self._cores = available_cores()
        self._layout = layout(
            device,
            self._cores,
            workers=settings.workers,
            decoders=settings.decoders,
            fronts=settings.fronts,
            threads=settings.threads,
            max_batch_size=settings.max_batch_size,
        )
        self.metrics = Metrics()
        self.repository = Repository(self._refresh)
        self._rollback = Rollback(self.repository, self.metrics.count_rollback)
        self._stop = asyncio.Event()
        self._stopped_at = 0.0
        self.loaded = asyncio.Event()
        """Set once every model has been tried."""
        self._page: MetricsPage | None = None
        self._admin: AdminFront | None = None
        self.metrics_port: int | None = None
        """Where the metrics page is, once `serve` has begun."""
        self.admin_port: int | None = None
        """Where the admin service is, once `serve` has begun."""
        self._built = False
        self._port = 0
        board = Board(self._layout.fronts)
        memory = memory_of(settings)
        arenas = [Arena(memory.queued_bytes // self._layout.fronts) for _ in range(self._layout.fronts)]
        self.pool = WorkerPool(
            start_worker(self._worker_settings(device, memory.limits), [arena.descriptor for arena in arenas]),
            self._layout,
            Patience(settings.max_run_seconds, settings.max_load_seconds),
            settings.max_queued_requests,
            self._refresh,
            lambda number, reason: self._control.lose(number, reason),
            memory.decoding_bytes,
        )
        self._control = ModelControl(
            settings.models,
            self.repository,
            self.pool,
            self.metrics.on_batch,
            lambda model: self.fronts.heard(model),
        )
        self.fronts = self._speak(board, arenas, memory)
        self._let_in(self._entry_files.entry)
        self._readings = self._page_registry()
        self._measure()
        self._built = True
        self._refresh()

    def stop(self) -> None:
        """Begins the drain, as SIGTERM does. The second time ends everything at once."""
        now = time.monotonic()
        if self._stopped_at and now - self._stopped_at < SAME_SIGNAL_S:
            return
        if self._stopped_at:
            log.warning("told to stop twice, ending at once")
            self.pool.kill()
            if isinstance(self.fronts, Hub):
                self.fronts.kill()
            os._exit(1)
        self._stopped_at = now
        self._stop.set()

    async def serve(self) -> None:
        """Starts, loads, serves until told to stop, drains.

        Raises:
            StartError: The address cannot be bound.
        """
        for signum in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(signum, self.stop)
        settings = self._settings
        page = self._page = None if settings.metrics_port is None else self._open_page(settings.metrics_port)
        self.metrics_port = page.port if page else None
        working: list[asyncio.Task[None]] = []
        stopped = asyncio.create_task(self._stop.wait())
        try:
            if settings.admin_port is not None:
                self._admin = admin_front(settings, self.repository, self._control, self.metrics, self.fronts.heard)
                self._admin.let_in(self._entry_files.entry)
                self.admin_port = await self._admin.start(f"{settings.admin_host}:{settings.admin_port}")
            working = [asyncio.create_task(self._load()), asyncio.create_task(self._control.watch_traffic())]
            working.append(asyncio.create_task(self._entry_files.watch(self._let_in)))
            if settings.feedback:
                from taxon.service.feedback import pruning

                working.append(asyncio.create_task(pruning.prune_for_ever(settings)))
            if settings.watch_seconds and settings.model_control == "none":
                watch = Watch(settings.models, self.repository, self._control)
                working.append(asyncio.create_task(watch.run(settings.watch_seconds)))
            if settings.bind_when_ready:
                await asyncio.wait([stopped, working[0]], return_when=asyncio.FIRST_COMPLETED)
            port = self._port = await self.fronts.start(settings.listen)
            if settings.port_file:
                _write_port(settings.port_file, port)
            if settings.insecure and settings.tls_cert is None:
                log.warning("nothing is encrypted, as told by --insecure", listen=settings.listen)
            ports = {"port": port, "metrics_port": self.metrics_port, "admin_port": self.admin_port}
            log.info("listening", **ports, **asdict(self._layout))
            done, _ = await asyncio.wait([stopped, *working], return_when=asyncio.FIRST_COMPLETED)
            while stopped not in done:
                for task in done:
                    task.result()  # a fault of ours must end the process, not hide in a task
                working = [task for task in working if task not in done]
                done, _ = await asyncio.wait([stopped, *working], return_when=asyncio.FIRST_COMPLETED)
            log.info("draining", delay_s=settings.drain_delay_seconds, grace_s=settings.drain_grace_seconds)
            await self.fronts.drain()
        finally:
            for task in (stopped, *working):
                task.cancel()
            if self._admin:
                await self._admin.close()
            self._control.close()
            await self.pool.close()
            await self.fronts.close()
            if page:
                await asyncio.to_thread(page.close)
        log.info("stopped")

    async def _load(self) -> None:
        await self._control.load_all()
        self.loaded.set()
        if count := len(self.repository):
            log.info("serving", models=count, refused=self.repository.refused_count)
        else:
            log.error("nothing is servable; staying up as NOT_SERVING", folder=str(self._settings.models))

    @property
    def serving(self) -> bool:
        """Whether the server may be sent traffic: what was found has been tried, something is served, and something can
        run it.
        """
        return not self.repository.known.loading and len(self.repository) > 0 and self.pool.serving_count > 0

    def _refresh(self) -> None:
        """Tells fronts and metrics what has changed: the models, or what can run."""
        if not self._built:  # while it is being built, parts tell of themselves
            return
        self.fronts.update(self.repository.known, self.serving)
        served = self.repository.listing()
        self.metrics.keep_versions({(model.name, model.version) for model in served})
        models = [model.description for model in served]
        self.metrics.show_models(
            ((model.name, model.version, model.variant, model.provider) for model in models),
            (
                (model.name, model.version, trial.variant, trial.speedup)
                for model in models
                for trial in model.trials
                if trial.speedup
            ),
            ((model.name, model.version, model.golden_difference) for model in served if model.manifest),
            ((model.name, model.version, model.manifest.distributions) for model in served if model.manifest),
            self.repository.refused_count,
        )
        known = self.repository.known
        states = ((state.name, state.version, state.state) for state in self.repository.index() if state.version)
        labels = {name: traffic.labels for name, traffic in known.traffic.items()}
        trials = ((trial.name, trial.version, trial.role, trial.state, trial.share) for trial in known.trials.values())
        self.metrics.show_versions(states, known.defaults, labels, trials)

    def _measure(self) -> None:
        """Has the page show what it asks for at every scrape."""
        metrics, pool, fronts = self.metrics, self.pool, self.fronts
        metrics.serving.set_function(lambda: self.serving and not self._stopped_at)
        metrics.queued.set_function(lambda: pool.dispatcher.waiting_count)
        metrics.workers.set_function(lambda: pool.serving_count)
        metrics.restarts.set_function(lambda: pool.restart_count)
        metrics.memory.labels("server").set_function(lambda: private_bytes([os.getpid()]))
        metrics.memory.labels("workers").set_function(lambda: private_bytes(pool.pids))
        if isinstance(fronts, Hub):
            metrics.memory.labels("fronts").set_function(lambda: private_bytes(fronts.pids))
        metrics.connections.set_function(lambda: connection_count(self._port) if self._port else 0)
        metrics.most_connections.set(self._layout.fronts * most_connections(self._settings))
        with contextlib.suppress(OSError):  # no driver, no GPU
            metrics.registry.register(Gpus(Nvml().read))

    def _speak(self, board: Board, arenas: list[Arena], memory: Memory) -> Front | Hub:
        line, apart = self.pool.dispatcher, self._layout.decoders > 0
        if self._layout.fronts > 1:
            return Hub(
                self._settings,
                line,
                self._control,
                board,
                arenas,
                decodes_apart=apart,
                report=self._rollback.take,
            )
        executor = Executor(line, arenas[0], memory, decodes_apart=apart)

        report = self._rollback.take

        async def recall(_: str) -> None:
            """There is no other front."""

        shared = Shared(self.repository, executor, self._control, board, memory, self._statistics, report, recall)
        return Front(self._settings, shared, self.metrics)

    async def _statistics(self) -> Mapping[Key, Figures]:
        """The figures of every model, of all fronts together."""
        return await self.fronts.statistics() if isinstance(self.fronts, Hub) else self.metrics.statistics.all

    def _let_in(self, entry: Entry) -> None:
        self.fronts.let_in(entry)
        if self._admin:
            self._admin.let_in(entry)
        if entry.certificate:
            self.metrics.certificate_expiry.labels("server").set(expires(entry.certificate.chain).timestamp())
        if self._page:
            self._page.let_in(*readers(entry))

    def _page_registry(self) -> CollectorRegistry:
        """What the metrics page shows: this process's metrics, and those of fronts of their own."""
        hub, registry = self.fronts, self.metrics.registry
        loop = asyncio.get_running_loop()
        if isinstance(hub, Hub):

            def read() -> list[Iterable[Metric]]:
                theirs = asyncio.run_coroutine_threadsafe(hub.metrics(), loop).result()
                return [self.metrics.registry.collect(), *theirs]

            registry = CollectorRegistry()
            registry.register(Added(read))
        if self._settings.triton_metrics:

            async def figures() -> list[tuple[str, int, Figures]]:
                every, served = await self._statistics(), self.repository.listing()
                return [(model.name, model.version, every.get(model.number, Figures())) for model in served]

            registry.register(TritonNames(lambda: asyncio.run_coroutine_threadsafe(figures(), loop).result()))
        return registry

    def _open_page(self, port: int) -> MetricsPage:
        reachable = self._settings.insecure or self._settings.tls_cert is not None
        try:
            return MetricsPage(self._readings, "" if reachable else LOOPBACK, port, *readers(self._entry_files.entry))
        except OSError as error:
            raise StartError(f"--metrics-port {port} cannot be bound: {error.strerror}") from error

    def _worker_settings(self, device: Device, limits: Limits) -> WorkerSettings:
        settings = self._settings
        return WorkerSettings(
            models=str(settings.models),
            variant=settings.variant,
            device=device,
            buckets=self._layout.buckets,
            max_batch_size=MAX_BATCH_ENTRIES,
            max_picture_bytes=limits.max_bytes,
            max_picture_pixels=limits.max_pixels,
            log_format=settings.log_format,
            log_level=settings.log_level,
            thread_count=self._layout.threads,
            require_signature=None if settings.require_signature is None else str(settings.require_signature),
        )


def _write_port(file: Path, port: int) -> None:
    try:
        atomic_files.write(file, f"{port}\n")
    except OSError as error:
        raise StartError(f"--port-file {file} cannot be written: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
