"""Pictures and what is known of them ↔ the JSON of Label Studio: tasks with predictions out, annotations in.

Formats: https://labelstud.io/guide/tasks and https://labelstud.io/guide/export (JSON, and JSON-MIN). A task knows its
picture by `data.picture`, its SHA-256, or by the name of its file.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from taxon.bundle import atomic_files
from taxon.feedback.errors import ReviewError
from taxon.feedback.exporting import PROVENANCE, PROVENANCE_COLUMNS, provenance_row, write_rows
from taxon.feedback.records import Answer, Consent, Entry, Kept, Said
from taxon.feedback.review import Case, checked_label
from taxon.feedback.store import Store
from taxon.picture_files import is_utf8

TASKS, CONFIG, PICTURES = "tasks.json", "config.xml", "pictures"
NONE = "none of these"
"""The choice that means none of the classes."""
URL = "/data/local-files/?d="
"""How Label Studio calls files below its LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT."""
PICTURE_NAME = re.compile(r"([0-9a-f]{64})\.[a-z0-9]+$")


class TasksError(ValueError):
    """A file that is not Label Studio's JSON."""


def write(
    store: Store, folder: Path, cases: Iterable[Case], unsaid: Iterable[tuple[str, str, Answer]], url: str
) -> int:
    """Writes `tasks.json`, `config.xml` and the pictures; the store remembers where, so that `forget` finds them.

    Args:
        store: What is kept.
        folder: New, or empty.
        cases: Pictures that people have spoken of.
        unsaid: Pictures that nobody has, as `Store.unsaid` gives them.
        url: What stands before `pictures/…` in the address of a picture.

    Returns:
        How many tasks.

    Raises:
        OSError: The folder is not empty, or cannot be written.
        StoreError: It cannot be remembered.
        SealError: The pictures do not open.
    """
    atomic_files.make_folder(folder / PICTURES)
    if any(path.name != PICTURES for path in folder.iterdir()) or any((folder / PICTURES).iterdir()):
        raise FileExistsError(17, "it is not empty", str(folder))
    store.exported_to(folder.resolve())
    tasks, rows, names = [], [], set()
    chosen: list[tuple[str, str, Answer | Kept, tuple[Kept, ...]]] = [
        *((case.picture, case.extension, case.answer, case.voices) for case in cases),
        *((picture, extension, answer, ()) for picture, extension, answer in unsaid),
    ]
    for picture, extension, answer, voices in chosen:
        path = f"{PICTURES}/{picture}.{extension}"
        atomic_files.write(folder / path, store.pictures.read(picture, extension), mode=0o600)
        tasks.append(_task(picture, url + path, answer, voices))
        rows += [provenance_row(path, "", voice) for voice in voices]
        names |= {label for voice in voices for label in voice.labels}
        names |= {*(answer.answered if isinstance(answer, Kept) else answer.labels)}
    atomic_files.write(folder / TASKS, json.dumps(tasks, ensure_ascii=False, indent=1), mode=0o600)
    write_rows(folder / PROVENANCE, PROVENANCE_COLUMNS, rows)
    choices = "".join(f"    <Choice value={quoteattr(name)}/>\n" for name in [*sorted(names), NONE])
    config = f'<View>\n  <Image name="image" value="$image"/>\n  <Choices name="label" toName="image">\n{choices}'
    atomic_files.write(folder / CONFIG, f"{config}  </Choices>\n</View>\n")
    return len(tasks)


def _task(picture: str, image: str, answer: Answer | Kept, voices: tuple[Kept, ...]) -> dict[str, Any]:
    labels = answer.answered if isinstance(answer, Kept) else answer.labels
    said = Counter(", ".join(voice.labels) or NONE for voice in voices)
    prediction = {
        "model_version": f"{answer.model}:{answer.version}",
        "score": answer.score,
        "result": [
            {"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": [*labels[:1]] or [NONE]}}
        ],
    }
    data = {"image": image, "picture": picture, "request_id": answer.request_id}
    return {
        "data": data | {"said": ", ".join(f"{label} ({n})" for label, n in said.items())},
        "predictions": [prediction],
    }


def read(store: Store, file: Path, consent: Consent, license_: str) -> Counter[str]:
    """Takes what annotators say, as of contributors named `label-studio:…`: to be reviewed like any other.

    Args:
        store: What is kept; the pictures must be in it.
        file: JSON or JSON-MIN.
        consent: Of the annotators.
        license_: Of the pictures, as SPDX names it.

    Returns:
        How many: said, skipped (cancelled, or without a choice), unknown (not in the store).

    Raises:
        TasksError: It is something else, or has a label that cannot be one. Nothing was taken.
        OSError: It cannot be read.
        StoreError: The store cannot be written.
    """
    answers = {picture: answer for picture, _, answer in store.unsaid()}
    known = {label for answer in answers.values() for label in answer.labels}
    for kept in store.said():
        answers[kept.picture] = Answer(
            kept.request_id,
            kept.model,
            kept.version,
            kept.variant,
            kept.answered,
            kept.score,
            kept.unknown,
            kept.familiarity,
        )
        known |= {*kept.answered, *kept.labels} - {*kept.proposed}
    counts: Counter[str] = Counter()
    entries = []
    for picture, annotator, labels in _annotations(file):
        if labels is None:
            counts["skipped"] += 1
        elif picture not in answers:
            counts["unknown"] += 1
        else:
            proposed = tuple(label for label in labels if label not in known)
            said = Said(f"label-studio:{annotator}", labels, proposed, consent, license_, "")
            entries.append(Entry(None, answers[picture], "feedback", said))
    for outcome in store.add(entries):
        counts["said" if outcome == "said" else "refused"] += 1
    return counts


def _annotations(file: Path) -> list[tuple[str, str, tuple[str, ...] | None]]:
    """(picture, annotator, labels or None) of every annotation."""
    try:
        tasks = json.loads(file.read_bytes())
    except ValueError as error:
        raise TasksError(f"{file} is not JSON: {error}") from error
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise TasksError(f"{file} is no list of tasks: export from Label Studio as JSON or JSON-MIN")
    found = []
    for number, task in enumerate(tasks, 1):
        try:
            found += [*_of_task(task)]
        except (KeyError, TypeError, AttributeError) as error:
            raise TasksError(f"task {number} of {file} is not as Label Studio writes it: {error!r}") from error
        except ReviewError as error:
            raise TasksError(f"task {number} of {file}: {error}") from error
    return found


def _of_task(task: Mapping[str, Any]) -> Iterator[tuple[str, str, tuple[str, ...] | None]]:
    data = task.get("data", task)
    picture = str(data.get("picture") or "")
    if not picture and (named := PICTURE_NAME.search(str(data.get("image", "")))):
        picture = named[1]
    if "annotations" not in task:  # JSON-MIN: an annotation is the task
        yield picture, _annotator(task.get("annotator", "")), _labels(task.get("label"))
        return
    for annotation in task["annotations"]:
        chosen = [part["value"]["choices"] for part in annotation["result"] if part.get("type") == "choices"]
        labels = None if annotation.get("was_cancelled") else _labels(chosen[0] if chosen else None)
        yield picture, _annotator(annotation.get("completed_by", "")), labels


def _annotator(who: Any) -> str:
    name = str(who.get("email") or who["id"]) if isinstance(who, dict) else str(who)
    if not is_utf8(name):
        raise ReviewError(f"the annotator {name!r} is no text")
    return name


def _labels(choice: Any) -> tuple[str, ...] | None:
    if isinstance(choice, dict):
        choice = choice["choices"]
    chosen = [choice] if isinstance(choice, str) else choice or []
    if not chosen:
        return None
    return () if NONE in chosen else tuple(sorted({checked_label(str(label)) for label in chosen}))


def leave(folder: Path, gone: Iterable[str], pictures: Iterable[str]) -> None:
    """After a contributor has gone: tasks without a picture go, and what was said of others is no longer told.

    Args:
        folder: That `write` wrote.
        gone: Pictures that are no longer there.
        pictures: All that the contributor spoke of.
    """
    removed, theirs = {*gone}, {*pictures}
    tasks = json.loads((folder / TASKS).read_text(encoding="utf-8"))
    left = [task for task in tasks if task["data"]["picture"] not in removed]
    for task in left:
        if task["data"]["picture"] in theirs:
            task["data"]["said"] = ""
    atomic_files.write(folder / TASKS, json.dumps(left, ensure_ascii=False, indent=1), mode=0o600)
