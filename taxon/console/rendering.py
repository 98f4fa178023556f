"""The templates, filled in. Every value goes into them as text, whatever it holds."""

import base64
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from google.protobuf.duration_pb2 import Duration
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse

from taxon import __version__

NOTHING = "\N{EN DASH}"
"""Where there is no figure."""
REPORT_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox"
"""A report holds its pictures and styles, and no script."""
TEMPLATES = Path(__file__).parent / "templates"


def page(request: Request, template: str, status: int = 200, **content: Any) -> HTMLResponse:
    """One page.

    Args:
        request: That it answers.
        template: File of `templates/`.
        status: Of HTTP.
        content: What the template names.

    Raises:
        UndefinedError: The template names what is not there.
    """
    state, root = request.app.state, request.scope["root_path"]
    here = request.scope["path"].removeprefix(root)
    text = ENVIRONMENT.get_template(template).render(
        root=root, here=here, server=state.console.connection.target, rooms=state.rooms, **content
    )
    return HTMLResponse(text, status)


def written_page(file: Path, missing: str) -> HTMLResponse:
    """A report that training has written, as it is.

    Raises:
        HTTPException: It is not there, which `missing` says, or cannot be read.
    """
    try:
        return HTMLResponse(file.read_bytes(), headers={"content-security-policy": REPORT_POLICY})
    except FileNotFoundError as error:
        raise HTTPException(404, missing) from error
    except OSError as error:
        raise HTTPException(500, f"{file} cannot be read: {error.strerror}.") from error


def _percent(share: Any) -> str:
    try:
        return f"{share:.1%}"
    except (TypeError, ValueError, OverflowError):  # files of runs may hold anything
        return NOTHING


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return NOTHING if value is None or value == "" else f"{value:,}" if isinstance(value, int) else str(value)


def _milliseconds(duration: Duration) -> str:
    return f"{duration.ToTimedelta().total_seconds() * 1000:.1f} ms"


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


ENVIRONMENT = Environment(
    loader=FileSystemLoader(TEMPLATES),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
ENVIRONMENT.globals["taxon_version"] = __version__
ENVIRONMENT.filters |= {"percent": _percent, "number": _number, "milliseconds": _milliseconds, "when": _when}
ENVIRONMENT.filters["base64"] = _base64
