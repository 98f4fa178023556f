"""The trials of a search, in SQLite: who does which, when one is given up, and going on after a kill.

A trial is a function of the search's seed, its number and the trials before it. A killed process loses its lock on the
trial's folder; the next process that looks goes on with that trial, whose training resumes with the same bits.
"""

import contextlib
import hashlib
import json
import tomllib
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.pruners import MedianPruner
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from taxon.bundle import atomic_files, folder_lock
from taxon.training import flags
from taxon.training.config import Recipe
from taxon.training.errors import TrainingError
from taxon.training.finetune import finetune
from taxon.training.plan import resolved
from taxon.training.search.space import Space, values_of, with_values

NAME = "search"
WAIT_FOR_DATABASE_S = 120.0
UNPRUNED = 5
"""Trials that run to their end before any is compared with them."""
GIVEN_UP_AFTER = 3
"""Trials that fail before any has succeeded: the recipe is at fault, not the settings."""


class ByNumber(BaseSampler):  # type: ignore[misc] # Optuna may be absent where types are checked
    """Optuna's tree-structured Parzen estimator (Bergstra et al., 2011), with a generator of its own for each trial.

    Args:
        seed: Of the search.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._current: tuple[int, TPESampler] | None = None

    def _drawn(self, *words: object) -> TPESampler:
        digest = hashlib.sha256(" ".join(map(str, (self.seed, *words))).encode()).digest()
        return TPESampler(seed=int.from_bytes(digest[:4], "big"))

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """See `BaseSampler`."""
        self._current = (trial.number, self._drawn(trial.number))
        found: dict[str, BaseDistribution] = self._current[1].infer_relative_search_space(study, trial)
        return found

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """See `BaseSampler`."""
        if self._current is None or self._current[0] != trial.number:
            raise RuntimeError("Optuna asked for values before it asked for their space")
        found: dict[str, Any] = self._current[1].sample_relative(study, trial, search_space)
        return found

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """See `BaseSampler`."""
        return self._drawn(trial.number, param_name).sample_independent(study, trial, param_name, param_distribution)


class Search:
    """One search in a folder, of one or several processes.

    Args:
        folder: Of the search; made if it is not there.
        base: The recipe whose settings vary; resolved, and validated on what the search may see.
        space: What varies.

    Raises:
        TrainingError: The folder holds a search of another recipe or space.
    """

    def __init__(self, folder: Path, base: Recipe, space: Space) -> None:
        self.folder, self.base, self.space = folder, base, space
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        folder.mkdir(parents=True, exist_ok=True)
        with folder_lock.held(folder):
            self._check_same()
            self.study = optuna.create_study(
                storage=optuna.storages.RDBStorage(
                    f"sqlite:///{folder / 'study.db'}",
                    engine_kwargs={"connect_args": {"timeout": WAIT_FOR_DATABASE_S}},
                ),
                study_name=NAME,
                direction="maximize",
                sampler=ByNumber(base.run.seed),
                pruner=MedianPruner(n_startup_trials=UNPRUNED, n_warmup_steps=max(1, base.optim.epochs // 4)),
                load_if_exists=True,
            )
            if not self.trials():
                self.study.enqueue_trial(values_of(base, space))  # the default is the first trial

    def _check_same(self) -> None:
        file = self.folder / "search.json"
        space = {name: json.loads(distribution_to_json(part)) for name, part in sorted(self.space.items())}
        content = {"recipe": flags.to_toml(self.base), "space": space}
        if not file.exists():
            atomic_files.write(file, json.dumps(content, ensure_ascii=False, indent=1))
            return
        try:
            before = json.loads(file.read_text(encoding="utf-8"))
            old = flags.checked(tomllib.loads(before["recipe"]))
            changed = flags.differences(old, self.base)
            changed += [] if before["space"] == space else ["the space"]
        except (ValueError, KeyError, TypeError) as error:
            raise TrainingError(f"{file} is damaged: {error}") from error
        if changed:
            raise TrainingError(
                f"{self.folder} holds a search that differs; choose another --out, or undo: {'; '.join(changed)}"
            )

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """The trials in these states, or all."""
        found: list[FrozenTrial] = self.study.get_trials(deepcopy=False, states=states or None)
        return found

    def best(self) -> FrozenTrial:
        """The completed trial with the highest accuracy, then the lowest loss.

        Raises:
            TrainingError: None was completed.
        """
        completed = self.trials(TrialState.COMPLETE)
        if not completed:
            faults = [trial.user_attrs.get("fault", "") for trial in self.trials(TrialState.FAIL)]
            raise TrainingError(f"no trial was completed{f'; the last: {faults[-1]}' if faults else ''}")
        return max(completed, key=lambda trial: (trial.value, -trial.user_attrs["loss"], -trial.number))

    def run_folder(self, number: int) -> Path:
        """Of a trial's training."""
        return self.folder / "trials" / f"{number:04}"

    def run_next(self, count: int) -> FrozenTrial | None:
        """Does one trial: one that a killed process left, or a new one; None where there are `count`, or they are
        all in other hands.

        Raises:
            TrainingError: The first trials all failed.
            OSError: The disk is full or fails; the trial can be gone on with.
        """
        with ExitStack() as holding:
            trial = self._claim(count, holding)
            if trial is None:
                return None
            self._run(trial)
            failed = self.trials(TrialState.FAIL)
            if len(failed) >= GIVEN_UP_AFTER and len(failed) == len(self._taken()):
                raise TrainingError(
                    f"the first {len(failed)} trials failed, the last: {failed[-1].user_attrs['fault']}"
                )
            return self.trials()[trial.number]

    def _taken(self) -> list[FrozenTrial]:
        return [trial for trial in self.trials() if trial.state != TrialState.WAITING]

    def _claim(self, count: int, holding: ExitStack) -> optuna.Trial | None:
        with folder_lock.held(self.folder):  # one process at a time looks and takes
            for left in self.trials(TrialState.RUNNING):
                place = self.run_folder(left.number)
                place.mkdir(parents=True, exist_ok=True)
                if folder_lock.is_free(place):
                    holding.enter_context(folder_lock.held(place))
                    trial = optuna.Trial(self.study, left._trial_id)  # noqa: SLF001 - the only way to go on with a trial
                    for name, distribution in self.space.items():
                        trial._suggest(name, distribution)  # noqa: SLF001 - what `ask` calls; a kill may have come between
                    return trial
            if len(self._taken()) >= count:
                return None
            trial = self.study.ask(dict(self.space))
            place = self.run_folder(trial.number)
            place.mkdir(parents=True, exist_ok=True)
            holding.enter_context(folder_lock.held(place))
            return trial

    def _run(self, trial: optuna.Trial) -> None:
        folder, epochs = self.run_folder(trial.number), self.base.optim.epochs
        reported = dict(self.trials()[trial.number].intermediate_values)
        pruned = bool(reported) and trial.should_prune()  # killed between the decision and its record

        def goes_on(line: Mapping[str, Any]) -> bool:
            nonlocal pruned
            if line["epoch"] not in reported:
                reported[line["epoch"]] = max([line["accuracy"], *reported.values()])
                trial.report(reported[line["epoch"]], line["epoch"])
            pruned = line["epoch"] < epochs and trial.should_prune()
            return not pruned

        try:
            recipe = resolved(with_values(self.base, trial.params))
            if not pruned:
                with (folder / "log.txt").open("a") as log, contextlib.redirect_stdout(log):
                    run = finetune(recipe, folder, goes_on)
                best = run.checkpoint().metrics
        except TrainingError as error:
            trial.set_user_attr("fault", str(error))
            self.study.tell(trial, state=TrialState.FAIL)
            return
        if pruned:
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            trial.set_user_attr("loss", best["loss"])
            self.study.tell(trial, best["accuracy"])
        for name in ("best.pt", "last.pt"):  # nobody needs them: the best settings are trained again
            (folder / name).unlink(missing_ok=True)
