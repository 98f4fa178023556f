"""What is tried."""

import pytest

from taxon.service.config import parse
from taxon.tuning.settings import Layout, Tried, alternatives, combined

TWO_CORES = Layout(workers=2, decoders=0, fronts=1, largest_batch=8)
A_GPU = Layout(workers=1, decoders=15, fronts=4, largest_batch=64)


def shown(layout, variants=(), default=Tried()):
    return [str(tried) for tried in alternatives(default, layout, variants)]


def test_one_change_at_a_time_on_a_cpu():
    assert shown(TWO_CORES, ["int8"]) == [
        "--fronts 2",
        *(f"--max-batch-size {size}" for size in (1, 2, 4, 16)),
        "--workers 1",
        "--variant int8",
    ]


def test_one_change_at_a_time_on_a_gpu():
    assert shown(A_GPU) == [
        *("--fronts 2", "--fronts 8"),
        *(f"--max-batch-size {size}" for size in (8, 16, 32, 128)),
        *("--decoders 8", "--decoders 16"),
    ]


def test_what_the_default_is_told_stays():
    assert all(words.endswith("--variant fp32") for words in shown(TWO_CORES, default=Tried(variant="fp32")))


def test_the_better_ones_together():
    better = {Tried(max_batch_size=4): 110.0, Tried(max_batch_size=16): 120.0, Tried(fronts=2): 105.0}
    assert combined(Tried(), better) == Tried(fronts=2, max_batch_size=16)
    assert combined(Tried(), {}) == Tried()


@pytest.mark.parametrize("tried", [Tried(), Tried(fronts=2, workers=3, decoders=1, max_batch_size=16, variant="int8")])
def test_the_service_reads_flags_and_variables_alike(tried, monkeypatch):
    by_flags = parse(tried.flags)
    for name, value in tried.variables.items():
        monkeypatch.setenv(name, value)
    assert parse([]) == by_flags
    assert {name: str(getattr(by_flags, name)) for name in tried.named} == tried.named
