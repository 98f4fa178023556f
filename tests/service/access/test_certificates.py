"""TLS, from both ends of a real connection."""

import asyncio
import contextlib
import shutil
import socket
import ssl
from datetime import timedelta
from http.client import HTTPException
from urllib.request import urlopen

import grpc
import pytest
from structlog.testing import capture_logs

from taxon import connection
from taxon.classify import main as classify
from taxon.client import AsyncClient, Client
from taxon.errors import UnavailableError
from taxon.service.access import entry
from taxon.service.access.certificates import Credentials, read_certificate
from taxon.service.access.entry import EntryFiles
from taxon.service.access.expiry import expires
from taxon.service.api import health
from taxon.service.errors import StartError
from taxon.service.workers.worker_process import WorkerProcesses
from tests.certificates import Authority, Files
from tests.fakes import picture
from tests.waiting import until

# How what the other end does not want ends, as the moment has it.
CLOSED = r"certificate required|EOF|[Rr]eset|closed|Broken pipe|\x15"


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def server(authority, tmp_path, monkeypatch):
    """The files that a server is told to use, and its flags."""
    monkeypatch.setattr(entry, "LOOK_S", 0.05)
    made = authority.sign("server")
    return made, ["--tls-cert", str(made.cert), "--tls-key", str(made.key)]


@contextlib.asynccontextmanager
async def connected(address, *files, **options):
    """A client with a connection of its own."""
    async with AsyncClient(address, credentials=connection.tls(*files), timeout_s=5, **options) as client:
        yield client


async def failure(address, *files, **options):
    """What a client cannot do that never gets a connection."""
    credentials = connection.tls(*files) if files else None
    told = connection.Connection(address, credentials, **options)
    async with told.aio_channel([("grpc.use_local_subchannel_pool", 1)]) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=5)
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    return error.value.details()


def shown(port, server):
    """The certificate that a new connection is shown, and the version of TLS."""
    context = ssl.create_default_context(cafile=server)
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as tls,
    ):
        return tls.getpeercert(binary_form=True), tls.version()


async def test_who_gets_a_connection(serve, models, server, authority, tmp_path):
    """One server, whose certificate is replaced: by a bad one, an expired one, one of another authority."""
    files, flags = server
    page_flags = ["--metrics-port", "0"]
    async with serve(models, *flags, *page_flags) as running:
        address, port = running.address, int(running.address.rpartition(":")[2])
        async with connected(address, authority.cert) as kept:
            assert (await kept.classify(picture())).classifications[0].label == "red"

            await failure(address)  # not encrypted
            stranger = Authority(tmp_path, "stranger")
            assert "CERTIFICATE_VERIFY_FAILED" in await failure(address, stranger.cert)
            assert "Hostname Verification" in await failure(address, authority.cert, server_name="example.com")

            first, version = await asyncio.to_thread(shown, port, authority.cert)
            assert version == "TLSv1.3"
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(authority.cert)
            with pytest.warns(DeprecationWarning, match="TLSv1_1"):
                context.maximum_version = ssl.TLSVersion.TLSv1_1  # a downgrade
            with socket.create_connection(("127.0.0.1", port)) as plain, pytest.raises((ssl.SSLError, OSError)):
                await asyncio.to_thread(context.wrap_socket, plain, server_hostname="localhost")

            # The page is encrypted too.
            url = f"https://localhost:{running.server.metrics_port}/metrics"
            trusting = ssl.create_default_context(cafile=authority.cert)
            page = await asyncio.to_thread(lambda: urlopen(url, context=trusting).read())
            assert b"taxon_serving 1.0" in page
            ends = expires(files.cert.read_bytes()).timestamp()
            assert running.counted("taxon_certificate_expiry_timestamp_seconds", certificate="server") == ends
            with pytest.raises((OSError, HTTPException), match=CLOSED):
                await asyncio.to_thread(urlopen, url.replace("https", "http"))

            with capture_logs() as logs:
                files.key.write_bytes(authority.sign("other").key.read_bytes())  # not this certificate's
                await until(lambda: any("not used" in line["event"] for line in logs))
                await asyncio.sleep(0.2)
            (told,) = [line for line in logs if "not used" in line["event"]]
            assert told["reason"] == f"{pair(files)} cannot be used: key values mismatch"
            assert (await asyncio.to_thread(shown, port, authority.cert))[0] == first

            renewed = authority.sign("server")
            assert renewed == files
            await until(lambda: shown(port, authority.cert)[0] != first)
            await until(lambda: tls_of_page(running, authority) == shown(port, authority.cert)[0])
            assert (await kept.classify(picture())).classifications[0].label == "red"  # the connection stays

            with capture_logs() as logs:
                authority.sign("server", lasts=-timedelta(hours=1))
                await until(lambda: expired(port, authority.cert))
            assert [line["log_level"] for line in logs if "expired" in line["event"]] == ["warning"]
            assert "CERTIFICATE_VERIFY_FAILED" in await failure(address, authority.cert)

            stranger.sign("server")
            await until(lambda: trusted(port, stranger.cert))
            assert "CERTIFICATE_VERIFY_FAILED" in await failure(address, authority.cert)
            async with connected(address, stranger.cert) as new:
                assert (await new.classify(picture())).classifications[0].label == "red"
            assert (await kept.classify(picture())).classifications[0].label == "red"


async def is_let_in(address, *files):
    try:
        async with connected(address, *files) as client:
            await client.list_models()
    except UnavailableError:
        return False
    return True


def pair(files):
    return f"--tls-cert {files.cert} with --tls-key {files.key}"


def tls_of_page(running, authority):
    return shown(running.server.metrics_port, authority.cert)[0]


def trusted(port, ca):
    try:
        shown(port, ca)
    except ssl.SSLCertVerificationError:
        return False
    return True


def expired(port, ca):
    try:
        shown(port, ca)
    except ssl.SSLCertVerificationError as error:
        return "expired" in str(error)
    return False


async def test_clients_that_must_show_a_certificate(serve, models, server, authority, tmp_path, capsys, monkeypatch):
    _, flags = server
    ours, old = Authority(tmp_path, "clients"), Authority(tmp_path, "old_clients")
    client, formerly, foreign = ours.sign("client"), old.sign("formerly"), authority.sign("foreign")
    late = ours.sign("late", lasts=-timedelta(hours=1))
    both = tmp_path / "both.pem"
    both.write_bytes(ours.cert.read_bytes() + old.cert.read_bytes())
    async with serve(models, *flags, "--tls-client-ca", str(both), "--metrics-port", "0") as running:
        address = running.address
        for wrong in ((), (foreign.cert, foreign.key), (late.cert, late.key)):
            assert await failure(address, authority.cert, *wrong)
        async with connected(address, authority.cert, client.cert, client.key) as asking:
            assert (await asking.classify(picture())).classifications[0].label == "red"
        async with connected(address, authority.cert, formerly.cert, formerly.key) as asking:
            assert (await asking.classify(picture())).classifications[0].label == "red"

        options = ["--server", address, "--tls-ca", authority.cert, "--tls-cert", client.cert, "--tls-key", client.key]
        red = tmp_path / "red.png"
        red.write_bytes(picture())
        assert await asyncio.to_thread(health.main, [*map(str, options)]) == 0
        assert await asyncio.to_thread(classify, [str(red), "--json", *map(str, options)]) == 0
        assert await asyncio.to_thread(health.main, ["--server", address, "--tls-ca", str(authority.cert)]) == 1
        assert await asyncio.to_thread(health.main, ["--server", address, "--tls-ca", str(tmp_path / "none")]) == 2
        assert "red" in capsys.readouterr().out
        # As the health check of an image, which cannot know the options.
        told = {"TLS_CA": authority.cert, "TLS_CERT": client.cert, "TLS_KEY": client.key}
        monkeypatch.setenv("TAXON_LISTEN", address)
        assert await asyncio.to_thread(health.main, []) == 1
        for name, path in told.items():
            monkeypatch.setenv(f"TAXON_HEALTH_{name}", str(path))
        assert await asyncio.to_thread(health.main, []) == 0

        page = ssl.create_default_context(cafile=authority.cert)
        url = f"https://localhost:{running.server.metrics_port}/metrics"
        with pytest.raises(OSError, match=CLOSED):
            await asyncio.to_thread(lambda: urlopen(url, context=page).read())
        page.load_cert_chain(client.cert, client.key)
        assert b"taxon_serving" in await asyncio.to_thread(lambda: urlopen(url, context=page).read())

        shutil.copy(ours.cert, both)  # the old authority is not trusted any more
        async with asyncio.timeout(30):
            while await is_let_in(address, authority.cert, formerly.cert, formerly.key):
                pass
        async with connected(address, authority.cert, client.cert, client.key) as asking:
            assert (await asking.classify(picture())).classifications[0].label == "red"


async def test_every_front_shows_the_new_certificate(serve, models, server, authority):
    files, flags = server
    async with serve(models, *flags, "--fronts", "2", "--workers", "1", workers=WorkerProcesses) as running:
        port = int(running.address.rpartition(":")[2])
        before = {shown(port, authority.cert)[0] for _ in range(20)}
        assert len(before) == 1
        authority.sign("server")
        await until(lambda: shown(port, authority.cert)[0] not in before)
        await until(lambda: not before & {shown(port, authority.cert)[0] for _ in range(20)})
        with capture_logs() as logs:
            files.cert.write_text("nothing")
            await until(lambda: any("not used" in line["event"] for line in logs))
        for front in list(running.server.fronts._fronts.values()):  # one that starts now is told what was good
            front.process.kill()
        await until(lambda: len(running.server.fronts.pids) == 0)
        await until(lambda: len(running.server.fronts.pids) == 2)
        assert not before & {shown(port, authority.cert)[0] for _ in range(10)}


def test_what_cannot_serve_is_said_at_the_start(authority, tmp_path):
    good, other = authority.sign("good"), authority.sign("other")
    locked, nothing = authority.sign("locked", password=b"secret"), tmp_path / "nothing"
    nothing.write_text("nothing")
    missing = tmp_path / "missing"
    mixed = Files(good.cert, other.key)
    for cert, key, ca, reason in (
        (missing, good.key, None, f"--tls-cert {missing} cannot be read: No such file or directory"),
        (good.cert, missing, None, f"--tls-key {missing} cannot be read: No such file or directory"),
        (good.cert, good.key, missing, f"--tls-client-ca {missing} cannot be read: No such file or directory"),
        (good.cert, other.key, None, f"{pair(mixed)} cannot be used: key values mismatch"),
        (nothing, good.key, None, f"{pair(Files(nothing, good.key))} cannot be used: no PEM"),
        (good.cert, nothing, None, f"{pair(Files(good.cert, nothing))} cannot be used: no PEM"),
        (locked.cert, locked.key, None, f"{pair(locked)} cannot be used: the key is encrypted"),
        (good.cert, good.key, nothing, f"--tls-client-ca {nothing} holds no certificate in PEM"),
    ):
        with pytest.raises(StartError) as error:
            EntryFiles(cert, key, ca, None)
        assert str(error.value).startswith(reason), str(error.value)
    assert read_certificate(good.cert, good.key, authority.cert).key == good.key.read_bytes()


def test_a_key_is_not_sent_in_the_open():
    for target in ("example.com:50051", "dns:///example.com:50051", "10.0.0.7:50051", "[2001:db8::1]:50051"):
        with pytest.raises(ValueError, match="without TLS"):
            Client(target, key="taxon_1_2")
        Client(target, key="taxon_1_2", credentials=connection.tls()).close()
        Client(target).close()
    for target in ("localhost:50051", "127.0.0.1:50051", "[::1]:50051", "unix:/run/taxon.sock"):
        Client(target, key="taxon_1_2").close()


def test_what_is_secret_is_in_no_traceback(authority, tmp_path):
    made = authority.sign("server")
    secret = made.key.read_text().splitlines()[1]
    assert secret not in repr(EntryFiles(made.cert, made.key, None, None).entry)
    assert "taxon_1_2" not in repr(connection.Connection("localhost:1", key="taxon_1_2"))


def test_grpc_is_given_a_certificate_once(authority):
    """Given at every handshake, two at once end the process: see `tests/faults/test_secure_floods.py`."""
    made = authority.sign("server")
    read = read_certificate(made.cert, made.key, None)
    credentials = Credentials(read)
    assert credentials._taken() is None
    credentials.replace(read)
    assert credentials._taken() is not None
    assert credentials._taken() is None
