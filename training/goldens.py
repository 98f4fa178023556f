"""Golden pictures: which validation pictures go into a bundle, and whether it answers them as torch did."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from taxon.bundle.manifest import Golden, Manifest
from training import parity
from training.candidate import Candidate, ExportError

GOLDEN_COUNT = 16
GOLDEN_TOLERANCE = 0.02
"""Of a score. Room for the CUDA provider's TF32 (ten bits of mantissa); docs/bundle_format.md has the figures."""


def copy(candidate: Candidate, reference: NDArray[np.float32], staged: Path) -> tuple[Golden, ...]:
    """Copies validation pictures, spread over the classes, with torch's scores for them.

    Of each class the least certain come first: where two scores are near each other, a fault shows most.
    """
    (staged / "golden").mkdir()
    chosen = spread_over_classes(candidate.answers, reference.max(axis=1), GOLDEN_COUNT)
    goldens = []
    for number, index in enumerate(chosen):
        source = candidate.files[index]
        file = f"golden/{number:02d}{source.suffix.lower()}"
        shutil.copyfile(source, staged / file)
        scores = tuple(float(score) for score in reference[index])
        goldens.append(Golden(file=file, scores=scores, tolerance=GOLDEN_TOLERANCE))
    return tuple(goldens)


def spread_over_classes(answers: Sequence[tuple[str, ...]], certainty: NDArray[np.float32], count: int) -> list[int]:
    """Indices of at most `count` answers, going round the classes, in each from the least certain on."""
    queues: dict[tuple[str, ...], list[int]] = {}
    for index in np.argsort(certainty, kind="stable"):
        queues.setdefault(answers[index], []).append(int(index))
    turns = sorted((place, label) for label, queue in queues.items() for place in range(len(queue)))
    if len(queues) > count:  # evenly over the alphabet rather than its beginning
        step = len(queues) / count
        turns = [turns[int(number * step)] for number in range(count)]
    return [queues[label][place] for place, label in turns[:count]]


def replay(folder: Path, graph_file: str, manifest: Manifest) -> None:
    """Does what the service does at load: decodes the goldens as they lie in the folder and compares the scores.

    Raises:
        ExportError: A golden answers differently.
    """
    if manifest.pixels is None:
        raise ExportError("only bundles of pictures can be replayed here")
    session = parity.open_session(folder / graph_file)
    files = [folder / golden.file for golden in manifest.golden]
    scores = parity.graph_scores(session, files, manifest.pixels, (1,))
    for golden, answer in zip(manifest.golden, scores, strict=True):
        if not (difference := float(np.abs(answer - np.array(golden.scores)).max())) <= golden.tolerance:
            raise ExportError(f"{golden.file} answers differently in the bundle, by {difference:.1e}")
