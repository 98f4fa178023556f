"""Training pictures that leave with a bundle, small: which ones, how they are written, what the graph makes of them.

Nothing of a picture's file comes along but its pixels, which are encoded anew. What somebody gave to be trained on, and
not to be passed on, stays here.
"""

import csv
import hashlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from taxon.bundle import thumbnails
from taxon.bundle.manifest import PLACES_OUTPUT, Thumbnail, ThumbnailSpec
from taxon.feedback.exporting import PROVENANCE
from taxon.training.exporting import goldens, parity
from taxon.training.exporting.candidate import Candidate, ExportError
from taxon.training.loop import order

SIDE = 96
"""Pixels of the longer side, at most."""
MOST_BYTES = 8192
"""Of one file."""
QUALITIES = (85, 70, 50, 30, 10)
"""Of JPEG, tried in turn until one is small enough."""
CARD = "model_card.md"
SHARE = "share"
"""Consent to passing a picture on."""


def write(candidate: Candidate, staged: Path, graph: Path, count: int) -> tuple[ThumbnailSpec | None, str]:
    """Writes thumbnails into a bundle. Returns what the manifest says of them and a sentence; or None, and why not.

    Args:
        candidate: Has a graph with places.
        staged: Of the bundle.
        graph: Of fp32.
        count: At most; they go round the classes.

    Raises:
        ExportError: A training picture cannot be made small enough.
        ParityError: One cannot be read.
    """
    training = [file for file in candidate.training_files if isinstance(file, Path)]
    allowed = _allowed(training)
    kept_back = len(training) - len(allowed)
    if not allowed:
        why = "all training pictures were given to be trained on only" if kept_back else "no training picture is known"
        return None, f"no thumbnails: {why}"
    chance = order.uniform(0, 0, np.arange(len(allowed))).astype(np.float32)
    answers = [candidate.training_answers[index] for index in allowed]
    chosen = [allowed[place] for place in goldens.spread_over_classes(answers, chance, count)]
    files = [training[index] for index in chosen]
    (staged / thumbnails.FOLDER).mkdir()
    session, size = parity.open_session(graph), min(parity.REFERENCE_BATCH, len(files))
    features, pictures = [], list[Thumbnail]()
    for _, arrays in parity.decoded_batches(files, candidate.pixels, (size,)):
        (places,) = session.run([PLACES_OUTPUT], {session.get_inputs()[0].name: arrays})
        features.append(thumbnails.of_places(places))
        for array in arrays:
            index, name = chosen[len(pictures)], f"{thumbnails.FOLDER}/{len(pictures):03d}.jpg"
            (staged / name).write_bytes(small(array))
            digest = hashlib.sha256(training[index].read_bytes()).hexdigest()
            pictures.append(Thumbnail(file=name, labels=candidate.training_answers[index], sha256=digest))
    (staged / thumbnails.FEATURES).write_bytes(thumbnails.write_features(np.concatenate(features)))
    note = f"{len(pictures)} training pictures leave with the bundle, as thumbnails: whoever has it can look at them"
    if kept_back:
        note += f"; {kept_back} that were given to be trained on, and not to be passed on, do not"
    return ThumbnailSpec(features=thumbnails.FEATURES, pictures=tuple(pictures)), note


def small(picture: NDArray[np.uint8]) -> bytes:
    """A JPEG file of uint8 `[height, width, channels]`, with no more in it than these pixels.

    Raises:
        ExportError: It does not become small enough.
    """
    image = Image.fromarray(picture if picture.shape[2] == 3 else picture[:, :, 0])
    image.thumbnail((SIDE, SIDE))
    for quality in QUALITIES:
        encoded = BytesIO()
        image.save(encoded, "JPEG", quality=quality)
        if len(encoded.getvalue()) <= MOST_BYTES:
            return encoded.getvalue()
    raise ExportError(f"a thumbnail has more than {MOST_BYTES} bytes, however it is encoded")


def card(name: str, held: ThumbnailSpec) -> str:
    """What a bundle says to people of its thumbnails."""
    return (
        f"# {name}: this bundle holds training pictures\n\n"
        f"`{thumbnails.FOLDER}/` has {len(held.pictures)} of the pictures that the model was trained on, small, "
        "without their files' metadata, with their labels and the SHA-256 of their files. Whoever has the bundle can "
        "look at them, and whoever may call `ExplanationService` gets them beside answers. What they show is shown: "
        "faces, places, number plates. Withdrawing one means to withdraw this version: `taxon feedback forget` names "
        "it.\n"
    )


def _allowed(files: Sequence[Path]) -> list[int]:
    """Places of the files that may be passed on: not of those that people gave to the feedback store to train on only.

    Raises:
        ExportError: What says so cannot be read.
    """
    kept_back: set[Path] = set()
    for folder in {file.parent.parent for file in files}:  # pictures lie in folders of their labels, or in `said`
        try:
            with (folder / PROVENANCE).open(newline="", encoding="utf-8") as file:
                rows = csv.DictReader(file)
                kept_back |= {folder / row["path"] for row in rows if row["consent"] != SHARE}
        except FileNotFoundError:
            continue  # nobody gave these to a feedback store
        except (OSError, KeyError, ValueError, csv.Error) as error:
            raise ExportError(f"{folder / PROVENANCE} does not say which pictures may be passed on: {error}") from error
    return [index for index, file in enumerate(files) if file not in kept_back]
