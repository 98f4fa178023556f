"""Which variant of a bundle is served: of those that are proven, the one that is fastest by the clock."""

import functools

import numpy as np
import pytest

from taxon.bundle import store
from taxon.bundle.manifest import BundleError, Thresholds
from taxon.bundle.picture_limits import Limits
from taxon.service.runtime import variant_choice
from taxon.service.runtime.bundle_proof import Proven, prove
from taxon.service.runtime.description import Trial
from taxon.service.runtime.device import CPU, CUDA, TENSORRT, Device
from taxon.service.runtime.variant_choice import fastest, speedup
from tests.fakes import FakeClock, toy_bundle, toy_graph

PRECISIONS = ("fp32", "fp16", "int8")
GIVEN = np.zeros((3, 8, 8, 3), np.uint8)


class FakeSession:
    """Takes as long as it is told to, by batch size."""

    def __init__(self, clock, seconds, provider=CPU):
        self.clock, self.seconds, self.provider = clock, iter_of(seconds), provider
        self.batches = []

    def run(self, batch):
        self.batches.append(len(batch))
        took_s = next(self.seconds[len(batch)])
        if isinstance(took_s, Exception):
            raise took_s
        self.clock.now += took_s


def iter_of(seconds):
    """Always the same, or one after the other."""
    return {
        size: iter(lambda took_s=took_s: took_s, None) if isinstance(took_s, float) else iter(took_s)
        for size, took_s in seconds.items()
    }


class Fakes:
    """A bundle whose variants take as long as a test says, or are refused."""

    def __init__(self, root, variants, provider=CPU):
        self.clock, self.provider = FakeClock(), provider
        self.manifest = toy_bundle(root, lighter=dict.fromkeys([name for name in variants if name != "fp32"])).manifest
        self.variants = variants
        self.proofs, self.trials, self.sessions = [], [], {}

    def prove(self, precision, given=None):
        self.proofs.append((precision, given is not None))
        seconds = self.variants[precision]
        if isinstance(seconds, Exception):
            raise seconds
        session = self.sessions[precision] = FakeSession(self.clock, seconds, self.provider)
        first_s = {size: took_s if isinstance(took_s, float) else took_s[0] for size, took_s in seconds.items()}
        return Proven(precision, session, first_s, 0.0, GIVEN)

    def choose(self, without=()):
        proven, trials = fastest(self.manifest, self.prove, dict(without), self.trials.append)
        return proven.variant, {trial.variant: trial for trial in trials}


FAST, SLOW = {1: 0.001, 2: 0.002, 4: 0.004}, {1: 0.002, 2: 0.004, 4: 0.012}


def test_the_fastest_is_served_and_told_with_how_much_it_gains(tmp_path):
    fakes = Fakes(tmp_path, {"fp32": SLOW, "int8": FAST})
    chosen, trials = fakes.choose()
    assert chosen == "int8"
    assert trials == {"fp32": Trial("fp32", 1.0, "int8 is faster"), "int8": Trial("int8", 2.0)}
    assert fakes.trials == ["int8"]
    assert fakes.proofs == [("fp32", False), ("int8", True)]  # the goldens are decoded once


@pytest.mark.parametrize(("gain", "served"), [(1.09, "fp32"), (1.11, "int8"), (0.5, "fp32")])
def test_what_gains_less_than_a_tenth_is_not_served(tmp_path, gain, served):
    chosen, trials = Fakes(tmp_path, {"fp32": {1: gain, 2: 4.0}, "int8": {1: 1.0, 2: 1.0}}).choose()
    assert chosen == served
    assert trials["int8"].speedup == pytest.approx(gain)
    assert (trials["int8"].reason == "it must be 1.1 times as fast as fp32") == (served == "fp32")


def test_what_is_slower_at_one_batch_size_is_not_served(tmp_path):
    chosen, trials = Fakes(tmp_path, {"fp32": SLOW, "int8": {**FAST, 1: 0.0021}}).choose()
    assert chosen == "fp32"
    assert trials["int8"].speedup == 0.95


def test_of_several_the_one_that_gains_most_where_it_gains_least(tmp_path, monkeypatch):
    monkeypatch.setattr(variant_choice, "unsuited", lambda *_: "")
    variants = {"fp32": SLOW, "fp16": {**FAST, 1: 0.0015}, "int8": FAST}
    chosen, trials = Fakes(tmp_path, variants).choose()
    assert chosen == "int8"
    assert [trials[name].reason for name in PRECISIONS] == ["int8 is faster", "int8 is faster", ""]


def test_with_nothing_to_choose_nothing_is_timed(tmp_path):
    fakes = Fakes(tmp_path, {"fp32": SLOW})
    assert fakes.choose() == ("fp32", {})
    assert fakes.sessions["fp32"].batches == []


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (BundleError("a golden differs"), "a golden differs"),
        ({1: [0.001, RuntimeError("no kernel")], 2: 0.001, 4: 0.001}, "the graph fails while it is timed: no kernel"),
    ],
)
def test_a_variant_that_fails_is_passed_over_with_its_reason(tmp_path, fault, reason):
    chosen, trials = Fakes(tmp_path, {"fp32": SLOW, "int8": fault}).choose()
    assert chosen == "fp32"
    assert trials["int8"] == Trial("int8", 0.0, reason)
    assert trials["fp32"] == Trial("fp32", 1.0)


def test_a_bundle_that_may_not_be_served_as_fp32_is_refused(tmp_path):
    fakes = Fakes(tmp_path, {"fp32": BundleError("a golden differs"), "int8": FAST})
    with pytest.raises(BundleError, match="a golden differs"):
        fakes.choose()
    assert fakes.trials == []


def test_what_must_not_be_tried_is_not_even_opened(tmp_path):
    fakes = Fakes(tmp_path, {"fp32": SLOW, "int8": FAST})
    chosen, trials = fakes.choose(without={"int8": "it ended the process"})
    assert chosen == "fp32"
    assert trials["int8"].reason == "it ended the process"
    assert fakes.proofs == [("fp32", False)]


@pytest.mark.parametrize(
    ("provider", "tried"), [(CPU, ["int8"]), (CUDA, ["fp16"]), (TENSORRT, [])], ids=["cpu", "cuda", "tensorrt"]
)
def test_only_what_may_pay_on_the_device_is_opened(tmp_path, provider, tried):
    fakes = Fakes(tmp_path, {"fp32": SLOW, "fp16": FAST, "int8": FAST}, provider)
    _, trials = fakes.choose()
    assert fakes.trials == tried
    assert all(trials[name].reason for name in ("fp16", "int8") if name not in tried)


# How it is timed


def timed(fakes):
    return speedup(*(fakes.prove(precision) for precision in ("fp32", "int8")), fakes.clock)


def test_both_run_in_turns_and_the_shortest_runs_count(tmp_path):
    """A machine that was busy with something else for a while decides nothing."""
    disturbed = {1: [0.002, 0.3, 0.002] + [0.2] * 50, 4: [0.09, 0.2, 0.004] + [0.2] * 50}
    fakes = Fakes(tmp_path, {"fp32": disturbed, "int8": {1: 0.001, 4: 0.002}})
    assert timed(fakes) == pytest.approx(2.0)
    assert fakes.sessions["fp32"].batches == fakes.sessions["int8"].batches


@pytest.mark.parametrize(("large_s", "sizes"), [(0.09, {1, 8}), (0.11, {1})])
def test_a_large_batch_is_timed_unless_it_takes_long(tmp_path, large_s, sizes):
    fakes = Fakes(tmp_path, {"fp32": {1: 0.02, 8: large_s}, "int8": {1: 0.01, 8: 0.05}})
    timed(fakes)
    assert set(fakes.sessions["int8"].batches) == sizes


@pytest.mark.parametrize("run_s", [0.00001, 0.01, 0.2, 5.0])
def test_the_timing_is_bounded(tmp_path, run_s):
    fakes = Fakes(tmp_path, {"fp32": {1: run_s}, "int8": {1: run_s}})
    began = fakes.clock()
    timed(fakes)
    assert fakes.clock() - began <= variant_choice.TIMING_S + 2 * run_s
    assert len(fakes.sessions["fp32"].batches) <= variant_choice.MOST_ROUNDS


JUDGED = Thresholds(unknown=0.9, unknown_by="familiarity")


def of_real_graphs(root):
    bundle = store.read(root, "colors", 1)
    one = functools.partial(prove, bundle, device=Device(CPU), thread_count=1, buckets=[1, 2], limits=Limits())
    return fastest(bundle.manifest, lambda precision, given=None: one(precision, given=given), {}, print)


@pytest.mark.parametrize("thresholds", [Thresholds(), JUDGED], ids=["scores", "familiarity"])
def test_the_faster_of_two_real_graphs_is_served(tmp_path, thresholds):
    toy_bundle(tmp_path, lighter={"int8": None}, thresholds=thresholds)
    proven, trials = of_real_graphs(tmp_path)
    assert proven.variant.precision == "int8"
    assert trials[1].speedup > 2  # tens of microseconds against half a millisecond
    rows = proven.session.run(np.full((1, 8, 8, 3), (0, 255, 0), np.uint8))
    assert rows[:, :3].argmax() == 1
    assert rows.shape == (1, 3 + (thresholds is JUDGED))


def test_a_lighter_graph_that_does_not_judge_is_passed_over(tmp_path):
    contract = toy_bundle(tmp_path / "plain").manifest.contract()
    toy_bundle(tmp_path, lighter={"int8": toy_graph(contract)}, thresholds=JUDGED)
    proven, trials = of_real_graphs(tmp_path)
    assert proven.variant.precision == "fp32"
    assert trials[1].reason == "the graph has 1 outputs, it must have 2: scores, familiarity"
