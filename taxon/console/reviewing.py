"""What people have said of answers, with the pictures, the newest first."""

import re
from collections import deque

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from taxon.console.rendering import page
from taxon.feedback.sealing import SealError
from taxon.feedback.store import Store

SHOWN = 100
MEDIA_TYPES = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp", "gif": "image/gif"}
DIGEST = re.compile(r"[0-9a-f]{64}")


async def feedback(request: Request) -> Response:
    """The last things that were said."""
    store: Store = request.app.state.store
    last = deque(store.said(), SHOWN)
    return page(request, "feedback.html", figures=store.figures(), said=[*reversed(last)])


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
