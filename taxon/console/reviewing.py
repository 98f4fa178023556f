"""What people have said of answers, one picture after the other, and what a reviewer decides of it."""

import re
from collections import deque
from urllib.parse import urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from taxon.console.forms import read
from taxon.console.rendering import page
from taxon.feedback import review
from taxon.feedback.decisions import Verdict
from taxon.feedback.errors import ReviewError
from taxon.feedback.review import Case
from taxon.feedback.sealing import SealError
from taxon.feedback.store import Store

SHOWN = 60
MEDIA_TYPES = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp", "gif": "image/gif"}
DIGEST = re.compile(r"[0-9a-f]{64}")
PLACE = re.compile(r"[0-9]{1,9}")
VERDICTS: dict[str, Verdict] = {"accept": "accept", "correct": "correct", "none": "correct", "reject": "reject"}
"""By button; `none`: none of the classes is right."""


async def feedback(request: Request) -> Response:
    """The picture that waits for a decision, or what was said last."""
    store: Store = request.app.state.store
    asked = request.query_params
    waiting = review.cases(store)
    place = asked.get("at", "0")
    at = min(int(place) if PLACE.fullmatch(place) else 0, max(0, len(waiting) - 1))
    decided = store.decisions()
    return page(
        request,
        "feedback.html",
        figures=store.figures(),
        waiting=waiting,
        at=at,
        case=waiting[at] if waiting else None,
        seen=_seen(waiting[at]) if waiting else "",
        reviewer=asked.get("reviewer", ""),
        done=decided.get(asked.get("done", "")),
        said=[*reversed(deque(store.said(), SHOWN))],
        decided=decided,
    )


async def decide(request: Request) -> Response:
    """Keeps a decision, and shows the next picture."""
    store: Store = request.app.state.store
    form = await read(request)
    picture, reviewer, verdict = form.text("picture"), form.text("reviewer"), form.text("verdict")
    case = next((one for one in review.cases(store, pending=False) if one.picture == picture), None)
    if case is None:
        raise HTTPException(404, "This picture is no longer kept.")
    if form.text("seen") != _seen(case):
        raise HTTPException(409, "Somebody has said something of this picture, or decided, meanwhile: look again.")
    label = form.text("label")
    if verdict not in VERDICTS or (verdict == "correct") != bool(label):
        raise HTTPException(400, "Write a label to correct what is said, and none otherwise.")
    try:
        review.decide(store, case, VERDICTS[verdict], reviewer, [label] if label else [])
    except ReviewError as error:
        raise HTTPException(400, f"{error}.") from error
    return _next(request, form.text("at"), reviewer, picture)


async def undo(request: Request) -> Response:
    """Takes a decision back, and shows its picture among those that wait."""
    form = await read(request)
    reviewer = form.text("reviewer")
    try:
        review.undo(request.app.state.store, reviewer, [form.text("picture")])
    except ReviewError as error:
        raise HTTPException(409, f"{error}.") from error
    return _next(request, form.text("at"), reviewer, "")


async def picture(request: Request) -> Response:
    """One kept picture."""
    name, extension = request.path_params["picture"], request.path_params["extension"]
    store: Store = request.app.state.store
    if not DIGEST.fullmatch(name) or extension not in MEDIA_TYPES:
        raise HTTPException(404, "There is no such picture.")
    try:
        content = store.pictures.read(name, extension)
    except OSError as error:
        raise HTTPException(404, "This picture is no longer kept.") from error
    except SealError as error:
        raise HTTPException(403, f"{error}: start the console with --feedback-key.") from error
    return Response(content, media_type=MEDIA_TYPES[extension])


def _seen(case: Case) -> str:
    """Changes whenever somebody says something of the picture, or decides."""
    return f"{len(case.voices)} {case.answer.said_at!r} {case.decision.decided_at if case.decision else 0.0!r}"


def _next(request: Request, at: str, reviewer: str, done: str) -> Response:
    query = urlencode({"at": at, "reviewer": reviewer, "done": done})
    return RedirectResponse(f"{request.scope['root_path']}/feedback?{query}", 303)
