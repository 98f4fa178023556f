"""How many processes of which kind serve, from what is granted. Pure."""

from dataclasses import dataclass
from typing import Literal

from taxon.service.runtime.device import CPU, Device

LARGEST_BATCH = {"cpu": 8, "gpu": 64}
# One front carries some 2,000 calls of 120 kB a second on a fast core: fewer cores cannot decode more than that.
CORES_PER_FRONT = 8
CORES_PER_FRONT_ON_GPU = 4
MOST_FRONTS = 8


@dataclass(frozen=True, slots=True)
class Layout:
    """The processes of a server."""

    workers: int
    """Which run models: on a CPU one for each core, on GPUs one for each device."""
    decoders: int
    """Which only decode; 0: workers decode what they run."""
    threads: int
    """Of one run."""
    depth: int
    """Batches that a worker is given at once: where it only runs them, the next is ready when one is done."""
    fronts: int
    """Which speak gRPC."""
    buckets: tuple[int, ...]
    """The batch sizes that occur: 1, 2, 4 …"""


def layout(
    device: Device,
    cores: int,
    *,
    workers: int | Literal["auto"] = "auto",
    decoders: int | Literal["auto"] = "auto",
    fronts: int | Literal["auto"] = "auto",
    threads: int = 0,
    max_batch_size: int = 0,
) -> Layout:
    """What the operator asked for, and for the rest what is fastest by measurement.

    Args:
        device: Where graphs run.
        cores: Granted to this container.
        workers: Processes that run models.
        decoders: Processes that only decode.
        fronts: Processes that speak gRPC.
        threads: Of one run; 0: each worker's share of the cores.
        max_batch_size: Rounded down to a power of two; 0: the usual.
    """
    on_cpu = device.provider == CPU
    runners = (cores if on_cpu else device.count) if workers == "auto" else workers
    apart = (0 if on_cpu else max(1, cores - 1)) if decoders == "auto" else decoders
    per_front = CORES_PER_FRONT if on_cpu else CORES_PER_FRONT_ON_GPU
    speaking = min(MOST_FRONTS, max(1, cores // per_front)) if fronts == "auto" else fronts
    largest = max_batch_size or LARGEST_BATCH["cpu" if on_cpu else "gpu"]
    return Layout(
        workers=runners,
        decoders=apart,
        threads=threads or max(1, cores // runners),
        depth=2 if apart else 1,
        fronts=speaking,
        buckets=tuple(1 << power for power in range(largest.bit_length())),
    )
