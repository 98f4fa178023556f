"""The command `taxon device`: whether GPUs work here, before anything is served."""

import argparse
import sys

from taxon.service.runtime.device import CUDA, TENSORRT, probed

PROVIDERS = {"cuda": CUDA, "tensorrt": TENSORRT}


def main(argv: list[str]) -> int:
    """Runs the command. Returns 0 if a device of the kind works, else 1."""
    parser = argparse.ArgumentParser("taxon device", description="Exits with 0 if a device of the kind works here.")
    parser.add_argument("kind", nargs="?", choices=PROVIDERS, default="cuda", help="what to try (%(default)s)")
    kind = parser.parse_args(argv).kind
    found = probed(PROVIDERS[kind])
    sys.stdout.write(f"{kind}: {found.reason or f'{found.count} working'}\n")
    return 1 if found.reason else 0
