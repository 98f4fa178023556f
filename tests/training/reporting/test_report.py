import base64
import json
import re
import shutil
import sys
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from taxon.training.commands.train import main
from taxon.training.dataset.slices import Slice
from taxon.training.reporting import pages
from taxon.training.reporting.report import figures_of, model_card
from taxon.training.reporting.report_plots import draw_all, precision_recall, roc
from taxon.training.runs.folder import Run
from tests.training.folders import write_folder, write_picture


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with errors: two pictures lie in the wrong class, and one has a hostile name."""
    root = tmp_path_factory.mktemp("report")
    for split, count in (("train", 20), ("val", 12)):
        write_folder(root / "pictures" / split, count)
    write_picture(root / "pictures" / "val" / "light" / "<b>&wrong.png", 60, 77)
    write_picture(root / "pictures" / "val" / "dark" / "wrong.png", 190, 78, side=16)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        words = ["--data", "pictures", "--model", "small_cnn", "--epochs", "6", "--batch-size", "8", "--out", "run"]
        assert main(words) == 0
    return Run.open(root / "run")


def test_the_figures_are_of_the_best_checkpoint(run):
    figures = json.loads((run.folder / "report" / "metrics.json").read_text())
    assert figures["accuracy"] == run.checkpoint().metrics["accuracy"] == pytest.approx(24 / 26)
    assert figures["confusion"] == [[12, 1], [1, 12]]
    assert figures["epoch"] == run.checkpoint().epoch
    assert figures["slices"] == {}  # a third of 26 samples says nothing


def test_the_page_needs_nothing_beside_it(run):
    page = (run.folder / "report" / "index.html").read_text()
    assert "http" not in page
    assert set(re.findall(r'src="([a-z/:]+)', page)) == {"data:image/png", "data:image/jpeg"}
    assert len(re.findall("<figure>", page)) == 2
    assert page.count("<img") == 7
    assert "name=viewport" in page


def test_the_page_says_first_how_good_the_network_is_and_where_it_errs(run):
    page = (run.folder / "report" / "index.html").read_text()
    lead = page[page.index("<p class=lead>") : page.index("<div class=tiles>")]
    assert "Right on <b>92.3%</b> of 26 validation samples" in lead
    assert "is taken for" in lead


def test_file_names_cannot_write_the_page(run):
    page = (run.folder / "report" / "index.html").read_text()
    assert "&lt;b&gt;&amp;wrong.png" in page
    assert "<b>&wrong" not in page


def test_every_plot_is_a_picture_with_something_on_it(run):
    plots = sorted((run.folder / "report").glob("*.png"))
    assert [plot.stem for plot in plots] == ["confusion", "learning_curves", "precision_recall", "reliability", "roc"]
    for plot in plots:
        assert np.asarray(Image.open(plot).convert("L")).std() > 5


def test_the_model_card_says_what_it_is_for_and_how_good(run):
    card = (run.folder / "report" / "model_card.md").read_text()
    assert "dark, light" in card
    assert "92.31%" in card
    assert run.id in card


def test_slices_have_their_interval():
    found = figures_of([Slice("night", np.arange(10))], np.arange(20) >= 2)
    assert found == {
        "night": {
            "count": 10,
            "accuracy": 0.8,
            "accuracy_low": pytest.approx(0.4902, abs=1e-4),
            "accuracy_high": pytest.approx(0.9433, abs=1e-4),
        }
    }


@pytest.mark.slow
def test_numbers_and_several_labels_get_a_report_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [f"{n % 2 + 0.01 * n},{n},{'yes' if n % 2 else 'no'}" for n in range(60)]
    (tmp_path / "n.csv").write_text("\n".join(["a,b,answer", *rows]))
    assert main(["--data", "n.csv", "--model", "mlp", "--epochs", "2", "--out", "numbers"]) == 0
    assert (tmp_path / "numbers" / "report" / "index.html").exists()
    write_folder(tmp_path, 10)
    lines = [f"{kind}/{n:03}.png,{kind}|both" for kind in ("dark", "light") for n in range(10)]
    (tmp_path / "list.csv").write_text("\n".join(["path,label", *lines]))
    assert main(["--data", "list.csv", "--model", "small_cnn", "--epochs", "2", "--out", "several"]) == 0
    assert not (tmp_path / "several" / "report" / "confusion.png").exists()


def test_tensorboard_by_choice(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "p", 10)
    words = ["--data", "p", "--model", "small_cnn", "--epochs", "1", "--tensorboard", "--no-report", "--out", "run"]
    assert main(words) == 0
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))


@pytest.mark.slow
@pytest.mark.parametrize("class_count", [2, 12, 30, 120])
def test_plots_take_any_number_of_classes_and_any_names(tmp_path, class_count):
    random = np.random.default_rng(0)
    labels = ["_hidden", "a$b猫", *(f"class {n}" * (n % 5) + str(n) for n in range(2, class_count))]
    targets = random.integers(0, class_count, 400)
    scores = random.random((400, class_count), dtype=np.float32)
    history = [
        {"epoch": 1, "phase": "head", "train_loss": 1.0, "val_loss": 1.0, "accuracy": 0.5, "macro_f1": 0.5},
        {"epoch": 2, "phase": "full", "train_loss": 0.9, "val_loss": 0.8, "accuracy": 0.6, "macro_f1": 0.5},
    ]
    names = draw_all(tmp_path, scores / scores.sum(axis=1, keepdims=True), targets, labels, history)
    for name in names:
        assert np.asarray(Image.open(tmp_path / name).convert("L")).std() > 5


def test_curves_of_many_classes_name_the_weakest():
    truth = np.arange(200) % 10
    scores = np.eye(10, dtype=np.float32)[truth]
    scores[truth == 3] = scores[truth == 3][:, ::-1]
    for figure in (roc(scores, truth, "abcdefghij"), precision_recall(scores, truth, "abcdefghij")):
        named = [text.get_text().strip() for text in figure.axes[0].get_legend().get_texts()]
        assert len(named) == 4
        assert named[0].startswith(("d (", "g ("))
        assert named[-1].startswith("mean of 10")


def test_long_tables_unfold():
    parts = pages.environment().get_template("parts.html").module
    page = str(parts.table(["class", "count"], [[f"<{n}>", "1"] for n in range(50)]))
    assert "<summary>30 more</summary>" in page
    assert page.count("<tr>") == 52
    assert "<49>" not in page


def test_a_transparent_picture_is_shown_on_white(tmp_path):
    Image.new("RGBA", (20, 20), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    encoded = base64.b64decode(pages.thumbnail(tmp_path / "clear.png").partition(",")[2])
    assert np.asarray(Image.open(BytesIO(encoded))).min() > 250


def test_a_model_card_of_many_classes_stays_short(run, tmp_path):
    shutil.copytree(run.folder, tmp_path / "large")
    (tmp_path / "large" / "labels.json").write_text(
        json.dumps(["dark", "light", *(f"class {n}" for n in range(2, 1000))])
    )
    figures = json.loads((run.folder / "report" / "metrics.json").read_text())
    card = model_card(Run.open(tmp_path / "large"), run.checkpoint(), figures)
    assert "class 49 and 950 more" in card


def test_without_tensorboard_the_message_says_how_to_install_it(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    write_folder(tmp_path / "p", 10)
    assert main(["--data", "p", "--model", "small_cnn", "--epochs", "1", "--tensorboard", "--out", "run"]) == 2
    assert "pip install -e '.[tensorboard]'" in capfd.readouterr().err
