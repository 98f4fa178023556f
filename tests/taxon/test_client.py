"""The client against a server that answers as it is told: deadlines, retries, limits, typed errors."""

import inspect
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import HealthServicer
from grpc_status import rpc_status

from taxon.client import AsyncClient, Client, classify_request
from taxon.errors import (
    DeadlineError,
    InvalidInputError,
    MessageTooLargeError,
    ModelNotFoundError,
    OverloadedError,
    ServerError,
    TaxonError,
    UnavailableError,
    without_details,
)
from taxon.v1 import classification_service_pb2 as pb
from taxon.v1 import classification_service_pb2_grpc as pb_grpc

Serving = health_pb2.HealthCheckResponse


def status(code: int, reason: str, *details, **metadata: str) -> status_pb2.Status:
    made = status_pb2.Status(code=code, message="what happened")
    for detail in (error_details_pb2.ErrorInfo(reason=reason, domain="taxon", metadata=metadata), *details):
        packed = AnyMessage()
        packed.Pack(detail)
        made.details.append(packed)
    return made


@dataclass
class Scripted(pb_grpc.ClassificationServiceServicer):
    """Fails with `failures` one after the other, then answers; keeps what it was asked.

    A `pause_ms` is what its failures tell gRPC to wait for before a retry, in the place of the client's own pauses.
    """

    failures: list[status_pb2.Status] = field(default_factory=list)
    pause_ms: int | None = None
    requests: list = field(default_factory=list)
    deadlines: list[float] = field(default_factory=list)

    def _take(self, request, context) -> None:
        self.requests.append(request)
        self.deadlines.append(context.time_remaining())
        if self.failures:
            failure = rpc_status.to_status(self.failures.pop(0))
            if self.pause_ms is not None:
                pushback = ("grpc-retry-pushback-ms", str(self.pause_ms))
                failure = failure._replace(trailing_metadata=(*failure.trailing_metadata, pushback))
            context.abort_with_status(failure)

    def Classify(self, request, context):  # noqa: N802 - gRPC's name
        self._take(request, context)
        return pb.ClassifyResponse(model_name=request.model_name, classifications=[pb.Classification(label="cat")])

    def BatchClassify(self, request, context):  # noqa: N802 - gRPC's name
        self._take(request, context)
        bad = status(code_pb2.INVALID_ARGUMENT, "IMAGE_UNDECODABLE", detectedFormat="GIF")
        return pb.BatchClassifyResponse(
            results=[
                pb.BatchClassifyResult(response=pb.ClassifyResponse(request_id="1"))
                if entry.image
                else pb.BatchClassifyResult(error=bad)
                for entry in request.requests
            ]
        )

    def ListModels(self, request, context):  # noqa: N802 - gRPC's name
        self._take(request, context)
        page = int(request.page_token or 0)
        return pb.ListModelsResponse(models=[pb.Model(name=f"m{page}")], next_page_token="1" if page == 0 else "")

    def GetModel(self, request, context):  # noqa: N802 - gRPC's name
        self._take(request, context)
        return pb.GetModelResponse(model=pb.Model(name=request.model_name, version=request.model_version))


@pytest.fixture
def scripted():
    """(servicer, address)"""
    servicer = Scripted()
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", 64 * 2**20)])
    pb_grpc.add_ClassificationServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield servicer, f"127.0.0.1:{port}"
    server.stop(None).wait()


def test_a_picture_may_be_bytes_or_a_path(scripted, tmp_path):
    servicer, address = scripted
    path = tmp_path / "cat.jpg"
    path.write_bytes(b"JPEG")
    with Client(address) as client:
        client.classify(b"JPEG")
        client.classify(path)
        client.classify(str(path), model="pets", version="7", max_results=2, min_score=0.0, routing_key="u")
    assert [request.image for request in servicer.requests] == [b"JPEG"] * 3
    assert not servicer.requests[0].HasField("min_score")
    last = servicer.requests[-1]
    assert (last.model_name, last.model_version, last.max_results) == ("pets", "7", 2)
    assert last.HasField("min_score")
    assert [request.routing_key for request in servicer.requests] == ["", "", "u"]


def test_features_instead_of_a_picture(scripted):
    servicer, address = scripted
    with Client(address) as client:
        client.classify(features=[1.0, 2.0])
    assert list(servicer.requests[0].features.values) == [1.0, 2.0]


@pytest.mark.parametrize("arguments", [{}, {"picture": b"x", "features": [1.0]}])
def test_exactly_one_input_must_be_given(arguments):
    with pytest.raises(ValueError, match="either"):
        classify_request(**arguments)


def test_every_call_has_a_deadline(scripted):
    servicer, address = scripted
    with Client(address, timeout_s=5) as client:
        client.classify(b"x")
        client.classify(b"x", timeout_s=2)
        client.list_models()
        client.get_model()
    assert [round(deadline) for deadline in servicer.deadlines] == [5, 2, 5, 5, 5]


def test_pages_are_read_to_the_end(scripted):
    with Client(scripted[1]) as client:
        assert [model.name for model in client.list_models()] == ["m0", "m1"]
        assert client.get_model("pets", "7").version == "7"


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (status(code_pb2.INVALID_ARGUMENT, "FIELD_INVALID"), InvalidInputError),
        (status(code_pb2.NOT_FOUND, "MODEL_NOT_FOUND"), ModelNotFoundError),
        (status(code_pb2.RESOURCE_EXHAUSTED, "QUEUE_FULL"), OverloadedError),
        (status(code_pb2.DEADLINE_EXCEEDED, "DEADLINE_TOO_SHORT"), DeadlineError),
        (status(code_pb2.INTERNAL, "INTERNAL"), ServerError),
        (status(code_pb2.DATA_LOSS, "LATER"), ServerError),
    ],
)
async def test_errors_are_typed_and_not_retried(scripted, failure, kind):
    servicer, address = scripted
    servicer.failures = [failure, failure]
    with Client(address) as client, pytest.raises(kind) as caught:
        client.classify(b"x")
    async with AsyncClient(address) as client:
        with pytest.raises(kind) as caught_async:
            await client.classify(b"x")
    for error in (caught.value, caught_async.value):
        assert type(error) is kind
        assert error.message == "what happened"
        assert error.reason in str(error)
    assert len(servicer.requests) == 2


def test_an_error_carries_its_facts(scripted):
    servicer, address = scripted
    details = (
        error_details_pb2.RetryInfo(retry_delay=Duration(nanos=250_000_000)),
        error_details_pb2.RequestInfo(request_id="r-1"),
        error_details_pb2.BadRequest(
            field_violations=[error_details_pb2.BadRequest.FieldViolation(field="image", description="too big")]
        ),
    )
    servicer.failures = [status(code_pb2.RESOURCE_EXHAUSTED, "QUEUE_FULL", *details, maxQueuedRequestCount="64")]
    with Client(address) as client, pytest.raises(OverloadedError) as caught:
        client.classify(b"x")
    error = caught.value
    assert error.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (error.reason, error.metadata) == ("QUEUE_FULL", {"maxQueuedRequestCount": "64"})
    assert (error.retry_after_s, error.request_id, error.fields) == (0.25, "r-1", {"image": "too big"})


def test_unavailable_is_retried(scripted):
    servicer, address = scripted
    servicer.failures = [status(code_pb2.UNAVAILABLE, "NOT_SERVING")] * 2
    with Client(address) as client:
        assert client.classify(b"x").classifications[0].label == "cat"
    assert len(servicer.requests) == 3


def test_what_a_stopping_server_cancelled_is_retried(scripted):
    servicer, address = scripted
    servicer.failures = [status(code_pb2.CANCELLED, "")]
    with Client(address) as client:
        assert client.classify(b"x").classifications[0].label == "cat"
    assert len(servicer.requests) == 2


def test_while_most_calls_fail_there_are_fewer_retries(scripted):
    servicer, address = scripted
    servicer.failures, servicer.pause_ms = [status(code_pb2.UNAVAILABLE, "NOT_SERVING")] * 1000, 1
    with Client(address) as client:
        for _ in range(60):
            with pytest.raises(UnavailableError):
                client.classify(b"x")
    assert 60 < len(servicer.requests) < 60 + 2 * 50 + 10


def test_who_says_not_serving_gets_no_calls():
    """As a server does that starts or leaves, while calls still reach it."""
    servers, servicers, addresses = [], [], []
    for serving in (False, True):
        servicer, health = Scripted(), HealthServicer()
        health.set(
            "", health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        server = grpc.server(ThreadPoolExecutor(4))
        pb_grpc.add_ClassificationServiceServicer_to_server(servicer, server)
        health_pb2_grpc.add_HealthServicer_to_server(health, server)
        addresses.append(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
        server.start()
        servers.append(server)
        servicers.append(servicer)
    with Client("ipv4:" + ",".join(addresses)) as client:
        for _ in range(10):
            client.classify(b"x")
    assert [len(servicer.requests) for servicer in servicers] == [0, 10]
    for server in servers:
        server.stop(None).wait()


def test_no_server_is_unavailable_without_a_reason():
    with Client("127.0.0.1:1") as client, pytest.raises(UnavailableError) as caught:
        client.classify(b"x", timeout_s=5)
    assert caught.value.reason == ""


def test_pictures_beyond_grpcs_own_default_limit_pass(scripted):
    servicer, address = scripted
    with Client(address) as client:
        client.classify(bytes(6 * 2**20))
    assert len(servicer.requests[0].image) == 6 * 2**20


async def test_what_is_larger_than_any_message_is_never_sent(scripted, tmp_path):
    """A retry could not succeed, so it is not called overload."""
    servicer, address = scripted
    huge = tmp_path / "huge.jpg"
    with huge.open("wb") as file:
        file.truncate(70 * 2**20)
    batch = [classify_request(bytes(33 * 2**20))] * 2
    with Client(address) as client:
        for call in (lambda: client.classify(huge), lambda: client.classify(bytes(70 * 2**20))):
            with pytest.raises(MessageTooLargeError, match="the request has 734003") as caught:
                call()
            assert isinstance(caught.value, InvalidInputError)
        with pytest.raises(MessageTooLargeError):
            client.classify_batch(batch)
    async with AsyncClient(address) as asynchronous:
        with pytest.raises(MessageTooLargeError):
            await asynchronous.classify(huge)
    assert servicer.requests == []


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Received message larger than max (70000000 vs. 67108864)", MessageTooLargeError),
        ("SERVER: Received message larger than max (5 vs. 4)", MessageTooLargeError),
        ("overloaded", OverloadedError),
    ],
)
def test_grpcs_own_refusals_are_told_apart(text, kind):
    assert type(without_details(grpc.StatusCode.RESOURCE_EXHAUSTED, text)) is kind


def test_a_batch_has_an_answer_or_an_error_for_each(scripted):
    with Client(scripted[1]) as client:
        good, bad = client.classify_batch([classify_request(b"x"), pb.ClassifyRequest()])
    assert isinstance(good, pb.ClassifyResponse)
    assert isinstance(bad, TaxonError)
    assert bad.reason == "IMAGE_UNDECODABLE"


def test_both_clients_take_the_same_arguments():
    methods = {name for name in vars(Client) if not name.startswith("_")}
    assert methods == {name for name in vars(AsyncClient) if not name.startswith("_")}
    for name in {*methods, "__init__"}:
        blocking, awaited = (inspect.signature(getattr(kind, name)) for kind in (Client, AsyncClient))
        assert blocking.parameters == awaited.parameters


async def test_both_clients_batch_alike(scripted):
    """An error for one input is its outcome, not the call's."""
    requests = [classify_request(b"x"), pb.ClassifyRequest()]
    with Client(scripted[1]) as client:
        blocking = client.classify_batch(iter(requests))
    async with AsyncClient(scripted[1]) as client:
        awaited = await client.classify_batch(iter(requests))
    for good, bad in (blocking, awaited):
        assert good.request_id == "1"
        assert (type(bad), bad.metadata) == (InvalidInputError, {"detectedFormat": "GIF"})


async def test_the_asynchronous_client_does_the_same(scripted):
    servicer, address = scripted
    async with AsyncClient(address, timeout_s=5) as client:
        assert (await client.classify(b"x", model="pets")).model_name == "pets"
        assert (await client.classify_batch([classify_request(b"x")]))[0].request_id == "1"
        assert [model.name for model in await client.list_models()] == ["m0", "m1"]
        assert (await client.get_model("pets", "7")).name == "pets"
    assert all(4 < deadline < 6 for deadline in servicer.deadlines)


async def test_many_pictures_are_answered_one_by_one(scripted, tmp_path):
    _, address = scripted
    (tmp_path / "cat.jpg").write_bytes(b"x")
    given = [b"x", str(tmp_path / "cat.jpg"), tmp_path / "gone.jpg", bytes(65 * 2**20)]
    with Client(address) as client:
        blocking = list(client.classify_many(iter(given), model="pets", concurrency=2))
    async with AsyncClient(address) as client:
        awaited = [found async for found in client.classify_many(iter(given), model="pets", concurrency=2)]
    for found in (blocking, awaited):
        answers = {id(picture): answer for picture, answer in found}
        assert [answers[id(picture)].model_name for picture in given[:2]] == ["pets"] * 2
        assert isinstance(answers[id(given[2])], FileNotFoundError)
        assert isinstance(answers[id(given[3])], MessageTooLargeError)
