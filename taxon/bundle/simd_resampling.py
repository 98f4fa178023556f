"""The resampler `simd`: cykooz-resizer, the Python package of the Rust crate fast_image_resize.

It resizes only what the crop keeps, with SSE4.1, AVX2 or NEON, in integers: the same bytes on every processor, about
one of 255 away from Pillow's in a fifth of the values. `fixed_point` defines these bytes. Where the package is missing
(it has no wheels for Linux on arm64), or gives other bytes, `fixed_point` resizes, and `why_slow` says so.
"""

import functools
import threading
from collections.abc import Callable

import numpy as np
from PIL import Image

from taxon.bundle import fixed_point
from taxon.bundle.fixed_point import Box
from taxon.bundle.geometry import Side

Resize = Callable[[Image.Image, Box, tuple[int, int], str], Image.Image]
"""A picture, the part that is resized, the result's (width, height), the interpolation."""


def resized_crop(picture: Image.Image, x: Side, y: Side, interpolation: str) -> Image.Image:
    """Resizes a picture to `x.target` times `y.target` pixels and keeps what the crop keeps.

    Args:
        picture: RGB or grey.
        x: Its width.
        y: Its height.
        interpolation: `bilinear`, `bicubic` or `lanczos`.
    """
    resize, _ = chosen()
    box = x.begin, y.begin, x.extent, y.extent
    return resize(picture, box, (x.count, y.count), interpolation)


def why_slow() -> str | None:
    """Why pictures are resized by NumPy; None if they are not."""
    return chosen()[1]


@functools.cache
def chosen() -> tuple[Resize, str | None]:
    """What resizes in this process, and why it is slow, if it is."""
    try:
        with_library = _library()
    except ImportError as error:
        return with_numpy, f"cykooz-resizer cannot be imported: {error}"
    if not gives_the_same(with_library):
        return with_numpy, "cykooz-resizer gives other pixels than those that `simd` stands for"
    return with_library, None


def gives_the_same(resize: Resize) -> bool:
    """Whether it resizes as `fixed_point` does, made smaller and larger."""
    noise = np.random.default_rng(0).integers(0, 256, (61, 83, 3), dtype=np.uint8)
    pictures = Image.fromarray(noise), Image.fromarray(noise[:, :, 0])
    return all(
        resize(picture, box, size, filter_).tobytes() == with_numpy(picture, box, size, filter_).tobytes()
        for picture in pictures
        for box, size in (((5.25, 3.5, 70.5, 52.25), (29, 31)), ((20.0, 10.5, 11.5, 13.0), (37, 33)))
        for filter_ in ("bilinear", "bicubic")
    )


def with_numpy(picture: Image.Image, box: Box, size: tuple[int, int], interpolation: str) -> Image.Image:
    """A `Resize`, in integers and slow."""
    return Image.fromarray(fixed_point.resize(np.asarray(picture), box, size, interpolation))


def _library() -> Resize:
    from cykooz_resizer import CropBox, FilterType, ResizeAlg, ResizeOptions, Resizer

    filters = {
        "bilinear": ResizeAlg.convolution(FilterType.bilinear),
        "bicubic": ResizeAlg.convolution(FilterType.catmull_rom),
        "lanczos": ResizeAlg.convolution(FilterType.lanczos3),
    }
    thread = threading.local()

    def with_library(picture: Image.Image, box: Box, size: tuple[int, int], interpolation: str) -> Image.Image:
        if not hasattr(thread, "resizer"):
            thread.resizer = Resizer()  # it keeps its buffer
        resized = Image.new(picture.mode, size)
        options = ResizeOptions(filters[interpolation], use_alpha=False, crop_box=CropBox(*box))
        thread.resizer.resize_pil(picture, resized, options)
        return resized

    return with_library
