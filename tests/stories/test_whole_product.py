"""The whole product as its user meets it: a folder of pictures, four commands, the same scores at the end."""

import json
import os
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import nn
from torchvision.transforms import functional

from taxon.client import Client
from taxon.training.runs.checkpoint import Checkpoint
from taxon.training.runs.folder import Run
from tests import commands
from tests.commands import serving

pytestmark = pytest.mark.slow
CLASSES = ("circle", "cross", "square")
taxon = partial(commands.taxon, env=os.environ | {"OMP_NUM_THREADS": "1"})  # so small a network is not worth more


def draw(kind: str, seed: int) -> Image.Image:
    """A shape of random place, size and colour, in a picture of random size."""
    rng = np.random.default_rng(seed)
    width, height = rng.integers(40, 90, 2).tolist()
    picture = Image.new("RGB", (width, height), tuple(rng.integers(0, 90, 3).tolist()))
    pen = ImageDraw.Draw(picture)
    r = int(rng.integers(8, 15))
    x, y = width // 2 + int(rng.integers(-3, 4)), height // 2 + int(rng.integers(-3, 4))
    color = tuple(rng.integers(150, 256, 3).tolist())
    if kind == "circle":
        pen.ellipse((x - r, y - r, x + r, y + r), fill=color)
    elif kind == "square":
        pen.rectangle((x - r, y - r, x + r, y + r), fill=color)
    else:
        pen.line((x - r, y - r, x + r, y + r), fill=color, width=3)
        pen.line((x - r, y + r, x + r, y - r), fill=color, width=3)
    return picture


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data`, a trained `run` and the exported `models`."""
    folder = tmp_path_factory.mktemp("product")
    for kind in CLASSES:
        (folder / "data" / kind).mkdir(parents=True)
        for number in range(30):
            draw(kind, CLASSES.index(kind) * 1000 + number).save(folder / "data" / kind / f"{number}.jpg", quality=92)
    (folder / "data" / "cross" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not much of a picture")
    # fmt: off
    trained = taxon("train", "--data", folder / "data", "--model", "resnet18", "--weights", "none", "--image-size", 48,
                    "--epochs", 1, "--threads", 1, "--out", folder / "run",
                    "--resampler", "pillow",  # torchvision's own, which the scores are compared with
                    "--cache-folder", folder / "cache")
    # fmt: on
    assert "broken.jpg" in trained.stdout + trained.stderr
    exported = taxon(
        "export", folder / "run", "--models", folder / "models", "--name", "shapes", "--calibration", "none"
    )
    assert "100.00%" in exported.stdout
    return folder


@cache
def trained(folder: Path) -> tuple[Checkpoint, nn.Module]:
    checkpoint = Run.open(folder / "run").checkpoint()
    return checkpoint, checkpoint.build_model()


def torch_scores(folder: Path, path: Path) -> np.ndarray:
    """The scores of the trained checkpoint, with torchvision's transforms instead of ours."""
    checkpoint, network = trained(folder)
    pixels = checkpoint.pixels
    interpolation = functional.InterpolationMode[pixels.interpolation.upper()]
    resize = pixels.resize if isinstance(pixels.resize, int) else list(pixels.resize)
    picture = functional.resize(Image.open(path).convert("RGB"), resize, interpolation)
    cropped = functional.to_tensor(functional.center_crop(picture, list(pixels.crop)))
    tensor = functional.normalize(cropped, checkpoint.mean, checkpoint.std)
    with torch.inference_mode():
        return network(tensor[None]).softmax(-1)[0].numpy()


@pytest.fixture(scope="module")
def server(product: Path):
    """The address of a running `taxon serve`."""
    with serving(product / "models", "--device", "cpu") as (_, address):
        yield address


def test_the_service_answers_what_torch_answered(product, server):
    """Every picture, held out or not, through `taxon serve`: the same best label, scores within 1e-4."""
    paths = sorted((product / "data").rglob("[0-9]*.jpg"))
    with Client(server) as client:
        labels = list(client.get_model().labels)
        answers = [client.classify(path, max_results=len(CLASSES)) for path in paths]
    assert labels == list(CLASSES)
    for path, answer in zip(paths, answers, strict=True):
        expected = torch_scores(product, path)
        served = np.zeros(len(CLASSES), np.float32)
        for classification in answer.classifications:
            served[classification.class_index] = classification.score
        assert labels[expected.argmax()] == answer.classifications[0].label
        np.testing.assert_allclose(served, expected, atol=1e-4)


def test_classify_prints_a_line_for_each_picture(product, server):
    done = taxon("classify", product / "data", "--server", server, "--json", code=1)
    lines = {Path(line["path"]).name: line for line in map(json.loads, done.stdout.splitlines())}
    assert lines["broken.jpg"]["error"]["reason"] == "IMAGE_UNDECODABLE"
    assert all("response" in line for name, line in lines.items() if name != "broken.jpg")
    done = taxon("classify", product / "data" / "circle", "--server", server, "--labelled")
    assert "accuracy" in done.stdout
