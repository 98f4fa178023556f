"""A base, and participants who have moved it."""

import dataclasses

import torch

from taxon.bundle.manifest import PixelSpec
from taxon.training.network import model
from taxon.training.runs.checkpoint import Checkpoint

SPEC = PixelSpec(resize=16, crop=(16, 16))
LABELS = ("cat", "dog")


def make_base(seed=0):
    torch.manual_seed(seed)
    network = model.build("small_cnn", 2).eval()
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    normal = ((0.5,) * 3, (0.25,) * 3)
    return Checkpoint("small_cnn", LABELS, "single_label", SPEC, *normal, state, {}, 1, "base", sample_count=10)


def moved(base, seed, *, size=1.0, count=100, common=1.0):
    """A step in a direction that all share, with noise of one's own."""
    shared, own = torch.Generator().manual_seed(99), torch.Generator().manual_seed(seed)
    state = {}
    for name, tensor in base.state.items():
        step = common * torch.randn(tensor.shape, generator=shared) + torch.randn(tensor.shape, generator=own)
        state[name] = tensor + 0.01 * size * step if name.endswith(("weight", "bias")) else tensor.clone()
    return dataclasses.replace(base, state=state, run_id=f"run-{seed}", sample_count=count)


def saved(checkpoint, folder, name):
    checkpoint.save(folder / name)
    return str(folder / name)
