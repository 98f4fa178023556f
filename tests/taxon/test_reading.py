"""Every reader of a bundle says "BundleError" and the file's name, whatever the system says."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from taxon.bundle import signing, store, version_labels
from taxon.bundle.manifest import BundleError
from tests.keys import write_keys
from tests.taxon.test_store import publish


@pytest.fixture
def bundle(tmp_path):
    return publish(tmp_path)


def failing(monkeypatch, name: str, code: int) -> None:
    """Files of this name cannot be opened any more."""
    open_ = Path.open

    def refuse(path: Path, *arguments: object, **named: object):
        if path.name == name:
            raise OSError(code, os.strerror(code), str(path))
        return open_(path, *arguments, **named)

    monkeypatch.setattr(Path, "open", refuse)


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.EACCES, errno.ENOENT])
@pytest.mark.parametrize("name", ["manifest.json", "model.onnx", "0.json"])
def test_a_file_that_cannot_be_read_refuses_the_bundle(bundle, monkeypatch, tmp_path, name, code):
    """ENOENT: it goes between the look whether it is there and the opening."""
    failing(monkeypatch, name, code)
    for read in (lambda: store.read(tmp_path, "pets", 1), lambda: store.read_folder(bundle.folder)):
        with pytest.raises(BundleError, match=rf"{name} cannot be read: {os.strerror(code)}"):
            read()


def test_a_disk_that_fails_while_it_is_read_refuses_the_bundle(bundle, monkeypatch, tmp_path):
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(store.hashlib, "file_digest", fail)
    with pytest.raises(BundleError, match=r"(model\.onnx|0\.json) cannot be read: Input/output error"):
        store.read(tmp_path, "pets", 1)


def test_a_folder_that_cannot_be_looked_into_refuses_the_bundle(bundle, monkeypatch, tmp_path):
    is_file = Path.is_file

    def refuse(path: Path) -> bool:
        if path.name == "model.onnx":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(BundleError, match=r"model\.onnx cannot be read: Permission denied"):
        store.read(tmp_path, "pets", 1)


def test_a_file_that_goes_after_the_check_is_named(bundle):
    (bundle.folder / "model.onnx").unlink()
    with pytest.raises(BundleError, match=r"model\.onnx cannot be read: No such file"):
        bundle.read("model.onnx")


def test_a_digest_names_the_file(tmp_path):
    with pytest.raises(BundleError, match=r"gone\.bin cannot be read: No such file"):
        store.sha256(tmp_path / "gone.bin")


def test_a_signature_that_cannot_be_read_is_named(bundle, monkeypatch, tmp_path):
    private, public = write_keys(tmp_path, "ours")
    signing.write(bundle.folder, signing.signer(private))
    check = signing.checker(public)
    failing(monkeypatch, "manifest.sig", errno.EIO)
    with pytest.raises(BundleError, match=r"manifest\.sig cannot be read: Input/output error"):
        store.read(tmp_path, "pets", 1, check)


def write_labels(root, *names):
    """In the form of earlier releases."""
    (root / "pets" / "labels").mkdir()
    for name in names:
        (root / "pets" / "labels" / name).write_text("1\n")


def test_a_label_that_cannot_be_read_is_named(bundle, monkeypatch, tmp_path):
    write_labels(tmp_path, "stable")
    failing(monkeypatch, "stable", errno.ESTALE)
    with pytest.raises(BundleError, match=r"labels/stable cannot be read: Stale file handle"):
        version_labels.read(tmp_path, "pets")


def test_a_label_that_is_taken_away_meanwhile_is_none(bundle, monkeypatch, tmp_path):
    write_labels(tmp_path, "stable", "candidate")
    failing(monkeypatch, "stable", errno.ENOENT)
    assert version_labels.read(tmp_path, "pets") == {"candidate": 1}


OTHER_USER = """
import os
from pathlib import Path
from taxon.bundle import store, version_labels
from taxon.bundle.manifest import BundleError
if os.getuid() == 0:
    os.setuid(65534)
root = Path()
print(store.names(root), store.versions(root, "private"), store.versions(root, "pets"))
for read in (
    lambda: store.read(root, "pets", 1),
    lambda: store.read(root, "pets", 2),
    lambda: store.read(root, "private", 1),
    lambda: version_labels.read(root, "pets"),
    lambda: version_labels.read(root, "private"),
):
    try:
        read()
    except BundleError as error:
        print(error)
print(store.read(root, "pets", 3).manifest.version)
"""


def test_what_another_user_may_not_read_hides_nothing_else(bundle, tmp_path):
    """Real permissions, as a user who is not root."""
    for _ in range(2):
        publish(tmp_path)
    write_labels(tmp_path, "stable")
    for folder in ("private/1", "lost+found"):
        (tmp_path / folder).mkdir(parents=True)
    closed = [tmp_path / path for path in ("private", "lost+found", "pets/2", "pets/labels")]
    (bundle.folder / "model.onnx").chmod(0)
    for folder in closed:
        folder.chmod(0)
    tmp_path.chmod(0o755)
    try:
        done = subprocess.run(
            [sys.executable, "-c", OTHER_USER],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        for folder in closed:
            folder.chmod(0o755)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "['pets'] [] [1, 2, 3]",
        "pets/1/model.onnx cannot be read: Permission denied",
        "pets/2/manifest.json cannot be read: Permission denied",
        "private/1/manifest.json cannot be read: Permission denied",
        "pets/labels cannot be read: Permission denied",
        "private/traffic.json cannot be read: Permission denied",
        "3",
    ]
