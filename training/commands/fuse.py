"""The command `taxon fuse`: several runs on the same data, or what several participants send, into one classifier."""

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from taxon import ranges
from taxon.bundle.manifest import BundleError
from taxon.mistaken import in_words
from taxon.training.commands.export_summary import print_summary
from taxon.training.errors import TrainingError
from taxon.training.exporting import bundling, fusion
from taxon.training.exporting.options import add_settings, model_name, settings
from taxon.training.participants import fusing, gain
from taxon.training.participants.fusing import Fused
from taxon.training.participants.outliers import Rules
from taxon.training.runs.checkpoint import Checkpoint

USUAL = Rules()


def main(argv: list[str]) -> int:
    """`taxon fuse`. Returns 0 if it is done, 1 if a contribution was left out, 2 if nothing was written."""
    parser = argparse.ArgumentParser(
        description="Make one classifier of several runs on the same data: a soup (averaged weights, each kept only "
        "if validation does not suffer) or an ensemble (averaged scores). Or, with --contributions, average what "
        "participants have trained from one base on data of their own, weighted by their samples. It is proven and "
        "published like any other."
    )
    parser.add_argument("runs", type=Path, nargs="*", help="folders that `taxon train` wrote, two or more")
    parser.add_argument("--method", choices=("soup", "ensemble"), help="for runs")
    parser.add_argument("--models", type=Path, help="model repository; with --contributions it may be left out")
    parser.add_argument("--name", help="model name")
    group = parser.add_argument_group("participants")
    group.add_argument("--base", type=Path, help="checkpoint that all started from: a file, or the folder of a run")
    group.add_argument(
        "--contributions",
        nargs="+",
        default=[],
        metavar="FILE[=COUNT]",
        help="checkpoints (best.pt) of the participants' runs; COUNT stands for the samples that the file says",
    )
    group.add_argument("--out", type=Path, help="checkpoint to write: the next base")
    group.add_argument(
        "--data",
        type=Path,
        help="labelled folder, or CSV file of numbers, that nobody trained on; of one with splits: test, or else val. "
        "A contribution that does harm there is refused, and --models is proven on it",
    )
    group.add_argument(
        "--largest-norm",
        type=ranges.number(1.0, 1e9),
        default=USUAL.largest_norm,
        metavar="TIMES",
        help="of an update, in medians of the others' (default %(default)g)",
    )
    group.add_argument(
        "--least-cosine",
        type=ranges.number(-1.0, 1.0),
        default=USUAL.least_cosine,
        metavar="COSINE",
        help="of an update with the mean direction of the others (default %(default)g; -1 allows all)",
    )
    add_settings(parser)
    options = parser.parse_args(argv)
    together = bool(options.base or options.contributions)
    if together and (options.runs or options.method or not (options.base and options.contributions and options.out)):
        parser.error("--contributions needs --base and --out, and takes neither runs nor --method")
    if together and options.models and not (options.name and options.data):
        parser.error("--models needs --name and, to prove the bundle on, --data")
    if not together and not (options.runs and options.method and options.models and options.name):
        parser.error("give runs with --method, --models and --name; or --base, --contributions and --out")
    try:
        return _fuse_contributions(options) if together else _fuse_runs(options)
    except (TrainingError, BundleError, OSError) as error:
        sys.stderr.write(f"taxon fuse: {in_words(error)}\n")
        return 2


def _fuse_runs(options: argparse.Namespace) -> int:
    console = Console()
    name, chosen = model_name(options.name, Path(options.name)), settings(options)
    ingredients = fusion.gather(options.runs)
    for ingredient in ingredients:
        console.print(f"{ingredient.candidate.run_id}: accuracy {ingredient.accuracy:.2%}", highlight=False)
    candidate = fusion.soup(ingredients) if options.method == "soup" else fusion.ensemble(ingredients)
    console.print(f"{options.method} of {len(candidate.parents)}: {', '.join(candidate.parents)}", highlight=False)
    print_summary(bundling.publish(candidate, options.models, name, chosen))
    return 0


def _fuse_contributions(options: argparse.Namespace) -> int:
    name, chosen = options.name and model_name(options.name, Path(options.name)), settings(options)
    base = Checkpoint.load(options.base / "best.pt" if options.base.is_dir() else options.base)
    samples = gain.held_out(options.data, base) if options.data else None
    rules = Rules(options.largest_norm, options.least_cosine)
    fused = fusing.fuse(base, options.contributions, rules, samples)
    Console().print(to_table(fused))
    for file, reason in fused.refused:
        sys.stderr.write(f"taxon fuse: {file} is refused: {reason}\n")
    fused.checkpoint.save(options.out)
    said = f"{options.out}: the average of {len(fused.kept)}"
    if fused.accuracy is not None:
        said += f", {fused.accuracy:.2%} of the held-out samples right (the base {fused.accuracy_before:.2%})"
    Console().print(said, highlight=False, markup=False, soft_wrap=True)
    if options.models and samples:
        candidate = fusing.candidate(fused, base, samples)
        print_summary(bundling.publish(candidate, options.models, name, chosen))
    return 1 if fused.refused else 0


def to_table(fused: Fused) -> Table:
    """What was found of the contributions, for people."""
    table = Table("contribution", "samples", "weight", "norm of the update", "cosine with the others")
    for verdict in fused.verdicts:
        one = verdict.contribution
        weight = "refused" if verdict.reason else f"{one.count / fused.checkpoint.sample_count:.1%}"
        cosine = "" if verdict.cosine is None else f"{verdict.cosine:.2f}"
        table.add_row(escape(one.name), f"{one.count:,}", weight, f"{verdict.norm:.3g}", cosine)
    for word, _ in fused.unread:
        table.add_row(escape(word), "", "refused")
    return table
