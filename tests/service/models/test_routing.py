"""Who answers a call that names no version, and what is told of it."""

import asyncio

import pytest

from taxon.bundle.picture_limits import PictureUndecodableError
from taxon.bundle.traffic import Canary, Traffic
from taxon.service.errors import (
    DeadlineTooShortError,
    FieldInvalidError,
    InferenceFailedError,
    NotFiniteError,
    NotServingError,
    QueueFullError,
    WorkerEndedError,
)
from taxon.service.models.model import VersionState
from taxon.service.models.repository import Repository
from taxon.service.models.routing import Routing, Seen, outcome_of, place
from tests.service.models.known_models import graph, model

DECLARED = Traffic(labels={"stable": 1}, canary=Canary(version=2, share=0.25))


@pytest.fixture
def repository():
    made = Repository()
    made.finish_loading()
    for version in (1, 2):
        made.publish(graph("colors", version))
    made.declare("colors", DECLARED)
    return made


class Played:
    """A routing whose chance and reports are seen."""

    def __init__(self, repository):
        self.repository, self.drawn, self.seen = repository, 0.0, []
        self.routing = Routing(repository, self.seen.append, lambda: self.drawn)

    def route(self, version="", key=""):
        found = self.repository.find("colors", version)
        return self.routing.route(found, version, key, tensors=True)

    def goes_to(self, **words):
        routed = self.route(**words)
        return routed.model.version, routed.part


@pytest.fixture
def played(repository):
    return Played(repository)


@pytest.mark.parametrize("version", ["", "stable"])
def test_its_share_of_what_names_no_version_goes_to_the_canary(played, version):
    for drawn, goes_to in ((0.0, (2, "canary")), (0.2499, (2, "canary")), (0.25, (1, "default"))):
        played.drawn = drawn
        assert played.goes_to(version=version) == goes_to


@pytest.mark.parametrize("version", ["1", "2"])
def test_what_names_a_version_goes_there(played, version):
    assert played.goes_to(version=version) == (int(version), "named")


def test_a_key_stays_where_it_is_and_keys_are_spread(played):
    parts = {key: played.goes_to(key=key) for key in map(str, range(4000))}
    for drawn in (0.0, 0.9):
        played.drawn = drawn
        assert {key: played.goes_to(key=key) for key in list(parts)[:100]} == dict(list(parts.items())[:100])
    count = sum(part == "canary" for _, part in parts.values())
    assert abs(count - 1000) < 5 * (4000 * 0.25 * 0.75) ** 0.5  # five standard deviations
    played.repository.declare("colors", Traffic(labels={"stable": 1}, canary=Canary(version=2, share=0.5)))
    grown = {key for key in parts if played.goes_to(key=key)[1] == "canary"}
    assert {key for key, (_, part) in parts.items() if part == "canary"} < grown


def test_keys_meet_another_canary_by_another_chance():
    first, second = ({key for key in range(1000) if place(f"colors/{v}/{key}") < 0.2} for v in (2, 3))
    assert 10 < len(first & second) < 90  # 40 by chance


@pytest.mark.parametrize("reason", ["lost", "unloaded"])
def test_the_default_answers_while_the_canary_is_not_served(played, repository, reason):
    canary = repository.find("colors", "2")
    repository.retire(canary, reason)
    assert played.goes_to() == (1, "default")
    trial = repository.trial("colors", 2)
    assert (trial.state, trial.reason) == ("NOT_SERVED", reason)
    repository.note(VersionState("colors", 2, "LOADING"))
    assert repository.trial("colors", 2).state == "LOADING"
    repository.publish(canary)
    assert played.goes_to() == (2, "canary")


def test_a_canary_that_takes_something_else_blames_no_caller(repository):
    repository.publish(model("colors", 2, manifest=None))
    played = Played(repository)
    assert played.route().part == "canary"
    found = repository.find("colors", "")
    assert played.routing.route(found, "", "").part == "default"  # neither has a manifest


def test_without_a_canary_nothing_is_told(played, repository):
    repository.declare("colors", Traffic(labels={"stable": 1}))
    assert played.goes_to() == (1, "default")
    played.routing.ended(played.route(), "error", 1.0)
    assert played.seen == []


def test_of_the_default_as_much_is_told_as_of_the_canary(played):
    canary = played.route()
    played.drawn = 0.9
    default = played.route()
    for _ in range(3):
        played.routing.ended(default, "answer", 0.1)
    assert played.seen == []
    for _ in range(2):
        played.routing.ended(canary, "nan", 0.2)
    for _ in range(5):
        played.routing.ended(default, "answer", 0.1)
    assert played.seen == [Seen("colors", 2, "nan", 0.2)] * 2 + [Seen("colors", 1, "answer", 0.1)] * 2


def test_what_is_no_versions_fault_is_not_told(played):
    for outcome in ("refused", "caller", "cancelled"):
        played.routing.ended(played.route(), outcome, 0.1)
    played.routing.ended(played.route(version="2"), "error", 0.1)
    assert played.seen == []


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, "answer"),
        (asyncio.CancelledError(), "cancelled"),
        (FieldInvalidError("x", "y"), "caller"),
        (PictureUndecodableError("x", "y"), "caller"),
        (NotFiniteError("x"), "nan"),
        (WorkerEndedError("x"), "fatal"),
        (InferenceFailedError("x"), "error"),
        (NotServingError("x"), "refused"),
        (QueueFullError("x", 1.0, queued_count=1, max_queued_count=1), "refused"),
        (DeadlineTooShortError(0, 1), "error"),
        (RuntimeError("unforeseen"), "error"),
    ],
)
def test_what_an_end_says_of_a_version(error, outcome):
    assert outcome_of(error) == outcome


def test_who_leaves_at_the_deadline_was_not_answered_in_time():
    assert outcome_of(asyncio.CancelledError(), late=True) == "error"
    assert outcome_of(FieldInvalidError("x", "y"), late=True) == "caller"
