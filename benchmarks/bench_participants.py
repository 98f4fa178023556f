"""Three participants with different class mixes: is the fused model better than each alone, and is a fourth who
poisons it kept out?

    python -m benchmarks.bench_participants --cifar cifar10 --weights mobilenet_v2-imagenet.pth \\
        --work build/participants [--flower fused.pt] [--out FILE]

`--cifar`: CIFAR-10 as folders `train/<class>` and `test/<class>`, of which 370 and 100 files of each class are used.
Each participant has nine tenths of the pictures of some classes and a twentieth of those of the others. All train the
head of a MobileNetV2 with published weights, at 96x96, from a base that saw ten pictures of each class: alone, all
pictures in one place, one exchange of files, five exchanges of a fifth of the epochs. The fourth has its labels shifted
by one class, or sends noise of a thousand times the norm, or NaN. A quarter of the test pictures are the held-out ones
of whoever fuses, half of them judge. `--flower`: what examples/flower made of the same lists and base. The last line is
one JSON object.
"""

import argparse
import csv
import dataclasses
import json
from pathlib import Path

import torch

from benchmarks.conditions import conditions
from taxon.training.commands import fuse, train
from taxon.training.exporting import parity
from taxon.training.exporting.candidate import target_matrix
from taxon.training.exporting.judge import Watched
from taxon.training.network.model import head_path
from taxon.training.participants import gain
from taxon.training.runs.checkpoint import Checkpoint

EPOCHS, ROUNDS = 10, 5
BASE, POOL, SHIFTED = 10, 300, 60
OWNERS = {"a": range(4), "b": range(4, 7), "c": range(7, 10)}
RECIPE = """
[data]
image_size = 96

[model]
name = "mobilenet_v2"
mode = "head"

[optim]
epochs = {epochs}
batch_size = 32
optimizer = "adamw"
lr = 0.001

[run]
report = false

[machine]
threads = 1
cache_folder = "{cache}"
"""


def write_lists(cifar: Path, work: Path) -> None:
    """A CSV list of each party's pictures."""
    lists: dict[str, list[tuple[str, str]]] = {name: [] for name in ("base", *OWNERS, "d", "central")}
    halves: dict[str, list[tuple[str, str]]] = {"held_out": [], "test": []}
    classes = sorted(folder.name for folder in (cifar / "train").iterdir())
    for index, label in enumerate(classes):
        files = sorted((cifar / "train" / label).iterdir())[: BASE + POOL + SHIFTED]
        names = [f"train/{label}/{file.name}" for file in files]
        lists["base"] += [(name, label) for name in names[:BASE]]
        pool, few = names[BASE : BASE + POOL], POOL // 20
        rest = {other: [pool.pop() for _ in range(few)] for other, own in OWNERS.items() if index not in own}
        for owner, own in OWNERS.items():
            lists[owner] += [(name, label) for name in (pool if index in own else rest[owner])]
        lists["d"] += [(name, classes[(index + 1) % len(classes)]) for name in names[BASE + POOL :]]
        tests = [(f"test/{label}/{file.name}", label) for file in sorted((cifar / "test" / label).iterdir())[:100]]
        halves["held_out"] += tests[:50:2]
        halves["test"] += tests[1::2]
    lists["central"] = [row for owner in OWNERS for row in lists[owner]]
    for name, rows in lists.items():
        with (cifar / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("path", "label"), *rows])
    for name, rows in halves.items():
        for path, label in rows:
            (work / name / label).mkdir(parents=True, exist_ok=True)
            link = work / name / label / Path(path).name
            if not link.exists():
                link.symlink_to((cifar / path).resolve())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--cifar", "--weights", "--work"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--flower", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    cifar, work = options.cifar, options.work
    work.mkdir(parents=True, exist_ok=True)
    write_lists(cifar, work)
    for epochs in (EPOCHS, EPOCHS // ROUNDS):
        (work / f"recipe{epochs}.toml").write_text(RECIPE.format(epochs=epochs, cache=work / "cache"))

    def learn(who: str, weights: Path, name: str, epochs: int = EPOCHS) -> Path:
        folder = work / "runs" / name
        words = ["--recipe", str(work / f"recipe{epochs}.toml"), "--data", str(cifar / f"{who}.csv")]
        assert train.main([*words, "--weights", str(weights), "--out", str(folder)]) == 0
        return folder / "best.pt"

    def fused(name: str, start: Path, files: list[Path], *more: str) -> tuple[Path, int]:
        out = work / f"{name}.pt"
        words = ["--base", str(start), "--out", str(out), *more, "--contributions", *map(str, files)]
        return out, fuse.main(words)

    base = learn("base", options.weights, "base")
    start = Checkpoint.load(base)
    samples = gain.held_out(work / "test", start)
    truth = target_matrix(samples.answers, start.labels).argmax(axis=1)
    network = start.build_model()
    head = head_path(network)
    watched, inputs = Watched(network, head), parity.network_inputs(samples.files, start.pixels, start.mean, start.std)
    with torch.inference_mode():
        features = torch.cat([watched(batch)[1] for batch in inputs])[: len(truth)]
    result: dict[str, float] = {}

    def judge(name: str, file: Path) -> None:
        """By the head alone: nothing else trains."""
        state = Checkpoint.load(file).state
        assert all(torch.equal(state[key], start.state[key]) for key in state if not key.startswith(f"{head}."))
        logits = features @ state[f"{head}.weight"].T + state[f"{head}.bias"]
        result[name] = round(float((logits.argmax(dim=1).numpy() == truth).mean()), 4)
        print(name, result[name], flush=True)

    judge("base", base)
    alone = [learn(owner, base, f"alone_{owner}") for owner in OWNERS]
    for owner, file in zip(OWNERS, alone, strict=True):
        judge(f"alone_{owner}", file)
    judge("files_once", fused("once", base, alone)[0])
    now = base
    for turn in range(ROUNDS):
        files = [learn(owner, now, f"round{turn}_{owner}", EPOCHS // ROUNDS) for owner in OWNERS]
        now, code = fused(f"round{turn}", now, files)
        assert code == 0, "an honest participant was refused"
    judge("files_rounds", now)
    if options.flower:
        judge("flower_rounds", options.flower)

    shifted = learn("d", base, "alone_d")
    judge("alone_poisoned", shifted)
    honest = Checkpoint.load(alone[0])
    noise, broken = work / "noise.pt", work / "nan.pt"
    loud = {
        key: start.state[key] - 1000 * (tensor - start.state[key]) if tensor.is_floating_point() else tensor
        for key, tensor in honest.state.items()
    }
    dataclasses.replace(honest, state=loud).save(noise)
    key = next(iter(honest.state))
    nan = torch.full_like(honest.state[key], float("nan"))
    dataclasses.replace(honest, state={**honest.state, key: nan}).save(broken)
    lax = ("--least-cosine", "-1", "--largest-norm", "1e9")
    for name, poison in (("shifted_labels", shifted), ("thousandfold", noise)):
        judge(f"{name}_let_in", fused(f"{name}_in", base, [*alone, poison], *lax)[0])
    for name, poison in (("shifted_labels", shifted), ("thousandfold", noise), ("nan", broken)):
        out, code = fused(f"{name}_checked", base, [*alone, poison])
        judge(f"{name}_refused" if code == 1 else f"{name}_passed", out)
    out, code = fused("held_out", base, [*alone, shifted], *lax, "--data", str(work / "held_out"))
    judge("shifted_labels_held_out_refused" if code == 1 else "shifted_labels_held_out_passed", out)
    judge("central", learn("central", base, "central"))
    counts = {owner: Checkpoint.load(file).sample_count for owner, file in zip(OWNERS, alone, strict=True)}
    line = json.dumps({"benchmark": "participants", **result, "samples": counts, "conditions": conditions()})
    if options.out:
        options.out.write_text(line + "\n")
    print(line)


if __name__ == "__main__":
    main()
