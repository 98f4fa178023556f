"""The first page: a picture goes to the server, its answer comes back, and somebody says whether it is right."""

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from taxon.client import feedback_request
from taxon.console.forms import Form, read
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
    form = await read(request)
    content = form.picture(request.app.state.console.max_picture_bytes)
    name, _, version = form.text("model").partition("/")
    upstream: Upstream = request.app.state.upstream
    response = await upstream.classify(content, name, version)
    model = await _described(upstream, response)
    return page(
        request,
        "answer.html",
        file_name=form.file_name,
        response=response,
        model=model,
        labels=[] if model is None else model.labels[:LABELS_OFFERED],
    )


async def explain(request: Request) -> Response:
    """Which parts of one picture speak for a label, or for the best one."""
    form = await read(request)
    content = form.picture(request.app.state.console.max_picture_bytes)
    name, _, version = form.text("model").partition("/")
    found = await request.app.state.upstream.explain(content, form.text("label"), name, version)
    return page(request, "why.html", file_name=form.file_name, found=found)


async def say(request: Request) -> Response:
    """What somebody says of an answer goes to the server."""
    form = await read(request)
    if not form.text("consent"):
        raise HTTPException(400, "Without consent nothing is kept: tick the box, or leave it.")
    try:
        asked = feedback_request(
            _labels(form),
            contributor=form.text("contributor"),
            request_id=form.text("request_id"),
            share=bool(form.text("share")),
            license=form.text("license"),
            note=form.text("note"),
        )
    except ValueError as error:
        raise HTTPException(400, f"{error}.") from error
    kept = await request.app.state.upstream.submit_feedback(asked)
    return page(request, "said.html", kept=kept, labels=[*asked.labels])


async def _described(upstream: Upstream, response: pb.ClassifyResponse) -> pb.Model | None:
    """The version that answered; None if it has gone meanwhile."""
    try:
        return await upstream.model(response.model_name, response.model_version)
    except TaxonError:
        return None


def _labels(form: Form) -> list[str]:
    choices = form.texts.get("choice", ())
    other = form.text("other_label")
    if not choices:
        raise ValueError("nothing is chosen: say which label fits, or that none does")
    if bool(other) != (OTHER in choices):
        raise ValueError("another label is chosen and not written, or written and not chosen")
    labels = [choice.removeprefix(LABEL) for choice in choices if choice.startswith(LABEL)]
    labels += [other] if other else []
    if labels and NONE in choices:
        raise ValueError("both a label and none of them cannot be right")
    return labels
