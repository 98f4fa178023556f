import numpy as np

from taxon import extras


def test_of_packages_those_that_are_installed_have_a_version():
    assert extras.versions(["numpy", "no-such-package"]) == {"numpy": np.__version__}
