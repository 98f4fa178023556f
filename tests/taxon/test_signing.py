"""What a signature covers, and which are refused."""

import subprocess
import sys

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from taxon.bundle import signing, store
from taxon.bundle.manifest import BundleError
from taxon.bundle.signing import KeyFileError
from taxon.sign import main
from tests.fakes import toy_bundle
from tests.keys import write_keys


@pytest.fixture
def signed(tmp_path):
    """A repository `m` with a signed bundle, and the keys `ours` and `other` beside it."""
    private, _ = write_keys(tmp_path, "ours")
    write_keys(tmp_path, "other")
    toy_bundle(tmp_path / "m")
    assert main(["colors", "1", "--models", str(tmp_path / "m"), "--sign-key", str(private)]) == 0
    return tmp_path


def read(folder, key="ours.pub"):
    return store.read(folder / "m", "colors", 1, signing.checker(folder / key))


def test_a_signed_bundle_is_read(signed):
    assert read(signed).manifest.name == "colors"
    assert store.read(signed / "m", "colors", 1).manifest.name == "colors"  # nobody asks for the signature


def test_one_of_several_keys_is_enough(signed):
    both = (signed / "other.pub").read_bytes() + b"# the one before:\n" + (signed / "ours.pub").read_bytes()
    (signed / "both.pub").write_bytes(both)
    assert read(signed, "both.pub").manifest.name == "colors"


def unsigned(folder):
    (folder / "manifest.sig").unlink()


def tampered_file(folder):
    graph = folder / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"x")


def tampered_file_and_digest(folder):
    before = store.sha256(folder / "model.onnx")
    tampered_file(folder)
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace(before, store.sha256(folder / "model.onnx")))


def tampered_manifest(folder):
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"accuracy": 0.5', '"accuracy": 0.9'))


def torn_signature(folder):
    signature = folder / "manifest.sig"
    signature.write_bytes(signature.read_bytes()[:-1])


def another_versions_signature(folder):
    other = toy_bundle(folder.parents[1]).folder
    (folder / "manifest.json").write_bytes((other / "manifest.json").read_bytes())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (unsigned, "it is not signed"),
        (tampered_file, r"model\.onnx has sha256"),
        (tampered_file_and_digest, "not by a required key"),
        (tampered_manifest, "not by a required key"),
        (torn_signature, "not by a required key"),
        (another_versions_signature, "not by a required key"),
    ],
)
def test_what_was_changed_is_refused(signed, change, reason):
    change(signed / "m" / "colors" / "1")
    with pytest.raises(BundleError, match=reason):
        read(signed)


def test_another_key_is_refused(signed):
    with pytest.raises(BundleError, match="not by a required key"):
        read(signed, "other.pub")


def test_a_signed_version_under_another_number_is_refused(signed):
    """What was signed stays what it was: an old version cannot come back as a new one."""
    (signed / "m" / "colors" / "1").rename(signed / "m" / "colors" / "2")
    with pytest.raises(BundleError, match="do not rename bundles"):
        store.read(signed / "m", "colors", 2, signing.checker(signed / "ours.pub"))


def test_a_file_that_changes_between_check_and_use_is_refused(signed):
    bundle = read(signed)
    tampered_file(bundle.folder)
    with pytest.raises(BundleError, match=r"model\.onnx has changed since it was checked"):
        bundle.read("model.onnx")


def test_openssl_agrees(signed):
    """The signature is plain Ed25519 over the file: no tool of ours is needed to check it."""
    folder = signed / "m" / "colors" / "1"
    # fmt: off
    words = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", signed / "ours.pub", "-rawin",
             "-in", folder / "manifest.json", "-sigfile", folder / "manifest.sig"]
    # fmt: on
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=20)
    except FileNotFoundError:
        pytest.skip("no openssl here")
    assert "Signature Verified Successfully" in done.stdout


def test_a_published_version_is_signed_before_it_is_seen(tmp_path):
    private, public = write_keys(tmp_path, "ours")
    source = toy_bundle(tmp_path / "source")
    with store.staging(tmp_path / "m", "colors") as staged:
        for file in source.manifest.files:
            (staged / file).parent.mkdir(exist_ok=True)
            (staged / file).write_bytes(source.read(file))
        store.publish(staged, source.manifest, signing.signer(private))
    bundle = store.read(tmp_path / "m", "colors", 1, signing.checker(public))
    assert "manifest.sig" not in bundle.manifest.files


def test_keys_that_cannot_be_used_are_named(tmp_path, signed):
    private, public = signed / "ours.key", signed / "ours.pub"
    (signed / "empty").write_bytes(b"")
    curve = generate_private_key(SECP256R1())
    plain = (Encoding.PEM, PrivateFormat.PKCS8)
    (signed / "curve.key").write_bytes(curve.private_bytes(*plain, NoEncryption()))
    (signed / "curve.pub").write_bytes(curve.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    secret = Ed25519PrivateKey.generate().private_bytes(*plain, BestAvailableEncryption(b"word"))
    (signed / "secret.key").write_bytes(secret)
    for use, file, reason in [
        (signing.signer, signed / "nowhere", "cannot be read: No such file"),
        (signing.signer, public, "is not a private key"),
        (signing.signer, signed / "empty", "is not a private key"),
        (signing.signer, signed / "secret.key", "without a password"),
        (signing.signer, signed / "curve.key", "is not an Ed25519 key"),
        (signing.checker, signed / "nowhere", "cannot be read"),
        (signing.checker, private, "is not a public key"),
        (signing.checker, signed / "empty", "no public key"),
        (signing.checker, signed / "curve.pub", "not Ed25519"),
    ]:
        with pytest.raises(KeyFileError, match=reason):
            use(file)


def test_a_damaged_version_is_not_signed(signed, capsys):
    folder = signed / "m" / "colors" / "1"
    before = (folder / "manifest.sig").read_bytes()
    tampered_file(folder)
    assert main(["colors", "1", "--models", str(signed / "m"), "--sign-key", str(signed / "other.key")]) == 2
    assert "sha256" in capsys.readouterr().err
    assert (folder / "manifest.sig").read_bytes() == before


@pytest.mark.slow
def test_the_library_is_needed_only_for_keys(tmp_path):
    """Without it everything else works, and who asks for signatures is told what to install."""
    program = (
        "import sys\n"
        "sys.modules['cryptography'] = None\n"
        "import taxon.service.server, taxon.service.workers.worker_main, taxon.training.commands.export\n"
        "sys.exit(taxon.service.server.main(['--models', sys.argv[1], '--require-signature', sys.argv[1]]))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "pip install -e '.[signing]'" in done.stderr
