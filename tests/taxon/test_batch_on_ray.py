"""`taxon.batch.Classifier` on Ray Data: a cluster of two nodes, of which one dies on the way."""

import time

import numpy as np
import pytest

from taxon.batch import Classifier
from tests.fakes import picture

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install -e '.[ray]'")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # which Ray gives of itself

COUNT = 600


class Slowly(Classifier):
    """So that there is something left to do when a node dies."""

    def __call__(self, batch):
        time.sleep(0.2)
        return super().__call__(batch)


@pytest.fixture
def cluster():
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    second = cluster.add_node(num_cpus=2)
    ray.init(address=cluster.address, logging_level="error")
    yield cluster, second
    ray.shutdown()
    cluster.shutdown()


def test_a_node_that_dies_costs_no_row(cluster, models, tmp_path):
    nodes, second = cluster
    folder = tmp_path / "in"
    folder.mkdir()
    for index in range(COUNT):
        color = index % 251, index * 7 % 251, index * 13 % 251
        (folder / f"{index:03}.png").write_bytes(b"bad" if index == 7 else picture(color, (9, 8)))
    files = ray.data.read_binary_files(str(folder), include_paths=True, override_num_blocks=12)
    answers = files.map_batches(
        Slowly,
        fn_constructor_kwargs={"models": str(models), "column": "bytes"},
        batch_size=10,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=3),
        num_cpus=1,
    )
    rows, killed = {}, False
    for row in answers.iter_rows():
        assert row["path"] not in rows
        rows[row["path"]] = row
        if not killed and len(rows) >= 50:
            killed = True
            nodes.remove_node(second, allow_graceful=False)
    assert killed
    assert len(rows) == COUNT
    paths = sorted(rows)
    here = Classifier(models, column="bytes")
    for start in range(0, COUNT, 10):
        names = paths[start : start + 10]
        encoded = np.array([(folder / name.rpartition("/")[2]).read_bytes() for name in names], dtype=object)
        expected = here({"bytes": encoded})
        for index, name in enumerate(names):
            assert rows[name]["label"] == expected["label"][index]
            assert rows[name]["error"] == expected["error"][index]
            assert [*rows[name]["scores"]] == [*expected["scores"][index]]
            assert [*rows[name]["labels"]] == [*expected["labels"][index]]
    assert rows[paths[7]]["error"] == "IMAGE_UNDECODABLE"
