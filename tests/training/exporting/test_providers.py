import onnxruntime
import pytest

from taxon.training.exporting import parity
from taxon.training.exporting.providers import CPU, CUDA, works

WHEEL_KNOWS_CUDA = CUDA in onnxruntime.get_available_providers()


class Session:
    def __init__(self, *providers):
        self.providers = list(providers)

    def get_providers(self):
        return self.providers


def test_a_provider_that_starts_works():
    assert works(CUDA, lambda *_, **__: Session(CUDA, CPU))


def test_a_session_on_the_cpu_instead_is_a_provider_that_does_not_work():
    assert not works(CUDA, lambda *_, **__: Session(CPU))


def test_an_error_at_start_is_a_provider_that_does_not_work():
    def start(*_, **__):
        raise RuntimeError("no CUDA-capable device is detected")

    assert not works(CUDA, start)


def test_the_graph_that_is_tried_runs(monkeypatch):
    """On the CPU, where a fault of its own would show: elsewhere it would look like a provider that does not work."""
    graphs = []
    works(CUDA, lambda graph, *_, **__: graphs.append(graph) or Session(CPU))
    session = onnxruntime.InferenceSession(graphs[0], providers=[CPU])
    assert [value.tolist() for value in session.run(None, {"given": [2.0]})] == [[2.0]]


@pytest.mark.skipif(WHEEL_KNOWS_CUDA, reason="whether CUDA works is the machine's to say")
def test_what_the_wheel_only_lists_is_not_used(monkeypatch):
    """As with the extra gpu on a machine without a GPU."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    assert parity.providers() == [CPU]
