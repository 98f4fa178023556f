"""Pictures that wait for a decoder, where decoding has processes of its own. First come, first served."""

from collections import deque
from collections.abc import Iterable, Iterator

from taxon.bundle.manifest import Manifest
from taxon.service.scheduling.batching import Job, brought
from taxon.service.scheduling.model_queue import ModelQueue
from taxon.service.workers.worker_protocol import Decode
from taxon.service.workers.worker_slot import WorkerSlot

# Pictures that a decoder gets at once: few, so that none waits while another decoder is idle.
MOST_DECODED = 4


class Undecoded:
    """What waits, for all models."""

    def __init__(self, decoder_count: int) -> None:
        """Nothing waits.

        Args:
            decoder_count: How many decoders there should be.
        """
        self._decoder_count = decoder_count
        self._waiting: deque[tuple[ModelQueue, Manifest, Job]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, queue: ModelQueue, manifest: Manifest, job: Job) -> None:
        """Takes a picture in.

        Args:
            queue: Of its model, where it goes then.
            manifest: Of its model.
            job: The picture.
        """
        self._waiting.append((queue, manifest, job))

    def has(self, queue: ModelQueue) -> bool:
        """Whether a picture of a model waits."""
        return any(entry[0] is queue for entry in self._waiting)

    def discard(self, job: Job) -> bool:
        """Takes out a picture whose caller has left. Returns whether it still waited."""
        for entry in self._waiting:
            if entry[2] is job:
                self._waiting.remove(entry)
                return True
        return False

    def empty(self) -> list[Job]:
        """Takes out everything."""
        jobs = [entry[2] for entry in self._waiting]
        self._waiting.clear()
        return jobs

    def wait_s(self) -> float:
        """Until a decoder has time for what comes now."""
        if not self._waiting:
            return 0.0
        return len(self._waiting) * self._waiting[0][0].apart_s.seconds() / self._decoder_count

    def orders(self, slots: Iterable[WorkerSlot], max_bytes: float) -> Iterator[tuple[WorkerSlot, Decode]]:
        """What idle decoders should do now; each is taken to be doing so then.

        Args:
            slots: Of all workers.
            max_bytes: Of large pictures that are being decoded.
        """
        slots = list(slots)
        room = max_bytes - sum(slot.decoding_bytes for slot in slots)
        for slot in slots:
            if not self._waiting:
                return
            if slot.role != "decode" or slot.decoding:
                continue
            share = min(MOST_DECODED, -(-len(self._waiting) // self._decoder_count))
            queue, manifest, first = self._waiting[0]
            if first.decoding_bytes > room:
                return  # until one that is being decoded is done
            if first.alone:
                share = 1
            while self._waiting and len(slot.decoding) < share and self._waiting[0][0] is queue:
                if slot.decoding and self._waiting[0][2].alone:
                    break
                slot.decoding += brought([self._waiting.popleft()[2]])
            room -= slot.decoding_bytes
            if jobs := slot.decoding:
                yield slot, Decode(manifest, [job.input for job in jobs], [job.deadline for job in jobs])
