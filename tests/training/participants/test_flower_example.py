"""The example's records, in an environment that has Flower: docs say how to make one."""

import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from tests.training.participants.contributors import make_base, moved

pytest.importorskip("flwr")


def test_a_checkpoint_survives_flowers_records(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(Path(__file__).parents[3] / "examples/flower")])
    from taxon_flower.records import to_checkpoint, to_records

    base = make_base()
    sent = dataclasses.replace(moved(base, 1, count=77), labels=("dog", "cat"))
    found = to_checkpoint(to_records(sent), base)
    assert (found.labels, found.sample_count, found.pixels, found.mean) == (("dog", "cat"), 77, sent.pixels, sent.mean)
    assert all(torch.equal(found.state[key], tensor) for key, tensor in sent.state.items())
    records = to_records(sent)
    del records["facts"]
    with pytest.raises(ValueError, match="no checkpoint"):
        to_checkpoint(records, base)
