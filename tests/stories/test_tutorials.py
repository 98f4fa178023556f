"""The tutorials as they are written, one after another in one folder, as a reader follows them."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image

from taxon.bundle import default_history, traffic
from tests.walkthrough import ROOT, TUTORIALS, blocks, follow, skip_without

COLORS = {"cat": (200, 40, 40), "dog": (40, 40, 200)}
NOT_RUN = {
    "$ taxon export --checkpoint": "the accuracy is that of the reader's pictures",
    "$ make image": "Docker; tests/container builds, runs and asks the image",
    "$ docker tag": "a registry and a cluster; tests/contract checks what is applied",
}
"""How the blocks for people begin, in the order of the pages, and why they are not run here."""
SHOWN = {
    "own_folder": r"^accuracy (9\d|100)\.\d\d% \(",
    "foreign_checkpoint": r"^published pets-elsewhere version 1: models/pets-elsewhere/1$",
    "existing_onnx": r"^pets-onnx +1 ",
    "deploy": r"^taxon_serving 1\.0$",
    "promote": r"^taxon_shadow_inputs_total\{.*same.*\} [1-9](.*\n)+pets version 2 is the default now\n"
    r"pets version 1 is the default again\n",
}
"""What a reader sees in the end, page by page."""


def photographs(folder, count, dice):
    """What no two classes share is the colour."""
    for name, color in COLORS.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            noisy = np.clip(dice.normal(color, 40, size=(48, 64, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(folder / name / f"{number}.jpg")


def weights(desk, cache):
    """What torchvision downloads, and what somebody else has trained: features through which colours can be seen, and a
    head that is fitted to them by least squares. Wholly random features forget the colours on their way.
    """
    torch, torchvision = pytest.importorskip("torch"), pytest.importorskip("torchvision")
    published = torchvision.models.MobileNet_V2_Weights.DEFAULT
    prepare = published.transforms()
    files = sorted(desk.glob("data/*/*.jpg"))
    pictures = torch.stack([prepare(Image.open(file)) for file in files])
    network, dice = torchvision.models.mobilenet_v2(), torch.Generator().manual_seed(0)
    with torch.inference_mode():
        for layer in network.modules():
            if isinstance(layer, torch.nn.Conv2d):
                count, depth, side, _ = layer.weight.shape
                seen = torch.randint(depth, (count,), generator=dice)
                signs = torch.randint(2, (count, 1, 1), generator=dice) * 2.0 - 1.0
                layer.weight.zero_()[range(count), seen] = signs.expand(count, side, side)  # each sees one channel
            elif isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = 1.0  # the statistics of one batch
        network(pictures)
        torch.save(network.state_dict(), cache / published.url.rpartition("/")[2])
        features = network.eval().features(pictures).mean((2, 3))
        answers = torch.tensor([[4.0, -4.0] if file.parent.name == "cat" else [-4.0, 4.0] for file in files])
        head = torch.nn.Linear(network.last_channel, len(COLORS))
        head.bias.zero_()
        head.weight.copy_(torch.linalg.lstsq(features, answers, driver="gelsd").solution.T)
    network.classifier[1] = head
    torch.save(network.state_dict(), desk / "weights.pth")


@pytest.mark.slow
def test_the_tutorials_work_as_written(tmp_path):
    for needed in ("torch", "matplotlib", "onnxruntime", "onnxscript"):
        pytest.importorskip(needed)
    for needed in ("curl", "openssl"):
        if shutil.which(needed) is None:
            pytest.skip(f"{needed} is not installed")
    skip_without(50051, 9100)
    desk, cache = tmp_path / "desk", tmp_path / "torch/hub/checkpoints"
    cache.mkdir(parents=True)
    dice = np.random.default_rng(0)
    photographs(desk / "data", 30, dice)
    photographs(desk / "held_out", 12, dice)
    weights(desk, cache)
    for page in TUTORIALS:
        printed = follow(page, desk, TORCH_HOME=str(tmp_path / "torch"))
        assert re.search(SHOWN[page.stem], printed, flags=re.MULTILINE), f"{page.name}: {printed}"
    models = desk / "models"
    published = {path.parent.relative_to(models).as_posix() for path in models.glob("*/*/manifest.json")}
    assert published == {"pets/1", "pets/2", "pets-elsewhere/1", "pets-onnx/1"}
    assert [entry["action"] for entry in default_history.read(models, "pets")] == ["promote", "promote", "rollback"]
    declared = traffic.read(models, "pets")
    assert (declared.labels, declared.canary, declared.shadow) == ({"stable": 1}, None, None)


def test_every_tutorial_is_followed_and_each_block_that_is_not_has_its_reason():
    assert set(TUTORIALS) == set((ROOT / "docs/tutorials").glob("*.md"))
    for_people = [text for page in TUTORIALS for language, text in blocks(page) if language == "console"]
    for text, start in zip(for_people, NOT_RUN, strict=True):
        assert text.startswith(start)
