import torch
from torch import nn

from taxon.training.commands.train import main
from taxon.training.network import model, stages
from taxon.training.reporting.dry_run import saved_bytes
from tests.training.folders import write_folder


def test_what_the_backward_pass_keeps_by_hand():
    """Of a linear layer its input, of ReLU its output; frozen layers before the first that trains keep nothing."""
    network = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 3))
    assert saved_bytes(network, torch.zeros(4, 10)) == 4 * (10 + 20)
    network[0].requires_grad_(False)
    assert saved_bytes(network, torch.zeros(4, 10)) == 4 * 20


def test_the_memory_of_a_network_grows_with_what_trains():
    loaded = model.load("resnet18", 2)
    parts, example = stages.stages(loaded.network, loaded.head), torch.zeros(2, 3, 64, 64)
    sizes = []
    for trainable in (["fc"], ["layer4", "fc"], [*parts]):
        stages.freeze_all_but(loaded.network, parts, trainable)
        stages.train_mode(loaded.network, parts, trainable, [])
        sizes.append(saved_bytes(loaded.network, example))
    assert sizes[0] == 4 * 512
    assert sizes[0] < sizes[1] < sizes[2]
    # The first layer puts out 32x32x64, layer1 four times 16x16x64 twice over (before and after normalisation) …
    assert 5 < sizes[2] / (32 * 32 * 64 * 4) < 10


def test_the_plan_names_the_memory_of_each_phase(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "pictures", 8, side=32)
    torch.save(model.build("resnet18", 2).state_dict(), "w.pth")
    words = ["--data", "pictures", "--model", "resnet18", "--weights", "w.pth", "--image-size", "32", "--dry-run"]
    assert main(words) == 0
    lines = [line for line in capfd.readouterr().out.splitlines() if "MiB" in line]
    head, full = [float(line.split()[1]) for line in lines]
    assert 42 < head < 60  # 11.2 million weights of four bytes
    assert full > 4 * 42  # and their gradients, and two numbers each for AdamW
