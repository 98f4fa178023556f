"""Whole rounds on pictures of shades: promoted, refused, nothing to do, killed at every step."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from taxon import cli
from taxon.bundle import store as bundles
from taxon.bundle import version_labels
from taxon.feedback import review
from taxon.feedback.forgetting import forget
from taxon.feedback.rules import Rules
from taxon.training.rounds import merge as merging
from taxon.training.rounds import round as rounds
from taxon.training.rounds import versions
from taxon.training.rounds.merge import Wanted
from taxon.training.rounds.round import hold
from taxon.training.rounds.state import AnotherRoundError, State, alone
from taxon.training.runs.folder import Run
from tests.training.rounds.conftest import accepted, picture, say


@pytest.fixture(autouse=True)
def _one_way_to_export(monkeypatch):
    """The first strategy, which small networks pass."""
    publish = rounds.bundling.publish
    ladder = rounds.bundling.graph.LADDER[:1]
    monkeypatch.setattr(rounds.bundling, "publish", lambda *words: publish(*words, ladder=ladder))


def held(order, store):
    with alone(order.rounds):
        return hold(order, store)


def stable(order):
    return version_labels.read(order.models, "shades").get("stable")


def test_what_people_say_becomes_the_next_version_with_a_new_class_and_who_was_in_it_is_known(
    order, store, template, tmp_path
):
    """Then there is nothing new; and who leaves later is told the version."""
    accepted(store, tmp_path, 40, "grey", proposed=("grey",))
    accepted(store, tmp_path, 10, "light")
    longer = replace(order, changes={**order.changes, "optim": {"epochs": 12}})
    state = held(longer, store)
    assert (state.outcome, state.reasons, state.version) == ("promoted", [], 2)
    assert state.new_labels == ["grey"]
    assert stable(order) == 2
    made = bundles.read(order.models, "shades", 2).manifest
    assert made.labels == ("dark", "grey", "light")
    assert made.provenance.parents == (bundles.read(order.models, "shades", 1).manifest.provenance.run_id,)
    classes = {test["label"]: test for test in state.verdict["classes"]}
    assert classes["grey"]["before"] is None
    assert classes["grey"]["after"] > 0.8
    page = (order.rounds / "1" / "report.html").read_text()
    assert "Version 2 took the place of version 1" in page
    again = held(longer, store)
    assert (again.outcome, again.reasons) == ("nothing", ["nothing new to learn from"])
    assert [entry.name for entry in order.rounds.iterdir() if entry.name.isdecimal()] == ["1"]
    gone = forget(store, "ann", [order.runs, order.rounds], order.models)
    assert gone.versions == ["shades/2"]


@pytest.mark.slow
def test_bad_data_is_refused_and_not_tried_again(order, store, tmp_path):
    """Sixty dark pictures that somebody calls light, believed. The last epoch counts: the first would be chosen."""
    for number in range(60):
        review.decide(store, say(store, picture(tmp_path, 60, number), "light", who="eve"), "accept", "rex")
    longer = replace(order, changes={**order.changes, "optim": {"epochs": 12, "evaluate_every": 12}})
    state = held(longer, store)
    assert (state.outcome, state.version) == ("refused", None)
    assert any("held-out" in reason for reason in state.reasons)
    assert any("class 'dark' is worse beyond chance" in reason for reason in state.reasons)
    assert stable(order) == 1
    assert bundles.versions(order.models, "shades") == [1]
    assert held(longer, store).reasons == ["nothing new since round 1, which was refused"]
    assert versions.numbers(order.data) == [1]
    assert store.exports() == [order.data / "1"]
    review.undo(store, "rex", decided_by="rex")
    assert held(longer, store).reasons == ["nothing new to learn from: 60 pending"]


def test_too_little_is_nothing_to_do(order, store, tmp_path):
    accepted(store, tmp_path, 3)
    state = held(replace(order, at_least=10), store)
    assert state.outcome == "nothing"
    assert "3 pictures are new or changed" in state.reasons[0]
    assert versions.numbers(order.data) == []
    assert store.exports() == []


def test_two_at_once_are_one(order, store, tmp_path, capsys):
    words = ["round", "shades", "--models", order.models, "--store", store.place, "--runs", order.runs]
    words = [*map(str, words), "--data", str(order.data), "--rounds", str(order.rounds)]
    with alone(order.rounds):
        with pytest.raises(AnotherRoundError), alone(order.rounds):
            pass
        assert cli.main(words) == 75
        assert "another round is under way" in capsys.readouterr().err
        assert cli.main([*words, "--quiet"]) == 75
        assert capsys.readouterr().err == ""
    assert cli.main([*words, "--quiet", "--no-suspects"]) == 0
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "")
    assert "nothing new to learn from" in (order.rounds / "log.txt").read_text()
    assert cli.main([*words, "--abandon"]) == 0
    assert "no round is under way" in capsys.readouterr().out


class KilledError(BaseException):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("step", range(5))
def test_a_round_that_is_killed_goes_on_where_it_was(order, store, tmp_path, monkeypatch, step):
    """Killed before each note of its progress; feedback that comes meanwhile is the next round's."""
    accepted(store, tmp_path, 12)
    say(store, picture(tmp_path, 190, 77), "light")
    order = replace(order, rules=Rules(accept_agreed=1), wanted=Wanted(recent_share=0.2))
    keep, counted = rounds.keep, []

    def killed(folder, state):
        counted.append(state.number)
        if len(counted) == step + 2:
            raise KilledError
        keep(folder, state)

    with monkeypatch.context() as patch:
        patch.setattr(rounds, "keep", killed)
        try:
            held(order, store)
        except KilledError:
            accepted(store, tmp_path, 5, start=500)
    state = held(order, store)
    first = rounds.held(order.rounds)[0]
    assert first.outcome == "promoted"
    assert versions.numbers(order.data)[0] == 1
    rows = {row.picture for row in versions.rows(order.data / "1")} - {""}
    late = {case.picture for case in review.cases(store, pending=False)}
    assert len(rows) + len(versions.recent(order.data / "1")) == (18 if step == 0 and state.number == 1 else 13)
    assert rows <= late
    runs_published = [bundles.read(order.models, "shades", version).manifest.provenance.run_id for version in (1, 2)]
    assert len(set(runs_published)) == 2
    assert stable(order) == bundles.versions(order.models, "shades")[-1]


@pytest.mark.slow
def test_who_leaves_while_a_round_is_interrupted_is_not_in_what_comes_of_it(order, store, tmp_path, monkeypatch):
    accepted(store, tmp_path, 12)
    eve = accepted(store, tmp_path, 6, start=200, who="eve")
    exported = rounds._exported

    def killed(*_):
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(rounds, "_exported", killed)
        with pytest.raises(KilledError):
            held(order, store)
    forget(store, "eve", [], None)
    assert rounds._exported is exported
    held(order, store)
    run = Run.open(order.rounds / "1" / "run")
    assert not {sample.path.stem for sample in run.samples("train")} & {case.picture for case in eve}


@pytest.mark.parametrize("labelled", [True, False])
def test_a_candidate_that_is_not_promoted_answers_nobody(order, monkeypatch, labelled):
    """Neither where no version is labelled, so that the newest would, nor if it was killed before it was labelled."""
    if not labelled:
        version_labels.remove(order.models, "shades", "stable")
    candidate = bundles.read(order.models, "shades", 1)
    state = State("id", 1, "shades", "now", 1, candidate.manifest.provenance.run_id, run_id="another")

    def killed(*_):
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(rounds.promotions, "promote", killed)
        with pytest.raises(KilledError):
            rounds._promoted(order, candidate, state)
    assert bundles.versions(order.models, "shades") == [1, 2]
    assert version_labels.named(order.models, "shades") == ("shades", 1)


def test_a_candidate_is_not_published_beside_another_default(order):
    """That somebody published while the round was trained."""
    version_labels.remove(order.models, "shades", "stable")
    candidate = bundles.read(order.models, "shades", 1)
    state = State("id", 1, "shades", "now", 1, candidate.manifest.provenance.run_id, run_id="another")
    rounds.copied(candidate, order.models, "shades", None)
    rounds._promoted(order, candidate, state)
    assert (state.version, state.reasons) == (None, ["the default of shades went from 1 to 2 meanwhile: compare again"])
    assert bundles.versions(order.models, "shades") == [1, 2]
    assert version_labels.read(order.models, "shades") == {}


KILLED_MERGE = """
import os, signal, sys
from pathlib import Path
from taxon.training.rounds import versions
versions.write_about = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
from taxon import cli
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_killed_for_good_by_the_system_it_goes_on(order, store, template, tmp_path):
    accepted(store, tmp_path, 8)
    words = [
        "round",
        "shades",
        "--models",
        order.models,
        "--store",
        store.place,
        "--runs",
        order.runs,
        "--data",
        order.data,
    ]
    words = [
        *map(str, words),
        "--rounds",
        str(order.rounds),
        "--set",
        f"machine.cache_folder={tmp_path / 'cache'}",
        "--json",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    killed = subprocess.run([sys.executable, "-c", KILLED_MERGE, *words], env=environment, capture_output=True)
    assert killed.returncode == -9
    done = subprocess.run([sys.executable, "-m", "taxon.cli", *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    state = json.loads(done.stdout.splitlines()[-1])
    assert (state["number"], state["outcome"], state["data_version"]) == (1, "promoted", 1)
    assert merging.versions.numbers(order.data) == [1]
