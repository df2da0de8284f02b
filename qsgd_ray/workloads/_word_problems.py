"""Word problems by their settings: a `WordProblems` comes in, three splits of problems go out, the same every time.

Generated problems are written once, as Parquet in the cache, into a folder named by the hash of their definition.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from qsgd_ray.config.workload import SPLITS, Split, WordProblems
from qsgd_ray.storage.cache import cached_folder
from qsgd_ray.workloads._gsm8k import read_gsm8k
from qsgd_ray.workloads._gsm_symbolic import PACKAGE, VERSION, generate_gsm_symbolic
from qsgd_ray.workloads._problem import Problem

# Counts the changes in how the generator's text becomes problems: another number, other files.
_RULES = 1


@dataclass(frozen=True)
class Splits:
    """Three splits of problems; no question is in two of them, nor twice in one."""

    train: tuple[Problem, ...]
    validation: tuple[Problem, ...]
    test: tuple[Problem, ...]

    @property
    def sha256(self) -> str:
        """Return a digest that is equal if and only if every word of every problem is, in this order."""
        rows = [[split, *asdict(problem).values()] for split in SPLITS for problem in getattr(self, split)]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def load_word_problems(settings: WordProblems) -> Splits:
    """Load the problems that settings describe, from files, from the cache or from the generator.

    Raises:
        StudyError: one line: what is missing and how to get it.
    """
    if settings.source == "gsm8k":
        return _splits(read_gsm8k(settings))
    definition = {
        "package": f"{PACKAGE} {VERSION}",
        "rules": _RULES,
        **settings.model_dump(include={"train_size", "validation_size", "test_size", "data_seed"}),
    }
    words = json.dumps(definition, sort_keys=True)
    digest = hashlib.sha256(words.encode()).hexdigest()[:16]

    def fill(folder: Path) -> None:
        for split, problems in generate_gsm_symbolic(settings).items():
            _write(folder / f"{split}.parquet", problems)
        (folder / "definition.json").write_text(words, encoding="utf-8")

    folder = cached_folder(f"word-problems/gsm-symbolic-{digest}", fill)
    return _splits({split: _read(folder / f"{split}.parquet") for split in SPLITS})


def _splits(problems: dict[Split, list[Problem]]) -> Splits:
    return Splits(**{split: tuple(problems[split]) for split in SPLITS})


def _write(file: Path, problems: list[Problem]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema([(name, pa.string()) for name in Problem.__dataclass_fields__])
    parquet.write_table(pa.Table.from_pylist([asdict(problem) for problem in problems], schema=schema), file)


def _read(file: Path) -> list[Problem]:
    from pyarrow import parquet

    return [Problem(**row) for row in parquet.read_table(file).to_pylist()]
