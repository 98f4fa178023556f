"""Entries for a store, and writers that are killed. Imports nothing that takes long: the writers do too."""

import subprocess
import sys
from io import BytesIO

from PIL import Image

from taxon.feedback.picture_room import name_of
from taxon.feedback.records import Answer, Entry, Said
from taxon.feedback.store import Store


def shade(red):
    encoded = BytesIO()
    Image.new("RGB", (8, 8), (red, 0, 0)).save(encoded, "PNG")
    return encoded.getvalue()


SHADES = [shade(red) for red in range(32)]


def answer(number=0):
    return Answer(f"id-{number}", "colors", 1, "fp32", ("red", "blue"), 0.9, False, None)


def entry(number=0, who="jane", labels=("blue",), **changes):
    said = who and Said(who, labels, (), "train", "CC0-1.0", "a note")
    return Entry(SHADES[number], answer(number), "feedback" if who else "sample", said or None)._replace(**changes)


def files(store):
    return sorted(path for path in (store.folder / "pictures").rglob("*") if path.is_file())


WRITER = """
import sys
from pathlib import Path
from taxon.feedback.store import Store
from tests.taxon.feedback.entries import answer, entry
store = Store(Path(sys.argv[1]))
first = int(sys.argv[2])
for number in range(first, first + int(sys.argv[3])):
    store.add([entry(number % 32, who=f"somebody {number}", answer=answer(number))])
    print(number, flush=True)
"""


def kill_and_look(folder, rounds, count, draw):
    """Writers are killed between two lines of theirs, wherever that is; what they had acknowledged must be there."""
    acknowledged, first = set(), 0
    for _ in range(rounds):
        words = [sys.executable, "-c", WRITER, str(folder), str(first), str(count)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as writer:
            for _ in range(draw.randrange(1, count)):
                if not writer.stdout.readline():
                    break
                acknowledged.add(first)
                first += 1
            writer.kill()
            for line in writer.stdout:
                acknowledged.add(int(line))
        first = max(acknowledged, default=-1) + 2  # one more may have been kept without being told
    store = Store(folder)
    said = [kept.request_id for kept in store.said()]
    assert len(said) == len(set(said))
    assert {f"id-{number}" for number in acknowledged} <= set(said)
    store.sweep()
    kept = {kept.picture: kept.extension for kept in store.said()}
    assert {name_of(store.pictures.read(*pair)) for pair in kept.items()} == set(kept)
    assert {path.stem for path in files(store)} == set(kept)
    return len(acknowledged)
