import platform
import subprocess
import sys

import pytest
import torch

from training.machine import Machine

FAULTS = """
import resource, sys, torch
from training.machine import choose_machine
if sys.argv[1] == "kept":
    choose_machine("cpu", threads=1, deterministic=False)
def step():
    a = torch.ones(8_000_000)
    b = a + 1
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="speaks of glibc's allocator")
def test_what_a_step_frees_is_there_for_the_next_one():
    def faults(word):
        command = [sys.executable, "-c", FAULTS, word]
        return int(subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout)

    assert 2 * faults("kept") < faults("given back")  # of 5 times 64 MB; the heap may still grow once
