"""What serving, and a front, may not need."""

import subprocess
import sys

import pytest

OF_TRAINING = "torch", "torchvision", "taxon.training", "onnx", "sklearn", "matplotlib"
OF_WORKERS = "onnxruntime", "PIL"
OF_FEW = "sqlite3", "numpy.random", "psycopg", "fsspec", "opentelemetry"
"""What a server needs that keeps feedback, explains or traces, and which would make every other one start later."""
WHOLE_SERVICE = "taxon.service.server", "taxon.service.api.health", "taxon.service.workers.worker_main"
FRONT = "taxon.service.server", "taxon.service.fronts.front_main"


@pytest.mark.parametrize(
    ("absent", "modules"), [(OF_TRAINING, WHOLE_SERVICE), ((*OF_TRAINING, *OF_WORKERS), FRONT)], ids=["whole", "front"]
)
def test_imports_where_others_cannot_be(absent, modules):
    program = (
        f"import sys\nfor name in {absent}: sys.modules[name] = None\n"
        f"import importlib\nfor name in {modules}: importlib.import_module(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_front_starts_without_what_few_need():
    program = f"import sys, {', '.join(FRONT)}\nprint([name for name in {OF_FEW} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


def test_a_server_that_serves_has_loaded_neither_onnx_runtime_nor_pillow(models, tmp_path):
    """Not even late: hostile bytes and unproven graphs stay in the workers."""
    program = (
        "import sys\nfor name in ('onnxruntime', 'PIL'): sys.modules[name] = None\n"
        "from taxon.service.server import main\nsys.exit(main(sys.argv[1:]))\n"
    )
    port_file = tmp_path / "port"
    words = ["--models", str(models), "--listen", "127.0.0.1:0", "--port-file", str(port_file), "--device", "cpu"]
    with subprocess.Popen([sys.executable, "-c", program, *words]) as process:
        asking = [sys.executable, "-c", ASK, str(port_file)]
        done = subprocess.run(asking, capture_output=True, text=True, timeout=60)
        process.terminate()
        assert process.wait(20) == 0
    assert done.stdout == "red\n", done.stderr


ASK = """
import sys, time
from pathlib import Path
from taxon.client import Client
from tests.fakes import picture
while not Path(sys.argv[1]).exists(): time.sleep(0.01)
with Client("127.0.0.1:" + Path(sys.argv[1]).read_text().strip()) as client:
    while True:
        try:
            print(client.classify(picture()).classifications[0].label)
            break
        except Exception: time.sleep(0.1)
"""
