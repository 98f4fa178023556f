import pytest
from pydantic import ValidationError

from taxon.service.config import Settings, parse


@pytest.fixture(autouse=True)
def _clean_environ(monkeypatch):
    for name in Settings.model_fields:
        monkeypatch.delenv(f"TAXON_{name.upper()}", raising=False)


def test_every_field_is_a_flag_and_a_variable(monkeypatch):
    monkeypatch.setenv("TAXON_MAX_CALL_SECONDS", "3")
    monkeypatch.setenv("TAXON_DEVICE", "cuda")
    settings = parse(["--device", "cpu", "--drain-delay-seconds", "1.5"])
    assert (settings.max_call_seconds, settings.device, settings.drain_delay_seconds) == (3.0, "cpu", 1.5)


def test_every_field_has_help():
    assert all(field.description for field in Settings.model_fields.values())


def test_settings_are_frozen():
    with pytest.raises(ValidationError):
        parse([]).threads = 1


@pytest.mark.parametrize(
    "argv", [["--device", "tpu"], ["--listen", "here"], ["--metrics-port", "-1"], ["--max-queued-requests", "0"]]
)
def test_values_out_of_range(argv):
    with pytest.raises((ValidationError, SystemExit)):
        parse(argv)


def test_unknown_flags():
    with pytest.raises(SystemExit):
        parse(["--modles", "x"])


def test_kubernetes_service_links_are_explained(monkeypatch):
    monkeypatch.setenv("TAXON_PORT", "tcp://10.0.0.7:50051")
    monkeypatch.setenv("TAXON_SERVICE_HOST", "10.0.0.7")
    parse([])  # a Service named taxon does no harm
    monkeypatch.setenv("TAXON_METRICS_PORT", "tcp://10.0.0.7:9090")
    with pytest.raises(ValidationError, match="enableServiceLinks"):
        parse([])
