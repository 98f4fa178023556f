"""What does decoding cost at 0.2, 3 and 12 megapixels, what does `scaled_decoding` save, and what does it change?

    python -m benchmarks.bench_decoding [--pictures FOLDER] [--resize 256] [--rounds 5]
        [--models FOLDER --model NAME --data FOLDER]

Pictures are those of a folder (made ones without it), enlarged, with grain so that they have the bytes of a phone's.
Whole and scaled decoding alternate; figures are medians. With a bundle and a labelled folder also: its accuracy on
those pictures as they are and enlarged, decoded both ways, and how often both ways agree. The last line is one JSON
object.
"""

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.bundles import photo
from taxon.bundle import store
from taxon.bundle.manifest import PixelSpec
from taxon.bundle.pixels import decode
from taxon.service.runtime.device import CPU
from taxon.service.runtime.session import Session, open_session

MEGAPIXELS = (0.2, 3.0, 12.0)
TIMED_PICTURES = 4
COMPARED_PICTURES, ENLARGED_PICTURES = 400, 50
BATCH = 16
GRAIN = 6.0
QUALITY = 88


def enlarged(picture: Image.Image, megapixels: float, seed: int) -> bytes:
    """A JPEG of so many pixels."""
    factor = (megapixels * 1e6 / (picture.width * picture.height)) ** 0.5
    size = round(picture.width * factor), round(picture.height * factor)
    smooth = np.asarray(picture.convert("RGB").resize(size, Image.Resampling.BICUBIC), np.float32)
    grain = np.random.default_rng(seed).normal(0, GRAIN, (*smooth.shape[:2], 1)).astype(np.float32)
    file = BytesIO()
    Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def both(pixels: PixelSpec) -> tuple[PixelSpec, PixelSpec]:
    """Whole and scaled."""
    whole, scaled = (pixels.model_copy(update={"scaled_decoding": value}) for value in (False, True))
    return whole, scaled


def timed(encoded: Sequence[bytes], pixels: PixelSpec, rounds: int) -> dict[str, float]:
    """Median milliseconds of a picture, and how far the two ways differ."""
    seconds: tuple[list[float], list[float]] = ([], [])
    differences = []
    for picture in encoded:
        for _ in range(rounds):
            arrays = []
            for spec, spent in zip(both(pixels), seconds, strict=True):
                started = time.perf_counter()
                arrays.append(decode(picture, spec).astype(np.int16))
                spent.append(time.perf_counter() - started)
        differences.append(np.abs(arrays[0] - arrays[1]))
    whole_s, scaled_s = map(statistics.median, seconds)
    return {
        "bytes": round(statistics.mean(map(len, encoded))),
        "whole_ms": round(whole_s * 1e3, 2),
        "scaled_ms": round(scaled_s * 1e3, 2),
        "speed": round(whole_s / scaled_s, 2),
        "mean_difference": round(float(np.mean([each.mean() for each in differences])), 3),
        "largest_difference": int(max(each.max() for each in differences)),
    }


def scores(session: Session, encoded: Sequence[bytes], pixels: PixelSpec) -> np.ndarray:
    """float32 `[pictures, classes]`."""
    starts = range(0, len(encoded), BATCH)
    return np.concatenate(
        [session.run(np.stack([decode(each, pixels) for each in encoded[at : at + BATCH]])) for at in starts]
    )


def compared(models: Path, model: str, folder: Path) -> dict[str, dict[str, float]]:
    """Accuracy both ways, by megapixels; 0 are the files as they are."""
    bundle = store.read(models, model, store.versions(models, model)[-1])
    session = open_session(bundle.read("model.onnx"), CPU, 2, {})
    labels = bundle.manifest.labels
    files = [
        (path, labels.index(path.parent.name)) for path in sorted(folder.glob("*/*")) if path.parent.name in labels
    ]
    order = np.random.default_rng(0).permutation(len(files))[:COMPARED_PICTURES]
    chosen = [files[index] for index in order]
    found = {}
    for megapixels in (0.0, *MEGAPIXELS[1:]):
        if megapixels:
            chosen = chosen[:ENLARGED_PICTURES]
        truth = np.array([label for _, label in chosen])
        encoded = [
            enlarged(Image.open(path), megapixels, seed) if megapixels else path.read_bytes()
            for seed, (path, _) in enumerate(chosen)
        ]
        whole, scaled = (scores(session, encoded, spec) for spec in both(bundle.manifest.pixels))
        found[f"{megapixels:g}"] = {
            "pictures": len(chosen),
            "whole_accuracy": round(float((whole.argmax(1) == truth).mean()), 4),
            "scaled_accuracy": round(float((scaled.argmax(1) == truth).mean()), 4),
            "top1_agreement": round(float((whole.argmax(1) == scaled.argmax(1)).mean()), 4),
            "mean_score_difference": round(float(np.abs(whole - scaled).max(1).mean()), 5),
            "largest_score_difference": round(float(np.abs(whole - scaled).max()), 4),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--resize", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--data", type=Path)
    options = parser.parse_args()
    files = sorted(options.pictures.iterdir())[:TIMED_PICTURES] if options.pictures else []
    pictures = [Image.open(file) for file in files] or [photo(seed) for seed in range(TIMED_PICTURES)]
    crop = round(options.resize * 7 / 8)
    pixels = PixelSpec(resize=options.resize, crop=(crop, crop))
    report: dict[str, object] = {"benchmark": "decoding", "resize": options.resize, "rounds": options.rounds}
    for megapixels in MEGAPIXELS:
        encoded = [enlarged(picture, megapixels, seed) for seed, picture in enumerate(pictures)]
        report[f"{megapixels:g}"] = row = timed(encoded, pixels, options.rounds)
        print(f"{megapixels:5g} MP  {row}", flush=True)
    if options.models:
        report["compared"] = found = compared(options.models, options.model, options.data)
        for megapixels, row in found.items():
            print(f"{megapixels:>5} MP  {row}", flush=True)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
