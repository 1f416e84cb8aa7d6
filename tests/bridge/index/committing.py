"""A process that commits units to an index and says on standard output which were acknowledged."""

import sys
from pathlib import Path

from bridge.index.database import PostgresqlPlace
from bridge.index.index import SqlIndex
from tests.contract.index import batch, unit


def main(path: str, url: str, name: str, count: str) -> None:
    index = SqlIndex(PostgresqlPlace(url, Path(path)) if url else Path(path), name, lambda: None)
    into = batch(f"1.{name}", owner=name)
    for number in range(int(count)):
        index.commit(unit((f"1.{name}", f"1.{name}.1", f"1.{name}.1.{number}"), into)).result()
        print(number, flush=True)
    index.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
