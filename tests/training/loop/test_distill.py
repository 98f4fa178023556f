import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from taxon.training.commands.train import main
from taxon.training.config import DistillOptions
from taxon.training.errors import TrainingError
from taxon.training.exporting.of_run import from_run
from taxon.training.loop import distill
from taxon.training.loop.distill import Teacher
from taxon.training.network.model import Preprocessing
from taxon.training.runs.checkpoint import Checkpoint
from taxon.training.runs.folder import Run
from tests.training.exporting.test_examples import write_table
from tests.training.folders import write_folder
from tests.training.test_resume import kill_at, last_state, same_state

BASE = ["--epochs", "6", "--batch-size", "8", "--no-report", "--threads", "1", "--flip", "0"]
CLASSES = {"dark": 60, "light": 190}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with `pictures` and a run `big` that tells dark from light."""
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "pictures", 30)
    assert main(["--data", "pictures", "--model", "small_cnn", "--lr", "0.01", *BASE, "--out", "big"]) == 0
    assert Run.open(tmp_path / "big").checkpoint().metrics["accuracy"] == 1.0
    return tmp_path


def student(*words, out="small", data="pictures", code=0):
    # fmt: off
    assert main(["--data", data, "--model", "small_cnn", *BASE, "--lr", "0.01", "--teacher", "big", "--out", out,
                 *map(str, words)]) == code
    # fmt: on
    return None if code else Run.open(Path(out))


def shuffle_labels(source, target):
    """Half of the pictures of each training folder into the other: labels that say nothing. Validation stays true."""
    for label, other in zip(CLASSES, reversed(CLASSES), strict=True):
        for path in sorted((source / label).iterdir()):
            number = int(path.stem)
            wrong = number % 2 == 1
            split, folder = ("val", label) if number % 5 == 0 else ("train", other if wrong else label)
            (target / split / folder).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target / split / folder / f"{label}-{path.name}")


def test_a_student_follows_its_teacher_where_the_labels_say_nothing(here):
    """With the whole weight on the teacher the labels are not used: the control, without a teacher, cannot learn."""
    shuffle_labels(here / "pictures", here / "shuffled")
    taught = student("--distill-weight", 1, data="shuffled").metrics()[-1]["accuracy"]
    words = ["--data", "shuffled", "--model", "small_cnn", *BASE, "--lr", "0.01", "--out", "alone"]
    assert main(words) == 0
    alone = Run.open(Path("alone")).metrics()[-1]["accuracy"]
    assert taught == 1.0
    assert alone < 0.9


def test_the_run_and_the_bundle_say_who_taught(here):
    run, teacher = student(), Run.open(Path("big"))
    assert run.facts["parents"] == [teacher.id]
    assert f'teacher = "{here / "big"}"' in (run.folder / "recipe.toml").read_text()
    candidate = from_run(run.folder)
    assert candidate.parents == (teacher.id,)
    assert len(candidate.recipe["distill"]["teacher_sha256"]) == 64


@pytest.mark.slow
def test_a_killed_distillation_ends_with_the_same_bits(here):
    words = ["--save-seconds", 0, "--policy", "trivialaugment", "--mixup", 0.2, "--accumulate", 2]
    whole = student(*words, out="whole")
    call = ["--data", "pictures", "--model", "small_cnn", *BASE, "--lr", "0.01", "--teacher", "big", "--out", "killed"]
    code = "import sys; from taxon.training.commands.train import main; sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen([sys.executable, "-c", code, *call, *map(str, words)])
    kill_at(process, here / "killed", 5)
    assert process.returncode == -signal.SIGKILL
    again = student(*words, out="killed")
    assert same_state(last_state(whole), last_state(again))


def test_another_teacher_is_another_run(here, capfd):
    run = student()
    content = Run.open(Path("big")).checkpoint()
    content.save(here / "big" / "best.pt")
    state = {name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in content.state.items()}
    Checkpoint(**{**{k: getattr(content, k) for k in content.__dataclass_fields__}, "state": state}).save(
        here / "big" / "best.pt"
    )
    student(code=2)
    assert "distill.teacher_sha256" in capfd.readouterr().err
    assert main(["--resume", str(run.folder)]) == 2
    assert "is not the one that the recipe names" in capfd.readouterr().err


def test_the_plan_names_the_teacher(here, capfd):
    student("--dry-run", "--distill-weight", 0.5, out="big")
    printed = capfd.readouterr().out
    assert "teacher: run " + Run.open(Path("big")).id in printed
    assert "0.5 of the loss, at temperature 4" in printed
    assert 'features = "live"' in printed


@pytest.mark.parametrize(
    ("classes", "complaint"),
    [
        ({"dark": 60, "grey": 128}, "does not know ['grey'] and knows ['light'], which the data has not"),
        ({"dark": 60, "grey": 128, "light": 190}, "does not know ['grey']: it must have the same labels"),
    ],
)
def test_other_labels_are_refused(here, capfd, classes, complaint):
    write_folder(here / "others", 6, classes)
    student(data="others", code=2)
    assert complaint in capfd.readouterr().err
    assert not (here / "small").exists()


def test_several_labels_are_refused(here, capfd):
    lines = [f"{kind}/{n:03}.png,{kind}|both" for kind in ("dark", "light") for n in range(4)]
    (here / "pictures" / "list.csv").write_text("\n".join(["path,label", *lines]))
    student(data="pictures/list.csv", code=2)
    assert "one label per picture" in capfd.readouterr().err


def test_other_kinds_of_input_are_refused(here, capfd):
    student("--color", "grayscale", code=2)
    assert "takes rgb pictures: use the same --color" in capfd.readouterr().err
    write_table(here / "houses.csv")
    (here / "houses.csv").write_text(
        (here / "houses.csv").read_text().replace("small", "dark").replace("large", "light")
    )
    student("--model", "mlp", data="houses.csv", code=2)
    assert "takes other input: rgb pictures" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--teacher", "nowhere"], "not the folder of a run"),
        (["--teacher", "begun"], "has not finished an epoch"),
        (["--distill-weight", "0.5"], "no --teacher"),
        (["--teacher", "big", "--distill-weight", "1.5"], "distill.weight"),
        (["--teacher", "big", "--distill-temperature", "0"], "distill.temperature"),
    ],
)
def test_teachers_that_cannot_be_are_refused(here, capfd, words, complaint):
    shutil.copytree(here / "big", here / "begun")
    (here / "begun" / "best.pt").unlink()
    assert main(["--data", "pictures", "--model", "small_cnn", *BASE, *words, "--out", "small"]) == 2
    assert complaint in capfd.readouterr().err


def test_a_teacher_of_another_size_scale_and_order_says_what_it_says_alone(here):
    """Through the student's normalisation, resized, with the labels in another order."""
    run = Run.open(Path("big"))
    own = run.checkpoint()
    pictures = torch.rand(5, 3, 8, 8)
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (own.mean, own.std))
    network = own.build_model()
    with torch.no_grad():
        expected = network((pictures - mean) / std)[:, [1, 0]]
        larger = functional.interpolate(pictures, (12, 12), mode="bilinear", antialias=True)
        resized = functional.interpolate(larger, (8, 8), mode="bilinear", antialias=True)
        expected_resized = network((resized - mean) / std)[:, [1, 0]]
    preprocessing = Preprocessing(own.pixels, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    teacher = Teacher(DistillOptions(teacher=run.folder), ("light", "dark"), "single_label", preprocessing)
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    torch.testing.assert_close(teacher.answer((pictures - mean) / std), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(teacher.answer((larger - mean) / std), expected_resized, atol=1e-3, rtol=1e-3)


def test_the_teacher_never_changes(here):
    run = Run.open(Path("big"))
    own = run.checkpoint()
    preprocessing = Preprocessing(own.pixels, own.mean, own.std)
    teacher = Teacher(DistillOptions(teacher=run.folder), own.labels, "single_label", preprocessing)
    logits = nn.Parameter(torch.zeros(4, 2))
    loss = teacher.joins(torch.tensor(1.0), logits, torch.randn(4, 3, 8, 8), torch.autocast("cpu", enabled=False))
    loss.backward()
    assert logits.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in teacher.network.parameters())
    assert same_state(dict(own.state), teacher.network.state_dict())


def test_the_divergence_is_hintons():
    """At T, times T squared: its gradient hardly depends on T, and for large T it is that of matching logits."""
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 1.0, 3.0]])
    taught = torch.tensor([[1.0, 0.0, 0.0], [0.5, 1.0, 2.0]])
    softened = (taught / 3).softmax(1)
    expected = 9 * (softened * (softened.log() - (logits / 3).log_softmax(1))).sum(1).mean()
    torch.testing.assert_close(distill.softened_divergence(logits, taught, 3.0), expected)
    assert distill.softened_divergence(taught, taught, 3.0).item() == pytest.approx(0.0, abs=1e-6)
    given = logits.clone().requires_grad_()
    distill.softened_divergence(given, taught, 1000.0).backward()
    centred = (logits - logits.mean(1, keepdim=True)) - (taught - taught.mean(1, keepdim=True))
    torch.testing.assert_close(given.grad, centred / 3 / 2, atol=1e-2, rtol=1e-2)


def test_a_digest_that_does_not_match_is_refused(here):
    options = DistillOptions(teacher=here / "big", teacher_sha256="0" * 64)
    with pytest.raises(TrainingError, match="is not the one that the recipe names"):
        distill.resolved(options)
