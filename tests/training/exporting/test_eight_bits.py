import dataclasses
from collections import Counter

import numpy as np
import pytest

from taxon.training.exporting import eight_bits, graph, parity, variants
from taxon.training.exporting.evidence import Budget
from taxon.training.exporting.graph import Served
from taxon.training.exporting.variants import Dropped, Kept
from tests.training.toy_classifier import MEAN, STD, make_candidate, with_training

ESTIMATE = Budget(judged_by="estimate")


@pytest.fixture
def candidate(tmp_path):
    return with_training(make_candidate(tmp_path), tmp_path)


@pytest.fixture
def source(candidate, tmp_path):
    path = tmp_path / "model.onnx"
    graph.write_graph(Served(candidate.network, MEAN, STD, "single_label"), candidate.pixels.shape, path)
    return path


@pytest.fixture
def made(source, candidate):
    """What becomes of the candidate, judged by what it loses."""
    reference = variants.rows_on(source, variants.decoded(candidate.files, candidate))
    return lambda budget=ESTIMATE: eight_bits.eight_bits(source, candidate, reference, budget)


def slower(factor):
    return lambda paths, *_: [{1: 1.0, 8: 8.0}, {1: factor, 8: 8.0 * factor}][: len(paths)]


def losing(*losses):
    """What each graph in turn loses on training pictures."""
    left = iter(losses)
    return lambda *_: next(left)


@pytest.mark.parametrize("factor", [2.0, 0.98])
def test_an_int8_graph_that_is_not_clearly_faster_is_never_kept(source, made, monkeypatch, factor):
    monkeypatch.setattr(variants, "latencies", slower(factor))
    result = made()
    assert isinstance(result, Dropped)
    assert "no plan is 1.05 times as fast" in result.reason
    assert sorted(path.name for path in source.parent.glob("*.onnx")) == ["model.onnx"]


def test_an_int8_graph_that_is_faster_and_good_is_kept(made, monkeypatch):
    monkeypatch.setattr(variants, "latencies", slower(0.5))
    result = made()
    assert isinstance(result, Kept)
    assert result.variant.latency_ms == {1: 0.5, 8: 4.0}
    assert (result.variant.evidence.lost, result.variant.evidence.agreement) == (0, 1.0)
    assert "2.00 times as fast" in result.note


def test_few_validation_pictures_are_no_proof(source, made, monkeypatch):
    monkeypatch.setattr(variants, "latencies", slower(0.5))
    result = made(Budget())
    assert isinstance(result, Dropped)
    assert "with 0 of 2 nodes in float it loses 0.00% of 24 pictures" in result.reason
    assert not source.with_name("model.int8.onnx").exists()


def test_sensitive_nodes_go_back_to_float_until_the_loss_on_training_pictures_is_small(made, monkeypatch):
    monkeypatch.setattr(variants, "latencies", slower(0.5))
    monkeypatch.setattr(eight_bits, "_loss", losing(0.0026, 0.0025))
    result = made()
    assert isinstance(result, Kept)
    assert "1 nodes in 8 bits, 1 of the most sensitive left in float" in result.note


def test_the_validation_pictures_are_asked_once(made, monkeypatch):
    """Who asks them about graph after graph finds one that was lucky."""
    monkeypatch.setattr(variants, "latencies", slower(0.5))
    monkeypatch.setattr(eight_bits, "_loss", losing(0.5, 0.0))
    judged, judge = [], variants.judge
    monkeypatch.setattr(variants, "judge", lambda *given: judged.append(given) or judge(*given))
    assert isinstance(made(), Kept)
    assert len(judged) == 1


def test_a_gain_that_is_gone_when_timed_again_is_not_kept(source, made, monkeypatch):
    factors = iter([0.5, 0.5, 0.98])  # two plans, then the graph that would be published
    monkeypatch.setattr(variants, "latencies", lambda *given: slower(next(factors))(*given))
    monkeypatch.setattr(variants, "judge", None)  # nobody asks for its answers
    result = made()
    assert isinstance(result, Dropped)
    assert "0 nodes in float, it is not 1.05 times as fast" in result.reason
    assert not source.with_name("model.int8.onnx").exists()


def test_no_number_of_nodes_in_float_is_tried_twice(made, monkeypatch):
    monkeypatch.setattr(variants, "latencies", slower(0.5))
    monkeypatch.setattr(eight_bits, "_loss", losing(0.5, 0.4))
    result = made()
    assert isinstance(result, Dropped)
    assert result.reason.startswith(
        "on 20 training pictures it loses 50.00% with 0 nodes in float, 40.00% with 1 nodes in float; 0.25% is allowed"
    )


def test_no_picture_is_decoded_for_every_graph_that_is_tried(made, candidate, monkeypatch):
    monkeypatch.setattr(variants, "latencies", slower(0.5))
    read, to_array = Counter(), parity.to_array
    monkeypatch.setattr(parity, "to_array", lambda file, spec: read.update([file]) or to_array(file, spec))
    assert "with 0 nodes in float, 0.00% with 1 nodes in float" in made(Budget(-8.0)).reason
    assert set(candidate.training_files) < set(read)
    assert {read[file] for file in candidate.training_files} == {2}  # for ranges, and for all trials
    assert set(read.values()) == {1, 2}  # validation pictures are timed


def test_without_training_pictures_there_is_no_int8(source, candidate):
    alone = dataclasses.replace(candidate, training_files=(), training_answers=())
    result = eight_bits.eight_bits(source, alone, np.zeros((24, 3), np.float32))
    assert isinstance(result, Dropped)


@pytest.mark.parametrize(
    ("count", "for_ranges", "on_trial"), [(1, 1, 1), (20, 20, 20), (100, 64, 100), (200, 64, 136), (60_000, 64, 512)]
)
def test_ranges_and_trials_are_of_different_training_pictures_where_there_are_enough(count, for_ranges, on_trial):
    ranges, trial = eight_bits._divided(count)
    assert (len(ranges), len(trial)) == (for_ranges, on_trial)
    assert bool(set(ranges) & set(trial)) == (count <= 100)
    assert max(ranges + trial) == count - 1
    assert max(np.diff(ranges), default=0) <= 2 * max(1, count // for_ranges)
