"""What opening a bundle says beside its proof."""

from structlog.testing import capture_logs

from taxon.bundle import pixels
from taxon.bundle.picture_limits import Limits
from taxon.service.runtime.bundle_proof import prove
from taxon.service.runtime.device import CPU, Device
from tests.fakes import toy_bundle


def test_why_pictures_are_resized_slowly_is_logged(tmp_path, monkeypatch):
    monkeypatch.setattr(pixels, "why_slow", lambda spec: "no wheel")
    bundles = toy_bundle(tmp_path), toy_bundle(tmp_path, "numbers", features=True)
    with capture_logs() as events:
        for bundle in bundles:
            prove(bundle, "fp32", Device(CPU), 1, [1], Limits())
    slow = [event for event in events if event["event"] == "pictures are resized slowly, by NumPy"]
    assert [(event["model"], event["reason"]) for event in slow] == [("colors", "no wheel")]
