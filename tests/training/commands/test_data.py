import csv
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from taxon.bundle.picture_limits import Limits
from taxon.training.commands.data import main
from taxon.training.dataset import data, scan_pictures
from taxon.training.dataset.fingerprints import alike, fingerprints
from taxon.training.dataset.inspect_page import MEANINGS
from taxon.training.dataset.scan_pictures import grid, look_at_all
from taxon.training.dataset.sources import open_source
from taxon.training.finetune import main as train
from tests.training.folders import write_folder, write_picture


def drawing(seed: int, side: int = 96) -> Image.Image:
    """A picture with large shapes, as photographs have: unlike noise, it survives resizing."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    return small.resize((side, side), Image.Resampling.BICUBIC)


@pytest.fixture
def faulty(tmp_path):
    """A folder with one of every fault; returns its path."""
    root = tmp_path / "pictures"
    for split, offset in (("train", 0), ("val", 500)):
        for index, label in enumerate(("cat", "dog")):
            (root / split / label).mkdir(parents=True)
            for number in range(12):
                drawing(1000 * index + offset + number).save(root / split / label / f"{number:02}.png")
    shutil.copy(root / "train" / "cat" / "00.png", root / "val" / "cat" / "same-in-val.png")
    shutil.copy(root / "train" / "cat" / "01.png", root / "train" / "dog" / "same-as-dog.png")
    shutil.copy(root / "train" / "cat" / "02.png", root / "train" / "cat" / "same-twice.png")
    drawing(3).resize((80, 80)).save(root / "val" / "cat" / "near-in-val.jpg", quality=60)
    drawing(4).save(root / "train" / "dog" / "near-as-dog.jpg", quality=50)
    drawing(5).point(lambda value: min(255, value + 6)).save(root / "train" / "cat" / "brighter.png")
    (root / "train" / "cat" / "empty.jpg").touch()
    (root / "train" / "cat" / "text.png").write_text("no picture")
    drawing(90).save(root / "train" / "cat" / "cut.jpg")
    whole = (root / "train" / "cat" / "cut.jpg").read_bytes()
    (root / "train" / "cat" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    turned = Image.Exif()
    turned[0x0112] = 6
    drawing(91).save(root / "train" / "dog" / "turned.jpg", exif=turned)
    drawing(92).convert("CMYK").save(root / "train" / "dog" / "ink.jpg")
    drawing(93, side=9).save(root / "train" / "dog" / "tiny.png")
    Image.new("RGB", (96, 96), "white").save(root / "train" / "dog" / "white.png")
    Image.new("RGB", (96, 96), "black").save(root / "val" / "dog" / "black.png")
    return root


def pairs(*pictures: Image.Image) -> list[tuple[int, int, float]]:
    return list(alike(fingerprints(np.stack([grid(picture) for picture in pictures]))))


def inspect(*words: object) -> int:
    return main(["inspect", *[str(word) for word in words]])


def findings(root, tmp_path) -> dict[str, list[list[str]]]:
    inspect(root, "--json", tmp_path / "found.json")
    found: dict[str, list[list[str]]] = {}
    for finding in json.loads((tmp_path / "found.json").read_text())["findings"]:
        names = sorted(path.rpartition("/")[2] for path in finding["paths"])
        found.setdefault(finding["kind"], []).append(names)
    return {kind: sorted(groups) for kind, groups in found.items()}


def test_every_planted_fault_is_found_and_nothing_else(faulty, tmp_path):
    assert findings(faulty, tmp_path) == {
        "unreadable": [["cut.jpg"], ["empty.jpg"], ["text.png"]],
        "exact_duplicate_across_splits": [["00.png", "same-in-val.png"]],
        "exact_duplicate_across_labels": [["01.png", "same-as-dog.png"]],
        "exact_duplicate": [["02.png", "same-twice.png"]],
        "near_duplicate_across_splits": [["03.png", "near-in-val.jpg"]],
        "near_duplicate_across_labels": [["04.png", "near-as-dog.jpg"]],
        "near_duplicate": [["05.png", "brighter.png"]],
        "orientation": [["turned.jpg"]],
        "mode": [["ink.jpg"]],
        "tiny": [["tiny.png"]],
        "flat": [["black.png", "white.png"]],
    }


def test_errors_make_the_exit_code_one_and_a_sound_folder_zero(faulty, tmp_path, capsys):
    assert inspect(faulty) == 1
    assert "exact duplicate across splits: 1" in capsys.readouterr().out
    sound = tmp_path / "sound"
    for index, label in enumerate(("cat", "dog")):
        (sound / label).mkdir(parents=True)
        for number in range(12):
            drawing(1000 * index + number).save(sound / label / f"{number}.png")
    assert inspect(sound) == 0
    assert "no errors" in capsys.readouterr().out


def test_rare_classes_are_named(tmp_path):
    root = tmp_path / "pictures"
    for label, count in (("many", 40), ("few", 3)):
        (root / label).mkdir(parents=True)
        for number in range(count):
            drawing(count * 100 + number).save(root / label / f"{number}.png")
    assert {"few_samples", "imbalance"} <= set(findings(root, tmp_path))
    inspect(root, "--html", tmp_path / "found.html")
    assert "Classes with few pictures" in (tmp_path / "found.html").read_text()


def test_the_page_shows_the_pictures(faulty, tmp_path):
    (faulty / "train" / "cat" / "00.png").rename(faulty / "train" / "cat" / "<i>.png")
    inspect(faulty, "--html", tmp_path / "found.html")
    page = (tmp_path / "found.html").read_text()
    assert page.count('src="data:image/jpeg;base64,') > 10
    assert page.count("<h2>") == 1 + len(MEANINGS) - len({"few_samples", "imbalance"})
    assert "labelled cat and dog" in page
    assert "http" not in page
    assert "&lt;i&gt;.png" in page


def test_a_source_that_cannot_be_used_is_exit_code_two(tmp_path, capsys):
    assert inspect(tmp_path / "nowhere") == 2
    assert "there is no data" in capsys.readouterr().err


def test_a_written_split_keeps_what_looks_alike_together_and_trains(faulty, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(faulty / "val")
    assert main(["split", str(faulty / "train"), "--out", str(tmp_path / "list.csv"), "--val-fraction", "0.3"]) == 0
    with (tmp_path / "list.csv").open(newline="") as file:
        rows = {row["path"].removeprefix("pictures/train/"): row for row in csv.DictReader(file)}
    group_splits: dict[str, set[str]] = {}
    for row in rows.values():
        group_splits.setdefault(row["group"], set()).add(row["split"])
    assert all(len(splits) == 1 for splits in group_splits.values())
    assert rows["cat/05.png"]["group"] == rows["cat/brighter.png"]["group"]
    assert rows["dog/same-as-dog.png"]["group"] == rows["cat/01.png"]["group"]
    assert {row["split"] for row in rows.values()} == {"train", "val"}
    words = ["--data", "list.csv", "--model", "small_cnn", "--image-size", "16", "--epochs", "1", "--no-report"]
    assert train([*words, "--out", "run"]) == 0


def test_a_split_outside_the_pictures_is_refused(tmp_path, capsys):
    write_folder(tmp_path / "pictures", 6)
    (tmp_path / "elsewhere").mkdir()
    assert main(["split", str(tmp_path / "pictures"), "--out", str(tmp_path / "elsewhere" / "list.csv")]) == 2
    assert "in or above" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    [
        lambda picture: picture.resize((48, 48), Image.Resampling.BILINEAR),
        lambda picture: picture.point(lambda value: value * 0.97),
        lambda picture: picture.convert("L"),
        lambda picture: picture.crop((1, 1, 95, 95)),
    ],
    ids=["smaller", "darker", "grey", "cropped by a pixel"],
)
def test_small_changes_look_alike(change):
    for seed in range(5):
        assert len(pairs(drawing(seed), change(drawing(seed)))) == 1


def test_other_pictures_do_not_look_alike():
    assert pairs(*[drawing(seed) for seed in range(300)]) == []


def test_noise_does_not_look_alike(tmp_path):
    paths = [write_picture(tmp_path / f"{n}.png", 128, n, side=64) for n in range(50)]
    pictures = [Image.open(path) for path in paths]
    assert pairs(*pictures) == []
    for picture in pictures:
        picture.close()


def test_the_doctor_reads_every_source(tmp_path):
    write_folder(tmp_path, 3)
    found, _ = open_source(str(tmp_path), digits_folder=tmp_path, prepared_folder=tmp_path, download=False, task="auto")
    assert isinstance(found, data.Labelled)


def test_processes_see_what_threads_see(faulty, monkeypatch):
    samples = data.scan(faulty).samples
    by_threads = look_at_all(samples)
    monkeypatch.setattr(scan_pictures, "PROCESSES_FROM", 1)
    by_processes = look_at_all(samples)
    assert by_processes[0] == by_threads[0]
    np.testing.assert_array_equal(by_processes[1], by_threads[1])
    assert by_processes[2] == by_threads[2]
    reasons = {fault.path.name: fault.reason for fault in by_threads[2]}
    assert reasons["empty.jpg"] == "is empty"
    assert reasons["text.png"] == "is no JPEG, PNG, WebP or GIF picture"
    assert "truncated" in reasons["cut.jpg"]


def test_a_process_that_dies_is_said_in_one_sentence(faulty, monkeypatch, capsys):
    monkeypatch.setattr(scan_pictures, "PROCESSES_FROM", 1)
    monkeypatch.setattr(scan_pictures, "look", Deadly())
    assert inspect(faulty) == 2
    assert "a process that read pictures died" in capsys.readouterr().err


class Deadly:
    def __call__(self, sample):
        os._exit(1)


def test_what_is_transparent_or_of_16_bits_is_seen_as_training_sees_it():
    shape = np.asarray(drawing(7).convert("L"))
    ink = Image.fromarray(np.dstack([np.zeros_like(shape)] * 3 + [shape]))
    deep = Image.fromarray(shape.astype(np.uint16) * 257)
    assert deep.mode == "I;16"
    assert [found[:2] for found in pairs(drawing(7), ink, deep)] == [(0, 2)]
    assert not fingerprints(np.stack([grid(ink), grid(deep)])).flat.any()


def test_what_training_and_service_refuse_is_found(tmp_path, monkeypatch):
    write_folder(tmp_path, 2)
    drawing(1).save(tmp_path / "dark" / "scans.jpg", progressive=True)
    encoded = (tmp_path / "dark" / "scans.jpg").read_bytes()
    scan = encoded[encoded.rindex(b"\xff\xda") : -2]
    (tmp_path / "dark" / "scans.jpg").write_bytes(encoded[:-2] + 100 * scan + encoded[-2:])
    drawing(2, side=200).save(tmp_path / "light" / "large.png")
    monkeypatch.setattr(scan_pictures, "LIMITS", Limits(max_pixels=150 * 150))
    _, _, faults = look_at_all(data.scan(tmp_path).samples)
    assert [(fault.path.name, fault.reason) for fault in faults] == [
        ("scans.jpg", "has more than 100 scans"),
        ("large.png", "has 200x200 pixels, at most 22500 are allowed"),
    ]
