"""`FeedbackService` on a real server: what is kept, what is refused, and by which reason."""

import asyncio
import json
from pathlib import Path

import grpc
import pytest
from structlog.testing import capture_logs

from taxon import cli
from taxon.bundle import atomic_files
from taxon.client import AsyncClient, Client, feedback_request
from taxon.errors import AnswerNotFoundError
from taxon.feedback.picture_room import name_of
from taxon.feedback.store import Store
from taxon.feedback.stripped import stripped
from taxon.service.errors import StartError
from taxon.service.scheduling.admission import Permits
from taxon.service.workers.worker_process import WorkerProcesses
from taxon.v1.classification_service_pb2 import ClassifyRequest, Features
from taxon.v1.feedback_service_pb2 import CONSENT_SHARE, CONSENT_TRAIN, SubmitFeedbackRequest
from taxon.v1.feedback_service_pb2_grpc import FeedbackServiceStub
from tests.fakes import COLORS, picture, toy_bundle
from tests.waiting import until

RED, BLUE = picture(COLORS["red"]), picture(COLORS["blue"])


def feedback(**changes):
    fields = {"labels": ["blue"], "contributor": "jane", "consent": CONSENT_TRAIN, **changes}
    return SubmitFeedbackRequest(**fields)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "feedback"


def kept(folder):
    store = Store(folder)
    try:
        return list(store.said())
    finally:
        store.close()


def pictures(folder: Path):
    return {path.stem for path in (folder / "pictures").rglob("*.*") if path.is_file()}


async def test_of_an_answer_somebody_says_what_it_shows(serve, models, folder):
    async with serve(models, "--feedback", str(folder)) as running:
        answer = await running.stub.Classify(ClassifyRequest(image=RED))
        request = feedback(
            request_id=answer.request_id, labels=["ruby"], consent=CONSENT_SHARE, license="CC0-1.0", note="shiny"
        )
        reply = await FeedbackServiceStub(running.channel).SubmitFeedback(request)
        assert (reply.request_id, [*reply.proposed_labels]) == (answer.request_id, ["ruby"])
        (said,) = kept(folder)  # once it has answered, it is there
        assert running.counted("taxon_requests_total", method="SubmitFeedback", model="colors", outcome="OK") == 1
    assert (said.labels, said.proposed, said.consent, said.license, said.note) == (
        ("ruby",),
        ("ruby",),
        "share",
        "CC0-1.0",
        "shiny",
    )
    assert (said.model, said.version, said.answered[0], said.unknown) == ("colors", 1, "red", False)
    assert said.score == pytest.approx(answer.classifications[0].score)
    assert pictures(folder) == {said.picture} == {name_of(stripped(RED).content)}


async def test_a_picture_may_be_sent_along_and_sent_again(serve, models, folder):
    async with serve(models, "--feedback", str(folder)) as running:
        stub = FeedbackServiceStub(running.channel)
        first = await stub.SubmitFeedback(feedback(image=RED))
        await stub.SubmitFeedback(feedback(image=RED, labels=[], none_of_these=True))
        assert not first.proposed_labels
    (said,) = kept(folder)
    assert (said.labels, said.answered[0], said.variant) == ((), "red", "fp32")


async def test_an_answer_that_was_captured_is_remembered_by_the_next_server(serve, models, folder, refused):
    flags = "--feedback", str(folder), "--feedback-sample", "1"
    async with serve(models, *flags) as running:
        answer = await running.stub.Classify(ClassifyRequest(image=RED))
    (models.parent / "port").unlink()
    assert pictures(folder) == {name_of(stripped(RED).content)}
    async with serve(models, *flags) as running:
        stub = FeedbackServiceStub(running.channel)
        await stub.SubmitFeedback(feedback(request_id=answer.request_id))
        gone = await refused(stub.SubmitFeedback(feedback(request_id="f" * 32)))
    assert (gone.code, gone.reason) == (grpc.StatusCode.NOT_FOUND, "ANSWER_NOT_FOUND")
    assert gone.others["ResourceInfo"].resource_name == "f" * 32
    assert [said.request_id for said in kept(folder)] == [answer.request_id]


async def test_answers_are_forgotten_in_time_and_who_says_no_is_never_remembered(serve, models, folder, refused):
    async with serve(models, "--feedback", str(folder), "--feedback-sample", "1") as running:
        answer = await running.stub.Classify(ClassifyRequest(image=RED, capture_consent=False))
        stub = FeedbackServiceStub(running.channel)
        no = await refused(stub.SubmitFeedback(feedback(request_id=answer.request_id)))
        assert no.reason == "ANSWER_NOT_FOUND"
    assert pictures(folder) == set()
    (models.parent / "port").unlink()
    async with serve(models, "--feedback", str(folder), "--feedback-recall-seconds", "0") as running:
        answer = await running.stub.Classify(ClassifyRequest(image=RED))
        late = await refused(
            FeedbackServiceStub(running.channel).SubmitFeedback(feedback(request_id=answer.request_id))
        )
        assert late.reason == "ANSWER_NOT_FOUND"


async def test_rules_keep_what_they_say(serve, tmp_path, folder):
    models = tmp_path / "models"
    toy_bundle(models)
    grey = picture((90, 90, 90))  # each of three classes gets a third
    async with serve(
        models, "--feedback", str(folder), "--feedback-below-score", "0.5", "--feedback-consented"
    ) as running:
        for request in (
            ClassifyRequest(image=RED),
            ClassifyRequest(image=grey),
            ClassifyRequest(image=BLUE, capture_consent=True),
            ClassifyRequest(image=BLUE, capture_consent=True),
        ):
            await running.stub.Classify(request)
        await until(lambda: running.counted("taxon_feedback_captures_total", outcome="known") == 1)
        assert running.counted("taxon_feedback_captures_total", outcome="kept") == 2
    assert pictures(folder) == {name_of(stripped(each).content) for each in (grey, BLUE)}
    assert kept(folder) == []


async def test_without_a_folder_nothing_is_taken(serve, models, refused):
    async with serve(models) as running:
        details = await refused(FeedbackServiceStub(running.channel).SubmitFeedback(feedback(image=RED)))
    assert (details.code, details.reason) == (grpc.StatusCode.UNIMPLEMENTED, "UNSUPPORTED")


WRONG = [
    ({}, "subject"),
    ({"request_id": ""}, "subject"),
    ({"image": RED, "labels": []}, "labels"),
    ({"image": RED, "none_of_these": True}, "labels"),
    ({"image": RED, "labels": ["red", "blue"]}, "labels"),
    ({"image": RED, "labels": ["red", "red"]}, "labels"),
    ({"image": RED, "labels": [" red"]}, "labels"),
    ({"image": RED, "labels": ["red|blue"]}, "labels"),
    ({"image": RED, "labels": ["r\ned"]}, "labels"),
    ({"image": RED, "labels": ["r" * 101]}, "labels"),
    ({"image": RED, "contributor": ""}, "contributor"),
    ({"image": RED, "contributor": "ü" * 129}, "contributor"),
    ({"image": RED, "consent": 0}, "consent"),
    ({"image": RED, "consent": 9}, "consent"),
    ({"image": RED, "license": "x" * 65}, "license"),
    ({"image": RED, "note": "x" * 1001}, "note"),
    ({"image": RED, "note": "a\0b"}, "note"),
]


async def test_wrong_fields_are_named(serve, models, folder, refused):
    async with serve(models, "--feedback", str(folder)) as running:
        for changes, field in WRONG:
            details = await refused(FeedbackServiceStub(running.channel).SubmitFeedback(feedback(**changes)))
            assert (details.code, details.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID"), changes
            assert details.others["BadRequest"].field_violations[0].field == field
    assert kept(folder) == []


async def test_pictures_that_cannot_be_used_are_refused(serve, models, folder, refused):
    flags = "--max-picture-bytes", "4000"
    async with serve(models, "--feedback", str(folder), *flags, workers=WorkerProcesses) as running:
        stub = FeedbackServiceStub(running.channel)
        for image, reason in (
            (b"no picture", "IMAGE_UNDECODABLE"),
            (RED[:40], "IMAGE_UNDECODABLE"),
            (bytes(4001), "IMAGE_TOO_LARGE"),
        ):
            assert (await refused(stub.SubmitFeedback(feedback(image=image)))).reason == reason
        missing = await refused(stub.SubmitFeedback(feedback(image=RED, model_name="other")))
        assert missing.reason == "MODEL_NOT_FOUND"
    assert pictures(folder) == set()


async def test_a_contributor_may_not_flood(serve, models, folder, refused):
    async with serve(models, "--feedback", str(folder), "--feedback-max-per-hour", "2") as running:
        stub = FeedbackServiceStub(running.channel)
        for image in (RED, BLUE):
            await stub.SubmitFeedback(feedback(image=image))
        details = await refused(stub.SubmitFeedback(feedback(image=RED)))
        await stub.SubmitFeedback(feedback(image=RED, contributor="joe"))
    assert (details.code, details.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "CONTRIBUTOR_LIMIT_EXCEEDED")
    assert details.metadata == {"maxFeedbackPerHour": "2"}
    assert 0 < details.others["RetryInfo"].retry_delay.ToTimedelta().total_seconds() <= 3600


async def test_a_full_disk_is_told_and_answers_go_on(serve, models, folder, refused, monkeypatch):
    async with serve(models, "--feedback", str(folder), "--feedback-sample", "1") as running:

        def write(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(atomic_files, "write", write)
        with capture_logs() as logs:
            details = await refused(FeedbackServiceStub(running.channel).SubmitFeedback(feedback(image=RED)))
        assert (details.code, details.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "FEEDBACK_STORE_FULL")
        assert [log["log_level"] for log in logs if log["event"] == "feedback cannot be kept"] == ["error"]
        assert (await running.stub.Classify(ClassifyRequest(image=RED))).classifications[0].label == "red"
        await until(lambda: running.counted("taxon_feedback_captures_total", outcome="failed") == 1)
        monkeypatch.undo()
        await FeedbackServiceStub(running.channel).SubmitFeedback(feedback(image=RED))
    assert len(kept(folder)) == len(pictures(folder)) == 1


async def test_more_than_there_may_be_is_told(serve, models, folder, refused):
    async with serve(models, "--feedback", str(folder), "--feedback-max-bytes", "10") as running:
        details = await refused(FeedbackServiceStub(running.channel).SubmitFeedback(feedback(image=RED)))
    assert details.reason == "FEEDBACK_STORE_FULL"


async def test_a_busy_server_takes_no_feedback(serve, models, folder, refused, monkeypatch):
    async with serve(models, "--feedback", str(folder), "--max-queued-requests", "4") as running:
        stub = FeedbackServiceStub(running.channel)
        monkeypatch.setattr(Permits, "free_count", 2)
        details = await refused(stub.SubmitFeedback(feedback(image=RED)))
        assert (details.reason, details.metadata["queuedRequestCount"]) == ("QUEUE_FULL", "2")
        assert (await running.stub.Classify(ClassifyRequest(image=RED))).classifications  # which still comes in
        monkeypatch.setattr(Permits, "free_count", 3)
        await stub.SubmitFeedback(feedback(image=RED))


async def test_features_are_none_of_its_business(serve, tmp_path, folder, refused):
    models = tmp_path / "models"
    toy_bundle(models, features=True)
    async with serve(models, "--feedback", str(folder), "--feedback-sample", "1") as running:
        answer = await running.stub.Classify(ClassifyRequest(features=Features(values=[1, 0, 0, 0])))
        stub = FeedbackServiceStub(running.channel)
        assert (await refused(stub.SubmitFeedback(feedback(request_id=answer.request_id)))).reason == "ANSWER_NOT_FOUND"
        assert (await refused(stub.SubmitFeedback(feedback(image=RED)))).reason == "FIELD_INVALID"


async def test_any_front_knows_what_another_has_answered(serve, models, folder):
    flags = "--feedback", str(folder), "--fronts", "2"
    async with serve(models, *flags, workers=WorkerProcesses) as running:
        answers = []
        for number in range(8):  # each connection is at one front, by chance
            async with grpc.aio.insecure_channel(running.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
                stub = type(running.stub)(channel)
                answers.append(await stub.Classify(ClassifyRequest(image=picture((200 + number, 0, 0)))))
        stub = FeedbackServiceStub(running.channel)
        await asyncio.gather(*(stub.SubmitFeedback(feedback(request_id=answer.request_id)) for answer in answers))
    assert {said.request_id for said in kept(folder)} == {answer.request_id for answer in answers}


async def test_nothing_of_it_is_logged(serve, models, folder):
    with capture_logs() as logs:
        async with serve(models, "--feedback", str(folder), "--log-level", "debug") as running:
            stub = FeedbackServiceStub(running.channel)
            for changes in ({"image": RED}, {"image": b"x"}, {"image": RED, "labels": ["secret", "secrets"]}):
                request = feedback(**{"contributor": "secret jane", "note": "secret", "labels": ["secret"], **changes})
                await asyncio.gather(stub.SubmitFeedback(request), return_exceptions=True)
    assert logs
    assert "secret" not in str(logs)


async def test_a_folder_that_cannot_be_used_ends_the_start(serve, models, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match="--feedback"):
        async with serve(models, "--feedback", str(tmp_path / "file" / "store")):
            pass


async def test_both_clients_and_the_command_send_it(serve, models, folder, tmp_path, capsys):
    file = tmp_path / "red.png"
    file.write_bytes(RED)
    async with serve(models, "--feedback", str(folder)) as running:
        async with AsyncClient(running.address) as client:
            answer = await client.classify(RED)
            said = feedback_request(["ruby"], contributor="jane", request_id=answer.request_id)
            assert [*(await client.submit_feedback(said)).proposed_labels] == ["ruby"]
            with pytest.raises(AnswerNotFoundError):
                await client.submit_feedback(feedback_request(["red"], contributor="jane", request_id="f" * 32))

        def block():
            with Client(running.address) as client:
                client.submit_feedback(feedback_request([], contributor="joe", picture=file, share=True, note="n"))
            words = ["feedback", "submit", "--server", running.address, "--contributor", "jim", "--label", "green"]
            assert cli.main([*words, "--picture", str(file), "--license", "CC0-1.0"]) == 0
            assert json.loads(capsys.readouterr().out.splitlines()[-1])["proposed_labels"] == []
            assert cli.main([*words, "--request-id", "f" * 32]) == 1
            assert "ANSWER_NOT_FOUND" in capsys.readouterr().err
            assert cli.main([*words, "--picture", str(tmp_path / "none.png")]) == 2
            with pytest.raises(ValueError, match="either"):
                feedback_request(["red"], contributor="jane")

        await asyncio.to_thread(block)
    assert [(said.labels, said.consent, said.license, said.note) for said in kept(folder)] == [
        (("ruby",), "train", "", ""),
        ((), "share", "", "n"),
        (("green",), "train", "CC0-1.0", ""),
    ]


async def test_several_labels_fit_where_a_model_has_several(serve, tmp_path, folder):
    models = tmp_path / "models"
    toy_bundle(models, task="multi_label")
    async with serve(models, "--feedback", str(folder)) as running:
        await FeedbackServiceStub(running.channel).SubmitFeedback(feedback(image=RED, labels=["red", "blue"]))
    assert [said.labels for said in kept(folder)] == [("red", "blue")]
