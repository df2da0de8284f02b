"""The calibration of the text task: it repeats, learns an easy task, and prints its table."""

import pytest
from support.small_tasks import a_text_task

from qsgd_ray.config import Transformer
from qsgd_ray.workloads import make_workload
from qsgd_ray.workloads.calibrate import _epochs_to, _learning_curve, main

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_calibration_loop_repeats_and_learns_an_easy_task():
    easy = {"family": "motif", "n_classes": 2, "vocabulary": 64, "difficulty": 0, "train_size": 1024}
    workload = make_workload(
        a_text_task(**easy, model=Transformer(d_model=32, n_heads=2, d_feedforward=32, n_layers=1))
    )
    first, second = (_learning_curve(workload, 0, 4)[0] for _ in range(2))
    assert first == second
    # Chance is 0.5 with a standard deviation of 0.05: five of them, passed by luck once in 3.5 million.
    assert first[-1] > 0.75


def test_the_calibration_sees_the_data_in_the_order_in_which_a_trial_does(monkeypatch):
    workload, seen = make_workload(a_text_task()), []
    batches = workload.batches
    monkeypatch.setattr(workload, "batches", lambda seed, epoch, **at: seen.append(epoch) or batches(seed, epoch, **at))
    _learning_curve(workload, 0, 3)
    assert seen == [1, 2, 3], "the training loop counts epochs from one"


def test_epochs_count_from_one_and_a_miss_is_none():
    assert _epochs_to(0.6, [0.5, 0.7, 0.55]) == 2
    assert _epochs_to(0.8, [0.5, 0.7, 0.55]) is None


def test_the_command_prints_a_row_a_seed_and_the_quartiles(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["calibrate", "--seeds", "2", "--epochs", "1"])
    monkeypatch.setattr("qsgd_ray.workloads.calibrate.TextTask", a_text_task)
    main()
    first_cells = [line.split(" | ")[0] for line in capsys.readouterr().out.splitlines()]
    assert first_cells[2:] == ["| 0", "| 1", "| lower quartile", "| median", "| upper quartile"]
