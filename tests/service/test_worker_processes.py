"""Models in worker processes, as they are served: every layout answers alike; a process may die or hang anywhere."""

import asyncio
import os
import signal
import sys
import time
import zlib
from io import BytesIO

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from PIL import Image

from benchmarks.processes import memory
from taxon.bundle.png_chunks import chunk
from taxon.inference import open_inference_service_pb2 as oip
from taxon.service.config import parse
from taxon.service.server import Server
from taxon.service.workers import worker_process
from taxon.service.workers.worker_process import WorkerProcesses
from taxon.v1 import classification_service_pb2 as pb
from tests.fakes import COLORS, picture, toy_bundle
from tests.inference_requests import CONTROL, pair, stub_of
from tests.tensor_models import simple
from tests.waiting import until

RED, GREEN, BLUE = (picture(color) for color in COLORS.values())
LAYOUTS = [(), ("--workers", "1", "--threads", "2"), ("--decoders", "2", "--workers", "1"), ("--fronts", "2")]
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def real(serve):
    """Serves as `taxon serve` does."""
    return lambda *words: serve(*words, workers=WorkerProcesses)


@pytest.fixture
def mortal(monkeypatch, real):
    """As `real`, but loads of models named `aborts…`, `hangs…` or `once…` end so."""
    monkeypatch.setattr(worker_process, "PROGRAM", (sys.executable, "-m", "tests.service.dying_worker"))
    return real


async def label(running, image, model="colors", within_s=10):
    request = pb.ClassifyRequest(image=image, model_name=model)
    return (await running.stub.Classify(request, timeout=within_s)).classifications[0].label


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS, ids=" ".join)
async def test_every_layout_answers_alike(real, tmp_path, refused, layout):
    root = tmp_path / "models"
    toy_bundle(root)
    toy_bundle(root, "numbers", features=True)
    simple(root)
    async with real(root, *layout) as running:
        labels = await asyncio.gather(*(label(running, image) for image in (RED, GREEN, BLUE) * 20))
        assert labels == ["red", "green", "blue"] * 20
        features = pb.ClassifyRequest(features=pb.Features(values=[0, 3, 1, 0]), model_name="numbers")
        assert (await running.stub.Classify(features, timeout=10)).classifications[0].label == "green"
        ones = np.ones((2, 16))
        response = await stub_of(running).ModelInfer(pair(ones, 2 * ones), timeout=10)
        assert np.frombuffer(response.raw_output_contents[0], np.int32).tolist() == [3] * 32
        for image, reason in [
            (b"", "IMAGE_UNDECODABLE"),
            (RED[:-30], "IMAGE_UNDECODABLE"),
            (b"x" * 9_000_000, "IMAGE_TOO_LARGE"),
        ]:
            error = await refused(running.stub.Classify(pb.ClassifyRequest(image=image, model_name="colors")))
            assert error.reason == reason
            assert error.others["BadRequest"].field_violations[0].field == "image"
        figures = (await stub_of(running).ModelStatistics(oip.ModelStatisticsRequest(name="colors"))).model_stats
        assert [one.inference_count for one in figures] == [60]


async def test_a_dead_worker_is_replaced_and_its_callers_are_told(real, models, refused):
    async with real(models, "--workers", "1") as running:
        (pid,) = running.server.pool.pids
        os.kill(pid, signal.SIGSTOP)
        held = asyncio.create_task(refused(running.stub.Classify(pb.ClassifyRequest(image=RED), timeout=20)))
        await until(lambda: running.counted("taxon_in_flight_inputs") == 1)
        watch = health_pb2_grpc.HealthStub(running.channel).Watch(health_pb2.HealthCheckRequest())
        states = [(await watch.read()).status]
        os.kill(pid, signal.SIGKILL)
        error = await held
        assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "NOT_SERVING")
        assert "died" in error.message
        states += [(await watch.read()).status, (await watch.read()).status]
        assert states == [SERVING, NOT_SERVING, SERVING]
        assert await label(running, GREEN) == "green"


async def test_one_dead_worker_of_two_leaves_the_server_ready(real, models):
    async with real(models, "--workers", "2") as running:
        await until(lambda: running.server.pool.serving_count == 2)
        os.kill(running.server.pool.pids[0], signal.SIGKILL)
        assert {await label(running, RED) for _ in range(5)} == {"red"}
        health = await health_pb2_grpc.HealthStub(running.channel).Check(health_pb2.HealthCheckRequest())
        assert health.status == SERVING
        await until(lambda: running.server.pool.serving_count == 2)


async def test_a_hanging_worker_is_killed_and_replaced(real, models, refused):
    async with real(models, "--workers", "1", "--max-run-seconds", "0.5") as running:
        os.kill(running.server.pool.pids[0], signal.SIGSTOP)
        error = await refused(running.stub.Classify(pb.ClassifyRequest(image=RED), timeout=20))
        assert error.reason == "NOT_SERVING"
        await until(lambda: running.server.pool.serving_count == 1)
        assert await label(running, RED) == "red"


async def test_the_deadline_answers_while_a_worker_hangs(real, models):
    async with real(models, "--workers", "1") as running:
        os.kill(running.server.pool.pids[0], signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await label(running, RED, within_s=0.3)
        assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert time.monotonic() - began < 2
        os.kill(running.server.pool.pids[0], signal.SIGCONT)


async def test_cancelled_calls_never_reach_a_model(real, models):
    """The worker is stopped while it has one batch; callers leave, in its hands and in the queue."""
    async with real(models, "--workers", "1") as running:
        os.kill(running.server.pool.pids[0], signal.SIGSTOP)
        calls = [running.stub.Classify(pb.ClassifyRequest(image=RED), timeout=20) for _ in range(20)]
        await until(lambda: running.counted("taxon_in_flight_inputs") == 20)
        for call in calls:
            call.cancel()
        await until(lambda: running.counted("taxon_in_flight_inputs") == 0)
        assert running.server.pool.dispatcher.waiting_count == 0  # at once, not when the worker comes back
        os.kill(running.server.pool.pids[0], signal.SIGCONT)
        assert await label(running, RED) == "red"
        assert running.counted("taxon_batch_size_sum", model="colors", version="1") == 1
        assert running.counted("taxon_dropped_inputs_total", model="colors", version="1") == 20


async def test_a_large_picture_leaves_a_worker_to_the_small_ones(real, models):
    async with real(models, "--workers", "2") as running:
        await until(lambda: running.server.pool.serving_count == 2)
        noise = np.random.default_rng(0).integers(0, 255, (3000, 3000, 3), dtype=np.uint8)
        file = BytesIO()
        Image.fromarray(noise).save(file, "JPEG", quality=20)
        await label(running, RED)
        large = pb.ClassifyRequest(image=file.getvalue())
        large_calls = [running.stub.Classify(large, timeout=30) for _ in range(4)]
        small_s = []
        while not all(call.done() for call in large_calls):
            began = time.monotonic()
            await label(running, GREEN)
            small_s.append(time.monotonic() - began)
        replies = await asyncio.gather(*large_calls)
    large_s = [reply.timing.preprocess_duration.ToTimedelta().total_seconds() for reply in replies]
    assert len(small_s) > 8
    assert sorted(small_s)[len(small_s) // 2] < max(large_s) / 2


async def test_a_decode_bomb_holds_nobody_up(real, models):
    """Next to the limit in pixels, next to nothing in bytes."""
    file = BytesIO()
    Image.new("L", (7000, 7000)).save(file, "PNG")
    bomb = pb.ClassifyRequest(image=file.getvalue())
    assert len(bomb.image) < 100_000
    async with real(models, "--workers", "2") as running:
        await until(lambda: running.server.pool.serving_count == 2)
        await label(running, GREEN)
        bomb_calls = [running.stub.Classify(bomb, timeout=60) for _ in range(4)]
        spent = []
        while not all(call.done() for call in bomb_calls):
            began = time.monotonic()
            assert await label(running, GREEN) == "green"
            spent.append(time.monotonic() - began)
        replies = await asyncio.gather(*bomb_calls)
    bombs_s = [reply.timing.total_duration.ToTimedelta().total_seconds() for reply in replies]
    assert len(spent) > 10
    assert sorted(spent)[len(spent) // 2] < max(bombs_s) / 3


async def test_a_header_that_inflates_to_60_mb_holds_nobody_up(real, models):
    """Workers may open it, each for a call of its own; what speaks gRPC, here this process, must not."""
    text = chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(1_000_000), 9))
    encoded = RED[:33] + 60 * text + RED[33:]
    assert len(encoded) < 100_000
    began = time.process_time()
    Image.open(BytesIO(encoded)).load()
    opening_s = time.process_time() - began
    async with real(models, "--workers", "1") as running:
        spent = []
        for picture in (RED, RED, encoded):  # the first time is for whatever is done once
            began = time.process_time()
            for _ in range(10):
                assert await label(running, picture) == "red"
            spent.append(time.process_time() - began)
    _, usual_s, meanwhile_s = spent
    assert meanwhile_s < usual_s + 5 * opening_s  # of ten


@pytest.mark.parametrize(("workers", "write"), [("1", simple), ("2", toy_bundle)])
async def test_a_model_that_ends_its_process_is_refused_and_the_healthy_ones_never_notice(
    mortal, models, refused, workers, write
):
    """A bundle, or a graph without a manifest."""
    async with mortal(models, "--workers", workers, *CONTROL) as running:
        await until(lambda: running.server.pool.serving_count == int(workers))
        write(models, "aborts")
        loading = asyncio.ensure_future(
            refused(stub_of(running).RepositoryModelLoad(oip.RepositoryModelLoadRequest(model_name="aborts")))
        )
        answers = []
        while not loading.done():
            answers.append(await label(running, RED, within_s=5))
        error = await loading
        assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "MODEL_REFUSED")
        assert "ended twice" in error.message
        assert len(answers) > 10
        assert set(answers) == {"red"}
        await until(lambda: running.server.pool.serving_count == int(workers))
        states = {state.name: state.state for state in running.server.repository.index()}
        assert states == {"colors": "READY", "aborts": "UNAVAILABLE"}


async def test_at_start_the_models_behind_a_deadly_one_are_served(mortal, models):
    toy_bundle(models, "aborts")
    toy_bundle(models, "zebras")
    async with mortal(models, "--workers", "2") as running:
        assert await label(running, RED, model="zebras") == "red"
        assert await label(running, RED, model="colors") == "red"
        assert running.counted("taxon_refused_bundles") == 1
        assert running.server.serving


async def test_a_worker_that_dies_once_at_a_load_costs_nothing_but_time(mortal, models):
    toy_bundle(models, "once")
    async with mortal(models, "--workers", "1") as running:
        assert await label(running, BLUE, model="once") == "blue"


async def test_a_variant_that_ends_the_process_leaves_the_model_to_fp32(mortal, models):
    toy_bundle(models, "int8-aborts", lighter={"int8": None})
    async with mortal(models, "--workers", "2") as running:
        await until(lambda: running.server.pool.serving_count == 2)
        assert await label(running, GREEN, "int8-aborts") == "green"
        (model,) = [one for one in running.server.repository.listing() if one.name == "int8-aborts"]
    assert model.description.variant == "fp32"
    assert "ended with status -6" in model.description.trials[1].reason


async def test_every_worker_process_runs_the_fastest_variant(real, tmp_path):
    root = tmp_path / "models"
    toy_bundle(root, lighter={"int8": None})
    async with real(root, "--workers", "2") as running:
        await until(lambda: running.server.pool.serving_count == 2)
        for pid in running.server.pool.pids:
            os.kill(pid, signal.SIGKILL)
        await until(lambda: running.server.pool.restart_count == running.server.pool.serving_count == 2)
        answer = await running.stub.Classify(pb.ClassifyRequest(image=GREEN), timeout=10)
    assert (answer.variant, answer.classifications[0].label) == ("int8", "green")


@pytest.mark.faults
async def test_a_load_that_hangs_is_given_up(mortal, models, refused):
    async with mortal(models, "--workers", "2", "--max-load-seconds", "3", *CONTROL) as running:
        toy_bundle(models, "hangs")
        load = stub_of(running).RepositoryModelLoad(oip.RepositoryModelLoadRequest(model_name="hangs"), timeout=30)
        assert "ended twice" in (await refused(load)).message
        assert await label(running, RED) == "red"


async def test_a_stop_during_a_load_that_hangs_ends_within_the_grace(mortal, models):
    toy_bundle(models, "hangs")
    server = Server(parse(["--models", str(models), "--listen", "127.0.0.1:0", "--device", "cpu"]))
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.repository.versions("colors") == [1])
    began = time.monotonic()
    server.stop()
    await asyncio.wait_for(serving, 10)
    assert time.monotonic() - began < 3


async def test_a_mended_bundle_is_not_refused_for_what_it_was(real, models, refused):
    broken = toy_bundle(models, "mended")
    graph = (broken.folder / "model.onnx").read_bytes()
    (broken.folder / "model.onnx").write_bytes(b"broken")
    async with real(models, *CONTROL) as running:
        load = oip.RepositoryModelLoadRequest(model_name="mended")
        assert "sha256" in (await refused(stub_of(running).RepositoryModelLoad(load))).message
        (broken.folder / "model.onnx").write_bytes(graph)
        await stub_of(running).RepositoryModelLoad(load)
        assert await label(running, GREEN, model="mended") == "green"


async def test_a_version_that_no_worker_has_is_not_listed_as_ready(real, models, refused):
    """Its folder was deleted; then its workers died."""
    second = toy_bundle(models)
    async with real(models, "--workers", "2") as running:
        await until(lambda: running.server.pool.serving_count == 2)
        assert running.server.repository.default_version("colors") == 2
        (second.folder / "manifest.json").unlink()
        for pid in running.server.pool.pids:
            os.kill(pid, signal.SIGKILL)
        await until(lambda: running.server.repository.versions("colors") == [1] and running.server.serving)
        reply = await running.stub.Classify(pb.ClassifyRequest(image=RED), timeout=10)
        assert reply.model_version == "1"
        wanted = pb.ClassifyRequest(image=RED, model_name="colors", model_version="2")
        assert (await refused(running.stub.Classify(wanted, timeout=10))).reason == "MODEL_NOT_FOUND"


async def test_unloading_frees_memory(real, models):
    async with real(models, "--workers", "1", *CONTROL) as running:
        (pid,) = running.server.pool.pids
        stub, used = stub_of(running), []
        for _ in range(12):
            await stub.RepositoryModelUnload(oip.RepositoryModelUnloadRequest(model_name="colors"), timeout=10)
            await stub.RepositoryModelLoad(oip.RepositoryModelLoadRequest(model_name="colors"), timeout=10)
            assert await label(running, RED) == "red"
            used.append(memory(pid).rss_mb)
        assert running.server.pool.pids == [pid]
    assert used[-1] - used[3] < 4


async def test_a_front_that_dies_is_replaced_and_the_others_serve(real, models):
    async with real(models, "--fronts", "2") as running:
        first, _ = running.server.fronts.pids
        os.kill(first, signal.SIGKILL)
        await until(lambda: len(running.server.fronts.pids) == 2 and first not in running.server.fronts.pids)
        for _ in range(8):  # of whichever front the kernel chooses
            async with grpc.aio.insecure_channel(running.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
                health = health_pb2_grpc.HealthStub(channel)
                assert (await health.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True)).status == SERVING


async def test_several_fronts_have_one_page_and_one_control(real, models):
    async with real(models, "--fronts", "2", "--metrics-port", "0", *CONTROL) as running:
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [grpc.aio.insecure_channel(running.address, options) for _ in range(8)]
        stubs = [type(running.stub)(channel) for channel in channels]
        calls = [stub.Classify(pb.ClassifyRequest(image=RED), timeout=10) for stub in stubs for _ in range(5)]
        assert {reply.classifications[0].label for reply in await asyncio.gather(*calls)} == {"red"}
        page = await asyncio.to_thread(running.page)
        assert 'taxon_requests_total{method="Classify",model="colors",outcome="OK"} 40.0' in page
        assert 'taxon_batch_size_sum{model="colors",version="1"} 40.0' in page
        toy_bundle(models, "late")
        await stub_of(running).RepositoryModelLoad(oip.RepositoryModelLoadRequest(model_name="late"), timeout=10)
        await until(lambda: running.server.repository.versions("late") == [1])
        for stub in stubs:
            reply = await stub.Classify(pb.ClassifyRequest(image=BLUE, model_name="late"), timeout=10)
            assert reply.classifications[0].label == "blue"
        for channel in channels:
            await channel.close()
