"""`python -m tests.benchmarks.content_memory HOME API ROOT [CAR]`: pins, or imports a CAR; prints its peak in KiB."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from bridge.content import car_transfer
from bridge.content import cid as cids
from tests.benchmarks.content_archive import Archive


def main() -> int:
    """Pin a root of the packs below HOME, or of the CAR."""
    home, api, root, *car = sys.argv[1:]
    archive = Archive(Path(home), api)
    if not car:
        receipt = archive.content.pin(cids.from_text(root))
    else:
        with Path(car[0]).open("rb") as file:
            receipt = car_transfer.import_car(archive.content, file, archive.placed)
    archive.close()
    if receipt.root != cids.from_text(root):
        raise RuntimeError("another root")
    # Not ru_maxrss: that counts what the process was before exec, its parent's memory.
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text("ascii"))
    sys.stdout.write(f"{peak[1] if peak else 0}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
