"""A study's folder: append-only typed Parquet rows, one file a trial and table, whole files put into place.

    DIR/study.json            the resolved study            DIR/trials/<trial_id>.parquet         one row
    DIR/provenance.json       versions, commit, hardware    DIR/measurements/<trial_id>.parquet   one row an epoch

DIR is a folder or the URI of an object store (storage.py). In: a `Trial` and its `Outcome`. Out: Arrow tables. Nothing
here is ever unpickled. A trial's row is written after its measurements, so a trial either is there whole or is run
again; a repeated attempt replaces its own files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from qsgd_ray.config import Study, StudyError, study_from_tree
from qsgd_ray.outcome import Ending, Measurement, Outcome
from qsgd_ray.storage import Storage, StorageError, storage_at
from qsgd_ray.trial import Trial

SCHEMA_VERSION = "5"
# The columns in which two runs of the same study may differ.
TIME_COLUMNS = (
    "elapsed_s",
    "wall_s",
    "train_s",
    "circuit_wait_s",
    "evaluation_s",
    "idle_s",
    "circuit_s",
    "seconds_to_target",
    "circuit_wait_s_to_target",
    "started_at",
    "host",
)


def _schema(columns: dict[str, Any]) -> pa.Schema:
    return pa.schema(columns.items(), metadata={"qsgd_ray_schema": SCHEMA_VERSION})


TRIALS = _schema(
    {
        "study": pa.string(),
        "stage": pa.string(),
        "trial_id": pa.string(),
        "arm": pa.string(),
        "number": pa.int32(),
        "seed": pa.int64(),
        "ending": pa.string(),
        "error": pa.string(),
        "workers": pa.int32(),
        "epochs_planned": pa.int32(),
        "epochs_run": pa.int32(),
        "steps": pa.int64(),
        "learning_rate": pa.float64(),
        "weight_decay": pa.float64(),
        "source": pa.string(),
        "lambda_": pa.float64(),
        "n_qubits": pa.int32(),
        "depth": pa.int32(),
        "entangle": pa.string(),
        "rotations": pa.string(),
        "scope": pa.string(),
        "formula": pa.string(),
        "placement": pa.string(),
        "direction": pa.string(),
        "schedule": pa.string(),
        "shots": pa.int64(),
        "noise": pa.string(),
        "train_loss": pa.float64(),
        "validation_loss": pa.float64(),
        "validation_accuracy": pa.float64(),
        "test_loss": pa.float64(),
        "test_accuracy": pa.float64(),
        "answers": pa.int64(),
        "answers_right": pa.int64(),
        "answers_without_number": pa.int64(),
        "target_accuracy": pa.float64(),
        "epochs_to_target": pa.int32(),
        "steps_to_target": pa.int64(),
        "seconds_to_target": pa.float64(),
        "circuit_wait_s_to_target": pa.float64(),
        "elapsed_s": pa.float64(),
        "wall_s": pa.float64(),
        "train_s": pa.float64(),
        "circuit_wait_s": pa.float64(),
        "evaluation_s": pa.float64(),
        "idle_s": pa.float64(),
        "circuit_s": pa.float64(),
        "n_circuits": pa.int64(),
        "perturbation_norm": pa.float64(),
        "adam_step_norm": pa.float64(),
        "parameters_sha256": pa.string(),
        "started_at": pa.timestamp("us", tz="UTC"),
        "host": pa.string(),
    }
)
MEASUREMENTS = _schema(
    {
        "trial_id": pa.string(),
        "stage": pa.string(),
        "arm": pa.string(),
        "number": pa.int32(),
        "seed": pa.int64(),
        "epoch": pa.int32(),
        "step": pa.int64(),
        "wall_s": pa.float64(),
        "circuit_wait_s": pa.float64(),
        "circuit_s": pa.float64(),
        "evaluation_s": pa.float64(),
        "n_circuits": pa.int64(),
        "train_loss": pa.float64(),
        "validation_loss": pa.float64(),
        "validation_accuracy": pa.float64(),
        "perturbation_norm": pa.float64(),
        "adam_step_norm": pa.float64(),
    }
)


@dataclass(frozen=True)
class Tables:
    """A study as read back: the study itself, its provenance, and the two tables sorted by trial and epoch."""

    study: Study
    provenance: dict[str, Any]
    trials: pa.Table
    measurements: pa.Table


def trial_row(
    trial: Trial,
    outcome: Outcome,
    *,
    started_at: datetime | None = None,
    ended_at: datetime | None = None,
    host: str | None = None,
) -> dict[str, Any]:
    """One row of `TRIALS`."""
    last: Measurement | None = outcome.measurements[-1] if outcome.measurements else None
    reached = outcome.first_reaching(trial.workload.target_accuracy)
    perturbation = trial.arm.perturbation
    perturbed = perturbation.model_dump() if perturbation else {}
    if perturbation:
        perturbed["rotations"] = ",".join(perturbation.rotations)
        perturbed["noise"] = perturbation.noise and perturbation.noise.model_dump_json()
    return {
        "study": trial.study,
        "stage": trial.stage,
        "trial_id": trial.trial_id,
        "arm": trial.arm.name,
        "number": trial.number,
        "seed": trial.seed,
        "ending": str(outcome.ending),
        "error": outcome.error,
        "workers": trial.workers,
        "epochs_planned": trial.epochs,
        "epochs_run": len(outcome.measurements),
        "learning_rate": trial.arm.learning_rate,
        "weight_decay": trial.arm.weight_decay,
        **perturbed,
        "test_loss": outcome.test_loss,
        "test_accuracy": outcome.test_accuracy,
        "answers": outcome.answers and outcome.answers.n,
        "answers_right": outcome.answers and outcome.answers.n_right,
        "answers_without_number": outcome.answers and outcome.answers.n_without_number,
        "target_accuracy": trial.workload.target_accuracy,
        "epochs_to_target": reached.epoch if reached else None,
        "steps_to_target": reached.step if reached else None,
        "seconds_to_target": reached.wall_s if reached else None,
        "circuit_wait_s_to_target": reached.circuit_wait_s if reached else None,
        "steps": last.step if last else None,
        "train_loss": last.train_loss if last else None,
        "validation_loss": last.validation_loss if last else None,
        "validation_accuracy": last.validation_accuracy if last else None,
        **_seconds(outcome, (ended_at - started_at).total_seconds() if started_at and ended_at else None),
        "n_circuits": last.n_circuits if last else None,
        "perturbation_norm": _mean(m.perturbation_norm for m in outcome.measurements),
        "adam_step_norm": _mean(m.adam_step_norm for m in outcome.measurements),
        "parameters_sha256": outcome.parameters_sha256,
        "started_at": started_at,
        "host": host,
    }


def _seconds(outcome: Outcome, elapsed_s: float | None) -> dict[str, float | None]:
    """Where a trial's time went: `elapsed_s`, from its start to its row, is the sum of `train_s` (steps), waits for
    circuits, evaluation, and `idle_s`: making data and model, reporting, waiting to be told whether to stop, and what
    came after the last measurement. `wall_s`: steps and waits. `circuit_s` is of other processes where a pool answers.
    """
    last = outcome.measurements[-1] if outcome.measurements else None
    if last is None:
        return {"elapsed_s": elapsed_s}
    evaluation_s = None if last.evaluation_s is None else last.evaluation_s + (outcome.test_s or 0.0)
    idle_s = None if elapsed_s is None or evaluation_s is None else elapsed_s - last.wall_s - evaluation_s
    return {
        "elapsed_s": elapsed_s,
        "wall_s": last.wall_s,
        "train_s": last.wall_s - last.circuit_wait_s,
        "circuit_wait_s": last.circuit_wait_s,
        "evaluation_s": evaluation_s,
        "idle_s": idle_s,
        "circuit_s": last.circuit_s,
    }


def measurement_rows(trial: Trial, outcome: Outcome) -> list[dict[str, Any]]:
    """The rows of `MEASUREMENTS`, one an epoch."""
    named = {
        "trial_id": trial.trial_id,
        "stage": trial.stage,
        "arm": trial.arm.name,
        "number": trial.number,
        "seed": trial.seed,
    }
    return [named | asdict(measurement) for measurement in outcome.measurements]


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


class Results:
    """What lies at `where` of one study: write rows, ask what is finished, read tables.

    StorageError where an object store fails in mid-study; what is written, is written.
    """

    def __init__(self, where: str | Path | Storage) -> None:
        self.storage = storage_at(where)
        self.path = self.storage.place()

    def open(self, study: Study, provenance: dict[str, Any]) -> None:
        """Make the place ready for `study`: new, or one that holds the same study and is gone on with.

        What a study was begun with stays; every later run adds its own record below `resumed`.
        """
        try:
            self.storage.make_ready("trials", "measurements")
            before = self.read_json("study.json")
            if before is not None:
                difference = _difference(before, study.model_dump(mode="json"))
                if difference:
                    raise StudyError(
                        f"--storage: got {self.path}, which holds a study with another {difference}; "
                        f"allowed: a new {self.storage.kind}, or the same study to go on with it"
                    )
            else:
                self.storage.require()
                self.write_text("study.json", study.model_dump_json(indent=2))
            first = self.read_json("provenance.json")
            if first is not None:
                provenance = first | {"resumed": [*first.get("resumed", []), provenance]}
            self.write_text("provenance.json", json.dumps(provenance, indent=2))
        except OSError as error:
            raise StudyError(
                f"--storage: got {self.path}; allowed: a {self.storage.kind} that can be written "
                f"({error.strerror or error})"
            ) from None

    def write(
        self, trial: Trial, outcome: Outcome, *, started_at: datetime | None = None, host: str | None = None
    ) -> None:
        """Put the trial's rows in place: measurements first, the trial's own row last. The trial ends now."""
        ended_at = datetime.now(UTC)
        for table, schema, rows in (
            ("measurements", MEASUREMENTS, measurement_rows(trial, outcome)),
            ("trials", TRIALS, [trial_row(trial, outcome, started_at=started_at, ended_at=ended_at, host=host)]),
        ):
            content = pa.BufferOutputStream()
            pq.write_table(pa.Table.from_pylist(rows, schema=schema), content)
            self.storage.put(_file(table, trial.trial_id), content.getvalue().to_pybytes())

    def write_text(self, name: str, text: str) -> Path | str:
        """A whole text file `name` beside the rows, put into place."""
        self.storage.put(name, text.encode())
        return self.storage.place(name)

    def read_json(self, name: str) -> Any:
        """The JSON file `name` beside the rows, None where there is none; StudyError where it is broken."""
        try:
            return json.loads(self.storage.read(name))
        except FileNotFoundError:
            return None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise StudyError(
                f"DIR: got {self.path}, whose {name} is broken ({error}); allowed: a study's {self.storage.kind}"
            ) from None

    def count(self) -> int:
        """How many trials have their row."""
        return len(self.storage.names("trials", ".parquet"))

    def has(self, trial_id: str) -> bool:
        """Whether this trial's row is there (a lost one is not: it is tried again)."""
        try:
            return self.ending(trial_id) != Ending.LOST
        except FileNotFoundError:
            return False

    def ending(self, trial_id: str) -> Ending:
        """How the trial of this id ended; its row must be there."""
        return Ending(self._rows("trials", trial_id)["ending"][0].as_py())

    def trajectory(self, trial_id: str) -> list[dict[str, Any]]:
        """The measurements of one trial, in the order of epochs."""
        return self._rows("measurements", trial_id).sort_by("epoch").to_pylist()

    def read(self) -> Tables:
        """The whole study. Measurements without their trial's row (a kill came between) are left out."""
        tree, provenance = self.read_json("study.json"), self.read_json("provenance.json")
        if tree is None or provenance is None:
            self.storage.require()
            raise StudyError(f"DIR: got {self.path}; allowed: a {self.storage.kind} that a study was run into")
        study = study_from_tree(tree)
        trials = self._table("trials", TRIALS).sort_by([("stage", "ascending"), ("trial_id", "ascending")])
        measurements = self._table("measurements", MEASUREMENTS)
        kept = pa.compute.is_in(measurements["trial_id"], trials["trial_id"].combine_chunks())
        order = [("stage", "ascending"), ("trial_id", "ascending"), ("epoch", "ascending")]
        return Tables(study, provenance, trials, measurements.filter(kept).sort_by(order))

    def _rows(self, table: str, trial_id: str) -> pa.Table:
        return pq.read_table(pa.BufferReader(self.storage.read(_file(table, trial_id))))

    def _table(self, name: str, schema: pa.Schema) -> pa.Table:
        def rows(file: str) -> pa.Table:
            try:
                return pq.read_table(pa.BufferReader(self.storage.read(f"{name}/{file}")), schema=schema)
            except StorageError:
                raise
            except (pa.ArrowInvalid, OSError) as error:
                told = " ".join(str(error).split())
                raise StudyError(
                    f"DIR: got {self.storage.place(f'{name}/{file}')}, which cannot be read ({told}); "
                    "allowed: the rows of a trial"
                ) from None

        # An object store answers late, but many at once.
        with ThreadPoolExecutor(self.storage.reads_at_once) as readers:
            return pa.concat_tables([schema.empty_table(), *readers.map(rows, self.storage.names(name, ".parquet"))])


def _file(table: str, trial_id: str) -> str:
    return f"{table}/{trial_id}.parquet"


def read(where: str | Path | Storage) -> Tables:
    """The study in a folder or at a URI (`.trials.to_pandas()` is a data frame)."""
    return Results(where).read()


def _difference(old: Any, new: Any, prefix: str = "") -> str | None:
    """The first dotted path at which two JSON trees differ, or None."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            if old.get(key) != new.get(key):
                return _difference(old.get(key), new.get(key), f"{prefix}.{key}".lstrip("."))
        return None
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (left, right) in enumerate(zip(old, new, strict=True)):
            if left != right:
                return _difference(left, right, f"{prefix}.{index}".lstrip("."))
        return None
    return None if old == new else f"{prefix} ({json.dumps(old)}, now {json.dumps(new)})"
