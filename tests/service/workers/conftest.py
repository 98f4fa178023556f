import pytest

from taxon.service.workers import places, worker_slots
from taxon.service.workers.layout import Layout
from tests.service.fake_worker import RUN_S
from tests.service.workers.pools import PATIENT, Opened


@pytest.fixture
async def opened(monkeypatch):
    monkeypatch.setattr(places, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(places, "LONGEST_PAUSE_S", 0.008)
    monkeypatch.setattr(worker_slots, "EXTRA_PAUSE_S", 0.001)
    made = []

    def open_pool(workers=1, decoders=0, patience=PATIENT, **options):
        depth = 2 if decoders else 1
        made.append(Opened(Layout(workers, decoders, 1, depth, 1, tuple(RUN_S)), patience, **options))
        return made[-1]

    yield open_pool
    for one in made:
        await one.pool.close()
