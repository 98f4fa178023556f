"""The proof of a bundle: asked about its goldens, a graph gives the scores that the trained network gave.

Export asks before it publishes, the service at every load; both call `inputs` and `replay`. Knows nothing of what
runs the graph.
"""

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from taxon.bundle import pixels
from taxon.bundle.manifest import BundleError, Golden, Manifest, Variant
from taxon.bundle.picture_limits import Limits

Array = NDArray[np.uint8] | NDArray[np.float32]
SMALLEST_MAP = 1e-6
"""Largest value, in logits, of a map that has a range."""
Run = Callable[[Array], NDArray[np.float32]]
"""What the graph takes, `[batch, …]` → its `answers`: `[batch, labels]`, or `[batch, labels + 1]` with familiarity."""


def inputs(manifest: Manifest, read: Callable[[str], bytes], limits: Limits = Limits()) -> Array:
    """What a graph of this bundle takes for each golden.

    Args:
        manifest: The bundle's.
        read: A golden's file name → its bytes.
        limits: Of pictures.

    Returns:
        uint8 `[goldens, height, width, channels]` or float32 `[goldens, features]`.

    Raises:
        BundleError: A golden cannot be read, is no picture or no list of finite numbers, or has another length.
    """
    arrays = [_input(manifest, golden, read, limits) for golden in manifest.golden]
    return cast("Array", np.stack(arrays))  # NumPy's stubs lose the type of a union


def replay(manifest: Manifest, variant: Variant, given: Array, run: Run, batch_sizes: Sequence[int]) -> float:
    """Runs every batch size with goldens, and every golden at least once, and compares scores and familiarity.

    Args:
        manifest: The bundle's.
        variant: The one that `run` runs.
        given: As `inputs` makes it.
        run: The graph. Called once for each batch; what it raises becomes a `BundleError`.
        batch_sizes: Ascending. The largest is repeated until every golden has had its turn.

    Returns:
        The largest difference of any score or familiarity.

    Raises:
        BundleError: The graph fails, gives answers of another shape, a score or the familiarity differs by more than
            the tolerance or is not a number, or another class wins.
    """
    largest_difference = 0.0
    for indexes in _rounds(len(manifest.golden), batch_sizes):
        count = len(indexes)
        try:
            rows = run(given[indexes])
        except Exception as error:  # whatever runs graphs has exceptions of its own
            raise BundleError(f"the graph fails on a batch of {count}: {error}") from error
        expected_shape = (count, len(manifest.golden[0].row))
        if rows.shape != expected_shape:
            raise BundleError(f"the graph gives answers {list(rows.shape)}, they must be {list(expected_shape)}")
        for index, actual in zip(indexes, rows, strict=True):
            golden = manifest.golden[index]
            tolerance = golden.tolerance if variant.golden_tolerance is None else variant.golden_tolerance
            largest_difference = max(largest_difference, _compare(golden, tolerance, actual, count))
    return largest_difference


def replay_maps(
    manifest: Manifest, variant: Variant, given: Array, explain: Callable[[Array], NDArray[np.float32]]
) -> float:
    """Compares each golden's map with what the graph gives, one golden at a time, as they are asked for.

    Args:
        manifest: Of a bundle with `maps`.
        variant: The one that `explain` runs.
        given: As `inputs` makes it.
        explain: What the graph takes → `class_maps`, `[batch, labels, rows, columns]`. What it raises becomes a
            `BundleError`.

    Returns:
        The largest difference, as a share of the largest value of its map.

    Raises:
        BundleError: The graph fails, gives maps of another shape, or one differs by more than the tolerance or is not a
            number.
    """
    if manifest.maps is None:
        raise TypeError("there are no maps to compare")
    tolerance = manifest.maps.tolerance if variant.map_tolerance is None else variant.map_tolerance
    expected_shape = (1, len(manifest.labels), *manifest.maps.shape)
    largest_difference = 0.0
    for index, golden in enumerate(manifest.golden):
        try:
            maps = explain(given[index : index + 1])
        except Exception as error:  # whatever runs graphs has exceptions of its own
            raise BundleError(f"the graph gives no maps: {error}") from error
        if maps.shape != expected_shape:
            raise BundleError(f"the graph gives maps {list(maps.shape)}, they must be {list(expected_shape)}")
        expected = np.asarray(golden.map, np.float32).reshape(manifest.maps.shape)
        difference = map_difference(maps[0, np.argmax(golden.scores)], expected)
        if not difference <= tolerance:  # not `>`: NaN must fail
            raise BundleError(
                f"{golden.file}: its map differs by {difference:.3g} of its range, at most {tolerance:g} is allowed"
            )
        largest_difference = max(largest_difference, difference)
    return largest_difference


def map_difference(actual: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """The largest difference of two maps, as a share of the largest value of the expected one."""
    return float(np.abs(actual - expected).max() / max(float(np.abs(expected).max()), SMALLEST_MAP))


def _input(manifest: Manifest, golden: Golden, read: Callable[[str], bytes], limits: Limits) -> Array:
    try:
        stored = read(golden.file)
        return pixels.decode(stored, manifest.pixels, limits) if manifest.pixels else _numbers(stored, manifest)
    except BundleError:
        raise
    except Exception as error:
        raise BundleError(f"{golden.file} cannot be decoded: {error}") from error


def _numbers(stored: bytes, manifest: Manifest) -> NDArray[np.float32]:
    values = np.asarray(json.loads(stored), dtype=np.float32)
    if values.shape != manifest.input.shape:
        raise ValueError(f"it must hold {manifest.input.shape[0]} numbers, not an array of the shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("every number must be finite")
    return values


def _rounds(golden_count: int, batch_sizes: Sequence[int]) -> Iterator[list[int]]:
    """Indexes of goldens for each batch."""
    turns = itertools.cycle(range(golden_count))
    left = golden_count - sum(batch_sizes)
    again = [batch_sizes[-1]] * max(0, -(-left // batch_sizes[-1]))
    for size in (*batch_sizes, *again):
        yield list(itertools.islice(turns, size))


def _compare(golden: Golden, tolerance: float, actual: NDArray[np.float32], batch_size: int) -> float:
    differences = np.abs(actual - np.asarray(golden.row))
    difference = float(differences.max())
    if not difference <= tolerance:  # not `>`: NaN must fail
        what = "a score" if not differences[: len(golden.scores)].max() <= tolerance else "the familiarity"
        raise BundleError(
            f"{golden.file}: in a batch of {batch_size} {what} differs by {difference:.3g}, "
            f"at most {tolerance:g} is allowed"
        )
    winner, expected = actual[: len(golden.scores)].argmax(), np.argmax(golden.scores)
    if winner != expected:
        raise BundleError(f"{golden.file}: in a batch of {batch_size} class {winner} wins, expected {expected}")
    return difference
