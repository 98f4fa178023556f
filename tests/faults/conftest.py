"""A server that ends with its test."""

import contextlib

import pytest

from tests.faults.served import Served
from tests.taxon.feedback.places import new_place, place, postgres

__all__ = ["new_place", "place", "postgres"]


@pytest.fixture
def serve(models):
    with contextlib.ExitStack() as stack:

        def start(*flags, models=models, **options):
            served = Served(models, *flags, **options)
            stack.callback(served.stop)
            return served

        yield start
