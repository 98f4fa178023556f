"""Class activation maps: found in networks, proven like scores, and never in the way of them."""

import dataclasses

import numpy as np
import onnx
import pytest
import torch
import torchvision
from torch.nn import functional

from taxon.bundle.class_maps import of_places
from taxon.bundle.manifest import BundleError
from taxon.bundle.picture_limits import Limits
from taxon.service.runtime.bundle_proof import prove
from taxon.service.runtime.device import CPU, Device
from taxon.training.exporting import bundling, graph, maps, parity
from taxon.training.exporting.bundling import Settings
from taxon.training.exporting.evidence import Budget
from taxon.training.exporting.gate import GateError
from taxon.training.exporting.mapped import Place
from taxon.training.network.networks import Airbench, SmallCnn
from tests.training.toy_classifier import AskedTwice, ToyNetwork, make_candidate, with_training

WITH_MAPS = Settings(maps=True, calibration=False)


class Densely(ToyNetwork):
    """Ends as DenseNet does: a ReLU, which is no module and works in place, stands before the pooling."""

    def forward(self, pictures):
        return self.fc(functional.relu(self.norm(self.conv(pictures)), inplace=True).mean(dim=(2, 3)))


class WithNormalisedFeatures(ToyNetwork):
    """Ends as ConvNeXt does."""

    def forward(self, pictures):
        pooled = self.norm(self.conv(pictures)).relu().mean(dim=(2, 3))
        return self.fc(functional.layer_norm(pooled, pooled.shape[1:]))


@pytest.fixture
def candidate(tmp_path):
    return dataclasses.replace(make_candidate(tmp_path), head="fc")


def test_the_mean_of_a_labels_map_is_its_logit(candidate):
    mapped, note = maps.mapped(candidate)
    assert note == "explanations are by maps of 8x8 places"
    (pictures,) = parity.network_inputs(candidate.files, candidate.pixels, candidate.mean, candidate.std)
    with torch.inference_mode():
        logits, places = mapped(pictures)
        found = mapped.maps(pictures)
    np.testing.assert_allclose(of_places(places.numpy(), mapped.head_weights), found, rtol=1e-4, atol=1e-5)
    assert found.shape == (24, 3, 8, 8)
    torch.testing.assert_close(found.mean(dim=(2, 3)), logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("network", "head", "place"),
    [
        (ToyNetwork(), "fc", Place("norm", rectified=True)),
        (Densely(), "fc", Place("norm", rectified=True)),
        (SmallCnn(3, width=4), "fc", Place("features", rectified=False)),
        (Airbench(3, widths=(4, 4, 4)), "fc", None),  # of pictures of 10 pixels it leaves one place
        (torchvision.models.mobilenet_v2(width_mult=0.1, num_classes=3), "classifier.1", None),
    ],
)
def test_where_the_maps_are(tmp_path, network, head, place):
    candidate = dataclasses.replace(make_candidate(tmp_path, network=network.eval(), count=4), head=head)
    mapped, note = maps.mapped(candidate)
    assert (mapped and mapped.place) == place, note


def test_published_networks_have_theirs_before_the_pooling(tmp_path):
    network = torchvision.models.mobilenet_v2(width_mult=0.1, num_classes=3).eval()
    candidate = make_candidate(tmp_path, network=network, count=4)
    pixels = candidate.pixels.model_copy(update={"resize": 64, "crop": (64, 64)})
    mapped, note = maps.mapped(dataclasses.replace(candidate, pixels=pixels, head="classifier.1"))
    assert (mapped.place, note) == (Place("features", rectified=False), "explanations are by maps of 2x2 places")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"pixels": None}, "the classifier takes numbers"),
        ({"head": None}, "the last layer of an imported graph or of an ensemble is in no one place"),
        ({"network": AskedTwice()}, "its last layer fc does not take one vector for each picture"),
        ({"network": WithNormalisedFeatures()}, "the last layer does not stand behind a global pooling"),
        ({"head": "conv"}, "the network does not end in a linear layer"),
    ],
)
def test_without_maps_the_export_says_why(candidate, changes, reason):
    mapped, note = maps.mapped(dataclasses.replace(candidate, **changes))
    assert mapped is None
    assert note == f"explanations are by masking: {reason}"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps")
    candidate = dataclasses.replace(with_training(make_candidate(folder), folder, 40, seed=1), head="fc")
    chosen = dataclasses.replace(WITH_MAPS, unknown_coverage=0.75, precisions=("fp16",), budget=Budget(0.5, "estimate"))
    return bundling.publish(candidate, folder / "models", "toy", chosen).bundle


def test_a_bundle_has_maps_with_their_proof(published):
    bundle = published
    manifest = bundle.manifest
    assert manifest.maps.shape == (8, 8)
    assert manifest.metrics["parity_max_map_difference"] < 1e-5
    assert manifest.judges_familiarity
    device = Device(provider=CPU, options={})
    for variant in manifest.variants:
        proven = prove(bundle, variant.precision, device, 1, (1, 2), Limits())
        session = proven.session
        assert [output.name for output in session.outputs] == ["scores", "familiarity", "places"]
        for golden, picture in zip(manifest.golden, proven.given, strict=True):
            row, places = session.run_with_places(picture[None])
            found = of_places(places, proven.head)
            np.testing.assert_array_equal(row, session.run(picture[None]))
            winner = np.argmax(golden.scores)
            expected = np.reshape(golden.map, (8, 8))
            largest = np.abs(expected).max()
            np.testing.assert_allclose(found[0, winner], expected, atol=(variant.map_tolerance or 1e-4) * largest)
    assert [variant.map_tolerance is None for variant in manifest.variants] == [True, False]


def test_a_golden_with_another_map_is_refused(published):
    bundle = published
    goldens = [golden.model_copy(update={"map": golden.map[::-1]}) for golden in bundle.manifest.golden]
    changed = dataclasses.replace(bundle, manifest=bundle.manifest.model_copy(update={"golden": tuple(goldens)}))
    with pytest.raises(BundleError, match=r"golden/00.png: its map differs by .* of its range, at most 0.02"):
        prove(changed, "fp32", Device(provider=CPU, options={}), 1, (1,), Limits())


def test_nothing_is_published_whose_maps_differ(tmp_path, candidate):
    """An exporter's fault that shows in maps alone."""

    def write_mirrored(served, shape, path, strategy):
        graph.write_graph(served, shape, path, strategy)
        model = onnx.load(path)
        for node in model.graph.node:
            for names in (node.input, node.output):
                names[:] = ["straight" if name == "places" else name for name in names]
        reverse = onnx.helper.make_node("Transpose", ["straight"], ["places"], perm=[0, 1, 3, 2])
        model.graph.node.append(reverse)
        onnx.save(model, path)

    with pytest.raises(GateError, match="maps differ by"):
        bundling.publish(
            candidate, tmp_path / "models", "toy", WITH_MAPS, ladder=graph.LADDER[:1], write_graph=write_mirrored
        )
    assert not (tmp_path / "models" / "toy" / "1").exists()
