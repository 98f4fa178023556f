"""Does a published int8 graph keep its budget on pictures that export never saw?

    python -m benchmarks.bench_int8_promise --run runs/pets pets_unseen --run runs/cifar cifar_unseen --out FILE

Each `--run` is a folder of `taxon train` and a labelled folder that was held out from all of it. The run is exported
with `--variants int8`, judged by the bound; where the validation pictures do not show that the budget is kept, once
more by the estimate. Both graphs are then asked about the pictures that were held out. `--quick` asks 200 of them. The
last line is one JSON object.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.conditions import conditions, tell
from taxon.bundle.answers import parted
from taxon.bundle.manifest import Manifest
from taxon.training.dataset import data
from taxon.training.exporting import bundling, evidence, variants
from taxon.training.exporting.bundling import Settings
from taxon.training.exporting.candidate import Candidate, target_matrix
from taxon.training.exporting.evidence import Budget
from taxon.training.exporting.of_run import from_run

QUICK = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, nargs=2, action="append", required=True, metavar=("RUN", "UNSEEN"))
    parser.add_argument("--quick", action="store_true", help=f"only {QUICK} of the pictures that were held out")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = {}
    for run, unseen in options.run:
        rows[run.name] = row = measure(from_run(run), unseen, QUICK if options.quick else None)
        print(f"{run.name:24}", "  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    report = {"benchmark": "int8_promise", **conditions(), "torch_threads": options.threads, "networks": rows}
    tell(report, options.out)


def measure(candidate: Candidate, unseen: Path, most: int | None) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        export = bundling.publish(candidate, root, "judged", Settings(precisions=("int8",)))
        row: dict[str, object] = {"note": export.notes[0]}
        if len(export.bundle.manifest.variants) == 1:
            settings = Settings(precisions=("int8",), budget=Budget(judged_by="estimate"))
            export = bundling.publish(candidate, root, "estimated", settings)
            row["note_by_estimate"] = export.notes[0]
        return row | on_unseen(candidate, export.bundle.folder, export.bundle.manifest, unseen, most)


def on_unseen(
    candidate: Candidate, folder: Path, manifest: Manifest, unseen: Path, most: int | None
) -> dict[str, object]:
    """What the int8 graph loses there, if there is one."""
    if len(manifest.variants) == 1:
        return {}
    found = data.scan(unseen)
    chosen = [found.samples[n] for n in np.random.default_rng(0).permutation(len(found.samples))[:most]]
    files = tuple(sample.path for sample in chosen)
    answers = tuple(sample.names(found.labels) for sample in chosen)
    rows = [variants.rows_on(folder / one.file, variants.decoded(files, candidate)) for one in manifest.variants]
    full, lighter = (parted(answered, len(candidate.labels))[0] for answered in rows)
    truth = target_matrix(answers, candidate.labels)
    seen = evidence.seen(full, lighter, truth, candidate.task, Budget())
    return {
        "unseen_pictures": len(files),
        "accuracy": round(float((full.argmax(axis=1) == truth.argmax(axis=1)).mean()), 4),
        "loss": round((seen.lost - seen.gained) / len(files), 4),
        "lost": seen.lost,
        "gained": seen.gained,
        "agreement": round(seen.agreement, 4),
        "divergence": round(seen.divergence, 5),
    }


if __name__ == "__main__":
    main()
