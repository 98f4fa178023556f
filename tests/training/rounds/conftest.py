"""A tiny product: pictures of two shades, a first version that is served, and a store of what people say of them."""

import shutil

import pytest

from taxon.bundle import version_labels
from taxon.feedback import review
from taxon.feedback.records import Answer, Entry, Said
from taxon.feedback.store import Store
from taxon.training import flags
from taxon.training.exporting import bundling, graph
from taxon.training.exporting.bundling import Settings
from taxon.training.exporting.of_run import from_run
from taxon.training.finetune import finetune
from taxon.training.plan import resolved
from taxon.training.rounds.round import Order
from tests.training.folders import write_folder, write_picture

SHADES = {"dark": 60, "grey": 125, "light": 190}


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """`data` with splits, `runs/first` and `models/shades/1`."""
    folder = tmp_path_factory.mktemp("rounds")
    for number, (split, count) in enumerate((("train", 8), ("val", 6), ("test", 30))):
        for index, (label, level) in enumerate([*SHADES.items()][::2]):
            for picture in range(count):
                seed = 10_000 * number + 1000 * index + picture
                write_picture(folder / "data" / split / label / f"{picture:03}.png", level, seed)
    recipe = resolved(
        flags.checked(
            {
                "data": {"source": str(folder / "data")},
                "model": {"name": "small_cnn"},
                "optim": {"epochs": 2, "batch_size": 8, "lr": 0.003, "warmup_epochs": 0.0},
                "run": {"report": False},
                "machine": {"cache_folder": folder / "cache", "device": "cpu"},
            }
        )
    )
    run = finetune(recipe, folder / "runs" / "first")
    bundling.publish(
        from_run(run.folder), folder / "models", "shades", Settings(calibration=False), ladder=graph.LADDER[:1]
    )
    version_labels.write(folder / "models", "shades", version_labels.STABLE, 1)
    return folder


@pytest.fixture
def product(template, tmp_path):
    """A copy whose repository may change."""
    shutil.copytree(template / "models", tmp_path / "models")
    return tmp_path


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "store")
    yield made
    made.close()


@pytest.fixture
def order(product, template):
    return Order(
        "shades",
        product / "models",
        template / "runs",
        product / "versions",
        product / "rounds",
        changes={"machine": {"cache_folder": str(product / "cache")}},
        settings=Settings(calibration=False),
    )


def picture(tmp_path, level, seed):
    return write_picture(tmp_path / f"{level}-{seed}.png", level, 100_000 + seed).read_bytes()


def say(store, content, label, who="ann", answered="dark", proposed=(), request_id=None):
    """Somebody says what a picture shows. Returns its case."""
    request_id = request_id or f"id-{hash((content, who))}"
    answer = Answer(request_id, "shades", 1, "fp32", (answered,), 0.8, False, None)
    labels = (label,) if label else ()
    store.add([Entry(content, answer, "feedback", Said(who, labels, proposed, "train", "CC0-1.0", ""))])
    return next(case for case in review.cases(store, pending=False) if case.answer.request_id == request_id)


def accepted(store, tmp_path, count, label="light", start=0, **more):
    """So many pictures of a shade, accepted under a label."""
    found = []
    for number in range(start, start + count):
        case = say(store, picture(tmp_path, SHADES.get(label, 125), number), label, **more)
        review.decide(store, case, "accept", "rex")
        found.append(case)
    return found


__all__ = ["accepted", "picture", "say", "write_folder"]
