from pathlib import Path

import numpy as np

from taxon.training.dataset.data import Sample
from taxon.training.dataset.doctor import grouped_samples
from taxon.training.dataset.fingerprints import fingerprints
from taxon.training.dataset.scan_pictures import Facts, grid
from tests.training.drawings import drawing


def groups(*pictures: tuple[int, str, str]) -> list[list[int]]:
    """The numbers that are one group each, of pictures (seed of the drawing, digest, group of its own)."""
    facts = [
        Facts(Sample(Path(f"{n}.png"), 0, sha256=digest, group=group), (96, 96), "RGB", "PNG", 1)
        for n, (_, digest, group) in enumerate(pictures)
    ]
    grids = [grid(drawing(seed)) for seed, _, _ in pictures]
    prints = fingerprints(np.stack(grids) if grids else np.empty((0, 32, 32), dtype=np.uint8))
    found: dict[str, list[int]] = {}
    for number, sample in enumerate(grouped_samples(facts, prints)):
        found.setdefault(sample.group, []).append(number)
    return list(found.values())


def test_what_is_equal_or_looks_alike_is_one_group_also_by_way_of_others():
    """0 looks like 1, 1 has the bytes of 2, 2 is of the group of 3; 4 has nothing to do with them."""
    chain = [(0, "a", ""), (0, "b", ""), (1, "b", "film"), (2, "c", "film"), (3, "d", "")]
    assert groups(*chain) == [[0, 1, 2, 3], [4]]
    assert groups(*reversed(chain)) == [[0], [1, 2, 3, 4]]


def test_a_group_called_like_another_picture_is_not_that_picture():
    assert groups((0, "a", ""), (1, "b", "a")) == [[0], [1]]


def test_no_picture_is_no_group():
    assert groups() == []
