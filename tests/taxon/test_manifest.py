"""What a manifest must say, and how it says what is wrong."""

import json

import pytest

from taxon.bundle.manifest import BundleError, Manifest, check_name, parse

VALID = {
    "format_version": 1,
    "name": "pets",
    "version": 3,
    "task": "single_label",
    "labels": ["cat", "dog"],
    "input": {"kind": "image", "dtype": "uint8", "shape": [4, 6, 3]},
    "pixels": {"resize": 8, "crop": [4, 6]},
    "files": {"model.onnx": "0" * 64, "golden/0.png": "1" * 64},
    "golden": [{"file": "golden/0.png", "scores": [0.25, 0.75], "tolerance": 1e-3}],
    "variants": [{"file": "model.onnx", "precision": "fp32"}],
    "provenance": {"run_id": "r", "created": "2026-11-22T00:00:00Z", "data_digest": "d"},
}


BY = {"unknown": 0.5, "unknown_by": "familiarity"}
JUDGED = {"golden": [{**VALID["golden"][0], "familiarity": 0.9}]}
MAPPED = {
    "maps": {"feature_count": 4, "shape": [1, 1], "weights": "maps.npy", "tolerance": 0.02},
    "golden": [{**VALID["golden"][0], "map": [1.0]}],
}
THUMBNAILS = {
    "features": "thumbnails/features.npy",
    "pictures": [{"file": "thumbnails/000.jpg", "labels": ["cow"], "sha256": "2" * 64}],
}


def changed(**parts: object) -> str:
    return json.dumps({**VALID, **parts})


def test_a_valid_manifest_survives_writing_and_reading():
    manifest = parse(json.dumps(VALID))
    assert parse(manifest.model_dump_json()) == manifest
    assert manifest.input.shape == (4, 6, 3)


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ("{", "not JSON"),
        (100_000 * "[", "not JSON"),
        ("[]", "not a JSON object"),
        (changed(format_version=2), "format 2, this release reads up to 1: upgrade"),
        (changed(surprise=1), "surprise"),
        (changed(name="../evil"), "must match"),
        (changed(version=0), "version"),
        (changed(labels=["cat"]), "labels"),
        (changed(labels=["cat", "cat"]), r"\['cat'\] occur more than once"),
        (changed(labels=["cat", " "]), r"labels: .*entries \[1\] are blank"),
        (changed(pixels=None), "pixels must be given"),
        (changed(pixels={"resize": 8, "crop": [4, 7]}), r"pixels give \(4, 7, 3\)"),
        (changed(input={"kind": "features", "shape": [4]}), "pixels must be given"),
        (changed(input={"kind": "features", "shape": [2], "names": ["a"]}), "1 names for 2 features"),
        (changed(input={"kind": "features", "shape": [2], "names": ["a", "a"]}), r"\['a'\] occur more than once"),
        (changed(golden=[]), "golden"),
        (changed(thumbnails=THUMBNAILS), "there are none without maps"),
        (changed(**MAPPED, thumbnails=THUMBNAILS), r"thumbnails are labelled \['cow'\]"),
        (changed(golden=[{"file": "../x", "scores": [0.5, 0.5], "tolerance": 0.1}]), "stay inside"),
        (changed(golden=[{"file": "/x", "scores": [0.5, 0.5], "tolerance": 0.1}]), "stay inside"),
        (changed(golden=[{"file": "a", "scores": [0.5], "tolerance": 0.1}]), "1 scores for 2 labels"),
        (changed(variants=[{"file": "../../a", "precision": "fp32"}]), "stay inside"),
        (changed(variants=[{"file": "x\\..\\a", "precision": "fp32"}]), "stay inside"),
        (changed(files={"golden/../../a": "0" * 64}), "stay inside"),
        (changed(variants=[{"file": "a", "precision": "fp16"}]), "include fp32"),
        (changed(thresholds={"labels": [0.5]}), "1 label thresholds"),
        (changed(thresholds={"unknown": 1.5}), "thresholds.unknown"),
        (changed(files={"model.onnx": "abc"}), "files"),
        (changed(thresholds={"unknown": 0.5, "unknown_by": "familiarity"}), "golden/0.png must have a familiarity"),
        (changed(golden=[{**VALID["golden"][0], "familiarity": 0.9}]), "golden/0.png must have a familiarity"),
        (changed(golden=[{**VALID["golden"][0], "familiarity": 1.1}]), "golden.0.familiarity"),
        (changed(**JUDGED, thresholds={"unknown_by": "familiarity"}), "for an `unknown` threshold of a single-label"),
        (changed(**JUDGED, thresholds=BY, task="multi_label"), "for an `unknown` threshold of a single-label"),
    ],
)
def test_a_fault_is_named(document, complaint):
    with pytest.raises(BundleError, match=complaint):
        parse(document)


def test_the_contract_holds_what_each_number_is():
    named = {"kind": "features", "shape": [2], "names": ["width", "height"]}
    contracts = [
        parse(changed(pixels=None, input={**named, "names": names})).contract()
        for names in (["width", "height"], ["height", "width"], [])
    ]
    assert [contract.get("taxon.features") for contract in contracts] == [
        '["width", "height"]',
        '["height", "width"]',
        None,
    ]


def test_the_contract_changes_with_labels_and_pixels():
    manifest = parse(json.dumps(VALID))
    swapped = parse(changed(labels=["dog", "cat"]))
    resized = parse(changed(pixels={"resize": 9, "crop": [4, 6]}))
    contracts = [tuple(m.contract().items()) for m in (manifest, swapped, resized)]
    assert len(set(contracts)) == 3
    assert all(isinstance(value, str) for value in manifest.contract().values())


def test_scaled_decoding_shows_only_where_it_is_used():
    """Manifests and graphs from before there was a choice stay valid, and those that make none stay as they were."""
    without = parse(json.dumps(VALID))
    assert not without.pixels.scaled_decoding
    assert "scaled_decoding" not in without.model_dump_json() + "".join(without.contract().values())
    scaled = parse(changed(pixels={**VALID["pixels"], "scaled_decoding": True}))
    assert parse(scaled.model_dump_json()) == scaled
    assert json.loads(scaled.contract()["taxon.pixels"])["scaled_decoding"] is True


def test_familiarity_shows_only_where_it_is_judged():
    """Earlier releases read a bundle whose `unknown` is about the best score, which is every bundle of theirs."""
    without = parse(changed(thresholds={"unknown": 0.5}))
    assert (without.judges_familiarity, without.thresholds.unknown_by) == (False, "score")
    written = json.loads(without.model_dump_json())
    assert "unknown_by" not in written["thresholds"]
    assert "familiarity" not in written["golden"][0]
    assert "unknown" not in written["variants"][0]
    judged = parse(changed(**JUDGED, thresholds=BY))
    assert judged.judges_familiarity
    assert judged.golden[0].row == (0.25, 0.75, 0.9)
    assert parse(judged.model_dump_json()) == judged


def test_a_variant_may_have_its_own_unknown_threshold():
    variants = [{"file": "a", "precision": "fp32"}, {"file": "b", "precision": "int8", "unknown": 0.4}]
    manifest = parse(changed(**JUDGED, thresholds=BY, variants=variants))
    assert [manifest.unknown_threshold(precision) for precision in ("fp32", "int8", "fp16")] == [0.5, 0.4, 0.5]
    assert parse(json.dumps(VALID)).unknown_threshold("fp32") is None


def test_a_resampler_shows_only_where_it_is_not_pillows():
    without = parse(changed(pixels={**VALID["pixels"], "resampler": "pillow"}))
    assert without == parse(json.dumps(VALID))
    assert "resampler" not in without.model_dump_json() + "".join(without.contract().values())
    simd = parse(changed(pixels={**VALID["pixels"], "resampler": "simd"}))
    assert parse(simd.model_dump_json()) == simd
    assert json.loads(simd.contract()["taxon.pixels"])["resampler"] == "simd"
    with pytest.raises(BundleError, match="resampler"):
        parse(changed(pixels={**VALID["pixels"], "resampler": "opencv"}))


@pytest.mark.parametrize("name", ["", "Pets", "a/b", "-a", "a" * 64, ".hidden", "a b"])
def test_names_that_are_no_folder_names_are_refused(name):
    with pytest.raises(ValueError, match="must match"):
        check_name(name)


def test_a_manifest_cannot_be_changed_after_reading():
    manifest: Manifest = parse(json.dumps(VALID))
    with pytest.raises(ValueError, match="frozen"):
        manifest.labels = ("dog", "cat")
