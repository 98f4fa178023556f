"""As much of onnxruntime as a session on a GPU needs, without a GPU: it notes what it is asked for.

A fake GPU answers with the mean of each picture's colours. Like a real captured graph, one that is replayed reads and
writes the places that it was captured with.
"""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

CLASSES = 3


def answer(batch):
    return batch.reshape(len(batch), -1, CLASSES).mean(axis=1).astype(np.float32)


def answers(batch):
    scores = answer(batch)
    return {"scores": scores, "familiarity": scores.max(axis=1, keepdims=True)}


@dataclass
class FakeValue:
    """Memory on the device."""

    array: np.ndarray

    def update_inplace(self, array):
        assert array.shape == self.array.shape
        assert array.dtype == self.array.dtype
        self.array[...] = array

    def numpy(self):
        return self.array.copy()


@dataclass
class FakeBinding:
    inputs: dict[str, FakeValue] = field(default_factory=dict)
    outputs: dict[str, FakeValue] = field(default_factory=dict)

    def bind_ortvalue_input(self, name, value):
        self.inputs[name] = value

    def bind_ortvalue_output(self, name, value):
        self.outputs[name] = value


class FakeRunOptions:
    def __init__(self):
        self.entries: dict[str, str] = {}

    def add_run_config_entry(self, key, value):
        self.entries[key] = value


class FakeSessionOptions(FakeRunOptions):
    add_session_config_entry = FakeRunOptions.add_run_config_entry


class FakeRuntime:
    """Stands for the module."""

    OrtValue = SimpleNamespace(
        ortvalue_from_shape_and_type=lambda shape, dtype, device, number: FakeValue(np.zeros(shape, dtype))
    )
    RunOptions = FakeRunOptions
    SessionOptions = FakeSessionOptions

    def __init__(self, works=("CUDAExecutionProvider",), nodes=None, devices=1, outputs=("scores",)):
        self.works = works
        """Providers that can start; the others are silently left out, as onnxruntime does."""
        self.devices = devices
        """How many of each; a session on a further one is an error."""
        self.nodes = nodes
        """Nodes by provider; by default all are on the first."""
        self.outputs = outputs
        """Of every graph; `familiarity` is the largest of the scores."""
        self.opened: list[tuple[list[Any], FakeSessionOptions]] = []
        self.preload_dlls = lambda: None

    def InferenceSession(self, graph, options, providers, disabled_optimizers=()):  # noqa: N802 - onnxruntime's name
        assert not disabled_optimizers  # it stands for a GPU, where none fails
        self.opened.append((providers, options))
        names = [given if isinstance(given, str) else given[0] for given in providers]
        for given in providers:
            if not isinstance(given, str) and int(given[1].get("device_id", 0)) >= self.devices:
                raise RuntimeError("invalid device ordinal")
        return FakeSession(
            [*(name for name in names if name in self.works), "CPUExecutionProvider"],
            self.nodes,
            options.entries,
            self.outputs,
        )


class FakeSession:
    def __init__(self, providers, nodes, entries, outputs):
        self.providers, self.entries, self.outputs = providers, entries, outputs
        self.nodes = {providers[0]: 9} if nodes is None else nodes
        self.captured: dict[str, tuple[FakeValue, dict[str, FakeValue]]] = {}
        self.runs: list[str] = []

    def disable_fallback(self):
        pass

    def get_providers(self):
        return self.providers

    def get_inputs(self):
        return [SimpleNamespace(name="image", type="tensor(uint8)", shape=["batch", 2, 2, CLASSES])]

    def get_outputs(self):
        return [SimpleNamespace(name=name, type="tensor(float)", shape=["batch", None]) for name in self.outputs]

    def get_modelmeta(self):
        return SimpleNamespace(custom_metadata_map={})

    def get_provider_graph_assignment_info(self):
        assert self.entries["session.record_ep_graph_assignment_info"] == "1"
        return [
            SimpleNamespace(ep_name=name, get_nodes=lambda count=count: range(count))
            for name, count in self.nodes.items()
        ]

    def io_binding(self):
        return FakeBinding()

    def run(self, names, feeds, options=None):
        self.runs.append(options.entries.get("gpu_graph_id", "") if options else "")
        return [answers(feeds["image"])[name] for name in names]

    def run_with_iobinding(self, binding, options):
        identity = options.entries["gpu_graph_id"]
        self.runs.append(identity)
        given, places = self.captured.setdefault(identity, (binding.inputs["image"], binding.outputs))
        for name in self.outputs:
            places[name].array[...] = answers(given.array)[name]
