"""Answers of a server that is not always there."""

import grpc
import pytest
from google.rpc import code_pb2

from taxon.choice import Choice
from taxon.connection import Connection
from taxon.errors import AccessError, UnavailableError
from taxon.table import served
from tests.taxon.test_client import Scripted, scripted, status  # noqa: F401 - a fixture


def rows(address, names, base="", concurrency=4):
    chunks = served.answers(iter([names]), base, Connection(address), Choice("pets", "7", 3), 5.0, concurrency)
    return {row.path: row for chunk in chunks for row in chunk}


@pytest.fixture
def names(tmp_path):
    for index in range(9):
        (tmp_path / f"{index}.jpg").write_bytes(b"x")
    return [f"{index}.jpg" for index in range(9)]


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(served, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(served, "LONGEST_PAUSE_S", 0.002)


def test_every_file_has_a_row(scripted, names, tmp_path):  # noqa: F811 - the fixture
    servicer, address = scripted
    found = rows(address, [*names, "gone.jpg"], str(tmp_path))
    assert [found[name].label for name in names] == ["cat"] * 9
    assert found["gone.jpg"].error == "FILE_UNREADABLE"
    assert {(request.model_name, request.model_version) for request in servicer.requests} == {("pets", "7")}


def test_what_is_the_pictures_fault_is_its_row(scripted, names, tmp_path):  # noqa: F811 - the fixture
    servicer, address = scripted
    servicer.failures = [status(code_pb2.INVALID_ARGUMENT, "IMAGE_UNDECODABLE")]
    assert [row.error for row in rows(address, names[:1], str(tmp_path)).values()] == ["IMAGE_UNDECODABLE"]
    servicer.failures = [status(code_pb2.INTERNAL, "INFERENCE_FAILED")]
    assert [row.error for row in rows(address, names[:1], str(tmp_path)).values()] == ["INFERENCE_FAILED"]
    servicer.failures = [status(code_pb2.DEADLINE_EXCEEDED, "DEADLINE_TOO_SHORT")] * served.TRIES
    assert [row.error for row in rows(address, names[:1], str(tmp_path)).values()] == ["DEADLINE_TOO_SHORT"]


def test_a_busy_server_is_waited_for(scripted, names, tmp_path):  # noqa: F811 - the fixture
    servicer, address = scripted
    servicer.failures = [status(code_pb2.RESOURCE_EXHAUSTED, "QUEUE_FULL")] * 20
    assert {row.error for row in rows(address, names, str(tmp_path)).values()} == {""}


def test_a_server_that_stays_away_or_refuses_ends_the_run(scripted, names, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(served, "PATIENCE_S", 0.0)
    servicer, address = scripted
    with pytest.raises(UnavailableError):
        rows("127.0.0.1:1", names, str(tmp_path))
    servicer.failures = [status(code_pb2.PERMISSION_DENIED, "PERMISSION_DENIED")]
    with pytest.raises(AccessError):
        rows(address, names, str(tmp_path), concurrency=1)


def test_a_table_is_of_one_version():
    class Pinning(Scripted):
        def GetModel(self, request, context):  # noqa: N802 - gRPC's name
            response = super().GetModel(request, context)
            response.model.version = "12"
            response.model.input.image.height = 8
            return response

    from concurrent.futures import ThreadPoolExecutor

    from taxon.v1 import classification_service_pb2_grpc as pb_grpc

    server = grpc.server(ThreadPoolExecutor(1))
    pb_grpc.add_ClassificationServiceServicer_to_server(Pinning(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    assert served.pinned(Connection(f"127.0.0.1:{port}"), Choice("pets"), 5.0) == ("pets", "12")
    server.stop(None).wait()
