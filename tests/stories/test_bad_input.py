"""Two hundred situations that nobody wrote down: each ends in success or in one sentence, never in a traceback; and
what succeeds is what was asked for.
"""

import contextlib
import csv
import io
import json
import os
import tempfile
import unicodedata
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taxon.bundle import store
from taxon.training.commands import data, export, import_onnx, train
from taxon.training.dataset.data import SPLITS
from taxon.training.exporting import parity
from taxon.training.network import model
from taxon.training.runs.folder import Run
from tests.training.folders import write_folder, write_picture
from tests.training.graphs import SIDE, TYPES, classifier

pytestmark = pytest.mark.slow

FEW = settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.fixture
def codes() -> Iterator[set[int]]:
    """The exit codes of a kind's last step: some succeed and some are refused, or nothing would have been tried."""
    seen: set[int] = set()
    yield seen
    assert seen == {0, 2}


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A new current folder."""
    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
        yield Path(place).resolve()


def ends_well(command, *words: str) -> int:
    """Runs a command; returns its exit code. Whatever escapes from it would be a traceback."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = command.main([*words])
        except SystemExit as ended:  # argparse
            code = int(str(ended.code))
    assert code in (0, 1, 2)
    assert "Traceback" not in err.getvalue() + out.getvalue()
    if code == 2:
        said = err.getvalue()
        assert said.startswith(("taxon ", "usage: "))
        assert said.startswith("usage: ") or said.count("\n") == 1, said
    return code


LAYOUT_FOLDERS = ("train", "Training", "training_set", "val", "test", "test_set")
NAMES = st.sampled_from(
    ["a", "b", "train", "Training_Set", "test", "val", "valid", "é", "e\u0301", " a", "a|b", "caf\udce9", ".x", "10"]
)
FILES = st.sampled_from(
    ["0.jpg", "1.JPG", "2.png", "3.jfif", "4.heic", "notes.txt", ".hidden", "caf\udce9.png", "[red].png", "n\n.png"]
)
CONTENTS = st.sampled_from([*["picture"] * 4, "nothing", "text", "pointer", "link", "loop", "folder", "pipe"])
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


def put(path: Path, content: str, seed: int) -> None:
    with contextlib.suppress(FileExistsError, NotADirectoryError):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() or path.is_symlink():
            return
        match content:
            case "picture":
                write_picture(path.with_name("picture.png"), 100, seed).rename(path)
            case "link":
                path.symlink_to(path.parent / "nowhere")
            case "loop":
                path.symlink_to(path.parent)
            case "folder":
                path.mkdir()
            case "pipe":
                os.mkfifo(path)
            case _:
                path.write_bytes({"nothing": b"", "text": b"hello", "pointer": POINTER}[content])


@FEW
@given(
    layout=st.sampled_from(["", "", "train", "Training", "train,val", "training_set,test_set", "val,test", "x,y"]),
    tree=st.lists(st.tuples(st.lists(NAMES, max_size=3), FILES, CONTENTS), max_size=4),
)
def test_folder_trees(codes, layout, tree):
    """A sound folder with up to four things more in it."""
    with folder() as place:
        for part in layout.split(","):
            write_folder(place / "data" / part, 5, {"a": 60, "b": 190})
        for seed, (parts, name, content) in enumerate(tree):
            put(Path(place, "data", *parts, name), content, seed)
        ends_well(data, "inspect", "data", "--json", "found.json", "--html", "found.html")
        planned = ends_well(train, "--data", "data", "--model", "small_cnn", "--dry-run")
        words = ["--data", "data", "--model", "small_cnn", "--epochs", "1", "--no-report", "--out", "run"]
        trained = ends_well(train, *words)
        codes.add(trained)
        if trained == 0:
            assert planned == 0
            every_file_is_where_it_belongs(place)


def every_file_is_where_it_belongs(place: Path) -> None:
    """Each file of a class's folder trains or validates as that class, or is named as set aside."""
    run = Run.open(place / "run")
    entries = json.loads((place / "run" / "quarantine.json").read_text(encoding="utf-8"))
    set_aside = {str(place / entry["path"]) for entry in entries}
    used = {
        sample.path: run.labels[sample.label] for split in ("train", "val", "test") for sample in run.samples(split)
    }
    depth = 2 if any((place / "data" / name / "a").is_dir() for name in LAYOUT_FOLDERS) else 1
    for folder, _, names in os.walk(place / "data"):
        parts = Path(folder).relative_to(place / "data").parts
        if len(parts) < depth or any(part.startswith(".") for part in parts):
            continue
        for name in names:
            path = Path(folder, name)
            if path in used:
                assert used[path] == unicodedata.normalize("NFC", parts[depth - 1])
            elif not name.startswith("."):
                assert any(str(above) in set_aside for above in (path, *path.parents))


CELLS = {
    "path": ["dark\\002.png", "../x.png", "", "gone.png", "dark", " light/003.png ", "/etc/passwd", "dark/000.png"],
    "label": ["", "dark|light", "1", "1.5", "é", "e\u0301", "a;b", '"', "|"],
    "split": ["", "dev", "Testing", "VAL"],
    "group": ["", "g"],
    "pixel0": ["", "x", "256", "-1", "nan"],
    "a": ["", "x", "1,5", "inf", "1e99"],
}
CELLS["b"] = CELLS["a"]


def sound(column: str, row: int) -> str:
    label = ("dark", "light")[row % 2]
    return {
        "path": f"{label}/{row // 2:03}.png",
        "label": label,
        "split": ("train", "val")[row // 2 % 2],
        "group": str(row),
    }.get(column, str(row))


@FEW
@given(
    header=st.sampled_from(
        ["path,label", "label,path", "path,label,split", "path,label,group", "Path,Label", "a,b,label", "label,pixel0"]
    ),
    changes=st.lists(st.tuples(st.integers(0, 15), st.integers(0, 2), st.integers(0, 99)), max_size=3),
    delimiter=st.sampled_from([*"," * 6, ";", "\t", "|"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    encoding=st.sampled_from([*["utf-8"] * 4, "utf-8-sig", "utf-16", "latin-1"]),
    cut=st.sampled_from([0, 0, 0, 1, 3]),
)
def test_csv_dialects(codes, header, changes, delimiter, quoting, end, encoding, cut):
    """A sound list with up to three other fields in it."""
    with folder() as place:
        write_folder(place, 8)
        columns, text = header.split(","), io.StringIO()
        rows = [[sound(column.lower(), row) for column in columns] for row in range(16)]
        for row, column, choice in changes:
            cells = CELLS[columns[column % len(columns)].lower()]
            rows[row][column % len(columns)] = cells[choice % len(cells)]
        writer = csv.writer(text, delimiter=delimiter, quoting=quoting, lineterminator=end)
        writer.writerows([columns, *rows])
        encoded = text.getvalue().encode(encoding, "replace")
        Path("list.csv").write_bytes(encoded[: len(encoded) - cut])
        ends_well(data, "inspect", "list.csv")
        ends_well(data, "split", "list.csv", "--out", "new.csv")
        network = "mlp" if header.startswith("a") else "small_cnn"
        planned = ends_well(train, "--data", "list.csv", "--model", network, "--dry-run")
        words = ["--data", "list.csv", "--model", network, "--epochs", "1", "--no-report", "--out", "run"]
        trained = ends_well(train, *words)
        codes.add(trained)
        if trained == 0:
            assert planned == 0
            if not cut:
                every_row_is_what_it_says(place, columns, rows)


def every_row_is_what_it_says(place: Path, columns: list[str], rows: list[list[str]]) -> None:
    """Each row trains or validates with its own label, or is named as set aside."""
    run = Run.open(place / "run")
    samples = [sample for split in SPLITS for sample in run.samples(split)]
    set_aside = json.loads((place / "run" / "quarantine.json").read_text(encoding="utf-8"))
    assert len(samples) + len(set_aside) == len(rows)
    labels = [unicodedata.normalize("NFC", row[columns.index("label")].strip()) for row in rows]
    if "path" in columns:
        by_name = {row[columns.index("path")].strip(): label for row, label in zip(rows, labels, strict=True)}
        for sample in samples:
            said = by_name[str(sample.path.relative_to(place))]
            parts = [said] if run.facts["task"] == "single_label" else [part.strip() for part in said.split("|")]
            assert set(sample.names(run.labels)) == set(parts) - {""}
    elif "a" in columns:
        assert all(run.labels[sample.label] == labels[sample.row] for sample in samples)


EXTRAS = {
    "epoch": 3,
    "accuracy": np.float64(0.5),
    "args": Namespace(lr=0.1),
    "optimizer": {"state": {}, "param_groups": []},
    "history": [1.0, 2.0],
    "model_ema": {"module.x": torch.ones(1)},
}
DAMAGES = st.sampled_from([*[""] * 10, "cut", "flipped", "pointer", "page", "empty"])


@FEW
@given(
    prefixes=st.lists(st.sampled_from(["module.", "_orig_mod.", "model.", "net.", "x.y."]), max_size=2),
    keys=st.lists(st.sampled_from(["state", "state_dict", "model_state_dict", "net", "model", "odd", 7]), max_size=2),
    extras=st.sets(st.sampled_from(sorted(EXTRAS)), max_size=2),
    classes=st.sampled_from([2, 2, 5]),
    name=st.sampled_from(["small_cnn", "small_cnn", "cnn2"]),
    suffix=st.sampled_from([".pth", ".ckpt", ".safetensors"]),
    damage=DAMAGES,
    place_of_damage=st.integers(0, 10**6),
)
def test_checkpoint_wrappers(codes, prefixes, keys, extras, classes, name, suffix, damage, place_of_damage):
    with folder() as place:
        write_folder(place / "data", 6)
        network = model.build(name, classes).eval()
        content: object = {"".join(prefixes) + key: value for key, value in network.state_dict().items()}
        for key in keys:
            content = {key: content, **{extra: EXTRAS[extra] for extra in extras}}
        path = Path(f"w{suffix}")
        torch.save(content, path)
        spoil(path, damage, place_of_damage)
        words = ["--data", "data", "--model", "small_cnn", "--weights", str(path), "--mode", "full", "--epochs", "1"]
        ends_well(train, *words, "--no-report", "--out", "run")
        Path("labels.txt").write_text("dark\nlight\n")
        foreign = ["--checkpoint", str(path), "--model", "small_cnn", "--labels", "labels.txt", "--data", "data"]
        words = ["--image-size", "8", "--models", "models", "--name", "m", "--calibration", "none"]
        exported = ends_well(export, *foreign, *words)
        codes.add(exported)
        if exported == 0 and damage != "flipped":
            assert (name, classes) == ("small_cnn", 2)
            it_answers_as(network, store.read(place / "models", "m", 1))


def it_answers_as(network: torch.nn.Module, bundle: store.Bundle) -> None:
    files = [bundle.folder / golden.file for golden in bundle.manifest.golden]
    plain = model.preprocessing("small_cnn", image_size=8)
    logits = parity.reference_logits(network, files, plain.pixels, plain.mean, plain.std)
    stated = [golden.scores for golden in bundle.manifest.golden]
    np.testing.assert_allclose(parity.scores_of(logits, "single_label"), stated, atol=1e-4)


def spoil(path: Path, damage: str, place: int) -> None:
    encoded = bytearray(path.read_bytes())
    match damage:
        case "cut":
            path.write_bytes(bytes(encoded[: place % len(encoded)]))
        case "flipped":
            encoded[place % len(encoded)] ^= 0xFF
            path.write_bytes(bytes(encoded))
        case "pointer" | "page" | "empty":
            path.write_bytes({"pointer": POINTER, "page": b"<!DOCTYPE html>", "empty": b""}[damage])


@FEW
@given(
    opset=st.integers(7, 26),
    ir_version=st.sampled_from([3, 4, 8, 8, 8, 10, 13]),
    end=st.sampled_from([*["", "Softmax"] * 4, "Sigmoid", "ArgMax", "Percent"]),
    tail=st.sampled_from(["", "", "", "maps", "turned", "one"]),
    batch=st.sampled_from(["N", "N", "N", -1, 0, 4]),
    classes=st.sampled_from([2, 2, 2, 2, 3]),
    output=st.sampled_from(sorted(TYPES)),
    weights_are_inputs=st.booleans(),
    said_rightly=st.sampled_from([True, True, True, False]),
    damage=DAMAGES,
    place_of_damage=st.integers(0, 10**6),
)
def test_onnx_graphs(codes, said_rightly, damage, place_of_damage, **kind):
    """Whatever is published is what it is said to be."""
    right = {"": "logits", "Softmax": "scores"}.get(kind["end"])
    gives = right if right and said_rightly else {"logits": "scores"}.get(right, "logits")
    with folder() as place:
        write_folder(place / "data", 4)
        Path("labels.txt").write_text("dark\nlight\n")
        Path("pixels.json").write_text(json.dumps({"resize": SIDE, "crop": [SIDE, SIDE]}))
        spoil(classifier(place / "given.onnx", **kind), damage, place_of_damage)
        words = ["given.onnx", "--labels", "labels.txt", "--pixels", "pixels.json", "--data", "data", "--name", "m"]
        code = ends_well(import_onnx, *words, "--models", "models", "--gives", gives)
        codes.add(code)
        if code == 0 and damage != "flipped":
            assert gives == right
            assert kind["classes"] == 2
            assert kind["tail"] in ("", "maps")
            assert kind["batch"] != 4
