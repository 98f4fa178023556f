"""Which variants may be served under a floor."""

import pytest

from taxon.bundle.manifest import Golden, ImageInput, Manifest, PixelSpec, Provenance, Variant
from taxon.tuning.variants import FloorError, choices
from taxon.v1 import classification_service_pb2 as pb


def manifest(**accuracies):
    variants = [
        Variant(file=f"model.{name}.onnx", precision=name, accuracy=accuracy) for name, accuracy in accuracies.items()
    ]
    return Manifest(
        name="pets",
        version=1,
        task="single_label",
        labels=("cat", "dog"),
        input=ImageInput(shape=(8, 8, 3)),
        pixels=PixelSpec(resize=8, crop=(8, 8)),
        golden=(Golden(file="golden/0.png", scores=(0.5, 0.5), tolerance=0.1),),
        variants=tuple(variants),
        provenance=Provenance(run_id="r", created="2026-01-01T00:00:00Z", data_digest="none"),
    )


MEASURED = manifest(fp32=0.95, fp16=0.95, int8=0.93)


def served(variant, **speedups):
    trials = [pb.VariantTrial(variant=name, speedup=speedup) for name, speedup in speedups.items()]
    return pb.Model(variant=variant, variant_trials=trials)


def test_without_a_floor_the_service_chooses_and_slower_ones_are_not_tried():
    assert choices(MEASURED, None, served("int8", fp32=1.0, fp16=0.0, int8=1.8)) == (None, ["fp32"])
    assert choices(manifest(fp32=None), None, served("fp32")) == (None, [])


def test_a_floor_that_all_reach_leaves_the_choice_to_the_service():
    assert choices(MEASURED, 0.9, served("int8", fp32=1.0, int8=1.8)) == (None, ["fp32", "fp16"])


@pytest.mark.parametrize(
    ("by_default", "floor", "expected"),
    [
        ("int8", 0.94, ("fp32", ["fp16"])),  # the service would serve what is not accurate enough
        ("fp16", 0.94, ("fp16", ["fp32"])),
    ],
)
def test_a_floor_that_some_miss_names_a_variant(by_default, floor, expected):
    assert choices(MEASURED, floor, served(by_default)) == expected


def test_what_was_never_measured_is_under_any_floor():
    assert choices(manifest(fp32=0.9, int8=None), 0.0, served("int8")) == ("fp32", [])
    with pytest.raises(FloorError, match=r"has an accuracy of 0.99: fp32 0.9, int8 not recorded"):
        choices(manifest(fp32=0.9, int8=None), 0.99, served("int8"))


def test_of_fp32_the_accuracy_of_the_export_counts():
    old = manifest(fp32=None).model_copy(update={"metrics": {"accuracy": 0.97}})
    assert choices(old, 0.96, served("fp32")) == (None, [])
