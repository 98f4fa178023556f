"""How fast is the data doctor, from a folder to findings, over bare Pillow decoding of the same files on all cores?

    python -m benchmarks.bench_inspect --data FOLDER

`decode` opens and loads each file wholly, in a pool of threads; `draft` the same with JPEG's scaled decoding, which
the doctor uses. Rounds alternate. The last line is one JSON object.
"""

import argparse
import json
import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from taxon.training.dataset import data
from taxon.training.dataset.scan_pictures import DRAFT_SIDE


def decode(path: Path) -> None:
    with Image.open(path) as picture:
        picture.load()


def draft(path: Path) -> None:
    with Image.open(path) as picture:
        picture.draft("RGB", (DRAFT_SIDE, DRAFT_SIDE))
        picture.load()


def bare_seconds(paths: list[Path], work: object) -> float:
    started = time.monotonic()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(work, paths))
    return time.monotonic() - started


def doctor_seconds(folder: Path) -> float:
    from taxon.training.dataset.doctor import (
        diagnose,  # not above: the doctor's processes import this file, and need no torch
    )

    started = time.monotonic()
    diagnose(data.scan(folder))
    return time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="labelled folder of pictures")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    paths = [sample.path for sample in data.scan(options.data).samples]
    rows = []
    doctor_seconds(options.data)  # imports, and the files come into memory
    for number in range(options.rounds):
        rows.append((bare_seconds(paths, decode), bare_seconds(paths, draft), doctor_seconds(options.data)))
        print(f"round {number + 1}: decode, draft, doctor {', '.join(f'{s:.2f}' for s in rows[-1])} s", flush=True)
    result = {
        "pictures": len(paths),
        "ratio_to_decode": round(statistics.median(row[0] / row[2] for row in rows), 3),
        "ratio_to_draft": round(statistics.median(row[1] / row[2] for row in rows), 3),
        "pictures_per_second": round(len(paths) / statistics.median(row[2] for row in rows), 1),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
