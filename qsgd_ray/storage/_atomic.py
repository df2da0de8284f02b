"""Whole files and folders put into place: written under a hidden name beside the target, then renamed."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import TypeVar

P = TypeVar("P", bound=PurePath)


def hidden_sibling(target: P) -> P:
    """Return a new hidden name in the folder of `target`, on the same file system and never listed as a result."""
    return target.with_name(f".{target.name}.{uuid.uuid4().hex}")


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a path to write a file or a folder at, and rename it to `target` when the block ends without an error.

    A reader sees the old content or the new one, never a part (POSIX `rename`). Where the block or the rename raises,
    what was written is removed and `target` stays as it was.

    Raises:
        OSError: it cannot be renamed; a folder never replaces one that has content.

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
        os.replace(partial, target)
    except BaseException:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)
        raise
