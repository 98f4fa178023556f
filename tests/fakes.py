"""Small real things and fakes that several tests share: a toy model in a bundle, pictures, a clock."""

import json
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from taxon.bundle import store
from taxon.bundle.class_maps import write_head
from taxon.bundle.manifest import (
    Distribution,
    FeaturesInput,
    Golden,
    ImageInput,
    Manifest,
    MapSpec,
    PixelSpec,
    Provenance,
    Thresholds,
    Thumbnail,
    ThumbnailSpec,
    Variant,
)
from taxon.bundle.pixels import decode
from taxon.bundle.thumbnails import FEATURES, FOLDER, write_features

COLORS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
TOY_PIXELS = PixelSpec(resize=8, crop=(8, 8))
PRIMARIES = np.eye(3)
"""The bank of a toy that knows red, green and blue: grey is no nearer to them than 0.58."""
FEATURE_COUNT = 4
FEATURE_NAMES = ("a", "b", "c", "d")
SLOW_WIDTH = 2048
SLOW_PRODUCTS = (("light", "widen", "wide"), ("wide", "keep", "kept"), ("kept", "narrow", "nothing"))
SLOW_WEIGHTS = (
    (slice(3), slice(None), "widen"),
    (slice(None), slice(None), "keep"),
    (slice(None), slice(3), "narrow"),
)
PROVENANCE = Provenance(run_id="toy", created="2026-11-22T00:00:00Z", data_digest="0" * 64)


class FakeClock:
    """Seconds that pass when told to."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def picture(color: tuple[int, int, int] = COLORS["red"], size: tuple[int, int] = (8, 8), form: str = "PNG") -> bytes:
    """An encoded picture of one colour."""
    encoded = BytesIO()
    Image.new("RGB", size, color).save(encoded, form)
    return encoded.getvalue()


def toy_graph(
    contract: dict[str, str],
    task: str = "single_label",
    features: bool = False,
    bank: np.ndarray | None = None,
    slow: bool = False,
    steepness: float = 10.0,
    maps: bool = False,
) -> bytes:
    """uint8 `[batch, 8, 8, 3]` → the mean of each colour → scores of red, green and blue; or, from features,
    scores of the first three of four values. With a bank `[M, 3]` of colours, of length 1, also the familiarity.
    Slow: with products of large matrices that change nothing. Steepness: the largest logit of a picture. Maps: of
    quarters, whose features are mean colours.
    """
    activation = "Softmax" if task == "single_label" else "Sigmoid"
    weights = np.eye(FEATURE_COUNT if features else 3, 3, dtype=np.float32) * (1.0 if features else steepness / 255)
    if features:
        source = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", FEATURE_COUNT])
        nodes = []
    else:
        source = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 8, 8, 3])
        nodes = [
            helper.make_node("Cast", ["image"], ["cast"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["cast", "axes"], ["mean"], keepdims=0),
        ]
    nodes += [
        helper.make_node("MatMul", ["features" if features else "mean", "weights"], ["light" if slow else "logits"]),
        *(helper.make_node("MatMul", names[:2], names[2:]) for names in SLOW_PRODUCTS if slow),
        *([helper.make_node("Add", ["light", "nothing"], ["logits"])] if slow else []),
        helper.make_node(activation, ["logits"], ["scores"]),
    ]
    constants = [numpy_helper.from_array(weights, "weights")]
    if slow:
        wide = np.zeros((SLOW_WIDTH, SLOW_WIDTH), np.float32)
        constants += [numpy_helper.from_array(wide[rows, columns], name) for rows, columns, name in SLOW_WEIGHTS]
    if not features:
        constants.append(numpy_helper.from_array(np.array([1, 2], dtype=np.int64), "axes"))
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 3])]
    if bank is not None:
        outputs.append(helper.make_tensor_value_info("familiarity", TensorProto.FLOAT, ["batch", 1]))
        constants += [
            numpy_helper.from_array(bank.T.astype(np.float32), "bank"),
            numpy_helper.from_array(np.array([1], dtype=np.int64), "last"),
        ]
        nodes += [
            helper.make_node("ReduceL2", ["mean", "last"], ["length"], keepdims=1),
            helper.make_node("Div", ["mean", "length"], ["unit"]),
            helper.make_node("MatMul", ["unit", "bank"], ["likeness"]),
            helper.make_node("ReduceMax", ["likeness", "last"], ["familiarity"], keepdims=1),
        ]
    if maps:
        outputs.append(helper.make_tensor_value_info("places", TensorProto.FLOAT, ["batch", 3, 2, 2]))
        constants += [
            numpy_helper.from_array(np.array([-1, 2, 4, 2, 4, 3], dtype=np.int64), "quarters"),
            numpy_helper.from_array(np.array([2, 4], dtype=np.int64), "inside"),
        ]
        nodes += [
            helper.make_node("Reshape", ["cast", "quarters"], ["quartered"]),
            helper.make_node("ReduceMean", ["quartered", "inside"], ["means"], keepdims=0),
            helper.make_node("Transpose", ["means"], ["places"], perm=[0, 3, 1, 2]),
        ]
    graph = helper.make_graph(nodes, "toy", [source], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    helper.set_model_props(model, contract)
    return model.SerializeToString()


def toy_scores(values: np.ndarray, task: str = "single_label") -> np.ndarray:
    """What `toy_graph` answers, in float64, for three logits."""
    if task == "multi_label":
        return 1 / (1 + np.exp(-values))
    powers = np.exp(values - values.max())
    return powers / powers.sum()


def toy_bundle(
    root: Path,
    name: str = "colors",
    *,
    task: str = "single_label",
    features: bool = False,
    thresholds: Thresholds = Thresholds(),
    labels: tuple[str, ...] = tuple(COLORS),
    graph_labels: tuple[str, ...] | None = None,
    golden_shift: float = 0.0,
    graph: bytes | None = None,
    bank: np.ndarray = PRIMARIES,
    lighter: Mapping[str, bytes | None] = MappingProxyType({}),
    lighter_unknown: float | None = None,
    steepness: float = 10.0,
    distributions: Mapping[str, Distribution] = MappingProxyType({}),
    maps: bool = False,
    map_shift: float = 0.0,
    thumbnails: tuple[str, ...] = (),
) -> store.Bundle:
    """Publishes a model that tells red, green and blue apart.

    Args:
        root: The repository.
        name: Of the model.
        task: Of the model.
        features: Whether it takes four numbers instead of pictures.
        thresholds: Of the manifest.
        labels: Of the manifest.
        graph_labels: Of the graph's own metadata, if they shall differ.
        golden_shift: Added to the goldens' expected scores, to make a bundle that answers differently.
        graph: Other bytes in the graph's place.
        bank: Of the graph, where `thresholds` are about familiarity; the goldens' is that of pure colours, 1.
        lighter: Graphs of other variants, by precision; None is a sound one. fp32's is a slow one then.
        lighter_unknown: The `unknown` threshold of those.
        steepness: The largest logit of a picture, of a model whose scores shall tell it from others.
        distributions: Of the manifest.
        maps: Whether the graph gives maps.
        map_shift: As `golden_shift`, of the goldens' maps.
        thumbnails: Digests of training pictures of as many colours, of a model with maps.
    """
    root.mkdir(parents=True, exist_ok=True)
    with store.staging(root, name) as folder:
        (folder / "golden").mkdir()
        goldens = []
        familiarity = 1.0 if thresholds.unknown_by == "familiarity" else None
        for index, color in enumerate(COLORS.values()):
            if features:
                values = [float(index == position) * 3 for position in range(FEATURE_COUNT)]
                logits = np.array(values[:3])
                file, stored = f"golden/{index}.json", json.dumps(values).encode()
            else:
                stored = picture(color, size=(12, 9))
                logits = decode(stored, TOY_PIXELS).mean(axis=(0, 1)) * steepness / 255
                file = f"golden/{index}.png"
            (folder / file).write_bytes(stored)
            scores = np.clip(toy_scores(logits, task) + golden_shift, 0, 1)
            goldens.append(
                Golden(
                    file=file,
                    scores=tuple(scores.tolist()),
                    familiarity=familiarity,
                    tolerance=1e-4,
                    map=(steepness + map_shift,) * 4 if maps else None,
                )
            )
        draft = Manifest(
            distributions=dict(distributions),
            name=name,
            version=1,
            task=task,
            labels=labels,
            input=FeaturesInput(shape=(FEATURE_COUNT,), names=FEATURE_NAMES)
            if features
            else ImageInput(shape=(8, 8, 3)),
            pixels=None if features else TOY_PIXELS,
            thresholds=thresholds,
            maps=MapSpec(feature_count=3, shape=(2, 2), weights="maps.npy", tolerance=1e-4) if maps else None,
            golden=tuple(goldens),
            variants=(
                Variant(file="model.onnx", precision="fp32"),
                *(
                    Variant(file=f"model.{precision}.onnx", precision=precision, unknown=lighter_unknown)
                    for precision in lighter
                ),
            ),
            provenance=PROVENANCE,
            metrics={"accuracy": 0.5},
        )
        if thumbnails:
            (folder / FOLDER).mkdir()
            held = [
                Thumbnail(file=f"{FOLDER}/{index}.jpg", labels=(labels[index],), sha256=digest)
                for index, digest in enumerate(thumbnails)
            ]
            for one, color in zip(held, COLORS.values(), strict=False):
                (folder / one.file).write_bytes(picture(color, form="JPEG"))
            (folder / FEATURES).write_bytes(write_features(np.eye(len(held), 3, dtype=np.float32)))
            spec = ThumbnailSpec(features=FEATURES, pictures=tuple(held))
            draft = draft.model_copy(update={"thumbnails": spec})
        contract = draft.model_copy(update={"labels": graph_labels or labels}).contract()
        judge = None if familiarity is None else bank
        full = toy_graph(contract, task, features, judge, slow=bool(lighter), steepness=steepness, maps=maps)
        (folder / "model.onnx").write_bytes(full if graph is None else graph)
        for precision, given in lighter.items():
            light = (
                toy_graph(contract, task, features, judge, steepness=steepness, maps=maps) if given is None else given
            )
            (folder / f"model.{precision}.onnx").write_bytes(light)
        if maps:
            (folder / "maps.npy").write_bytes(write_head(np.eye(3, 4, dtype=np.float32) * np.float32(steepness / 255)))
        return store.publish(folder, draft)
