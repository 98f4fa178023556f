"""A late answer is asked for twice, within a budget; the first answer counts."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from taxon import hedging
from taxon.client import AsyncClient, Client
from taxon.errors import DeadlineError, InvalidInputError
from taxon.v1 import classification_service_pb2 as pb
from taxon.v1 import classification_service_pb2_grpc as pb_grpc

AFTER_S = 0.05


class FirstIsLate(pb_grpc.ClassificationServiceServicer):
    """Answers the first call when it is let go, and the others at once: with what `fails` says, if anything."""

    def __init__(self) -> None:
        self.count, self.go, self.cancelled, self.fails = 0, threading.Event(), threading.Event(), None

    def Classify(self, request, context):  # noqa: N802 - gRPC's name
        self.count += 1
        if self.count == 1:
            context.add_callback(self.cancelled.set)
            self.go.wait(10)
            return pb.ClassifyResponse(request_id="first")
        if self.fails:
            context.abort(self.fails, "no")
        return pb.ClassifyResponse(request_id=str(self.count))


@pytest.fixture
def late():
    servicer = FirstIsLate()
    server = grpc.server(ThreadPoolExecutor(4))
    pb_grpc.add_ClassificationServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield servicer, f"127.0.0.1:{port}"
    servicer.go.set()
    server.stop(None).wait()


@pytest.fixture(params=["blocking", "awaited"])
def ask(request):
    """Classifies with one of the clients."""

    async def classify(address, **options):
        if request.param == "awaited":
            async with AsyncClient(address, hedge_after_s=AFTER_S) as client:
                return await client.classify(b"x", **options)
        with Client(address, hedge_after_s=AFTER_S) as client:
            return client.classify(b"x", **options)

    return classify


async def test_the_second_answer_counts_if_it_is_first_and_the_other_call_ends(late, ask):
    servicer, address = late
    assert (await ask(address)).request_id == "2"
    assert servicer.cancelled.wait(10)


async def test_a_second_call_that_fails_is_not_the_answer(late, ask):
    servicer, address = late
    servicer.fails = grpc.StatusCode.INVALID_ARGUMENT
    threading.Timer(4 * AFTER_S, servicer.go.set).start()
    assert (await ask(address)).request_id == "first"
    assert servicer.count == 2


async def test_what_is_answered_in_time_is_asked_once(late, ask):
    servicer, address = late
    servicer.count = 1
    assert (await ask(address)).request_id == "2"
    servicer.fails = grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(InvalidInputError):
        await ask(address)
    assert servicer.count == 3


async def test_a_deadline_is_the_callers_for_both(late, ask, monkeypatch):
    servicer, address = late
    monkeypatch.setattr(hedging, "MOST_SAVED", 0)
    began = time.monotonic()
    with pytest.raises(DeadlineError):
        await ask(address, timeout_s=0.3)
    assert time.monotonic() - began < 5
    assert servicer.count == 1  # there was no budget


def test_one_call_in_ten_may_be_doubled():
    kept = hedging.Hedging(1.0)
    allowed = sum(kept._allows() for _ in range(50))
    assert allowed == 10
    for _ in range(10):
        kept._count()
    assert [kept._allows(), kept._allows()] == [True, False]
