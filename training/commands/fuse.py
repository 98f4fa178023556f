"""The command `taxon fuse`: several runs into one classifier."""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from taxon.bundle.manifest import BundleError
from taxon.training.commands.export_summary import print_summary
from taxon.training.errors import TrainingError
from taxon.training.exporting import bundling, fusion
from taxon.training.exporting.options import add_settings, model_name, settings


def main(argv: list[str]) -> int:
    """`taxon fuse`. Returns 0 if a bundle was published, 2 if not."""
    parser = argparse.ArgumentParser(
        description="Make one classifier of several runs on the same data: a soup (averaged weights, each kept only "
        "if validation does not suffer) or an ensemble (averaged scores). It is proven and published like any other."
    )
    parser.add_argument("runs", type=Path, nargs="+", help="folders that `taxon train` wrote, two or more")
    parser.add_argument("--method", choices=("soup", "ensemble"), required=True)
    parser.add_argument("--models", type=Path, required=True, help="model repository")
    parser.add_argument("--name", required=True, help="model name")
    add_settings(parser)
    options = parser.parse_args(argv)
    console = Console()
    try:
        name, chosen = model_name(options.name, Path(options.name)), settings(options)
        ingredients = fusion.gather(options.runs)
        for ingredient in ingredients:
            console.print(f"{ingredient.candidate.run_id}: accuracy {ingredient.accuracy:.2%}", highlight=False)
        candidate = fusion.soup(ingredients) if options.method == "soup" else fusion.ensemble(ingredients)
        console.print(f"{options.method} of {len(candidate.parents)}: {', '.join(candidate.parents)}", highlight=False)
        published = bundling.publish(candidate, options.models, name, chosen)
    except (TrainingError, BundleError, OSError) as error:
        sys.stderr.write(f"taxon fuse: {error}\n")
        return 2
    print_summary(published)
    return 0
