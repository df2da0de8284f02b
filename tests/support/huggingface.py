"""A tiny model and a few labelled texts in folders, as users have them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from qsgd_ray.config import HuggingFaceTask

WORDS = {0: ("bad", "poor", "sad"), 1: ("good", "fine", "glad")}


def reviews(n: int, first: int = 0) -> list[tuple[str, int]]:
    """Return n short texts, no two alike, whose class a word says."""
    return [(f"{index} is {WORDS[index % 2][index % 3]}", index % 2) for index in range(first, first + n)]


def write_reviews(
    folder: Path, sizes: dict[str, int], kind: str = "jsonl", names: tuple[str, ...] = ("0", "1")
) -> Path:
    """Write splits of reviews into a folder, a file each; return the folder.

    Args:
        folder: made if it does not exist.
        sizes: rows by the name of a split.
        kind: `jsonl`, `csv` or `parquet`.
        names: words for the labels; of digits, numbers are written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    first = 0
    for split, size in sizes.items():
        rows = [
            {"text": text, "label": label if names == ("0", "1") else names[label]}
            for text, label in reviews(size, first)
        ]
        first += size
        path = folder / f"{split}.{kind}"
        if kind == "jsonl":
            path.write_text("\n".join(map(json.dumps, rows)) + "\n")
        elif kind == "csv":
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, ["text", "label"])
                writer.writeheader()
                writer.writerows(rows)
        else:
            import pyarrow
            from pyarrow import parquet

            parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return folder


def save_tiny(folder: Path, seed: int = 1) -> Path:
    """Write the tiny language model and its tokenizer into a folder, as save_pretrained does; return the folder."""
    from qsgd_ray.models.pretrained import load_pretrained

    model, tokenizer = load_pretrained("tiny", seed=seed)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def a_task(folder: Path, **fields) -> HuggingFaceTask:
    """Return a classification of 32, 10 and 12 reviews by the tiny model, which it writes into `folder / data`."""
    data = write_reviews(folder / "data", {"train": 32, "validation": 10, "test": 12})
    return HuggingFaceTask(**{"pretrained": "tiny", "dataset": str(data), "batch_size": 8, "max_length": 24} | fields)
