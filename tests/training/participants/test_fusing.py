import dataclasses
import re

import pytest

from taxon.bundle import store
from taxon.training.commands import fuse as command
from taxon.training.errors import TrainingError
from taxon.training.exporting import parity
from taxon.training.participants import fusing, gain
from taxon.training.participants.outliers import Rules
from taxon.training.runs.checkpoint import Checkpoint
from tests.training.participants.contributors import SPEC, make_base, moved, saved
from tests.training.toy_classifier import write_pictures

LAX = Rules(largest_norm=1e9, least_cosine=-1.0)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A base, and a folder of pictures that it answers rightly."""
    root, base = tmp_path_factory.mktemp("participants"), make_base(3)
    files = write_pictures(root / "all", 60)
    logits = parity.reference_logits(base.build_model(), files, SPEC, base.mean, base.std)
    gap = logits[:, 0] - logits[:, 1]
    shift = float(sorted(gap)[30])  # half of each
    head = next(key for key in reversed(base.state) if key.endswith("bias"))
    state = {**base.state, head: base.state[head] - base.state[head].new_tensor([shift, 0.0])}
    base = dataclasses.replace(base, state=state)
    for file, one in zip(files, gap, strict=True):
        folder = root / "held_out" / ("cat" if one > shift else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        file.rename(folder / file.name)
    return base, root / "held_out"


def harm(base, seed, count):
    """The head turned round: cats are dogs, by an update that is no larger than it must be."""
    state = dict(base.state)
    for key in [key for key in state if key.endswith(("weight", "bias"))][-2:]:
        state[key] = -state[key]
    return dataclasses.replace(moved(base, seed, size=0.01, count=count), state=state)


def test_a_contribution_that_does_harm_is_found_by_held_out_samples_alone(pictures, tmp_path):
    base, folder = pictures
    words = [saved(moved(base, n, size=0.01), tmp_path, f"{n}.pt") for n in (1, 2)]
    words.append(saved(harm(base, 3, 5000), tmp_path, "harm.pt"))
    samples = gain.held_out(folder, base)
    fused = fusing.fuse(base, words, LAX, samples)
    assert [file for file, _ in fused.refused] == [words[2]]
    assert "without it" in fused.refused[0][1]
    assert fused.accuracy == pytest.approx(1.0, abs=0.05)
    assert fusing.fuse(base, words, LAX).refused == []


def test_an_average_that_is_worse_than_the_base_is_not_written(pictures, tmp_path, capsys):
    base, folder = pictures
    word, start = saved(harm(base, 3, 10), tmp_path, "harm.pt"), saved(base, tmp_path, "base.pt")
    out = tmp_path / "out.pt"
    words = ["--base", start, "--contributions", word, "--out", str(out), "--data", str(folder)]
    assert command.main(words) == 2
    assert "nothing was written" in capsys.readouterr().err
    assert not out.exists()


def test_nothing_left_names_every_reason(pictures, tmp_path):
    base, _ = pictures
    with pytest.raises(TrainingError, match=r"no contribution is left: .*gone.pt: .*not exist; .*b.pt: .*unchanged"):
        fusing.fuse(base, [str(tmp_path / "gone.pt"), saved(base, tmp_path, "b.pt")])


def test_a_refused_one_is_named_and_the_rest_is_the_next_base(pictures, tmp_path, capsys):
    base, _ = pictures
    words = [saved(moved(base, n), tmp_path, f"{n}.pt") for n in (1, 2)]
    poisoned = saved(moved(base, 4, size=-1000.0), tmp_path, "poisoned.pt")
    call = ["--base", saved(base, tmp_path, "base.pt"), "--out", str(tmp_path / "next.pt"), "--contributions"]
    assert command.main([*call, *words, poisoned]) == 1
    captured = capsys.readouterr()
    assert f"{poisoned} is refused: its update has the norm" in captured.err
    assert "the average of 2" in captured.out
    call[1], call[3] = call[3], str(tmp_path / "last.pt")
    assert command.main([*call, saved(moved(base, 5), tmp_path, "5.pt")]) == 0


@pytest.mark.slow
def test_the_command_leaves_out_the_poisoned_one_says_so_and_publishes_the_rest(pictures, tmp_path, capsys):
    base, folder = pictures
    words = [saved(moved(base, n, size=0.01, count=100 * n), tmp_path, f"{n}.pt") for n in (1, 2, 3)]
    words.append(saved(moved(base, 4, size=-10.0), tmp_path, "poisoned.pt"))
    start, out = saved(base, tmp_path, "base.pt"), tmp_path / "out.pt"
    call = ["--base", start, "--contributions", *words, "--out", str(out), "--data", str(folder)]
    assert command.main([*call, "--models", str(tmp_path / "models"), "--name", "pets"]) == 1
    captured = capsys.readouterr()
    assert f"{words[3]} is refused: its update has the norm" in captured.err
    assert "the average of 3" in captured.out
    fused = Checkpoint.load(out)
    assert fused.sample_count == 600
    assert fused.run_id.startswith("fedavg-")
    provenance = store.read(tmp_path / "models", "pets", 1).manifest.provenance
    assert provenance.parents == ("base", "run-1", "run-2", "run-3")
    assert provenance.recipe["samples"] == {"run-1": 100, "run-2": 200, "run-3": 300}


@pytest.mark.parametrize(
    "words",
    [
        ["--base", "b", "--contributions", "c"],
        ["--contributions", "c", "--out", "o"],
        ["run", "--base", "b", "--contributions", "c", "--out", "o"],
        ["--base", "b", "--contributions", "c", "--out", "o", "--models", "m", "--name", "n"],
        ["run", "other", "--method", "soup"],
    ],
)
def test_half_a_command_is_refused(words, capsys):
    with pytest.raises(SystemExit):
        command.main(words)
    assert re.search("error: .*(--contributions|--models needs)", capsys.readouterr().err)
