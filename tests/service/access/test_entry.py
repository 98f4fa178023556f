"""Where callers are counted while the file changes."""

from taxon.service.access import callers, keys_main
from taxon.service.access.entry import EntryFiles
from taxon.service.scheduling.board import PLACES


def test_callers_that_stay_keep_their_place_and_free_places_wait(tmp_path):
    file = tmp_path / "keys.json"

    def add(name):
        keys_main.main(["add", name, "--keys", str(file), "--groups", "classify"])

    add("a")
    add("b")
    files = EntryFiles(None, None, None, file)
    assert files.entry.places == {"a": 0, "b": 1}
    callers.revoke(file, "a")
    add("c")
    files.entry = files._placed(files._read())
    assert files.entry.places == {"b": 1, "c": 2}
    for _ in range(2 * PLACES):
        files.entry = files._placed(files.entry)
    assert files.entry.places == {"b": 1, "c": 2}
    assert files._free[0] == 3
    assert files._free[-1] == 0  # calls of the last one there may be under way


def test_nothing_is_asked_for_by_default():
    entry = EntryFiles(None, None, None, None).entry
    assert (entry.certificate, entry.callers, entry.places) == (None, None, {})
