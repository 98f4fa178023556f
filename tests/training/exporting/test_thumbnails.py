"""Training pictures that leave with a bundle: only as many, as small and of whom they may, and found again."""

import csv
import hashlib
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from taxon import cli
from taxon.bundle import thumbnails as held
from taxon.feedback.exporting import PROVENANCE, PROVENANCE_COLUMNS
from taxon.service.runtime.bundle_explanation import BundleExplainer
from taxon.training.exporting import bundling, thumbnails
from taxon.training.exporting.bundling import Settings
from taxon.training.exporting.candidate import ExportError
from tests.training.toy_classifier import make_candidate, with_training

WANTED = Settings(maps=True, calibration=False, thumbnail_count=12)


@pytest.fixture
def candidate(tmp_path):
    return replace(with_training(make_candidate(tmp_path), tmp_path), head="fc")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A bundle with maps, of the same network, from which nothing may leave."""
    folder = tmp_path_factory.mktemp("plain")
    candidate = replace(with_training(make_candidate(folder), folder), head="fc")
    return bundling.publish(candidate, folder / "models", "toy", Settings(maps=True, calibration=False)).bundle


@pytest.fixture
def written(plain, tmp_path):
    """What `write` makes of a candidate: (spec, note)."""
    (tmp_path / "staged").mkdir()
    graph = plain.folder / bundling.GRAPH_FILE
    return lambda candidate: thumbnails.write(candidate, tmp_path / "staged", graph, 12)


def consented(folder, consents):
    """Says of pictures below a folder what people have consented to."""
    with (folder / PROVENANCE).open("w", newline="") as file:
        writer = csv.DictWriter(file, PROVENANCE_COLUMNS, restval="")
        writer.writeheader()
        writer.writerows({"path": path, "consent": consent} for path, consent in consents)


def test_a_training_picture_is_the_nearest_of_itself(candidate, tmp_path):
    export = bundling.publish(candidate, tmp_path / "models", "toy", WANTED)
    spec = export.bundle.manifest.thumbnails
    assert len(spec.pictures) == 12
    assert any(note.startswith("12 training pictures leave with the bundle") for note in export.notes)
    assert {label for one in spec.pictures for label in one.labels} == {
        label for answer in candidate.training_answers for label in answer
    }
    assert {one.file for one in spec.pictures} | {held.FEATURES} < export.bundle.manifest.files.keys()
    assert "Whoever has the bundle can look at them" in export.bundle.read("report/model_card.md").decode()
    explainer = BundleExplainer(export.bundle.folder)
    originals = {hashlib.sha256(file.read_bytes()).hexdigest(): file for file in candidate.training_files}
    for one in spec.pictures[:4]:
        found = explainer.explain(originals[one.sha256].read_bytes(), max_neighbors=3).neighbors
        assert found[0].thumbnail == export.bundle.read(one.file)
        assert found[0].labels == one.labels
        assert found[0].similarity == pytest.approx(1, abs=1e-5)
        assert found[0].similarity >= found[1].similarity >= found[2].similarity


def test_nothing_leaves_unless_it_is_asked_for(plain):
    assert plain.manifest.thumbnails is None
    assert "thumbnails" not in (plain.folder / "manifest.json").read_text()
    assert not (plain.folder / "thumbnails").exists()


def test_what_was_given_to_be_trained_on_only_stays(candidate, tmp_path, written):
    told = [(f"train/{file.name}", "train") for file in candidate.training_files[:15]]
    told += [(told[0][0], "share")]  # one may pass it on, the other may not
    consented(tmp_path, [*told, *((f"train/{file.name}", "share") for file in candidate.training_files[15:18])])
    spec, note = written(candidate)
    digests = {hashlib.sha256(file.read_bytes()).hexdigest() for file in candidate.training_files[15:]}
    assert {one.sha256 for one in spec.pictures} == digests
    assert "15 that were given to be trained on, and not to be passed on, do not" in note


def test_without_pictures_that_may_leave_there_are_none(candidate, tmp_path, written):
    consented(tmp_path, [(f"train/{file.name}", "train") for file in candidate.training_files])
    spec, note = written(candidate)
    assert (spec, note) == (None, "no thumbnails: all training pictures were given to be trained on only")
    spec, note = written(replace(candidate, training_files=(), training_answers=()))
    assert (spec, note) == (None, "no thumbnails: no training picture is known")


def test_who_does_not_know_what_may_leave_lets_nothing_leave(candidate, tmp_path, written):
    (tmp_path / PROVENANCE).write_text("path,label\na,b\n")
    with pytest.raises(ExportError, match="does not say which pictures may be passed on"):
        written(candidate)


@pytest.mark.slow
def test_a_network_without_maps_has_no_thumbnails(candidate, tmp_path):
    export = bundling.publish(replace(candidate, head=None), tmp_path / "models", "toy", WANTED)
    assert export.bundle.manifest.thumbnails is None
    assert "no thumbnails: there are no maps, by whose features they would be found" in export.notes


@pytest.mark.parametrize("shape", [(300, 200, 3), (300, 200, 1), (8, 8, 3)])
def test_a_thumbnail_is_small_and_holds_nothing_but_pixels(shape):
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    encoded = thumbnails.small(noise)
    assert len(encoded) <= thumbnails.MOST_BYTES
    with Image.open(BytesIO(encoded)) as image:
        assert max(image.size) == min(96, shape[0])
        assert not image.getexif()
        assert image.info.keys() <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}


def test_the_option_goes_with_maps(capsys, tmp_path):
    words = ["export", str(tmp_path), "--models", str(tmp_path / "models"), "--thumbnails", "4"]
    with pytest.raises(SystemExit):
        cli.main(words)
    assert "--thumbnails goes with --maps" in capsys.readouterr().err
