"""Entries for a store, and writers that are killed. Imports nothing that takes long: the writers do too."""

import subprocess
import sys
from io import BytesIO
from pathlib import Path

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
    return sorted(path for path in (folder_of(store.place) / "pictures").rglob("*") if path.is_file())


def folder_of(place):
    """Where its pictures and the key of its pseudonyms are."""
    return place if isinstance(place, Path) else Path(place.pictures.removeprefix("file://"))


def words_of(place):
    """As the commands take it."""
    return [str(place)] if isinstance(place, Path) else [place.database, place.pictures]


WRITER = """
import sys
from taxon.feedback.opening import place_of
from taxon.feedback.store import Store
from tests.taxon.feedback.entries import answer, entry
first, count, at_once, database, *pictures = sys.argv[1:]
store = Store(place_of(database, *(pictures or [None])))
for begin in range(int(first), int(first) + int(count), int(at_once)):
    numbers = range(begin, begin + int(at_once))
    store.add([entry(number % 32, who=f"somebody {number}", answer=answer(number)) for number in numbers])
    print(*numbers, sep="\\n", flush=True)
"""
"""Says so many things from a first one on, so many in one turn, and tells each that was kept."""


def kill_and_look(place, rounds, count, draw, at_once=1):
    """Writers are killed between two lines of theirs, wherever that is; what they had acknowledged must be there."""
    acknowledged, first = set(), 0
    for _ in range(rounds):
        words = [sys.executable, "-c", WRITER, str(first), str(count), str(at_once), *words_of(place)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as writer:
            for _ in range(draw.randrange(1, count)):
                if not (line := writer.stdout.readline()):
                    break
                acknowledged.add(int(line))
            writer.kill()
            for line in writer.stdout:
                acknowledged.add(int(line))
        first = max(acknowledged, default=-1) + 1 + at_once  # one more turn may have been kept without being told
    store = Store(place)
    said = [kept.request_id for kept in store.said()]
    assert len(said) == len(set(said))
    assert {f"id-{number}" for number in acknowledged} <= set(said)
    assert len(said) <= len(acknowledged) + rounds * at_once
    store.sweep()
    kept = {kept.picture: kept.extension for kept in store.said()}
    assert {name_of(store.pictures.read(*pair)) for pair in kept.items()} == set(kept)
    assert {path.stem for path in files(store)} == set(kept)
    store.close()
    return len(acknowledged)
