"""Real bundles of toy networks: one as trained, one with a worse head."""

import dataclasses
import shutil

import pytest

from taxon.training.exporting import bundling, graph
from taxon.training.exporting.bundling import Settings
from tests.training.toy_classifier import ToyNetwork, make_candidate

PLAIN = Settings(calibration=False)


def confused(seed=0):
    network = ToyNetwork(seed=seed)
    network.fc.weight.data = network.fc.weight.data[[1, 0, 2]]
    network.fc.bias.data = network.fc.bias.data[[1, 0, 2]]
    return network


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    folder = tmp_path_factory.mktemp("promote")
    candidate = make_candidate(folder)
    for network in (candidate.network, confused(), candidate.network):
        changed = dataclasses.replace(candidate, network=network, expected_accuracy=None)
        bundling.publish(changed, folder / "models", "toy", PLAIN, ladder=graph.LADDER[:1])
    for file, (label,) in zip(candidate.files, candidate.answers, strict=True):
        (folder / "held-out" / label).mkdir(parents=True, exist_ok=True)
        (folder / "held-out" / label / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.fixture
def repository(template, tmp_path):
    """Version 1 is good, 2 is worse, 3 is as good as 1; and a labelled folder of held-out pictures."""
    return shutil.copytree(template, tmp_path / "copy") / "models"
