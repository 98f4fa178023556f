import platform
import subprocess
import sys

import pytest
import torch

from taxon.training.loop.machine import Machine, choose_machine

FAULTS = """
import resource, torch
from taxon.training.loop.machine import choose_machine
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def steps(count):
    before = faults()
    for _ in range(count):
        a = torch.ones(16_000_000)
        b = a + 1
        del a, b
    return faults() - before
steps(8)
given_back = steps(5)
choose_machine("cpu", threads=1, deterministic=False)
steps(8)
print(given_back, steps(5))
"""


@pytest.mark.parametrize(
    ("capability", "device", "precision", "emulated"),
    [
        ("AVX2", "cpu", "bf16", True),
        ("DEFAULT", "cpu", "bf16", True),
        ("AVX512", "cpu", "bf16", False),
        ("AVX2", "cpu", "fp32", False),
        ("AVX2", "cuda", "bf16", False),
    ],
)
def test_bf16_is_emulated_by_processors_without_avx512(monkeypatch, capability, device, precision, emulated):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert Machine(torch.device(device)).emulates(precision) is emulated


@pytest.mark.parametrize(("asked", "current", "chosen"), [("cuda", 1, 1), ("cuda:2", 0, 2), ("auto", 0, 0)])
def test_a_cuda_device_has_a_number(monkeypatch, asked, current, chosen):
    """torch takes `cuda` for tensors, but not where it shall be the current device."""
    numbers = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: numbers.append(device.index))
    assert choose_machine(asked, threads=0, deterministic=False).device == torch.device("cuda", chosen)
    assert numbers == [chosen]


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="speaks of glibc's allocator")
def test_what_a_step_frees_is_there_for_the_next_one():
    done = subprocess.run([sys.executable, "-c", FAULTS], check=True, capture_output=True, text=True, timeout=120)
    given_back, kept = map(int, done.stdout.split())
    assert kept < 100 < given_back  # of 5 times 128 MB
