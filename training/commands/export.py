"""The command `taxon export`: a finished run in, a proven bundle in the model repository out."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from taxon import ranges
from taxon.bundle.manifest import MOST_THUMBNAILS, BundleError
from taxon.training.commands.export_summary import print_summary
from taxon.training.errors import TrainingError
from taxon.training.exporting import bundling, foreign
from taxon.training.exporting.candidate import Candidate
from taxon.training.exporting.of_run import from_run
from taxon.training.exporting.options import add_settings, model_name, settings


def main(argv: list[str]) -> int:
    """Exports a run. Returns 0 if a bundle was published, 2 if not."""
    parser = argparse.ArgumentParser(
        description="Export the best checkpoint of a run to ONNX, prove on the validation pictures that it answers "
        "as torch does, and publish it as MODELS/NAME/VERSION."
    )
    parser.add_argument("run", type=Path, nargs="?", help="folder that `taxon train` wrote")
    parser.add_argument("--models", type=Path, required=True, help="model repository; made if it is missing")
    parser.add_argument("--name", help="model name; the run folder's by default")
    parser.add_argument(
        "--scaled-decoding",
        action="store_true",
        help="decode large JPEG pictures at a half, a quarter or an eighth of their sides, although training did not; "
        "refused if that changes the accuracy",
    )
    parser.add_argument(
        "--resampler",
        choices=["pillow", "simd"],
        help="whose arithmetic resizes pictures, in the service too: Pillow's, or fast_image_resize's, several times "
        "as fast; by default as in training, and pillow with --checkpoint; refused if another changes the accuracy",
    )
    parser.add_argument(
        "--thumbnails",
        type=ranges.whole(0, MOST_THUMBNAILS),
        default=0,
        metavar="COUNT",
        help="let so many training pictures leave with the bundle, small and without metadata, to be shown beside "
        f"answers by `taxon explain --neighbors`: whoever has the bundle can look at them; at most {MOST_THUMBNAILS}, "
        "none by default; goes with --maps",
    )
    add_foreign(parser)
    add_settings(parser)
    options = parser.parse_args(argv)
    if (options.run is None) == (options.checkpoint is None):
        parser.error("give the folder of a run, or --checkpoint with --model, --labels and --data")
    if options.checkpoint is not None and None in (options.model, options.labels, options.data):
        parser.error("--checkpoint needs --model, --labels and --data")
    if options.thumbnails and not options.maps:
        parser.error("--thumbnails goes with --maps: they are found by the features that maps have")
    try:
        name = model_name(options.name, options.run or options.checkpoint.with_suffix(""))
        chosen = replace(settings(options), thumbnail_count=options.thumbnails)
        candidate = from_run(options.run) if options.run else _from_checkpoint(options)
        changes = {"scaled_decoding": options.scaled_decoding, "resampler": options.resampler}
        candidate = candidate.with_pixels(**{name: value for name, value in changes.items() if value})
        export = bundling.publish(candidate, options.models, name, chosen)
    except (TrainingError, BundleError) as error:
        sys.stderr.write(f"taxon export: {error}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"taxon export: {error.filename or options.models}: {error.strerror}; nothing was published\n")
        return 2
    print_summary(export)
    return 0


def add_foreign(parser: argparse.ArgumentParser) -> None:
    """Adds the options for weights that were trained elsewhere."""
    group = parser.add_argument_group("weights that Taxon did not train")
    group.add_argument("--checkpoint", type=Path, help=".pth, .pt or .safetensors file")
    group.add_argument("--model", help="architecture, for example resnet50, or timm/resnet50 of timm")
    group.add_argument("--labels", type=Path, help="text file, one label a line, in the order of the logits")
    group.add_argument(
        "--data", type=Path, help="labelled folder of validation pictures; if it has splits: val, or else test"
    )
    group.add_argument(
        "--image-size", type=ranges.whole(1, 4096), help="side in pixels; that of the architecture's weights by default"
    )
    group.add_argument("--pixels", type=Path, help="JSON of a manifest's `pixels`; instead of a size")
    group.add_argument("--mean", type=ranges.finite, nargs="+", help="per channel of x / 255")
    group.add_argument("--std", type=ranges.deviation, nargs="+", help="per channel of x / 255")
    group.add_argument(
        "--expected-accuracy", type=ranges.share, help="refuse if the pictures give another: labels may be swapped"
    )


def _from_checkpoint(options: argparse.Namespace) -> Candidate:
    wanted = foreign.Wanted(
        image_size=options.image_size,
        pixels=options.pixels,
        mean=options.mean and tuple(options.mean),
        std=options.std and tuple(options.std),
        expected_accuracy=options.expected_accuracy,
    )
    return foreign.from_checkpoint(options.checkpoint, options.model, options.labels, options.data, wanted)
