"""The tutorials as they are written, one after the other in one folder, as a reader follows them."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.walkthrough import ROOT, TUTORIALS, script

pytestmark = pytest.mark.slow
PORTS = (50051, 9100)
RED, BLUE = (200, 40, 40), (40, 40, 200)
PUBLISHED = "mobilenet_v2-7ebf99e0.pth"
"""The file that torchvision downloads: with one in its cache it asks nobody."""


def photographs(folder, color, count, dice):
    folder.mkdir(parents=True)
    for number in range(count):
        noisy = np.clip(dice.normal(color, 40, size=(48, 64, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{number}.jpg")


def classifier(file):
    """A graph of somebody else's: the more red than blue, the more it is a cat. Gives logits."""
    onnx = pytest.importorskip("onnx")
    helper, numpy_helper, of = onnx.helper, onnx.numpy_helper, onnx.TensorProto.FLOAT
    weights = np.array([[4, -4], [0, 0], [-4, 4]], np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["y"]),
        ],
        "elsewhere",
        [helper.make_tensor_value_info("x", of, ["n", 3, 224, 224])],
        [helper.make_tensor_value_info("y", of, ["n", 2])],
        [numpy_helper.from_array(weights, "weights")],
    )
    opset = helper.make_opsetid("", 18)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=10), file)


@pytest.fixture
def desk(tmp_path):
    """What a reader has before the first command: pictures, weights and a graph."""
    torch, torchvision = pytest.importorskip("torch"), pytest.importorskip("torchvision")
    dice = np.random.default_rng(0)
    for name, color in (("cat", RED), ("dog", BLUE)):
        photographs(tmp_path / "data" / name, color, 30, dice)
        photographs(tmp_path / "held_out" / name, color, 12, dice)
    classifier(tmp_path / "classifier.onnx")
    torch.manual_seed(0)
    torch.save(torchvision.models.mobilenet_v2(num_classes=2).state_dict(), tmp_path / "weights.pth")
    cache = tmp_path / "torch/hub/checkpoints"
    cache.mkdir(parents=True)
    torch.save(torchvision.models.mobilenet_v2().state_dict(), cache / PUBLISHED)
    return tmp_path


def test_the_tutorials_work_as_written(desk):
    pytest.importorskip("onnxruntime")
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    for port in PORTS:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                pytest.skip(f"something listens on port {port}, which a page uses")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TAXON_")}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    environment["TORCH_HOME"] = str(desk / "torch")
    for page in TUTORIALS:
        words = ["bash", "-c", script(page)]
        done = subprocess.run(words, cwd=desk, env=environment, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, page.name + done.stdout + done.stderr
    assert (desk / "answers.txt").stat().st_size > 0
    published = {path.parent.relative_to(desk / "models").as_posix() for path in desk.glob("models/*/*/manifest.json")}
    assert published == {"pets/1", "pets/2", "pets-elsewhere/1", "pets-onnx/1"}


def test_every_tutorial_is_followed():
    assert set(TUTORIALS) == set((ROOT / "docs/tutorials").glob("*.md"))
