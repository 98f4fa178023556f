"""A bare graph with weights in another file: those of its own folder, wherever the server was started."""

import numpy as np
import pytest

from taxon.bundle.manifest import BundleError
from taxon.service.runtime.description import GraphConfig
from taxon.service.runtime.device import CPU
from taxon.service.runtime.graph_proof import prove_graph
from taxon.service.runtime.packing import pack, unpack
from tests.tensor_models import beside


def test_weights_come_from_the_versions_folder_not_from_the_servers(tmp_path, monkeypatch):
    graph = beside(tmp_path / "sums" / "1", 2.0)
    beside(tmp_path / "here", 100.0)
    monkeypatch.chdir(tmp_path / "here")
    proven = prove_graph(graph.parent, GraphConfig(), CPU, 1, [1, 2], max_batch_size=4)
    given = np.stack(pack([np.ones((1, 4), np.float32)], batched=True))
    (sums,) = unpack(list(proven.run(given)), 1, batched=True)
    np.testing.assert_array_equal(sums, [[8.0, 8.0]])


def test_missing_weights_are_named(tmp_path):
    graph = beside(tmp_path / "sums" / "1", 2.0)
    graph.with_name("weights.bin").unlink()
    with pytest.raises(BundleError, match=r"keeps weights in 'weights.bin', which is missing"):
        prove_graph(graph.parent, GraphConfig(), CPU, 1, [1], max_batch_size=1)
