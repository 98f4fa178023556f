"""When a canary is rolled back, and when it is tried again."""

import pytest
from structlog.testing import capture_logs

from taxon.bundle.traffic import Bounds, Canary, Traffic
from taxon.service.models.repository import Repository
from taxon.service.models.rollback import Rollback
from taxon.service.models.routing import Seen
from tests.fakes import FakeClock
from tests.service.models.known_models import graph

BOUNDS = Bounds(window=100, min_calls=40, max_error_increase=0.05, max_nan_increase=0.0, max_latency_ratio=2.0)
CANARY = Canary(version=2, share=0.1, bounds=BOUNDS)


class Server:
    """A default and a canary, and what becomes of their calls."""

    def __init__(self):
        self.repository, self.clock, self.counted = Repository(), FakeClock(), []
        for version in (1, 2):
            self.repository.publish(graph("colors", version))
        self.declare(CANARY)
        self.judge = Rollback(self.repository, lambda *which: self.counted.append(which), self.clock)

    def declare(self, canary, stable=1):
        self.repository.declare("colors", Traffic(labels={"stable": stable}, canary=canary))

    def call(self, version, outcome="answer", seconds=0.1, count=1):
        number = self.repository.known.models["colors"][version].number
        for _ in range(count):
            self.clock.now += 0.01
            self.judge.take(Seen("colors", number, outcome, seconds))

    def both(self, count, canary=("answer", 0.1), default=("answer", 0.1)):
        for _ in range(count):
            self.call(2, *canary)
            self.call(1, *default)

    @property
    def trial(self):
        return self.repository.trial("colors", 2)

    @property
    def runs(self):
        return self.trial.state == "RUNNING"


@pytest.fixture
def server():
    return Server()


def test_a_sound_canary_goes_on(server):
    server.both(500)
    assert server.runs
    assert server.counted == []


def test_errors_beyond_the_bound_end_it_and_are_told(server):
    server.both(36)
    with capture_logs() as events:
        server.both(3, ("error", 0.1))
        assert server.runs  # 3 of 39: too few calls to tell
        server.both(1)
    assert (server.trial.state, server.trial.reason) == (
        "ROLLED_BACK",
        "7.5% of its last 40 calls failed, the default's 0.0%",
    )
    assert server.counted == [("colors", 2)]
    (event,) = [event for event in events if event["log_level"] == "error"]
    assert event["event"] == "canary was rolled back, the default answers"
    assert (event["model"], event["version"], event["reason"]) == ("colors", 2, server.trial.reason)


def test_what_the_default_suffers_as_well_is_not_its_fault(server):
    for _ in range(10):
        server.both(10, ("error", 0.1), ("error", 0.1))
        server.both(10, ("answer", 5.0), ("answer", 5.0))
    assert server.runs


def test_a_single_answer_that_is_no_number_is_beyond_a_bound_of_zero(server):
    server.both(39)
    server.call(2, "nan")
    assert "2.5% of its last 40 calls gave scores that are not numbers" in server.trial.reason


def test_three_dead_workers_end_it_at_once(server):
    """A hundred would be the end of all other models too."""
    server.both(2, ("fatal", 0.1))
    server.both(5)
    assert server.runs
    server.call(2, "fatal")
    assert server.trial.reason == "3 of its last 8 calls ended their worker, of the default's 0"


def test_inputs_that_end_any_worker_are_not_its_fault(server):
    for _ in range(30):
        server.both(1, ("fatal", 0.1), ("fatal", 0.1))
    assert server.runs


def test_slow_answers_end_it_and_one_does_not(server):
    server.both(99)
    server.call(2, seconds=9.0)
    server.both(60)
    assert server.runs
    server.both(12, ("answer", 0.3))
    assert server.trial.reason == ("a tenth of its last 100 calls took 300.0 ms or more, the default's 100.0 ms")


def test_answers_that_are_fast_anyway_are_not_compared(server):
    server.both(200, ("answer", 0.004), ("answer", 0.001))
    assert server.runs


def test_only_the_last_calls_count(server):
    server.both(40, ("answer", 0.1))
    server.both(1, ("error", 0.1))
    server.both(95)
    server.both(4, ("error", 0.1))  # of the last 100, with the first one six
    assert server.runs
    server.both(2, ("error", 0.1))
    assert server.trial.state == "ROLLED_BACK"


def test_the_default_of_another_time_is_not_compared_with(server):
    """It was slow when the canary was not there yet; they are fast together, and then the canary becomes slow."""
    server.call(1, seconds=5.0, count=100)
    server.both(50)
    server.both(60, ("answer", 0.5))
    assert "the default's 100.0 ms" in server.trial.reason


def test_it_is_not_tried_again_by_itself(server):
    server.both(40, ("error", 0.1))
    server.both(100)
    server.repository.declare("colors", Traffic(labels={"stable": 1, "candidate": 2}, canary=CANARY))
    assert server.trial.state == "ROLLED_BACK"
    assert server.counted == [("colors", 2)]


def test_it_is_tried_again_once_it_is_declared_anew_or_its_files_have_changed(server):
    server.both(40, ("error", 0.1))
    server.declare(CANARY.model_copy(update={"declared": "later"}))
    assert server.runs
    server.both(39, ("error", 0.1))
    assert server.runs  # from the beginning
    server.call(2, "error")
    assert not server.runs
    server.repository.publish(graph("colors", 2, number=17))
    assert server.runs
    server.both(40, ("error", 0.1))
    assert not server.runs


def test_another_default_begins_another_comparison(server):
    server.both(39, ("error", 0.1))
    server.repository.publish(graph("colors", 3))
    server.declare(CANARY, stable=3)
    server.call(2, "error")
    assert server.runs


def test_what_comes_late_counts_for_nothing(server):
    number = server.repository.known.models["colors"][2].number
    server.repository.retire(server.repository.known.models["colors"][2], "lost")
    for _ in range(50):
        server.judge.take(Seen("colors", number, "error", 0.1))
    server.repository.publish(graph("colors", 2, number=17))
    for _ in range(50):
        server.judge.take(Seen("colors", number, "error", 0.1))
    server.repository.declare("colors", Traffic())
    server.judge.take(Seen("colors", number, "error", 0.1))
    assert server.counted == []
