"""A server on CUDA that ends with its test. These tests need a GPU: `python -m pytest -m gpu`."""

import contextlib

import pytest

from tests.faults.served import Served


@pytest.fixture
def serve(models):
    with contextlib.ExitStack() as stack:

        def start(*flags, root=models):
            served = Served(root, "--device", "cuda", *flags)
            stack.callback(served.stop)
            return served

        yield start
