"""A measurement, a trial and its outcome, made up."""

from __future__ import annotations

from qsgd_ray.config.trial import search_trial
from qsgd_ray.outcome import Ending, Measurement, Outcome
from support.small_study import a_study


def measured(epoch: int, accuracy: float, **fields) -> Measurement:
    """Return a made-up measurement of an epoch."""
    return Measurement(
        **{
            "epoch": epoch,
            "step": 2 * epoch,
            "wall_s": 0.5 * epoch,
            "circuit_wait_s": 0.0,
            "n_circuits": 0,
            "train_loss": 1.0 / epoch,
            "validation_loss": 1.5 / epoch,
            "validation_accuracy": accuracy,
        }
        | fields
    )


TRIAL = search_trial(a_study(), "sine", 0, {"learning_rate": 1e-3})


OUTCOME = Outcome(Ending.COMPLETED, (measured(1, 0.5), measured(2, 0.95)), parameters_sha256="ab")
