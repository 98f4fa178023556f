import errno
import random
import sqlite3
import threading

import pytest

from taxon.bundle import atomic_files
from taxon.feedback import sqlite_index
from taxon.feedback.errors import StoreError, StoreFullError, TooMuchSaidError
from taxon.feedback.picture_room import name_of
from taxon.feedback.sealing import Seal, SealError
from taxon.feedback.store import Bounds, Store
from taxon.feedback.stripped import stripped
from taxon.feedback.unstrippable import UnstrippableError
from tests.fakes import FakeClock
from tests.taxon.feedback.entries import SHADES, answer, entry, files, folder_of, kill_and_look


@pytest.fixture
def clock():
    return FakeClock(1_000_000.0)


@pytest.fixture
def store(place, clock):
    made = Store(place, clock=clock)
    yield made
    made.close()


def test_what_is_said_is_kept_with_the_models_answer(store):
    assert store.add([entry()]) == ["kept"]
    (kept,) = store.said()
    assert (kept.labels, kept.consent, kept.license, kept.note) == (("blue",), "train", "CC0-1.0", "a note")
    assert (kept.request_id, kept.model, kept.version, kept.answered, kept.score) == (
        "id-0",
        "colors",
        1,
        ("red", "blue"),
        0.9,
    )
    content = store.pictures.read(kept.picture, kept.extension)
    assert content == stripped(SHADES[0]).content
    assert kept.picture == name_of(content)
    assert kept.contributor == store.pseudonyms.of("jane") != "jane"
    assert store.answer("id-0") == answer(0)
    assert store.answer("id-1") is None


def test_no_name_is_on_the_disk(store):
    store.add([entry(who="jane.doe@example.com")])
    store.sweep()
    for path in folder_of(store.place).rglob("*"):
        assert path.is_dir() or b"jane" not in path.read_bytes()


def test_names_mean_another_person_elsewhere(store, new_place, open_store):
    assert store.pseudonyms.of("jane") != open_store(new_place("other")).pseudonyms.of("jane")
    assert store.pseudonyms.of("jane") == open_store(store.place).pseudonyms.of("jane")
    folder = folder_of(store.place)
    assert (folder / "contributors.key").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700


def test_nothing_is_doubled(store):
    """Sent again, or by somebody else; the last word of each counts."""
    assert store.add([entry(), entry(), entry(who="joe", labels=("green",))]) == ["kept", "said", "said"]
    assert store.add([entry(labels=("red",), answer=answer(7))]) == ["said"]
    assert store.add([entry(who=None, answer=answer(8))]) == ["known"]
    assert {(kept.contributor, kept.labels) for kept in store.said()} == {
        (store.pseudonyms.of("jane"), ("red",)),
        (store.pseudonyms.of("joe"), ("green",)),
    }
    assert len(files(store)) == 1
    assert store.figures() == {"pictures": 1, "bytes": files(store)[0].stat().st_size, "said": 2, "contributors": 2}


def test_of_a_kept_answer_something_can_be_said_later(store):
    assert store.add([entry(who=None)]) == ["kept"]
    assert list(store.said()) == []
    assert store.add([entry(picture=None), entry(1, picture=None)]) == ["said", None]
    assert [kept.request_id for kept in store.said()] == ["id-0"]


def test_what_is_no_picture_sinks_no_other(store):
    refused, kept = store.add([entry(picture=b"no picture"), entry(1)])
    assert isinstance(refused, UnstrippableError)
    assert kept == "kept"


def test_a_contributor_may_say_so_much_in_an_hour(place, clock, open_store):
    store = open_store(place, Bounds(max_said_per_hour=2), clock=clock)
    first, again, refused, other = store.add([entry(0), entry(0), entry(1), entry(2, who="joe")])
    assert (first, again, other) == ("kept", "said", "kept")
    assert isinstance(refused, TooMuchSaidError)
    assert 0 < refused.retry_s <= 3600
    clock.now += refused.retry_s
    assert store.add([entry(1)]) == ["kept"]


def test_room_is_made_of_what_nobody_has_spoken_of(place, clock, open_store):
    size = len(stripped(SHADES[0]).content)
    store = open_store(place, Bounds(max_bytes=3 * size + size // 2), clock=clock)
    for number, who in enumerate(["jane", None, None, None, "joe"]):
        clock.now += 1
        assert store.add([entry(number, who=who)]) == ["kept"]
    assert [store.answer(f"id-{number}") is not None for number in range(5)] == [True, False, False, True, True]
    assert len(files(store)) == 3
    assert store.add([entry(5)]) == ["kept"]
    (refused,) = store.add([entry(6)])
    assert isinstance(refused, StoreFullError)
    assert store.add([entry(5, who="joe")]) == ["said"]  # needs no room
    assert (len(files(store)), store.figures()["said"]) == (3, 4)


def test_what_is_old_goes_unless_it_is_still_spoken_of(place, clock, open_store):
    store = open_store(place, Bounds(max_age_s=100.0), clock=clock)
    store.add([entry(0), entry(1, who=None), entry(2)])
    clock.now += 80
    store.add([entry(2, who="joe")])
    clock.now += 40
    assert store.prune() == 2
    assert {kept.request_id for kept in store.said()} == {"id-2"}
    assert [path.stem for path in files(store)] == [name_of(stripped(SHADES[2]).content)]


def test_who_is_forgotten_leaves_nothing(store):
    store.add([entry(0), entry(1), entry(1, who="joe"), entry(2, who="joe"), entry(3, who=None)])
    gone, row_count = store.forget(store.pseudonyms.of("jane"))
    assert (gone, row_count) == ([name_of(stripped(SHADES[0]).content)], 2)
    assert {kept.contributor for kept in store.said()} == {store.pseudonyms.of("joe")}
    assert len(files(store)) == 3
    for path in folder_of(store.place).iterdir():
        assert path.is_dir() or store.pseudonyms.of("jane").encode() not in path.read_bytes()
    assert store.forget(store.pseudonyms.of("jane")) == ([], 0)


def test_answers_that_nobody_speaks_of_any_more_go(store):
    store.add([entry(), entry(who="joe", answer=answer(1)), entry(1, who=None, answer=answer(2))])
    store.add([entry(answer=answer(3)), entry(1, answer=answer(2)), entry(1, answer=answer(4))])
    kept = [store.answer(f"id-{number}") is not None for number in range(5)]
    assert kept == [False, True, True, True, True]  # the third was captured whoever speaks of it
    store.forget(store.pseudonyms.of("jane"))
    assert [store.answer(f"id-{number}") is not None for number in range(5)] == [False, True, False, False, False]


def test_what_is_said_costs_as_much_however_many_have_spoken_of_the_picture(tmp_path, open_store):
    store, steps = open_store(tmp_path), []
    store._index._connection.set_progress_handler(lambda: steps.append(1), 10)

    def cost(first, count):
        steps.clear()
        numbers = range(first, first + count)
        store.add([entry(who=f"somebody {number}", answer=answer(number)) for number in numbers])
        return len(steps)

    cost(0, 10)
    early = cost(10, 10)
    cost(20, 200)
    assert cost(220, 10) < 2 * early


def test_a_full_disk_leaves_nothing_half_written(store, monkeypatch):
    store.add([entry(0)])
    real = atomic_files.write

    def write(path, content, mode):
        if path.name.startswith(name_of(stripped(SHADES[2]).content)):
            path.write_bytes(content[:10])
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, content, mode)

    monkeypatch.setattr(atomic_files, "write", write)
    with pytest.raises(StoreFullError):
        store.add([entry(1), entry(2)])
    assert [kept.request_id for kept in store.said()] == ["id-0"]
    assert len(files(store)) == 1
    monkeypatch.undo()
    assert store.add([entry(1), entry(2)]) == ["kept", "kept"]


def test_a_full_index_is_a_full_disk(tmp_path, open_store):
    store = open_store(tmp_path)
    store.add([entry(0)])
    (count,) = store._index.first("PRAGMA page_count")
    store._index.execute(f"PRAGMA max_page_count = {count}")
    with pytest.raises(StoreFullError):
        store.add([entry(number, who=f"somebody {number}" * 200) for number in range(1, 32)])
    assert len(files(store)) == 1


def test_a_disk_that_fails_is_told(store, monkeypatch):
    def write(path, content, mode):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(atomic_files, "write", write)
    with pytest.raises(StoreError, match="cannot be written: Input/output"):
        store.add([entry()])


def test_a_folder_that_cannot_be_used_says_so(tmp_path, open_store):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be used"):
        open_store(tmp_path / "file" / "feedback")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / sqlite_index.FILE).write_bytes(b"no index" * 1000)
    with pytest.raises(StoreError, match="damaged"):
        open_store(tmp_path / "damaged")
    open_store(tmp_path / "newer").close()
    with sqlite3.connect(tmp_path / "newer" / sqlite_index.FILE) as newer:
        newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(StoreError, match="newer"):
        open_store(tmp_path / "newer")


def test_encrypted_pictures_and_notes_open_with_their_key_only(new_place, tmp_path, open_store):
    place, plain = new_place(), new_place("plain")
    key, other = tmp_path / "key", tmp_path / "other"
    key.write_bytes(bytes(32))
    other.write_bytes(bytes(31) + b"1")
    store = open_store(place, seal=Seal(key))
    store.add([entry()])
    (kept,) = store.said()
    assert kept.note == "a note"
    assert store.pictures.read(kept.picture, kept.extension) == stripped(SHADES[0]).content
    store.sweep()
    for path in folder_of(place).rglob("*"):
        assert path.is_dir() or (b"a note" not in path.read_bytes() and b"IDAT" not in path.read_bytes())
    for seal in (None, Seal(other)):
        with pytest.raises(SealError):
            open_store(place, seal=seal).pictures.read(kept.picture, kept.extension)
    with_key = open_store(plain)
    with_key.add([entry(1)])  # of a time before there was a key
    with_key.close()
    with_key = open_store(plain, seal=Seal(key))
    with_key.add([entry(2)])
    for kept in with_key.said():
        assert kept.note == "a note"
        assert name_of(with_key.pictures.read(kept.picture, kept.extension)) == kept.picture
    key.write_bytes(b"short")
    with pytest.raises(SealError, match="5 bytes"):
        Seal(key)


def test_several_write_at_once(place, open_store):
    def write(who):
        store = Store(place)
        for number in range(8):
            assert store.add([entry(number, who=who, answer=answer(f"{who}{number}"))])[0] in ("kept", "said")
        store.close()

    threads = [threading.Thread(target=write, args=(who,)) for who in ("jane", "joe", "jim")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store = open_store(place)
    assert store.figures()["said"] == 24
    assert len(files(store)) == 8


def test_what_was_acknowledged_outlives_a_kill(place):
    assert kill_and_look(place, rounds=2, count=20, draw=random.Random(3)) > 2
