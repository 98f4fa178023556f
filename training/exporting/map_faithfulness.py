"""How faithful a graph's maps are, on the golden pictures: deletion and insertion beside those of random maps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from taxon.explanation import activation, faithfulness
from taxon.explanation.faithfulness import Faithfulness
from taxon.training.exporting import parity
from taxon.training.exporting.candidate import Candidate
from taxon.training.exporting.mapped import Mapped


@dataclass(frozen=True, slots=True)
class MapFaithfulness:
    """Mean areas under the curves of `taxon.explanation.faithfulness`."""

    picture_count: int
    deletion: float
    """Less is better."""
    deletion_of_random: float
    deletion_gain: float
    """Random less own; of pairs."""
    deletion_gain_error: float
    """Half the width of its 95 % interval."""
    insertion: float
    """More is better."""
    insertion_of_random: float
    insertion_gain: float
    """Own less random; of pairs."""
    insertion_gain_error: float
    """Half the width of its 95 % interval."""

    @property
    def sentence(self) -> str:
        """For people."""
        return (
            f"maps of {self.picture_count} golden pictures against random ones: deletion {self.deletion:.3f} against "
            f"{self.deletion_of_random:.3f} (better by {self.deletion_gain:.3f} ± {self.deletion_gain_error:.3f}), "
            f"insertion {self.insertion:.3f} against {self.insertion_of_random:.3f} (better by "
            f"{self.insertion_gain:.3f} ± {self.insertion_gain_error:.3f})"
        )


def measured(
    path: Path, network: Mapped, candidate: Candidate, indexes: Sequence[int], winners: NDArray[np.int64]
) -> MapFaithfulness:
    """Measures the maps of the labels that win.

    Args:
        path: A graph that gives places.
        network: What it was made of.
        candidate: Whose validation pictures are used.
        indexes: Of those.
        winners: The label by index of the validation picture.

    Raises:
        ParityError: The graph does not run, or a file cannot be read.
    """
    session = parity.open_session(path)
    files = [candidate.files[index] for index in indexes]
    own: list[Faithfulness] = []
    of_random: list[Faithfulness] = []
    for number, (_, arrays) in enumerate(parity.decoded_batches(files, candidate.pixels, (1,))):
        label = int(winners[indexes[number]])

        def score(batch: NDArray[np.uint8], label: int = label) -> NDArray[np.float32]:
            return parity.run(session, batch)[:, label]

        picture = arrays[0].astype(np.uint8, copy=False)
        heat = activation.of_label(parity.maps(session, arrays, network.head_weights)[0], label, candidate.task)
        own.append(faithfulness.measured(picture, heat, score))
        random = faithfulness.random_map(number, (heat.shape[0], heat.shape[1]))
        of_random.append(faithfulness.measured(picture, random, score))
    deletion, insertion = ([getattr(one, name) for one in own] for name in ("deletion", "insertion"))
    deletion_of_random, insertion_of_random = (
        [getattr(one, name) for one in of_random] for name in ("deletion", "insertion")
    )
    return MapFaithfulness(
        len(files),
        float(np.mean(deletion)),
        float(np.mean(deletion_of_random)),
        *faithfulness.margin(deletion_of_random, deletion),
        float(np.mean(insertion)),
        float(np.mean(insertion_of_random)),
        *faithfulness.margin(insertion, insertion_of_random),
    )
