"""The command `taxon train`: options in, a run out; or with `--dry-run` only what it would be."""

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from taxon.picture_files import pasted
from taxon.training import flags
from taxon.training.errors import TrainingError
from taxon.training.finetune import finetune
from taxon.training.loop import machine
from taxon.training.loop.prepare import find_data
from taxon.training.plan import resolved
from taxon.training.reporting.dry_run import describe


def main(argv: list[str]) -> int:
    """`taxon train`: 0 when the run is complete, 2 when it cannot be done as asked, 130 when interrupted."""
    parser = argparse.ArgumentParser(description="Fine-tune an image classifier on labelled pictures.")
    folder: Path | None = None
    try:
        call = flags.parse(argv, parser)
        recipe = resolved(call.recipe)
        if call.dry_run:
            print(describe(recipe, find_data(recipe.data, recipe.model, only_plan=True)))  # noqa: T201 - the answer
            return 0
        name = f"{recipe.model.name.replace('/', '-')}-{datetime.now(UTC):%Y%m%dT%H%M%S}"
        folder = call.out or Path("runs", name)
        finetune(recipe, folder)
    except TrainingError as error:
        sys.stderr.write(f"taxon train: {error}\n")
        return 2
    except OSError as error:  # a disk that is full or fails while the run goes on
        sys.stderr.write(f"taxon train: {error.filename or folder}: {error.strerror or error}\n")
        return 2
    except KeyboardInterrupt:
        more = " before the training began"
        if folder is not None and (folder / "run.json").exists():
            more = f"; to go on: taxon train --resume {pasted(folder)}"
        sys.stderr.write(f"taxon train: interrupted{more}\n")
        return 130
    finally:
        machine.leave()
    return 0
