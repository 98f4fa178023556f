"""How faithful are explanations? Deletion and insertion of both methods on photographs, beside random maps.

    python -m benchmarks.bench_explanations MODELS/NAME/VERSION PICTURE…

The bundle must have been exported with --maps. Areas under the curves of `taxon.explanation.faithfulness`.
"""

import argparse
import functools
import json
import time
from pathlib import Path

import numpy as np

from benchmarks.conditions import conditions
from taxon.explanation import faithfulness
from taxon.service.runtime.bundle_explanation import BundleExplainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("pictures", type=Path, nargs="+")
    options = parser.parse_args()
    explainer = BundleExplainer(options.bundle)
    measured = {"activation": [], "masking": [], "random": []}
    seconds = {"activation": [], "masking": []}
    for number, path in enumerate(options.pictures):
        for method in ("activation", "masking"):
            began = time.perf_counter()
            found = explainer.explain(path.read_bytes(), method=method)
            seconds[method].append(time.perf_counter() - began)
            score = functools.partial(explainer.scores, label=found.label)
            measured[method].append(faithfulness.measured(found.picture, found.heat, score))
        random = faithfulness.random_map(number, (7, 7))
        measured["random"].append(faithfulness.measured(found.picture, random, score))
        print(f"{path.name}: {found.label} {found.score:.3f}", flush=True)
    rows = {}
    for method, areas in measured.items():
        row = {
            name: round(float(np.mean([getattr(area, name) for area in areas])), 4)
            for name in ("deletion", "insertion")
        }
        if method != "random":
            for name, sign in (("deletion", -1), ("insertion", 1)):
                own, chance = ([sign * getattr(a, name) for a in each] for each in (areas, measured["random"]))
                row[f"{name}_gain"], row[f"{name}_gain_error"] = (round(v, 4) for v in faithfulness.margin(own, chance))
            row["median_seconds"] = round(float(np.median(seconds[method])), 3)
        rows[method] = row
        print(method, row)
    print(json.dumps({"benchmark": "explanations", "pictures": len(options.pictures), "areas": rows, **conditions()}))


if __name__ == "__main__":
    main()
