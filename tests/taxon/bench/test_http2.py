"""What servers and proxies may do that gRPC's own do seldom."""

import struct

import pytest

from taxon.bench import load
from taxon.bench.figures import figures
from taxon.bench.http2 import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    PADDED,
    PING,
    PRIORITY,
    RST,
    SETTINGS,
    WINDOW,
    Target,
    frame,
    message,
)
from taxon.bench.load import Plan
from tests.taxon.bench.scripted import FINE, Session, answer, scripted

BODIES = [message(b"picture")]
ONE_CALLER = Plan(0.4, 0.0, callers=1, connections=1)


def statuses(to, plan=ONE_CALLER):
    return figures(load.run(Target(to, "localhost", "/a/b"), BODIES, plan))["statuses"]


def answers_for_ever(session: Session) -> None:
    while True:
        session.send(answer(session.next_request()))


def test_pieces_of_headers_with_padding():
    def answers(session: Session) -> None:
        while True:
            stream = session.next_request()
            session.send(frame(PING, 0, 0, b"12345678"))
            session.send(frame(HEADERS, END_HEADERS, stream, b"\x88") + frame(DATA, 0, stream, message(b"")))
            head = bytes((3,)) + b"\0\0\0\0\x10" + FINE[:5] + b"\0\0\0"
            session.send(frame(HEADERS, END_STREAM | PADDED | PRIORITY, stream, head))
            session.send(frame(CONTINUATION, END_HEADERS, stream, FINE[5:]))

    with scripted(answers) as to:
        assert statuses(to).keys() == {"OK"}


@pytest.mark.parametrize("words", [frame(GOAWAY, 0, 0, struct.pack(">II", 0, 0)), b""])
def test_calls_that_were_not_taken_go_to_the_next_connection(words):
    """As gRPC clients do it, unseen: a server leads connections away when they are old."""

    def leaves(session: Session) -> None:
        stream = session.next_request()
        session.send(words or frame(RST, 0, stream, struct.pack(">I", 7)))
        if not words:
            answers_for_ever(session)

    with scripted(leaves, answers_for_ever) as to:
        assert statuses(to).keys() == {"OK"}


def test_a_connection_that_breaks_fails_its_calls_only():
    def breaks(session: Session) -> None:
        session.next_request()

    with scripted(breaks, answers_for_ever) as to:
        told = statuses(to, Plan(0.3, 0.0, callers=1, connections=1))
    assert told.pop("UNAVAILABLE") == 1
    assert told.keys() == {"OK"}


@pytest.mark.parametrize(("code", "name"), [(8, "CANCELLED"), (11, "RESOURCE_EXHAUSTED"), (2, "INTERNAL")])
def test_resets_have_the_status_that_grpc_gives_them(code, name):
    def resets(session: Session) -> None:
        while True:
            session.send(frame(RST, 0, session.next_request(), struct.pack(">I", code)))

    with scripted(resets) as to:
        assert statuses(to).keys() == {name}


def test_no_more_calls_are_under_way_than_the_server_allows():
    most = 0

    def counts(session: Session) -> None:
        nonlocal most
        while True:
            under_way = [session.next_request()]
            session.send(frame(PING, 0, 0, b"12345678"))
            while (seen := session.next_frame())[0] != PING:
                under_way += [seen[2]] if seen[0] == DATA else []
            most = max(most, len(under_way))
            for stream in under_way:
                session.send(answer(stream))

    with scripted(counts, settings={MAX_CONCURRENT_STREAMS: 2}) as to:
        told = statuses(to, Plan(0.2, 0.0, callers=8, connections=1))
    assert most == 2
    assert told.keys() == {"OK"}
    assert told["OK"] >= 8


def test_an_answer_that_is_not_grpc():
    def speaks_http(session: Session) -> None:
        while True:
            stream = session.next_request()
            session.send(frame(HEADERS, END_HEADERS, stream, b"\x8e") + frame(DATA, END_STREAM, stream, b"sorry"))

    with scripted(speaks_http) as to:
        assert statuses(to).keys() == {"UNKNOWN"}


@pytest.mark.parametrize(
    "words",
    [
        frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x00\x7f"),
        frame(HEADERS, END_HEADERS | END_STREAM | PADDED, 1),
        frame(HEADERS, END_STREAM, 1) + 5 * frame(CONTINUATION, 0, 1, bytes(2**14)),
        frame(SETTINGS, 0, 0, bytes(5)),
        *(frame(SETTINGS, 0, 0, struct.pack(">HI", MAX_FRAME_SIZE, size)) for size in (0, 2**14 - 1, 2**24)),
        frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, 2**31)),
        frame(WINDOW, 0, 0, bytes(3)),
    ],
)
def test_what_is_no_http2_ends_the_connection(words):
    """A server that means harm stops no measurement. Were it believed, the answer behind it would count."""

    def speaks_gibberish(session: Session) -> None:
        session.send(words + answer(session.next_request()))
        session.next_request()

    with scripted(speaks_gibberish) as to:
        assert statuses(to, Plan(0.02, 0.0, callers=1, connections=1)).keys() == {"UNAVAILABLE"}
