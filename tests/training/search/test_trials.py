from types import SimpleNamespace

import pytest

optuna = pytest.importorskip("optuna")

from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from taxon.training.config import Recipe
from taxon.training.errors import TrainingError
from taxon.training.plan import resolved
from taxon.training.search import trials
from taxon.training.search.trials import Search

BASE = resolved(Recipe.model_validate({"model": {"name": "small_cnn"}, "optim": {"epochs": 4, "lr": 0.01}}))
SPACE = {"optim.lr": FloatDistribution(1e-3, 0.1, log=True), "optim.weight_decay": FloatDistribution(0.0, 0.1)}
COUNT = 9


class Training:
    """Stands for `finetune`: accuracy is a function of the settings and the epoch. Resumes as that does: past epochs
    are not asked about again.
    """

    def __init__(self, killed_at=()):
        self.killed_at = set(killed_at)
        self.done = {}
        self.calls = 0

    def __call__(self, recipe, folder, goes_on):
        final = 1.0 - abs(recipe.optim.lr - 0.03) - recipe.optim.weight_decay
        for epoch in range(self.done.get(folder.name, 0) + 1, 5):
            self.calls += 1
            if self.calls in self.killed_at:
                raise KeyboardInterrupt  # leaves the trial running, as a kill does
            self.done[folder.name] = epoch
            if not goes_on({"epoch": epoch, "accuracy": final * epoch / 4}):
                break
        return SimpleNamespace(checkpoint=lambda: SimpleNamespace(metrics={"accuracy": final, "loss": 1 - final}))


def searched(folder, monkeypatch, count=COUNT, **changes):
    training = Training(**changes)
    monkeypatch.setattr(trials, "finetune", training)
    while True:
        search = Search(folder, BASE, SPACE)  # as a new process begins
        try:
            while search.run_next(count):
                pass
        except KeyboardInterrupt:
            continue
        return search, training


def facts(search):
    return [
        (trial.number, trial.state, trial.params, trial.value, trial.intermediate_values, trial.user_attrs)
        for trial in search.trials()
    ]


@pytest.mark.slow
def test_killed_and_resumed_the_trials_are_the_same(tmp_path, monkeypatch):
    whole, training = searched(tmp_path / "whole", monkeypatch)
    killed, resumed = searched(tmp_path / "killed", monkeypatch, killed_at=(1, 7, 8, 25))
    assert facts(killed) == facts(whole)
    assert resumed.calls > training.calls
    assert {trial.state for trial in whole.trials()} == {TrialState.COMPLETE, TrialState.PRUNED}
    assert len({trial.params["optim.lr"] for trial in whole.trials()}) == COUNT
    assert whole.best().value == max(trial.value for trial in whole.trials(TrialState.COMPLETE))


def test_the_first_trial_has_the_settings_of_the_recipe(tmp_path, monkeypatch):
    search, _ = searched(tmp_path / "search", monkeypatch, count=2)
    first, second = search.trials()
    assert first.params == {"optim.lr": 0.01, "optim.weight_decay": 0.01}
    assert second.params != first.params


@pytest.mark.slow
def test_two_processes_never_do_the_same_trial(tmp_path, monkeypatch):
    training = Training()
    monkeypatch.setattr(trials, "finetune", training)
    one, other = (Search(tmp_path / "search", BASE, SPACE) for _ in range(2))
    seen = []

    def joined(recipe, folder, goes_on):
        if not seen:  # while the first trial runs, another process comes
            seen.append(folder.name)
            assert other.run_next(2).number == 1
            assert other.run_next(2) is None  # two are taken, one of them by a living process
        return training(recipe, folder, goes_on)

    monkeypatch.setattr(trials, "finetune", joined)
    assert one.run_next(2).number == 0
    assert one.run_next(2) is None
    assert [trial.state for trial in one.trials()] == [TrialState.COMPLETE] * 2


def test_another_seed_draws_other_trials(tmp_path, monkeypatch):
    search, _ = searched(tmp_path / "one", monkeypatch, count=3)
    monkeypatch.setattr(
        f"{__name__}.BASE", resolved(BASE.model_copy(update={"run": BASE.run.model_copy(update={"seed": 1})}))
    )
    other, _ = searched(tmp_path / "other", monkeypatch, count=3)
    assert facts(search)[0][2] == facts(other)[0][2]
    assert facts(search)[1][2] != facts(other)[1][2]


def test_a_search_of_another_recipe_or_space_is_refused(tmp_path):
    Search(tmp_path / "search", BASE, SPACE)
    changed = BASE.model_copy(update={"optim": BASE.optim.model_copy(update={"epochs": 5})})
    with pytest.raises(TrainingError, match=r"optim\.epochs: 4 -> 5"):
        Search(tmp_path / "search", changed, SPACE)
    with pytest.raises(TrainingError, match="undo: the space"):
        Search(tmp_path / "search", BASE, {"optim.lr": SPACE["optim.lr"]})
    (tmp_path / "search" / "search.json").write_text("{}")
    with pytest.raises(TrainingError, match="is damaged"):
        Search(tmp_path / "search", BASE, SPACE)


def test_a_failing_trial_is_recorded_and_the_others_go_on(tmp_path, monkeypatch):
    training = Training()

    def failing(recipe, folder, goes_on):
        if folder.name == "0001":
            raise TrainingError("the loss became nan")
        return training(recipe, folder, goes_on)

    monkeypatch.setattr(trials, "finetune", failing)
    search = Search(tmp_path / "search", BASE, SPACE)
    while search.run_next(3):
        pass
    assert [trial.state.name for trial in search.trials()] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert search.trials()[1].user_attrs["fault"] == "the loss became nan"


def test_a_search_in_which_all_fails_ends(tmp_path, monkeypatch):
    def failing(*_):
        raise TrainingError("no room")

    monkeypatch.setattr(trials, "finetune", failing)
    search = Search(tmp_path / "search", BASE, SPACE)
    assert [search.run_next(30).number, search.run_next(30).number] == [0, 1]
    with pytest.raises(TrainingError, match="the first 3 trials failed, the last: no room"):
        search.run_next(30)
    with pytest.raises(TrainingError, match="no trial was completed; the last: no room"):
        search.best()
