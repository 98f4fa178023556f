import numpy as np
import onnx
import pytest

from taxon.training.exporting import graph, parity
from taxon.training.exporting.graph import Served
from taxon.training.exporting.parity import ParityError
from taxon.training.loop import metrics
from tests.training.toy_classifier import MEAN, PIXELS, STD, ToyNetwork, decoded, write_pictures

CPU = "CPUExecutionProvider"


@pytest.fixture
def files(tmp_path):
    return write_pictures(tmp_path / "val", 11)


def scores(*rows):
    return np.array(rows, dtype=np.float32)


def compared(files, reference, rows):
    """Where what torch answers is true."""
    truth = metrics.chosen(reference, "single_label")
    return parity.compare(CPU, files, reference, rows, "single_label", (truth, truth))


def test_every_batch_size_runs_even_with_few_files(files):
    batches = [(indices, len(pictures)) for indices, pictures in parity.decoded_batches(files, PIXELS, (1, 2, 32))]
    assert [size for _, size in batches] == [1, 2, 32]
    assert [index for indices, _ in batches for index in indices][: len(files)] == list(range(len(files)))


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(5, (1, 2, 3, 64)), (31, (1, 2, 3, 7, 64)), (32, (1, 2, 3, 7, 32, 64)), (500, (1, 2, 3, 7, 32, 64))],
)
def test_few_files_cost_one_large_batch_more_than_themselves(count, sizes):
    assert parity.batch_sizes(count) == sizes


def test_a_short_list_is_run_at_each_size_once_and_decoded_once(files, monkeypatch):
    read, sizes = [], []

    def to_array(file, spec):
        read.append(file)
        return np.zeros(spec.shape, np.uint8)

    def run(_, pictures):
        sizes.append(len(pictures))
        return np.zeros((len(pictures), 3), np.float32)

    monkeypatch.setattr(parity, "to_array", to_array)
    monkeypatch.setattr(parity, "run", run)
    assert len(parity.graph_rows(None, files, PIXELS)) == 77
    assert sizes == [1, 2, 3, 7, 64]
    assert sorted(read) == sorted(files)


def test_sizes_go_round_until_every_file_was_seen_and_stop_there(files):
    batches = [indices for indices, _ in parity.decoded_batches(files, PIXELS, (1, 2))]
    assert [len(indices) for indices in batches] == [1, 2, 1, 2, 1, 2, 1, 1]
    assert sorted(index for indices in batches for index in indices) == list(range(len(files)))


@pytest.mark.parametrize("content", [b"", b"not a picture", None])
def test_a_file_that_cannot_be_decoded_is_named(files, content):
    if content is None:
        files[4].unlink()
    else:
        files[4].write_bytes(content)
    with pytest.raises(ParityError, match=r"004\.png"):
        list(parity.decoded_batches(files, PIXELS, (3,)))


def test_the_reference_normalises_on_its_own(files):
    """Against plain NumPy, so that neither torchvision's nor the graph's way is taken on trust."""
    seen = []

    class Recording(ToyNetwork):
        def forward(self, pictures):
            seen.append(pictures.numpy())
            return super().forward(pictures)

    parity.reference_logits(Recording(), files, PIXELS, MEAN, STD)
    expected = (decoded(files).astype(np.float64) / 255 - MEAN) / STD
    np.testing.assert_allclose(np.concatenate(seen), expected.transpose(0, 3, 1, 2), atol=1e-5)


def test_scores_survive_large_logits():
    single = parity.scores_of(scores([1000, 0, -1000]), "single_label")
    np.testing.assert_allclose(single, [[1, 0, 0]])
    multi = parity.scores_of(scores([500, 0, -500]), "multi_label")
    np.testing.assert_allclose(multi, [[1, 0.5, 0]], atol=1e-7)


def test_a_faithful_graph_passes(files, tmp_path):
    graph.write_graph(Served(ToyNetwork(), MEAN, STD, "single_label"), PIXELS.shape, tmp_path / "model.onnx")
    reference = parity.scores_of(parity.reference_logits(ToyNetwork(), files, PIXELS, MEAN, STD), "single_label")
    answers = parity.graph_rows(parity.open_session(tmp_path / "model.onnx"), files, PIXELS)
    result = compared(files, reference, answers)
    assert not result.faults
    assert result.top1_agreement == 1.0
    assert result.max_score_difference < 1e-6
    assert result.file_count == len(files)


def test_a_batch_baked_into_the_graph_is_found(files, tmp_path):
    path = tmp_path / "model.onnx"
    graph.write_graph(Served(ToyNetwork(), MEAN, STD, "single_label"), PIXELS.shape, path)
    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(model, path)
    with pytest.raises(ParityError, match="fails at batch 1"):
        parity.graph_rows(parity.open_session(path), files, PIXELS)


def test_a_graph_that_cannot_be_loaded_is_an_error(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"nonsense")
    with pytest.raises(ParityError, match=r"cannot load model\.onnx"):
        parity.open_session(tmp_path / "model.onnx")


def test_sessions_that_take_turns_do_not_spin_on_each_others_cores(tmp_path):
    graph.write_graph(Served(ToyNetwork(), MEAN, STD, "single_label"), PIXELS.shape, tmp_path / "model.onnx")
    options = parity.open_session(tmp_path / "model.onnx").get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_a_flip_between_near_equal_scores_is_no_disagreement(files):
    reference = np.tile(scores([0.50001, 0.49999]), (len(files), 1))
    result = compared(files, reference, reference[:, ::-1])
    assert not result.faults


def test_a_flip_beyond_the_tolerance_is_a_disagreement(files):
    reference = np.tile(scores([0.6, 0.4]), (len(files), 1))
    result = compared(files, reference, reference[:, ::-1])
    assert result.top1_agreement == 0.0
    assert any("top-1 agreement is 0.00%" in fault for fault in result.faults)


def test_a_small_drift_without_a_flip_is_a_fault(files):
    reference = np.tile(scores([0.6, 0.4]), (len(files), 1))
    drifted = reference.copy()
    drifted[7] += [0.001, -0.001]
    result = compared(files, reference, drifted)
    assert result.top1_agreement == 1.0
    assert result.worst_file == "val/007.png"
    assert "scores differ by 1.0e-03 on val/007.png" in result.faults[0]


def test_scores_that_are_not_numbers_are_a_fault(files):
    reference = np.tile(scores([0.6, 0.4]), (len(files), 1))
    broken = reference.copy()
    broken[3] = np.nan
    assert "scores are not finite" in compared(files, reference, broken).faults


def test_another_label_order_shows_in_the_accuracy(files):
    """The scores are equal: only what the columns are called differs."""
    reference = np.tile(scores([0.6, 0.4]), (len(files), 1))
    truth = np.tile([True, False], (len(files), 1))
    result = parity.compare(CPU, files, reference, reference, "single_label", (truth, truth[:, ::-1]))
    assert result.faults == ("accuracy goes from 100.00% to 0.00%",)


def test_other_score_counts_are_an_error(files):
    reference = np.tile(scores([0.6, 0.4]), (len(files), 1))
    with pytest.raises(ParityError, match=r"the graph gives \(1,\) scores for a picture, torch gives \(2,\)"):
        compared(files, reference, reference[:, :1])


def test_several_labels_agree_label_by_label():
    reference = scores([0.9, 0.2], [0.50005, 0.2], [0.9, 0.2])
    answers = scores([0.9, 0.2], [0.49995, 0.2], [0.9, 0.8])
    assert parity.same_decision(reference, answers, "multi_label", 1e-4).tolist() == [True, True, False]
    truth = np.array([[True, False], [True, False], [False, False]])
    assert metrics.accuracy(reference, truth, "multi_label") == pytest.approx(2 / 3)
