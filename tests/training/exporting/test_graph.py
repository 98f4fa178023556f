import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torchvision

from taxon.training.exporting import graph, quantise
from taxon.training.exporting.graph import LADDER, GraphError, Served
from tests.training.toy_classifier import MEAN, STD, ToyNetwork

SHAPE = (10, 10, 3)


@pytest.fixture
def served():
    return Served(ToyNetwork(), MEAN, STD, "single_label")


@pytest.mark.parametrize("strategy", LADDER, ids=lambda strategy: strategy.name)
def test_every_strategy_gives_the_same_graph_contract(served, tmp_path, strategy):
    path = tmp_path / "model.onnx"
    graph.write_graph(served, SHAPE, path, strategy)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (given,), (taken,) = session.get_outputs(), session.get_inputs()
    assert (taken.name, taken.type, taken.shape) == ("image", "tensor(uint8)", ["batch", 10, 10, 3])
    assert (given.name, given.type, given.shape[1]) == ("scores", "tensor(float)", 3)
    pictures = np.random.default_rng(0).integers(0, 256, (5, *SHAPE), dtype=np.uint8)
    with torch.inference_mode():
        expected = served(torch.from_numpy(pictures)).numpy()
    np.testing.assert_allclose(session.run(None, {"image": pictures})[0], expected, atol=1e-6)


def test_several_labels_end_in_a_sigmoid():
    scores = Served(ToyNetwork(), MEAN, STD, "multi_label")(torch.full((1, *SHAPE), 128, dtype=torch.uint8))
    logits = Served(ToyNetwork(), MEAN, STD, "single_label").network(
        (torch.full((1, 3, 10, 10), 128 / 255) - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    )
    torch.testing.assert_close(scores, logits.sigmoid())


def test_temperature_divides_the_logits():
    picture = torch.full((1, *SHAPE), 200, dtype=torch.uint8)
    plain = Served(ToyNetwork(), MEAN, STD, "single_label")(picture).log()
    warm = Served(ToyNetwork(), MEAN, STD, "single_label", temperature=2.0)(picture).log()
    torch.testing.assert_close(warm, (plain / 2).log_softmax(dim=-1))


def test_a_module_in_training_mode_is_refused(served, tmp_path):
    served.network.dropout.train()
    with pytest.raises(GraphError, match=r"network\.dropout is in training mode"):
        graph.write_graph(served, SHAPE, tmp_path / "model.onnx")


def test_the_exporters_failure_is_one_sentence(tmp_path):
    class Breaking(torch.nn.Module):
        def forward(self, image):
            raise ArithmeticError("no such operator")

    with pytest.raises(GraphError, match="the exporter failed") as caught:
        graph.write_graph(Breaking().eval(), SHAPE, tmp_path / "model.onnx")
    assert "\n" not in str(caught.value)


def test_the_graph_is_one_file_without_the_exporters_notes(served, tmp_path):
    path = tmp_path / "model.onnx"
    graph.write_graph(served, SHAPE, path)
    graph.tidy(path, {"taxon.task": "single_label"})
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    assert b"test_graph" not in path.read_bytes()
    assert b"toy_classifier" not in path.read_bytes()
    assert graph.metadata(path) == {"taxon.task": "single_label"}
    onnx.checker.check_model(path, full_check=True)


def test_wrong_shape_notes_are_dropped(served, tmp_path):
    path = tmp_path / "model.onnx"
    graph.write_graph(served, SHAPE, path)
    model = onnx.load(path)
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    del model.graph.value_info[:]
    model.graph.value_info.append(onnx.helper.make_tensor_value_info(conv.output[0], onnx.TensorProto.FLOAT, (9, 9)))
    onnx.save(model, path)
    with pytest.raises(onnx.shape_inference.InferenceError):
        onnx.checker.check_model(path, full_check=True)
    graph.tidy(path)
    onnx.checker.check_model(path, full_check=True)


def test_weights_in_a_second_file_are_refused(served, tmp_path):
    path = tmp_path / "model.onnx"
    graph.write_graph(served, SHAPE, path)
    (tmp_path / "model.onnx.data").touch()
    with pytest.raises(GraphError, match="do not fit into one file"):
        graph.tidy(path)


def test_normalisation_has_whole_rows_of_constants(served, tmp_path):
    """With one number per channel, the channels-last layout of int8 graphs makes it ten times as slow."""
    graph.write_graph(served, SHAPE, tmp_path / "model.onnx")
    quantise.prepare(tmp_path / "model.onnx", tmp_path / "prepared.onnx")
    prepared = onnx.load(tmp_path / "prepared.onnx").graph
    shapes = {entry.name: tuple(entry.dims) for entry in prepared.initializer}
    normalising = [node for node in prepared.node if node.op_type in ("Mul", "Add")][:2]
    assert [shapes[name] for node in normalising for name in node.input if name in shapes] == [(1, 3, 1, 10)] * 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenet_v3_small", "vit_b_16"])
def test_attention_and_depthwise_networks_keep_the_batch_free(tmp_path, name):
    """Attention has a fast path that ONNX lacks, and reshapes into which a batch can be baked."""
    options = {"image_size": 32} if name == "vit_b_16" else {}
    network = torchvision.models.get_model(name, weights=None, num_classes=3, **options)
    graph.write_graph(Served(network, MEAN, STD, "single_label"), (32, 32, 3), tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for size in (1, 3):
        (scores,) = session.run(None, {"image": np.zeros((size, 32, 32, 3), np.uint8)})
        assert scores.shape == (size, 3)
    assert torch.backends.mha.get_fastpath_enabled()
