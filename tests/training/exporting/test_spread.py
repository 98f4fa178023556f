import numpy as np
from PIL import Image

from taxon.bundle.distributions import bin_of, brightness, side
from taxon.training.exporting import spread
from tests.training.toy_classifier import LABELS, decoded, make_candidate


def test_the_validation_set_is_measured_as_the_service_measures(tmp_path):
    candidate = make_candidate(tmp_path)
    random = np.random.default_rng(0)
    rows = random.dirichlet(np.ones(3), len(candidate.files)).astype(np.float32)
    found = spread.measured(candidate, rows)
    sizes = []
    for file in candidate.files:
        with Image.open(file) as image:
            sizes.append(side(image.width * image.height))
    served = {"score": rows.max(axis=1), "brightness": brightness(decoded(candidate.files)), "side": sizes}
    assert found.keys() == served.keys()
    for measure, values in served.items():
        edges, counts = found[measure].edges, found[measure].counts
        assert list(counts) == np.bincount([bin_of(edges, v) for v in values], minlength=len(counts)).tolist()
        assert counts[0] == counts[-1] == 0


def test_familiarity_is_told_from_the_scores(tmp_path):
    candidate = make_candidate(tmp_path)
    rows = np.tile(np.float32([0.2, 0.5, 0.3, 0.9]), (len(candidate.files), 1))
    assert len(LABELS) == 3
    found = spread.measured(candidate, rows)
    assert found["score"].edges == (0.495, 0.505)
    assert found["familiarity"].edges == (0.895, 0.905)
