"""What stands, in a front of its own, for the pool and the control of the process that owns the workers."""

from taxon.service.fronts.asking import Asking
from taxon.service.fronts.front_protocol import Delivered, Leave, Submit
from taxon.service.scheduling.admission import no_idle_worker
from taxon.service.scheduling.batching import Job
from taxon.service.scheduling.board import Board
from taxon.service.workers.channel import Channel


class RemotePool:
    """See `executor.Line`."""

    def __init__(self, channel: Channel, board: Board) -> None:
        self._channel = channel
        self._board = board
        self._jobs: dict[int, Job] = {}

    def submit(self, job: Job) -> None:
        """Hands a job on, with its input in its block: the owner of the workers cannot write it. One of the background
        that it would refuse is not copied.

        Raises:
            QueueFullError: There is no room, or every worker has something to do.
        """
        if job.background and self._board.predicted_wait_s > 0.0:
            raise no_idle_worker(self._board.held_count())
        if job.bring:
            job.bring(job)
        number = id(job)
        self._jobs[number] = job
        told = job.model, job.input, job.deadline, job.priority, job.decoding_bytes, job.background, job.span
        self._channel.send_soon(Submit(number, *told))

    def leave(self, job: Job) -> None:
        """See `Line`."""
        self._channel.send_soon(Leave(id(job)))

    def delivered(self, message: Delivered) -> None:
        """Takes an outcome."""
        self._jobs.pop(message.number).deliver(message.outcome)

    def predicted_wait_s(self) -> float:
        """As the owner has told last."""
        return self._board.predicted_wait_s


class RemoteControl:
    """See `open_inference.service.Control`."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking

    async def load(self, name: str) -> None:
        """See `ModelControl.load`."""
        await self._asking.ask("load", name)

    async def unload(self, name: str) -> None:
        """See `ModelControl.unload`."""
        await self._asking.ask("unload", name)
