"""The goldens against graphs that answer rightly, wrongly and not at all; no graph is real."""

import json

import numpy as np
import pytest

from taxon.bundle import proof
from taxon.bundle.manifest import (
    BundleError,
    FeaturesInput,
    Golden,
    ImageInput,
    Manifest,
    PixelSpec,
    Thresholds,
    Variant,
)
from taxon.bundle.picture_limits import Limits
from tests.fakes import COLORS, PROVENANCE, picture

PIXELS = PixelSpec(resize=8, crop=(8, 8))
FULL = Variant(file="model.onnx", precision="fp32")
ROWS = ([1.0, 0.0], [0.0, 1.0], [0.25, 0.75])


def manifest_of(scores=ROWS, *, kind="features", tolerance=0.01, count=2, familiarity=None, **changes) -> Manifest:
    """Goldens whose inputs are their scores, so that the identity is the right graph."""
    return Manifest(
        name="toy",
        version=1,
        task="single_label",
        labels=("cat", "dog"),
        input=FeaturesInput(shape=(count,)) if kind == "features" else ImageInput(shape=(8, 8, 3)),
        pixels=None if kind == "features" else PIXELS,
        golden=tuple(
            Golden(file=f"golden/{index}.json", scores=row, tolerance=tolerance, familiarity=familiarity)
            for index, row in enumerate(scores)
        ),
        variants=(FULL,),
        provenance=PROVENANCE,
        **changes,
    )


def rows_of(manifest: Manifest):
    return proof.inputs(manifest, lambda file: json.dumps(ROWS[int(file[7])]).encode())


def test_numbers_become_one_array():
    given = rows_of(manifest_of())
    assert given.dtype == np.float32
    np.testing.assert_array_equal(given, np.float32(ROWS))


def test_pictures_become_one_array():
    encoded = [picture(color, size=(12, 9)) for color in COLORS.values()]
    given = proof.inputs(manifest_of(kind="image"), lambda file: encoded[int(file[7])])
    assert (given.shape, given.dtype) == ((3, 8, 8, 3), np.uint8)
    assert [tuple(array[0, 0]) for array in given] == list(COLORS.values())


@pytest.mark.parametrize(
    ("stored", "complaint"),
    [
        (b"", "cannot be decoded"),
        (b"{", "cannot be decoded"),
        (b"[1, 2, 3]", r"must hold 2 numbers, not an array of the shape \(3,\)"),
        (b"7", "must hold 2 numbers"),
        (b'["x", 1]', "cannot be decoded"),
        (b"[NaN, 1]", "must be finite"),
        (b"[1e300, 1]", "must be finite"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered")  # NumPy's remark on 1e300
def test_what_is_no_list_of_numbers_is_refused(stored, complaint):
    with pytest.raises(BundleError, match=r"golden/0\.json cannot be decoded") as caught:
        proof.inputs(manifest_of(), lambda file: stored)
    assert caught.match(complaint)


def test_pictures_are_held_to_the_limits():
    with pytest.raises(BundleError, match=r"cannot be decoded: the picture needs 108 pixels, at most 100"):
        proof.inputs(manifest_of(kind="image"), lambda file: picture(size=(12, 9)), Limits(max_pixels=100))


def test_the_readers_own_refusal_is_kept():
    def read(file):
        raise BundleError(f"{file} has changed since it was checked")

    with pytest.raises(BundleError, match=r"^golden/0\.json has changed"):
        proof.inputs(manifest_of(), read)


@pytest.mark.parametrize(
    ("batch_sizes", "batches"),
    [
        ([1], [[0], [1], [2]]),
        ([1, 2], [[0], [1, 2]]),
        ([2], [[0, 1], [2, 0]]),
        ([1, 8], [[0], [1, 2, 0, 1, 2, 0, 1, 2]]),
        ([1, 2, 4], [[0], [1, 2], [0, 1, 2, 0]]),
    ],
)
def test_every_batch_size_runs_and_every_golden_has_its_turn(batch_sizes, batches):
    manifest, ran = manifest_of(), []

    def run(batch):
        ran.append([ROWS.index(row) for row in batch.tolist()])
        return batch

    assert proof.replay(manifest, FULL, rows_of(manifest), run, batch_sizes) == 0.0
    assert ran == batches


def test_the_largest_difference_is_returned():
    manifest = manifest_of()
    shift = np.float32([[0, 0], [0.004, -0.004], [0.001, 0]])
    found = proof.replay(manifest, FULL, rows_of(manifest), lambda batch: batch + shift[: len(batch)], [3])
    assert found == pytest.approx(0.004, rel=1e-4)


def at_third(value):
    """A graph that is wrong about the third golden only."""
    return lambda batch: np.where(batch == np.float32(0.25), np.float32(value), batch)


def test_a_score_beyond_the_tolerance_is_refused():
    manifest = manifest_of()
    given = rows_of(manifest)
    proof.replay(manifest, FULL, given, at_third(0.259), [1])
    with pytest.raises(BundleError, match=r"golden/2\.json: in a batch of 1 a score differs by 0\.011, at most 0\.01 "):
        proof.replay(manifest, FULL, given, at_third(0.261), [1])


def test_a_variant_has_its_own_tolerance():
    manifest = manifest_of()
    wider, narrower = (FULL.model_copy(update={"golden_tolerance": value}) for value in (0.05, 0.001))
    proof.replay(manifest, wider, rows_of(manifest), at_third(0.261), [1])
    with pytest.raises(BundleError, match=r"at most 0\.001 is allowed"):
        proof.replay(manifest, narrower, rows_of(manifest), at_third(0.259), [1])


def judged_manifest(*scores):
    """Goldens of two scores and a familiarity; the inputs are all three, so that the identity is the right graph."""
    thresholds = Thresholds(unknown=0.5, unknown_by="familiarity")
    manifest = manifest_of(scores=scores or ([0.9, 0.1], [0.2, 0.8]), thresholds=thresholds, familiarity=0.95)
    return manifest, np.float32([golden.row for golden in manifest.golden])


def test_familiarity_is_compared_like_a_score():
    manifest, given = judged_manifest()
    shift = np.float32([0.0, 0.0, 0.004])
    assert proof.replay(manifest, FULL, given, lambda batch: batch + shift, [2]) == pytest.approx(0.004, rel=1e-4)
    with pytest.raises(BundleError, match=r"golden/0\.json: in a batch of 2 the familiarity differs by 0\.012"):
        proof.replay(manifest, FULL, given, lambda batch: batch + 3 * shift, [2])


def test_familiarity_hides_no_other_winner():
    """It is the largest value of the row, and no class."""
    manifest, given = judged_manifest([0.502, 0.498])
    proof.replay(manifest, FULL, given, lambda batch: batch, [1])
    with pytest.raises(BundleError, match=r"golden/0\.json: in a batch of 1 class 1 wins, expected 0"):
        proof.replay(manifest, FULL, given, lambda batch: batch[:, [1, 0, 2]], [1])


def test_a_graph_without_the_familiarity_is_refused():
    manifest, given = judged_manifest()
    with pytest.raises(BundleError, match=r"the graph gives answers \[2, 2\], they must be \[2, 3\]"):
        proof.replay(manifest, FULL, given, lambda batch: batch[:, :2], [2])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_refused(value):
    """Whatever the tolerance."""
    manifest = manifest_of(tolerance=0.99)
    with pytest.raises(BundleError, match=f"differs by {value}"):
        proof.replay(manifest, FULL, rows_of(manifest), at_third(value), [1])


def test_another_winner_is_refused_although_the_scores_are_near():
    manifest = manifest_of(scores=([1.0, 0.0], [0.0, 1.0], [0.502, 0.498]))
    given = np.float32([golden.scores for golden in manifest.golden])

    def swapping_the_last(batch):
        return np.concatenate([batch[:2], batch[2:, ::-1]])

    with pytest.raises(BundleError, match=r"golden/2\.json: in a batch of 3 class 1 wins, expected 0"):
        proof.replay(manifest, FULL, given, swapping_the_last, [3])


@pytest.mark.parametrize(
    ("answer", "actual"),
    [
        (lambda batch: batch[:, :1], r"\[2, 1\]"),  # NumPy would compare one score with both of the golden
        (lambda batch: batch[:1], r"\[1, 2\]"),
        (lambda batch: batch[0], r"\[2\]"),
        (lambda batch: batch[:, :, None], r"\[2, 2, 1\]"),
    ],
)
def test_scores_of_another_shape_are_refused(answer, actual):
    manifest = manifest_of()
    with pytest.raises(BundleError, match=rf"the graph gives answers {actual}, they must be \[2, 2\]"):
        proof.replay(manifest, FULL, rows_of(manifest), answer, [2])


def test_a_graph_that_fails_is_refused_with_its_reason():
    def run(batch):
        if len(batch) == 4:
            raise ArithmeticError("no room")
        return batch

    manifest = manifest_of()
    with pytest.raises(BundleError, match="the graph fails on a batch of 4: no room"):
        proof.replay(manifest, FULL, rows_of(manifest), run, [1, 2, 4])
