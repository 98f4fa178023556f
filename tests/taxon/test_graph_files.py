"""Weights that a graph keeps in other files: found, held to the graph's own folder, part of every digest."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from taxon.bundle import graph_files, store
from taxon.bundle.manifest import BundleError
from tests.fakes import toy_bundle
from tests.tensor_models import beside


def test_a_graph_of_one_file_has_no_others(tmp_path):
    bundle = toy_bundle(tmp_path)
    assert graph_files.external_files(bundle.folder / "model.onnx") == ()
    assert graph_files.digest(bundle.folder / "model.onnx") == store.sha256(bundle.folder / "model.onnx")


def test_weights_in_every_place_are_found(tmp_path):
    """Initialisers, constants of nodes, graphs within nodes."""

    def outside(name: str) -> TensorProto:
        tensor = numpy_helper.from_array(np.zeros(4, np.float32), name)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="offset", value="0")
        tensor.external_data.add(key="location", value=f"{name}.bin")
        return tensor

    inner = helper.make_graph([helper.make_node("Identity", ["c"], ["d"])], "inner", [], [], [outside("inner")])
    nodes = [
        helper.make_node("Constant", [], ["k"], value=outside("constant")),
        helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner),
    ]
    graph = helper.make_graph(nodes, "outer", [], [], [outside("outer")])
    path = tmp_path / "model.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    assert graph_files.external_files(path) == ("constant.bin", "inner.bin", "outer.bin")
    with pytest.raises(BundleError, match=r"'constant.bin', which is missing beside it"):
        graph_files.check_beside(tmp_path, "model.onnx")


def test_the_digest_is_of_the_weights_too(tmp_path):
    digests = {graph_files.digest(beside(tmp_path / str(value), value)) for value in (1, 2)}
    assert len(digests) == 2


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", "*/_ORT_MEM_ADDR_/*", ""])
def test_weights_elsewhere_are_refused_by_name(tmp_path, location):
    path = beside(tmp_path / "1", 1)
    (tmp_path / "weights.bin").write_bytes(bytes(64))
    model = onnx.load(path, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match=r"leads out|is missing"):
        graph_files.check_beside(path.parent, path.name)


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    path = beside(tmp_path / "1", 1)
    data = path.with_name("weights.bin")
    data.rename(tmp_path / "elsewhere.bin")
    data.symlink_to(tmp_path / "elsewhere.bin")
    with pytest.raises(BundleError, match="leads out"):
        graph_files.check_beside(path.parent, path.name)


@pytest.mark.parametrize("seed", range(40))
def test_bytes_that_are_no_graph_are_refused_or_tell_their_files(tmp_path, seed):
    random = np.random.default_rng(seed)
    content = bytearray(beside(tmp_path / "whole", 1).read_bytes())
    for place in random.integers(0, len(content), 1 + seed % 4):
        content[place] = random.integers(0, 256)
    path = tmp_path / "model.onnx"
    path.write_bytes(bytes(content[: random.integers(1, len(content))]) if seed % 2 else bytes(content))
    try:
        assert all(isinstance(file, str) for file in graph_files.external_files(path))
    except BundleError as error:
        assert str(error) == "model.onnx is no whole ONNX graph"  # noqa: PT017 - either will do


@pytest.mark.parametrize(
    "more",
    [b"\x0b\x0c", b"\x3a\x7f", b"\x08", b"\x0f"],  # a group, a length beyond the end, half a number, no wire type
)
def test_what_cannot_be_read_to_its_end_is_not_taken_to_have_no_files(tmp_path, more):
    """ONNX Runtime may read it, and weights that nobody has looked at."""
    path = beside(tmp_path / "1", 1)
    path.write_bytes(path.read_bytes() + more)
    with pytest.raises(BundleError, match="no whole ONNX graph"):
        graph_files.check_beside(path.parent, path.name)


def test_graphs_within_graphs_are_read_as_deep_as_protobuf_reads(tmp_path):
    weights = numpy_helper.from_array(np.zeros(4, np.float32), "w")
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="w.bin")
    graph = helper.make_graph([], "innermost", [], [], [weights])
    for _ in range(30):
        graph = helper.make_graph([helper.make_node("If", ["x"], ["y"], then_branch=graph)], "outer", [], [])
    path = tmp_path / "model.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    assert graph_files.external_files(path) == ("w.bin",)


def test_a_bundle_whose_weights_have_no_digest_is_refused(tmp_path):
    """Its goldens would prove what lies there today; tomorrow it may be something else."""
    root = tmp_path / "models"
    bundle = toy_bundle(root)
    path = bundle.folder / "model.onnx"
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    manifest = bundle.folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace(bundle.manifest.files["model.onnx"], store.sha256(path)))
    with pytest.raises(BundleError, match=r"model.onnx keeps weights in \['weights.bin'\], for which .* no digest"):
        store.read(root, "colors", 1)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "model.onnx").mkdir()
    with pytest.raises(BundleError, match="cannot be read"):
        graph_files.external_files(tmp_path / "model.onnx")
