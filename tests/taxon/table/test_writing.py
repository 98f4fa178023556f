"""Rows as Parquet, CSV and JSON lines."""

import csv
import json

import pytest

from taxon.table import writing
from taxon.table.rows import answered, failed

ROWS = [
    answered('a "b", c.jpg', ["röd", "green"], [0.75, 0.125], unknown=False, familiarity=0.5, variant="fp32"),
    answered("d.jpg", ["green"], [0.25], unknown=True, familiarity=None, variant="fp32"),
    failed("e.jpg", "IMAGE_UNDECODABLE", "not a\npicture"),
]


def test_json_lines(tmp_path):
    writing.write(tmp_path / "t.jsonl", ROWS, "colors", "7")
    first, second, third = map(json.loads, (tmp_path / "t.jsonl").read_text(encoding="utf-8").splitlines())
    assert first == {
        "path": 'a "b", c.jpg',
        "label": "röd",
        "score": 0.75,
        "unknown": False,
        "familiarity": 0.5,
        "labels": ["röd", "green"],
        "scores": [0.75, 0.125],
        "model": "colors",
        "version": 7,
        "variant": "fp32",
        "error": "",
        "message": "",
    }
    assert (second["label"], second["score"], second["unknown"]) == ("", 0.25, True)
    assert (third["label"], third["score"], third["labels"], third["error"]) == ("", None, [], "IMAGE_UNDECODABLE")


def test_csv(tmp_path):
    writing.write(tmp_path / "t.csv", ROWS, "colors", "7")
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as file:
        first, second, third = csv.DictReader(file)
    assert (first["path"], first["score"], first["unknown"]) == ('a "b", c.jpg', "0.75", "false")
    assert json.loads(first["labels"]) == ["röd", "green"]
    assert second["familiarity"] == ""
    assert (third["score"], third["message"]) == ("", "not a\npicture")


def test_parquet(tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(writing, "ROW_GROUP", 2)
    writing.write(tmp_path / "t.parquet", iter(ROWS), "colors", "7")
    table = parquet.read_table(tmp_path / "t.parquet")
    assert tuple(table.schema.names) == writing.COLUMNS
    first, _, third = table.to_pylist()
    assert (first["label"], first["scores"], first["version"]) == ("röd", [0.75, 0.125], 7)
    assert (third["score"], third["labels"]) == (None, [])
    assert str(table.schema.field("score").type) == "float"


def test_a_table_is_there_wholly_or_not_at_all(tmp_path):
    def rows():
        yield ROWS[0]
        raise ValueError("gone")

    for name in ("t.csv", "t.jsonl"):
        with pytest.raises(ValueError, match="gone"):
            writing.write(tmp_path / name, rows(), "colors", "7")
    assert list(tmp_path.iterdir()) == []


def test_where_no_table_can_be_is_said_before_the_work(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"must end in \.parquet, \.csv, \.jsonl"):
        writing.check(tmp_path / "t.xlsx")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        writing.check(tmp_path / "no" / "t.csv")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"pip install -e '\.\[parquet\]'"):
        writing.check(tmp_path / "t.parquet")
