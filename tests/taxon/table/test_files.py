"""Names of files, however many."""

import os
import tracemalloc

import pytest

from taxon.table.files import CHUNK, CHUNK_BYTES, MOST_NAME_BYTES, LeftOut, Source, parted


def test_a_folder_is_walked_and_what_is_no_picture_counted(tmp_path):
    for name in ("a.jpg", "b/c.PNG", "b/.hidden.jpg", "notes.txt", "b/more.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "round").symlink_to(tmp_path)
    left_out = LeftOut()
    assert sorted(Source(tmp_path).names(left_out)) == [f"{tmp_path}/a.jpg", f"{tmp_path}/b/c.PNG"]
    assert sorted(left_out.count.values()) == [1, 2]


def test_a_list_is_taken_as_it_is_relative_to_its_folder(tmp_path):
    file = tmp_path / "list.txt"
    file.write_bytes("\ufeffb.jpg\r\n\nsub/a b.png\n/abs.gif\nb.jpg".encode())
    source = Source(file)
    assert list(source.names()) == ["b.jpg", "sub/a b.png", "/abs.gif", "b.jpg"]
    assert source.base == str(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.png", b"x", "neither a folder nor a list"),
        ("a.csv", b"x", "neither a folder nor a list"),
        ("empty", b"", "is empty"),
        ("model", b"\x00\x01", "is binary"),
        ("page", b"<!doctype html>", "is a web page"),
    ],
)
def test_what_is_no_list_is_refused(tmp_path, name, content, told):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=told):
        Source(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        Source(tmp_path / "nowhere")


def test_names_that_cannot_be_written_are_rows(tmp_path):
    names = ["a.jpg", os.fsdecode(b"caf\xe9.jpg"), "line\nend.jpg"]
    for name in names:
        (tmp_path / name).touch()
    good, bad = parted(list(Source(tmp_path).names()))
    assert good == [f"{tmp_path}/a.jpg"]
    assert sorted(row.path for row in bad) == [f"{tmp_path}/caf\\xe9.jpg", f"{tmp_path}/line\\x0aend.jpg"]
    assert {row.error for row in bad} == {"NAME_INVALID"}


def test_chunks_of_long_names_are_small_and_names_that_are_no_path_are_rows(tmp_path):
    """Such as a text that was given for a list."""
    names = ["é" * 1500 + str(index) for index in range(300)]
    file = tmp_path / "list.txt"
    file.write_text("\n".join([*names, "x" * 10**6, "x" * (MOST_NAME_BYTES + 1), "y" * MOST_NAME_BYTES]))
    chunks = list(Source(file).chunks(LeftOut()))
    parts = [parted(chunk) for chunk in chunks]
    assert [name for good, _ in parts for name in good] == [*names, "y" * MOST_NAME_BYTES]
    assert max(len("".join(good).encode()) for good, _ in parts) < CHUNK_BYTES + MOST_NAME_BYTES
    rows = [row for _, bad in parts for row in bad]
    assert [(row.path, row.error) for row in rows] == [("x" * 200 + "…", "NAME_INVALID")] * 2


def test_memory_does_not_grow_with_the_files(tmp_path):
    """Of one folder, which is how the worst of them come."""
    for index in range(2000):
        (tmp_path / f"{index:060}.jpg").touch()
    tracemalloc.start()
    chunks = Source(tmp_path).chunks(LeftOut())
    count, before = len(next(chunks)), tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    count += sum(map(len, chunks))
    grown = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert count == 2000
    assert grown < 4 * CHUNK * 200 < 2000 * 60
