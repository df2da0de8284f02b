"""Write trials as event files, a folder each, for `tensorboard --logdir FOLDER`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from qsgd_ray.config.trial import Trial
from qsgd_ray.outcome import REPEATED
from qsgd_ray.storage import Folder
from qsgd_ray.tracking._records import metric_names, parameters

# This file beside a trial's events holds its ending.
_ENDED = "ended.txt"


class TensorBoard:
    """A `Tracker` by tensorboardX, which Ray Tune installs."""

    def __init__(self, folder: Path) -> None:
        self._folder = Folder(folder)
        self._writers: dict[str, Any] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def has(self, trial_id: str) -> bool:
        """See `Tracker`. Trials that were lost, or lacked something, are run again."""
        with suppress(OSError):
            return self._folder.read(f"{trial_id}/{_ENDED}").decode(errors="replace") not in REPEATED
        return False

    def begin(self, trial: Trial) -> None:
        """See `Tracker`."""
        from tensorboardX import SummaryWriter
        from tensorboardX.summary import hparams

        folder = self._folder.writable(trial.trial_id)
        if (before := self._writers.pop(trial.trial_id, None)) is not None:
            before.close()
        for left in [*folder.glob("events.out.tfevents.*"), folder / _ENDED]:
            left.unlink(missing_ok=True)
        writer = self._writers[trial.trial_id] = SummaryWriter(str(folder), flush_secs=5)
        # Its own add_hparams opens a run of another name for them.
        experiment, begin, _ = hparams(parameters(trial), dict.fromkeys(metric_names(trial), 0.0))
        writer.file_writer.add_summary(experiment)
        writer.file_writer.add_summary(begin)

    def log_epoch(self, trial: Trial, epoch: int, numbers: dict[str, float]) -> None:
        """See `Tracker`."""
        for name, value in numbers.items():
            self._writers[trial.trial_id].add_scalar(name, value, epoch)

    def end(self, trial: Trial, ending: str, numbers: dict[str, float]) -> None:
        """See `Tracker`."""
        from tensorboardX.summary import hparams

        writer = self._writers.pop(trial.trial_id)
        for name, value in numbers.items():
            writer.add_scalar(name, value, trial.epochs)
        writer.add_text("ending", ending)
        *_, end = hparams({}, {})
        writer.file_writer.add_summary(end)
        writer.close()
        self._folder.put(f"{trial.trial_id}/{_ENDED}", ending.encode())

    def close(self) -> None:
        """See `Tracker`."""
        for writer in self._writers.values():
            writer.close()
