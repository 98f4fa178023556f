"""Sessions on a fake GPU, which notes what it is asked for, and on the CPU as it is."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from structlog.testing import capture_logs

from taxon.bundle.manifest import BundleError
from taxon.service.runtime import session
from taxon.service.runtime.device import CPU, CUDA, TENSORRT
from taxon.service.runtime.session import Tensor, merged, open_session, profile
from tests.service.fake_onnxruntime import CLASSES, FakeRuntime, answer
from tests.tensor_models import free_length, strings, tensor, write_graph

GRAPH = Path("model.onnx")
PICTURES = np.random.default_rng(0).integers(0, 256, (8, 2, 2, CLASSES), dtype=np.uint8)


@pytest.fixture
def runtime(monkeypatch):
    def install(**what):
        fake = FakeRuntime(**what)
        monkeypatch.setattr(session, "import_onnxruntime", lambda provider: fake)
        return fake

    return install


def test_cuda_graphs_are_captured_once_for_each_batch_size(runtime):
    runtime()
    opened = open_session(GRAPH, CUDA, 1, {CUDA: {"enable_cuda_graph": "1"}})
    for size in (1, 4, 1, 4, 8):
        batch = PICTURES[-size:]
        np.testing.assert_array_equal(opened.run(batch), answer(batch))
    # One run without a graph for each size, to learn the output's shape; then a graph of its own.
    assert opened._session.runs == ["-1", "1", "-1", "2", "1", "2", "-1", "3"]


def test_an_answer_is_not_overwritten_by_the_next(runtime):
    runtime()
    opened = open_session(GRAPH, CUDA, 1, {CUDA: {"enable_cuda_graph": "1"}})
    first = opened.run(PICTURES[:1])
    opened.run(PICTURES[1:2])
    np.testing.assert_array_equal(first, answer(PICTURES[:1]))


@pytest.mark.parametrize("captures", ["0", "1"])
def test_the_familiarity_stands_behind_the_scores(runtime, captures):
    runtime(outputs=("scores", "familiarity"))
    opened = open_session(GRAPH, CUDA, 1, {CUDA: {"enable_cuda_graph": captures}})
    for size in (2, 1, 2):
        scores = answer(PICTURES[-size:])
        expected = np.concatenate([scores, scores.max(axis=1, keepdims=True)], axis=1)
        np.testing.assert_array_equal(opened.run(PICTURES[-size:]), expected)


def test_without_the_option_runs_are_plain(runtime):
    fake = runtime()
    opened = open_session(GRAPH, CUDA, 1, {CUDA: {"use_tf32": "0"}})
    opened.run(PICTURES)
    assert opened._session.runs == [""]
    ((providers, _),) = fake.opened
    assert providers == [(CUDA, {"arena_extend_strategy": "kSameAsRequested", "use_tf32": "0"})]


@pytest.mark.parametrize("provider", [CUDA, TENSORRT])
def test_a_graph_that_a_provider_takes_no_node_of_is_refused(runtime, provider):
    """ONNX Runtime would run it on the CPU and still list the provider first."""
    runtime(works=(TENSORRT, CUDA), nodes={CPU: 9})
    with pytest.raises(BundleError, match=f"no node of the graph runs on {provider}"):
        open_session(GRAPH, provider, 1, {})


def test_a_provider_that_did_not_start_is_refused(runtime):
    runtime(works=())
    with pytest.raises(BundleError, match=f"the graph runs on {CPU}, not on {CUDA}"):
        open_session(GRAPH, CUDA, 1, {})


def test_tensorrt_leaves_the_rest_to_cuda_and_keeps_engines_of_other_weights_apart(runtime, tmp_path):
    fake = runtime(works=(TENSORRT, CUDA), nodes={TENSORRT: 1, CUDA: 2, CPU: 3})
    options = merged({TENSORRT: profile("image", (2, 2, 3), 8)}, {TENSORRT: {"trt_engine_cache_path": str(tmp_path)}})
    for version in (1, 2):
        (tmp_path / f"{version}.onnx").write_bytes(bytes([8, version]))
        open_session(tmp_path / f"{version}.onnx", TENSORRT, 1, options)
    folders = []
    for (first, tensorrt), (second, _) in (providers for providers, _ in fake.opened):
        assert (first, second) == (TENSORRT, CUDA)
        assert tensorrt["trt_engine_cache_enable"] == "1"
        assert tensorrt["trt_profile_min_shapes"] == "image:1x2x2x3"
        assert tensorrt["trt_profile_max_shapes"] == "image:8x2x2x3"
        folders.append(tensorrt["trt_engine_cache_path"])
    assert len(set(folders)) == 2
    assert all(Path(folder).parent == tmp_path and Path(folder).is_dir() for folder in folders)


def test_the_operators_options_go_over_the_manifests():
    manifest = {CUDA: {"use_tf32": "0", "enable_cuda_graph": "0"}}
    assert merged(manifest, {CUDA: {"enable_cuda_graph": "1"}}) == {CUDA: {"use_tf32": "0", "enable_cuda_graph": "1"}}


def test_where_nodes_are_is_told(runtime):
    runtime(works=(TENSORRT, CUDA), nodes={TENSORRT: 1, CUDA: 2, CPU: 3})
    with capture_logs() as events:
        open_session(GRAPH, TENSORRT, 1, {})
    (placed,) = [event for event in events if event["event"] == "graph placed"]
    assert placed["nodes"] == {TENSORRT: 1, CUDA: 2, CPU: 3}


# On the CPU


def opened(root, name="free", threads=1):
    return open_session(root / name / "1" / "model.onnx", CPU, threads, {})


def test_tensors_are_described_as_the_graph_has_them(tmp_path):
    free_length(tmp_path)
    found = opened(tmp_path)
    assert found.provider == CPU
    assert found.inputs == [Tensor("values", "float32", ("batch", "length"))]
    assert found.outputs == [
        Tensor("total", "float32", ("batch", 1)),
        Tensor("doubled", "float32", ("batch", "length")),
    ]
    assert found.metadata == {}


def test_a_type_that_numpy_lacks_keeps_its_own_name(tmp_path):
    strings(tmp_path)
    assert opened(tmp_path, "strings").outputs[0].dtype == "tensor(string)"


def test_metadata_are_read(tmp_path):
    write_graph(
        tmp_path / "told" / "1",
        [helper.make_node("Identity", ["x"], ["y"])],
        [tensor("x", TensorProto.FLOAT, ["n"])],
        [tensor("y", TensorProto.FLOAT, ["n"])],
        key="value",
    )
    assert opened(tmp_path, "told").metadata == {"key": "value"}


def test_outputs_joined_or_apart(tmp_path):
    free_length(tmp_path)
    found, rows = opened(tmp_path), np.array([[1, 2], [3, 4]], np.float32)
    np.testing.assert_array_equal(found.run(rows), [[3, 2, 4], [7, 6, 8]])
    total, doubled = found.run_tensors({"values": rows})
    np.testing.assert_array_equal(total, [[3], [7]])
    np.testing.assert_array_equal(doubled, 2 * rows)


def test_a_probe_that_fails_says_nothing(tmp_path, capfd):
    free_length(tmp_path)
    found = opened(tmp_path)
    assert found.probe({"values": np.zeros(3, np.float32)}) is None
    assert found.probe({"values": np.zeros((1, 3), np.int64)}) is None
    total, _ = found.probe({"values": np.ones((1, 3), np.float32)})
    assert total.tolist() == [[3.0]]
    assert capfd.readouterr().err == ""


def test_what_is_no_graph_is_refused(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    for source in (tmp_path / "model.onnx", tmp_path / "nowhere.onnx"):
        with pytest.raises(BundleError, match=r"ONNX Runtime does not load the graph"):
            open_session(source, CPU, 1, {})
