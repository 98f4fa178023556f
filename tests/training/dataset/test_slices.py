import numpy as np
import pytest

from taxon.bundle.manifest import PixelSpec
from taxon.training.dataset.data import Sample
from taxon.training.dataset.slices import LEAST, looks, slices
from tests.training.folders import write_picture


@pytest.fixture
def samples(tmp_path):
    """Of two cameras in turn; the second half is larger and brighter; one contributor has too few."""
    found = []
    for number in range(40):
        late = number >= 20
        path = write_picture(tmp_path / f"{number}.png", 200 if late else 50, number, side=32 if late else 8)
        who = "eve" if number < LEAST - 1 else "ann"
        found.append(Sample(path, 0, group="camera-a" if number % 2 else "camera-b", columns=(("by", who), ("x", "1"))))
    return found


def test_slices_are_by_source_column_size_and_brightness(samples):
    seen = looks(samples, PixelSpec(resize=16, crop=(16, 16)))
    found = {part.title: part.numbers for part in slices(samples, ["x"], seen)}
    assert list(found["source camera-a"]) == list(range(1, 40, 2))
    assert list(found["by ann"]) == list(range(9, 40))
    assert "by eve" not in found
    assert not [title for title in found if title.startswith("x")]
    assert list(found["side 32 to 32"]) == list(range(20, 40))
    dark, bright = ([t for t in found if t.startswith("brightness")][n] for n in (0, -1))
    assert set(found[dark]) < set(range(20))
    assert set(found[bright]) < set(range(20, 40))
    assert seen[:20, 1] == pytest.approx(50 / 255, abs=0.1)


def test_a_column_called_source_stands_before_group_and_folder(samples):
    named = [Sample(s.path, 0, group=s.group, columns=(("source", f"web{n % 2}"),)) for n, s in enumerate(samples)]
    assert [part.title for part in slices(named, ["x"], np.empty((40, 0)))] == ["source web0", "source web1"]


def test_folders_that_are_classes_are_no_sources(tmp_path):
    found = [Sample(tmp_path / name / f"{n}.png", 0) for name in ("cat", "dog") for n in range(20)]
    assert slices(found, ["cat", "dog"], np.empty((40, 0))) == []
