"""`taxon.v1` in and out: protobuf request → domain call → protobuf response. No protobuf type goes further.

Checks what the messages' comments promise; decides nothing else.
"""

import asyncio
from collections.abc import Sequence

import structlog
from google.protobuf.duration_pb2 import Duration

from taxon.bundle.manifest import GRAPH_OUTPUT
from taxon.choice import Choice
from taxon.service.api import guard
from taxon.service.api.guard import Context, deadline
from taxon.service.api.pages import page_size, read_token, write_token
from taxon.service.api.request_view import RequestView
from taxon.service.errors import FieldInvalidError
from taxon.service.feedback.keeper import Keeper
from taxon.service.models.model import Model
from taxon.service.models.repository import Repository
from taxon.service.models.routing import MAX_KEY_BYTES
from taxon.service.models.trials import TrafficTrial
from taxon.service.pipeline import Answer, Pipeline
from taxon.service.scheduling.picture_size import Encoded
from taxon.service.telemetry import calls
from taxon.service.telemetry.calls import Calls
from taxon.v1 import classification_service_pb2 as pb
from taxon.v1 import classification_service_pb2_grpc as pb_grpc

SERVICE = "taxon.v1.ClassificationService"
MAX_BATCH_ENTRIES = 256
MAX_PAGE_BYTES = 3 * 2**20
"""gRPC's clients take messages of 4 MiB unless they are told otherwise."""
TASKS = {"single_label": pb.TASK_SINGLE_LABEL, "multi_label": pb.TASK_MULTI_LABEL}
ROLES = {"canary": pb.TRAFFIC_ROLE_CANARY, "shadow": pb.TRAFFIC_ROLE_SHADOW}
MEASURES = {"score": pb.UNKNOWN_MEASURE_SCORE, "familiarity": pb.UNKNOWN_MEASURE_FAMILIARITY}

log = structlog.get_logger(__name__)


class ClassificationService(pb_grpc.ClassificationServiceServicer):
    """The public API."""

    def __init__(
        self,
        pipeline: Pipeline,
        repository: Repository,
        told: Calls,
        max_call_s: float,
        keeper: Keeper | None = None,
    ) -> None:
        """Answers nothing yet.

        Args:
            pipeline: Of the front.
            repository: What is served.
            told: Told of every entry of a call.
            max_call_s: Ceiling of a call's time.
            keeper: Takes note of answered pictures; None: nothing is kept.
        """
        self._pipeline = pipeline
        self._keeper = keeper
        self._repository = repository
        self._calls = told
        self._max_call_s = max_call_s

    async def GetModel(self, request: pb.GetModelRequest, _: Context) -> pb.GetModelResponse:  # noqa: N802
        """Describes one version of one model."""
        model = self._repository.find_classifier(request.model_name, request.model_version)
        calls.found(model.name, model.version)
        return pb.GetModelResponse(model=self._model(model))

    async def ListModels(self, request: pb.ListModelsRequest, _: Context) -> pb.ListModelsResponse:  # noqa: N802
        """Lists every loaded version, as many in a page as a client's usual limit lets through."""
        size = page_size(request.page_size)
        after = read_token(request.page_token)
        listed = [model for model in self._repository.listing() if model.manifest and _key(model) > after]
        page, byte_count = pb.ListModelsResponse(), 0
        for model in listed[:size]:
            message = _shortened(self._model(model))
            byte_count += message.ByteSize()
            if page.models and byte_count > MAX_PAGE_BYTES:
                break
            page.models.append(message)
        if len(page.models) < len(listed):
            page.next_page_token = write_token(_key(listed[len(page.models) - 1]))
        return page

    async def Classify(  # noqa: N802
        self, request: RequestView, context: Context
    ) -> pb.ClassifyResponse:
        """Classifies one input."""
        return await self._classify(request, deadline(context, self._max_call_s))

    async def BatchClassify(  # noqa: N802
        self, request: pb.BatchClassifyRequest, context: Context
    ) -> pb.BatchClassifyResponse:
        """Classifies up to 256 inputs, each with an outcome of its own."""
        count = len(request.requests)
        if not 1 <= count <= MAX_BATCH_ENTRIES:
            raise FieldInvalidError("requests", f"must have 1 to {MAX_BATCH_ENTRIES} entries, not {count}")
        until = deadline(context, self._max_call_s)
        turns = self._pipeline.turns()

        async def outcome(entry: pb.ClassifyRequest) -> pb.BatchClassifyResult:
            async with turns:
                answer = await guard.entry(self._calls, self._classify(RequestView(entry, None), until))
            if isinstance(answer, pb.ClassifyResponse):
                return pb.BatchClassifyResult(response=answer)
            return pb.BatchClassifyResult(error=answer)

        # A TaskGroup, so that a caller who leaves takes every entry along.
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(outcome(entry)) for entry in request.requests]
        return pb.BatchClassifyResponse(results=[task.result() for task in tasks])

    async def _classify(self, request: RequestView, until: float) -> pb.ClassifyResponse:
        given = _given(request)
        answer = await self._pipeline.classify(given, _choice(request.message), until)
        call = calls.current.get()
        response = _response(answer, call.request_id if call else "")
        if self._keeper is not None and isinstance(given, bytes | memoryview):
            self._keeper.answered(response.request_id, given, answer, _consent(request.message))
        log.debug("answered", request_id=response.request_id, model=response.model_name, version=response.model_version)
        return response

    def _model(self, model: Model) -> pb.Model:
        manifest = model.manifest
        if manifest is None:
            raise TypeError("a classifier has a manifest")
        if manifest.input.kind == "image":
            height, width, channel_count = manifest.input.shape
            taken = pb.ModelInput(image=pb.ImageInput(height=height, width=width, channel_count=channel_count))
        else:
            (count,), names = manifest.input.shape, manifest.input.names
            taken = pb.ModelInput(features=pb.FeaturesInput(feature_count=count, feature_names=names))
        threshold = manifest.unknown_threshold(model.description.variant)
        return pb.Model(
            name=manifest.name,
            version=str(manifest.version),
            default_version=self._repository.default_version(manifest.name) == manifest.version,
            task=TASKS[manifest.task],
            labels=manifest.labels,
            input=taken,
            variant=model.description.variant,
            execution_provider=model.description.provider,
            unknown_threshold=threshold or 0.0,
            metrics=manifest.metrics,
            variant_trials=(
                pb.VariantTrial(variant=trial.variant, speedup=trial.speedup, reason=trial.reason)
                for trial in model.description.trials
            ),
            unknown_measure=None if threshold is None else MEASURES[manifest.thresholds.unknown_by],
            traffic_trial=trial_message(self._repository.trial(manifest.name, manifest.version)),
            thumbnail_count=len(manifest.thumbnails.pictures) if manifest.thumbnails else 0,
        )


def trial_message(trial: TrafficTrial | None) -> pb.TrafficTrial | None:
    """A version's trial, if it is on one."""
    return None if trial is None else pb.TrafficTrial(role=ROLES[trial.role], share=trial.share, reason=trial.reason)


def _shortened(model: pb.Model) -> pb.Model:
    """Without the lists that alone would be more than a page."""
    if model.ByteSize() > MAX_PAGE_BYTES:
        model.ClearField("labels")
    if model.ByteSize() > MAX_PAGE_BYTES:
        model.input.features.ClearField("feature_names")
    return model


def _given(view: RequestView) -> Encoded | Sequence[float]:
    if view.image is not None:
        return view.image
    request = view.message
    kind = request.WhichOneof("input")
    if kind == "image":
        return request.image
    if kind == "features":
        return tuple(request.features.values)
    raise FieldInvalidError("input", "set image or features")


def _choice(request: pb.ClassifyRequest) -> Choice:
    if request.max_results < 0:
        raise FieldInvalidError("max_results", "must not be negative")
    min_score = request.min_score if request.HasField("min_score") else None
    if min_score is not None and not 0.0 <= min_score <= 1.0:  # NaN is outside too
        raise FieldInvalidError("min_score", "must be in [0.0, 1.0]")
    return Choice(request.model_name, request.model_version, request.max_results, min_score, _key_of(request))


def _consent(request: pb.ClassifyRequest) -> bool | None:
    return request.capture_consent if request.HasField("capture_consent") else None


def _key_of(request: pb.ClassifyRequest) -> str:
    key = request.routing_key
    if len(key) > MAX_KEY_BYTES or len(key.encode()) > MAX_KEY_BYTES:
        raise FieldInvalidError("routing_key", f"must have at most {MAX_KEY_BYTES} bytes")
    return key


def _response(answer: Answer, request_id: str) -> pb.ClassifyResponse:
    model, scored = answer.model, answer.scored
    labels = model.description.labels[GRAPH_OUTPUT]
    response = pb.ClassifyResponse(
        unknown=answer.ranked.unknown,
        model_name=model.name,
        model_version=str(model.version),
        variant=model.description.variant,
        request_id=request_id,
        familiarity=answer.ranked.familiarity,
    )
    # Filled in place: messages built apart and copied in take twice as long.
    add = response.classifications.add
    for index, score in zip(answer.ranked.indexes, answer.ranked.scores, strict=True):
        add(label=labels[index], class_index=index, score=score)
    told = response.timing
    told.batch_size = scored.batch_size
    _put(told.preprocess_duration, scored.preprocess_s)
    _put(told.queue_duration, scored.queue_s)
    _put(told.inference_duration, scored.inference_s)
    _put(told.total_duration, scored.total_s)
    return response


def _put(duration: Duration, seconds: float) -> None:
    whole = int(seconds)
    duration.seconds, duration.nanos = whole, int((seconds - whole) * 1e9)


def _key(model: Model) -> tuple[str, int]:
    return model.name, model.version
