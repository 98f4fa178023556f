"""The device, the processes and the numerics that a training runs on."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn

from taxon import freed_memory
from taxon.mistaken import first_line
from taxon.training.errors import TrainingError

CPUS_WITHOUT_BF16 = ("DEFAULT", "AVX2")
"""As torch names what its kernels use."""
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True)
class Machine:
    """This process's place."""

    device: torch.device
    rank: int = 0
    """Of this process; 0 writes and speaks."""
    world: int = 1
    """Number of processes."""

    def autocast(self, precision: str) -> AbstractContextManager[object]:
        """The context of a forward pass in `fp32`, `bf16` or `fp16`."""
        if precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=AUTOCAST[precision])

    def emulates(self, precision: str) -> bool:
        """Whether autocast to `precision` is known to be far slower than fp32 here: bf16 on x86 without AVX-512."""
        return (
            self.device.type == "cpu"
            and precision == "bf16"
            and torch.backends.cpu.get_cpu_capability() in CPUS_WITHOUT_BF16
        )

    def gather(self, rows: Tensor, count: int) -> Tensor:
        """Rows r, r + world, r + 2 world … of each process r → all `count` rows, in order."""
        if self.world == 1:
            return rows
        padded = torch.zeros(-(-count // self.world), *rows.shape[1:], device=rows.device)
        padded[: len(rows)] = rows
        parts = [torch.zeros_like(padded) for _ in range(self.world)]
        distributed.all_gather(parts, padded)
        return torch.stack(parts, dim=1).flatten(0, 1)[:count]

    def mean(self, number: float) -> float:
        """The mean of a number over all processes."""
        if self.world == 1:
            return number
        total = torch.tensor(number, dtype=torch.float64, device=self.device)
        distributed.all_reduce(total)
        return float(total) / self.world

    def take(self, inputs: Tensor) -> Tensor:
        """Inputs on this device."""
        return inputs.to(self.device)

    def share_buffers(self, network: nn.Module) -> None:
        """Gives every process the first one's buffers (statistics of normalisation)."""
        if self.world > 1:
            for buffer in network.buffers():
                distributed.broadcast(buffer, src=0)

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """Lets the first process through, then the others, which find what it has written."""
        if self.world > 1 and self.rank > 0:
            distributed.barrier()
        yield
        if self.world > 1 and self.rank == 0:
            distributed.barrier()


def choose_machine(device: str, *, threads: int, deterministic: bool) -> Machine:
    """Takes the device that is asked for; under `torchrun` joins the other processes.

    Args:
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        threads: CPU threads of torch; 0 leaves torch's choice.
        deterministic: Whether a GPU must repeat itself exactly.

    Raises:
        TrainingError: No such device, or CUDA does not work here.
    """
    if threads:
        torch.set_num_threads(threads)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs to repeat itself
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    try:
        chosen = torch.device(device)
        if chosen.type not in ("cpu", "cuda"):
            raise TrainingError(f"--device {device}: it must be auto, cpu, cuda or cuda:N")
        if chosen.type == "cuda":
            if not torch.cuda.is_available():
                raise TrainingError("--device cuda: torch finds no working CUDA device; use --device cpu or auto")
            if world > 1:
                chosen = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            elif ":" not in device:  # which will not do below
                chosen = torch.device("cuda", torch.cuda.current_device())
            torch.cuda.set_device(chosen)
    except RuntimeError as error:
        raise TrainingError(f"--device {device}: {first_line(error)}") from error
    if world > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    if chosen.type == "cpu":
        freed_memory.keep_all()  # fresh pages cost 6 % of a training
    return Machine(chosen, rank, world)


def leave() -> None:
    """Takes leave of the other processes that `choose_machine` joined, if there were any."""
    if distributed.is_initialized():
        distributed.destroy_process_group()
