"""The generator against real gRPC servers."""

import ssl
import threading
import time

import grpc
import pytest

from taxon.bench import load
from taxon.bench.figures import figures
from taxon.bench.http2 import Target, message
from taxon.bench.load import Plan
from taxon.bench.wire import peer
from tests.taxon.bench.conftest import PATH, echoing

BODIES = [message(b"short"), message(b"x" * 200_000)]  # the second needs more than one window


def test_callers_wait_for_their_answers(echo):
    outcome = load.run(echo, BODIES, Plan(0.3, 0.0, callers=3, connections=2))
    told = figures(outcome)
    assert set(told["statuses"]) == {"OK"}
    assert told["answered"] == len(outcome.status) > 20


def test_an_open_loop_offers_its_rate_whatever_comes_back(echo):
    told = figures(load.run(echo, BODIES, Plan(0.5, 0.1, rate=200.0)))
    assert 140 < told["offered_per_s"] < 260
    assert told["statuses"].keys() == {"OK"}


def test_latencies_count_from_when_calls_were_due():
    """A server that stalls once is charged for everybody who would have come meanwhile."""
    seen = []

    def stalls_once(request, _):
        seen.append(request)
        if len(seen) == 20:
            time.sleep(0.4)
        return request

    with echoing(stalls_once, threads=1) as port:
        target = Target(peer(f"127.0.0.1:{port}"), "localhost", PATH)
        outcome = load.run(target, [message(b"")], Plan(0.7, 0.0, rate=200.0, connections=1))
    assert sum(latency > 0.1 for latency in outcome.latency_s) > 40


def test_nobody_waits_beyond_the_deadline():
    held = threading.Event()

    def holds(request, _):
        held.wait(5)
        return request

    with echoing(holds) as port:
        target = Target(peer(f"127.0.0.1:{port}"), "localhost", PATH)
        began = time.monotonic()
        told = figures(load.run(target, BODIES, Plan(0.2, 0.0, rate=50.0, deadline_s=0.1)))
        assert time.monotonic() - began < 3
        held.set()
    assert told["statuses"].keys() == {"DEADLINE_EXCEEDED"}
    assert told["answered"] == 0


def test_refusals_have_their_names():
    def refuses(_, context):
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "grpc-status 0 \N{SNOWMAN}")

    with echoing(refuses) as port:
        target = Target(peer(f"127.0.0.1:{port}"), "localhost", PATH)
        told = figures(load.run(target, BODIES, Plan(0.1, 0.0, callers=2)))
    assert told["statuses"].keys() == {"RESOURCE_EXHAUSTED"}
    assert told["refused_p50_ms"] > 0


def test_what_every_call_brings_along():
    seen = set()

    def looks(request, context):
        seen.add(dict(context.invocation_metadata()).get("authorization"))
        return request

    with echoing(looks) as port:
        metadata = (("authorization", "Bearer " + "k" * 300),)
        target = Target(peer(f"localhost:{port}"), "localhost", PATH, metadata)
        assert figures(load.run(target, BODIES, Plan(0.1, 0.0, callers=1)))["answered"]
    assert seen == {"Bearer " + "k" * 300}


def test_without_a_server_calls_fail_at_once():
    with echoing(lambda request, _: request) as port:
        target = Target(peer(f"127.0.0.1:{port}"), "localhost", PATH)
    told = figures(load.run(target, BODIES, Plan(0.2, 0.0, callers=2)))
    assert told["statuses"].keys() == {"UNAVAILABLE"}
    assert sum(told["statuses"].values()) < 50, "callers pause"


def test_tls(tmp_path):
    pytest.importorskip("cryptography")
    from tests.certificates import Authority

    authority = Authority(tmp_path)
    files = authority.sign("server")
    credentials = grpc.ssl_server_credentials([(files.key.read_bytes(), files.cert.read_bytes())])
    with echoing(lambda request, _: request, credentials=credentials) as port:
        for name, expected in (("localhost", "OK"), ("elsewhere", "UNAVAILABLE")):
            context = ssl.create_default_context(cafile=authority.cert)
            context.set_alpn_protocols(["h2"])
            target = Target(peer(f"127.0.0.1:{port}", context, name), "localhost", PATH)
            told = figures(load.run(target, BODIES, Plan(0.3, 0.0, callers=2, connections=1)))
            assert told["statuses"].keys() == {expected}
