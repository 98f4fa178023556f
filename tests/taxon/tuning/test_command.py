"""`taxon tune` on servers that are made up."""

import json
from contextlib import contextmanager

import pytest

from taxon.tuning.command import main
from taxon.tuning.server import ServerError, Serving
from taxon.tuning.settings import Layout
from taxon.v1 import classification_service_pb2 as pb
from tests.fakes import toy_bundle
from tests.taxon.bench.test_asking import Classifying, served

LAYOUT = Layout(workers=1, decoders=0, fronts=1, largest_batch=1)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr("taxon.bench.capacity.RESOLUTION", 0.5)  # two probes, not six


def starting(seen, fails=""):
    @contextmanager
    def start(_models, _model, flags):
        seen.append(list(flags))
        if fails in flags:
            raise ServerError("taxon serve has ended: no such thing here")
        service = Classifying(image=pb.ImageInput(height=32, width=32))
        service.model.name, service.model.version, service.model.variant = "colors", "1", "fp32"
        with served(service) as server:
            yield Serving(server.target, LAYOUT, service.model)

    return start


def words(models, tmp_path, *more):
    pictures = next((models / "colors/1/golden").iterdir())
    own = [str(models), "--p99-ms", "900", "--seconds", "0.02", "--out", str(tmp_path / "tuned")]
    return [*own, "--pictures", str(pictures), *more]


@pytest.mark.usefixtures("quick")
def test_tries_each_change_beside_the_defaults_and_writes_down_what_it_found(tmp_path, capsys):
    models, seen = tmp_path / "models", []
    toy_bundle(models)
    given = words(models, tmp_path, "--", "--max-queued-requests", "99")
    assert main(given, starting(seen, fails="--max-batch-size")) == 0
    assert all(flags[:2] == ["--max-queued-requests", "99"] for flags in seen)
    tried = {" ".join(flags[2:]) for flags in seen}
    assert tried >= {"", "--fronts 2", "--max-batch-size 2"}
    told = json.loads((tmp_path / "tuned/evidence.json").read_text())
    assert told["predicted_calls_per_s"] > 0
    failed = [one for one in told["measured"] if "max_batch_size" in one["tried"]]
    assert [one["rate"] for one in failed] == [0.0] * len(failed)
    assert "no such thing here" in capsys.readouterr().out
    assert (tmp_path / "tuned/taxon.env").read_text().startswith("# taxon tune: colors/1 on 1 cores")


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["--min-accuracy", "1.0"], "no variant of colors 1 has an accuracy of 1.0"),
        (["--pictures", "none"], "none"),
        (["--model", "shapes"], "has no bundle shapes; it has ['colors']"),
    ],
)
def test_what_cannot_be_tuned_is_told(models, tmp_path, more, reason, capsys):
    assert main(words(models, tmp_path, *more), starting([])) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "tuned").exists()


def test_which_of_several_is_asked_before_a_server_loads_them(models, tmp_path, capsys):
    toy_bundle(models, "shapes")
    seen = []
    assert main(words(models, tmp_path), starting(seen)) == 2
    assert "name one of ['colors', 'shapes'] by --model" in capsys.readouterr().err
    assert seen == []


def test_without_a_server_there_is_nothing_to_tune(models, tmp_path, capsys):
    assert main(words(models, tmp_path, "--", "--device", "cuda"), starting([], fails="cuda")) == 2
    assert "taxon tune: taxon serve has ended" in capsys.readouterr().err
