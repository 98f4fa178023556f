"""What a search found, as one HTML page, a recipe and JSON."""

import json
from dataclasses import asdict
from typing import Any

import matplotlib as mpl
import optuna
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from optuna.trial import FrozenTrial, TrialState

from taxon import __version__
from taxon.bundle import atomic_files
from taxon.training import flags
from taxon.training.config import Recipe
from taxon.training.reporting import pages
from taxon.training.reporting.report_plots import ACCENT, INK, QUIET, STYLE
from taxon.training.search.belief import Belief, sentence
from taxon.training.search.trials import Search

FEWEST_FOR_IMPORTANCE = 8
"""Completed trials."""


def write_result(search: Search, result: Recipe, belief: Belief | None) -> None:
    """Writes `result.toml`, `result.json` and `index.html` into the search's folder.

    Args:
        search: Finished.
        result: The recipe to train with: the best trial's if it won, else the default.
        belief: The comparison; None where the default was the best trial.

    Raises:
        OSError: Not writable.
    """
    best = search.best()
    weights = importances(search)
    verdict = sentence(belief)
    head = f"# Made by taxon search {__version__} from {len(search.trials())} trials.\n# {verdict}\n\n"
    atomic_files.write(search.folder / "result.toml", head + flags.to_toml(result))
    content = {
        "verdict": verdict,
        "won": belief is not None and belief.won,
        "belief": belief and asdict(belief),
        "best_trial": best.number,
        "importances": weights,
        "trials": [trial_facts(trial) for trial in search.trials()],
    }
    atomic_files.write(search.folder / "result.json", json.dumps(content, ensure_ascii=False, indent=1))
    with mpl.rc_context(STYLE):
        history(search.trials()).savefig(search.folder / "history.png")
    names = [*search.space]
    page = pages.render(
        "search.html",
        title=f"Search in {search.folder.resolve().name}",
        verdict=verdict,
        belief=belief,
        best=best,
        states={state.name.lower(): len(search.trials(state)) for state in TrialState if search.trials(state)},
        names=names,
        trials=[_row(trial, names) for trial in sorted(search.trials(), key=_rank)],
        importances=[[name, f"{weight:.0%}"] for name, weight in weights.items()],
        faults=[(trial.number, trial.user_attrs["fault"]) for trial in search.trials(TrialState.FAIL)],
        history=search.folder / "history.png",
        recipe=flags.to_toml(result),
    )
    atomic_files.write(search.folder / "index.html", page)


def importances(search: Search) -> dict[str, float]:
    """Each option's share of what varies between completed trials, by fANOVA (Hutter et al., 2014); none of few."""
    if len(search.trials(TrialState.COMPLETE)) < FEWEST_FOR_IMPORTANCE or len(search.space) < 2:
        return {}
    try:
        found = optuna.importance.get_param_importances(
            search.study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0)
        )
    except (RuntimeError, ValueError):
        return {}  # all trials alike
    return {name: float(weight) for name, weight in found.items()}


def trial_facts(trial: FrozenTrial) -> dict[str, Any]:
    """A trial for machines."""
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "accuracy": trial.value,
        "values": trial.params,
        "epochs": len(trial.intermediate_values),
        **trial.user_attrs,
    }


def _rank(trial: FrozenTrial) -> tuple[bool, float, int]:
    return trial.state != TrialState.COMPLETE, -(trial.value or 0.0), trial.number


def _row(trial: FrozenTrial, names: list[str]) -> list[str]:
    values = [trial.params.get(name, "") for name in names]
    shown = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in values]
    accuracy = "" if trial.value is None else f"{trial.value:.2%}"
    return [str(trial.number), trial.state.name.lower(), accuracy, str(len(trial.intermediate_values)), *shown]


def history(trials: list[FrozenTrial]) -> Figure:
    """Accuracy by trial, the best so far as a line; given-up trials in a quiet colour."""
    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    axes = figure.subplots()
    best, line = float("-inf"), []
    for state, color, label in ((TrialState.COMPLETE, ACCENT, "completed"), (TrialState.PRUNED, QUIET, "given up")):
        points = [(trial.number, trial.value) for trial in trials if trial.state == state and trial.value is not None]
        if points:
            numbers, values = zip(*points, strict=True)
            axes.plot(numbers, values, "o", color=color, label=label, markersize=4)
    for trial in trials:
        if trial.state == TrialState.COMPLETE:
            best = max(best, trial.value or 0.0)
            line.append((trial.number, best))
    numbers, values = zip(*line, strict=True)
    axes.step(numbers, values, color=INK, where="post", linewidth=1, label="best so far")
    axes.set(xlabel="trial (0 has the default settings)", ylabel="accuracy")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)
    return figure
