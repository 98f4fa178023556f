import numpy as np

from taxon.bundle.manifest import PixelSpec
from taxon.bundle.picture_limits import Limits
from taxon.training.dataset import data, scan_pictures
from taxon.training.dataset.data import Sample
from taxon.training.dataset.pictures import decode_all
from taxon.training.dataset.scan_pictures import look_at_all
from tests.training.drawings import drawing, write_faulty
from tests.training.folders import write_folder


def test_a_pointer_in_a_pictures_place_says_so(tmp_path):
    path = tmp_path / "0.jpg"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    _, _, faults = look_at_all([Sample(path, 0)])
    _, _, at_training = decode_all([Sample(path, 0, sha256="0")], PixelSpec(resize=8, crop=(8, 8)), tmp_path, 1e9)
    assert {fault.reason for fault in (*faults, *at_training)} == {"is a git-LFS pointer (run `git lfs pull`)"}


def test_processes_see_what_threads_see(tmp_path, monkeypatch):
    samples = data.scan(write_faulty(tmp_path)).samples
    by_threads = look_at_all(samples)
    monkeypatch.setattr(scan_pictures, "PROCESSES_FROM", 1)
    by_processes = look_at_all(samples)
    assert by_processes[0] == by_threads[0]
    np.testing.assert_array_equal(by_processes[1], by_threads[1])
    assert by_processes[2] == by_threads[2]
    reasons = {fault.path.name: fault.reason for fault in by_threads[2]}
    assert reasons["empty.jpg"] == "is empty"
    assert reasons["text.png"] == "is no JPEG, PNG, WebP or GIF picture"
    assert "truncated" in reasons["cut.jpg"]


def test_what_training_and_service_refuse_is_found(tmp_path, monkeypatch):
    write_folder(tmp_path, 2)
    drawing(1).save(tmp_path / "dark" / "scans.jpg", progressive=True)
    encoded = (tmp_path / "dark" / "scans.jpg").read_bytes()
    scan = encoded[encoded.rindex(b"\xff\xda") : -2]
    (tmp_path / "dark" / "scans.jpg").write_bytes(encoded[:-2] + 100 * scan + encoded[-2:])
    drawing(2, side=200).save(tmp_path / "light" / "large.png")
    monkeypatch.setattr(scan_pictures, "LIMITS", Limits(max_pixels=150 * 150))
    _, _, faults = look_at_all(data.scan(tmp_path).samples)
    assert [(fault.path.name, fault.reason) for fault in faults] == [
        ("scans.jpg", "has more than 100 scans"),
        ("large.png", "has 200x200 pixels, at most 22500 are allowed"),
    ]
