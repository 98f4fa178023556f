"""GPUs as NVML tells of them: here by a library that answers as the real one does."""

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from taxon.service.telemetry.gpus import Gpus, Nvml

NOT_SUPPORTED = 3


class Library:
    """Two devices; the second is a MIG slice, which knows no load."""

    def __init__(self, state=0):
        self._state = state

    def nvmlInit_v2(self):  # noqa: N802
        return self._state

    def nvmlDeviceGetCount_v2(self, count):  # noqa: N802
        count._obj.value = 2
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, number, device):  # noqa: N802
        device._obj.value = number + 1
        return 0

    def nvmlDeviceGetMemoryInfo(self, device, memory):  # noqa: N802
        memory._obj.total, memory._obj.used = device.value * 1000, device.value * 10
        return 0

    def nvmlDeviceGetUtilizationRates(self, device, load):  # noqa: N802
        load._obj.gpu = 25
        return 0 if device.value == 1 else NOT_SUPPORTED


def test_memory_and_load_are_on_the_page():
    registry = CollectorRegistry()
    registry.register(Gpus(Nvml(lambda _: Library()).read))
    lines = set(generate_latest(registry).decode().splitlines())
    assert {'taxon_gpu_memory_bytes{gpu="1"} 2000.0', 'taxon_gpu_used_memory_bytes{gpu="0"} 10.0'} < lines
    assert [line for line in lines if line.startswith("taxon_gpu_load")] == ['taxon_gpu_load_ratio{gpu="0"} 0.25']


def test_without_a_driver_there_is_nothing_to_read():
    with pytest.raises(OSError, match="no driver"):
        Nvml(lambda _: Library(state=9))
