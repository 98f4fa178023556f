import pytest

from taxon.service.runtime.device import CPU, CUDA, TENSORRT, Device
from taxon.service.workers.layout import MOST_FRONTS, layout


@pytest.mark.parametrize(("cores", "workers", "threads"), [(1, 1, 1), (2, 2, 1), (16, 16, 1)])
def test_on_cpus_each_core_has_a_worker_of_one_thread_that_decodes_what_it_runs(cores, workers, threads):
    made = layout(Device(CPU), cores)
    assert (made.workers, made.threads, made.decoders, made.depth) == (workers, threads, 0, 1)


@pytest.mark.parametrize("provider", [CUDA, TENSORRT])
@pytest.mark.parametrize(("cores", "count", "decoders"), [(1, 1, 1), (2, 1, 1), (16, 1, 15), (16, 4, 15)])
def test_on_gpus_each_device_has_a_worker_and_cores_decode(provider, cores, count, decoders):
    made = layout(Device(provider, {}, count), cores)
    assert (made.workers, made.decoders, made.depth) == (count, decoders, 2)


@pytest.mark.parametrize(
    ("provider", "cores", "fronts"),
    [(CPU, 1, 1), (CPU, 8, 1), (CPU, 16, 2), (CPU, 1000, MOST_FRONTS), (CUDA, 4, 1), (CUDA, 8, 2)],
)
def test_many_cores_have_several_fronts(provider, cores, fronts):
    assert layout(Device(provider), cores).fronts == fronts


@pytest.mark.parametrize(
    ("provider", "asked", "buckets"),
    [
        (CPU, 0, (1, 2, 4, 8)),
        (CUDA, 0, (1, 2, 4, 8, 16, 32, 64)),
        (CPU, 1, (1,)),
        (CPU, 4, (1, 2, 4)),
        (CPU, 7, (1, 2, 4)),
        (CUDA, 100, (1, 2, 4, 8, 16, 32, 64)),
    ],
)
def test_batch_sizes_are_powers_of_two_up_to_the_largest(provider, asked, buckets):
    assert layout(Device(provider), 2, max_batch_size=asked).buckets == buckets


def test_what_was_asked_for_is_done():
    made = layout(Device(CPU), 4, workers=2, decoders=3, fronts=5, threads=7)
    assert (made.workers, made.decoders, made.fronts, made.threads, made.depth) == (2, 3, 5, 7, 2)
    assert layout(Device(CUDA), 4, decoders=0).depth == 1


@pytest.mark.parametrize(("workers", "threads"), [(1, 8), (2, 4), (3, 2), (20, 1)])
def test_workers_share_the_cores(workers, threads):
    assert layout(Device(CPU), 8, workers=workers).threads == threads
