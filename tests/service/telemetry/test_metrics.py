from prometheus_client import CollectorRegistry, Histogram, generate_latest

from taxon.service.telemetry.metrics import STAGE_BUCKETS_S, Metrics


def test_stage_seconds_read_like_a_histogram_of_prometheus_own():
    seconds = [0.0, 0.001, 0.0011, 0.05, 7.0, 10.0, 11.0]
    metrics, registry = Metrics(), CollectorRegistry()
    usual = Histogram(
        "taxon_stage_seconds",
        "Time of answered inputs in each stage: preprocess, queue, inference, total.",
        ["model", "version", "stage"],
        buckets=STAGE_BUCKETS_S,
        registry=registry,
    )
    for second in seconds:
        metrics.stage_seconds.observe("m", 1, [("queue", second), ("total", second * 2)])
        usual.labels("m", "1", "queue").observe(second)
        usual.labels("m", "1", "total").observe(second * 2)

    def lines(page):
        return {line for line in page.decode().splitlines() if "stage_seconds" in line and "_created" not in line}

    assert lines(generate_latest(metrics.registry)) == lines(generate_latest(registry))


def test_versions_that_have_left_leave_the_page():
    """Else it would grow for ever where versions come and go."""
    metrics = Metrics()
    for version in (1, 2):
        metrics.stage_seconds.observe("m", version, [("total", 0.1)])
        metrics.count_version("m", version, "default", "answer")
    metrics.keep_versions({("m", 2)})
    metrics.count_version("m", 2, "default", "answer")
    page = generate_latest(metrics.registry).decode()
    assert 'version="1"' not in page
    labels = {"model": "m", "version": "2", "part": "default", "outcome": "answer"}
    assert metrics.registry.get_sample_value("taxon_version_requests_total", labels) == 2
    assert 'taxon_stage_seconds_count{model="m",stage="total",version="2"} 1.0' in page
