"""`taxon explain`, by a server and on a bundle."""

import asyncio
import base64
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from taxon import cli
from taxon.explanation import masking
from tests.fakes import COLORS, picture, toy_bundle
from tests.service.conftest import running


@pytest.fixture
def red(tmp_path):
    """Black, but for its lower left quarter."""
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[4:, :4] = COLORS["red"]
    encoded = BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG")
    path = tmp_path / "red.png"
    path.write_bytes(encoded.getvalue())
    return path


def corners(path):
    """How bright the lower left quarter of an overlay is, and the others."""
    with Image.open(path) as overlay:
        assert (overlay.format, overlay.size) == ("PNG", (224, 224))
        light = np.asarray(overlay).astype(float).mean(axis=2)
    return light[112:, :112].mean(), max(light[:100].mean(), light[112:, 130:].mean())


@pytest.mark.parametrize(("maps", "said"), [(True, "activation (1 run)"), (False, "masking (121 runs)")])
def test_a_bundle_explains_without_a_server(tmp_path, red, capsys, monkeypatch, maps, said):
    monkeypatch.setattr(masking, "MASK_COUNT", 120)
    bundle = toy_bundle(tmp_path / "models", maps=maps)
    out = tmp_path / "overlays"
    assert cli.main(["explain", str(red), "--bundle", str(bundle.folder), "--out", str(out)]) == 0
    line = capsys.readouterr().out
    assert line.startswith(f"{red}: red 0.8")
    assert f"by colors 1, explained by {said}" in line
    explained, others = corners(out / "red.explained.png")
    assert explained > 3 * others


ALIKE = ("1" * 64, "2" * 64, "3" * 64)


def test_a_page_shows_training_pictures_that_are_alike(tmp_path, red, capsys):
    labels = ("<i>red</i>", "green", "blue")
    bundle = toy_bundle(tmp_path / "models", maps=True, labels=labels, thumbnails=ALIKE)
    words = ["explain", str(red), "--bundle", str(bundle.folder), "--out", str(tmp_path)]
    assert cli.main([*words, "--neighbors", "2"]) == 0
    page = tmp_path / "red.explained.html"
    assert capsys.readouterr().out.endswith(f", {page}\n")
    shown = page.read_text()
    assert "<i>red" not in shown
    strip = shown.partition("<ol>")[2].splitlines()
    assert "&lt;i&gt;red&lt;/i&gt; <small>1.000" in strip[1]
    assert base64.b64encode(bundle.read("thumbnails/0.jpg")).decode() in strip[1]
    assert shown.count("<li>") == 2


async def test_a_server_sends_training_pictures_only_if_it_holds_some(tmp_path, red, capsys):
    toy_bundle(tmp_path / "models", maps=True, thumbnails=ALIKE)
    toy_bundle(tmp_path / "models", "bare", maps=True)
    async with running(tmp_path / "models") as server:
        words = ["explain", str(red), "--server", server.address, "--out", str(tmp_path), "--neighbors", "1"]
        assert await asyncio.to_thread(cli.main, [*words, "--model", "bare"]) == 1
        assert not (tmp_path / "red.explained.html").exists()
        assert await asyncio.to_thread(cli.main, [*words, "--model", "colors"]) == 0
    assert "exported without thumbnails" in capsys.readouterr().err
    assert (tmp_path / "red.explained.html").read_text().count("<li>") == 1


async def test_a_server_explains_what_it_is_asked_for(tmp_path, red, capsys):
    toy_bundle(tmp_path / "models", maps=True)
    async with running(tmp_path / "models") as server:
        words = ["explain", str(red), "--server", server.address, "--out", str(tmp_path), "--label", "red"]
        assert await asyncio.to_thread(cli.main, words) == 0
        missing = [*words[:-1], "violet"]
        assert await asyncio.to_thread(cli.main, missing) == 1
    told = capsys.readouterr()
    assert "red 0.8" in told.out
    assert "has no label 'violet'" in told.err
    explained, others = corners(tmp_path / "red.explained.png")
    assert explained > 3 * others


@pytest.mark.parametrize(
    ("changes", "code", "reason"),
    [
        (["--label", "violet"], 1, "no label 'violet'"),
        (["--method", "activation"], 1, "exported without maps"),
        (["--neighbors", "1"], 1, "exported without thumbnails"),
        (["--variant", "int8"], 2, "has no variant int8"),
        (["--bundle", "."], 2, "is no version of a model"),
    ],
)
def test_what_a_bundle_cannot_explain(tmp_path, red, capsys, changes, code, reason):
    bundle = toy_bundle(tmp_path / "models")
    words = ["explain", str(red), "--bundle", str(bundle.folder), "--out", str(tmp_path), *changes]
    assert cli.main(words) == code
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "red.explained.png").exists()


def test_a_bundle_of_numbers_and_pictures_that_are_none(tmp_path, red, capsys):
    bundle = toy_bundle(tmp_path / "models", features=True)
    assert cli.main(["explain", str(red), "--bundle", str(bundle.folder)]) == 2
    assert "takes features" in capsys.readouterr().err
    bundle, odd = toy_bundle(tmp_path / "others", maps=True), tmp_path / "odd.jpg"
    odd.write_bytes(b"no picture")
    assert cli.main(["explain", str(odd), str(red), "--bundle", str(bundle.folder), "--out", str(tmp_path)]) == 1
    assert (tmp_path / "red.explained.png").exists()  # one bad picture does not touch the others


def test_two_pictures_of_one_name_are_not_written_over_each_other(tmp_path, red, capsys):
    (tmp_path / "more").mkdir()
    other = tmp_path / "more" / "red.jpg"
    other.write_bytes(picture())
    assert cli.main(["explain", str(red), str(other), "--out", str(tmp_path)]) == 2
    assert "give them one by one" in capsys.readouterr().err
    assert cli.main(["explain", str(tmp_path / "none.png")]) == 2
    assert "is no file" in capsys.readouterr().err
