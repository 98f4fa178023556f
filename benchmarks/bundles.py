"""The bundles that the benchmarks serve: real architectures with random weights, which cost what trained ones do.

python -m benchmarks.bundles FOLDER [--int8] [MODEL…]
"""

import sys
from pathlib import Path

import numpy as np

from taxon.bench.made_pictures import photo
from taxon.bundle import store
from taxon.bundle.manifest import Golden, ImageInput, Manifest, PixelSpec, Provenance, Variant
from taxon.bundle.pixels import decode

IMAGENET = PixelSpec(resize=256, crop=(224, 224), resampler="simd")  # as new trainings have it
MODELS = {
    "digits": ("small_cnn", PixelSpec(resize=(32, 32), crop=(32, 32), resampler="simd"), 10),
    "cifar": ("airbench", PixelSpec(resize=(32, 32), crop=(32, 32), resampler="simd"), 10),
    "mobilenet": ("mobilenet_v3_small", IMAGENET, 1000),
    "resnet18": ("resnet18", IMAGENET, 1000),
    "resnet50": ("resnet50", IMAGENET, 1000),
}
GOLDEN_COUNT = 8
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def build(root: Path, name: str, half_too: bool = False, int8_too: bool = False) -> None:
    """Publishes one of `MODELS` unless it is there, if wanted with an fp16 and an int8 variant: all convolutions and
    products in eight bits, whatever that does to answers that mean nothing. What it costs is what trained ones cost.
    """
    if store.versions(root, name):
        return
    import onnxruntime
    import torch

    from taxon.training.exporting import graph, half, quantise
    from taxon.training.network import model

    architecture, pixels, class_count = MODELS[name]
    torch.manual_seed(0)
    network = model.build(architecture, class_count)
    # One class wins clearly, so that the goldens hold in TF32, fp16 and int8 although the weights mean nothing.
    if (bias := network.get_submodule(model.head_path(network)).bias) is not None:
        bias.data[0] += 1000.0
    served = graph.Served(network, MEAN, STD, "single_label").eval()
    root.mkdir(parents=True, exist_ok=True)
    with store.staging(root, name) as folder:
        (folder / "golden").mkdir()
        graph.write_graph(served, pixels.shape, folder / "model.onnx")
        session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
        goldens = []
        for index in range(GOLDEN_COUNT):
            file = f"golden/{index}.jpg"
            photo(index, (64, 64) if pixels.crop == (32, 32) else (500, 375)).save(folder / file, quality=90)
            image = decode((folder / file).read_bytes(), pixels)
            (scores,) = session.run(None, {"image": image[None]})
            goldens.append(Golden(file=file, scores=tuple(scores[0].tolist()), tolerance=0.02))
        files = {"fp32": "model.onnx", **({"fp16": "model.fp16.onnx"} if half_too else {})}
        files |= {"int8": "model.int8.onnx"} if int8_too else {}
        draft = Manifest(
            name=name,
            version=1,
            task="single_label",
            labels=tuple(f"class {index}" for index in range(class_count)),
            input=ImageInput(shape=pixels.shape),
            pixels=pixels,
            golden=tuple(goldens),
            variants=tuple(Variant(file=file, precision=precision) for precision, file in files.items()),
            provenance=Provenance(run_id="benchmark", created="2026-11-22T00:00:00Z", data_digest="none", seed=0),
        )
        graph.tidy(folder / "model.onnx", draft.contract())
        if half_too:
            half.write_half(folder / "model.onnx", folder / files["fp16"])
        if int8_too:
            quantise.prepare(folder / "model.onnx", root / f"{name}.prepared.onnx")
            some = np.stack([decode((folder / golden.file).read_bytes(), pixels) for golden in goldens])
            quantise.write_int8(root / f"{name}.prepared.onnx", folder / files["int8"], some, quantise.PLANS[0])
            (root / f"{name}.prepared.onnx").unlink()
        store.publish(folder, draft)


def main(argv: list[str]) -> None:
    int8_too = "--int8" in argv
    root, *names = (word for word in argv if word != "--int8")
    for name in names or MODELS:
        build(Path(root), name, int8_too=int8_too)
        print(f"{root}/{name}")


if __name__ == "__main__":
    main(sys.argv[1:])
