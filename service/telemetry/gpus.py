"""Memory and load of GPUs, from NVIDIA's management library (NVML): what `nvidia-smi` shows, without a process."""

import ctypes
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

LIBRARY = "libnvidia-ml.so.1"
"""Comes with the driver."""


class Memory(ctypes.Structure):
    """`nvmlMemory_t`, in bytes."""

    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class Utilization(ctypes.Structure):
    """`nvmlUtilization_t`, in percent of the last sample period."""

    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


@dataclass(frozen=True, slots=True)
class Gpu:
    """One device, as it is now."""

    number: int
    """As NVML counts: in a container those that it was given, whatever CUDA_VISIBLE_DEVICES says."""
    total_bytes: int
    used_bytes: int
    load: float | None
    """Share of time in which a kernel ran, 0 to 1; None where the device cannot tell (MIG)."""


class Nvml:
    """The library, opened."""

    def __init__(self, open_library: Callable[[str], Any] = ctypes.CDLL) -> None:
        """Opens it.

        Raises:
            OSError: There is no driver here, or no device.
        """
        self._library = open_library(LIBRARY)
        if self._library.nvmlInit_v2():
            raise OSError("NVML finds no driver")

    def read(self) -> Iterator[Gpu]:
        """Every device that answers."""
        nvml, count = self._library, ctypes.c_uint()
        if nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)):
            return
        for number in range(count.value):
            device, memory, load = ctypes.c_void_p(), Memory(), Utilization()
            if nvml.nvmlDeviceGetHandleByIndex_v2(number, ctypes.byref(device)):
                continue
            if nvml.nvmlDeviceGetMemoryInfo(device, ctypes.byref(memory)):
                continue
            dumb = nvml.nvmlDeviceGetUtilizationRates(device, ctypes.byref(load))
            yield Gpu(number, memory.total, memory.used, None if dumb else load.gpu / 100)


class Gpus(Collector):
    """What the metrics page shows of them, read at every scrape."""

    def __init__(self, read: Callable[[], Iterator[Gpu]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """Nothing where there is none."""
        total = GaugeMetricFamily("taxon_gpu_memory_bytes", "Memory of each GPU.", labels=["gpu"])
        used = GaugeMetricFamily("taxon_gpu_used_memory_bytes", "Of that, in use by whomever.", labels=["gpu"])
        load = GaugeMetricFamily("taxon_gpu_load_ratio", "Share of time in which a GPU ran kernels.", labels=["gpu"])
        for gpu in self._read():
            number = str(gpu.number)
            total.add_metric([number], gpu.total_bytes)
            used.add_metric([number], gpu.used_bytes)
            if gpu.load is not None:
                load.add_metric([number], gpu.load)
        yield from (metric for metric in (total, used, load) if metric.samples)
