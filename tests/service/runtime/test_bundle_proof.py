"""Bundles that must not be served: each is refused with its reason. And what is known of one that may."""

import json
import shutil

import numpy as np
import pytest
from structlog.testing import capture_logs

from taxon.bundle import pixels, store
from taxon.bundle.class_maps import read_head, write_head
from taxon.bundle.manifest import BundleError, Thresholds, Variant
from taxon.bundle.picture_limits import Limits
from taxon.service.runtime import bundle_proof
from taxon.service.runtime.bundle_proof import describe, prove
from taxon.service.runtime.device import CPU, CUDA, CUDA_GRAPHS, Device
from taxon.service.runtime.session import open_session
from tests.fakes import COLORS, toy_bundle, toy_graph

BUCKETS = [1, 2, 4]


def load(root, name="colors", version=1, variant="fp32"):
    """What a worker does with an order."""
    return prove(store.read(root, name, version), variant, Device(CPU), 1, BUCKETS, Limits())


def edit(bundle, **changes):
    path = bundle.folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def missing_file(bundle):
    (bundle.folder / "model.onnx").unlink()


def wrong_digest(bundle):
    (bundle.folder / "golden" / "0.png").write_bytes(b"something else")


def changed_label(bundle):
    edit(bundle, labels=["red", "green", "violet"])


def changed_pixels(bundle):
    edit(bundle, pixels={"resize": 9, "crop": [8, 8]})


def changed_task(bundle):
    edit(bundle, task="multi_label")


def newer_format(bundle):
    edit(bundle, format_version=2)


def not_json(bundle):
    (bundle.folder / "manifest.json").write_text("{")


def no_manifest(bundle):
    (bundle.folder / "manifest.json").unlink()


DAMAGES = [
    (missing_file, "model.onnx is missing"),
    (wrong_digest, "golden/0.png has sha256"),
    (changed_label, "the graph's metadata taxon.labels"),
    (changed_pixels, "the graph's metadata taxon.pixels"),
    (changed_task, "the graph's metadata taxon.task"),
    (newer_format, "format 2, this release reads up to 1"),
    (not_json, "manifest.json is not JSON"),
    (no_manifest, "manifest.json cannot be read"),
]


@pytest.mark.parametrize(("damage", "reason"), DAMAGES)
def test_a_damaged_bundle_is_refused_with_its_reason(models, damage, reason):
    bundle = store.read(models, "colors", 1)
    damage(bundle)
    with pytest.raises(BundleError, match=reason):
        load(models)


def test_a_bundle_in_another_versions_folder_is_refused(models):
    (models / "colors" / "1").rename(models / "colors" / "9")
    with pytest.raises(BundleError, match="holds colors version 1; do not rename bundles"):
        load(models, version=9)


def test_a_golden_that_changes_between_the_check_and_the_proof_is_refused(models):
    bundle = store.read(models, "colors", 1)
    wrong_digest(bundle)
    with pytest.raises(BundleError, match=r"golden/0\.png has changed since it was checked"):
        prove(bundle, "fp32", Device(CPU), 1, BUCKETS, Limits())


def test_goldens_that_answer_differently(models):
    toy_bundle(models, "shifted", golden_shift=1e-3)
    with pytest.raises(BundleError, match=r"golden/0\.png: in a batch of 1 a score differs by 0\.001"):
        load(models, "shifted")


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (b"\x08\x08", "ONNX Runtime does not load the graph"),
        (toy_graph({}), r"the graph's metadata taxon\.labels is None"),
    ],
)
def test_graphs_that_are_not_the_manifests(models, graph, reason):
    toy_bundle(models, "odd", graph=graph)
    with pytest.raises(BundleError, match=reason):
        load(models, "odd")


def test_a_graph_of_another_input(models):
    contract = store.read(models, "colors", 1).manifest.contract()
    toy_bundle(models, "odd", graph=toy_graph(contract, features=True))
    with pytest.raises(BundleError) as failure:
        load(models, "odd")
    assert str(failure.value) == "the graph's input is float32 'features', it must be uint8 'image'"


def test_goldens_over_the_servers_limits_refuse_the_bundle(models):
    bundle = store.read(models, "colors", 1)
    with pytest.raises(BundleError, match=r"golden/0\.png cannot be decoded: the picture needs"):
        prove(bundle, "fp32", Device(CPU), 1, BUCKETS, Limits(max_pixels=50))


# What may be served


def test_a_sound_bundle_is_proved_and_every_batch_size_timed(models):
    proven = load(models)
    assert proven.variant.precision == "fp32"
    assert list(proven.run_s) == BUCKETS
    assert all(seconds > 0 for seconds in proven.run_s.values())
    assert 0 <= proven.largest_difference < 1e-4
    scores = proven.session.run(np.zeros((2, 8, 8, 3), np.uint8))
    assert scores.shape == (2, 3)


JUDGED = Thresholds(unknown=0.9, unknown_by="familiarity")


def test_familiarity_is_proved_like_every_score(tmp_path):
    toy_bundle(tmp_path, thresholds=JUDGED)
    proven = load(tmp_path)
    rows = proven.session.run(np.full((2, 8, 8, 3), 80, np.uint8))
    assert rows.shape == (2, 4)
    assert rows[:, 3] == pytest.approx(3**-0.5, abs=1e-5)


def test_a_tampered_bank_is_refused(tmp_path):
    """Its digest is in order and every score right: only what the judge answers gives it away."""
    toy_bundle(tmp_path, thresholds=JUDGED, bank=np.array([[1.0, 0, 0], [0, 1, 0], [0, 0.8, 0.6]]))
    with pytest.raises(BundleError, match=r"golden/2\.png: in a batch of \d the familiarity differs by 0\.4"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("thresholds", "bank", "reason"),
    [
        (JUDGED, None, "the graph has 1 outputs, it must have 2: scores, familiarity"),
        (Thresholds(unknown=0.9), np.eye(3), "the graph has 2 outputs, it must have 1: scores"),
    ],
)
def test_a_graph_that_judges_otherwise_than_its_manifest_says_is_refused(models, thresholds, bank, reason):
    contract = store.read(models, "colors", 1).manifest.contract()
    toy_bundle(models, "odd", thresholds=thresholds, graph=toy_graph(contract, bank=bank))
    with pytest.raises(BundleError, match=reason):
        load(models, "odd")


def test_features_are_proved_too(tmp_path):
    toy_bundle(tmp_path, features=True)
    assert list(load(tmp_path).run_s) == BUCKETS


def test_no_bucket_is_slower_than_two_of_half_its_size(models, monkeypatch):
    """Noise would keep a bucket from ever being used, and so from ever being measured again."""
    bundle = store.read(models, "colors", 1)
    took_s = {1: 0.001, 2: 0.050, 4: 0.004}
    monkeypatch.setattr(bundle_proof, "_time", lambda session, batch: took_s[len(batch)])
    proven = prove(bundle, "fp32", Device(CPU), 1, BUCKETS, Limits())
    assert proven.run_s == {1: 0.001, 2: 0.002, 4: 0.004}


def with_variant(bundle):
    """The same graph once more, said to be int8."""
    shutil.copy(bundle.folder / "model.onnx", bundle.folder / "model.int8.onnx")
    files = bundle.manifest.files | {"model.int8.onnx": bundle.manifest.files["model.onnx"]}
    variants = [*bundle.manifest.variants, Variant(file="model.int8.onnx", precision="int8")]
    edit(bundle, files=files, variants=[variant.model_dump() for variant in variants])


def test_the_variant_that_was_asked_for_is_served(models):
    with_variant(store.read(models, "colors", 1))
    with capture_logs() as events:
        assert load(models, variant="int8").variant.file == "model.int8.onnx"
        assert load(models, variant="fp32").variant.file == "model.onnx"
    assert not [event for event in events if event["log_level"] == "warning"]


def test_a_bundle_without_that_variant_is_served_as_fp32_and_the_log_says_so(models):
    with capture_logs() as events:
        assert load(models, variant="fp16").variant.precision == "fp32"
    (event,) = [event for event in events if event["log_level"] == "warning"]
    assert (event["model"], event["variant"]) == ("colors", "fp16")


# What the Open Inference Protocol tells of it


def test_a_picture_may_be_sent_as_pixels_or_encoded(models):
    described = describe(store.read(models, "colors", 1).manifest, "int8", CPU, BUCKETS, 128)
    assert [(spec.name, spec.datatype, spec.shape) for spec in described.inputs] == [
        ("image", "UINT8", (-1, 8, 8, 3)),
        ("image", "BYTES", (-1,)),
    ]
    assert [(spec.name, spec.datatype, spec.shape) for spec in described.outputs] == [("scores", "FP32", (-1, 3))]
    assert described.labels == {"scores": tuple(COLORS)}
    assert described.formats == {"image": 1}
    assert (described.variant, described.provider, described.max_batch_size) == ("int8", CPU, 128)
    assert (described.name, described.version, described.buckets) == ("colors", 1, BUCKETS)


def test_familiarity_is_a_second_tensor(tmp_path):
    described = describe(toy_bundle(tmp_path, thresholds=JUDGED).manifest, "fp32", CPU, BUCKETS, 128)
    outputs = [(spec.name, spec.datatype, spec.shape) for spec in described.outputs]
    assert outputs == [("scores", "FP32", (-1, 3)), ("familiarity", "FP32", (-1, 1))]


def test_features_are_one_tensor(tmp_path):
    described = describe(toy_bundle(tmp_path, features=True).manifest, "fp32", CPU, BUCKETS, 128)
    assert [(spec.name, spec.datatype, spec.shape) for spec in described.inputs] == [("features", "FP32", (-1, 4))]
    assert described.formats == {}


# What the log says beside


def test_why_pictures_are_resized_slowly_is_logged(tmp_path, monkeypatch):
    monkeypatch.setattr(pixels, "why_slow", lambda spec: "no wheel")
    bundles = toy_bundle(tmp_path), toy_bundle(tmp_path, "numbers", features=True)
    with capture_logs() as events:
        for bundle in bundles:
            prove(bundle, "fp32", Device(CPU), 1, [1], Limits())
    slow = [event for event in events if event["event"] == "pictures are resized slowly, by NumPy"]
    assert [(event["model"], event["reason"]) for event in slow] == [("colors", "no wheel")]


@pytest.mark.parametrize("fails_at", ["open", "run"])
def test_what_cuda_cannot_capture_is_run_without_where_that_is_free(models, monkeypatch, fails_at):
    def fail(*_):
        raise RuntimeError("a node is on the CPU")

    def capturing(graph, provider, threads, options, precision):
        opened = open_session(graph, CPU, threads, {}, precision)
        if options.get(CUDA, {}).get(CUDA_GRAPHS) == "1":
            if fails_at == "open":
                raise BundleError("a node is on the CPU")
            monkeypatch.setattr(opened, "run", fail)
        return opened

    monkeypatch.setattr(bundle_proof, "open_session", capturing)
    captures = {CUDA: {CUDA_GRAPHS: "1"}}
    bundle = store.read(models, "colors", 1)
    with capture_logs() as events:
        prove(bundle, "fp32", Device(CUDA, captures, tries_cuda_graphs=True), 1, BUCKETS, Limits())
    (warning,) = [event for event in events if event["log_level"] == "warning"]
    assert warning["event"].startswith("CUDA graphs do not take the model")
    assert "a node is on the CPU" in warning["reason"]
    with pytest.raises(BundleError, match="a node is on the CPU"):
        prove(bundle, "fp32", Device(CUDA, captures), 1, BUCKETS, Limits())


def test_a_bundle_that_is_refused_either_way_is_not_refused_because_of_cuda_graphs(models, monkeypatch):
    monkeypatch.setattr(bundle_proof, "open_session", lambda graph, provider, *how: open_session(graph, CPU, 1, {}))
    toy_bundle(models, "shifted", golden_shift=0.05)
    device = Device(CUDA, {CUDA: {CUDA_GRAPHS: "1"}}, tries_cuda_graphs=True)
    with capture_logs() as events, pytest.raises(BundleError, match="golden"):
        prove(store.read(models, "shifted", 1), "fp32", device, 1, BUCKETS, Limits())
    assert not [event for event in events if "CUDA graphs" in event["event"]]


def test_a_golden_whose_map_differs_is_refused(tmp_path):
    bundle = toy_bundle(tmp_path, maps=True, map_shift=0.5)
    with pytest.raises(BundleError, match=r"golden/0.png: its map differs by 0.0476 of its range, at most 0.0001"):
        prove(bundle, "fp32", Device(provider=CPU, options={}), 1, (1,), Limits())


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (b"no array", "maps.npy is no array"),
        (write_head(np.zeros((3, 3), np.float32)), r"maps.npy must be finite float32 \[3, 4\]"),
        (write_head(np.full((3, 4), np.nan, np.float32)), "must be finite"),
        (write_head(np.zeros((3, 4), np.float64)), "must be finite float32"),
    ],
)
def test_weights_that_cannot_make_maps_are_refused(tmp_path, head, reason):
    manifest = toy_bundle(tmp_path, maps=True).manifest
    with pytest.raises(BundleError, match=reason):
        read_head(head, manifest)
