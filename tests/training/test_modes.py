"""What trains and what does not, proven on the weights of finished runs."""

from pathlib import Path

import pytest
import torch

from taxon.training.commands.train import main
from taxon.training.dataset import pictures
from taxon.training.errors import TrainingError
from taxon.training.loop import features
from taxon.training.network import model, stages
from taxon.training.runs.folder import Run
from tests.training.folders import write_folder

SMALL = ["--model", "resnet18", "--image-size", "32", "--epochs", "2", "--batch-size", "8", "--no-report"]


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder with pictures and `weights.pth` for resnet18, whose normalisation has seen something."""
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "pictures", 12, side=32)
    torch.manual_seed(1)
    network = model.build("resnet18", 2)
    network(torch.rand(8, 3, 32, 32))
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    return tmp_path


def train(here: Path, *words: object, weights: str = "weights.pth") -> tuple[Run, set[str]]:
    """The run, and which stages' parameters or statistics it changed."""
    words = ["--data", "pictures", *SMALL, "--weights", weights, "--out", "run", *words]
    assert main([str(word) for word in words]) == 0
    run = Run.open(here / "run")
    before = torch.load(here / "weights.pth", weights_only=True)
    after = torch.load(run.last_path, weights_only=True)["state"]
    return run, {key.partition(".")[0] for key in before if not torch.equal(before[key], after[key])}


@pytest.mark.parametrize("kind", ["cached", "live"])
def test_head_leaves_the_backbone_alone_to_the_last_bit_of_its_statistics(here, kind):
    run, changed = train(here, "--mode", "head", "--features", kind)
    assert changed == {"fc"}
    stored = run.checkpoint().build_model()
    original = model.build("resnet18", 2, weights=str(here / "weights.pth"))
    assert features.backbone_digest(stored, "fc") == features.backbone_digest(original, "fc")


@pytest.mark.slow
def test_last_n_trains_the_last_stages(here):
    assert train(here, "--mode", "last-n", "--last", 1)[1] == {"layer4", "fc"}


@pytest.mark.slow
def test_full_trains_everything(here):
    assert train(here, "--mode", "full")[1] == {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"}


@pytest.mark.slow
def test_hybrid_keeps_resets_and_tunes_stages_by_name(here):
    words = ["--mode", "hybrid", "--frozen", "conv1", "layer1", "--reset", "layer4", "--lr", "1e-7"]
    run, changed = train(here, *words)
    assert changed == {"layer2", "layer3", "layer4", "fc"}
    before = torch.load(here / "weights.pth", weights_only=True)
    after = dict(run.checkpoint().state)
    moved = {key: float((before[key] - after[key]).abs().max()) for key in before if key.endswith("conv1.weight")}
    assert moved["layer3.0.conv1.weight"] < 1e-4
    assert moved["layer4.0.conv1.weight"] > 1e-2


@pytest.mark.slow
def test_with_weights_the_head_goes_first_and_everything_follows(here):
    run, changed = train(here)
    assert [line["phase"] for line in run.metrics()] == ["head", "full"]
    assert "conv1" in changed


@pytest.mark.slow
def test_scratch_ignores_weights(here):
    _, changed = train(here, "--mode", "scratch")
    assert "conv1" in changed


def test_features_are_computed_once(here):
    train(here, "--mode", "head")
    files = sorted((here / "runs" / ".cache").glob("features-*.npy"))
    times = [file.stat().st_mtime_ns for file in files]
    train(here, "--mode", "head", "--lr", "0.01", "--out", "second")
    assert len(files) == 2
    assert sorted((here / "runs" / ".cache").glob("features-*.npy")) == files
    assert [file.stat().st_mtime_ns for file in files] == times


@pytest.mark.slow
def test_other_weights_or_pictures_get_other_features(here):
    train(here, "--mode", "head")
    torch.save(model.build("resnet18", 2).state_dict(), here / "other.pth")
    train(here, "--mode", "head", "--out", "second", weights="other.pth")
    assert len(list((here / "runs" / ".cache").glob("features-*.npy"))) == 4


@pytest.mark.slow
def test_what_a_release_decoded_otherwise_is_decoded_and_computed_anew(here, monkeypatch):
    train(here, "--mode", "head")
    monkeypatch.setattr(pictures, "CACHE_FORMAT", "another")
    train(here, "--mode", "head", "--out", "second")
    assert len(list((here / "runs" / ".cache").glob("pictures-*.npy"))) == 4
    assert len(list((here / "runs" / ".cache").glob("features-*.npy"))) == 4


@pytest.mark.slow
def test_a_network_that_computes_behind_its_head_is_not_cached():
    example = torch.rand(2, 3, 64, 64)
    assert not features.cacheable(model.build("squeezenet1_1", 2), "classifier.1", example)
    assert features.cacheable(model.build("vgg11", 2), "classifier.6", example)
    loaded = model.load("vgg11", 2, head="mlp:8")
    assert features.cacheable(loaded.network, loaded.head, example)


def test_stages_of_a_sequence_are_its_parts_and_normalisation_belongs_to_the_layer_before():
    network = model.build("vgg11_bn", 2)
    names = list(stages.stages(network, "classifier.6"))
    assert names[:2] == ["features.0", "features.4"]
    assert names[-3:] == ["classifier.0", "classifier.3", "classifier.6"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--mode", "last-n", "--last", "99"], "--last 99 is too many"),
        (["--mode", "hybrid", "--frozen", "layer9"], "did you mean 'layer"),
        (["--mode", "hybrid", "--frozen", "fc"], "cannot be frozen"),
        (["--mode", "hybrid", "--frozen", "conv1", "--reset", "conv1"], "both frozen and reset"),
        (["--mode", "lp-ft", "--epochs", "1"], "none is left for the rest"),
    ],
)
def test_modes_that_do_not_fit_are_refused(here, capfd, words, message):
    assert main(["--data", "pictures", *SMALL, "--weights", "weights.pth", *words]) == 2
    assert message in capfd.readouterr().err


def test_an_unknown_stage_list_names_those_that_exist():
    with pytest.raises(TrainingError, match=r"there are \['a', 'b'\]"):
        stages.trainable_stages("hybrid", ["a", "b"], frozen=["zzzz"])


def test_the_head_of_a_network_of_numbers_trains_alone(tmp_path, monkeypatch):
    """On cached features, though there is no crop to take them from."""
    monkeypatch.chdir(tmp_path)
    rows = "\n".join(f"{number},{-number},{'low' if number < 20 else 'high'}" for number in range(40))
    (tmp_path / "numbers.csv").write_text(f"a,b,answer\n{rows}\n")
    words = ["--data", "numbers.csv", "--model", "mlp", "--epochs", "1", "--batch-size", "8", "--no-report"]
    assert main([*words, "--out", "first"]) == 0
    assert main([*words, "--weights", "first/best.pt", "--mode", "head", "--out", "second"]) == 0
    before, after = (Run.open(tmp_path / name).checkpoint().state for name in ("first", "second"))
    assert {key for key in before if not torch.equal(before[key], after[key])} == {"fc.weight", "fc.bias"}


def statistics_moved(here: Path, run: Run) -> set[str]:
    before = torch.load(here / "weights.pth", weights_only=True)
    after = torch.load(run.last_path, weights_only=True)["state"]
    return {key.partition(".")[0] for key in before if "running" in key and not torch.equal(before[key], after[key])}


@pytest.mark.parametrize(
    "mode", ["full", *(pytest.param(mode, marks=pytest.mark.slow) for mode in ("lp-ft", "last-n"))]
)
def test_frozen_batch_normalisation_keeps_its_statistics_and_trains_its_scale(here, mode):
    run, _ = train(here, "--mode", mode, "--freeze-bn")
    assert statistics_moved(here, run) == set()
    before = torch.load(here / "weights.pth", weights_only=True)
    after = torch.load(run.last_path, weights_only=True)["state"]
    for key in ("layer4.1.bn2.weight", "layer4.1.bn2.bias", "layer4.1.conv2.weight"):
        assert not torch.equal(before[key], after[key]), key


@pytest.mark.slow
def test_without_it_the_statistics_follow_the_pictures(here):
    assert statistics_moved(here, train(here, "--mode", "full")[0]) >= {"bn1", "layer1", "layer4"}


@pytest.mark.slow
def test_a_stage_that_is_reset_takes_its_own_statistics(here):
    run, _ = train(here, "--mode", "hybrid", "--reset", "layer4", "--freeze-bn")
    assert statistics_moved(here, run) == {"layer4"}


@pytest.mark.slow
def test_frozen_statistics_allow_parts_of_one_sample(here):
    train(here, "--mode", "full", "--freeze-bn", "--accumulate", 8)


def test_what_has_no_statistics_cannot_keep_them(here, capfd):
    words = ["--data", "pictures", *SMALL, "--freeze-bn"]
    assert main([*words, "--weights", "none"]) == 2
    assert "there are none" in capfd.readouterr().err
    torch.save(model.build("squeezenet1_1", 2).state_dict(), here / "plain.pth")
    assert main([*words, "--model", "squeezenet1_1", "--weights", "plain.pth", "--mode", "full"]) == 2
    assert "squeezenet1_1 has no batch normalisation: leave out --freeze-bn" in capfd.readouterr().err


def with_other_statistics(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same answers in evaluation mode, from statistics and scales that no batch has: as merging batch normalisation
    into convolutions leaves them, or taking it out again from an 8-bit file.
    """
    changed = {key: value.clone() for key, value in state.items()}
    for name in [key.removesuffix(".running_var") for key in state if key.endswith(".running_var")]:
        mean, var, scale, bias = (state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
        slope = scale / (var + 1e-5).sqrt()
        changed[f"{name}.running_mean"].zero_()
        changed[f"{name}.running_var"].zero_()
        changed[f"{name}.weight"] = slope * 1e-5**0.5
        changed[f"{name}.bias"] = bias - slope * mean
    return changed


@pytest.mark.parametrize("mode", [pytest.param("full", marks=pytest.mark.slow), "lp-ft"])
def test_batch_normalisation_that_breaks_in_training_mode_is_said_in_log_and_report(here, capfd, mode):
    own = ["--data", "pictures", "--model", "small_cnn", "--epochs", "4", "--batch-size", "8"]
    assert main([*own, "--no-report", "--out", "first"]) == 0
    state = torch.load("first/best.pt", weights_only=True)["state"]
    torch.save(state, "fitting.pth")
    torch.save(with_other_statistics(state), "breaking.pth")
    capfd.readouterr()
    said, shown = {}, {}
    for name, more in (("fitting", []), ("breaking", []), ("breaking", ["--freeze-bn"])):
        words = [*own, "--mode", mode, "--weights", f"{name}.pth", *more, "--out", f"{name}{len(more)}"]
        assert main(words) == 0
        before_anything_trains, _, after = capfd.readouterr().out.partition("epoch 1/")
        said[name, *more] = before_anything_trains.count("batch normalisation breaks these weights")
        assert "batch normalisation breaks" not in after
        folder = here / f"{name}{len(more)}"
        shown[name, *more] = [
            "batch normalisation breaks these weights" in (folder / "report" / file).read_text()
            for file in ("index.html", "model_card.md")
        ]
    assert said == {("fitting",): 0, ("breaking",): 1, ("breaking", "--freeze-bn"): 0}
    assert shown == {key: [bool(count)] * 2 for key, count in said.items()}
