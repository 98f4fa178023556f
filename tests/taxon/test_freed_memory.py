import subprocess
import sys

import pytest

# Holds 200 MiB in blocks, frees them, and tells how much is still resident.
PROGRAM = """
import sys
from taxon import freed_memory

def resident_mib():
    pages = int(open("/proc/self/statm").read().split()[1])
    return pages * 4096 / 2**20

{before}
begun = resident_mib()
blocks = [bytearray(b"x") * (2 * 2**20) for _ in range(100)]
assert resident_mib() - begun > 150
del blocks
{after}
print(resident_mib() - begun)
"""


def kept_mib(before, after=""):
    words = [sys.executable, "-c", PROGRAM.format(before=before, after=after)]
    return float(subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_what_is_freed_is_kept_unless_its_blocks_are_large_or_it_is_released():
    assert kept_mib("freed_memory.keep_all()") > 150
    assert kept_mib("freed_memory.keep(2**30, 16 * 2**20)") > 150
    assert kept_mib("freed_memory.keep(2**30, 2**20)") < 50
    assert kept_mib("freed_memory.keep_all()", "freed_memory.release()") < 50
