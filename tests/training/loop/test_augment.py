import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from taxon.training.loop.augment import Augmentation, centered, mixing, normalised

PICTURES = np.random.default_rng(0).integers(0, 256, (6, 12, 12, 3), dtype=np.uint8)
NUMBERS = np.arange(6)


@pytest.mark.parametrize(
    "options",
    [
        {"flip": 0.5},
        {"pad": 2},
        {"scale": 0.3},
        {"policy": "randaugment"},
        {"policy": "trivialaugment"},
        {"erase": 0.9},
        {"flip": 0.5, "pad": 2, "policy": "trivialaugment", "erase": 0.5},
    ],
)
class TestEveryVariation:
    def test_is_the_same_for_a_sample_in_any_batch(self, options):
        vary = Augmentation((10, 10), **options)
        together = vary(PICTURES, NUMBERS, 7, 3)
        alone = [vary(PICTURES[n : n + 1], NUMBERS[n : n + 1], 7, 3)[0] for n in (5, 2, 0)]
        np.testing.assert_array_equal(together[[5, 2, 0]], alone)

    def test_differs_from_epoch_to_epoch_and_seed_to_seed(self, options):
        vary = Augmentation((10, 10), **options)
        first = vary(PICTURES, NUMBERS, 7, 3)
        assert not np.array_equal(first, vary(PICTURES, NUMBERS, 7, 4))
        assert not np.array_equal(first, vary(PICTURES, NUMBERS, 8, 3))

    def test_leaves_its_input_and_torchs_generator_alone(self, options):
        before, state = PICTURES.copy(), torch.get_rng_state()
        result = Augmentation((10, 10), **options)(PICTURES, NUMBERS, 7, 3)
        assert (result.shape, result.dtype) == ((6, 10, 10, 3), np.uint8)
        np.testing.assert_array_equal(PICTURES, before)
        assert torch.equal(torch.get_rng_state(), state)


def test_about_the_asked_share_is_flipped():
    pictures = np.tile(PICTURES[:1], (1000, 1, 1, 1))
    varied = Augmentation((12, 12), flip=0.3)(pictures, np.arange(1000), 0, 0)
    flipped = (varied == pictures[0, :, ::-1]).all(axis=(1, 2, 3)).mean()
    assert 0.25 < flipped < 0.35
    assert ((varied == pictures[0]).all(axis=(1, 2, 3)).mean()) == pytest.approx(1 - flipped)


def test_crops_reach_every_corner():
    ramp = np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1)
    varied = Augmentation((3, 3))(np.tile(ramp, (200, 1, 1, 1)), np.arange(200), 0, 0)
    assert {int(picture[0, 0, 0]) for picture in varied} == {0, 1, 4, 5}


def test_the_middle_is_that_of_torchvision():
    middle = centered(PICTURES, NUMBERS, (8, 8))
    expected = v2.functional.center_crop(torch.from_numpy(PICTURES).permute(0, 3, 1, 2), [8, 8])
    np.testing.assert_array_equal(middle, expected.permute(0, 2, 3, 1))


def test_normalisation_is_torchvisions():
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expected = v2.functional.normalize(torch.from_numpy(PICTURES).permute(0, 3, 1, 2) / 255, mean, std)
    found = normalised(torch.from_numpy(PICTURES), mean, std)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)])
def test_mixed_targets_are_shares_of_two_classes(mixup, cutmix):
    torch.manual_seed(0)
    mix = mixing(mixup, cutmix, 3)
    pictures, targets = mix(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 0]))
    assert (pictures.shape, targets.shape) == ((4, 3, 8, 8), (4, 3))
    torch.testing.assert_close(targets.sum(1), torch.ones(4))


def test_no_mixing_is_nothing():
    assert mixing(0.0, 0.0, 3) is None


def test_half_of_the_flips_change_sides_every_epoch():
    vary = Augmentation((12, 12), flip=0.5)
    pictures, numbers = np.tile(PICTURES[:1], (1000, 1, 1, 1)), np.arange(1000)
    flipped = [(vary(pictures, numbers, 0, n) == pictures[0, :, ::-1]).all(axis=(1, 2, 3)) for n in range(3)]
    assert 0.45 < flipped[0].mean() < 0.55
    np.testing.assert_array_equal(flipped[1], ~flipped[0])
    np.testing.assert_array_equal(flipped[2], flipped[0])
