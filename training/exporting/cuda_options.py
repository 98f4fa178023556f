"""Which options of the CUDA provider suit a graph best: tried at export, on the machine that exports."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from taxon.bundle.manifest import Variant
from taxon.training.exporting import parity, variants
from taxon.training.exporting.examples import Array
from taxon.training.exporting.parity import ParityError
from taxon.training.exporting.providers import CUDA

CHOICES = tuple(
    {"cudnn_conv_algo_search": search, "prefer_nhwc": channels_last}
    for search in ("EXHAUSTIVE", "HEURISTIC", "DEFAULT")
    for channels_last in ("0", "1")
)
WORTH = 1.03
"""How many times as fast as with ONNX Runtime's defaults a choice must be to be written down."""
WITHIN = 0.01
"""Largest score difference from the defaults: half of what goldens allow."""


def tuned(variant: Variant, folder: Path, pictures: Array) -> Variant:
    """The variant with the options that make it fastest at the largest timed batch, and its latency with them.

    Unchanged on a machine without CUDA, and for int8, from which CUDA gains nothing.

    Args:
        variant: Options that it has already, such as TF32 turned off, are kept.
        folder: Of its file.
        pictures: uint8 `[N, H, W, C]` or float32 `[N, F]`, at least one.

    Raises:
        ParityError: The graph does not load or run on CUDA.
    """
    if CUDA not in parity.providers() or variant.precision == "int8":
        return variant
    path, given = folder / variant.file, variant.provider_options.get(CUDA, {})
    default = parity.open_session(path, CUDA, given)
    expected = parity.run(default, pictures)
    (latency,) = variants.timed([default], pictures)
    best: Mapping[str, str] = {}
    best_ratio = WORTH
    for choice in CHOICES:  # one at a time: each session has the weights and cuDNN's workspace on the device
        try:
            session = parity.open_session(path, CUDA, {**given, **choice})
            difference = float(np.abs(parity.run(session, pictures) - expected).max())
        except ParityError:
            continue  # not every graph has channels-last kernels for all of its nodes
        before, after = variants.timed([default, session], pictures)
        size = max(after)
        if difference <= WITHIN and before[size] / after[size] > best_ratio:
            best, best_ratio, latency = choice, before[size] / after[size], after
    options = {**given, **best}
    return variant.model_copy(
        update={
            "latency_ms": latency,
            "provider_options": {**variant.provider_options, **({CUDA: options} if options else {})},
        }
    )
