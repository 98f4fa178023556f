"""One front: everything between the wire and the executor. A server has one in its own process, or several in
processes of their own; all parts that they must agree on are given to them.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import grpc
import structlog

from taxon.bundle.picture_limits import Limits
from taxon.inference.open_inference_service_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
from taxon.service.access.door import Door
from taxon.service.access.entry import Entry
from taxon.service.access.gate import Gate
from taxon.service.access.usage import CallerLimits
from taxon.service.api import reflection, statuses
from taxon.service.api.caller import method as called
from taxon.service.api.classification import SERVICE, ClassificationService
from taxon.service.api.early_refusal import EarlyRefusal
from taxon.service.api.explanation import SERVICE as EXPLANATION
from taxon.service.api.explanation import ExplanationService
from taxon.service.api.feedback import SERVICE as FEEDBACK
from taxon.service.api.feedback import FeedbackService
from taxon.service.api.guard import Context, Guard, UnknownMethods
from taxon.service.api.health import Readiness
from taxon.service.api.reception import Reception
from taxon.service.api.request_view import RequestView
from taxon.service.config import Settings
from taxon.service.explanation.explaining import Explaining
from taxon.service.explanation.lane import Lane
from taxon.service.feedback.keeper import Keeper, Recall, Subject
from taxon.service.feedback.recent import Recent
from taxon.service.feedback.rules import Rules
from taxon.service.feedback.writer import Writer
from taxon.service.fronts.leaving import AGE_SPREAD, Arrivals, stop_listening
from taxon.service.fronts.server_options import server_options
from taxon.service.machine import memory_limit
from taxon.service.models.repository import Known, Repository
from taxon.service.models.routing import Routing, Seen
from taxon.service.models.shadowing import Shadowing
from taxon.service.open_inference.inference import Inference
from taxon.service.open_inference.service import SERVICE as OPEN_INFERENCE
from taxon.service.open_inference.service import Control, Limit, OpenInferenceService, to_status
from taxon.service.pipeline import Pipeline
from taxon.service.scheduling.admission import Permits
from taxon.service.scheduling.board import Board
from taxon.service.scheduling.memory import Memory, memory
from taxon.service.telemetry.access_log import AccessLog
from taxon.service.telemetry.calls import Calls
from taxon.service.telemetry.metrics import Metrics
from taxon.service.telemetry.statistics import ReadStatistics
from taxon.service.telemetry.tracing import tracing
from taxon.service.workers.executor import Executor
from taxon.v1.classification_service_pb2_grpc import add_ClassificationServiceServicer_to_server
from taxon.v1.explanation_service_pb2_grpc import add_ExplanationServiceServicer_to_server
from taxon.v1.feedback_service_pb2_grpc import add_FeedbackServiceServicer_to_server

CLASSIFY, BATCH_CLASSIFY = f"/{SERVICE}/Classify", f"/{SERVICE}/BatchClassify"
MODEL_INFER = f"/{OPEN_INFERENCE}/ModelInfer"
HEALTH = "grpc.health.v1.Health"
MAX_OPEN_COUNT = 16_384
"""Calls at once, also of those who watch health or have opened calls and send nothing: each takes some 22 kB."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Shared:
    """What all fronts of a server have in common."""

    repository: Repository
    executor: Executor
    control: Control
    board: Board
    memory: Memory
    statistics: ReadStatistics
    report: Callable[[Seen], None]
    """Told what becomes of calls while a canary is on trial."""
    recall: Recall
    """Asks the other fronts for an answer that somebody speaks of."""


class Front:
    """Speaks gRPC on one port."""

    def __init__(
        self, settings: Settings, shared: Shared, metrics: Metrics, number: int = 0, *, shares_port: bool = False
    ) -> None:
        """Builds every part; listens to nothing yet. Must be called on the event loop.

        Args:
            settings: Of the server.
            shared: Parts that are the same in every front.
            metrics: Of this front.
            number: Of this front on the board.
            shares_port: Whether its siblings listen on the same port.
        """
        self._settings = settings
        self.metrics = metrics
        self._repository = shared.repository
        self.readiness = Readiness()
        permits = Permits(settings.max_queued_requests, shared.board, number, shared.executor.predicted_wait_s)
        metrics.in_flight.set_function(lambda: shared.board.held_of(number))
        routing = Routing(shared.repository, shared.report)
        shadowing = Shadowing(shared.repository, shared.executor, metrics)
        pipeline = Pipeline(shared.repository, permits, shared.executor, routing, shadowing, metrics)
        self._calls = calls_of(settings, metrics)
        self._keeper = _keeper(settings, shared, metrics)
        classification = ClassificationService(
            pipeline, shared.repository, self._calls, settings.max_call_seconds, self._keeper
        )
        feedback = FeedbackService(
            self._keeper,
            pipeline,
            shared.repository,
            permits,
            shared.memory.limits,
            settings.max_call_seconds,
        )
        explanation = ExplanationService(
            Explaining(settings.models, Lane(shared.executor, metrics), metrics),
            shared.repository,
            shared.memory.limits,
            settings.max_call_seconds,
        )
        open_inference = OpenInferenceService(
            Inference(pipeline, shared.repository),
            pipeline,
            shared.repository,
            shared.control,
            self._calls,
            shared.statistics,
            lambda: self.readiness.serving,
            Limit(settings.max_call_seconds, settings.max_queued_requests, settings.model_control == "explicit"),
        )
        self._door = door(settings, metrics, self._calls, shared.board, number)
        self._server = grpc.aio.server(
            interceptors=self._door.interceptors,
            options=server_options(settings, shares_port=shares_port),
            maximum_concurrent_rpcs=max(MAX_OPEN_COUNT, 2 * settings.max_connections),
        )
        self._arrivals = Arrivals()
        self._port = 0
        reception = Reception(shared.memory.queued_bytes, settings.max_message_bytes)
        self._register(classification, feedback, explanation, open_inference, permits, reception)

    def _register(
        self,
        classification: ClassificationService,
        feedback: FeedbackService,
        explanation: ExplanationService,
        open_inference: OpenInferenceService,
        permits: Permits,
        reception: Reception,
    ) -> None:
        settings, server = self._settings, self._server

        calls = self._calls
        guard = Guard(server, calls, large={"BatchClassify": reception}, readers={"Classify": RequestView.of})
        # Generic handlers are asked in their order: the refusal stands before the service whose handler it uses.
        refusal = EarlyRefusal(permits, calls)
        server.add_generic_rpc_handlers((self._arrivals, refusal))
        add_ClassificationServiceServicer_to_server(classification, guard)
        refusal.stand_before({name: guard.handlers[name] for name in (CLASSIFY, BATCH_CLASSIFY)}, statuses.to_status)
        add_FeedbackServiceServicer_to_server(feedback, Guard(server, calls))
        add_ExplanationServiceServicer_to_server(explanation, Guard(server, calls))
        guard = Guard(server, calls, to_status, large={"ModelInfer": reception})
        add_GRPCInferenceServiceServicer_to_server(open_inference, guard)
        refusal.stand_before({MODEL_INFER: guard.handlers[MODEL_INFER]}, to_status)
        self.readiness.register(Guard(server, calls))
        if settings.reflection:
            reflection.register(Guard(server, calls), [SERVICE, FEEDBACK, EXPLANATION, OPEN_INFERENCE, HEALTH])
        server.add_generic_rpc_handlers((UnknownMethods(calls),))

    def let_in(self, entry: Entry) -> None:
        """Asks this of those who come from now on. Must have been called before `start`."""
        self._door.let_in(entry)

    async def start(self, address: str) -> int:
        """Listens. Returns the port.

        Raises:
            StartError: The address cannot be bound.
        """
        self._port = self._door.bind(self._server, address)
        await self._server.start()
        return self._port

    def update(self, known: Known, serving: bool) -> None:
        """Takes over what is known of the models, and tells everybody who asks or watches whether the server serves."""
        self._repository.known = known
        models = self._repository.listing()
        self.metrics.statistics.keep({model.number for model in models})
        self.metrics.keep_versions({(model.name, model.version) for model in models})
        self.readiness.set_serving(serving)

    async def heard(self, model: int = 0) -> None:
        """Returns once calls go by what `update` told last, and none holds this model any more."""
        await self._repository.holds.let_go(model)

    def recall(self, request_id: str) -> Subject | None:
        """What this front remembers of an answer."""
        return self._keeper.recall(request_id) if self._keeper else None

    async def drain(self) -> None:
        """Tells balancers, waits for them, leads clients away, finishes the calls that are on their way."""
        settings = self._settings
        self.readiness.leave()
        await asyncio.sleep(settings.drain_delay_seconds)
        ends = time.monotonic() + settings.drain_grace_seconds
        stop_listening(self._port)
        await self._arrivals.cease(min(settings.drain_grace_seconds, AGE_SPREAD * settings.max_connection_age_seconds))
        self.readiness.end_watches()
        await self._server.stop(max(0.0, ends - time.monotonic()))
        if self._keeper:
            await self._keeper.close()
        await asyncio.to_thread(self._calls.close)

    async def close(self) -> None:
        """Ends at once. Without effect after a drain."""
        await self._server.stop(None)
        if self._keeper:
            await self._keeper.close()


def _keeper(settings: Settings, shared: Shared, metrics: Metrics) -> Keeper | None:
    """None: nothing is kept."""
    if settings.feedback is None:
        return None
    # A server without feedback starts without what stores need.
    from taxon.service.feedback.opening import open_store

    rules = Rules(
        settings.feedback_sample,
        settings.feedback_below_score,
        settings.feedback_unfamiliar,
        settings.feedback_consented,
    )
    writer = Writer(
        lambda: open_store(settings),
        lambda: shared.executor.predicted_wait_s() > 0.0,
        lambda outcome: metrics.captures.labels(outcome).inc(),
    )
    recent = Recent(settings.feedback_recall_bytes, settings.feedback_recall_seconds)
    return Keeper(rules, recent, writer, shared.recall)


def calls_of(settings: Settings, metrics: Metrics) -> Calls:
    """What a process that speaks gRPC tells of its calls.

    Raises:
        StartError: A package for traces is missing.
    """
    access = AccessLog(settings.access_log_sample)
    return Calls(access, metrics.count_request, tracing(settings.otlp_endpoint, settings.otlp_sample))


def door(settings: Settings, metrics: Metrics, calls: Calls, board: Board, number: int) -> Door:
    """That of a port which counts what callers do at a place of a board."""
    if settings.keys is None:
        return Door(None)
    limits = CallerLimits(settings.max_caller_calls, settings.max_caller_calls_per_second)

    def tell(status: grpc.StatusCode, reason: str, caller: str, context: Context) -> None:
        metrics.refused_calls.labels(reason, caller).inc()
        calls.refuse(called.get(), status, reason, caller, context.invocation_metadata)

    return Door(Gate(limits, tell, board, number))


def memory_of(settings: Settings) -> Memory:
    """What the settings grant to callers' inputs here; the same in every process of a server.

    Raises:
        StartError: It is more than the container has.
    """
    return memory(
        memory_limit(),
        Limits(settings.max_picture_bytes, settings.max_picture_pixels),
        settings.max_message_bytes,
        settings.max_queued_bytes,
        settings.max_decoding_bytes,
    )
