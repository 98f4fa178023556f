import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from service import session
from service.errors import StartError
from service.session import CPU, CUDA, choose_provider


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
def test_auto_falls_back_and_says_so():
    assert choose_provider("auto") == CPU


def test_cpu_is_cpu():
    assert choose_provider("cpu") == CPU


def test_a_listed_provider_that_does_not_work_is_noticed(monkeypatch):
    """What the wheel lists is not what works: the probe graph must really land on CUDA."""
    monkeypatch.setattr(session, "_has_cuda_library", lambda: True)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
    with pytest.raises(StartError, match="--device cuda"), pytest.warns(UserWarning, match="not in available provider"):
        choose_provider("cuda")
