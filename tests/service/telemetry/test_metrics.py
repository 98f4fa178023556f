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
        metrics.stage_seconds.observe(second, "m", 1, "queue")
        metrics.stage_seconds.observe(second * 2, "m", 1, "total")
        usual.labels("m", "1", "queue").observe(second)
        usual.labels("m", "1", "total").observe(second * 2)

    def lines(page):
        return {line for line in page.decode().splitlines() if "stage_seconds" in line and "_created" not in line}

    assert lines(generate_latest(metrics.registry)) == lines(generate_latest(registry))


def test_versions_that_have_left_leave_the_page():
    """Else it would grow for ever where versions come and go."""
    metrics = Metrics()
    for version in (1, 2):
        metrics.stage_seconds.observe(0.1, "m", version, "total")
        metrics.deadline_slack.observe(0.1, "m", version)
        metrics.on_batch("m", version)(3, 1, 4)
        metrics.count_version("m", version, "default", "answer")
    metrics.keep_versions({("m", 2)})
    metrics.count_version("m", 2, "default", "answer")
    page = generate_latest(metrics.registry).decode()
    assert 'version="1"' not in page
    labels = {"model": "m", "version": "2", "part": "default", "outcome": "answer"}
    assert metrics.registry.get_sample_value("taxon_version_requests_total", labels) == 2
    assert 'taxon_stage_seconds_count{model="m",stage="total",version="2"} 1.0' in page


def test_what_a_run_was_padded_with_is_counted():
    metrics = Metrics()
    on_batch = metrics.on_batch("m", 1)
    on_batch(3, 0, 4)
    on_batch(4, 0, 4)
    on_batch(2, 1)  # its inputs had to be run one by one
    value, labels = metrics.registry.get_sample_value, {"model": "m", "version": "1"}
    assert value("taxon_padded_inputs_total", labels) == 1
    assert value("taxon_batch_size_sum", labels) == 9
    assert value("taxon_dropped_inputs_total", labels) == 1
