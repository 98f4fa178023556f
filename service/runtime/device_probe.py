"""Tries an execution provider on a graph of one node, in a process of its own: `python -m … PROVIDER` prints a line of
JSON, see `device.Probed`.
"""

import importlib
import importlib.util
import json
import sys
from dataclasses import asdict
from typing import Any

from taxon.service.runtime.device import TENSORRT, Probed
from taxon.service.runtime.session import import_onnxruntime

MOST_DEVICES = 64
DEVICE_ID = "device_id"
# x → Identity → y, float32 [1], opset 13: the smallest graph that makes a provider start. Written out because
# the service does not depend on onnx; a test builds it again with onnx and compares.
IDENTITY_GRAPH = bytes.fromhex(
    "08083a370a100a017812017922084964656e746974791201675a0f0a0178120a0a08080112040a020801620f0a0179120a0a"
    "08080112040a02080142040a00100d"
)


def probe(provider: str) -> Probed:
    """How many devices of a provider work, and if none does, why."""
    onnxruntime = import_onnxruntime(provider)
    if provider == TENSORRT and importlib.util.find_spec("tensorrt"):
        importlib.import_module("tensorrt")  # which loads its libraries; without the package, the system's are used
    reason = ""
    for count in range(MOST_DEVICES):
        reason = _why_not(onnxruntime, provider, count)
        if reason:
            return Probed(count, "" if count else reason)
    return Probed(MOST_DEVICES)


def _why_not(onnxruntime: Any, provider: str, number: int) -> str:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3 if number == 0 else 4  # that there is no further device is no error
    try:
        chosen = provider, {DEVICE_ID: str(number)}
        session = onnxruntime.InferenceSession(IDENTITY_GRAPH, options, providers=[chosen])
    except Exception as error:  # noqa: BLE001 - onnxruntime's own exceptions share no base class
        return str(error)
    if session.get_providers()[0] != provider:
        return f"ONNX Runtime could not start it and offers {session.get_providers()}: see its log above"
    return ""


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(probe(sys.argv[1]))) + "\n")
