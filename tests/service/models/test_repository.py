"""What answers whom: names, versions, labels and defaults, while models come and go."""

import pytest
from structlog.testing import capture_logs

from taxon.bundle.traffic import Canary, Traffic
from taxon.service.errors import FieldInvalidError, ModelNotFoundError, NotServingError
from taxon.service.models.model import VersionState
from taxon.service.models.repository import Repository
from tests.service.models.known_models import graph, model


@pytest.fixture
def repository():
    """One that has loaded its folder, which was empty."""
    made = Repository()
    made.finish_loading()
    return made


def label(repository, name, labels):
    repository.declare(name, Traffic(labels=labels))


def publish(repository, *versions, name="colors"):
    for version in versions:
        repository.publish(model(name, version))


def default(repository, name="colors"):
    """The version that answers those who name none; None if that is refused as not serving."""
    try:
        found = repository.find(name, "").version
    except NotServingError:
        assert repository.default_version(name) is None
        return None
    assert repository.default_version(name) == found
    return found


# The default


def test_without_a_label_the_latest_answers(repository):
    publish(repository, 2, 10, 9)
    assert default(repository) == 10


def test_the_labelled_version_answers(repository):
    publish(repository, 1, 2, 3)
    for stable in (1, 3, 2):
        label(repository, "colors", {"stable": stable})
        assert default(repository) == stable


def test_while_the_labelled_one_is_not_served_the_last_default_answers(repository):
    """2 failed the gate, and 3 was promoted before this server has it: 2 must never answer by its number."""
    publish(repository, 1, 2)
    label(repository, "colors", {"stable": 1})
    label(repository, "colors", {"stable": 3})
    assert default(repository) == 1
    repository.publish(model("colors", 3))
    assert default(repository) == 3
    label(repository, "colors", {"stable": 9})
    assert default(repository) == 3


def test_what_nobody_promoted_does_not_answer_while_the_labelled_one_is_loaded(repository):
    label(repository, "colors", {"stable": 1})
    publish(repository, 3, 2)
    assert default(repository) is None
    publish(repository, 1)
    assert default(repository) == 1


def test_what_nobody_promoted_does_not_answer_when_the_labelled_one_goes(repository):
    publish(repository, 1, 2, 3)
    label(repository, "colors", {"stable": 2})
    repository.retire(repository.find("colors", "2"), "lost")
    assert default(repository) is None
    assert repository.find("colors", "3").version == 3  # by its number, whoever wants it


def test_the_caller_is_told_which_version_is_missing(repository):
    publish(repository, 1)
    repository.retire(repository.find("colors", "1"), "unloaded")
    publish(repository, 2)
    label(repository, "colors", {"stable": 1})
    repository.retire(repository.find("colors", "2"), "unloaded")
    publish(repository, 2)
    with pytest.raises(NotServingError, match="version 1 of 'colors', which is labelled stable, is not served"):
        repository.find("colors", "")


def test_when_the_last_default_goes_as_well_nothing_answers(repository):
    publish(repository, 1, 2)
    label(repository, "colors", {"stable": 1})
    label(repository, "colors", {"stable": 3})
    repository.retire(repository.find("colors", "1"), "lost")
    assert default(repository) is None


def test_without_the_label_the_latest_answers_again(repository):
    publish(repository, 1, 2)
    label(repository, "colors", {"stable": 1})
    label(repository, "colors", {"canary": 1})
    assert default(repository) == 2


def test_without_a_label_the_next_latest_follows_one_that_goes(repository):
    publish(repository, 1, 2)
    repository.retire(repository.find("colors", "2"), "lost")
    assert default(repository) == 1


def test_labels_of_one_model_say_nothing_of_another(repository):
    publish(repository, 1, 2)
    publish(repository, 1, 2, name="other")
    label(repository, "other", {"stable": 1})
    assert default(repository) == 2
    assert default(repository, "other") == 1


def test_a_changed_default_is_told_once_with_the_one_before(repository):
    with capture_logs() as events:
        publish(repository, 1)
        label(repository, "colors", {"stable": 1})
        label(repository, "colors", {"stable": 1})
        publish(repository, 2)
        label(repository, "colors", {"stable": 2})
    changes = [(event["before"], event["version"]) for event in events if event["event"] == "default version"]
    assert changes == [(None, 1), (1, 2)]


def test_a_label_that_names_what_is_not_served_is_warned_of(repository):
    publish(repository, 1)
    label(repository, "colors", {"stable": 1})
    with capture_logs() as events:
        label(repository, "colors", {"stable": 7})
    (event,) = events
    assert (event["log_level"], event["version"], event["serving"]) == ("warning", 7, 1)


# Versions


def test_versions_are_named_by_number_or_by_label(repository):
    publish(repository, 1, 2, 3)
    label(repository, "colors", {"stable": 3, "canary": 1})
    assert repository.find("colors", "2").version == 2
    assert repository.find("colors", "canary").version == 1
    assert repository.find("colors", "stable").version == 3


@pytest.mark.parametrize("version", ["3", "0", "01", "-1", "1.0", "canary", "../labels/stable", "x" * 99, "\0", "²"])
def test_versions_that_do_not_exist(repository, version):
    publish(repository, 1, 2)
    with pytest.raises(ModelNotFoundError):
        repository.find("colors", version)


def test_models_that_do_not_exist(repository):
    publish(repository, 1)
    for version in ("", "1"):
        with pytest.raises(ModelNotFoundError):
            repository.find("birds", version)


# Names


def test_the_only_classifier_needs_no_name(repository):
    publish(repository, 1, 2)
    repository.publish(graph())  # takes tensors: nobody means it by saying nothing
    assert repository.find_classifier("", "").version == 2
    assert repository.find_classifier("", "1").version == 1


def test_of_several_classifiers_one_must_be_named(repository):
    publish(repository, 1)
    publish(repository, 1, name="birds")
    with pytest.raises(FieldInvalidError, match=r"name one of \['birds', 'colors'\]"):
        repository.find_classifier("", "")


def test_a_graph_is_no_classifier(repository):
    repository.publish(graph())
    assert repository.find("simple", "").manifest is None
    with pytest.raises(FieldInvalidError, match="has no manifest"):
        repository.find_classifier("simple", "")
    with pytest.raises(FieldInvalidError, match="ModelInfer"):
        repository.find_classifier("", "")


# While models are being loaded


def loading(repository, name, version):
    repository.note(VersionState(name, version, "LOADING"))


def test_before_the_folder_has_been_listed_nobody_knows_what_there_is():
    with pytest.raises(NotServingError, match="is being loaded"):
        Repository().find("birds", "")


def test_what_is_being_loaded_may_be_had_soon_and_is_not_unknown():
    """A balancer may try elsewhere; NOT_FOUND would tell the caller that the name is wrong."""
    repository = Repository()
    loading(repository, "colors", 1)
    for version in ("", "1"):
        with pytest.raises(NotServingError, match="is being loaded"):
            repository.find("colors", version)
    for name, version in (("birds", ""), ("colors", "2")):
        with pytest.raises(ModelNotFoundError):
            repository.find(name, version)


def test_what_is_loaded_later_is_waited_for_as_well(repository):
    publish(repository, 1)
    loading(repository, "colors", 2)
    with pytest.raises(NotServingError, match="is being loaded"):
        repository.find("colors", "2")
    assert default(repository) == 1
    repository.note(VersionState("colors", 2, "UNAVAILABLE", "a golden differs"))
    with pytest.raises(ModelNotFoundError):
        repository.find("colors", "2")


def test_a_call_without_a_name_is_not_answered_by_whatever_was_loaded_first():
    repository = Repository()
    loading(repository, "colors", 1)
    loading(repository, "birds", 1)
    with pytest.raises(NotServingError):
        repository.find_classifier("", "")
    publish(repository, 1)
    with pytest.raises(NotServingError, match="name one, or wait"):
        repository.find_classifier("", "")
    assert repository.find_classifier("colors", "").version == 1
    publish(repository, 1, name="birds")
    repository.finish_loading()
    with pytest.raises(FieldInvalidError):
        repository.find_classifier("", "")


def test_with_nothing_loaded_at_the_end_nothing_is_served(repository):
    with pytest.raises(NotServingError, match="no model is loaded"):
        repository.find_classifier("", "")


# What is told of them


def test_what_is_served_is_listed_by_name_and_version(repository):
    publish(repository, 10, 9)
    publish(repository, 1, name="birds")
    assert [(one.name, one.version) for one in repository.listing()] == [("birds", 1), ("colors", 9), ("colors", 10)]
    assert repository.versions("colors") == [9, 10]
    assert repository.versions("cats") == []
    assert len(repository) == 3


def test_every_version_has_a_state(repository):
    publish(repository, 2)
    repository.note(VersionState("colors", 1, "UNAVAILABLE", "a golden differs"))
    publish(repository, 1, name="birds")
    repository.retire(repository.find("birds", ""), "unloaded")
    assert [(one.name, one.version, one.state, one.reason) for one in repository.index()] == [
        ("birds", 1, "UNAVAILABLE", "unloaded"),
        ("colors", 1, "UNAVAILABLE", "a golden differs"),
        ("colors", 2, "READY", ""),
    ]
    assert repository.refused_count == 1  # what was unloaded was not refused


def test_what_is_not_served_any_more_is_known_until_it_is_forgotten(repository):
    publish(repository, 1)
    repository.retire(repository.find("colors", ""), "unloaded")
    assert len(repository) == 0
    assert repository.knows("colors", "")
    assert repository.knows("colors", "1")
    assert not repository.knows("colors", "2")
    repository.forget("colors", 1)
    repository.forget("colors", 1)
    assert not repository.knows("colors", "")


def test_a_version_that_is_loaded_again_replaces_the_one_before(repository):
    before, after = model(number=1), model(number=2)
    assert repository.publish(before) is None
    assert repository.publish(after) is before
    assert repository.find("colors", "1") is after
    assert len(repository) == 1


def test_every_change_is_told():
    told = []
    repository = Repository(lambda: told.append(1))
    one = model()
    for change in (
        lambda: repository.publish(one),
        lambda: repository.note(VersionState("colors", 2, "LOADING")),
        lambda: label(repository, "colors", {"stable": 1}),
        lambda: repository.finish_loading(),
        lambda: repository.retire(one, "lost"),
        lambda: repository.forget("colors", 2),
    ):
        told.clear()
        change()
        assert told


# Who takes over callers


def test_the_next_default_takes_over_callers_and_older_versions_do_not(repository):
    assert not repository.takes_over("colors", 5)  # nobody was answered before
    publish(repository, 5)
    assert [repository.takes_over("colors", version) for version in (4, 5, 6)] == [False, True, True]  # 5: read again
    label(repository, "colors", {"stable": 4, "beta": 6})
    assert [repository.takes_over("colors", version) for version in (4, 6)] == [True, False]


def test_a_canary_takes_over_callers(repository):
    publish(repository, 1)
    repository.declare("colors", Traffic(labels={"stable": 1}, canary=Canary(version=2, share=0.1)))
    assert [repository.takes_over("colors", version) for version in (2, 3)] == [True, False]


def test_at_the_start_nobody_waits_for_all_workers():
    """Else a server with many versions would be ready only when each worker has each."""
    starting = Repository()
    publish(starting, 1)
    assert not starting.takes_over("colors", 2)
