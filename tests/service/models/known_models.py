"""Models that a repository may know of, without what runs them."""

from taxon.service.models.model import Model
from taxon.service.runtime.description import Description
from taxon.service.runtime.device import CPU

MANIFEST = object()


def model(name="colors", version=1, manifest=MANIFEST, number=None):
    description = Description(name, version, [], [], {}, 8, (1,), CPU)
    return Model(version if number is None else number, description, manifest, None, 0)


def graph(name="simple", version=1, number=None):
    return model(name, version, None, number)
