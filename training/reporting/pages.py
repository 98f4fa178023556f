"""The templates of our pages, filled in: each page is one file that needs nothing beside it."""

import base64
from io import BytesIO
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from PIL import Image

from taxon import __version__
from taxon.bundle.pixels import colored, load, open_picture, upright

TEMPLATES = Path(__file__).parent / "templates"
THUMBNAIL = 120
"""Longest side, in pixels."""


def render(template: str, **content: Any) -> str:
    """A template of `templates/` filled in. Into HTML every value goes as text, whatever it holds.

    Raises:
        UndefinedError: The template names what is not in `content`.
    """
    return environment().get_template(template).render(**content)


def environment() -> Environment:
    """What the templates know beside their content."""
    found = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.globals["version"] = __version__
    found.filters |= {"png_url": png_url, "thumbnail": thumbnail}
    return found


def png_url(file: Path) -> str:
    """A PNG file as a data URL."""
    return f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"


def thumbnail(path: Path) -> str:
    """A picture as a data URL, at most 120 pixels long; small ones are enlarged so that they can be seen."""
    given = path.read_bytes()
    stored = load(
        open_picture(BytesIO(given)), given, lambda opened: opened.draft("RGB", (2 * THUMBNAIL, 2 * THUMBNAIL))
    )
    small = colored(upright(stored), "rgb").convert("RGB")
    scale = THUMBNAIL / max(small.size)
    size = (max(1, round(small.width * scale)), max(1, round(small.height * scale)))
    small = small.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BILINEAR)
    encoded = BytesIO()
    small.save(encoded, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.getvalue()).decode()}"
