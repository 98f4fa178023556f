"""No GPU: sessions that take as long as their options say stand for it."""

import numpy as np
import pytest

from taxon.bundle import store
from taxon.bundle.manifest import Variant
from taxon.training.exporting import bundling, cuda_options, graph, parity, variants
from taxon.training.exporting.evidence import Budget
from taxon.training.exporting.parity import ParityError
from taxon.training.exporting.providers import CPU, CUDA
from tests.training.toy_classifier import make_candidate

PICTURES = np.zeros((2, 4, 4, 3), np.uint8)
FP32 = Variant(file="model.onnx", precision="fp32")
HEURISTIC_NHWC = {"cudnn_conv_algo_search": "HEURISTIC", "prefer_nhwc": "1"}


class Device:
    """Milliseconds and scores by choice; everything else takes 10 and gives 0.5. None does not run."""

    def __init__(self, ms=(), scores=()):
        self.ms, self.scores, self.opened = dict(ms), dict(scores), []

    def open_session(self, path, provider, options):
        self.opened.append(options)
        key = (options.get("cudnn_conv_algo_search"), options.get("prefer_nhwc"))
        if self.ms.get(key, 10.0) is None:
            raise ParityError("no such kernel")
        return key

    def run(self, key, pictures):
        return np.full((len(pictures), 2), self.scores.get(key, 0.5), np.float32)

    def timed(self, keys, pictures):
        return [{1: 1.0, 8: self.ms.get(key, 10.0)} for key in keys]


@pytest.fixture
def use(monkeypatch):
    def put(device):
        monkeypatch.setattr(parity, "providers", lambda: [CUDA, CPU])
        monkeypatch.setattr(parity, "open_session", device.open_session)
        monkeypatch.setattr(parity, "run", device.run)
        monkeypatch.setattr(variants, "timed", device.timed)
        return device

    return put


def test_the_fastest_choice_is_written_down_with_its_latency(use, tmp_path):
    device = use(Device({("HEURISTIC", "1"): 4.0, ("DEFAULT", "0"): 5.0}))
    variant = cuda_options.tuned(FP32, tmp_path, PICTURES)
    assert variant.provider_options == {CUDA: HEURISTIC_NHWC}
    assert variant.latency_ms == {1: 1.0, 8: 4.0}
    assert len(device.opened) == 7


def test_what_gains_next_to_nothing_stays_at_the_defaults(use, tmp_path):
    use(Device({("HEURISTIC", "1"): 9.8}))
    variant = cuda_options.tuned(FP32, tmp_path, PICTURES)
    assert (variant.provider_options, variant.latency_ms) == ({}, {1: 1.0, 8: 10.0})


def test_options_that_the_variant_needs_are_kept_and_measured_with(use, tmp_path):
    device = use(Device({("HEURISTIC", "1"): 4.0}))
    needed = FP32.model_copy(update={"provider_options": {CUDA: {"use_tf32": "0"}}})
    assert cuda_options.tuned(needed, tmp_path, PICTURES).provider_options == {
        CUDA: {"use_tf32": "0", **HEURISTIC_NHWC}
    }
    assert all(options["use_tf32"] == "0" for options in device.opened)


def test_a_fast_choice_that_answers_differently_or_does_not_run_is_passed_over(use, tmp_path):
    times = {("HEURISTIC", "1"): 1.0, ("EXHAUSTIVE", "1"): None, ("DEFAULT", "0"): 6.0}
    use(Device(times, {("HEURISTIC", "1"): 0.6}))
    assert cuda_options.tuned(FP32, tmp_path, PICTURES).provider_options[CUDA]["cudnn_conv_algo_search"] == "DEFAULT"


def test_int8_and_machines_without_cuda_are_left_alone(use, tmp_path, monkeypatch):
    device = use(Device())
    int8 = Variant(file="model.int8.onnx", precision="int8")
    assert cuda_options.tuned(int8, tmp_path, PICTURES) is int8
    monkeypatch.setattr(parity, "providers", lambda: [CPU])
    assert cuda_options.tuned(FP32, tmp_path, PICTURES) is FP32
    assert not device.opened


def test_an_export_with_cuda_carries_the_options_in_its_manifest(tmp_path, monkeypatch):
    """The whole of publish, with CPU sessions under CUDA's name of which one choice is the fastest."""
    opened, real = {}, parity.open_session

    def open_session(path, provider=CPU, options=None):
        session = real(path)
        opened[id(session)] = (session, options or {})
        return session

    def timed(sessions, pictures):
        chosen = [opened[id(session)][1].get("prefer_nhwc") == "1" for session in sessions]
        return [{1: 1.0, 8: 4.0 if fast else 10.0} for fast in chosen]

    monkeypatch.setattr(parity, "providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(parity, "open_session", open_session)
    monkeypatch.setattr(variants, "timed", timed)
    settings = bundling.Settings(precisions=("fp16",), budget=Budget(judged_by="estimate"))
    bundling.publish(make_candidate(tmp_path), tmp_path / "models", "toy", settings, ladder=graph.LADDER[:1])
    manifest = store.read(tmp_path / "models", "toy", 1).manifest
    assert [variant.precision for variant in manifest.variants] == ["fp32", "fp16"]
    for variant in manifest.variants:
        assert variant.provider_options[CUDA] == {"cudnn_conv_algo_search": "EXHAUSTIVE", "prefer_nhwc": "1"}
        assert variant.latency_ms == {1: 1.0, 8: 4.0}
