"""`taxon.v1.FeedbackService` in and out: protobuf request → what somebody says of an answer → protobuf response."""

from taxon.bundle.manifest import GRAPH_OUTPUT
from taxon.bundle.picture_limits import Limits, PictureTooLargeError
from taxon.feedback.records import Consent, Said
from taxon.picture_files import CONTROL
from taxon.service.api.guard import Context, deadline
from taxon.service.errors import FieldInvalidError, QueueFullError, UnsupportedError
from taxon.service.feedback.keeper import Keeper, Subject, record
from taxon.service.models.repository import Repository
from taxon.service.pipeline import Answer, Pipeline, checked
from taxon.service.scheduling.admission import Permits
from taxon.service.telemetry import calls
from taxon.service.telemetry.calls import new_id
from taxon.v1 import feedback_service_pb2 as pb
from taxon.v1 import feedback_service_pb2_grpc as pb_grpc

SERVICE = "taxon.v1.FeedbackService"
CONSENTS: dict[int, Consent] = {pb.CONSENT_TRAIN: "train", pb.CONSENT_SHARE: "share"}
MAX_CONTRIBUTOR_BYTES = 256
MAX_LABELS, MAX_LABEL_CHARACTERS = 100, 100
MAX_LICENSE_CHARACTERS = 64
MAX_NOTE_CHARACTERS = 1000
LABEL_SEPARATOR = "|"
"""Between the labels of one picture, in lists of training data."""
GIVES_WAY_SHARE = 0.5
"""With so many of the permits taken there is no feedback: it is the first to give way."""
RETRY_S = 5.0


class FeedbackService(pb_grpc.FeedbackServiceServicer):
    """What people say of answers."""

    def __init__(
        self,
        keeper: Keeper | None,
        pipeline: Pipeline,
        repository: Repository,
        permits: Permits,
        limits: Limits,
        max_call_s: float,
    ) -> None:
        """Takes nothing yet.

        Args:
            keeper: None: the operator has not switched feedback on.
            pipeline: Runs models on pictures that are sent along.
            repository: What is served.
            permits: Of the front.
            limits: Of pictures.
            max_call_s: Ceiling of a call's time.
        """
        self._keeper = keeper
        self._pipeline = pipeline
        self._repository = repository
        self._permits = permits
        self._limits = limits
        self._max_call_s = max_call_s

    async def SubmitFeedback(  # noqa: N802
        self, request: pb.SubmitFeedbackRequest, context: Context
    ) -> pb.SubmitFeedbackResponse:
        """Keeps what somebody says of a picture."""
        if self._keeper is None:
            raise UnsupportedError("this server takes no feedback: its operator has not switched it on (--feedback)")
        consent = _check(request)
        most = self._permits.max_count
        held = most - self._permits.free_count
        if held >= GIVES_WAY_SHARE * most:
            raise QueueFullError(
                "the server is busy and takes no feedback", RETRY_S, queued_count=held, max_queued_count=most
            )
        if request.WhichOneof("subject") == "request_id":
            subject = await self._keeper.find(request.request_id)
        else:
            subject = await self._classified(request, deadline(context, self._max_call_s))
        proposed = self._proposed(request, subject)
        said = Said(request.contributor, (*request.labels,), proposed, consent, request.license, request.note)
        await self._keeper.say(subject, said)
        return pb.SubmitFeedbackResponse(request_id=subject[1].request_id, proposed_labels=proposed)

    async def _classified(self, request: pb.SubmitFeedbackRequest, until: float) -> Subject:
        """The model's answer to a picture that is sent along. Not by a canary, nor counted as one of its calls."""
        if len(request.image) > self._limits.max_bytes:
            raise PictureTooLargeError(len(request.image), self._limits)
        model = self._repository.find_classifier(request.model_name, request.model_version)
        calls.found(model.name, model.version)
        image = request.image
        scored = await self._pipeline.run(model, checked(image, model), until)
        if model.ranking is None:
            raise TypeError("a classifier has a ranking")
        answer = Answer(model.ranking.rank(scored.scores, 0, None), model, scored)
        return image, record(new_id(), answer)

    def _proposed(self, request: pb.SubmitFeedbackRequest, subject: Subject) -> tuple[str, ...]:
        """Labels that the model does not have. Of one that is served no more nobody knows them."""
        answer = subject[1]
        model = self._repository.known.models.get(answer.model, {}).get(answer.version)
        if model is None or model.manifest is None:
            return ()
        calls.found(model.name, model.version)
        if len(request.labels) > 1 and model.manifest.task == "single_label":
            raise FieldInvalidError("labels", f"exactly one fits by model {answer.model!r}, not {len(request.labels)}")
        known = {*model.description.labels[GRAPH_OUTPUT]}
        return tuple(label for label in request.labels if label not in known)


def _check(request: pb.SubmitFeedbackRequest) -> Consent:
    """Whether everything is as the message's comments say, and what is consented to. Messages repeat nothing of it."""
    if request.WhichOneof("subject") is None or not (request.request_id or request.image):
        raise FieldInvalidError("subject", "set request_id or image")
    if bool(request.labels) == request.none_of_these:
        raise FieldInvalidError("labels", "set either labels or none_of_these")
    if len(request.labels) > MAX_LABELS or len({*request.labels}) != len(request.labels):
        raise FieldInvalidError("labels", f"must be at most {MAX_LABELS}, none of them twice")
    for label in request.labels:
        if not label or label != label.strip() or CONTROL.search(label) or LABEL_SEPARATOR in label:
            raise FieldInvalidError(
                "labels", f"must not be empty, have spaces around them, control characters or {LABEL_SEPARATOR!r}"
            )
        if len(label) > MAX_LABEL_CHARACTERS:
            raise FieldInvalidError("labels", f"must have at most {MAX_LABEL_CHARACTERS} characters each")
    if not request.contributor or len(request.contributor.encode()) > MAX_CONTRIBUTOR_BYTES:
        raise FieldInvalidError("contributor", f"must have 1 to {MAX_CONTRIBUTOR_BYTES} bytes")
    if request.consent not in CONSENTS:
        raise FieldInvalidError("consent", "must be CONSENT_TRAIN or CONSENT_SHARE: without it nothing is kept")
    if len(request.license) > MAX_LICENSE_CHARACTERS or CONTROL.search(request.license):
        raise FieldInvalidError("license", f"must have at most {MAX_LICENSE_CHARACTERS} characters, none of control")
    if len(request.note) > MAX_NOTE_CHARACTERS or "\0" in request.note:
        raise FieldInvalidError("note", f"must have at most {MAX_NOTE_CHARACTERS} characters, none of them NUL")
    return CONSENTS[request.consent]
