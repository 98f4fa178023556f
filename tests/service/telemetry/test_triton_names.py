import asyncio

import pytest

from taxon.v1 import classification_service_pb2 as pb
from tests.fakes import COLORS, picture

RED = picture(COLORS["red"])
LABELS = '{model="colors",version="1"}'


@pytest.mark.parametrize("fronts", ["1", "2"])
async def test_statistics_have_triton_s_names_if_asked_for(serve, models, refused, fronts):
    async with serve(models, "--metrics-port", "0", "--triton-metrics", "--fronts", fronts) as running:
        for _ in range(3):
            await running.stub.Classify(pb.ClassifyRequest(image=RED), timeout=10)
        await refused(running.stub.Classify(pb.ClassifyRequest(image=b"no picture"), timeout=10))
        page = await asyncio.to_thread(running.page)
    lines = set(page.splitlines())
    assert {
        f"nv_inference_request_success{LABELS} 3.0",
        f"nv_inference_request_failure{LABELS} 1.0",
        f"nv_inference_count{LABELS} 3.0",
    } <= lines
    durations = {line.split("{")[0] for line in lines if line.startswith("nv_inference") and "duration_us{" in line}
    assert len(durations) == 5


async def test_they_are_not_there_by_default(serve, models):
    async with serve(models, "--metrics-port", "0") as running:
        assert "nv_inference" not in running.page()
