"""Which execution providers work here. What ONNX Runtime calls available is what its wheel holds: without a driver, a
library or a device it gives a session on the CPU instead, and says so in its log alone.
"""

import functools
from collections.abc import Callable
from typing import Any

import onnxruntime
from onnx import TensorProto, helper

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@functools.cache
def works(provider: str, start: Callable[..., Any] = onnxruntime.InferenceSession) -> bool:
    """Whether a graph of one node runs on a provider; tried once.

    Args:
        provider: As ONNX Runtime names it.
        start: Makes the session.
    """
    if provider == CPU:
        return True
    if hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # CUDA's libraries may lie in other packages
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = start(_identity_graph(), options, providers=[provider])
    except Exception:  # noqa: BLE001 - ONNX Runtime's own exceptions share no base class
        return False
    return bool(session.get_providers()[0] == provider)


def _identity_graph() -> bytes:
    given, answer = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("given", "answer"))
    node = helper.make_node("Identity", ["given"], ["answer"])
    graph = helper.make_graph([node], "identity", [given], [answer])
    opset = helper.make_opsetid("", 17)
    content: bytes = helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()
    return content
