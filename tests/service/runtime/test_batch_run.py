"""One batch on a model that notes what it runs, and fails where it is told to."""

import numpy as np
import pytest
from structlog.testing import capture_logs

from taxon.service.errors import InferenceFailedError
from taxon.service.runtime.batch_run import answer_batch, stacked


class Model:
    """Gives each input back."""

    def __init__(self, poison=None, nan=None):
        self.batches = []
        self.poison, self.nan = poison, nan

    def __call__(self, batch):
        self.batches.append(batch[:, 0].tolist())
        if self.poison in batch[:, 0]:
            raise RuntimeError("poisoned")
        scores = batch.copy()
        if self.nan is not None:
            scores[batch[:, 0] == self.nan] = np.nan
        return scores


def numbers(*values):
    return [np.full(2, value, np.float32) for value in values]


def answered(run, arrays, bucket):
    return answer_batch(run, stacked(arrays, bucket), len(arrays))


def kinds(ran):
    return [type(answer).__name__ for answer in ran.answers]


def test_a_batch_is_padded_to_its_bucket():
    model = Model()
    ran = answered(model, numbers(1, 2, 3), 4)
    assert model.batches == [[1, 2, 3, 0]]
    assert [answer[0] for answer in ran.answers] == [1, 2, 3]
    assert ran.bucket == 4


@pytest.mark.parametrize(("count", "bucket"), [(8, 8), (5, 8), (4, 4), (3, 4), (2, 2), (1, 1)])
def test_a_batch_that_has_shrunk_takes_a_smaller_bucket_and_says_which(count, bucket):
    model = Model()
    ran = answered(model, numbers(*range(1, count + 1)), 8)
    assert [len(batch) for batch in model.batches] == [bucket]
    assert ran.bucket == bucket
    assert len(ran.answers) == count


def test_a_poisoned_input_fails_alone():
    model = Model(poison=2)
    with capture_logs():
        ran = answered(model, numbers(1, 2, 3), 4)
    assert kinds(ran) == ["ndarray", "InferenceFailedError", "ndarray"]
    assert model.batches == [[1, 2, 3, 0], [1], [2], [3]]  # once together, once singly
    assert ran.bucket == 0


def test_a_lone_poisoned_input_is_not_tried_twice():
    model = Model(poison=1)
    with capture_logs():
        ran = answered(model, numbers(1), 1)
    assert kinds(ran) == ["InferenceFailedError"]
    assert len(model.batches) == 1
    assert ran.bucket == 0


def test_why_a_run_failed_is_for_the_log_only():
    with capture_logs() as events:
        ran = answered(Model(poison=1), numbers(1), 1)
    assert "poisoned" not in str(ran.answers[0])
    assert str(events[0]["exc_info"]) == "poisoned"


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_scores_that_are_not_numbers_fail_their_input_alone(wrong):
    def run(batch):
        scores = batch.copy()
        scores[0, 1] = wrong
        return scores

    failed, good = answered(run, numbers(1, 2), 2).answers
    assert isinstance(failed, InferenceFailedError)
    assert good[0] == 2


def test_a_model_of_tensors_may_answer_with_what_is_no_number():
    row = np.zeros((), [("f0", "<f4", (2,))])
    row["f0"] = np.nan
    (answer,) = answered(lambda batch: batch, [row], 1).answers
    assert np.isnan(answer["f0"]).all()


def test_structured_inputs_are_stacked():
    rows = [np.array((value, [value] * 2), [("f0", "<i8"), ("f1", "<f4", (2,))]) for value in (1, 2, 3)]
    ran = answered(lambda batch: batch, rows, 4)
    assert [answer["f0"] for answer in ran.answers] == [1, 2, 3]
