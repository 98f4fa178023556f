"""What does transfer give, and which way to fine-tune? Head, last-n, full, LP-FT and scratch at equal budget.

    python -m benchmarks.bench_transfer --weights FILE --cats-dogs FOLDER --cifar10 FOLDER --out FILE [--quick]

`FILE` of `--weights` holds ImageNet weights of `mobilenet_v2`; `cats_dogs/<class>/` is not split, `cifar10/` has
`train/<class>/` and `test/<class>/`. In a row of the table every mode sees the same training pictures, so many times:
`epochs` of them in batches of `batch_size`, with the product's default optimizer, schedule and rates of
the mode, and a quarter of an epoch to warm up.

Held out are 150 pictures of each class of cats and dogs, and 100 of each class of CIFAR-10's official test set, the
same in all cells; what looks like one of them to the data doctor trains nowhere. No epoch is chosen: the weights are
those after the last, so the few validation pictures, which `taxon train` wants, decide nothing. The seed of a cell
chooses its training pictures, the head's first weights, their order and flips.

Each cell is written when it is finished, and a cell in the file is not computed again. Times are of the CPU, not of
the clock. The last line is one JSON object.
"""

import argparse
import contextlib
import io
import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.conditions import conditions
from taxon.training.commands.train import main as train
from taxon.training.dataset import data
from taxon.training.dataset.data import Sample
from taxon.training.dataset.doctor import diagnose, grouped_samples
from taxon.training.dataset.pictures import decode_all
from taxon.training.loop import metrics
from taxon.training.loop.augment import normalised
from taxon.training.loop.batches import LabelledArrays, targets_of
from taxon.training.loop.evaluate import Answers, answer
from taxon.training.loop.machine import Machine
from taxon.training.runs.checkpoint import Checkpoint
from taxon.training.runs.folder import Run

MODES = {
    "scratch": ["--mode", "scratch"],
    "head": ["--mode", "head"],
    "last-n": ["--mode", "last-n", "--last", "4"],
    "lp-ft": ["--mode", "lp-ft"],
    "full": ["--mode", "full"],
    "lp-ft, frozen bn": ["--mode", "lp-ft", "--freeze-bn"],
    "full, frozen bn": ["--mode", "full", "--freeze-bn"],
}
VALIDATING = 2
"""Pictures of each class that `taxon train` validates on; nothing is chosen by them."""
HELD_OUT = {"cats and dogs": 150, "cifar-10": 100}
"""Of each class."""
FREE = 1000
"""Pictures of each class among which the seeds choose."""
OTHER = 4711
"""Seed of the choice of held-out pictures."""


@dataclass(frozen=True)
class Row:
    """One line of the table: every mode at one budget."""

    data: str
    per_class: int
    """Training pictures."""
    epochs: int
    batch_size: int
    side: int


ROWS = [
    Row("cats and dogs", 5, 30, 10, 128),
    Row("cats and dogs", 20, 10, 20, 128),
    Row("cifar-10", 5, 10, 25, 96),
    Row("cats and dogs", 100, 4, 20, 128),
    Row("cifar-10", 20, 5, 25, 96),
    Row("cifar-10", 100, 2, 25, 96),
    Row("cats and dogs", 380, 2, 20, 128),
    Row("cifar-10", 200, 2, 25, 96),
]
"""By what they cost."""


class Pool:
    """The pictures of a data set: those that are only asked about, and those that may train."""

    def __init__(self, name: str, folder: Path, held_out: int, free: int = FREE) -> None:
        found, random = data.scan(folder), np.random.default_rng(OTHER)
        self.labels = found.labels
        self.held_out = some_of_each(found.split("test") or found.samples, held_out, random)
        kept = {sample.path for sample in self.held_out}
        free = some_of_each((s for s in found.samples if s.split != "test" and s.path not in kept), free, random)
        looked_at = diagnose(replace(found, samples=(*self.held_out, *free)))
        samples = grouped_samples(looked_at.facts, looked_at.fingerprints)
        alike = {sample.group for sample in samples if sample.path in kept}
        self.free = [sample for sample in samples if sample.group not in alike]
        print(f"{name}: {len(self.held_out)} held out, {len(self.free)} of {len(free)} others not like them")

    def write(self, folder: Path, per_class: int, seed: int) -> None:
        """A labelled folder of links, with three splits."""
        chosen = some_of_each(self.free, per_class + VALIDATING, np.random.default_rng(seed))
        counts = Counter(sample.label for sample in chosen)
        assert set(counts.values()) == {per_class + VALIDATING}, counts
        for split, samples in (("test", self.held_out), ("train", chosen)):
            seen = Counter[int]()
            for sample in samples:
                validates = split == "train" and seen[sample.label] < VALIDATING
                place = folder / ("val" if validates else split) / self.labels[sample.label]
                place.mkdir(parents=True, exist_ok=True)
                (place / sample.path.name).symlink_to(sample.path.resolve())
                seen[sample.label] += 1


def some_of_each(samples: Iterable[Sample], per_class: int, random: np.random.Generator) -> list[Sample]:
    """At most so many of each class, at random."""
    ordered = sorted(samples, key=lambda sample: sample.path)
    chosen, counts = [], Counter[int]()
    for number in random.permutation(len(ordered)):
        label = ordered[number].label
        if counts[label] < per_class:
            chosen.append(ordered[number])
            counts[label] += 1
    return chosen


def cells(rows: list[Row], modes: list[str], seeds: list[int]) -> Iterator[tuple[Row, str, int]]:
    """Row by row, mode by mode: a table that is cut off lacks rows and modes, not seeds."""
    for row in rows:
        for mode in modes:
            for seed in seeds:
                yield row, mode, seed


def measured(row: Row, mode: str, seed: int, source: Path, weights: Path, work: Path) -> dict[str, object]:
    """Trains once and asks about the held-out pictures."""
    started = time.process_time()
    with tempfile.TemporaryDirectory(dir=work) as folder:
        words = ["--data", source, "--model", "mobilenet_v2", *MODES[mode], "--image-size", row.side]
        words += ["--weights", "none" if mode == "scratch" else weights, "--seed", seed, "--epochs", row.epochs]
        words += ["--batch-size", row.batch_size, "--evaluate-every", row.epochs, "--no-report", "--threads", 1]
        words += ["--warmup-epochs", 0.25]
        words += ["--cache-folder", work / "cache", "--save-seconds", 1e6, "--out", f"{folder}/run"]
        with contextlib.redirect_stdout(io.StringIO()):
            assert train([str(word) for word in words]) == 0
        trained = time.process_time() - started
        accuracy, count = held_out_accuracy(Run.open(Path(folder, "run")), work / "cache")
    return {"accuracy": accuracy, "held_out": count, "cpu_seconds": round(trained, 1)}


def held_out_accuracy(run: Run, cache: Path) -> tuple[float, int]:
    """Of the weights after the last epoch, on the run's test split; and how many pictures that has."""
    answers = held_out_answers(run, run.last_path, cache)
    return metrics.accuracy(answers.scores, answers.truth, answers.task), len(answers.truth)


def held_out_answers(run: Run, weights: Path, cache: Path) -> Answers:
    """Of a checkpoint of a run, on the run's test split."""
    last = Checkpoint.load(weights)
    assert last.pixels is not None
    arrays, samples, faults = decode_all(run.samples("test"), last.pixels, cache, 2**34)
    assert not faults
    network = last.build_model().to(memory_format=torch.channels_last)
    return answer(
        network,
        LabelledArrays(arrays, targets_of(samples, len(run.labels), last.task)),
        lambda pictures: normalised(pictures, last.mean, last.std),
        Machine(torch.device("cpu")),
        50,
    )


def table(found: list[dict[str, object]]) -> list[dict[str, object]]:
    """Mean and range over the seeds, by row and mode."""
    lines: dict[str, dict[str, object]] = {}
    for cell in found:
        row = Row(**cell["row"])
        line = lines.setdefault(str(row), {**asdict(row), "held_out": cell["held_out"]})
        line.setdefault(cell["mode"], []).append(cell["accuracy"])
    for line in lines.values():
        for mode in MODES:
            if accuracies := line.get(mode):
                line[mode] = {
                    "mean": round(100 * statistics.mean(accuracies), 1),
                    "range": [round(100 * edge(accuracies), 1) for edge in (min, max)],
                    "seeds": len(accuracies),
                }
    return list(lines.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--cats-dogs", type=Path, required=True)
    parser.add_argument("--cifar10", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/transfer"), help="decoded pictures, features, links")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=[*MODES][:5])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--quick", action="store_true", help="5 pictures of each class, one seed, two epochs")
    options = parser.parse_args()
    rows, seeds = ROWS, options.seeds
    if options.quick:
        rows = [Row(row.data, row.per_class, 2, row.batch_size, row.side) for row in ROWS if row.per_class == 5]
        seeds = seeds[:1]
    options.work.mkdir(parents=True, exist_ok=True)
    folders = {"cats and dogs": options.cats_dogs, "cifar-10": options.cifar10}
    pools: dict[str, Pool] = {}
    found = json.loads(options.out.read_text())["cells"] if options.out.exists() else []
    done = {(str(Row(**cell["row"])), cell["mode"], cell["seed"]) for cell in found}
    for row, mode, seed in cells(rows, options.modes, seeds):
        if (str(row), mode, seed) in done:
            continue
        source = options.work / f"{row.data.replace(' ', '-')}-{row.per_class}-{seed}"
        if not source.exists():
            if row.data not in pools:
                pools[row.data] = Pool(row.data, folders[row.data], HELD_OUT[row.data])
            pools[row.data].write(source, row.per_class, seed)
        figures = measured(row, mode, seed, source, options.weights, options.work)
        found.append({"row": asdict(row), "mode": mode, "seed": seed, **figures})
        result = {"benchmark": "transfer", "table": table(found), "conditions": conditions(), "cells": found}
        options.out.write_text(json.dumps(result, indent=1))
        print(f"{row.data} {row.per_class} {mode} {seed}: {figures['accuracy']:.1%}", flush=True)
    print(json.dumps({"benchmark": "transfer", "table": table(found)}))


if __name__ == "__main__":
    main()
