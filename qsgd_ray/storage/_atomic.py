"""Whole files and folders put into place: written under a hidden name beside the target, synced, then renamed.

What is in its place is on the disk, its name too. A writer that fails removes what it wrote; what a killed one left is
found by its name, which tells the writer.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from typing import TypeVar

from qsgd_ray.storage.process_id import ProcessId, _this_process

P = TypeVar("P", bound=PurePath)

_PARTIAL = re.compile(r"\..+\.(?P<machine>[0-9a-f]{8})-(?P<pid>[0-9]{1,10})-(?P<started>[0-9]{1,20})\.[0-9a-f]{12}")
# As versions before 2026-11-30 named them, without the writer.
_PARTIAL_BEFORE = re.compile(r"\..+\.[0-9a-f]{32}")
# Age of a file whose writer cannot be looked up, after which it is dead: it takes seconds to write one.
_ABANDONED_S = 86_400


def hidden_sibling(target: P) -> P:
    """Return a new hidden name in the folder of `target`, on the same file system and never listed as a result."""
    writer = _this_process()
    return target.with_name(f".{target.name}.{writer.machine}-{writer.pid}-{writer.started}.{uuid.uuid4().hex[:12]}")


def is_abandoned(name: str, age_s: float) -> bool:
    """Return True for the name of `hidden_sibling` that no living process writes at.

    Args:
        name: of a file, without its folder.
        age_s: seconds since it was last written.
    """
    if written := _PARTIAL.fullmatch(name):
        dead = ProcessId(written["machine"], int(written["pid"]), int(written["started"])).is_dead()
        return age_s > _ABANDONED_S if dead is None else dead
    return bool(_PARTIAL_BEFORE.fullmatch(name)) and age_s > _ABANDONED_S


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a path to write a file or a folder at, and rename it to `target` when the block ends without an error.

    A reader sees the old content or the new one, never a part (POSIX `rename`), also after a loss of power. Where the
    block, the sync or the rename raises, what was written is removed and `target` stays as it was.

    Raises:
        OSError: it cannot be synced or renamed; a folder never replaces one that has content.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "numbers.txt"
        >>> with replacing(target) as partial:
        ...     _ = partial.write_text("1 2 3")
        >>> [path.name for path in target.parent.iterdir()]
        ['numbers.txt']
    """
    partial = hidden_sibling(target)
    try:
        yield partial
        _sync_tree(partial)
        os.replace(partial, target)
        _sync_folder(target.parent)
    except BaseException:
        with suppress(OSError):  # the first error says why
            if partial.is_dir():
                shutil.rmtree(partial, ignore_errors=True)
            else:
                partial.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where its file system can sync folders."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(number)


# Of file systems that do not sync folders, such as some of FUSE.
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)


def _sync_tree(path: Path) -> None:
    """Wait until a file, or a folder with everything in it, is on the disk."""
    if not path.is_dir():
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
        return
    for inside in path.iterdir():
        if not inside.is_symlink():
            _sync_tree(inside)
    _sync_folder(path)
