import json
import runpy
import sys

import onnx
import pytest
from onnx import TensorProto, helper

from taxon.service.runtime import device_probe, session
from taxon.service.runtime.device import CUDA, TENSORRT, Probed
from taxon.service.runtime.device_probe import IDENTITY_GRAPH, MOST_DEVICES, probe
from tests.service.fake_onnxruntime import FakeRuntime


@pytest.fixture
def runtime(monkeypatch):
    def install(**what):
        fake = FakeRuntime(**what)
        monkeypatch.setattr(device_probe, "import_onnxruntime", lambda provider: fake)
        return fake

    return install


def test_the_probe_graph_is_what_onnx_builds():
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    assert onnx.load_from_string(IDENTITY_GRAPH) == model


@pytest.mark.parametrize("count", [1, 2, 8])
@pytest.mark.parametrize("provider", [CUDA, TENSORRT])
def test_every_device_that_works_is_counted(runtime, provider, count):
    fake = runtime(works=(provider,), devices=count)
    assert probe(provider) == Probed(count)
    tried = [providers[0][1]["device_id"] for providers, _ in fake.opened]
    assert tried == [str(number) for number in range(count + 1)]


def test_that_there_is_no_further_device_is_no_error_in_the_log(runtime):
    fake = runtime()
    probe(CUDA)
    assert [options.log_severity_level for _, options in fake.opened] == [3, 4]


def test_a_provider_that_is_listed_but_left_out_does_not_work(runtime):
    """ONNX Runtime would go on with the CPU, in silence."""
    runtime(works=())
    found = probe(CUDA)
    assert found.count == 0
    assert "could not start it and offers ['CPUExecutionProvider']" in found.reason


def test_what_a_provider_complains_of_is_the_reason(runtime):
    runtime(devices=0)
    assert probe(CUDA) == Probed(0, "invalid device ordinal")


def test_counting_ends(runtime):
    runtime(devices=1000)
    assert probe(CUDA) == Probed(MOST_DEVICES)


def test_the_program_prints_one_line_of_json(monkeypatch, capsys):
    monkeypatch.setattr(session, "import_onnxruntime", lambda provider: FakeRuntime(devices=0))
    monkeypatch.setattr(sys, "argv", ["device_probe", CUDA])
    monkeypatch.delitem(sys.modules, device_probe.__name__)
    runpy.run_module(device_probe.__name__, run_name="__main__")
    (line,) = capsys.readouterr().out.splitlines()
    assert Probed(**json.loads(line)) == Probed(0, "invalid device ordinal")
