"""What a graph answers, as one row for each input: its scores, and behind them its familiarity if it judges that."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def joined(outputs: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """float32 `[batch, labels]` and, if there is a second output, `[batch, 1]` → `[batch, labels + 1]`.

    Raises:
        ValueError: They are not of one batch.
    """
    return outputs[0] if len(outputs) == 1 else np.concatenate(outputs, axis=1)


def parted(rows: NDArray[np.float32], label_count: int) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """`[..., labels]` or `[..., labels + 1]` → the scores `[..., labels]`, and the familiarity `[...]` or None."""
    return rows[..., :label_count], rows[..., label_count] if rows.shape[-1] > label_count else None
