"""Classifies a folder of pictures on a Ray cluster, without a server:

python classify.py MODELS MODEL VERSION FOLDER OUT        (pip install -e '.[ray]' in Taxon's checkout)

Every node needs the same MODELS folder, by the same path. OUT becomes a folder of Parquet files with the columns of
`taxon classify --out`.
"""

import sys

import ray

from taxon.batch import Classifier


def main(models: str, model: str, version: str, folder: str, out: str) -> None:
    files = ray.data.read_binary_files(folder, include_paths=True)
    answers = files.map_batches(
        Classifier,
        fn_constructor_kwargs={"models": models, "model": model, "version": version, "column": "bytes"},
        batch_size=64,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=16),
        num_cpus=1,
    )
    answers.write_parquet(out)


if __name__ == "__main__":
    if len(sys.argv) != 6:
        sys.exit("usage: python classify.py MODELS MODEL VERSION FOLDER OUT")
    main(*sys.argv[1:])
