"""Bundles on their way through an object store: whole, checked, or not there at all."""

import json
import subprocess
import sys

import pytest

from taxon import cli
from taxon.blobs import open_blobs
from taxon.bundle import signing, store
from taxon.bundle.manifest import BundleError
from taxon.exchange import MOST_BYTES, pull, push
from tests.fakes import toy_bundle
from tests.keys import write_keys


@pytest.fixture(params=["folder", "objects"])
def place(request, tmp_path):
    if request.param == "folder":
        yield str(tmp_path / "place")
        return
    fsspec = pytest.importorskip("fsspec")
    yield f"memory://{tmp_path.name}"
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def run(place, capsys):
    def called(verb, *words, status=0):
        flag = "--to" if verb == "push" else "--from"
        assert cli.main([verb, *map(str, words), flag, place]) == status
        told = capsys.readouterr()
        return told.err if status else json.loads(told.out)

    return called


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_pulled_is_what_was_pushed(run, models, tmp_path):
    sent = run("push", "colors/1", "--models", models)
    assert sent["digest"] == f"sha256:{store.sha256(models / 'colors' / '1' / 'manifest.json')}"
    assert sent["bytes_sent"] > 0
    assert run("push", "colors/1", "--models", models)["bytes_sent"] == 0
    for number, reference in enumerate((sent["digest"], "colors/1")):
        there = tmp_path / f"there-{number}"
        told = run("pull", reference, "--models", there)
        assert told == {"name": "colors", "version": 1, "folder": str(there / "colors" / "1")}
        assert contents(there / "colors" / "1") == contents(models / "colors" / "1")
        assert run("pull", reference, "--models", there) == told  # said again
        assert {path.name for path in (there / "colors").iterdir()} == {"1", ".last_version"}
        toy_bundle(there)
        assert store.versions(there, "colors") == [1, 2]


def test_a_number_means_one_bundle(run, models, tmp_path):
    run("push", "colors/1", "--models", models)
    toy_bundle(tmp_path / "others", labels=("a", "b", "c"))
    assert "colors/1 is another bundle there" in run("push", "colors/1", "--models", tmp_path / "others", status=2)
    assert "is there already, and is another" in run("pull", "colors/1", "--models", tmp_path / "others", status=2)
    assert store.versions(tmp_path / "others", "colors") == [1]


def test_signatures_travel_and_are_asked_for(run, models, tmp_path):
    private, public = write_keys(tmp_path, "ours")
    _, other = write_keys(tmp_path, "other")
    sent = run("push", "colors/1", "--models", models)
    words = "pull", sent["digest"], "--models", tmp_path / "there", "--require-signature"
    assert "is not signed" in run(*words, public, status=2)
    run("pull", sent["digest"], "--models", tmp_path / "early")
    signing.write(models / "colors" / "1", signing.signer(private))
    assert run("push", "colors/1", "--models", models)["digest"] == sent["digest"]
    assert "not by a required key" in run(*words, other, status=2)
    assert not store.versions(tmp_path / "there", "colors")
    run(*words, public)
    store.read(tmp_path / "there", "colors", 1, signing.checker(public))
    run("pull", sent["digest"], "--models", tmp_path / "early", "--require-signature", public)
    assert "cannot be read" in run(*words, tmp_path / "no.pub", status=2)


def test_what_is_damaged_or_missing_is_no_version(place, models, tmp_path):
    blobs = open_blobs(place)
    digest, _ = push(models, "colors", 1, blobs)
    bundle = store.read(models, "colors", 1)
    file, content = next(iter(bundle.manifest.files.items()))
    whole = blobs.get(f"blobs/sha256/{content}")
    blobs.put({f"blobs/sha256/{content}": whole[:-1] + b"x"})
    with pytest.raises(BundleError, match=f"{file} has sha256"):
        pull("colors/1", blobs, tmp_path / "there")
    blobs.remove([f"blobs/sha256/{content}"])
    with pytest.raises(BundleError, match=f"{file} of colors/1 is not there"):
        pull("colors/1", blobs, tmp_path / "there")
    blobs.put({f"blobs/sha256/{digest}": b"{}"})
    with pytest.raises(BundleError, match="is damaged there"):
        pull(f"sha256:{digest}", blobs, tmp_path / "there")
    blobs.put({"versions/colors/1": b"nonsense"})
    with pytest.raises(BundleError, match="versions/colors/1 is damaged"):
        pull("colors/1", blobs, tmp_path / "there")
    assert [*(tmp_path / "there" / "colors").iterdir()] == []


def test_a_bad_signature_there_costs_none_that_is_here(place, models, tmp_path):
    private, public = write_keys(tmp_path, "ours")
    blobs, check, there = open_blobs(place), signing.checker(public), tmp_path / "there"
    signing.write(models / "colors" / "1", signing.signer(private))
    digest, _ = push(models, "colors", 1, blobs)
    pull("colors/1", blobs, there, check)
    before = contents(there)
    good = blobs.get(f"signatures/{digest}")
    for bad in (bytes(64), bytes(MOST_BYTES + 1)):
        blobs.put({f"signatures/{digest}": bad})
        with pytest.raises(BundleError, match=r"not by a required key|is damaged there: it has"):
            pull("colors/1", blobs, there, check)
        pull("colors/1", blobs, there)
        assert contents(there) == before
    (there / "colors" / "1" / "manifest.sig").write_bytes(bytes(64))
    blobs.put({f"signatures/{digest}": good})
    pull("colors/1", blobs, there, check)
    assert contents(there) == before
    assert {path.name for path in (there / "colors").iterdir()} == {"1", ".last_version"}


def test_a_name_that_leads_to_another_bundle_is_refused(place, models, tmp_path):
    blobs = open_blobs(place)
    digest, _ = push(models, "colors", 1, blobs)
    for reference in ("colors/2", "pets/1"):
        blobs.put({f"versions/{reference}": f"sha256:{digest}\n".encode()})
        with pytest.raises(BundleError, match=f"{reference} is damaged there: it leads to colors/1"):
            pull(reference, blobs, tmp_path / "there")
    assert not (tmp_path / "there").exists()
    assert pull(f"sha256:{digest}", blobs, tmp_path / "there").manifest.version == 1


def test_what_is_too_large_is_not_read(place, models, tmp_path):
    blobs = open_blobs(place)
    push(models, "colors", 1, blobs)
    blobs.put({f"blobs/sha256/{64 * '0'}": bytes(MOST_BYTES + 1), "versions/colors/1": bytes(MOST_BYTES + 1)})
    for reference in (f"sha256:{64 * '0'}", "colors/1"):
        with pytest.raises(BundleError, match=f"it has {MOST_BYTES + 1} bytes"):
            pull(reference, blobs, tmp_path / "there")


def test_what_is_not_there_says_so(run, models, tmp_path, capsys):
    assert "there is no colors/1" in run("pull", "colors/1", "--models", tmp_path, status=2)
    assert "there is no sha256:00" in run("pull", f"sha256:{64 * '0'}", "--models", tmp_path, status=2)
    assert "manifest.json" in run("push", "colors/7", "--models", models, status=2)
    for words in (["pull", "../colors/1"], ["pull", "sha256:12"], ["push", "colors"], ["push", "colors/0"]):
        with pytest.raises(SystemExit):
            cli.main([*words, "--from", "x", "--to", "x"])
    assert "NAME/VERSION" in capsys.readouterr().err


KILLED = """
import os, signal, sys
from pathlib import Path
from taxon import cli
from taxon.blobs import FolderBlobs
def die(*words):
    os.kill(os.getpid(), signal.SIGKILL)
def die_at(owner, name, count):
    real, calls = getattr(owner, name), []
    def called(*words):
        calls.append(words)
        die() if len(calls) == count else None
        return real(*words)
    setattr(owner, name, called)
die_at({"FolderBlobs": FolderBlobs, "Path": Path}[sys.argv[1]], sys.argv[2], int(sys.argv[3]))
cli.main(sys.argv[4:])
"""


def killed(owner, method, count, *words):
    ended = subprocess.run([sys.executable, "-c", KILLED, owner, method, str(count), *map(str, words)], check=False)
    assert ended.returncode == -9


def test_killed_in_the_middle_leaves_nothing_to_be_seen(models, tmp_path):
    place, there = tmp_path / "place", tmp_path / "there"
    words = "colors/1", "--models"
    killed("FolderBlobs", "put_file", 2, "push", *words, models, "--to", place)
    killed("FolderBlobs", "put", 1, "push", *words, models, "--to", place)
    with pytest.raises(BundleError, match="there is no colors/1"):
        pull("colors/1", open_blobs(str(place)), there)
    push(models, "colors", 1, open_blobs(str(place)))
    killed("FolderBlobs", "get_file", 2, "pull", *words, there, "--from", place)
    killed("Path", "rename", 1, "pull", *words, there, "--from", place)
    assert store.names(there) == store.versions(there, "colors") == []
    pull("colors/1", open_blobs(str(place)), there)
    assert contents(there / "colors" / "1") == contents(models / "colors" / "1")
