"""The same harm done to a server that lets in by TLS and by key: by strangers, and by callers that have a key."""

import contextlib
import itertools
import secrets
import socket
import ssl
import threading
import time

import pytest

from taxon.connection import tls
from taxon.service.access import keys_main
from tests.certificates import Authority
from tests.faults.http2 import connect, message, opening, reset
from tests.faults.test_floods import REQUEST, SECONDS, unnoticed

pytestmark = pytest.mark.faults

# A record of TLS 1.2 whose length promises more than comes, of a handshake's first message.
HALF_A_GREETING = bytes([22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3])


class Secured:
    """A server of one worker, what its callers need, and what attackers connect by."""

    def __init__(self, serve, folder, capsys):
        authority = Authority(folder)
        files = authority.sign("server")
        keys = folder / "keys.json"
        self.credentials = tls(authority.cert)
        self.keys = [self._key(keys, name, capsys) for name in ("neighbour", "attacker")]
        words = ["--tls-cert", files.cert, "--tls-key", files.key, "--keys", keys]
        self.server = serve("--workers", "1", *words, credentials=self.credentials)
        self.context = ssl.create_default_context(cafile=str(authority.cert))
        self.context.set_alpn_protocols(["h2"])

    @staticmethod
    def _key(file, name, capsys):
        assert keys_main.main(["add", name, "--keys", str(file), "--groups", "classify"]) == 0
        return capsys.readouterr().out.split()[-1]

    def unnoticed(self, name, **how):
        return unnoticed(self.server, name, credentials=self.credentials, key=self.keys[0], **how)

    def connect(self, **how):
        return connect(self.server.address, tls=self.context, **how)


@pytest.fixture
def secured(serve, tmp_path, capsys):
    return Secured(serve, tmp_path, capsys)


@contextlib.contextmanager
def at_once(act, count=4):
    """Threads that do so again and again."""
    over = threading.Event()

    def again():
        while not over.is_set():
            with contextlib.suppress(OSError):
                act()

    threads = [threading.Thread(target=again) for _ in range(count)]
    for thread in threads:
        thread.start()
    yield
    over.set()
    for thread in threads:
        thread.join()


def test_handshakes_one_after_the_other(secured):
    """Each costs the server a signature. What comes at 200 a second is far more than callers that keep connections."""
    shaken = itertools.count()

    def shake():
        secured.connect().close()
        next(shaken)
        time.sleep(0.02)

    with secured.unnoticed("handshakes"), at_once(shake):
        time.sleep(SECONDS)
    assert next(shaken) > 50


def test_handshakes_that_are_never_finished(secured):
    """They say half of their first message, or nothing."""
    host, port = secured.server.address.split(":")
    with contextlib.ExitStack() as stack, secured.unnoticed("half-open handshakes"):
        silent = [stack.enter_context(socket.create_connection((host, int(port)))) for _ in range(500)]
        for connection in silent[::2]:
            connection.sendall(HALF_A_GREETING)
        time.sleep(SECONDS)
        until_closed = time.monotonic() + 25
        while silent and time.monotonic() < until_closed:
            silent = [one for one in silent if is_open(one)]
            time.sleep(0.5)
    assert silent == []


def is_open(connection):
    connection.settimeout(0.001)
    try:
        return connection.recv(2**16) != b""
    except TimeoutError:
        return True
    except OSError:
        return False


@pytest.mark.parametrize("known", [False, True], ids=["strangers", "a caller"])
def test_calls_that_are_opened_and_reset(secured, known):
    key = secured.keys[1] if known else secrets.token_hex(20)
    # Made before: it would take this process's lock from those who are measured.
    flood = b"".join(opening(stream, key=key) + reset(stream) for stream in range(1, 10_001, 2))
    with secured.unnoticed(f"rapid reset by {'a caller' if known else 'strangers'}"):
        ends = time.monotonic() + SECONDS
        while time.monotonic() < ends:
            # Nobody reads beside: a socket of TLS is one thread's. The server ends the connection, or it fills.
            with contextlib.suppress(OSError), secured.connect() as connection:
                connection.settimeout(1)
                connection.sendall(flood)
            time.sleep(0.5)


@pytest.mark.parametrize("known", [False, True], ids=["strangers", "a caller"])
def test_calls_that_are_opened_and_send_nothing(secured, known):
    """Strangers are refused by their headers. A caller that does so is one, by however many connections."""
    key = secured.keys[1] if known else ""
    name = f"silent calls of {'a caller' if known else 'strangers'}"
    calls = b"".join(
        opening(stream, "/taxon.v1.ClassificationService/BatchClassify", key) for stream in range(1, 201, 2)
    )
    with contextlib.ExitStack() as stack, secured.unnoticed(name, batches=True):
        for _ in range(10):
            connection = stack.enter_context(secured.connect())
            connection.sendall(calls)
        time.sleep(2 * SECONDS)


def test_answers_that_are_never_taken(secured):
    calls = [opening(stream, key=secured.keys[1]) + message(stream, REQUEST) for stream in range(1, 1001, 2)]
    with secured.unnoticed("window 0"), secured.connect(window=0) as connection:
        connection.settimeout(1)
        with contextlib.suppress(OSError):
            for call in calls:
                connection.sendall(call)
        time.sleep(SECONDS)
