import os

import pytest
import torch

from taxon.training.errors import TrainingError
from taxon.training.loop.batches import LabelledArrays, batches, in_turn


def test_a_loader_process_that_dies_is_said_with_what_to_do():
    def die(_pictures, _numbers):
        os._exit(1)

    arrays = LabelledArrays(torch.zeros(4, 2).numpy(), torch.zeros(4, dtype=torch.int64), variation=die)
    with pytest.raises(TrainingError, match=r"loader process died.*--workers"):
        list(batches(arrays, in_turn(4, 2), workers=1))
