import json
import re
import threading
from pathlib import Path

import pytest

from taxon.bundle import traffic, version_labels, version_numbers
from taxon.bundle.manifest import BundleError
from taxon.bundle.traffic import Bounds, Canary, Shadow, Traffic

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "pets").mkdir()
    version_labels.write(tmp_path, "pets", "stable", 3)
    return tmp_path


def declare(root, **fields):
    return traffic.change(root, "pets", lambda before: before.changed(**fields))


def test_what_is_written_is_read_again(root):
    canary = Canary(version=7, share=0.05, bounds=Bounds(window=50, min_calls=20), declared="2026-11-26T00:00:00Z")
    written = declare(root, canary=canary, shadow=Shadow(version=8, share=1))
    assert traffic.read(root, "pets") == written
    assert written == Traffic(labels={"stable": 3}, canary=canary, shadow=Shadow(version=8, share=1.0))
    assert written.versions == {3, 7, 8}
    assert json.loads((root / "pets" / "traffic.json").read_text())["labels"] == {"stable": 3}


def test_a_file_of_the_least(root):
    file = '{"format_version": 1, "labels": {"stable": 3}, "canary": {"version": 7, "share": 0.5}}'
    (root / "pets" / "traffic.json").write_text(file)
    assert traffic.read(root, "pets").canary == Canary(version=7, share=0.5, bounds=Bounds())


def test_the_documented_file_is_one(root):
    """And its bounds are what holds where none are given."""
    (example,) = re.findall(r"```json\n(.*?)```", (DOCS / "bundle_format.md").read_text(), re.DOTALL)
    (root / "pets" / "traffic.json").write_text(example)
    declared = traffic.read(root, "pets")
    assert declared.versions == {3, 7, 8}
    assert declared.canary.bounds == Bounds()


def test_labels_of_the_earlier_form_are_taken_over_by_the_first_change(tmp_path):
    folder = tmp_path / "pets" / "labels"
    folder.mkdir(parents=True)
    (folder / "stable").write_text("3\n")
    (folder / "candidate").write_text("0004\n")
    assert traffic.read(tmp_path, "pets") == Traffic(labels={"stable": 3, "candidate": 4})
    traffic.change(tmp_path, "pets", lambda before: before)  # which is none
    assert folder.is_dir()
    version_labels.write(tmp_path, "pets", "stable", 4)
    assert traffic.read(tmp_path, "pets") == Traffic(labels={"stable": 4, "candidate": 4})
    assert not folder.exists()


def test_the_file_counts_alone(root):
    """A process was killed after it had written the file, and before it removed the earlier form."""
    (root / "pets" / "labels").mkdir()
    (root / "pets" / "labels" / "stable").write_text("1\n")
    assert version_labels.read(root, "pets") == {"stable": 3}


@pytest.mark.parametrize("role", ["canary", "shadow"])
def test_a_version_that_becomes_the_default_is_on_trial_no_more(root, role):
    both = {"canary": Canary(version=7, share=0.5), "shadow": Shadow(version=8, share=0.5)}
    declare(root, **both)
    version_labels.write(root, "pets", "stable", both[role].version)
    after = traffic.read(root, "pets")
    assert after == Traffic(labels={"stable": both[role].version}, **both | {role: None})


def test_other_labels_leave_trials_alone(root):
    canary = declare(root, canary=Canary(version=7, share=0.5)).canary
    version_labels.write(root, "pets", "candidate", 7)
    assert traffic.read(root, "pets").canary == canary


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"canary": Canary(version=3, share=0.5)}, "version 3 is the default already"),
        ({"shadow": Shadow(version=3, share=0.5)}, "version 3 is the default already"),
        ({"canary": Canary(version=4, share=0.5), "shadow": Shadow(version=4, share=0.5)}, "canary and shadow at once"),
        ({"canary": Canary(version=4, share=0.5), "labels": {}}, "a canary needs a version that is labelled stable"),
    ],
)
def test_what_does_not_go_together_is_refused_and_changes_nothing(root, fields, why):
    with pytest.raises(ValueError, match=why):
        declare(root, **fields)
    assert traffic.read(root, "pets") == Traffic(labels={"stable": 3})


def test_the_default_of_a_canary_is_not_taken_away(root):
    declare(root, canary=Canary(version=7, share=0.5))
    with pytest.raises(ValueError, match="a canary needs"):
        version_labels.remove(root, "pets", "stable")
    assert version_labels.read(root, "pets") == {"stable": 3}


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ("{", "is not JSON"),
        ("[]", "is not valid"),
        ('{"format_version": 2}', "format 2, this release reads up to 1"),
        ('{"labels": {"stable": 0}}', "labels.stable"),
        ('{"labels": {"stable": "3"}}', "labels.stable"),
        ('{"labels": {"stable": 3}, "canary": {"version": 7, "share": 0}}', "canary.share"),
        ('{"labels": {"stable": 3}, "canary": {"version": 7, "share": NaN}}', "canary.share"),
        ('{"labels": {"stable": 3}, "canary": {"version": 7, "share": 1.5}}', "canary.share"),
        ('{"labels": {"stable": 3}, "canary": {"version": 7}}', "canary.share"),
        ('{"labels": {"stable": 3}, "canari": {"version": 7}}', "canari"),
        ('{"canary": {"version": 7, "share": 0.5}}', "a canary needs"),
        (
            '{"labels": {"stable": 3}, "canary": {"version": 7, "share": 0.5, "bounds": {"window": 50}}}',
            "min_calls 100 are more than the window of 50",
        ),
    ],
)
def test_a_damaged_file_is_named_and_not_overwritten(root, document, why):
    file = root / "pets" / "traffic.json"
    file.write_text(document)
    for access in (lambda: traffic.read(root, "pets"), lambda: version_labels.write(root, "pets", "stable", 4)):
        with pytest.raises(BundleError, match=why) as error:
            access()
        assert str(file) in str(error.value)
    assert file.read_text() == document


def test_no_folder_is_made_where_a_model_is_away(root):
    with pytest.raises(FileNotFoundError):
        version_labels.write(root, "birds", "stable", 1)
    assert not (root / "birds").exists()


def test_no_change_is_lost_among_many_at_once(root):
    def label(number):
        for version in range(1, 6):
            version_labels.write(root, "pets", f"label{number}", version)

    threads = [threading.Thread(target=label, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert version_labels.read(root, "pets") == {"stable": 3} | {f"label{number}": 5 for number in range(6)}


def test_without_the_mark_a_version_on_trial_is_remembered(root):
    declare(root, canary=Canary(version=7, share=0.5))
    assert version_numbers.last(root, "pets", [3]) == 7
