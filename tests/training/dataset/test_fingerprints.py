import numpy as np
import pytest
from PIL import Image

from taxon.training.dataset.fingerprints import alike, fingerprints
from taxon.training.dataset.scan_pictures import grid
from tests.training.drawings import drawing
from tests.training.folders import write_picture


def pairs(*pictures: Image.Image) -> list[tuple[int, int, float]]:
    return list(alike(fingerprints(np.stack([grid(picture) for picture in pictures]))))


@pytest.mark.parametrize(
    "change",
    [
        lambda picture: picture.resize((48, 48), Image.Resampling.BILINEAR),
        lambda picture: picture.point(lambda value: value * 0.97),
        lambda picture: picture.convert("L"),
        lambda picture: picture.crop((1, 1, 95, 95)),
    ],
    ids=["smaller", "darker", "grey", "cropped by a pixel"],
)
def test_small_changes_look_alike(change):
    for seed in range(5):
        assert len(pairs(drawing(seed), change(drawing(seed)))) == 1


def test_other_pictures_do_not_look_alike():
    assert pairs(*[drawing(seed) for seed in range(300)]) == []


def test_noise_does_not_look_alike(tmp_path):
    paths = [write_picture(tmp_path / f"{n}.png", 128, n, side=64) for n in range(50)]
    pictures = [Image.open(path) for path in paths]
    assert pairs(*pictures) == []
    for picture in pictures:
        picture.close()


def test_what_is_transparent_or_of_16_bits_is_seen_as_training_sees_it():
    shape = np.asarray(drawing(7).convert("L"))
    ink = Image.fromarray(np.dstack([np.zeros_like(shape)] * 3 + [shape]))
    deep = Image.fromarray(shape.astype(np.uint16) * 257)
    assert deep.mode == "I;16"
    assert [found[:2] for found in pairs(drawing(7), ink, deep)] == [(0, 2)]
    assert not fingerprints(np.stack([grid(ink), grid(deep)])).flat.any()
