"""What every peer does with a picture: the evaluation transform of the benchmark's bundles, then ONNX Runtime.

Runs in the peers' own environments, which have Pillow, NumPy and onnxruntime but not this project.
"""

import io
import os

import numpy as np
import onnxruntime
from PIL import Image


def open_session() -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])


def decode(encoded: bytes) -> np.ndarray:
    picture = Image.open(io.BytesIO(encoded)).convert("RGB")
    width, height = picture.size
    scale = 256 / min(width, height)
    picture = picture.resize((max(256, int(width * scale)), max(256, int(height * scale))), Image.Resampling.BILINEAR)
    left, top = (picture.width - 224) // 2, (picture.height - 224) // 2
    return np.asarray(picture.crop((left, top, left + 224, top + 224)))


def run(session: onnxruntime.InferenceSession, pictures: list[np.ndarray]) -> np.ndarray:
    """The best class of each."""
    return session.run(None, {"image": np.stack(pictures)})[0].argmax(axis=1)
