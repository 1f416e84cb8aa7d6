"""Pins one root in the archive of a home, with the engine of the environment, replacing another: to be killed."""

import os
import sys
from pathlib import Path

from tests.contract.content_store import Archive

if __name__ == "__main__":
    engine = {name: value for name, value in os.environ.items() if name.startswith("CAIRN_CONTENT__")}
    archive = Archive(Path(sys.argv[1]), engine)
    archive.store.pin(bytes.fromhex(sys.argv[2]), replaces=bytes.fromhex(sys.argv[3]))
