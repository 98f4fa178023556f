"""Which index and which pictures are one store, for nobody's pictures must be taken for what a killed writer left."""

import shutil

import pytest

from taxon.feedback import belonging
from taxon.feedback.errors import StoreError
from taxon.feedback.sqlite_index import FILE as INDEX
from tests.taxon.feedback.entries import entry, files, folder_of


@pytest.fixture
def store(place, open_store):
    made = open_store(place)
    made.add([entry(0), entry(1)])
    return made


@pytest.fixture
def folder(store):
    return folder_of(store.place)


def without_id(store):
    """As an earlier release left it."""
    store._index.execute("DELETE FROM store")
    (folder_of(store.place) / belonging.FILE).unlink()


def other_index(store, tmp_path, open_store, new_place):
    """Another store's index in place of its own; returns the place of both."""
    other = new_place("other")
    if folder_of(other) == other:
        open_store(other).close()
        for file in store.place.glob(f"{INDEX}*"):
            file.unlink()
        shutil.copy(other / INDEX, store.place / INDEX)
        return store.place
    return type(other)(other.database, store.place.pictures)


@pytest.mark.parametrize("with_id", [True, False])
def test_another_index_does_not_sweep_pictures_away(store, folder, open_store, new_place, tmp_path, with_id):
    if not with_id:
        without_id(store)
    store.close()
    both = other_index(store, tmp_path, open_store, new_place)
    for _ in range(2):
        with pytest.raises(StoreError, match="another store's" if with_id else "holds some already"):
            open_store(both).sweep()
    assert len(files(store)) == 2
    assert (folder / belonging.FILE).exists() == with_id


def test_a_store_of_before_ids_gets_one(store, folder, open_store):
    without_id(store)
    opened = open_store(store.place)
    assert opened._index.first("SELECT id FROM store") == ((folder / belonging.FILE).read_text(),)
    opened.sweep()
    assert len(files(store)) == 2
    assert opened.add([entry(2)]) == ["kept"]


def test_a_store_whose_pictures_are_not_there_gets_none(store, folder, open_store):
    without_id(store)
    shutil.rmtree(folder / "pictures")
    with pytest.raises(StoreError, match="holds none of those"):
        open_store(store.place)
    assert not (folder / belonging.FILE).exists()


def test_killed_between_the_two_ids_it_is_mended(store, folder, open_store):
    (folder / belonging.FILE).unlink()
    assert open_store(store.place)._index.first("SELECT id FROM store") == ((folder / belonging.FILE).read_text(),)


def test_a_key_that_has_gone_is_not_made_anew(store, folder, open_store):
    """Nobody could be forgotten any more: their pseudonyms would be others."""
    (folder / "contributors.key").unlink()
    with pytest.raises(StoreError, match=r"contributors\.key is not where"):
        open_store(store.place)
    assert not (folder / "contributors.key").exists()


def test_files_of_others_among_the_pictures_stay(store, folder):
    ours = files(store)
    digits = ours[0].name.partition(".")[0]
    own = [ours[0].parent / f".{ours[0].name}.x1.tmp", folder / "pictures" / "00" / f"{'0' * 64}.png"]
    others = [
        folder / "pictures" / "holiday.jpg",
        folder / "pictures" / "00" / "holiday.jpg",
        folder / "pictures" / "2024" / f"{'0' * 64}.png",
        folder / "pictures" / "00" / ".DS_Store",
        folder / "pictures" / "ff" / f"{digits if digits[:2] != 'ff' else '0' * 64}.png",
    ]
    for path in (*own, *others):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    store.sweep()
    assert {*files(store)} == {*ours, *others}


def test_a_folder_with_other_pictures_may_hold_a_store(open_store, new_place):
    place = new_place("used")
    holiday = folder_of(place) / "pictures" / "holiday.jpg"
    holiday.parent.mkdir(parents=True)
    holiday.write_bytes(b"x")
    store = open_store(place)
    store.add([entry(0)])
    store.prune()
    assert holiday.exists()
