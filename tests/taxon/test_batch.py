"""Answers without a server: the service's own, to the last bit."""

import numpy as np
import pytest

from taxon.batch import Classifier, reason_of
from taxon.bundle.manifest import BundleError, Thresholds
from taxon.bundle.picture_limits import PictureUndecodableError
from taxon.client import classify_request
from taxon.service.api import statuses
from taxon.service.errors import InferenceFailedError
from tests.fakes import COLORS, picture, toy_bundle
from tests.service.conftest import running

MANY = [picture((index * 9 % 256, 40, 255 - index), (9 + index, 8)) for index in range(21)]


async def test_the_answers_are_the_services_to_the_last_bit(models):
    ranked = Classifier(models).classify(MANY)
    async with running(models) as server:
        for encoded, ours in zip(MANY, ranked, strict=True):
            theirs = await server.stub.Classify(classify_request(encoded))
            assert [found.class_index for found in theirs.classifications] == ours.indexes
            assert [found.score for found in theirs.classifications] == ours.scores


def test_small_pictures_go_in_larger_batches(models):
    assert Classifier(models)._buckets[-1] == 64
    assert Classifier(models, batch_size=2)._buckets == (1, 2)


def test_one_bad_picture_is_its_own_failure(models):
    outcomes = Classifier(models, batch_size=2).classify([MANY[0], b"bad", MANY[1], b"", MANY[2]])
    assert [type(outcome).__name__ for outcome in outcomes[::2]] == ["Ranked"] * 3
    assert [type(outcome) for outcome in outcomes[1::2]] == [PictureUndecodableError] * 2


def test_no_more_pictures_are_held_than_a_batch(models):
    """A chunk of large ones would take gigabytes."""
    classifier, runs = Classifier(models, batch_size=4), []
    run = classifier._run
    classifier._run = lambda batch: runs.append(taken) or run(batch)
    taken = 0

    def given():
        nonlocal taken
        for encoded in MANY[:8]:
            taken += 1
            yield encoded

    classifier.classify(given())
    assert runs == [4, 8]


def test_a_batch_of_columns(models):
    red, grey = picture(COLORS["red"]), picture((90, 90, 90))
    batch = {"image": np.array([red, b"bad", grey], dtype=object), "number": np.arange(3)}
    found = Classifier(models, max_results=2)(batch)
    assert "image" not in found
    assert found["number"].tolist() == [0, 1, 2]
    assert found["label"].tolist()[:2] == ["red", ""]
    assert found["score"].dtype == np.float32
    assert np.isnan(found["score"]).tolist() == [False, True, False]
    assert [list(labels) for labels in found["labels"]][:2] == [["red", "green"], []]
    assert found["scores"][0].tolist()[0] == found["score"][0]
    assert found["error"].tolist() == ["", "IMAGE_UNDECODABLE", ""]
    assert found["version"].tolist() == [1, 1, 1]
    assert found["variant"].tolist() == ["fp32"] * 3


def test_unknown_has_no_label_but_its_scores(tmp_path):
    toy_bundle(tmp_path, thresholds=Thresholds(unknown=0.99))
    found = Classifier(tmp_path)({"image": np.array([picture((90, 90, 90))], dtype=object)})
    assert (found["label"].tolist(), found["unknown"].tolist()) == ([""], [True])
    assert len(found["labels"][0]) == 3


def test_reasons_are_the_services():
    for error in (PictureUndecodableError("x"), InferenceFailedError("x")):
        assert reason_of(error) == statuses.reason_of(error)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"model": "cats"}, "holds no model 'cats'"),
        ({"version": "9"}, "has no version 9: there is 1"),
        ({"version": "canary"}, "has no version that is labelled 'canary'"),
        ({"variant": "int8"}, "has no variant int8"),
        ({"batch_size": 6}, "no power of two"),
    ],
)
def test_what_is_not_there_is_said(models, arguments, told):
    with pytest.raises((BundleError, ValueError), match=told):
        Classifier(models, **arguments)


def test_numbers_are_not_pictures(tmp_path):
    toy_bundle(tmp_path, features=True)
    with pytest.raises(ValueError, match="takes numbers"):
        Classifier(tmp_path)
