"""Triton's Python backend: one BYTES element per input in, the best class out."""

import numpy as np
import triton_python_backend_utils as pb_utils
from work import decode, open_session, run


class TritonPythonModel:
    def initialize(self, _: dict) -> None:
        self.session = open_session()

    def execute(self, requests: list) -> list:
        encoded = [pb_utils.get_input_tensor_by_name(request, "image").as_numpy().ravel() for request in requests]
        best = run(self.session, [decode(picture) for group in encoded for picture in group])
        answers, start = [], 0
        for group in encoded:
            rows = best[start : start + len(group)].astype(np.int64).reshape(-1, 1)
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("best", rows)]))
            start += len(group)
        return answers
