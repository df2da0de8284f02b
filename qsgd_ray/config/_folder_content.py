"""Content of folders that a task names: a folder in; a digest of its files out, by which trials are named."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path

# What a model and its tokenizer are read from, and what data are read from.
MODEL_FILES = (".json", ".jinja", ".model", ".safetensors", ".txt")
DATA_FILES = (".csv", ".jsonl", ".parquet")


def folder_at(source: str) -> Path | None:
    """Return the folder of a path that a user wrote; None where there is none."""
    try:
        folder = Path(source).expanduser()
        return folder if folder.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # too long a name, no such user, a zero byte
        return None


def folder_digest(folder: Path, suffixes: tuple[str, ...]) -> str:
    """Return the digest of a folder's files: of their names and bytes, sixteen hexadecimal digits.

    Args:
        folder: it is searched with the folders below it; what begins with a dot is left out.
        suffixes: endings of the names that count.

    Raises:
        OSError: a file cannot be read.
    """
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix in suffixes
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    states = ((path, path.stat()) for path in files)
    return _digest(folder, tuple((str(path), state.st_size, state.st_mtime_ns) for path, state in states))


@lru_cache(maxsize=64)
def _digest(folder: Path, files: tuple[tuple[str, int, int], ...]) -> str:
    """Return the digest of files, read once while neither size nor time of any changes."""
    content = []
    for name, *_ in files:
        with open(name, "rb") as file:
            content.append([Path(name).relative_to(folder).as_posix(), hashlib.file_digest(file, "sha256").hexdigest()])
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
