from pathlib import Path

import numpy as np
import pytest

from taxon.training.dataset import data
from taxon.training.dataset.data import Sample
from taxon.training.dataset.doctor import diagnose, grouped_samples, write_split
from taxon.training.dataset.fingerprints import fingerprints
from taxon.training.dataset.scan_pictures import Facts, grid
from taxon.training.errors import TrainingError
from tests.training.drawings import drawing
from tests.training.folders import write_folder


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


def test_a_list_that_would_name_a_picture_elsewhere_is_not_written(tmp_path):
    """Whoever reads the list refuses it: the paths are below its folder."""
    write_folder(tmp_path / "pictures", 6)
    (tmp_path / "elsewhere").mkdir()
    found = diagnose(data.scan(tmp_path / "pictures"))
    with pytest.raises(TrainingError, match=r"pictures/.*\.png lies outside .*elsewhere: write the list in or above"):
        write_split(found, tmp_path / "elsewhere" / "list.csv", 0.3, 0)
    assert not any((tmp_path / "elsewhere").iterdir())
