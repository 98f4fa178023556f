"""A picture of none of the classes, from training to the answer: digits are told from what no digit is."""

from collections.abc import Callable
from contextlib import redirect_stdout
from io import BytesIO, StringIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from taxon.client import Client
from taxon.training.commands import export, train
from taxon.v1 import classification_service_pb2 as pb
from tests.commands import serving, taxon

pytestmark = pytest.mark.slow


def printed(command: Callable[[list[str]], int], *words: object) -> str:
    """What a command prints in this process, which has loaded torch already."""
    with redirect_stdout(StringIO()) as out:
        assert command([*map(str, words)]) == 0
    return out.getvalue()


def foreign(number: int) -> bytes:
    """A drawn shape, of a digit's size and colours."""
    generator = np.random.default_rng(number)
    picture = Image.new("L", (32, 32))
    left, top = generator.integers(1, 12, 2).tolist()
    right, bottom = generator.integers(18, 31, 2).tolist()
    pen = ImageDraw.Draw(picture)
    if number % 2:
        pen.rectangle((left, top, right, bottom), fill=255)
    else:
        pen.polygon((left, top, right, top, right, bottom), fill=255)
    encoded = BytesIO()
    picture.resize((8, 8), Image.Resampling.BILINEAR).save(encoded, "PNG")
    return encoded.getvalue()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("foreign")
    words = ["--recipe", "digits", "--digits-folder", folder / "digits", "--epochs", 8, "--no-report", "--threads", 1]
    printed(train.main, *words, "--out", folder / "run", "--cache-folder", folder / "cache")
    words = ["--models", folder / "models", "--name", "digits", "--unknown-coverage", 0.95]
    said = printed(export.main, folder / "run", *words)
    with serving(folder / "models", "--device", "cpu", "--workers", 1) as (_, server):
        yield folder, server, said


def test_what_is_no_digit_is_unknown(served):
    folder, server, said = served
    assert "is told by familiarity" in said
    digits = sorted((folder / "digits" / "val").rglob("*.png"))[::4]
    with Client(server) as client:
        model = client.get_model()
        known = [client.classify(path) for path in digits]
        strange = [client.classify(foreign(number)) for number in range(40)]
    assert model.unknown_measure == pb.UNKNOWN_MEASURE_FAMILIARITY
    for answer in (*known, *strange):
        assert answer.unknown == (answer.familiarity < model.unknown_threshold)
    assert np.mean([answer.unknown for answer in known]) < 0.15
    assert np.mean([answer.unknown for answer in strange]) > 0.9
    sure = [answer for answer in strange if answer.classifications[0].score > 0.9]
    assert sure  # of these the scores say nothing


def test_the_command_says_unknown(served, tmp_path: Path):
    _, server, _ = served
    (tmp_path / "shape.png").write_bytes(foreign(0))
    assert "unknown" in taxon("classify", tmp_path / "shape.png", "--server", server).stdout
