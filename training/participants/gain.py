"""Whether contributions help on held-out samples of whoever fuses them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from taxon.training.dataset import data
from taxon.training.exporting import examples, foreign, parity
from taxon.training.exporting.candidate import target_matrix
from taxon.training.exporting.examples import Example
from taxon.training.loop import metrics
from taxon.training.loop.significance import changed, loss_p_value
from taxon.training.participants.averaging import averaged
from taxon.training.participants.contributions import Contribution
from taxon.training.runs.checkpoint import Checkpoint

CHANCE = 0.05


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Samples that nobody trained on."""

    files: tuple[Example, ...]
    answers: tuple[tuple[str, ...], ...]
    """Their true labels."""
    digest: str
    """Of the data."""


def held_out(source: Path, base: Checkpoint) -> HeldOut:
    """A labelled folder of pictures, of one with splits the test split or else the validation split; or the rows of a
    CSV file.

    Raises:
        TrainingError: It is not that.
    """
    files: tuple[Example, ...]
    if base.pixels is None:
        files, found = examples.of_table(source, base.features)
    else:
        found = data.with_digests(data.scan_held_out(source, data.TEST_FIRST))
        files = tuple(sample.path for sample in found.samples)
    return HeldOut(files, foreign.answers(found), data.digest(found.samples, found.labels))


def right(checkpoint: Checkpoint, samples: HeldOut) -> NDArray[np.bool_]:
    """Bool `[N]`: which samples the network answers rightly.

    Raises:
        ParityError: A picture cannot be read.
        ExportError: A sample has a label that the network does not know.
    """
    targets = target_matrix(samples.answers, checkpoint.labels)
    network = checkpoint.build_model()
    logits = parity.reference_logits(network, samples.files, checkpoint.pixels, checkpoint.mean, checkpoint.std)
    return metrics.right(parity.scores_of(logits, checkpoint.task), targets, checkpoint.task)


def harmful(base: Checkpoint, kept: Sequence[Contribution], samples: HeldOut) -> tuple[int, str] | None:
    """The contribution without which the average is better beyond chance: its place, and the reason; None if there is
    none. Each is left out in turn, and both averages are compared sample by sample (McNemar's exact test, one-sided,
    Bonferroni's correction for their number).

    Args:
        base: What all started from.
        kept: Two or more.
        samples: To judge by.
    """
    whole = right(averaged(base, kept), samples)
    found: list[tuple[float, int, float]] = []
    for place in range(len(kept)):
        without = right(averaged(base, [*kept[:place], *kept[place + 1 :]]), samples)
        found.append((loss_p_value(*changed(without, whole)), place, float(without.mean())))
    p_value, place, accuracy = min(found)
    if p_value * len(kept) >= CHANCE:
        return None
    return place, f"without it {accuracy:.2%} of the held-out samples are right, with it {whole.mean():.2%}"
