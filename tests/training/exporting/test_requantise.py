"""Weights of as many bits as cannot overflow, biases without what their rounding adds to a channel's mean."""

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from taxon.training.exporting import graph, parity, quantise, requantise
from taxon.training.exporting.graph import Served
from tests.training.toy_classifier import MEAN, PIXELS, STD, decoded, write_pictures


class Deep(nn.Module):
    """A dense, a grouped and a depthwise convolution, and a linear layer."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(
                *(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2), nn.ReLU()),
                *(nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(), nn.Conv2d(8, 16, 1), nn.ReLU()),
            )
            self.fc = nn.Linear(16, 3)
            for module in self.modules():
                if isinstance(module, nn.Conv2d):  # as trained ones are: few weights are large
                    nn.init.kaiming_normal_(module.weight)
        self.eval()

    def forward(self, pictures):
        return self.fc(self.layers(pictures).mean(dim=(2, 3)))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The float graph, the quantiser's graph in 7 bits, ours without and with corrected biases, and pictures."""
    folder = tmp_path_factory.mktemp("requantise")
    pictures = decoded(write_pictures(folder / "train", 16))
    graph.write_graph(Served(Deep(), MEAN, STD, "single_label"), PIXELS.shape, folder / "model.onnx")
    prepared = folder / "prepared.onnx"
    quantise.prepare(folder / "model.onnx", prepared)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantise, "requantise", lambda *_: None)
        quantise.write_int8(prepared, folder / "seven.onnx", pictures, quantise.PLANS[0])
    quantise.write_int8(prepared, folder / "finer.onnx", pictures, quantise.PLANS[0])
    means = requantise.input_means(prepared, pictures)
    quantise.write_int8(prepared, folder / "corrected.onnx", pictures, quantise.PLANS[0], means=means)
    return folder, pictures


def weights(path):
    """The int8 weights by node, with the node."""
    model = onnx.load(path)
    constants = {entry.name: numpy_helper.to_array(entry) for entry in model.graph.initializer}
    restored = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    found = [node for node in model.graph.node if len(node.input) > 1 and node.input[1] in restored]
    return [(node, constants[restored[node.input[1]]].astype(int)) for node in found]


def saturating_sum(activations, row):
    """As AVX2 has it: neighbours are multiplied, added in 16 bits and cut off there; the rest is exact."""
    pairs = (activations * row).reshape(-1, 2).sum(axis=1)
    return int(np.clip(pairs, -32768, 32767).sum())


def layouts(node, weight):
    """Rows as kernels may go through them, of even length whichever of two neighbours comes first."""
    if node.op_type == "Gemm":
        weight = weight if any(entry.name == "transB" and entry.i for entry in node.attribute) else weight.T
    orders = [weight, np.moveaxis(weight, 1, -1)] if weight.ndim > 2 else [weight]
    for order in orders:
        for row in order.reshape(len(order), -1):
            for shifted in (row, row[1:]):
                yield shifted[: len(shifted) // 2 * 2]


def test_no_sum_of_neighbours_can_overflow_in_16_bits(made):
    folder, _ = made
    checked = 0
    for node, weight in weights(folder / "corrected.onnx"):
        if node.op_type == "Conv" and weight.shape[1] == 1:
            continue  # a depthwise convolution has no neighbours
        for row in layouts(node, weight):
            for sign in (1, -1):
                worst = np.where(np.sign(row) == sign, 255, 0)
                assert saturating_sum(worst, row) == (worst * row).sum()
                checked += 1
    assert checked > 100


def test_weights_are_finer_than_seven_bits(made):
    folder, _ = made
    for (node, weight), (_, seven) in zip(weights(folder / "finer.onnx"), weights(folder / "seven.onnx"), strict=True):
        largest, before = (np.abs(one).max(axis=tuple(range(1, one.ndim))) for one in (weight, seven))
        if node.op_type == "Conv":
            assert (largest >= before - 1).all()
            assert largest.mean() > before.mean() + 8
        if node.op_type == "Conv" and weight.shape[1] == 1:
            assert set(largest.tolist()) == {127}


def logits_of(path, pictures):
    """Before the softmax: what stands in front of the last node but one."""
    scores = parity.run(parity.open_session(path), pictures)
    return np.log(scores.astype(np.float64))


def test_a_graph_with_finer_weights_and_corrected_biases_is_closer(made):
    folder, pictures = made
    exact, seven, finer, corrected = (
        logits_of(folder / f"{name}.onnx", pictures) for name in ("prepared", "seven", "finer", "corrected")
    )
    errors = [float(((found - exact) ** 2).mean()) for found in (seven, finer, corrected)]
    assert errors[2] < 0.7 * min(errors[:2]), errors


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_the_shift_of_a_mean_is_what_a_convolution_of_means_gives(groups):
    generator = np.random.default_rng(0)
    error, mean = generator.normal(size=(8, 4 // groups, 3, 3)), generator.normal(size=4)
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], group=groups)
    everywhere = torch.from_numpy(np.broadcast_to(mean[None, :, None, None], (1, 4, 3, 3)).copy())
    expected = nn.functional.conv2d(everywhere, torch.from_numpy(error), groups=groups)[0, :, 0, 0]
    np.testing.assert_allclose(requantise.shift(node, error, mean), expected, rtol=1e-9)


@pytest.mark.parametrize("transposed", [0, 1])
def test_the_shift_of_a_mean_is_what_a_product_gives(transposed):
    generator = np.random.default_rng(0)
    error, mean = generator.normal(size=(4, 3)), generator.normal(size=4)
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=transposed)
    given = error.T if transposed else error
    np.testing.assert_allclose(requantise.shift(node, given, mean), mean @ error, rtol=1e-9)


def test_means_are_of_all_places_and_pictures(made):
    folder, pictures = made
    model = onnx.load(folder / "prepared.onnx")
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    means = requantise.input_means(folder / "prepared.onnx", pictures)
    normalised = (pictures / 255 - MEAN) / STD
    np.testing.assert_allclose(means[convolutions[0].input[0]], normalised.mean(axis=(0, 1, 2)), rtol=1e-5)
    assert len(means) == 5


# Scales


def test_a_large_weight_beside_small_ones_keeps_eight_bits():
    weight = np.array([[1.0, 0.2, -0.9, 0.1], [1.0, 0.9, 0.1, 0.1]])
    scale = requantise.scales(weight, 0, depthwise=False)
    np.testing.assert_allclose(scale * 127, [1.2, 1.9])  # of one sign; 0.2 and -0.9 cannot add up
    np.testing.assert_allclose(requantise.scales(weight, 0, depthwise=True) * 127, [1.0, 1.0])


def test_neighbours_are_those_of_both_layouts():
    weight = np.zeros((1, 2, 1, 3))
    weight[0, 0, 0, 0] = weight[0, 1, 0, 0] = 1.0  # apart in the file, side by side with the channels innermost
    assert requantise.scales(weight, 0, depthwise=False) * 127 == pytest.approx(2.0)


def test_channels_of_zeros_and_huge_biases_get_a_scale_that_works():
    weight = np.array([[0.0, 0.0], [1e-6, 0.0]])
    scale = requantise.scales(weight, 0, depthwise=False, bias=np.array([0.0, 1000.0]), input_scale=0.01)
    assert scale[0] == 1.0
    assert abs(1000.0 / (scale[1] * 0.01)) <= 2**30
