import unicodedata

import pytest

from taxon.csv_rows import as_text, label, read_rows, read_table, vector


@pytest.fixture
def rows(tmp_path):
    (tmp_path / "rows.csv").write_bytes("\ufeffheight, width,kind\r\n2.5,1,long\r\n4,-3e2, \r\n".encode())
    return read_rows(tmp_path / "rows.csv")


def test_columns_are_taken_by_name(rows):
    assert [vector(row, ["width", "height"], 2) for row in rows] == [[1.0, 2.5], [-300.0, 4.0]]


@pytest.mark.parametrize(("written", "asked"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_both_spellings_of_unicode_are_one_column_and_one_label(tmp_path, written, asked):
    (tmp_path / "rows.csv").write_text(unicodedata.normalize(written, "h\u00f6he,art\n2.5,\u00f6l\n"), encoding="utf-8")
    (row,) = read_rows(tmp_path / "rows.csv")
    names = [unicodedata.normalize(asked, "h\u00f6he")]
    assert vector(row, names, 1) == [2.5]
    assert label(row, names) == "\u00f6l"
    assert label(row, [*names, "art"]) == ""


def test_of_a_model_without_names_the_first_columns_are_taken(rows):
    assert vector(rows[0], [], 2) == [2.5, 1.0]


def test_the_last_column_is_the_label_unless_the_model_takes_it(rows):
    assert [label(row, ["width", "height"]) for row in rows] == ["long", ""]
    assert label(rows[0], ["kind"]) == ""


@pytest.mark.parametrize(("name", "complaint"), [("depth", "no column 'depth'"), ("kind", "'long' is not a number")])
def test_what_is_missing_is_named(rows, name, complaint):
    with pytest.raises(ValueError, match=complaint):
        vector(rows[0], ["width", name], 2)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "no rows below its header"),
        (b"a,b\n", "no rows below its header"),
        (b"a,a\n1,2\n", "double names"),
        (b"a,b\n1,2\n1\n", "row 2 has 1 fields, the header 2"),
        (b"\xff\xfe", "cannot be read as CSV in UTF-8"),
        (b'"a";"b"\n"1";"2"\n', "separated by semicolons"),
        (b"\n\na\tb\n1\t2\n", "separated by tabs"),
        (b"sep=;\na;b\n1;2\n", "separated by semicolons"),
        (b"a|b\n1|2\n", "separated by bars"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git-LFS pointer .*, not CSV"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, content, complaint):
    (tmp_path / "rows.csv").write_bytes(content)
    with pytest.raises(ValueError, match=complaint):
        read_rows(tmp_path / "rows.csv")


def test_what_is_written_is_read_back(tmp_path):
    rows = [['a "quoted" word', "two\nlines"], ["1,5", "grün"]]
    (tmp_path / "list.csv").write_text(as_text(["one", "other"], rows), encoding="utf-8", newline="")
    found = read_table(tmp_path / "list.csv")
    assert (found.columns, found.rows) == (("one", "other"), rows)
    assert as_text(["n"], [[1]]) == "n\n1\n"
