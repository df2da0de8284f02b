"""The slow, obvious reader of a study's rows: file after file, row after row; and the same `StudyTables` out."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from qsgd_ray.config import study_from_tree
from qsgd_ray.results import Results, StudyTables
from qsgd_ray.results.schema import MEASUREMENTS, TRIALS


def read_slowly(path: Path) -> StudyTables:
    """Return the tables of a folder: a trial's own file first, then the packs from the newest on.

    Measurements of trials without a row are left out.
    """
    trials = {row["trial_id"]: row for row in reversed(_rows(path / "trials"))}
    measurements = {(row["trial_id"], row["epoch"]): row for row in reversed(_rows(path / "measurements"))}
    measured = [row for row in measurements.values() if row["trial_id"] in trials]
    return StudyTables(
        study_from_tree(Results(path).read_json("study.json")),
        Results(path).read_json("provenance.json"),
        pa.Table.from_pylist(sorted(trials.values(), key=lambda r: (r["stage"], r["trial_id"])), schema=TRIALS),
        pa.Table.from_pylist(
            sorted(measured, key=lambda r: (r["stage"], r["trial_id"], r["epoch"])), schema=MEASUREMENTS
        ),
    )


def _rows(folder: Path) -> list[dict]:
    files = sorted(folder.glob("*.parquet"))
    own = [file for file in files if not file.name.startswith("packed-")]
    packs = [file for file in reversed(files) if file.name.startswith("packed-")]
    return [row for file in (*own, *packs) for row in pq.read_table(file).to_pylist()]
