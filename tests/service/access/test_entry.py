"""What is told of the files while they change."""

import asyncio
import contextlib

import pytest
from structlog.testing import capture_logs

from taxon.service.access import callers, entry, keys_main
from taxon.service.access.entry import EntryFiles
from taxon.service.scheduling.board import PLACES
from tests.certificates import Authority
from tests.waiting import until


@pytest.fixture
def file(tmp_path):
    return tmp_path / "keys.json"


def add(file, name):
    keys_main.main(["add", name, "--keys", str(file), "--groups", "classify"])


@contextlib.asynccontextmanager
async def watched(files, tell):
    watching = asyncio.create_task(files.watch(tell))
    yield
    assert not watching.done()
    watching.cancel()


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setattr(entry, "LOOK_S", 0.01)


async def test_callers_that_stay_keep_their_place_and_free_places_wait(file):
    add(file, "a")
    add(file, "b")
    files, told = EntryFiles(None, None, None, file), []
    assert files.entry.places == {"a": 0, "b": 1}
    async with watched(files, told.append):
        callers.revoke(file, "a")
        await until(lambda: told and told[-1].places == {"b": 1})
        add(file, "c")
        await until(lambda: told[-1].places == {"b": 1, "c": 2})
        add(file, "d")
        await until(lambda: told[-1].places == {"b": 1, "c": 2, "d": 3})
    assert files._free[-1] == 0  # calls of the last one there may be under way
    assert len(files._free) == PLACES - 3


async def test_a_bad_certificate_does_not_keep_a_key_from_being_revoked(file, tmp_path):
    made = Authority(tmp_path).sign("server")
    add(file, "a")
    files, told = EntryFiles(made.cert, made.key, None, file), []
    with capture_logs() as logs:
        async with watched(files, told.append):
            made.cert.write_text("nothing")
            await until(lambda: any(line["log_level"] == "error" for line in logs))
            callers.revoke(file, "a")
            await until(lambda: told)
            file.unlink()
            await until(lambda: sum(line["log_level"] == "error" for line in logs) == 2)
    assert told[-1].callers.callers == ()
    assert told[-1].certificate == files.entry.certificate
    assert [line["reason"].split(" ")[0] for line in logs if line["log_level"] == "error"] == ["--tls-cert", "--keys"]


async def test_what_cannot_be_told_for_want_of_descriptors_is_told_later(file):
    add(file, "a")
    files, told = EntryFiles(None, None, None, file), []

    def tell(changed):
        told.append(changed)
        if len(told) < 3:
            raise OSError(24, "Too many open files")

    async with watched(files, tell):
        callers.revoke(file, "a")
        await until(lambda: len(told) == 3)
        await asyncio.sleep(0.05)
    assert len(told) == 3


def test_nothing_is_asked_for_by_default():
    read = EntryFiles(None, None, None, None).entry
    assert (read.certificate, read.callers, read.places) == (None, None, {})
