"""ONNX files without a manifest: what is proven, what is refused, what a configuration changes."""

from dataclasses import replace

import numpy as np
import pytest
from onnx import TensorProto, helper
from structlog.testing import capture_logs

from taxon.bundle.manifest import BundleError
from taxon.service.runtime.description import GraphConfig
from taxon.service.runtime.device import CPU
from taxon.service.runtime.graph_proof import UNKNOWN_RUN_S, prove_graph
from taxon.service.runtime.packing import pack, unpack
from tests.tensor_models import free_length, mixing, simple, strings, tensor, write_graph

BUCKETS = [1, 2, 4, 8]
SIMPLE = GraphConfig(inputs={"INPUT0": "INT32", "INPUT1": "INT32"}, outputs={"OUTPUT0": "INT32", "OUTPUT1": "INT32"})


def prove(root, name="simple", config=GraphConfig(), buckets=BUCKETS):
    return prove_graph(root / name / "1", config, CPU, 1, buckets, max_batch_size=256)


@pytest.fixture
def root(tmp_path):
    simple(tmp_path)
    return tmp_path


def test_proves_and_describes(root):
    proven = prove(root)
    described = proven.description
    assert (described.name, described.version, described.provider) == ("simple", 1, CPU)
    assert [(spec.name, spec.datatype, spec.shape) for spec in described.inputs] == [
        ("INPUT0", "INT32", (-1, 16)),
        ("INPUT1", "INT32", (-1, 16)),
    ]
    assert [spec.name for spec in described.outputs] == ["OUTPUT0", "OUTPUT1"]
    assert described.max_batch_size == 256
    assert list(proven.run_s) == list(described.buckets) == BUCKETS
    assert all(seconds > 0 for seconds in proven.run_s.values())


def test_what_was_proven_can_be_run(root):
    rows = np.arange(32, dtype=np.int32).reshape(2, 16)
    packed = np.stack(pack([rows, np.full((2, 16), 3, np.int32)], batched=True))
    total, difference = unpack(list(prove(root).run(packed)), 2, batched=True)
    np.testing.assert_array_equal(total, rows + 3)
    np.testing.assert_array_equal(difference, rows - 3)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
            r"a git-LFS pointer \(run `git lfs pull`\)",
        ),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"", "empty"),
        (b"nothing", "no whole ONNX graph"),
    ],
)
def test_a_file_that_is_no_graph_says_what_it_is(root, content, reason):
    (root / "simple" / "1" / "model.onnx").write_bytes(content)
    with pytest.raises(BundleError, match=reason) as refused:
        prove(root)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("length", [1, 2])
def test_a_fixed_first_axis_is_not_batched(tmp_path, length):
    simple(tmp_path, batch=length)
    proven = prove(tmp_path)
    assert proven.description.max_batch_size == 0
    assert list(proven.run_s) == [1]


def test_a_first_axis_that_mixes_inputs_is_not_batched(tmp_path):
    mixing(tmp_path)
    with capture_logs() as events:
        assert prove(tmp_path, "mixing").description.max_batch_size == 0
    assert "not answered as they are singly" in events[0]["event"]


def test_a_free_length_is_batched(tmp_path):
    free_length(tmp_path)
    assert prove(tmp_path, "free").description.max_batch_size == 256


def reshaping(root):
    """Takes rows of 21 numbers only, as its shape does not say: none of the lengths that are tried."""
    write_graph(
        root / "odd" / "1",
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        [tensor("x", TensorProto.FLOAT, ["n", "length"])],
        [tensor("y", TensorProto.FLOAT, ["n", 3, 7])],
        [helper.make_tensor("shape", TensorProto.INT64, [3], [-1, 3, 7])],
    )


def test_a_graph_that_takes_no_sample_is_served_singly(tmp_path):
    reshaping(tmp_path)
    proven = prove(tmp_path, "odd")
    assert proven.description.max_batch_size == 0
    assert proven.run_s == {1: UNKNOWN_RUN_S}
    (row,) = pack([np.zeros((1, 21), np.float32)], batched=False)
    (answer,) = unpack(list(proven.run(np.stack([row]))), 1, batched=False)
    assert answer.shape == (1, 3, 7)


def test_a_graph_that_takes_no_sample_is_batched_if_that_was_configured(tmp_path):
    reshaping(tmp_path)
    proven = prove(tmp_path, "odd", GraphConfig(max_batch_size=4))
    assert proven.run_s == {bucket: bucket * UNKNOWN_RUN_S for bucket in (1, 2, 4)}


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
    (root / "simple" / "1" / "model.onnx").write_bytes(b"\x08\x08")
    with pytest.raises(BundleError, match="does not load"):
        prove(root)


# What is configured


def test_a_configuration_is_followed(root):
    config = replace(SIMPLE, max_batch_size=3, labels={"OUTPUT0": ("a", "b b")}, formats={"INPUT0": 1})
    proven = prove(root, config=config)
    assert proven.description.max_batch_size == 3
    assert list(proven.run_s) == [1, 2]
    assert proven.description.labels == {"OUTPUT0": ("a", "b b")}
    assert proven.description.formats == {"INPUT0": 1}


def test_no_batching_by_configuration(root):
    proven = prove(root, config=GraphConfig(max_batch_size=0))
    assert proven.description.max_batch_size == 0
    assert list(proven.run_s) == [1]


def test_a_file_of_another_name_by_configuration(root):
    folder = root / "simple" / "1"
    (folder / "model.onnx").rename(folder / "other.onnx")
    assert prove(root, config=GraphConfig(graph_file="other.onnx")).description.name == "simple"
    with pytest.raises(BundleError, match=r"model\.onnx cannot be read: No such file"):
        prove(root)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (replace(SIMPLE, inputs={"INPUT0": "FP32", "INPUT1": "INT32"}), "is INT32, config.pbtxt says FP32"),
        (GraphConfig(inputs={"INPUT0": "INT32"}), "'INPUT1' is INT32, config.pbtxt says nothing of it"),
        (replace(SIMPLE, outputs={"OUTPUT0": "INT32"}), "'OUTPUT1' is INT32, config.pbtxt says nothing of it"),
    ],
)
def test_tensors_that_are_not_as_configured_are_refused(root, config, reason):
    with pytest.raises(BundleError, match=reason):
        prove(root, config=config)


def test_a_type_that_the_configuration_leaves_open_is_the_graphs(root):
    assert prove(root, config=replace(SIMPLE, inputs={"INPUT0": "INVALID", "INPUT1": "INT32"}))


def test_batching_that_the_graph_cannot_is_refused(tmp_path):
    simple(tmp_path, batch=1)
    with pytest.raises(BundleError, match="no free first axis"):
        prove(tmp_path, config=GraphConfig(max_batch_size=8))


def test_a_batch_that_fails_is_refused(tmp_path):
    """It is configured as batched, and its shapes do not say that it takes one row only."""
    write_graph(
        tmp_path / "one" / "1",
        [
            helper.make_node("Shape", ["x"], ["length"], end=1),
            helper.make_node("Sub", ["length", "one"], ["last"]),
            helper.make_node("Gather", ["table", "last"], ["row"]),  # of one entry
            helper.make_node("Add", ["x", "row"], ["y"]),
        ],
        [tensor("x", TensorProto.FLOAT, ["n", 2])],
        [tensor("y", TensorProto.FLOAT, ["n", 2])],
        [
            helper.make_tensor("one", TensorProto.INT64, [1], [1]),
            helper.make_tensor("table", TensorProto.FLOAT, [1, 2], [0.0, 0.0]),
        ],
    )
    with pytest.raises(BundleError, match="the graph fails on a batch of 2"):
        prove(tmp_path, "one", GraphConfig(max_batch_size=8))
    assert prove(tmp_path, "one").description.max_batch_size == 0  # unless that was configured
