"""`taxon.v1.ExplanationService` in and out. Checks what the messages' comments promise; decides nothing else."""

from taxon.bundle.picture_limits import Limits, PictureTooLargeError
from taxon.bundle.thumbnails import MOST_NEIGHBORS
from taxon.service.api.guard import Context, deadline
from taxon.service.errors import FieldInvalidError
from taxon.service.explanation.explaining import Explaining, Method
from taxon.service.models.repository import Repository
from taxon.service.telemetry import calls
from taxon.v1 import explanation_service_pb2 as pb
from taxon.v1 import explanation_service_pb2_grpc as pb_grpc

SERVICE = "taxon.v1.ExplanationService"
NUMBERS: dict[Method, pb.ExplanationMethod] = {
    "activation": pb.EXPLANATION_METHOD_ACTIVATION,
    "masking": pb.EXPLANATION_METHOD_MASKING,
}
METHODS: dict[int, Method | None] = {
    pb.EXPLANATION_METHOD_UNSPECIFIED: None,
    **{number: method for method, number in NUMBERS.items()},
}


class ExplanationService(pb_grpc.ExplanationServiceServicer):
    """Which parts of a picture speak for a label."""

    def __init__(self, explaining: Explaining, repository: Repository, limits: Limits, max_call_s: float) -> None:
        """Explains nothing yet.

        Args:
            explaining: Of the front.
            repository: What is served.
            limits: Of pictures.
            max_call_s: Ceiling of a call's time.
        """
        self._explaining = explaining
        self._repository = repository
        self._limits = limits
        self._max_call_s = max_call_s

    async def Explain(self, request: pb.ExplainRequest, context: Context) -> pb.ExplainResponse:  # noqa: N802
        """Explains one label of one picture."""
        until = deadline(context, self._max_call_s)
        if not request.image:
            raise FieldInvalidError("image", "set it")
        if request.method not in METHODS:
            raise FieldInvalidError("method", f"must be one of {[*METHODS]}, not {request.method}")
        if not 0 <= request.max_neighbors <= MOST_NEIGHBORS:
            raise FieldInvalidError("max_neighbors", f"must be from 0 to {MOST_NEIGHBORS}, not {request.max_neighbors}")
        if len(request.image) > self._limits.max_bytes:
            raise PictureTooLargeError(len(request.image), self._limits)
        model = self._repository.find_classifier(request.model_name, request.model_version)
        calls.found(model.name, model.version)
        with self._repository.holds.held(model.number):
            told = await self._explaining.explain(
                request.image,
                model,
                request.label,
                METHODS[request.method],
                until,
                draw=request.include_overlay,
                max_neighbors=request.max_neighbors,
            )
        call = calls.current.get()
        rows, columns = told.heat.shape
        return pb.ExplainResponse(
            model_name=model.name,
            model_version=str(model.version),
            variant=model.description.variant,
            label=told.label,
            class_index=told.class_index,
            score=told.score,
            method=NUMBERS[told.method],
            map=pb.ExplanationMap(row_count=rows, column_count=columns, values=told.heat.ravel().tolist()),
            overlay_png=told.overlay_png,
            run_count=told.run_count,
            request_id=call.request_id if call else "",
            neighbors=(pb.Neighbor(**neighbor._asdict()) for neighbor in told.neighbors),
        )
