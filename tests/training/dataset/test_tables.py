import unicodedata

import numpy as np
import pytest

from taxon.training.dataset import tables
from taxon.training.errors import TrainingError
from tests.training.folders import write_folder


def manifest(folder, text: str, task: str = "auto", encoding: str = "utf-8"):
    (folder / "list.csv").write_bytes(text.encode(encoding))
    return tables.manifest(tables.read_table(folder / "list.csv"), task)


@pytest.fixture
def pictures(tmp_path):
    return write_folder(tmp_path, 3)


@pytest.mark.parametrize(
    "text",
    [
        "path,label\ndark/000.png,d\nlight/000.png,l\n",
        "\ufeffpath,label\r\ndark/000.png,d\r\nlight/000.png,l\r\n",
        'label,path\nd,"dark/000.png"\nl,"light/000.png"\n',
        "path,label\n\ndark/000.png, d \nlight/000.png,l",
    ],
    ids=["plain", "BOM and CRLF", "quoted, other order", "blank line, spaces, no last line end"],
)
def test_lists_of_pictures_are_read_however_they_were_saved(pictures, text):
    found = manifest(pictures, text)
    assert found.labels == ("d", "l")
    assert [(sample.path.name, sample.label) for sample in found.samples] == [("000.png", 0), ("000.png", 1)]


def test_a_quoted_comma_is_part_of_the_name(pictures):
    (pictures / "dark" / "000.png").rename(pictures / "dark" / "a,b.png")
    found = manifest(pictures, 'path,label\n"dark/a,b.png","cat, big"\nlight/000.png,dog\n')
    assert found.samples[0].path.name == "a,b.png"
    assert found.labels == ("cat, big", "dog")


def test_no_label_is_one_of_a_multi_label_list_that_is_asked_for(pictures):
    found = manifest(pictures, "path,label\ndark/000.png,a\nlight/000.png,\ndark/001.png,c\n", task="multi_label")
    assert [sample.labels for sample in found.samples] == [(0,), (), (1,)]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_both_spellings_of_unicode_are_the_same_file_and_label(pictures, form):
    (pictures / "dark" / "000.png").rename(pictures / "dark" / unicodedata.normalize(form, "\u00e9.png"))
    lines = ["path,label", "dark/\u00e9.png,caf\u00e9", "light/000.png,b", "light/001.png,cafe\u0301"]
    found = manifest(pictures, "\n".join(lines))
    assert found.labels == ("b", "caf\u00e9")
    assert len(found.samples) == 3


def test_splits_are_known_by_their_usual_names(pictures):
    found = manifest(pictures, "path,label,split\ndark/000.png,d,Training\nlight/000.png,l,TEST\n")
    assert [sample.split for sample in found.samples] == ["train", "test"]


def test_several_labels_make_it_multi_label(pictures):
    found = manifest(pictures, "path,label\ndark/000.png,b|a\nlight/000.png,\ndark/001.png,c\n")
    assert found.task == "multi_label"
    assert [sample.labels for sample in found.samples] == [(0, 1), (), (2,)]


def test_splits_and_groups_are_taken_over(pictures):
    found = manifest(pictures, "path,label,split,group\ndark/000.png,d,train,g1\nlight/000.png,l,valid,g2\n")
    assert [(sample.split, sample.group) for sample in found.samples] == [("train", "g1"), ("val", "g2")]


def test_further_columns_are_kept_to_divide_reports(pictures):
    found = manifest(pictures, "path,contributor,label,lens\ndark/000.png, ann ,d,\nlight/000.png,bob,l,50\n")
    assert [sample.columns for sample in found.samples] == [
        (("contributor", "ann"), ("lens", "")),
        (("contributor", "bob"), ("lens", "50")),
    ]


def test_integer_labels_are_sorted_as_numbers(pictures):
    assert manifest(pictures, "path,label\ndark/000.png,10\nlight/000.png,9\n").labels == ("9", "10")


def test_a_missing_file_is_set_aside_by_name(pictures):
    found = manifest(pictures, "path,label\ndark/000.png,d\nlight/000.png,l\nlight/gone.png,l\n")
    assert [(fault.path.name, fault.reason) for fault in found.faults] == [("gone.png", "does not exist")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,class\ndark/000.png,d\n", "no column 'label', only path, class"),
        ("path,label,spilt\ndark/000.png,d,test\n", r"the column 'spilt': did you mean 'split'\?"),
        ("path,label,Group\ndark/000.png,d,1\n", r"the column 'Group': did you mean 'group'\?"),
        ("path,label,by,by\ndark/000.png,d,1,2\n", r"blank or double in its header: \['by'\]"),
        ("path,label\ndark/000.png,1\nlight/000.png,cat\n", "mixed types: the integer '1', the word 'cat'"),
        ("path,label\ndark/000.png,1\nlight/000.png,1.0\n", "mixed types"),
        ("path,label\ndark/000.png,d\n../../etc/passwd,l\n", "row 2: the path '../../etc/passwd' leads out"),
        ("path,label\ndark/000.png,d\n/etc/passwd,l\n", "leads out"),
        ("path,label\ndark/000.png,d\n,l\n", "leads out"),
        ("path,label\ndark/000.png,d\ndark/../../x.png,l\n", "leads out"),
        ('path,label\ndark/000.png,d\n"a\0.png",l\n', r"row 2: the path 'a\\x00.png' has a control character"),
        ('path,label\ndark/000.png,"two\nlines"\nlight/000.png,l\n', r"\['two\\nlines'\] .* have control characters"),
        ("path,label\ndark/000.png,a;b\nlight/000.png,a\nlight/001.png,b\n", r"'a;b' .* is 'a' and 'b'.*write \|"),
        ('path,label\ndark/000.png,"a, b"\nlight/000.png,a\nlight/001.png,b\n', r"'a, b' .* is 'a' and 'b'"),
        ("path,label\ndark/000.png,d\ndark/000.png,l\n", "lists 000.png again, first in row 1"),
        ("path,label\ndark/000.png,d\nlight/../dark/000.png,l\n", "lists 000.png again"),
        ("path,label,split\ndark/000.png,d,train\nlight/000.png,l,dev\n", "unknown split 'dev'"),
        ("path,label,split\ndark/000.png,d,train\nlight/000.png,l,\n", "not of 000.png"),
        ("path,label\ndark/000.png,d\nlight/000.png\n", "row 2 has 1 fields, the header 2"),
        ("path,label\n", "no rows"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        ("<html></html>", "a web page"),
        ("path,label\ndark/000.png,d\nlight/000.png,d\n", "only the class 'd'"),
        ('path,label\n"dark/000.png,d\n', "cannot be read as CSV"),
        ("path,label\ndark/000.png,d\nlight/000.png,l\nlight/001.png,\n", "row 3 has 0 labels.*--task multi_label"),
        ("path,label\ndark/000.png,\nlight/000.png,l\nlight/001.png,\n", "row 1 has 0 .* as 1 more rows"),
        ("path;label\ndark/000.png;d\n", "separated by semicolons: save it with commas"),
        ("path\tlabel\ndark/000.png\td\n", "separated by tabs"),
        (
            "path,label\nbase\\dark.png,d\nbase\\light.png,l\n",
            r"2 of 2 files .* do not exist, the first base\\dark.png: .* not \\",
        ),
        ("path,label\ndork/000.png,d\nloght/000.png,l\n", "2 of 2 files .* do not exist, the first dork/000.png"),
    ],
)
def test_lists_that_would_have_to_be_guessed_are_refused(pictures, text, message):
    with pytest.raises(TrainingError, match=message):
        manifest(pictures, text)


def test_a_file_of_another_encoding_is_refused(pictures):
    with pytest.raises(TrainingError, match="UTF-8"):
        manifest(pictures, "path,label\ndark/000.png,dünkel\nlight/000.png,l\n", encoding="latin-1")


def test_two_labels_are_refused_where_one_is_asked_for(pictures):
    with pytest.raises(TrainingError, match="row 1 has 2 labels"):
        manifest(pictures, "path,label\ndark/000.png,a|b\nlight/000.png,a\n", task="single_label")


def test_symbolic_links_are_followed_as_in_folders(tmp_path):
    """Large files lie in a store beside the folder that links to them: git-annex, DVC."""
    root = write_folder(tmp_path / "inside", 1)
    (root / "dark" / "000.png").rename(tmp_path / "x123")
    (root / "dark" / "000.png").symlink_to(tmp_path / "x123")
    found = manifest(root, "path,label\ndark/000.png,a\nlight/000.png,b\n")
    assert [sample.path.name for sample in found.samples] == ["000.png", "000.png"]
    (tmp_path / "x123").unlink()
    found = manifest(root, "path,label\ndark/000.png,a\nlight/000.png,b\n")
    assert [(fault.path.name, fault.reason) for fault in found.faults] == [("000.png", "does not exist")]


def test_a_file_may_have_spaces_around_its_name(pictures):
    (pictures / "dark" / "000.png").rename(pictures / " 0.png")
    found = manifest(pictures, "path,label\n 0.png,a\n light/000.png ,b\n")
    assert [sample.path.name for sample in found.samples] == [" 0.png", "000.png"]


def test_pixel_columns_become_pictures(tmp_path):
    file = tmp_path / "p.csv"
    file.write_text("label,pixel0,pixel1,pixel2,pixel3\na,0,1,2,255\nb,9,9,9,9\n")
    table = tables.read_table(file)
    assert tables.kind_of(table) == "pixels"
    pictures, labels = tables.pixel_arrays(table)
    np.testing.assert_array_equal(pictures, [[[0, 1], [2, 255]], [[9, 9], [9, 9]]])
    assert labels == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pixel0,pixel1,pixel2,pixel3\n0,0,0,0\n", "no column 'label'"),
        ("label,pixel0,pixel1\na,0,0\nb,0,0\n", "2 pixel columns, which make no square"),
        ("label,pixel0\na,256\nb,0\n", "whole numbers from 0 to 255"),
        ("label,pixel0\na,0.5\nb,0\n", "whole numbers"),
        ("label,pixel0\na,x\nb,0\n", "row 1, column 'pixel0': 'x' is not a finite number"),
        ("label,pixel0\na/b,0\na/c,1\n", r"\['a/b', 'a/c'\] .* cannot name folders"),
        ("label,pixel0\n../b,0\nc,1\n", "cannot name folders"),
        ("label,pixel0\n.b,0\nc,1\nd,2\n", r"\['.b'\] .* cannot name folders"),
        ("label,pixel0\ntest,0\ncontrol,1\n", r"\['test'\] .* cannot name folders .* not as the name of a split"),
    ],
)
def test_pixel_columns_that_are_no_pictures_are_refused(tmp_path, text, message):
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(TrainingError, match=message):
        tables.pixel_arrays(tables.read_table(tmp_path / "p.csv"))


def test_the_last_column_of_a_table_of_numbers_is_the_label(tmp_path):
    (tmp_path / "f.csv").write_text("width,height,kind\n1,2.5,a\n-3e2,4,b\n")
    table = tables.read_table(tmp_path / "f.csv")
    assert tables.kind_of(table) == "features"
    found, values = tables.feature_rows(table)
    np.testing.assert_array_equal(values, np.float32([[1, 2.5], [-300, 4]]))
    assert (found.labels, [sample.row for sample in found.samples]) == (("a", "b"), [0, 1])
    assert found.columns == ("width", "height")


@pytest.mark.parametrize("header", ["width,height,kind", "label,pixel0"])
def test_a_row_without_a_label_is_no_class_of_its_own(tmp_path, header):
    (tmp_path / "f.csv").write_text(f"{header}\n" + ("1,2,a\n1,2,\n1,2,b\n" if "kind" in header else "a,1\n,1\n"))
    table = tables.read_table(tmp_path / "f.csv")
    with pytest.raises(TrainingError, match="row 2 has no label"):
        (tables.feature_rows if "kind" in header else tables.pixel_arrays)(table)


@pytest.mark.parametrize("field", ["", "nan", "inf", "n/a"])
def test_a_field_that_is_no_number_is_named(tmp_path, field):
    (tmp_path / "f.csv").write_text(f"width,height,kind\n1,2,a\n1,{field},b\n")
    with pytest.raises(TrainingError, match="row 2, column 'height'"):
        tables.feature_rows(tables.read_table(tmp_path / "f.csv"))


@pytest.mark.parametrize(
    ("header", "complaint"),
    [("3,4,kind", "begins with a row of numbers"), ("a,a,kind", r"double .*\['a'\]"), ("a,,kind", r"blank .*\[''\]")],
)
def test_columns_of_numbers_need_names(tmp_path, header, complaint):
    (tmp_path / "f.csv").write_text(f"{header}\n1,2,a\n3,4,b\n")
    with pytest.raises(TrainingError, match=complaint):
        tables.feature_rows(tables.read_table(tmp_path / "f.csv"))


@pytest.mark.parametrize("text", ["path,label\n0.png,a\n1.png,b\n", "x,kind\n1,a\n2,b\n"])
def test_a_folder_above_whose_name_is_not_utf8_is_refused(tmp_path, text):
    """It is written into the run."""
    (tmp_path / "caf\udce9").mkdir()
    file = tmp_path / "caf\udce9" / "list.csv"
    file.write_text(text)
    with pytest.raises(TrainingError, match=r"caf\\xe9 is not UTF-8"):
        (tables.feature_rows if "kind" in text else tables.manifest)(tables.read_table(file))


def test_other_tables_are_refused_with_what_is_known(tmp_path):
    (tmp_path / "f.csv").write_text("name,kind\nbob,a\n")
    with pytest.raises(TrainingError, match="its header must have"):
        tables.kind_of(tables.read_table(tmp_path / "f.csv"))
