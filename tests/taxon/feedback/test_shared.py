"""What is true of a store of several machines only: its server and its place of pictures may fail, each by itself."""

import sys

import pytest

from taxon.blobs import FolderBlobs, ObjectBlobs, open_blobs
from taxon.feedback.errors import StoreError
from taxon.feedback.opening import Shared, place_of
from taxon.feedback.picture_room import PictureRoom, name_of, picture_of
from taxon.feedback.pseudonyms import Pseudonyms
from taxon.feedback.sealing import Seal
from tests.postgres import running
from tests.taxon.feedback.entries import answer, entry, files


def test_a_place_is_what_options_say(tmp_path):
    assert place_of(str(tmp_path), None) == tmp_path
    assert place_of("postgresql://db/x", "s3://b/p") == Shared("postgresql://db/x", "s3://b/p")
    for words in [("folder", "s3://b/p"), ("postgresql://db/x", None)]:
        with pytest.raises(StoreError, match=r"s3://BUCKET|folder holds its pictures"):
            place_of(*words)


@pytest.mark.parametrize(
    ("store", "pictures", "told"),
    [
        ("postgresql://jane:secret@db/x", "s3://b/p", "PGPASSWORD"),
        ("postgres://jane:sec?ret@db,other:5433/x", "s3://b/p", "PGPASSFILE"),
        ("postgresql://jane@db/x?sslmode=require&p%61ssword=secret", "s3://b/p", "PGPASSWORD"),
        ("postgresql://db?sslpassword=secret", "s3://b/p", "service file"),
        ("postgresql://db/x", "sftp://jane:secret@host/p", "FSSPEC_SFTP_PASSWORD"),
        ("postgresql+psycopg://jane:secret@db/x", "s3://b/p", r"not postgresql\+psycopg://…"),
        ("mysql://jane:secret@db/x", None, "not mysql://…"),
    ],
)
def test_passwords_in_urls_are_refused_and_not_told(store, pictures, told):
    """The server hands its settings to its fronts as words, which all users of the machine can read."""
    with pytest.raises(StoreError, match=told) as refused:
        place_of(store, pictures)
    assert "secret" not in str(refused.value)
    assert "sec?ret" not in str(refused.value)


def test_urls_without_passwords_are_taken():
    for store in ("postgresql://jane@db:5432,other/x?passfile=/a:b@c", "postgresql:///x?host=/run/pg&user=jane"):
        assert place_of(store, "abfs://container@account/p") == Shared(store, "abfs://container@account/p")


def test_what_is_not_installed_is_named(open_store, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreError, match=r"pip install -e '\.\[postgres\]'"):
        open_store(Shared("postgresql://db/x", str(tmp_path)))
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(OSError, match=r"pip install -e '\.\[objects\]'"):
        open_blobs("s3://b/p")


def test_passwords_are_not_told(open_store, tmp_path):
    pytest.importorskip("psycopg")
    with pytest.raises(StoreError) as told:
        open_store(Shared("postgresql://jane:secret@127.0.0.1:1/x", str(tmp_path)))
    assert "127.0.0.1" in str(told.value)
    assert "secret" not in str(told.value)
    with pytest.raises(StoreError) as told:
        open_store(Shared("postgresql://jane:secret@h/x?nonsense=1", str(tmp_path)))
    assert "secret" not in str(told.value)


@pytest.fixture(params=["folder", "objects"])
def blobs(request, tmp_path):
    if request.param == "folder":
        yield open_blobs(f"file://{tmp_path / 'blobs'}")
        return
    pytest.importorskip("fsspec")
    made = open_blobs(f"memory://{tmp_path.name}/blobs/")
    assert isinstance(made, ObjectBlobs)
    yield made
    made._files.store.clear()
    made._files.pseudo_dirs[:] = [""]


def test_contents_are_kept_by_name(blobs):
    with pytest.raises(FileNotFoundError):
        blobs.get("pictures/ab/abc.png")
    assert list(blobs.names("pictures")) == []
    blobs.put({"pictures/ab/abc.png": b"1", "pictures/cd/cde.png": b"2", "key": b"3"})
    blobs.put({"pictures/ab/abc.png": b"11"})
    assert blobs.get("pictures/ab/abc.png") == b"11"
    assert sorted(blobs.names("pictures")) == ["pictures/ab/abc.png", "pictures/cd/cde.png"]
    blobs.remove(["pictures/ab/abc.png", "pictures/ab/gone.png"])
    assert list(blobs.names("pictures")) == ["pictures/cd/cde.png"]
    assert Pseudonyms(blobs).of("jane") == Pseudonyms(blobs).of("jane")


def test_pictures_open_with_or_without_a_key_as_they_were_closed(blobs, tmp_path):
    (tmp_path / "key").write_bytes(bytes(32))
    sealed, plain = PictureRoom(blobs, Seal(tmp_path / "key")), PictureRoom(blobs, None)
    one, two = name_of(b"one"), name_of(b"two")
    sealed.put({(one, "png"): b"one"})
    plain.put({(two, "png"): b"two"})
    assert [sealed.read(name, "png") for name in (one, two)] == [b"one", b"two"]
    assert [plain.holds(name, "png") for name in (one, two, name_of(b""))] == [True, True, False]
    assert b"one" not in blobs.get(f"pictures/{one[:2]}/{one}.png.sealed")
    assert {picture_of(blob) for blob in plain.blobs()} == {one, two}
    plain.remove([(one, "png"), (two, "png")])
    assert list(plain.blobs()) == []


def test_what_a_library_says_is_an_error_of_the_disk(blobs, monkeypatch):
    if isinstance(blobs, FolderBlobs):
        return

    def fail(*words, **options):
        raise RuntimeError("no credentials\nand much more")

    monkeypatch.setattr(type(blobs._files), "pipe_file", fail)
    with pytest.raises(OSError, match=r"RuntimeError: no credentials: 'memory"):
        blobs.put({"a": b""})


slow = pytest.mark.slow


@slow
def test_replicas_share_one(postgres, tmp_path, open_store):
    place = Shared(postgres.new(), str(tmp_path / "pictures"))
    first, second = open_store(place), open_store(place)
    assert first.add([entry(who=None)]) == ["kept"]
    assert second.add([entry(picture=None)]) == ["said"]
    assert [kept.contributor for kept in first.said()] == [second.pseudonyms.of("jane")]
    assert first.answer("id-0") == second.answer("id-0") == answer(0)
    assert first.answer("\0") is None


@slow
def test_pictures_of_another_store_are_refused(postgres, tmp_path, open_store):
    """And get no key, which would make them somebody's."""
    url, unused = postgres.new(), postgres.new()
    open_store(Shared(url, str(tmp_path / "pictures"))).add([entry()])
    open_store(Shared(unused, str(tmp_path / "unused")))
    open_store(Shared(postgres.new(), str(tmp_path / "earlier")))
    (tmp_path / "earlier" / "store.id").unlink()
    for _ in range(2):
        for database, pictures, reason in (
            (url, "unused", "another store's"),
            (url, "others", "holds none of those"),
            (unused, "others", r"contributors\.key is not where"),
            (unused, "earlier", r"contributors\.key is another"),
        ):
            with pytest.raises(StoreError, match=reason):
                open_store(Shared(database, str(tmp_path / pictures)))
    assert [*(tmp_path / "others").iterdir()] == []
    assert not (tmp_path / "earlier" / "store.id").exists()


@slow
def test_objects_hold_the_pictures(postgres, open_store, tmp_path):
    pytest.importorskip("fsspec")
    store = open_store(Shared(postgres.new(), f"memory://{tmp_path.name}"))
    store.add([entry(0), entry(1, who="joe")])
    assert len(list(store.pictures.blobs())) == 2
    assert store.forget(store.pseudonyms.of("jane"))[1] == 1
    (kept,) = store.said()
    assert [*store.pictures.blobs()] == [f"pictures/{kept.picture[:2]}/{kept.picture}.png"]
    assert store.pictures.read(kept.picture, kept.extension)


@slow
def test_where_pictures_cannot_be_kept_nothing_is(postgres, open_store, tmp_path, monkeypatch):
    pytest.importorskip("fsspec")
    store = open_store(Shared(postgres.new(), f"memory://{tmp_path.name}"))
    real, put = store.pictures._blobs._files.pipe_file, []

    def fail_at_the_second(path, content, **options):
        put.append(path)
        if len(put) == 2:
            raise RuntimeError("slow down")
        real(path, content, **options)

    monkeypatch.setattr(store.pictures._blobs._files, "pipe_file", fail_at_the_second)
    with pytest.raises(StoreError, match="slow down"):
        store.add([entry(0), entry(1)])
    assert list(store.said()) == []
    assert list(store.pictures.blobs()) == []
    assert store.add([entry(0), entry(1)]) == ["kept", "kept"]


@slow
def test_a_server_that_was_away_is_used_again(tmp_path, open_store):
    with running() as server:
        store = open_store(Shared(server.new(), str(tmp_path)))
        store.add([entry(0)])
        server.stop("immediate")
        with pytest.raises(StoreError, match="cannot be used"):
            store.add([entry(1)])
        with pytest.raises(StoreError, match="cannot be used"):
            store.answer("id-0")
        server.start()
        assert store.add([entry(1)]) == ["kept"]
        server.stop()
        server.start()
        assert store.answer("id-0") == answer(0)
        assert {kept.request_id for kept in store.said()} == {"id-0", "id-1"}
        store.sweep()
        assert len(files(store)) == 2
        server.stop()
        server.start("-c fsync=off")
        with pytest.raises(StoreError, match="fsync=off"):
            store.add([entry(2)])


@slow
def test_who_loses_its_turn_acknowledges_nothing(postgres, tmp_path, open_store, monkeypatch):
    import psycopg

    store = open_store(Shared(postgres.new(), str(tmp_path)))
    other = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'taxon feedback'"
    put = store.pictures.put

    def put_and_be_cut_off(pictures):
        put(pictures)
        with psycopg.connect(postgres.url(), autocommit=True) as connection:
            connection.execute(other)

    monkeypatch.setattr(store.pictures, "put", put_and_be_cut_off)
    with pytest.raises(StoreError, match="cannot be used"):
        store.add([entry(0)])
    monkeypatch.undo()
    assert list(store.said()) == []
    assert len(files(store)) == 0
