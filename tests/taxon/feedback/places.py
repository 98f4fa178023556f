"""Where stores are tested: in a folder, and in PostgreSQL beside a place for pictures."""

import pytest

from taxon.feedback.opening import Shared
from taxon.feedback.store import Store
from tests.postgres import running

KINDS = ["folder", pytest.param("postgres", marks=pytest.mark.slow)]


@pytest.fixture(scope="session")
def postgres():
    with running() as server:
        yield server


@pytest.fixture(params=KINDS)
def new_place(request, tmp_path):
    """Makes places of one kind."""
    if request.param == "folder":
        return lambda name="store": tmp_path / name
    server = request.getfixturevalue("postgres")
    return lambda name="store": Shared(server.new(), f"file://{tmp_path / name}")


@pytest.fixture
def place(new_place):
    return new_place()


@pytest.fixture
def open_store():
    """Opens stores that are closed at the end."""
    opened = []

    def store(*words, **options):
        opened.append(Store(*words, **options))
        return opened[-1]

    yield store
    for each in opened:
        each.close()
