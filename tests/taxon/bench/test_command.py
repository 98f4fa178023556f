"""`taxon bench` from its words to its output."""

import json

import pytest

from taxon.bench.command import main
from taxon.v1 import classification_service_pb2 as pb
from tests.taxon.bench.test_asking import Classifying, served

QUICK = ("--seconds", "0.2", "--warm-up-s", "0")


@pytest.fixture
def address():
    with served(Classifying(features=pb.FeaturesInput(feature_count=2))) as server:
        yield server.target


def test_a_table(address, capsys):
    assert main([address, "--callers", "1,2", "--rate", "50", *QUICK]) == 0
    shown = capsys.readouterr().out
    assert "pets/3 int8, taxon.v1, rows of 2 random numbers" in shown
    assert [line.split("│")[0].strip() for line in shown.splitlines() if "│" in line] == [
        "1 caller",
        "2 callers",
        "50/s",
    ]


def test_json_and_the_highest_rate(address, capsys, monkeypatch):
    monkeypatch.setattr("taxon.bench.capacity.RESOLUTION", 0.5)  # two probes
    assert main([address, "--p99-ms", "900", "--json", *QUICK]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["runs"] == []
    assert told["highest"]["rate"] > 0
    assert told["highest"]["probes"][-1]["within"] >= 0.99


@pytest.mark.slow
def test_a_plot(address, tmp_path):
    pytest.importorskip("matplotlib")
    assert main([address, "--rate", "20,40", "--plot", str(tmp_path / "load.svg"), *QUICK]) == 0
    assert (tmp_path / "load.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["127.0.0.1:1"], "cannot connect to 127.0.0.1:1: Connection refused"),
        (["nowhere"], "'nowhere' is not HOST:PORT"),
        (["127.0.0.1:1", "--pictures", "missing"], "missing"),
        (["127.0.0.1:1", "--plot", "load.doc"], "--plot load.doc: the ending must be one of"),
    ],
)
def test_what_cannot_be_measured_is_told_first(words, reason, capsys):
    if "--plot" in words:
        pytest.importorskip("matplotlib")
    assert main(words) == 2
    told = capsys.readouterr().err
    assert told.startswith("taxon bench: ")
    assert reason in told
