import re

import pytest
from pydantic import ValidationError

from taxon.service.config import Settings, parse
from taxon.service.server import main


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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("workers", "0"),
        ("workers", "100000"),
        ("decoders", "-1"),
        ("fronts", "0"),
        ("threads", "1000000"),
        ("listen", "[::]:65536"),
        ("metrics_port", "65536"),
        ("admin_port", "65536"),
        ("max_run_seconds", "0"),
        ("max_run_seconds", "1e300"),
        ("max_load_seconds", "nan"),
        ("max_call_seconds", "inf"),
        ("max_call_seconds", "-1"),
        ("drain_delay_seconds", "1e9"),
        ("drain_grace_seconds", "-0.5"),
        ("min_ping_seconds", "-1"),
        ("keepalive_seconds", "0.1"),
        ("max_batch_size", "2048"),
        ("max_queued_requests", "10000000000"),
        ("max_queued_bytes", "1000000000000000000000"),
        ("max_picture_bytes", "0"),
        ("max_picture_pixels", "99999999999"),
        ("max_message_bytes", "4294967296"),
    ],
)
def test_every_number_has_a_range_as_a_flag_and_as_a_variable(monkeypatch, capsys, name, value):
    option = f"--{name.replace('_', '-')}"
    assert main([f"{option}={value}"]) == 2
    flag = capsys.readouterr().err
    monkeypatch.setenv(f"TAXON_{name.upper()}", value)
    assert main([]) == 2
    variable = capsys.readouterr().err
    for error in (flag, variable):
        assert error.startswith(f"taxon serve: {option}: ")
        assert error.count("\n") == 1
        assert "Traceback" not in error


def test_no_number_is_without_both_ends_of_its_range():
    for name, schema in Settings.model_json_schema()["properties"].items():
        for kind in schema.get("anyOf", [schema]):
            if kind.get("type") in ("integer", "number"):
                assert {"minimum", "exclusiveMinimum"} & kind.keys(), name
                assert "maximum" in kind, name


def test_unknown_flags():
    with pytest.raises(SystemExit):
        parse(["--modles", "x"])


def test_kubernetes_service_links_are_explained(monkeypatch):
    monkeypatch.setenv("TAXON_PORT", "tcp://10.0.0.7:50051")
    monkeypatch.setenv("TAXON_SERVICE_HOST", "10.0.0.7")
    parse([])  # a Service named taxon does no harm
    for port in ("METRICS", "ADMIN"):
        with monkeypatch.context() as patch:
            patch.setenv(f"TAXON_{port}_PORT", "tcp://10.0.0.7:9090")
            with pytest.raises(ValidationError, match="enableServiceLinks"):
                parse([])


@pytest.mark.parametrize(
    ("listen", "flags", "fault"),
    [
        ("[::]:50051", [], "--listen [::]:50051 can be reached from other machines"),
        ("0.0.0.0:0", [], "--insecure"),
        ("10.0.0.7:50051", [], "--insecure"),
        ("taxon.example:50051", [], "--insecure"),
        ("[::]:50051", ["--insecure"], ""),
        ("[::]:50051", ["--tls-cert", "c", "--tls-key", "k"], ""),
        ("127.0.0.1:50051", [], ""),
        ("127.0.0.2:50051", [], ""),
        ("[::1]:50051", [], ""),
        ("localhost:50051", [], ""),
        ("localhost:50051", ["--admin-port", "0", "--admin-host", "0.0.0.0"], "--admin-host 0.0.0.0:0 can be reached"),
        ("localhost:50051", ["--admin-host", "0.0.0.0"], ""),
        ("localhost:50051", ["--tls-cert", "c"], "--tls-cert and --tls-key go together"),
        ("localhost:50051", ["--tls-key", "k"], "--tls-cert and --tls-key go together"),
        ("localhost:50051", ["--tls-client-ca", "a"], "--tls-client-ca needs --tls-cert"),
        ("localhost:50051", ["--max-caller-calls", "3"], "--max-caller-calls-per-second need --keys"),
        ("localhost:50051", ["--max-caller-calls-per-second", "3", "--keys", "k"], ""),
    ],
)
def test_what_is_not_encrypted_must_be_said_aloud(listen, flags, fault, capsys):
    words = ["--listen", listen, *flags]
    if not fault:
        assert parse(words).listen == listen
        return
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith("taxon serve: --")
    assert fault in said


def test_the_default_stays_on_this_machine():
    assert parse([]).listen == "127.0.0.1:50051"


def test_help_begins_with_what_everybody_sets(capsys):
    """Not with feedback, which is off unless somebody asks for it."""
    with pytest.raises(SystemExit):
        main(["--help"])
    flags = re.findall(r"^  (--[a-z-]+)", capsys.readouterr().out, flags=re.MULTILINE)
    assert flags[:2] == ["--models", "--listen"]
