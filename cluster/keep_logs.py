"""Put the logs of Ray on this machine beside the rows of a study: they go with the node, the storage stays.

    python cluster/keep_logs.py STORAGE [--folder /tmp/ray/session_latest/logs]

In: a folder of logs. Out: STORAGE/logs/HOST-TIME.tar.gz, of each file its last 10 MiB. The head has the driver's output
and the autoscaler's reasons, and what workers print comes to the driver.
"""

from __future__ import annotations

import argparse
import io
import socket
import sys
import tarfile
from datetime import UTC, datetime
from pathlib import Path

from qsgd_ray.config import StudyError
from qsgd_ray.storage import StorageError, storage_at

MOST_BYTES = 10 * 2**20


def packed(folder: Path) -> bytes:
    """Return the ends of all files of a folder as one tar.gz; files that vanish meanwhile are left out."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_symlink() or not file.is_file():
                continue
            try:
                with file.open("rb") as log:
                    log.seek(max(0, file.stat().st_size - MOST_BYTES))
                    end = log.read(MOST_BYTES)
            except OSError:
                continue
            entry = tarfile.TarInfo(str(file.relative_to(folder)))
            entry.size = len(end)
            archive.addfile(entry, io.BytesIO(end))
    return content.getvalue()


def keep(folder: Path, storage: str) -> str:
    """Put the logs of a folder into a storage, and return where they are.

    Args:
        folder: of Ray's logs.
        storage: as `qsgd-ray run --storage` takes it.
    """
    place = storage_at(storage)
    place.create_folders("logs")
    name = f"logs/{socket.gethostname()}-{datetime.now(UTC):%Y%m%dT%H%M%S}.tar.gz"
    place.put(name, packed(folder))
    return str(place.location(name))


def main() -> int:
    """Keep the logs; 1 and one line where there are none or the storage refuses."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("storage", help="as qsgd-ray run --storage takes it")
    latest = Path("/tmp/ray/session_latest/logs")  # nosec B108 # where Ray keeps them
    parser.add_argument("--folder", type=Path, default=latest, help="of Ray's logs")
    asked = parser.parse_args()
    if not asked.folder.is_dir():
        print(f"--folder: got {asked.folder}; allowed: the folder of Ray's logs on this machine", file=sys.stderr)
        return 1
    try:
        print(f"logs: {keep(asked.folder, asked.storage)}")
    except (StudyError, StorageError, OSError) as error:
        print(f"the logs could not be kept: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
