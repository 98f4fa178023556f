import pytest
import torch

from training.machine import Machine


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
