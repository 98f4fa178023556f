"""A pool with workers that do what they are told."""

import asyncio
import time
from types import SimpleNamespace

from taxon.service.workers.worker_pool import WorkerPool
from taxon.service.workers.worker_slots import Patience
from tests.service.fake_worker import FakeWorkers
from tests.service.scheduling.jobs import job as any_job

MANIFEST = SimpleNamespace(pixels=object())
"""Only handed on."""
PATIENT = Patience(60, 60)


def job(model, deadline=None, **facts):
    """An encoded picture."""
    now = time.monotonic()
    return any_job(now + 60 if deadline is None else deadline, model=model, queued_at=now, **facts)


def tensors(model, **facts):
    """An input that needs no decoding."""
    return job(model, dtype="float32", shape=(2,), **facts)


async def settled():
    """After everything that was to be done at once."""
    for _ in range(5):
        await asyncio.sleep(0)


async def next_load_of(one, *names):
    """A worker that loads one of these models; what else is loaded meanwhile is proven."""
    async with asyncio.timeout(20):
        while True:
            for worker in one.workers.loading:
                if worker.owes[-1].name in names:
                    return worker
                worker.prove()
            await asyncio.sleep(0.001)


class Opened:
    """A pool, its workers, and what it told."""

    def __init__(self, layout, patience, **options):
        self.workers = FakeWorkers()
        self.changes = 0
        self.lost = []
        self.batches = []
        self.pool = WorkerPool(
            self.workers,
            layout,
            patience,
            256,
            self._change,
            lambda model, reason: self.lost.append((model, reason)),
            **options,
        )

    def _change(self):
        self.changes += 1

    def on_batch(self, size, dropped, bucket=0):
        self.batches.append((size, dropped))

    def begin_load(self, name="model", version=1):
        return asyncio.create_task(self.pool.load(name, version, None, self.on_batch))

    async def load(self, name="model", manifest=MANIFEST, **answer):
        """A model that every worker has. Returns its number."""
        loading = self.begin_load(name)
        await settled()
        self.workers.prove_all(manifest=manifest, **answer)
        loaded = await loading
        assert not loaded.refused
        self.workers.prove_all(manifest=manifest, **answer)
        self.batches.clear()
        return loaded.model

    def submit(self, *jobs):
        for one in jobs:
            self.pool.dispatcher.submit(one)
        return jobs
