import pytest

from taxon.bundle import store, version_labels
from taxon.bundle.manifest import BundleError


@pytest.fixture
def root(tmp_path):
    (tmp_path / "pets").mkdir()
    return tmp_path


def test_a_model_without_labels(root):
    assert version_labels.read(root, "pets") == {}


def test_labels_are_kept(root):
    version_labels.write(root, "pets", "stable", 3)
    version_labels.write(root, "pets", "candidate", 7)
    version_labels.write(root, "pets", "stable", 4)
    assert version_labels.read(root, "pets") == {"stable": 4, "candidate": 7}


def test_a_removed_label_is_gone(root):
    version_labels.write(root, "pets", "stable", 3)
    version_labels.remove(root, "pets", "stable")
    version_labels.remove(root, "pets", "stable")
    assert version_labels.read(root, "pets") == {}


@pytest.mark.parametrize("label", ["7", "../x", ".hidden", "", "Stable"])
def test_labels_that_would_confuse_are_refused(root, label):
    with pytest.raises(ValueError, match=r"label|name"):
        version_labels.write(root, "pets", label, 1)


@pytest.mark.parametrize("content", [b"", b"seven", b"-1", b"0", b"\xff\xfe"])
def test_a_damaged_label_is_named(root, content):
    (root / "pets" / "labels").mkdir()
    (root / "pets" / "labels" / "stable").write_bytes(content)
    with pytest.raises(BundleError, match="stable"):
        version_labels.read(root, "pets")


def test_a_half_written_file_is_passed_over(root):
    (root / "pets" / "labels").mkdir()
    (root / "pets" / "labels" / "stable").write_text("3\n")
    (root / "pets" / "labels" / ".tmp1234").write_text("")
    assert version_labels.read(root, "pets") == {"stable": 3}


def test_labels_are_no_versions(root):
    version_labels.write(root, "pets", "stable", 3)
    assert store.versions(root, "pets") == []
