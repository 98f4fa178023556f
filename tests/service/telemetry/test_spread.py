from prometheus_client import generate_latest

from taxon.bundle.manifest import Distribution
from taxon.inference import open_inference_service_pb2 as infer_pb
from taxon.inference.open_inference_service_pb2_grpc import GRPCInferenceServiceStub
from taxon.service.telemetry.metrics import Metrics
from taxon.v1 import classification_service_pb2 as pb
from tests.fakes import COLORS, picture, toy_bundle

SCORE = Distribution(edges=(0.5, 0.9, 1.1), counts=(0, 3, 7, 0))


def page(metrics):
    return generate_latest(metrics.registry).decode()


def observed(metrics, bin_, version=1, measure="score"):
    labels = {"model": "m", "version": str(version), "measure": measure, "bin": bin_}
    return metrics.registry.get_sample_value("taxon_observed_inputs_total", labels)


def test_answers_are_counted_in_the_bins_of_validation():
    metrics, known = Metrics(), {"score": SCORE}
    for score in (0.1, 0.5, 0.89, 0.9, 1.0, 1.2):
        metrics.observed.observe("m", 1, known, {"score": score, "side": 3.0})
    assert [observed(metrics, edge) for edge in ("-Inf", "0.5", "0.9", "1.1")] == [1, 2, 2, 1]
    assert 'measure="side"' not in page(metrics)


def test_an_empty_bin_is_a_zero_and_validation_stands_beside_it():
    metrics = Metrics()
    metrics.show_models([], [], [], [("m", 1, {"score": SCORE})], 0)
    metrics.observed.observe("m", 1, {"score": SCORE}, {"score": 0.7})
    shown = page(metrics)
    for edge, count in (("-Inf", 0), ("0.5", 3), ("0.9", 7), ("1.1", 0)):
        assert f'taxon_validation_inputs{{bin="{edge}",measure="score",model="m",version="1"}} {count}.0' in shown
        assert observed(metrics, edge) == (edge == "0.5")


def test_counts_go_on_where_a_front_hears_the_same_again_and_begin_anew_with_other_bins():
    metrics = Metrics()
    for edges in ((0.5, 0.9, 1.1), (0.5, 0.9, 1.1), (0.6, 0.9, 1.1)):
        known = {"score": Distribution(edges=edges, counts=(0, 3, 7, 0))}
        metrics.observed.observe("m", 1, known, {"score": 0.7})
        if edges[0] == 0.6:
            assert observed(metrics, "0.5") is None
            assert observed(metrics, "0.6") == 1
    metrics.observed.observe("m", 2, {"score": SCORE}, {"score": 0.7})
    metrics.keep_versions({("m", 2)})
    assert observed(metrics, "0.6") is None
    assert observed(metrics, "0.5", version=2) == 1


async def test_what_both_protocols_answer_is_measured_as_export_measures_it(serve, tmp_path):
    """Pure red: a third of the light; 32 pixels a side; a score of nearly 1."""
    halves = Distribution(edges=(0.0, 0.3, 0.4), counts=(0, 3, 7, 0))
    spread = {"score": SCORE, "brightness": halves, "side": Distribution(edges=(31.5, 32.5), counts=(0, 1, 0))}
    toy_bundle(tmp_path, "m", distributions=spread)
    image = picture(COLORS["red"], size=(32, 32))
    infer = infer_pb.ModelInferRequest(model_name="m")
    infer.inputs.add(name="image", datatype="BYTES", shape=[1]).contents.bytes_contents.append(image)
    async with serve(tmp_path) as running:
        await running.stub.Classify(pb.ClassifyRequest(image=image), timeout=10)
        await GRPCInferenceServiceStub(running.channel).ModelInfer(infer, timeout=10)
        found = {
            (measure, edge): observed(running.server.metrics, edge, measure=measure)
            for measure, edge in (("score", "0.9"), ("brightness", "0.3"), ("side", "31.5"), ("side", "32.5"))
        }
        shown = page(running.server.metrics)
    assert found == {("score", "0.9"): 2, ("brightness", "0.3"): 2, ("side", "31.5"): 2, ("side", "32.5"): 0}
    assert 'taxon_validation_inputs{bin="0.3",measure="brightness",model="m",version="1"} 7.0' in shown
