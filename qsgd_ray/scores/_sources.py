"""Sources of rows: a table in memory, a file, a Ray Tune result, an Optuna study or MLflow runs in; `Rows` out.

Nothing is imported for a source that is not there: objects of other packages are known by their class's module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qsgd_ray.config import StudyError
from qsgd_ray.config.errors import one_line
from qsgd_ray.scores import _optuna, _tune
from qsgd_ray.scores._mlflow import experiment_rows, run_rows
from qsgd_ray.scores._rows import Rows
from qsgd_ray.storage import StorageError, shown, storage_at

_KINDS = (
    "a data frame, an Arrow table, a dict of columns, a list of dicts, a .parquet or .csv file, mlflow:EXPERIMENT, "
    "optuna:STUDY@STORAGE, a Tune ResultGrid, an Optuna study, a list of MLflow runs"
)


def rows_of(table: Any) -> Rows:
    """Return the rows of any source; see `judge`.

    Raises:
        StudyError: it is none, or cannot be read; one line.
    """
    if isinstance(table, str | Path):
        return _named(table)
    if isinstance(table, Mapping):
        return _columns({str(name): list(values) for name, values in table.items()})
    module = type(table).__module__.partition(".")[0]
    if module == "pandas" and hasattr(table, "columns"):
        return _pandas(table)
    if module == "optuna" and hasattr(table, "get_trials"):
        return _optuna.study_rows(table)
    if module == "ray" and hasattr(table, "get_best_result"):
        return _tune.grid_rows(table)
    if hasattr(table, "__arrow_c_stream__"):
        import pyarrow as pa

        return _arrow(pa.table(table), "a table")
    if isinstance(table, Sequence):
        if table and all(type(item).__module__.partition(".")[0] == "mlflow" for item in table):
            return run_rows(table, f"{len(table)} MLflow runs")
        if all(isinstance(item, Mapping) for item in table):
            return Rows.of_dicts(table, "a list of rows")
    raise StudyError(f"table: got a {type(table).__name__}; allowed: {_KINDS}")


def _named(name: str | Path) -> Rows:
    text = str(name)
    if text.startswith("mlflow:"):
        return experiment_rows(text.removeprefix("mlflow:"))
    if text.startswith("optuna:"):
        return _optuna.stored_rows(text.removeprefix("optuna:"))
    kind = text.rpartition(".")[2].lower()
    if kind not in ("parquet", "csv"):
        raise StudyError(f"table: got {shown(text, 80)}; allowed: {_KINDS}")
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    try:
        content = pa.BufferReader(_content(text))
        if kind == "csv":
            return _arrow(pyarrow.csv.read_csv(content), text)
        # Arrow's own types alone: another package's may run its code when they are read.
        return _arrow(pq.ParquetFile(content, arrow_extensions_enabled=False).read(), text)
    except (OSError, pa.ArrowException) as error:
        problem = one_line(getattr(error, "strerror", None) or error, limit=100)
        raise StudyError(f"table: got {shown(text, 80)}; allowed: a {kind} file that can be read ({problem})") from None


def _content(text: str) -> bytes:
    if "://" not in text:
        return Path(text).read_bytes()
    folder, _, name = text.rpartition("/")
    try:
        return storage_at(folder, "table").read(name)
    except StorageError as error:
        raise OSError(str(error)) from None


def _columns(columns: Mapping[str, list[Any]]) -> Rows:
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{length} of {name}" for name, length in [*lengths.items()][:4])
        raise StudyError(f"table: got columns of different lengths ({told}); allowed: a value of each in every row")
    return Rows(list(columns), columns.__getitem__, "a dict of columns")


def _arrow(table: Any, source: str) -> Rows:
    return Rows(table.column_names, lambda name: table[name].to_pylist(), source)


def _pandas(frame: Any) -> Rows:
    def column(name: str) -> list[Any]:
        position = names.index(name)
        values = frame.iloc[:, position].astype(object)
        return values.where(values.notna(), None).tolist()

    names = [str(name) for name in frame.columns]
    return Rows(names, column, "a data frame")
