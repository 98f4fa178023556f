"""Golden pictures: which validation pictures go into a bundle, and whether it answers them as torch did."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from taxon.bundle import class_maps, proof
from taxon.bundle.answers import parted
from taxon.bundle.manifest import BundleError, Golden, Manifest
from taxon.training.exporting import parity
from taxon.training.exporting.candidate import Candidate, ExportError
from taxon.training.exporting.examples import write_golden

GOLDEN_COUNT = 16
REPLAY_BATCH_SIZES = (1, 2, 4, 8)
"""A service's, as far as they cost next to nothing."""
MIN_STEADY = 8
CLEAR = 3e-5
"""A margin below it may be the order of a sum."""
GOLDEN_TOLERANCE = 0.02
"""Of a score. Room for the CUDA provider's TF32 (ten bits of mantissa); docs/bundle_format.md has the figures."""


def choose(
    answers: Sequence[tuple[str, ...]], reference: NDArray[np.float32], others: Sequence[NDArray[np.float32]] = ()
) -> dict[int, float]:
    """Chooses validation pictures, spread over the classes.

    Of each class the least certain come first, because there a fault shows most; but the two best scores must be
    further apart than rounding on any provider could move them, because the service wants the same decision.

    Args:
        answers: The true labels, by file.
        reference: float32 `[files, K]`, torch's scores.
        others: The scores of the lighter variants, which must decide alike.

    Returns:
        The tolerance by index. Where fewer than 8 pictures are that clear, the clearest others are taken with a third
        of their margin.

    Raises:
        ExportError: No picture has a clear answer.
    """
    margin = np.diff(np.sort(reference, axis=1)[:, -2:], axis=1)[:, 0]
    steady = margin > 2 * GOLDEN_TOLERANCE
    for scores in others:
        own_margin = np.diff(np.sort(scores, axis=1)[:, -2:], axis=1)[:, 0]
        steady &= (scores.argmax(axis=1) == reference.argmax(axis=1)) & (own_margin > GOLDEN_TOLERANCE)
    pool = np.flatnonzero(steady)
    if len(pool) < MIN_STEADY:
        unclear = [index for index in np.argsort(-margin, kind="stable") if not steady[index] and margin[index] > CLEAR]
        pool = np.concatenate([pool, np.array(unclear[: MIN_STEADY - len(pool)], dtype=np.int64)])
    if len(pool) == 0:
        raise ExportError("the network is undecided on every validation picture: it has learned nothing to prove")
    places = spread_over_classes([answers[int(index)] for index in pool], reference[pool].max(axis=1), GOLDEN_COUNT)
    chosen = [int(pool[place]) for place in places]
    return {index: float(min(GOLDEN_TOLERANCE, margin[index] / 3)) for index in chosen}


def copy(
    candidate: Candidate,
    reference: NDArray[np.float32],
    tolerances: Mapping[int, float],
    golden_maps: Mapping[int, NDArray[np.float32]],
    staged: Path,
) -> tuple[Golden, ...]:
    """Copies the chosen pictures or rows into the bundle, with what torch answers to them, and any maps."""
    (staged / "golden").mkdir()
    goldens = []
    for number, (index, tolerance) in enumerate(tolerances.items()):
        written = write_golden(candidate.files[index], staged / "golden", f"{number:02d}")
        scores, familiarity = parted(reference[index], len(candidate.labels))
        goldens.append(
            Golden(
                file=f"golden/{written.name}",
                scores=tuple(scores.tolist()),
                familiarity=None if familiarity is None else float(familiarity),
                tolerance=tolerance,
                map=tuple(golden_maps[index].ravel().tolist()) if golden_maps else None,
            )
        )
    return tuple(goldens)


def spread_over_classes(answers: Sequence[tuple[str, ...]], certainty: NDArray[np.float32], count: int) -> list[int]:
    """Indices of at most `count` answers, going round the classes, in each from the least certain on."""
    queues: dict[tuple[str, ...], list[int]] = {}
    for index in np.argsort(certainty, kind="stable"):
        queues.setdefault(answers[int(index)], []).append(int(index))
    turns = sorted((place, label) for label, queue in queues.items() for place in range(len(queue)))
    if len(queues) > count:  # evenly over the alphabet rather than its beginning
        step = len(queues) / count
        turns = [turns[int(number * step)] for number in range(count)]
    return [queues[label][place] for place, label in turns[:count]]


def replay(folder: Path, manifest: Manifest) -> None:
    """Does what the service does at load: decodes the goldens as they lie in the folder and compares the scores of
    every variant.

    Raises:
        ExportError: A golden answers differently.
    """
    try:
        given = proof.inputs(manifest, lambda file: (folder / file).read_bytes())
        for variant in manifest.variants:
            session = parity.open_session(folder / variant.file)
            run = functools.partial(parity.run, session)
            proof.replay(manifest, variant, given, run, REPLAY_BATCH_SIZES)
            if manifest.maps:
                head = class_maps.read_head((folder / manifest.maps.weights).read_bytes(), manifest)
                proof.replay_maps(manifest, variant, given, functools.partial(parity.maps, session, head=head))
    except BundleError as error:
        raise ExportError(f"the bundle does not answer as torch did: {error}") from error
