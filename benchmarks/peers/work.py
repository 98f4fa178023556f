"""What every peer does with a picture: the evaluation transform of the benchmark's bundles, then ONNX Runtime.

Runs in the peers' own environments, which have Pillow, NumPy and onnxruntime but not this project.
"""

import io
import json
import os

import numpy as np
import onnxruntime
from PIL import Image

RESIZE = json.loads(os.environ["RESIZE"])  # as in the manifest: the shorter side, or [height, width]
CROP = 224


def open_session() -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])


def decode(encoded: bytes) -> np.ndarray:
    picture = Image.open(io.BytesIO(encoded)).convert("RGB")
    if isinstance(RESIZE, list):
        height, width = RESIZE
        return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
    width, height = picture.size
    shorter = min(width, height)
    size = (int(RESIZE * width / shorter), int(RESIZE * height / shorter))
    picture = picture.resize(size, Image.Resampling.BILINEAR)
    left, top = round((picture.width - CROP) / 2), round((picture.height - CROP) / 2)
    return np.asarray(picture.crop((left, top, left + CROP, top + CROP)))


def run(session: onnxruntime.InferenceSession, pictures: list[np.ndarray]) -> np.ndarray:
    """The best class of each."""
    return session.run(None, {"image": np.stack(pictures)})[0].argmax(axis=1)
