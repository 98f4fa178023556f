"""The command `taxon search`: a recipe in, better settings out, or the word that there are none."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from taxon import extras, ranges
from taxon.picture_files import pasted
from taxon.training import flags
from taxon.training.config import Recipe
from taxon.training.errors import TrainingError
from taxon.training.loop.prepare import find_data, prepare
from taxon.training.plan import check_task, resolved

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from taxon.training.search.trials import Search

TRIALS, SEEDS = 30, 3
HELD_OUT = {"val": "train", "test": "val"}
"""What trials validate on, by what the recipe validates on: never the same samples."""


def main(argv: list[str]) -> int:
    """`taxon search`: 0 when done, 2 when it cannot be done as asked, 130 when interrupted."""
    parser = argparse.ArgumentParser(
        description="Look for better settings of a training: trials over a space, given up early where they lag. The "
        "best is trained again with new seeds, beside the default, on the whole training split. The same command goes "
        "on after a kill; in a second terminal it joins in."
    )
    parser.add_argument("recipe", help=f"TOML file, or one of: {', '.join(flags.recipe_names())}")
    parser.add_argument("--set", metavar="SECTION.KEY=VALUE", action="append", default=[], help="as for `taxon train`")
    parser.add_argument("--data", metavar="SOURCE", help="as for `taxon train`; over the recipe's")
    parser.add_argument(
        "--space",
        metavar="FILE",
        type=Path,
        help="TOML file with a recipe's sections and keys; [0.0, 0.1] is a choice, {low=1e-4, high=1e-2, log=true} a "
        "range; by default rates, decay and augmentation, as the recipe's mode has use for them",
    )
    parser.add_argument("--out", metavar="FOLDER", type=Path, help="of the search (default: searches/RECIPE)")
    parser.add_argument(
        "--trials", type=ranges.whole(1, 10**6), default=TRIALS, help=f"in all, over all processes (default: {TRIALS})"
    )
    parser.add_argument(
        "--seeds",
        type=ranges.whole(2, 1000),
        default=SEEDS,
        help=f"with which the best trial and the default are trained again (default: {SEEDS})",
    )
    options = parser.parse_args(argv)
    folder = options.out or Path("searches", Path(options.recipe).stem)
    try:
        _search(options, folder)
    except TrainingError as error:
        sys.stderr.write(f"taxon search: {error}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"taxon search: {error.filename or folder}: {error.strerror or error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write(f"taxon search: interrupted; the same command goes on in {pasted(folder)}\n")
        return 130
    return 0


def _search(options: argparse.Namespace, folder: Path) -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise TrainingError("a search is not for torchrun: start the command several times with the same --out")
    try:
        import optuna  # noqa: F401 - is it there?
    except ImportError as error:
        raise TrainingError(f"it needs the package optuna ({error}): {extras.install('search')}") from error
    from taxon.training.search import space as spaces
    from taxon.training.search.trials import Search

    values = flags.read_toml(options.recipe)
    for assignment in options.set:
        flags.assign(values, assignment)
    if options.data is not None:
        values.setdefault("data", {})["source"] = options.data
    given = flags.checked(values)
    base = resolved(given)
    if base.privacy.noise:
        raise TrainingError("each trial would tell of the training pictures anew: search without --dp-noise, on others")
    if base.data.validate_on not in HELD_OUT:
        raise TrainingError("the search itself leaves the validation split alone: set data.validate_on to val or test")
    space = spaces.read_space(options.space, given) if options.space else spaces.default_space(base)
    on_trial = spaces.with_values(base, {"data.validate_on": HELD_OUT[base.data.validate_on], "run.report": False})

    find_data(base.data, base.model)  # what only the last trainings would find wrong would be found after all trials
    found = find_data(on_trial.data, on_trial.model)  # what is wrong with the data is no fault of a trial
    check_task(base, found.data.task)
    prepare(found, on_trial.machine)
    search = Search(folder, on_trial, space)
    console = Console()
    while (trial := search.run_next(options.trials)) is not None:
        console.print(_line(trial), highlight=False, markup=False, soft_wrap=True)
    _conclude(search, base, options.seeds, console)


def _line(trial: "FrozenTrial") -> str:
    values = "  ".join(
        f"{name.partition('.')[2]} {value:.4g}" if isinstance(value, float) else f"{name.partition('.')[2]} {value}"
        for name, value in trial.params.items()
    )
    result = trial.user_attrs.get("fault") or f"{trial.value or 0.0:.2%} after {len(trial.intermediate_values)} epochs"
    return f"trial {trial.number}: {trial.state.name.lower()}, {result}  {values}"


def _conclude(search: "Search", base: Recipe, seed_count: int, console: Console) -> None:
    from optuna.trial import TrialState

    from taxon.bundle import folder_lock
    from taxon.training.search import belief as beliefs
    from taxon.training.search import page
    from taxon.training.search.space import values_of, with_values

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    if running := search.trials(TrialState.RUNNING):
        say(f"{len(running)} trials run in other processes: the last to end concludes")
        return
    best, quiet = search.best(), with_values(base, {"run.report": False})
    belief, result = None, base
    if best.params != values_of(search.base, search.space):
        seeds = [base.run.seed + 1 + number for number in range(seed_count)]
        final = search.folder / "final"
        final.mkdir(exist_ok=True)
        with folder_lock.held(final):
            arms = [("default", {}), (f"trial-{best.number}", best.params)]
            default, better = beliefs.train_again(quiet, arms, seeds, final, say)
        belief = beliefs.compare(default, better)
        if belief.won:
            result = with_values(base, best.params)
    page.write_result(search, result, belief)
    say(beliefs.sentence(belief))
    say(f"page: {search.folder / 'index.html'}")
    say(f"next: taxon train --recipe {pasted(search.folder / 'result.toml')}")
