"""What do callers notice of a reload? The p99 of running traffic while a version is loaded, beside windows without one.

    python -m benchmarks.bench_reload --models FOLDER [--rounds 5] [--seconds 8] [--device cpu] [--quick]

Two cases: `resnet18`, whose next version comes under half of the load that the server can answer; and `digits`, under
half of its load, beside which a ResNet-50 is loaded. Poisson arrivals. Windows without and with a load take turns in
one server; figures are medians of the rounds. A load that took longer than its window is counted. The last line is one
JSON object.
"""

import argparse
import re
import shutil
import statistics
import tempfile
import threading
import time
from pathlib import Path

from benchmarks import bundles
from benchmarks.bench_gpu import load
from benchmarks.bench_limit import pictures
from benchmarks.bench_service import CLASSIFY, serving, write_requests
from benchmarks.conditions import conditions, tell
from taxon.bundle.store import MANIFEST
from taxon.client import Client

CASES = {"resnet18": "resnet18", "digits": "resnet50"}
"""What is asked, and what is loaded meanwhile."""
LONGEST_LOAD_S = 120.0


def stage(source: Path, root: Path, name: str, version: int) -> Path:
    """A version that is a copy of the first, where the server does not look."""
    staged = root / f".{name}-{version}"
    shutil.copytree(source / name / "1", staged)
    manifest = (staged / MANIFEST).read_text(encoding="utf-8")
    (staged / MANIFEST).write_text(re.sub(r'"version": 1,', f'"version": {version},', manifest, count=1))
    return staged


def put(staged: Path, root: Path, name: str, version: int) -> None:
    """Gives a model a version, whole at once."""
    (root / name).mkdir(exist_ok=True)
    staged.rename(root / name / str(version))


def wait_until(address: str, name: str, version: int, *, served: bool) -> float:
    """Seconds until a version is served, or is no more."""
    began = time.perf_counter()
    with Client(address) as client:
        while time.perf_counter() < began + LONGEST_LOAD_S:
            if served == any((one.name, one.version) == (name, str(version)) for one in client.list_models()):
                return time.perf_counter() - began
            time.sleep(0.05)
    raise SystemExit(f"{name} {version} was not {'served' if served else 'gone'} within {LONGEST_LOAD_S} s")


def one_case(
    source: Path, asked: str, loaded: str, rounds: int, seconds: float, share: float, device: str
) -> dict[str, object]:
    """Windows without and with a load in turns."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "models")
        root.mkdir()
        put(stage(source, root, asked, 1), root, asked, 1)
        way = CLASSIFY, write_requests(Path(folder), asked, pictures(None, asked))
        windows: dict[str, list[dict]] = {"without": [], "with": []}
        took: list[float] = []
        with serving(root, ["--watch-seconds", "0.2", "--device", device]) as (_, address, _):
            load(address, way, 1, 1.0)
            rate = share * load(address, way, 1, seconds)["per_s"]
            for number in range(2, rounds + 2):
                staged = stage(source, root, loaded, number)
                windows["without"].append(load(address, way, 1, seconds, rate))

                def reload(number: int = number, staged: Path = staged) -> None:
                    time.sleep(0.5)  # the generator's warm-up
                    put(staged, root, loaded, number)
                    took.append(wait_until(address, loaded, number, served=True))

                meanwhile = threading.Thread(target=reload)
                meanwhile.start()
                windows["with"].append(load(address, way, 1, seconds, rate))
                meanwhile.join()
                before = root / loaded / str(number - 1)
                if before.exists():
                    shutil.rmtree(before)
                    wait_until(address, loaded, number - 1, served=False)
                print(asked, number - 1, windows["without"][-1], windows["with"][-1], round(took[-1], 2), flush=True)
    p99 = {kind: statistics.median(one["p99_ms"] for one in runs) for kind, runs in windows.items()}
    return {
        "loaded": loaded,
        "rate_per_s": round(rate, 1),
        "p99_ms": p99,
        "p99_ratio": round(p99["with"] / p99["without"], 2),
        "p99_ratios": [
            round(one["p99_ms"] / other["p99_ms"], 2)
            for other, one in zip(windows["without"], windows["with"], strict=True)
        ],
        "load_s": round(statistics.median(took), 2),
        "loads_longer_than_their_window": sum(each > seconds for each in took),
        "not_ok": sum(one["not_ok"] for runs in windows.values() for one in runs),
        "generator_cpu_share": max(one["generator_cpu_share"] for runs in windows.values() for one in runs),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", type=Path, required=True, help="of benchmarks.bundles; what is missing is made")
    parser.add_argument("--case", action="append", choices=CASES, help="default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--share", type=float, default=0.5, help="of what the server can answer, offered")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--quick", action="store_true", help="one short round, to see that it runs")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, 2.0
    cases = {asked: CASES[asked] for asked in options.case or CASES}
    for name in {*cases, *cases.values()}:
        bundles.build(options.models, name)
    report = {
        "benchmark": "reload",
        "rounds": options.rounds,
        "seconds": options.seconds,
        "share_of_capacity": options.share,
        "device": options.device,
        "cases": {
            asked: one_case(
                options.models, asked, loaded, options.rounds, options.seconds, options.share, options.device
            )
            for asked, loaded in cases.items()
        },
        **conditions(),
    }
    tell(report, options.out)


if __name__ == "__main__":
    main()
