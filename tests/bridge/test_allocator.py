"""What an image frees is there for the next one, measured in page faults of a process of its own."""

import subprocess
import sys

FAULTS = """
import resource, sys
from bridge.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def image():
    parts = [bytes(131072) for _ in range(4)]
    return len(bytearray(b"".join(parts)))
image()
before = faults()
for _ in range(200):
    image()
print(faults() - before)
"""


def _faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_buffers_of_an_image_are_used_again_without_faulting_their_pages_in() -> None:
    assert _faults("kept") * 20 < _faults("as ever")
