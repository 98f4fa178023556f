"""The command line: quick, and clear about what is missing."""

import os
import subprocess
import sys
import time

import pytest

from taxon import __version__
from taxon.cli import COMMANDS, main


def test_help_lists_every_command(capsys):
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(f"  {name}" in printed and command.summary in printed for name, command in COMMANDS.items())


def test_help_is_instant_and_imports_nothing_heavy():
    script = (
        "import sys; from taxon.cli import main; code = main(['--help']);"
        "heavy = {'torch', 'onnxruntime', 'grpc', 'numpy', 'pydantic', 'PIL'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    assert time.perf_counter() - started < 0.5


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.split() == ["taxon", __version__]


@pytest.mark.parametrize(("argv", "complaint"), [([], ""), (["fly"], "no command 'fly'")])
def test_wrong_calls_exit_with_2(argv, complaint, capsys):
    assert main(argv) == 2
    assert complaint in capsys.readouterr().err


def test_what_the_terminal_cannot_show_is_escaped():
    """A label in another script ends no command after all its work."""
    script = "from taxon.cli import main; main(['--version']); print('\\u732b')"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, env=environment, check=True)
    assert done.stdout.splitlines()[-1] == b"\\u732b"


def test_an_image_without_training_code_says_so():
    script = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(name, path=None, target=None):\n"
        "        if name == 'taxon.training': raise ModuleNotFoundError(name=name)\n"
        "sys.meta_path.insert(0, Absent)\n"
        "from taxon.cli import main; sys.exit(main(['train']))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "taxon train: no training code is installed here: use the training image\n"


def test_a_missing_extra_is_named():
    """As on a machine where only the client is installed."""
    script = (
        "import sys; sys.modules['torch'] = None; sys.modules['onnxruntime'] = None;"
        "from taxon.cli import main; sys.exit(main(['train']))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 2
    assert "pip install -e '.[training]'" in done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_own_help(name, capsys):
    with pytest.raises(SystemExit) as exited:
        main([name, "--help"])
    assert exited.value.code == 0
    assert f"taxon {name}" in capsys.readouterr().out
