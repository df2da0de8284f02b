"""Text data of files: a folder or a data set of the hub comes in; examples by split go out.

A file belongs to the split whose name its own name, or that of a folder around it, begins with. Where no file names a
split, all of them are training data; a split that is missing is drawn from the training data by `data_seed`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from qsgd_ray.config import HuggingFaceTask, Splits, StudyError
from qsgd_ray.config.errors import one_line
from qsgd_ray.config.workload import SPLITS, Split
from qsgd_ray.models.hub import load_from_hub
from qsgd_ray.random_keys import named_seed
from qsgd_ray.storage.cache import cached_folder

_READERS = (".csv", ".jsonl", ".parquet")
_WORDS = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation"}
_SPLIT = re.compile(rf"({'|'.join([*_WORDS, 'test'])})(?![a-z])", re.IGNORECASE)

Rows = list[tuple[Any, ...]]


def read_examples(task: HuggingFaceTask) -> Splits:
    """Return the examples of a task's data set, as `HuggingFaceTask.texts` would.

    Args:
        task: names the data set, its columns and its sizes.

    Raises:
        StudyError: one line: no such folder, file or column, a cell that is no text, or too few rows.
    """
    root = _root(task)
    rows = {split: _rows(files, task) for split, files in _files(root, task).items()}
    _hold_out(rows, task)
    for split in SPLITS:
        rows[split] = _drawn(rows[split], split, task)
    if task.head == "classification":
        _number_labels(rows, task)
        return Splits(**rows)
    return Splits(**{split: [row[0] for row in rows[split]] for split in SPLITS})


def _root(task: HuggingFaceTask) -> Path:
    source = task.dataset or ""
    folder = Path(source).expanduser()
    root = folder if folder.is_dir() else _from_hub(source, task.subset)
    root = root / (task.subset or "")
    if not root.is_dir():
        raise StudyError(f"subset: got {task.subset!r}; allowed: a folder within {source}")
    return root


def _from_hub(source: str, subset: str | None) -> Path:
    """Return the folder of a data set of the hub in the cache, fetched whole or not at all."""
    name, _, commit = source.partition("@")
    within = f"{subset}/" if subset else ""
    patterns = [f"{within}{pattern}{suffix}" for suffix in _READERS for pattern in ("*", "**/*")]

    def load(local_files_only: bool) -> Path:
        def fill(target: Path) -> None:
            if local_files_only:
                raise FileNotFoundError(source)
            try:
                from huggingface_hub import snapshot_download
            except ImportError:
                raise StudyError(
                    f"dataset: got {source!r}, which needs huggingface_hub: pip install 'qsgd-ray[huggingface]'"
                ) from None
            snapshot_download(  # nosec B615 # the study names the commit
                name, revision=commit, repo_type="dataset", allow_patterns=patterns, local_dir=target
            )

        return cached_folder(f"datasets/{name}@{commit}/{subset or 'all'}", fill)

    alternative = "a folder of parquet, jsonl or csv files (hf download --repo-type dataset --local-dir)"
    return load_from_hub("dataset", source, load, alternative)


def _files(root: Path, task: HuggingFaceTask) -> dict[Split, list[Path]]:
    """Return the files of each split, in their order; without a training split nothing can be learned."""
    files = [path for path in sorted(root.rglob("*")) if path.suffix in _READERS and path.is_file()]
    files = [path for path in files if not any(part.startswith(".") for part in path.relative_to(root).parts)]
    by_split: dict[Split, list[Path]] = {}
    for path in files:
        if (split := _split_of(path.relative_to(root))) is not None:
            by_split.setdefault(split, []).append(path)
    by_split = by_split or ({"train": files} if files else {})
    if "train" not in by_split:
        raise StudyError(
            f"dataset: got {task.dataset!r}, which has no training data; allowed: files "
            f"{', '.join(f'train*{suffix}' for suffix in _READERS)}"
        )
    return by_split


def _split_of(path: Path) -> Split | None:
    for word in reversed(path.parts):
        if match := _SPLIT.match(word):
            return _WORDS.get(match[1].lower(), "test")  # type: ignore[return-value]
    return None


def _rows(files: list[Path], task: HuggingFaceTask) -> Rows:
    """Return the columns that a task reads, row by row: the text, perhaps a second one, and the label."""
    columns = {"text_column": task.text_column}
    if task.head == "classification":
        columns |= {"pair_column": task.pair_column} if task.pair_column else {}
        columns |= {"label_column": task.label_column}
    rows: Rows = []
    for file in files:
        table = _table(file)
        names = [*table[0]] if table and isinstance(table[0], dict) else []
        for field, column in columns.items() if table else ():
            if column not in names:
                raise StudyError(f"{field}: got {column!r}; allowed: a column of {file} ({', '.join(map(str, names))})")
        for number, row in enumerate(table, start=1):
            cells = tuple(row.get(column) if isinstance(row, dict) else None for column in columns.values())
            for (field, column), cell in zip(columns.items(), cells, strict=True):
                is_label = field == "label_column"
                if not isinstance(cell, str) and not (is_label and type(cell) in (int, bool)):
                    kind = "a whole number or a word" if is_label else "a text"
                    raise StudyError(
                        f"{field}: row {number} of {file} has {cell!r:.40} as {column}; allowed: {kind} in each row"
                    )
            rows.append(cells)
    return rows


def _table(file: Path) -> list[Any]:
    try:
        if file.suffix == ".jsonl":
            return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
        if file.suffix == ".csv":
            from pyarrow import csv

            # Cells may have line breaks within quotation marks.
            return list(csv.read_csv(file, parse_options=csv.ParseOptions(newlines_in_values=True)).to_pylist())
        from pyarrow import parquet

        return list(parquet.read_table(file).to_pylist())
    except (ValueError, OSError) as error:  # ArrowInvalid and JSONDecodeError are ValueErrors
        raise StudyError(f"dataset: {file} cannot be read ({one_line(error, limit=200)})") from None


def _hold_out(rows: dict[Split, Rows], task: HuggingFaceTask) -> None:
    """Take missing splits out of the training rows, each a share of all of them."""
    missing = [split for split in ("validation", "test") if split not in rows]
    training = rows["train"]
    size = max(1, round(task.held_out * len(training)))
    if missing and len(missing) * size >= len(training):
        raise StudyError(
            f"held_out: got {task.held_out:g}; allowed: a share that leaves some of {len(training)} rows to train on"
        )
    rng = np.random.default_rng(named_seed("held out", task.data_seed))
    order = [int(index) for index in rng.permutation(len(training))] if missing else [*range(len(training))]
    for split in missing:
        rows[split] = [training[index] for index in sorted(order[:size])]  # type: ignore[index]
        order = order[size:]
    rows["train"] = [training[index] for index in sorted(order)]


def _drawn(rows: Rows, split: Split, task: HuggingFaceTask) -> Rows:
    """Return as many rows as a task asks for, drawn by its `data_seed`; one number of them begins with any smaller."""
    size: int | None = getattr(task, f"{split}_size")
    if size is None:
        return rows
    if size > len(rows):
        raise StudyError(f"{split}_size: got {size}; allowed: at most {len(rows)}, as the data have no more")
    rng = np.random.default_rng(named_seed("rows", task.data_seed, split))
    return [rows[index] for index in rng.permutation(len(rows))[:size].tolist()]


def _number_labels(rows: dict[Split, Rows], task: HuggingFaceTask) -> None:
    """Replace labels that are words by their number in alphabetical order; whole numbers stay."""
    labels = {row[-1] for part in rows.values() for row in part}
    if all(isinstance(label, int) for label in labels):
        for split, part in rows.items():
            rows[split] = [(*row[:-1], int(row[-1])) for row in part]
        return
    words = sorted(map(str, labels))
    if len(words) != task.n_classes:
        shown = ", ".join(words[:6]) + (" ..." if len(words) > 6 else "")
        raise StudyError(f"n_classes: got {task.n_classes}; allowed: {len(words)}, as the data have ({shown})")
    number = {word: index for index, word in enumerate(words)}
    for split, part in rows.items():
        rows[split] = [(*row[:-1], number[str(row[-1])]) for row in part]
