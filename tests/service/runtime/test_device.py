"""Which device serves. What the wheel lists may not work, so it is tried in another process."""

import sys
from pathlib import Path

import onnxruntime
import pytest
from structlog.testing import capture_logs

from taxon.service.errors import StartError
from taxon.service.runtime import device
from taxon.service.runtime.device import CPU, CUDA, TENSORRT, Device, Probed, choose_device, probed

cpu_only = pytest.mark.skipif(CUDA in onnxruntime.get_available_providers(), reason="this wheel has CUDA")


@pytest.fixture
def working(monkeypatch):
    """Has providers work, on so many devices."""

    def install(**counts):
        by_provider = {CUDA: counts.get("cuda", 0), TENSORRT: counts.get("tensorrt", 0)}
        monkeypatch.setattr(
            device,
            "probed",
            lambda provider: Probed(by_provider[provider], "" if by_provider[provider] else "it does not start"),
        )

    return install


CAPTURES = {CUDA: {"enable_cuda_graph": "1"}}


@pytest.mark.parametrize(
    ("words", "works", "chosen"),
    [
        (("cpu", "auto", None), {"cuda": 1}, Device(CPU)),
        (("cuda", "off", None), {"cuda": 1}, Device(CUDA)),
        (("cuda", "off", None), {"cuda": 4}, Device(CUDA, {}, 4)),
        (("cuda", "on", None), {"cuda": 2}, Device(CUDA, CAPTURES, 2)),
        (("auto", "auto", None), {"cuda": 3}, Device(CUDA, CAPTURES, 3, tries_cuda_graphs=True)),
        (("auto", "on", None), {"cuda": 1}, Device(CUDA, CAPTURES)),
        (("auto", "auto", None), {}, Device(CPU)),
        (("auto", "auto", None), {"tensorrt": 1}, Device(CPU)),
        (("tensorrt", "auto", None), {"tensorrt": 2, "cuda": 2}, Device(TENSORRT, {}, 2)),
        (
            ("tensorrt", "auto", Path("/cache")),
            {"tensorrt": 1},
            Device(TENSORRT, {TENSORRT: {"trt_engine_cache_path": "/cache"}}),
        ),
    ],
)
def test_devices(working, words, works, chosen):
    working(**works)
    assert choose_device(*words) == chosen


@pytest.mark.parametrize(
    ("words", "works", "complaint"),
    [
        (("cuda", "auto", None), {}, "--device cuda: it does not start"),
        (("tensorrt", "auto", None), {"cuda": 1}, "--device tensorrt: it does not start"),
        (("cpu", "on", None), {}, "--cuda-graphs on needs CUDA"),
        (("auto", "on", None), {}, "--cuda-graphs on needs CUDA"),
        (("tensorrt", "on", None), {"tensorrt": 1, "cuda": 1}, "--cuda-graphs on needs CUDA"),
        (("cuda", "auto", Path("/cache")), {"cuda": 1}, "--engine-cache is of TensorRT"),
    ],
)
def test_what_was_asked_for_is_never_quietly_something_else(working, words, works, complaint):
    working(**works)
    with pytest.raises(StartError, match=complaint):
        choose_device(*words)


@pytest.mark.parametrize(
    ("installed", "level", "said"),
    [(True, "warning", "CUDA does not work, serving on the CPU"), (False, "info", "serving on the CPU")],
)
def test_auto_that_falls_back_says_so_with_the_reason(working, monkeypatch, installed, level, said):
    """Who has installed CUDA's provider wants it; who has not misses nothing."""
    working()
    monkeypatch.setattr(device, "_has_library", lambda kind: installed)
    with capture_logs() as events:
        assert choose_device("auto", "auto", None) == Device(CPU)
    (event,) = events
    assert (event["log_level"], event["event"], event["reason"]) == (level, said, "it does not start")


# Trying


@cpu_only
@pytest.mark.parametrize(("name", "kind"), [("cuda", "CUDA"), ("tensorrt", "TensorRT")])
def test_a_provider_that_the_wheel_lacks_is_not_even_tried(monkeypatch, name, kind):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(
        StartError, match=rf"--device {name}: this onnxruntime has no {kind} support: install the extra gpu"
    ):
        choose_device(name, "auto", None)


@pytest.fixture
def listed(monkeypatch):
    """As if the wheel brought every provider."""
    monkeypatch.setattr(device, "_has_library", lambda kind: True)


@cpu_only
def test_a_provider_that_is_listed_but_does_not_work_is_noticed(listed, capfd):
    """In a process of its own, as the server does."""
    found = probed(CUDA)
    assert found.count == 0
    assert "could not start it and offers ['CPUExecutionProvider']" in found.reason
    capfd.readouterr()


@pytest.fixture
def probe_program(tmp_path, monkeypatch, listed):
    """Has another program try in the place of ours."""

    def install(script):
        program = tmp_path / "program"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))

    return install


def test_what_libraries_print_is_no_answer(probe_program):
    probe_program('echo loading libraries; echo \'{"count": 2, "reason": ""}\'')
    assert probed(CUDA) == Probed(2)


def test_a_provider_that_ends_the_process_is_a_reason(probe_program):
    probe_program("kill -ABRT $$")
    found = probed(TENSORRT)
    assert found.count == 0
    assert "the process that tried TensorRT ended with status -6" in found.reason


def test_a_provider_that_hangs_is_a_reason(probe_program, monkeypatch):
    monkeypatch.setattr(device, "PROBE_TIMEOUT_S", 0.2)
    probe_program("exec sleep 60")
    assert probed(CUDA) == Probed(0, "CUDA did not start within 0.2 s")


def test_the_wheels_libraries_are_found_by_their_files(tmp_path, monkeypatch):
    folder = tmp_path / "onnxruntime" / "capi"
    folder.mkdir(parents=True)
    (tmp_path / "onnxruntime" / "__init__.py").write_text("raise SystemExit('loaded')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "onnxruntime")
    assert not device._has_library("cuda")
    (folder / "libonnxruntime_providers_cuda.so").touch()
    assert device._has_library("cuda")
    assert not device._has_library("tensorrt")
