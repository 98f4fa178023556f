"""The command that tells whether GPUs work."""

import pytest

from taxon.service.runtime import device_main
from taxon.service.runtime.device import CUDA, TENSORRT, Probed


@pytest.mark.parametrize(
    ("words", "found", "status", "printed"),
    [
        ([], {CUDA: Probed(2)}, 0, "cuda: 2 working\n"),
        (["tensorrt"], {TENSORRT: Probed(0, "no library")}, 1, "tensorrt: no library\n"),
    ],
)
def test_it_says_how_many_devices_work_or_why_none_does(monkeypatch, capsys, words, found, status, printed):
    monkeypatch.setattr(device_main, "probed", found.__getitem__)
    assert device_main.main(words) == status
    assert capsys.readouterr().out == printed
