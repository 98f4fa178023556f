"""ONNX files without a manifest: what is found, what is proven, what is refused, what a `config.pbtxt` changes."""

import numpy as np
import pytest
from onnx import TensorProto, helper
from structlog.testing import capture_logs
from taxon.service.runtime.config_pbtxt import model_config, read_config

from taxon.bundle.manifest import BundleError
from taxon.inference import model_config_pb2 as pb
from taxon.service.runtime import graph_proof
from taxon.service.runtime.graph_proof import prove_graph
from taxon.service.runtime.packing import pack, run_packed, unpack
from taxon.service.runtime.session import CPU
from tests.fakes import toy_bundle
from tests.tensor_models import free_length, mixing, simple, strings, tensor, write_graph

BUCKETS = [1, 2, 4, 8]


def prove(root, name="simple", version=1):
    return prove_graph(root, name, version, CPU, 1, BUCKETS, max_batch_size=256)


def configure(root, text, name="simple"):
    (root / name / "config.pbtxt").write_text(text)


@pytest.fixture
def root(tmp_path):
    simple(tmp_path)
    return tmp_path


def test_finds_folders_of_numbered_versions_only(root):
    toy_bundle(root)
    (root / "Simple.v2" / "10").mkdir(parents=True)
    (root / "Simple.v2" / "10" / "model.onnx").touch()
    (root / "Simple.v2" / "9").mkdir()
    (root / "notes").mkdir()
    (root / ".hidden" / "1").mkdir(parents=True)
    (root / ".hidden" / "1" / "model.onnx").touch()
    (root / "simple" / "draft").mkdir()
    (root / "simple" / "0").mkdir()
    assert graph_proof.names(root) == ["Simple.v2", "simple"]
    assert graph_proof.versions(root, "Simple.v2") == [10]
    assert graph_proof.versions(root, "colors") == []
    assert graph_proof.versions(root, "birds") == []


def test_proves_and_describes(root):
    proven = prove(root)
    described = proven.described
    assert [(spec.name, spec.datatype, spec.shape) for spec in described.inputs] == [
        ("INPUT0", "INT32", (-1, 16)),
        ("INPUT1", "INT32", (-1, 16)),
    ]
    assert described.max_batch_size == 256
    assert list(proven.run_s) == BUCKETS


@pytest.mark.parametrize("length", [1, 2])
def test_a_fixed_first_axis_is_not_batched(tmp_path, length):
    simple(tmp_path, batch=length)
    proven = prove(tmp_path)
    assert proven.described.max_batch_size == 0
    assert list(proven.run_s) == [1]


def test_a_first_axis_that_mixes_inputs_is_not_batched(tmp_path):
    mixing(tmp_path)
    assert prove(tmp_path, "mixing").described.max_batch_size == 0


def test_a_free_length_is_batched(tmp_path):
    free_length(tmp_path)
    assert prove(tmp_path, "free").described.max_batch_size == 256


def test_text_is_refused_with_its_reason(tmp_path):
    strings(tmp_path)
    with pytest.raises(BundleError, match=r"output 'text' is tensor\(string\)"):
        prove(tmp_path, "strings")


def test_a_bundle_without_its_manifest_is_refused(tmp_path):
    """It may have been copied half, and its preprocessing would be lost."""
    write_graph(
        tmp_path / "half" / "1",
        [helper.make_node("Identity", ["x"], ["y"])],
        [tensor("x", TensorProto.FLOAT, ["n", 2])],
        [tensor("y", TensorProto.FLOAT, ["n", 2])],
        **{"taxon.labels": "[]"},
    )
    with pytest.raises(BundleError, match="its manifest is missing"):
        prove(tmp_path, "half")


def test_what_is_no_graph_is_refused(root):
    (root / "simple" / "1" / "model.onnx").write_bytes(b"no")
    with pytest.raises(BundleError, match="does not load"):
        prove(root)


# config.pbtxt


def test_honoured(root):
    (root / "simple" / "names.txt").write_text("a\nb b\n", encoding="utf-8")
    configure(
        root,
        """
        name: "simple"  platform: "onnxruntime_onnx"  max_batch_size: 3
        input [
          { name: "INPUT0" data_type: TYPE_INT32 dims: [ 16 ] },
          { name: "INPUT1" data_type: TYPE_INT32 dims: 16 }
        ]
        output { name: "OUTPUT0" data_type: TYPE_INT32 dims: [ 16 ] label_filename: "names.txt" }
        output { name: "OUTPUT1" data_type: TYPE_INT32 dims: [ 16 ] }
        version_policy: { latest { num_versions: 2 } }
        dynamic_batching { }
        """,
    )
    with capture_logs() as events:
        proven = prove(root)
    assert events == []
    assert proven.described.max_batch_size == 3
    assert list(proven.run_s) == [1, 2]
    assert proven.described.labels == {"OUTPUT0": ("a", "b b")}
    config = model_config(proven.described, 7, 1.0)
    assert config.output[0].label_filename == "labels.txt"
    assert config.dynamic_batching.default_queue_policy.max_queue_size == 7


@pytest.mark.parametrize(
    ("text", "ignored"),
    [
        ("optimization { cuda { graphs: true } }", ["optimization"]),
        ("instance_group [ { count: 4 } ]", ["instance_group"]),
        ("dynamic_batching { preferred_batch_size: [4] max_queue_delay_microseconds: 9 }", None),
        ("model_warmup [ { name: 'w' batch_size: 1 } ]", ["model_warmup"]),
        ("response_cache { enable: true }", ["response_cache"]),
    ],
)
def test_what_is_not_honoured_is_warned_of(root, text, ignored):
    configure(root, f"max_batch_size: 8 {text}")
    with capture_logs() as events:
        prove(root)
    (warned,) = [event for event in events if event["event"] == "configuration is honoured in part"]
    assert warned["ignored"] == (
        ignored or ["dynamic_batching.max_queue_delay_microseconds", "dynamic_batching.preferred_batch_size"]
    )


def test_unknown_parts_are_warned_of(root):
    configure(root, 'max_batch_size: 8  a_new_part { x: "y" }')
    with capture_logs() as events:
        assert read_config(root / "simple").max_batch_size == 8
    assert "a_new_part" in events[0]["reason"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('name: "other"', "is of model 'other'"),
        ('backend: "python"', "only 'onnxruntime' is served"),
        ("max_batch_size: -1", "must not be negative"),
        ("max_batch_size {", "is not a model configuration"),
        ('default_model_filename: "../../x.onnx"', "must be a file of the version's folder"),
        ('output { name: "OUTPUT0" label_filename: "../../../etc/passwd" }', "leads out of the model's folder"),
        ('output { name: "OUTPUT0" label_filename: "none.txt" }', "cannot be read"),
        ('input { name: "INPUT0" data_type: TYPE_FP32 }', "is INT32, config.pbtxt says FP32"),
        ('input { name: "INPUT0" data_type: TYPE_INT32 }', "'INPUT1' is INT32, config.pbtxt says nothing"),
    ],
)
def test_configurations_that_cannot_be_honoured_are_refused(root, text, reason):
    configure(root, text)
    with pytest.raises(BundleError, match=reason):
        prove(root)


def test_batching_that_the_graph_cannot_is_refused(tmp_path):
    simple(tmp_path, batch=1)
    configure(tmp_path, "max_batch_size: 8")
    with pytest.raises(BundleError, match="no free first axis"):
        prove(tmp_path)


@pytest.mark.parametrize(
    ("policy", "served"),
    [
        ("", [1, 2, 3]),
        ("version_policy { all { } }", [1, 2, 3]),
        ("version_policy { latest { num_versions: 2 } }", [2, 3]),
        ("version_policy { latest { } }", [3]),
        ("version_policy { specific { versions: [1, 3] } }", [1, 3]),
    ],
)
def test_version_policy(root, policy, served):
    configure(root, policy)
    config = read_config(root / "simple")
    assert [version for version in (1, 2, 3) if config.serves(version, 3 - version)] == served


def test_no_batching_by_configuration(root):
    configure(root, "max_batch_size: 0")
    described = prove(root).described
    config = model_config(described, 1, 1.0)
    assert config.max_batch_size == 0
    assert list(config.input[0].dims) == [-1, 16]
    assert not config.HasField("dynamic_batching")
    assert config.instance_group[0].kind == pb.ModelInstanceGroup.KIND_CPU


# Packing


@pytest.mark.parametrize("batched", [True, False])
def test_several_tensors_travel_as_one_array(batched):
    first, second = np.arange(6).reshape(2, 3), np.array([[0.5], [1.5]], np.float32)
    items = pack([first, second], batched=batched)
    assert len(items) == (2 if batched else 1)

    def swap(tensors):
        assert [one.dtype for one in tensors] == [first.dtype, second.dtype]
        return [tensors[1] * 2, tensors[0]]

    rows = run_packed(swap, np.stack(items), batched=batched)
    outputs = unpack(list(rows), 2, batched=batched)
    np.testing.assert_array_equal(outputs[0], second * 2)
    np.testing.assert_array_equal(outputs[1], first)


def test_an_output_without_a_row_for_each_input_is_an_error():
    with pytest.raises(ValueError, match="for a batch of 2"):
        run_packed(lambda tensors: [np.zeros(1)], np.stack(pack([np.zeros((2, 1))], batched=True)), batched=True)


def test_rows_of_different_shapes_are_no_tensor():
    rows = [pack([np.zeros((1, length))], batched=True)[0] for length in (1, 2)]
    with pytest.raises(ValueError, match="same shape"):
        unpack(rows, 1, batched=True)
