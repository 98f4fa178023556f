"""Whether published weights can be had: what is on this machine, and who is asked for the rest, once."""

import sys
from types import SimpleNamespace

import pytest
import torch

from taxon.training.errors import TrainingError
from taxon.training.network import model, published


@pytest.fixture
def asked(monkeypatch):
    """The addresses at which somebody was looked for."""
    addresses = []
    monkeypatch.setattr(published, "check_reachable", lambda address, *_: addresses.append(address))
    return addresses


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The cache of a huggingface_hub that need not be installed, beside a timm that has every model."""
    constants = SimpleNamespace(HF_HUB_CACHE=str(tmp_path / "hub"))
    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(constants=constants))
    monkeypatch.setitem(sys.modules, "huggingface_hub.constants", constants)
    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(is_model=lambda _: True))
    return tmp_path / "hub"


@pytest.mark.parametrize(
    ("held", "is_there"),
    [
        ("models--timm--resnet18/snapshots/0f3a/model.safetensors", True),
        ("models--timm--resnet18.a1_in1k/snapshots/0f3a/model.safetensors", True),
        ("models--timm--resnet18d.ra2_in1k/snapshots/0f3a/model.safetensors", False),
        ("models--timm--resnet180/snapshots/0f3a/model.safetensors", False),
        ("models--timm--resnet18.a1_in1k/blobs/77aa.incomplete", False),
        ("models--timm--resnet18.a1_in1k/snapshots/README", False),
        ("models--other--resnet18/snapshots/0f3a/model.safetensors", False),
        ("version.txt", False),
    ],
)
def test_only_files_of_the_model_itself_are_in_the_cache(hub, asked, held, is_there):
    (hub / held).parent.mkdir(parents=True)
    (hub / held).touch()
    published.check_weights("timm/resnet18", "DEFAULT")
    assert asked == ([] if is_there else ["https://huggingface.co/timm/resnet18"])


def test_a_model_with_its_tag_is_another_than_one_with_another(hub, asked):
    (hub / "models--timm--resnet18.a1_in1k" / "snapshots" / "0f3a").mkdir(parents=True)
    (hub / "models--timm--resnet18.a1_in1k" / "snapshots" / "0f3a" / "model.safetensors").touch()
    published.check_weights("timm/resnet18.a1_in1k", "DEFAULT")
    assert asked == []
    published.check_weights("timm/resnet18.a2_in1k", "DEFAULT")
    assert asked == ["https://huggingface.co/timm/resnet18.a2_in1k"]


def test_who_takes_weights_asks_nobody_again(monkeypatch, asked):
    """`find_data` has asked, before the data was read."""
    source = model.build("resnet18", 1000)
    monkeypatch.setattr(published, "fetched", lambda *_: dict(source.state_dict()))
    loaded = model.load("resnet18", 3, weights="DEFAULT")
    assert torch.equal(source.layer4[1].conv2.weight, loaded.network.layer4[1].conv2.weight)
    assert asked == []


@pytest.mark.parametrize(
    ("name", "weights", "reason"),
    [("small_cnn", "DEFAULT", "no published weights"), ("resnet18", "none.pth", "none.pth does not exist")],
)
@pytest.mark.parametrize("ask", [published.check_weights, published.state_of])
def test_what_there_can_be_nowhere_is_refused_unasked(asked, name, weights, reason, ask):
    with pytest.raises(TrainingError, match=reason):
        ask(name, weights)
    assert asked == []
