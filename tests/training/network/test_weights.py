"""Weights files as training scripts write them, and files that are none."""

import pickle
from argparse import Namespace

import numpy as np
import pytest
import torch

from taxon.training.errors import TrainingError
from taxon.training.network import model


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(3)
    return model.build("resnet18", 2)


def prefixed(state, prefix):
    return {f"{prefix}{key}": value for key, value in state.items()}


WRAPPINGS = {
    "plain": lambda state: state,
    "model_state_dict": lambda state: {"model_state_dict": state, "optimizer_state_dict": {"state": {}}, "epoch": 3},
    "net": lambda state: {"net": state, "acc": 0.9},
    "nested": lambda state: {"model": {"state_dict": state}},
    "an odd name": lambda state: {"resnet": state, "epoch": 3},
    "torchvision's script": lambda state: {"model": state, "model_ema": prefixed(state, "module."), "args": {"lr": 1}},
    "Lightning": lambda state: {"state_dict": prefixed(state, "model."), "epoch": 1, "loops": {}},
    "Lightning with more": lambda state: {
        "state_dict": {**prefixed(state, "model."), "criterion.weight": torch.ones(2)}
    },
    "DataParallel": lambda state: prefixed(state, "module."),
    "compiled": lambda state: prefixed(state, "_orig_mod."),
    "compiled within": lambda state: prefixed(state, "_orig_mod.module."),
    "compiled around": lambda state: prefixed(state, "module._orig_mod."),
    "compiled stages": lambda state: {key.replace("layer1.", "layer1._orig_mod."): state[key] for key in state},
    "averaged": lambda state: {"n_averaged": torch.tensor(5), **prefixed(state, "module.")},
    "deep": lambda state: prefixed(state, "student.encoder.net."),
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_what_scripts_wrap_is_unwrapped(tmp_path, network, wrapping):
    torch.save(WRAPPINGS[wrapping](network.state_dict()), tmp_path / "w.pth")
    loaded = model.load("resnet18", 2, weights=str(tmp_path / "w.pth"))
    assert loaded.dropped_head == ()
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), loaded.network.parameters(), strict=True))


def test_values_that_are_no_numbers_are_refused(tmp_path, network):
    """A training would say that the loss is no number, and blame the learning rate."""
    state = {key: value.clone() for key, value in network.state_dict().items()}
    state["layer1.0.conv1.weight"][0, 0, 0, 0] = torch.nan
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(TrainingError, match=r"no numbers, in layer1\.0\.conv1\.weight"):
        model.load("resnet18", 2, weights=str(tmp_path / "w.pth"))


@pytest.mark.parametrize("name", ["w.pth", "w.checkpoint", "epoch.3"])
def test_a_file_is_one_whatever_it_is_called(tmp_path, monkeypatch, network, name):
    monkeypatch.chdir(tmp_path)
    torch.save(network.state_dict(), name)
    assert model.load("resnet18", 2, weights=name).dropped_head == ()


AMBIGUOUS = {
    "two states": lambda state: {"net": state, "model": state},
    "two odd states": lambda state: {"generator": state, "critic": state},
    "two networks": lambda state: {**prefixed(state, "student."), **prefixed(state, "teacher.")},
}


@pytest.mark.parametrize("wrapping", AMBIGUOUS)
def test_what_could_be_either_is_refused(tmp_path, network, wrapping):
    torch.save(AMBIGUOUS[wrapping](network.state_dict()), tmp_path / "w.pth")
    with pytest.raises(TrainingError, match=r"several (states|networks), \[.*: save the one alone"):
        model.load("resnet18", 2, weights=str(tmp_path / "w.pth"))


NO_WEIGHTS = {
    "a whole network": (lambda path, network: torch.save(network, path), r"torchvision.*save the network's state_dict"),
    "numbers of NumPy": (
        lambda path, network: torch.save({"state_dict": network.state_dict(), "best": np.float64(0.5)}, path),
        "values of NumPy",
    ),
    "other objects": (
        lambda path, network: torch.save({"state_dict": network.state_dict(), "args": Namespace(lr=1)}, path),
        r"argparse.Namespace",
    ),
    "a pointer": (
        lambda path, _: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
        "git lfs pull",
    ),
    "a page": (lambda path, _: path.write_bytes(b"\n<!DOCTYPE html>\n<html></html>"), "a web page"),
    "nothing": (lambda path, _: path.write_bytes(b""), "it is empty"),
    "a list": (lambda path, _: torch.save([1, 2], path), "no state of a network"),
    "no tensors": (lambda path, _: torch.save({"model": {"a": 1}}, path), "no state of a network"),
    "a pickle": (lambda path, _: path.write_bytes(pickle.dumps({"a": Namespace()})), "cannot be read"),
    "a folder": (lambda path, _: path.mkdir(), "cannot be read: Is a directory"),
    "half a file": (
        lambda path, network: (torch.save(network.state_dict(), path), path.write_bytes(path.read_bytes()[:10000])),
        "cannot be read",
    ),
}


@pytest.mark.parametrize("kind", NO_WEIGHTS)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_is_no_weights_is_said_in_one_sentence(tmp_path, network, kind, suffix):
    path = tmp_path / f"w{suffix}"
    write, reason = NO_WEIGHTS[kind]
    write(path, network)
    with pytest.raises(TrainingError, match=reason if suffix == ".pth" else "weights file") as refused:
        model.load("resnet18", 2, weights=str(path))
    assert "\n" not in str(refused.value)
    assert "weights_only" not in str(refused.value)
    assert "weights file" in str(refused.value)
