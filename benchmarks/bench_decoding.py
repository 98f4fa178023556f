"""What does decoding cost at 0.2, 3 and 12 megapixels against an earlier checkout, and what do `simd` and
`scaled_decoding` change?

    python -m benchmarks.bench_decoding --before CHECKOUT [--pictures FOLDER] [--resize 256] [--rounds 5]
        [--models FOLDER --model NAME --data FOLDER] [--weights mobilenet_v2.pth]

Pictures are those of a folder (made ones without it), enlarged, with grain so that they have the bytes of a phone's.
All ways take turns with each picture, with the service's heap; speeds are medians of the ratios. With a bundle and a
labelled folder also: its accuracy on those pictures as they are and enlarged, decoded each way, and how often the ways
agree. With weights of torchvision's MobileNetV2, trained elsewhere and on Pillow's pixels: the same on the pictures,
whose names end in ImageNet's (`n01440764_tench.JPEG`). The last line is one JSON object.
"""

import argparse
import importlib
import json
import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.bundles import IMAGENET
from benchmarks.conditions import conditions
from taxon.bench.made_pictures import photo
from taxon.bundle import store
from taxon.bundle.manifest import PixelSpec
from taxon.bundle.pixels import decode
from taxon.service.machine import keep_freed_memory
from taxon.service.runtime.device import CPU
from taxon.service.runtime.session import Session, open_session

Decode = Callable[[bytes], np.ndarray]
"""A picture → uint8 `[height, width, channels]`."""
WAYS: dict[str, dict[str, object]] = {
    "pillow": {},
    "simd": {"resampler": "simd"},
    "scaled": {"scaled_decoding": True},
    "simd, scaled": {"resampler": "simd", "scaled_decoding": True},
}
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


def ways(pixels: PixelSpec) -> dict[str, PixelSpec]:
    """Each way to decode, by name."""
    plain = {"resampler": "pillow", "scaled_decoding": False}
    return {name: pixels.model_copy(update={**plain, **changes}) for name, changes in WAYS.items()}


def of_checkout(folder: Path, pixels: PixelSpec) -> Decode:
    """The decoder of another checkout, in this process. It and all that it imports is imported anew, then put aside."""
    ours = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "taxon"}
    sys.path.insert(0, str(folder.resolve()))
    try:
        module = importlib.import_module("taxon.bundle.pixels")
        spec = importlib.import_module("taxon.bundle.manifest").PixelSpec.model_validate(pixels.model_dump())
    finally:
        sys.path.pop(0)
        for name in [name for name in sys.modules if name.split(".")[0] == "taxon"]:
            del sys.modules[name]
        sys.modules.update(ours)
    if not Path(module.__file__).is_relative_to(folder.resolve()):
        raise SystemExit(f"{folder} is no checkout: taxon came from {module.__file__}")
    return lambda encoded: module.decode(encoded, spec)


def timed(encoded: Sequence[bytes], decoders: dict[str, Decode], rounds: int) -> dict[str, object]:
    """Of each way, the first being the reference: median milliseconds of a picture, the median of the ratios to the
    reference, and how far pixels are from its.
    """
    seconds: dict[str, list[float]] = {name: [] for name in decoders}
    differences: dict[str, list[np.ndarray]] = {name: [] for name in decoders}
    for picture in encoded:
        reference = next(iter(decoders.values()))(picture).astype(np.int16)
        for name, way in decoders.items():
            differences[name].append(np.abs(way(picture).astype(np.int16) - reference))
        for _ in range(rounds):
            for name, way in decoders.items():
                started = time.perf_counter()
                way(picture)
                seconds[name].append(time.perf_counter() - started)
    first = next(iter(seconds.values()))
    return {
        name: {
            "ms": round(statistics.median(spent) * 1e3, 2),
            "speed": round(statistics.median(r / s for r, s in zip(first, spent, strict=True)), 2),
            "values_that_differ": round(float(np.mean([(each > 0).mean() for each in differences[name]])), 4),
            "mean_difference": round(float(np.mean([each.mean() for each in differences[name]])), 4),
            "largest_difference": int(max(each.max() for each in differences[name])),
        }
        for name, spent in seconds.items()
    }


def scores(session: Session, encoded: Sequence[bytes], pixels: PixelSpec) -> np.ndarray:
    """float32 `[pictures, classes]`."""
    starts = range(0, len(encoded), BATCH)
    return np.concatenate(
        [session.run(np.stack([decode(each, pixels) for each in encoded[at : at + BATCH]])) for at in starts]
    )


def agreement(by_way: dict[str, np.ndarray], truth: np.ndarray) -> dict[str, dict[str, float]]:
    """Of each way: accuracy, and how far its scores are from those of the first."""
    first = next(iter(by_way.values()))
    return {
        name: {
            "accuracy": round(float((each.argmax(1) == truth).mean()), 4),
            "top1_agreement": round(float((each.argmax(1) == first.argmax(1)).mean()), 4),
            "mean_score_difference": round(float(np.abs(each - first).max(1).mean()), 5),
            "largest_score_difference": round(float(np.abs(each - first).max()), 4),
        }
        for name, each in by_way.items()
    }


def foreign(weights: Path, folder: Path) -> dict[str, object]:
    """What a network thinks that knows Pillow's pixels only. Pictures whose name is no label of ImageNet are left out
    of the accuracy.
    """
    import torch
    from torchvision.models import MobileNet_V2_Weights, mobilenet_v2

    preset = MobileNet_V2_Weights.IMAGENET1K_V1
    names = [re.sub(r"[^a-z]", "", name.lower()) for name in preset.meta["categories"]]
    files = sorted(folder.iterdir())
    said = [re.sub(r"[^a-z]", "", file.stem.partition("_")[2].lower()) for file in files]
    known = np.array([names.count(name) == 1 for name in said])
    truth = np.array([names.index(name) if is_known else -1 for name, is_known in zip(said, known, strict=True)])
    network = mobilenet_v2().eval()
    network.load_state_dict(torch.load(weights, weights_only=True))
    mean, std = (torch.tensor(values) for values in (preset.transforms().mean, preset.transforms().std))
    by_way = {}
    with torch.inference_mode():
        for name, spec in ways(IMAGENET).items():
            arrays = torch.from_numpy(np.stack([decode(file.read_bytes(), spec) for file in files]))
            inputs = ((arrays / 255 - mean) / std).permute(0, 3, 1, 2)
            by_way[name] = torch.cat([network(batch).softmax(1) for batch in inputs.split(BATCH)]).numpy()
    all_of_them = agreement(by_way, truth)
    labelled = agreement({name: each[known] for name, each in by_way.items()}, truth[known])
    for name, row in all_of_them.items():
        row["accuracy"] = labelled[name]["accuracy"]
    return {"pictures": len(files), "labelled": int(known.sum()), **all_of_them}


def compared(models: Path, model: str, folder: Path) -> dict[str, dict[str, object]]:
    """Accuracy both ways, by megapixels; 0 are the files as they are."""
    bundle = store.read(models, model, store.versions(models, model)[-1])
    session = open_session(bundle.folder / "model.onnx", CPU, 2, {})
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
        by_way = {name: scores(session, encoded, spec) for name, spec in ways(bundle.manifest.pixels).items()}
        found[f"{megapixels:g}"] = {"pictures": len(chosen), **agreement(by_way, truth)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--before", type=Path, help="checkout that speeds are ratios to; else what `pillow` is now")
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--resize", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--weights", type=Path)
    options = parser.parse_args()
    keep_freed_memory()
    files = sorted(options.pictures.iterdir())[:TIMED_PICTURES] if options.pictures else []
    pictures = [Image.open(file) for file in files] or [photo(seed) for seed in range(TIMED_PICTURES)]
    crop = round(options.resize * 7 / 8)
    pixels = PixelSpec(resize=options.resize, crop=(crop, crop))
    decoders: dict[str, Decode] = {"before": of_checkout(options.before, pixels)} if options.before else {}
    decoders |= {name: lambda encoded, spec=spec: decode(encoded, spec) for name, spec in ways(pixels).items()}
    report: dict[str, object] = {"benchmark": "decoding", "resize": options.resize, "rounds": options.rounds}
    for megapixels in MEGAPIXELS:
        encoded = [enlarged(picture, megapixels, seed) for seed, picture in enumerate(pictures)]
        # Small pictures take a millisecond or two: more of them for the same noise.
        row = timed(encoded, decoders, round(options.rounds * max(1.0, MEGAPIXELS[1] / megapixels)))
        report[f"{megapixels:g}"] = {"bytes": round(statistics.mean(map(len, encoded))), **row}
        for name, figures in row.items():
            print(f"{megapixels:5g} MP  {name:12}  {figures}", flush=True)
    if options.models:
        report["compared"] = compared(options.models, options.model, options.data)
        print(report["compared"], flush=True)
    if options.weights:
        report["foreign"] = foreign(options.weights, options.pictures)
        print(report["foreign"], flush=True)
    print(json.dumps({**report, **conditions()}))


if __name__ == "__main__":
    main()
