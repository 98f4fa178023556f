"""What serving may not need."""

import subprocess
import sys


def test_the_service_imports_where_torch_cannot_be():
    program = (
        "import sys\n"
        "for name in ('torch', 'torchvision', 'training', 'onnx', 'sklearn', 'matplotlib'): sys.modules[name] = None\n"
        "import taxon.service.server, taxon.service.api.health\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
