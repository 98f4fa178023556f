from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from taxon.bundle.manifest import BundleError
from taxon.service.errors import StartError
from taxon.service.runtime import session
from taxon.service.runtime.session import (
    CPU,
    CUDA,
    TENSORRT,
    Device,
    choose_device,
    choose_provider,
    merged,
    open_session,
    profile,
)
from taxon.service.scheduling.worker_main import WorkerSettings
from tests.service.fake_onnxruntime import CLASSES, FakeRuntime, answer


def test_the_probe_graph_is_what_onnx_builds():
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    assert onnx.load_from_string(session.IDENTITY_GRAPH) == model


@pytest.mark.skipif(CUDA in onnxruntime.get_available_providers(), reason="this wheel has CUDA")
def test_cuda_without_cuda_fails_with_the_reason():
    with pytest.raises(StartError, match="--device cuda: this onnxruntime has no CUDA support"):
        choose_provider("cuda")


@pytest.mark.skipif(CUDA in onnxruntime.get_available_providers(), reason="this wheel has CUDA")
def test_tensorrt_without_tensorrt_fails_with_the_reason():
    with pytest.raises(StartError, match="--device tensorrt: this onnxruntime has no TensorRT support"):
        choose_provider("tensorrt")


@pytest.mark.skipif(CUDA in onnxruntime.get_available_providers(), reason="this wheel has CUDA")
def test_auto_falls_back_and_says_so():
    assert choose_provider("auto") == CPU


def test_cpu_is_cpu():
    assert choose_provider("cpu") == CPU


def test_a_listed_provider_that_does_not_work_is_noticed(monkeypatch):
    """What the wheel lists is not what works: the probe graph must really land on CUDA."""
    monkeypatch.setattr(session, "_has_library", lambda _: True)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
    with pytest.raises(StartError, match="--device cuda"), pytest.warns(UserWarning, match="not in available provider"):
        choose_provider("cuda")


PICTURES = np.random.default_rng(0).integers(0, 256, (8, 2, 2, CLASSES), dtype=np.uint8)


@pytest.fixture
def runtime(monkeypatch):
    def install(**what):
        fake = FakeRuntime(**what)
        monkeypatch.setattr(session, "_onnxruntime", lambda: fake)
        monkeypatch.setattr(session, "_has_library", lambda _: True)
        return fake

    return install


def test_cuda_graphs_are_captured_once_for_each_batch_size(runtime):
    runtime()
    opened = open_session(b"graph", CUDA, 1, {CUDA: {"enable_cuda_graph": "1"}})
    for size in (1, 4, 1, 4, 8):
        batch = PICTURES[-size:]
        np.testing.assert_array_equal(opened.run(batch), answer(batch))
    # One run without a graph for each size, to learn the output's shape; then a graph of its own.
    assert opened._session.runs == ["-1", "1", "-1", "2", "1", "2", "-1", "3"]


def test_an_answer_is_not_overwritten_by_the_next(runtime):
    runtime()
    opened = open_session(b"graph", CUDA, 1, {CUDA: {"enable_cuda_graph": "1"}})
    first = opened.run(PICTURES[:1])
    opened.run(PICTURES[1:2])
    np.testing.assert_array_equal(first, answer(PICTURES[:1]))


def test_without_the_option_runs_are_plain(runtime):
    fake = runtime()
    opened = open_session(b"graph", CUDA, 1, {CUDA: {"use_tf32": "0"}})
    opened.run(PICTURES)
    assert opened._session.runs == [""]
    ((providers, _),) = fake.opened
    assert providers == [(CUDA, {"arena_extend_strategy": "kSameAsRequested", "use_tf32": "0"})]


@pytest.mark.parametrize("provider", [CUDA, TENSORRT])
def test_a_graph_that_a_provider_takes_no_node_of_is_refused(runtime, provider):
    """ONNX Runtime would run it on the CPU and still list the provider first."""
    runtime(works=(TENSORRT, CUDA), nodes={CPU: 9})
    with pytest.raises(BundleError, match=f"no node of the graph runs on {provider}"):
        open_session(b"graph", provider, 1, {})


def test_a_provider_that_did_not_start_is_refused(runtime):
    runtime(works=())
    with pytest.raises(BundleError, match=f"the graph runs on {CPU}, not on {CUDA}"):
        open_session(b"graph", CUDA, 1, {})


def test_tensorrt_leaves_the_rest_to_cuda_and_keeps_engines_of_other_weights_apart(runtime, tmp_path):
    fake = runtime(works=(TENSORRT, CUDA), nodes={TENSORRT: 1, CUDA: 2, CPU: 3})
    options = merged({TENSORRT: profile("image", (2, 2, 3), 8)}, {TENSORRT: {"trt_engine_cache_path": str(tmp_path)}})
    for graph in (b"one", b"another"):
        open_session(graph, TENSORRT, 1, options)
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


@pytest.mark.parametrize(
    ("words", "works", "device"),
    [
        (("cuda", False, None), (CUDA,), Device(CUDA)),
        (("cuda", True, None), (CUDA,), Device(CUDA, {CUDA: {"enable_cuda_graph": "1"}})),
        (("auto", True, None), (CUDA,), Device(CUDA, {CUDA: {"enable_cuda_graph": "1"}})),
        (("auto", False, None), (), Device(CPU)),
        (
            ("tensorrt", False, Path("/cache")),
            (TENSORRT, CUDA),
            Device(TENSORRT, {TENSORRT: {"trt_engine_cache_path": "/cache"}}),
        ),
    ],
)
def test_devices(runtime, words, works, device):
    runtime(works=works)
    assert choose_device(*words) == device


@pytest.mark.parametrize(
    ("words", "works", "complaint"),
    [
        (("cpu", True, None), (), "--cuda-graphs needs CUDA"),
        (("auto", True, None), (), "--cuda-graphs needs CUDA"),
        (("tensorrt", True, None), (TENSORRT, CUDA), "--cuda-graphs needs CUDA"),
        (("cuda", False, Path("/cache")), (CUDA,), "--engine-cache is of TensorRT"),
        (("tensorrt", False, None), (CUDA,), "--device tensorrt: ONNX Runtime could not start TensorRT"),
    ],
)
def test_what_was_asked_for_is_never_quietly_something_else(runtime, words, works, complaint):
    runtime(works=works)
    with pytest.raises(StartError, match=complaint):
        choose_device(*words)


def test_a_worker_is_told_its_device():
    device = Device(TENSORRT, {TENSORRT: {"trt_engine_cache_path": "/cache"}})
    settings = WorkerSettings("models", "fp32", device, (1, 2), 1, 1, "json", "info")
    assert WorkerSettings.from_json(settings.to_json()).device == device
