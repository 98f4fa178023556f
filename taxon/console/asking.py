"""The first page: a picture goes to the server, its answer comes back, and somebody says whether it is right."""

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from taxon.client import feedback_request
from taxon.console.rendering import page
from taxon.console.upstream import Upstream
from taxon.errors import TaxonError
from taxon.v1 import classification_service_pb2 as pb

LABELS_OFFERED = 2000
"""More would make a page that no phone takes."""
LABEL = "label:"
"""Before the labels among the choices, so that none of them is taken for `NONE` or `OTHER`."""
NONE, OTHER = "none", "other"


async def ask(request: Request) -> Response:
    """The empty page."""
    models = await request.app.state.upstream.models()
    most = request.app.state.console.max_picture_bytes
    return page(request, "ask.html", models=[one for one in models if one.input.HasField("image")], max_bytes=most)


async def classify(request: Request) -> Response:
    """The answer for one picture."""
    form = await _form(request)
    picture = form.get("picture")
    if not isinstance(picture, UploadFile) or not (content := await picture.read()):
        raise HTTPException(400, "There is no picture in what was sent: choose one.")
    if len(content) > (most := request.app.state.console.max_picture_bytes):
        raise HTTPException(413, f"More than {most:,} bytes may not be sent: take a smaller picture.")
    name, _, version = _text(form, "model").partition("/")
    upstream: Upstream = request.app.state.upstream
    response = await upstream.classify(content, name, version)
    model = await _described(upstream, response)
    return page(
        request,
        "answer.html",
        file_name=picture.filename or "picture",
        response=response,
        model=model,
        labels=[] if model is None else model.labels[:LABELS_OFFERED],
    )


async def say(request: Request) -> Response:
    """What somebody says of an answer goes to the server."""
    form = await _form(request)
    if not form.get("consent"):
        raise HTTPException(400, "Without consent nothing is kept: tick the box, or leave it.")
    try:
        asked = feedback_request(
            _labels(form),
            contributor=_text(form, "contributor"),
            request_id=_text(form, "request_id"),
            share=bool(form.get("share")),
            license=_text(form, "license"),
            note=_text(form, "note"),
        )
    except ValueError as error:
        raise HTTPException(400, f"{error}.") from error
    kept = await request.app.state.upstream.submit_feedback(asked)
    return page(request, "said.html", kept=kept, labels=[*asked.labels])


async def _form(request: Request) -> FormData:
    return await request.form(max_files=1, max_fields=200)


async def _described(upstream: Upstream, response: pb.ClassifyResponse) -> pb.Model | None:
    """The version that answered; None if it has gone meanwhile."""
    try:
        return await upstream.model(response.model_name, response.model_version)
    except TaxonError:
        return None


def _labels(form: FormData) -> list[str]:
    choices = [str(choice) for choice in form.getlist("choice")]
    other = _text(form, "other_label")
    if not choices:
        raise ValueError("nothing is chosen: say which label fits, or that none does")
    if bool(other) != (OTHER in choices):
        raise ValueError("another label is chosen and not written, or written and not chosen")
    labels = [choice.removeprefix(LABEL) for choice in choices if choice.startswith(LABEL)]
    labels += [other] if other else []
    if labels and NONE in choices:
        raise ValueError("both a label and none of them cannot be right")
    return labels


def _text(form: FormData, field: str) -> str:
    value = form.get(field, "")
    return value.strip() if isinstance(value, str) else ""
