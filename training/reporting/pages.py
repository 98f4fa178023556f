"""The parts of our HTML pages: each page is one file that needs nothing beside it, on wide and narrow screens."""

import base64
import html
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageOps

from taxon import __version__
from taxon.bundle.pixels import colored, open_picture

THUMBNAIL = 120
"""Longest side, in pixels."""
ROWS_SHOWN = 20
"""Of a table; the others unfold."""
CSS = """
:root{color-scheme:light}*{box-sizing:border-box}
body{font:15px/1.5 system-ui,"Segoe UI",Roboto,sans-serif;color:#22303c;background:#fff;max-width:1040px;
margin:2rem auto;padding:0 1rem;overflow-wrap:break-word}
h1{font-size:1.6rem;margin-bottom:.2rem}
h2{font-size:1.15rem;margin:2.4rem 0 .6rem;border-bottom:1px solid #dde3e8;padding-bottom:.2rem}
.lead{font-size:1.1rem}.quiet,figcaption,footer{color:#5b6a77}
.tiles{display:flex;flex-wrap:wrap;gap:.8rem;margin:1.2rem 0}
.tile{background:#f3f6f8;border-radius:6px;padding:.6rem 1rem;flex:1 1 130px}.tile b{display:block;font-size:1.4rem}
.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
td,th{padding:.25rem .8rem;text-align:right;border-bottom:1px solid #e8edf1;white-space:nowrap}
.name{text-align:left;white-space:normal;min-width:9rem;overflow-wrap:anywhere}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(440px,100%),1fr));gap:1rem 1.5rem;
align-items:start}
.plots h2{margin-top:1.6rem}figure{margin:0}figure.plot img{max-width:100%;height:auto}figcaption{font-size:.9rem}
.grid{display:flex;flex-wrap:wrap;gap:.8rem;margin:.3rem 0 1rem}
.grid figure{width:130px;font-size:.8rem;line-height:1.35;overflow-wrap:anywhere}
.grid figcaption{font-size:.8rem}.grid b{color:#22303c}
.grid img{width:120px;height:120px;object-fit:contain;background:#f3f6f8;border:1px solid #dde3e8;display:block}
.error,.warning,.note{font-size:.8rem;font-weight:600;border-radius:4px;padding:.1rem .5rem;margin-left:.5rem}
.error{background:#fbe3e1;color:#8f1d14}.warning{background:#fdf0d0;color:#6f4d00}.note{background:#e6eef5;color:#2b4a66}
pre{background:#f3f6f8;border-radius:6px;padding:.8rem;overflow-x:auto;font-size:.85rem}
summary{cursor:pointer;color:#2468a8;padding:.3rem 0}footer{margin-top:3rem;font-size:.85rem}
"""


def page(title: str, parts: Iterable[str]) -> str:
    """A whole page of parts that are HTML already."""
    return "\n".join(
        [
            "<!doctype html><html lang=en><head><meta charset=utf-8>",
            '<meta name=viewport content="width=device-width,initial-scale=1">',
            f"<title>{html.escape(title)}</title><style>{CSS}</style></head><body>",
            f"<h1>{html.escape(title)}</h1>",
            *parts,
            f"<footer>Taxon {__version__}</footer></body></html>",
        ]
    )


def tiles(figures: Iterable[tuple[str, str]]) -> str:
    """(value, what it is) in large type."""
    found = [f"<div class=tile><b>{html.escape(value)}</b>{html.escape(name)}</div>" for value, name in figures]
    return f"<div class=tiles>{''.join(found)}</div>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, names: int = 1) -> str:
    """A table whose first `names` columns are words, the others numbers; many rows unfold."""
    first = _rows(head, rows[:ROWS_SHOWN], names)
    if len(rows) <= ROWS_SHOWN:
        return first
    more = len(rows) - ROWS_SHOWN
    return f"{first}<details><summary>{more:,} more</summary>{_rows(head, rows[ROWS_SHOWN:], names)}</details>"


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]], names: int) -> str:
    lines = ["<div class=wide><table>"]
    for tag, fields in (("th", head), *(("td", row) for row in rows)):
        cells = [
            f"<{tag}{' class=name' if column < names else ''}>{html.escape(field)}</{tag}>"
            for column, field in enumerate(fields)
        ]
        lines += ["<tr>", *cells, "</tr>"]
    return "".join([*lines, "</table></div>"])


def plot(file: Path, title: str, caption: str) -> str:
    """A PNG file with a heading and a sentence on how to read it."""
    encoded = base64.b64encode(file.read_bytes()).decode()
    return (
        f'<section><h2>{title}</h2><figure class=plot><img alt="{title}" src="data:image/png;base64,{encoded}">'
        f"<figcaption>{caption}</figcaption></figure></section>"
    )


def picture(path: Path, caption: str) -> str:
    """A picture file, small, over a caption that is HTML already."""
    return f'<figure><img alt="" src="{thumbnail(path)}"><figcaption>{caption}</figcaption></figure>'


def thumbnail(path: Path) -> str:
    """A picture as a data URL, at most 120 pixels long; small ones are enlarged so that they can be seen."""
    with open_picture(path) as stored:
        stored.draft("RGB", (2 * THUMBNAIL, 2 * THUMBNAIL))
        small = colored(ImageOps.exif_transpose(stored), "rgb").convert("RGB")
    scale = THUMBNAIL / max(small.size)
    size = tuple(max(1, round(side * scale)) for side in small.size)
    small = small.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BILINEAR)
    encoded = BytesIO()
    small.save(encoded, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.getvalue()).decode()}"
