import numpy as np
import pytest
import torch
from torch import nn

from taxon.bundle import store
from taxon.training import flags
from taxon.training.commands.export import main as export
from taxon.training.commands.fuse import main as fuse
from taxon.training.commands.train import main as train
from taxon.training.config import PrivacyOptions
from taxon.training.errors import TrainingError
from taxon.training.exporting.of_run import from_run
from taxon.training.plan import resolved
from taxon.training.runs.folder import Run
from tests.training.folders import write_folder

pytest.importorskip("opacus")
from opacus.accountants import RDPAccountant
from opacus.optimizers import DPOptimizer

from taxon.training.loop.privacy import PrivateSteps, unguessable

NOISY = ("--dp-noise", "1.5", "--dp-clip", "0.5", "--dp-delta", "1e-3")
HEAD = ("--model", "small_cnn", "--mode", "head", "--epochs", "3", "--batch-size", "32")


def steps(noise=1.5, clip=0.5, count=64, epochs=3):
    options = PrivacyOptions(noise=noise, clip=clip, delta=1e-3)
    return PrivateSteps(options, count=count, batch_size=32, epochs=epochs)


@pytest.fixture
def base(tmp_path, monkeypatch):
    """Pictures, and weights that others were trained on."""
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "pictures", per_class=50)
    write_folder(tmp_path / "public")
    words = ("--data", "public", "--model", "small_cnn", "--epochs", "1", "--batch-size", "8", "--out", "base")
    assert train([*words, "--no-report"]) == 0
    return ("--data", "pictures", "--weights", "base/best.pt", *HEAD)


def test_a_model_says_what_it_tells_of_a_picture(base, tmp_path, monkeypatch, capfd):
    accountant, stepped = RDPAccountant(), DPOptimizer.step

    def counted(self, closure=None):
        accountant.step(noise_multiplier=self.noise_multiplier, sample_rate=self.expected_batch_size / 80)
        return stepped(self, closure)

    monkeypatch.setattr(DPOptimizer, "step", counted)
    assert train([*base, *NOISY, "--out", "run"]) == 0
    run = Run.open(tmp_path / "run")
    privacy = run.checkpoint().privacy
    assert accountant.history == [(1.5, 32 / 80, 6)]
    assert privacy["steps"] == 6
    assert privacy["epsilon"] == pytest.approx(accountant.get_epsilon(1e-3))
    assert f"epsilon {privacy['epsilon']:.2f}" in capfd.readouterr().out
    card = (tmp_path / "run/report/model_card.md").read_text()
    assert f"epsilon {privacy['epsilon']:.2f} at delta 0.001" in card
    assert run.data_digest[:16] not in card
    # What is fitted to training pictures at export would undo it.
    candidate = from_run(tmp_path / "run")
    assert (candidate.training_files, candidate.training_answers) == ((), ())
    assert candidate.data_digest != run.data_digest
    assert candidate.privacy.model_dump() == dict(privacy)


@pytest.mark.slow
def test_a_bundle_holds_no_more_of_training_pictures_than_its_weights(base, tmp_path, capfd):
    assert train([*base, *NOISY, "--no-report", "--out", "run"]) == 0
    words = ("--models", "models", "--name", "toy", "--unknown-coverage", "0.9", "--variants", "int8")
    assert export(["run", *words]) == 0
    assert "there are no training pictures to compare with" in capfd.readouterr().out
    manifest = store.read(tmp_path / "models", "toy", 1).manifest
    run = Run.open(tmp_path / "run")
    assert manifest.provenance.privacy.model_dump() == dict(run.checkpoint().privacy)
    shown = {sample.sha256 for sample in run.samples("val")}
    assert {manifest.files[golden.file] for golden in manifest.golden} <= shown
    text = (tmp_path / "models/toy/1/manifest.json").read_text()
    assert run.data_digest not in text
    assert not [sample for sample in run.samples("train") if sample.sha256 in text]


def test_two_runs_of_one_seed_draw_other_noise(base, tmp_path):
    for name in ("one", "two"):
        assert train([*base, *NOISY, "--no-report", "--out", name]) == 0
    one, two = (Run.open(tmp_path / name).checkpoint().state for name in ("one", "two"))
    differ = [key for key in one if not torch.equal(one[key], two[key])]
    assert differ
    start = Run.open(tmp_path / "base").checkpoint().state
    same = [key for key in one if torch.equal(one[key], start[key])]
    assert set(differ) | set(same) == set(one), "something else than the head was trained"


def test_such_a_run_is_neither_resumed_nor_fused(base, capfd):
    for name in ("one", "two"):
        assert train([*base, *NOISY, "--no-report", "--out", name]) == 0
    assert train(["--resume", "one"]) == 2
    assert "cannot be resumed" in capfd.readouterr().err
    assert fuse(["one", "two", "--method", "ensemble", "--models", "models", "--name", "toy"]) == 2
    assert "trained with --dp-noise" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--mode", "full"), "--mode full"),
        (("--features", "live"), "--features live"),
        (("--balance", "weights"), "--balance weights"),
        (("--clip-norm", "1"), "--dp-clip is its own"),
        (("--l1", "0.1", "--accumulate", "2"), "--accumulate 2, --l1 0.1"),
        (("--dp-delta", "0.02"), "well below"),
        (("--batch-size", "8"), "from 32 to the 80 training samples"),
    ],
)
def test_what_would_break_the_promise_is_refused(base, words, reason, capfd):
    assert train([*base, *NOISY, *words, "--no-report", "--out", "run"]) == 2
    assert reason in capfd.readouterr().err


def test_no_sample_moves_the_weights_by_more_than_the_clip():
    private, head = steps(noise=1e-9), nn.Linear(4, 3)
    before = head.weight.detach().clone(), head.bias.detach().clone()
    optimizer = private.noisy(torch.optim.SGD(head.parameters(), lr=1.0))
    forward = private.per_sample(head)
    inputs = torch.randn(32, 4)
    inputs[0] *= 1e6  # without clipping it alone would decide
    loss = nn.functional.cross_entropy(forward(inputs), torch.arange(32) % 3)
    loss.backward()
    norms = torch.stack([p.grad_sample.reshape(32, -1).norm(dim=1) for p in head.parameters()]).norm(dim=0)
    assert norms[0] > 1e3
    optimizer.step()
    moved = torch.cat([(before[0] - head.weight).flatten(), before[1] - head.bias]).detach()
    gradients = torch.cat([p.grad_sample.reshape(32, -1) for p in head.parameters()], dim=1)
    clipped = gradients * (0.5 / norms).clamp(max=1.0)[:, None]
    assert torch.allclose(moved, clipped.mean(dim=0), atol=1e-5)


def test_the_noise_is_as_large_as_it_says():
    private, head = steps(noise=2.0, clip=0.5), nn.Linear(200, 100, bias=False)
    before = head.weight.detach().clone()
    optimizer = private.noisy(torch.optim.SGD(head.parameters(), lr=1.0))
    private.per_sample(head)(torch.zeros(32, 200)).sum().backward()
    optimizer.step()
    assert float((head.weight.detach() - before).std()) == pytest.approx(2.0 * 0.5 / 32, rel=0.05)


def test_samples_join_batches_by_chance():
    private = steps(count=640)
    drawn = [batch for _ in range(20) for batch in private.batches()]
    assert len(drawn) == 400
    assert all(len(np.unique(batch)) == len(batch) for batch in drawn)
    sizes = np.array([len(batch) for batch in drawn])
    assert sizes.mean() == pytest.approx(32, abs=2)
    assert sizes.var() == pytest.approx(32 * 0.95, rel=0.5)
    assert np.bincount(np.concatenate(drawn), minlength=640).min() > 0


def test_the_generator_follows_from_no_seed():
    first, second = unguessable(), unguessable()
    assert first.initial_seed() == second.initial_seed()
    seeded = torch.Generator().manual_seed(first.initial_seed())
    draws = [torch.rand(1000, generator=generator) for generator in (first, second, seeded)]
    assert all(len(draw.unique()) > 990 and abs(float(draw.mean()) - 0.5) < 0.05 for draw in draws)
    assert not any(bool((draws[a] == draws[b]).sum() > 5) for a, b in ((0, 1), (0, 2), (1, 2)))


def test_a_head_that_mixes_samples_is_refused():
    with pytest.raises(TrainingError, match="cannot be had with this head"):
        steps().per_sample(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)))
    plan = {"model": {"name": "small_cnn", "weights": "none"}, "privacy": {"noise": 1.0}}
    with pytest.raises(TrainingError, match="--mode scratch"):
        resolved(flags.checked(plan))
