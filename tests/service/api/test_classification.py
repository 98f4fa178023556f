"""The API as a caller sees it: a real server in this process, a real channel, toy models."""

import asyncio
import math
import threading
from io import BytesIO

import grpc
import numpy as np
import pytest
from PIL import Image

from taxon.bundle.manifest import Thresholds
from taxon.v1 import classification_service_pb2 as pb
from tests.fakes import COLORS, picture, toy_bundle, toy_scores
from tests.service.thread_workers import gated
from tests.waiting import until

RED, GREEN, BLUE = (picture(color) for color in COLORS.values())
INVALID = grpc.StatusCode.INVALID_ARGUMENT


def encoded(image: Image.Image, form: str, **options) -> bytes:
    file = BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def huge_png() -> bytes:
    """A 30,000 x 30,000 PNG of a few hundred kilobytes."""
    return encoded(Image.new("1", (30_000, 30_000)), "PNG")


async def test_classify_answers_with_ranked_labels_and_timing(serve, models):
    async with serve(models) as running:
        reply = await running.stub.Classify(pb.ClassifyRequest(image=GREEN), timeout=5)
    assert [found.label for found in reply.classifications] == ["green", "red", "blue"]
    assert [found.class_index for found in reply.classifications] == [1, 0, 2]
    expected = toy_scores(np.array([0.0, 10.0, 0.0]))
    assert [found.score for found in reply.classifications] == pytest.approx(
        [expected[1], expected[0], expected[2]], abs=1e-6
    )
    assert (reply.model_name, reply.model_version, reply.variant) == ("colors", "1", "fp32")
    assert len(reply.request_id) == 32
    timing = reply.timing
    stages = timing.preprocess_duration, timing.queue_duration, timing.inference_duration
    assert sum(stage.ToTimedelta().total_seconds() for stage in stages) > 0
    assert max(stages, key=lambda stage: stage.nanos).nanos <= timing.total_duration.nanos
    assert timing.batch_size == 1


async def test_every_answer_has_its_own_request_id(serve, models):
    async with serve(models) as running:
        replies = [await running.stub.Classify(pb.ClassifyRequest(image=RED)) for _ in range(3)]
    assert len({reply.request_id for reply in replies}) == 3


@pytest.mark.parametrize(
    ("choice", "labels"),
    [
        ({}, ["red", "green", "blue"]),
        ({"max_results": 1}, ["red"]),
        ({"max_results": 2_147_483_647}, ["red", "green", "blue"]),
        ({"min_score": 0.5}, ["red"]),
        ({"min_score": 0.0}, ["red", "green", "blue"]),
        ({"min_score": 1.0}, []),
    ],
)
async def test_choice_of_results(serve, models, choice, labels):
    async with serve(models) as running:
        reply = await running.stub.Classify(pb.ClassifyRequest(image=RED, **choice))
    assert [found.label for found in reply.classifications] == labels


@pytest.mark.parametrize(
    ("request_fields", "field"),
    [
        ({}, "input"),
        ({"image": RED, "max_results": -1}, "max_results"),
        ({"image": RED, "max_results": -(2**31)}, "max_results"),
        ({"image": RED, "min_score": 1.5}, "min_score"),
        ({"image": RED, "min_score": -0.1}, "min_score"),
        ({"image": RED, "min_score": math.nan}, "min_score"),
        ({"features": pb.Features(values=[1.0, 2.0, 3.0, 4.0])}, "features"),
    ],
)
async def test_invalid_fields_are_named(serve, models, refused, request_fields, field):
    async with serve(models) as running:
        error = await refused(running.stub.Classify(pb.ClassifyRequest(**request_fields)))
    assert (error.code, error.reason) == (INVALID, "FIELD_INVALID")
    (violation,) = error.others["BadRequest"].field_violations
    assert (violation.field, violation.reason) == (field, "FIELD_INVALID")
    assert violation.description


@pytest.mark.parametrize(
    ("image", "detected_format"),
    [(b"", ""), (b"just some text, at some length", ""), (RED[:20], ""), (RED[:-30], "PNG")],
    ids=["empty", "text", "header only", "truncated"],
)
async def test_undecodable_pictures(serve, models, refused, image, detected_format):
    async with serve(models) as running:
        error = await refused(running.stub.Classify(pb.ClassifyRequest(image=image)))
        assert (await running.stub.Classify(pb.ClassifyRequest(image=RED))).classifications[0].label == "red"
    assert (error.code, error.reason) == (INVALID, "IMAGE_UNDECODABLE")
    assert error.metadata["detectedFormat"] in (detected_format, "")
    assert error.others["BadRequest"].field_violations[0].field == "image"


async def test_a_decode_bomb_is_refused_by_its_header(serve, models, refused):
    async with serve(models) as running:
        error = await refused(running.stub.Classify(pb.ClassifyRequest(image=huge_png())))
    assert (error.code, error.reason) == (INVALID, "IMAGE_TOO_LARGE")
    assert error.metadata["pixelCount"] == "900000000"
    assert error.metadata["maxPixelCount"] == "50000000"
    assert error.others["BadRequest"].field_violations[0].field == "image"


async def test_too_many_bytes_get_an_explanation(serve, models, refused):
    async with serve(models) as running:
        error = await refused(running.stub.Classify(pb.ClassifyRequest(image=RED + bytes(8 * 2**20))))
    assert (error.code, error.reason) == (INVALID, "IMAGE_TOO_LARGE")
    assert error.metadata == {"byteCount": str(len(RED) + 8 * 2**20), "maxByteCount": str(8 * 2**20)}


async def test_over_the_transport_limit_grpc_answers(serve, models):
    async with serve(models, "--max-message-bytes", "10000") as running:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await running.stub.Classify(pb.ClassifyRequest(image=bytes(20_000)))
    assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("form", ["GIF", "WEBP"])
async def test_an_animation_is_answered_from_its_first_frame(serve, models, form):
    frames = [Image.new("RGB", (8, 8), color) for color in COLORS.values()]
    moving = encoded(frames[0], form, save_all=True, append_images=frames[1:], duration=100)
    async with serve(models) as running:
        reply = await running.stub.Classify(pb.ClassifyRequest(image=moving))
    assert reply.classifications[0].label == "red"


async def test_one_pixel_is_a_picture(serve, models):
    async with serve(models) as running:
        reply = await running.stub.Classify(pb.ClassifyRequest(image=picture(COLORS["blue"], size=(1, 1))))
    assert reply.classifications[0].label == "blue"


@pytest.mark.parametrize(
    ("name", "version", "resource"),
    [
        ("birds", "", "birds"),
        ("colors", "2", "colors/2"),
        ("colors", "stable", "colors/stable"),
        ("colors", "../../etc", "colors/../../etc"),
        ("colors", "0", "colors/0"),
        ("x" * 100_000, "", "x" * 100 + "…"),
    ],
)
@pytest.mark.parametrize("method", ["Classify", "GetModel"])
async def test_unknown_models_and_versions(serve, models, refused, method, name, version, resource):
    async with serve(models) as running:
        if method == "Classify":
            call = running.stub.Classify(pb.ClassifyRequest(image=RED, model_name=name, model_version=version))
        else:
            call = running.stub.GetModel(pb.GetModelRequest(model_name=name, model_version=version))
        error = await refused(call)
    assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
    assert error.others["ResourceInfo"].resource_name == resource
    assert error.others["ResourceInfo"].resource_type == "taxon.v1.Model"


async def test_a_model_must_be_named_among_several(serve, models, refused):
    toy_bundle(models, "more")
    async with serve(models) as running:
        error = await refused(running.stub.Classify(pb.ClassifyRequest(image=RED)))
        reply = await running.stub.Classify(pb.ClassifyRequest(image=RED, model_name="more"))
    assert (error.code, error.reason) == (INVALID, "FIELD_INVALID")
    assert error.others["BadRequest"].field_violations[0].field == "model_name"
    assert reply.model_name == "more"


async def test_features_in_scores_out(serve, tmp_path, refused):
    toy_bundle(tmp_path / "models", "numbers", features=True)
    async with serve(tmp_path / "models") as running:

        def call(*values):
            return running.stub.Classify(pb.ClassifyRequest(features=pb.Features(values=values)))

        assert (await call(0, 0, 5, 9)).classifications[0].label == "blue"
        for bad, field in [
            (call(1, 2, 3), "features.values"),
            (call(), "features.values"),
            (call(1, math.inf, 3, 4), "features.values"),
            (running.stub.Classify(pb.ClassifyRequest(image=RED)), "image"),
        ]:
            error = await refused(bad)
            assert (error.code, error.reason) == (INVALID, "FIELD_INVALID")
            assert error.others["BadRequest"].field_violations[0].field == field


async def test_unknown_pictures_are_said_to_be_unknown(serve, tmp_path):
    toy_bundle(tmp_path / "models", thresholds=Thresholds(unknown=0.9))
    async with serve(tmp_path / "models") as running:
        assert not (await running.stub.Classify(pb.ClassifyRequest(image=RED))).unknown
        grey = await running.stub.Classify(pb.ClassifyRequest(image=picture((90, 90, 90))))
    assert grey.unknown
    assert len(grey.classifications) == 3


@pytest.mark.parametrize("flags", [(), ("--fronts", "2")])
async def test_pictures_unlike_those_of_training_are_unknown(serve, tmp_path, flags):
    """However sure the model is of a class: of a grey picture it is not, of a dark red it would be."""
    toy_bundle(tmp_path / "models", thresholds=Thresholds(unknown=0.9, unknown_by="familiarity"))
    async with serve(tmp_path / "models") as running:
        red = await running.stub.Classify(pb.ClassifyRequest(image=RED))
        pink = await running.stub.Classify(pb.ClassifyRequest(image=picture((255, 0, 150))))
        batch = await running.stub.BatchClassify(pb.BatchClassifyRequest(requests=[pb.ClassifyRequest(image=RED)]))
    assert (red.unknown, red.familiarity) == (False, pytest.approx(1.0))
    assert (pink.unknown, pink.familiarity) == (True, pytest.approx(255 / math.hypot(255, 150)))
    assert (pink.classifications[0].label, len(pink.classifications)) == ("red", 3)
    assert batch.results[0].response.familiarity == red.familiarity


async def test_a_model_without_a_judge_says_no_familiarity(serve, models):
    async with serve(models) as running:
        assert not (await running.stub.Classify(pb.ClassifyRequest(image=RED))).HasField("familiarity")


async def test_multi_label_scores_are_held_to_each_labels_threshold(serve, tmp_path):
    toy_bundle(tmp_path / "models", task="multi_label", thresholds=Thresholds(labels=(0.9, 0.4, 0.6)))
    async with serve(tmp_path / "models") as running:
        reply = await running.stub.Classify(pb.ClassifyRequest(image=picture((255, 0, 0))))
        all_scores = await running.stub.Classify(pb.ClassifyRequest(image=picture((255, 0, 0)), min_score=0.0))
    assert [found.label for found in reply.classifications] == ["red", "green"]
    assert len(all_scores.classifications) == 3


async def test_batch_classify_keeps_order_and_isolates_failures(serve, models, unpacked):
    entries = [
        pb.ClassifyRequest(image=RED),
        pb.ClassifyRequest(image=b"not a picture"),
        pb.ClassifyRequest(image=BLUE, max_results=1),
        pb.ClassifyRequest(image=GREEN, model_name="birds"),
        pb.ClassifyRequest(image=GREEN, max_results=-1),
        pb.ClassifyRequest(image=GREEN),
    ]
    async with serve(models) as running:
        reply = await running.stub.BatchClassify(pb.BatchClassifyRequest(requests=entries))
    outcomes = [
        result.response.classifications[0].label
        if result.WhichOneof("outcome") == "response"
        else unpacked(result.error).reason
        for result in reply.results
    ]
    assert outcomes == ["red", "IMAGE_UNDECODABLE", "blue", "MODEL_NOT_FOUND", "FIELD_INVALID", "green"]


async def test_batch_classify_takes_256_entries(serve, models):
    entries = [pb.ClassifyRequest(image=(RED, GREEN)[index % 2]) for index in range(256)]
    async with serve(models) as running:
        reply = await running.stub.BatchClassify(pb.BatchClassifyRequest(requests=entries))
    assert [result.response.classifications[0].label for result in reply.results] == ["red", "green"] * 128


@pytest.mark.parametrize(("permits", "at_once"), [(256, 32), (5, 5)])
async def test_the_entries_of_a_batch_take_turns(serve, models, permits, at_once):
    """A call of many entries leaves permits to others, and is never refused because of itself."""
    entries = [pb.ClassifyRequest(image=RED)] * 256
    gate = threading.Event()
    async with serve(models, "--max-queued-requests", str(permits), workers=gated(gate)) as running:
        call = asyncio.ensure_future(running.stub.BatchClassify(pb.BatchClassifyRequest(requests=entries), timeout=30))
        await until(lambda: running.counted("taxon_in_flight_inputs") == at_once)
        for _ in range(10):
            await running.stub.GetModel(pb.GetModelRequest())
        assert running.counted("taxon_in_flight_inputs") == at_once
        gate.set()
        reply = await call
    assert {result.WhichOneof("outcome") for result in reply.results} == {"response"}


async def test_other_callers_get_in_beside_a_large_batch(serve, models):
    entries = [pb.ClassifyRequest(image=picture((10, 250, 10), size=(800, 600)))] * 256
    async with serve(models, "--max-queued-requests", "40") as running:
        batch = running.stub.BatchClassify(pb.BatchClassifyRequest(requests=entries), timeout=30)
        done = 0
        while not batch.done():
            reply = await running.stub.Classify(pb.ClassifyRequest(image=RED), timeout=10)
            assert reply.classifications[0].label == "red"
            done += 1
        reply = await batch
    assert done > 5
    assert {result.response.classifications[0].label for result in reply.results} == {"green"}


async def test_a_caller_who_leaves_takes_every_entry_along(serve, models):
    gate = threading.Event()
    async with serve(models, "--workers", "1", workers=gated(gate)) as running:
        entries = [pb.ClassifyRequest(image=GREEN)] * 256
        call = running.stub.BatchClassify(pb.BatchClassifyRequest(requests=entries), timeout=30)
        await until(lambda: running.counted("taxon_in_flight_inputs") == 32)
        assert running.server.pool.dispatcher.waiting_count > 0
        call.cancel()
        await until(lambda: running.counted("taxon_in_flight_inputs") == 0)
        assert running.server.pool.dispatcher.waiting_count == 0
        gate.set()
        reply = await running.stub.Classify(pb.ClassifyRequest(image=RED), timeout=10)
        assert running.counted("taxon_batch_size_sum", model="colors", version="1") == 1
    assert reply.classifications[0].label == "red"


@pytest.mark.parametrize("count", [0, 257])
async def test_batch_classify_refuses_other_counts(serve, models, refused, count):
    request = pb.BatchClassifyRequest(requests=[pb.ClassifyRequest(image=RED)] * count)
    async with serve(models) as running:
        error = await refused(running.stub.BatchClassify(request))
    assert (error.code, error.reason) == (INVALID, "FIELD_INVALID")
    assert error.others["BadRequest"].field_violations[0].field == "requests"


async def test_good_traffic_goes_on_among_bad(serve, models):
    bad = [b"", b"text", RED[:-30], huge_png(), bytes(9 * 2**20)]
    async with serve(models) as running:
        good_calls = [running.stub.Classify(pb.ClassifyRequest(image=GREEN), timeout=10) for _ in range(40)]
        bad_calls = [running.stub.Classify(pb.ClassifyRequest(image=image), timeout=10) for image in bad * 4]
        good = await asyncio.gather(*good_calls)
        failed = await asyncio.gather(*bad_calls, return_exceptions=True)
    assert {reply.classifications[0].label for reply in good} == {"green"}
    assert {error.code() for error in failed} == {INVALID}


async def test_answers_do_not_depend_on_the_batch(serve, models):
    """Many callers at once get what each would get alone."""
    shades = [(level, 255 - level, 40) for level in range(0, 255, 5)]
    async with serve(models) as running:

        async def scores(shade):
            reply = await running.stub.Classify(pb.ClassifyRequest(image=picture(shade)))
            return {found.label: found.score for found in reply.classifications}

        alone = [await scores(shade) for shade in shades]
        together = await asyncio.gather(*(scores(shade) for shade in shades))
    for one, other in zip(alone, together, strict=True):
        assert one == pytest.approx(other, abs=1e-6)
