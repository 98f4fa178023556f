"""A picture in a terminal: two pixels to a character, as coloured half blocks. The only part of this room that
decodes; nothing but the command imports it.
"""

from io import BytesIO

from PIL import Image
from rich.text import Text

from taxon.bundle.picture_limits import PictureError
from taxon.bundle.pixels import colored, load, open_picture, upright

WIDTH = 40
"""Characters."""


def shown(content: bytes) -> Text:
    """The picture, or why it cannot be shown."""
    try:
        stored = load(open_picture(BytesIO(content)), content, lambda opened: opened.draft("RGB", (128, 128)))
    except (PictureError, OSError, ValueError) as error:
        return Text(f"cannot be shown: {error}", "red")
    picture = colored(upright(stored), "rgb").convert("RGB")
    height = max(1, round(picture.height / picture.width * WIDTH / 2))
    small = picture.resize((WIDTH, 2 * min(height, WIDTH)), Image.Resampling.BOX)
    text = Text()
    for row in range(0, small.height, 2):
        for column in range(WIDTH):
            upper, lower = (small.getpixel((column, line)) for line in (row, row + 1))
            text.append("▀", f"#{bytes(upper).hex()} on #{bytes(lower).hex()}")  # type: ignore[arg-type]
        text.append("\n")
    return text
