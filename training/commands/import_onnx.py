"""The command `taxon import-onnx`: an existing ONNX classifier becomes a bundle."""

import argparse
import sys
from pathlib import Path

from taxon import ranges
from taxon.bundle.manifest import BundleError
from taxon.mistaken import in_words
from taxon.training.commands.export_summary import print_summary
from taxon.training.errors import TrainingError
from taxon.training.exporting import bundling, foreign, original
from taxon.training.exporting.options import add_settings, model_name, settings
from taxon.training.exporting.original import OUTPUTS
from taxon.training.exporting.wrapped import write_wrapped


def main(argv: list[str]) -> int:
    """`taxon import-onnx`. Returns 0 if a bundle was published, 2 if not."""
    parser = argparse.ArgumentParser(description="Make a proven bundle of an existing ONNX classifier of pictures.")
    parser.add_argument("onnx", type=Path, help="graph with one input [batch, C, H, W] or [batch, H, W, C]")
    parser.add_argument("--labels", type=Path, required=True, help="text file, one label a line, in class order")
    parser.add_argument("--pixels", type=Path, required=True, help="JSON of a manifest's `pixels`: resize, crop …")
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="labelled folder of validation pictures; if it has splits: val, or else test",
    )
    parser.add_argument("--gives", choices=OUTPUTS, required=True, help="what the graph's output is")
    parser.add_argument(
        "--mean", type=ranges.finite, nargs="+", default=[0.0], help="per channel of x / 255 (default 0)"
    )
    parser.add_argument(
        "--std", type=ranges.deviation, nargs="+", default=[1.0], help="per channel of x / 255 (default 1)"
    )
    parser.add_argument("--expected-accuracy", type=ranges.share, help="refuse if the pictures give another")
    parser.add_argument("--models", type=Path, required=True, help="model repository")
    parser.add_argument("--name", required=True, help="model name")
    add_settings(parser)
    options = parser.parse_args(argv)
    try:
        name, chosen = model_name(options.name, options.onnx), settings(options)
        pixels = foreign.read_pixels(options.pixels)
        graph = original.read(options.onnx, pixels, options.gives)
        candidate = original.candidate(
            graph,
            pixels,
            labels=options.labels,
            folder=options.data,
            mean=options.mean,
            std=options.std,
            expected_accuracy=options.expected_accuracy,
        )
        published = bundling.publish(
            candidate,
            options.models,
            name,
            chosen,
            ladder=(graph.strategy,),
            write_graph=lambda served, shape, path, _: write_wrapped(graph, served, shape, path),
            check_logits=original.check_logits if graph.gives == "logits" else lambda _: None,
        )
    except (TrainingError, BundleError, OSError) as error:
        sys.stderr.write(f"taxon import-onnx: {in_words(error)}\n")
        return 2
    print_summary(published)
    return 0
