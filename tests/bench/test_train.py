"""The bench of Ray Train: each engine once, on a Ray of its own, so in a process of its own."""

import os
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from support.places import ROOT
from support.processes import STARTS_RAY_S
from support.small_tasks import a_language_task

from qsgd_ray.bench import train

COST = r"a checkpoint takes \S+ s: 3 % where there is one every \d+ s"
UNSEEN = "a checkpoint takes less than these pairs differ by"
PAIRS = r"of 8 pairs of epochs \S+ times, half of them \S+ to \S+"
SHARE = r"Ray's other processes: \d+ % of a core"

SCRIPT = """
import sys
from qsgd_ray.execution.connection import set_ray_environment
set_ray_environment()
from qsgd_ray.config import WordProblems
from qsgd_ray.bench.train import _training_step
data = WordProblems(source="gsm8k", path=sys.argv[1], train_size=None, validation_size=1, test_size=1)
for row in _training_step("tiny", 2, 1, data, kept=True):
    print(row.engine, row.per, row.rounds, row.median_us > 0, row.note, sep="|")
"""


@pytest.mark.ray
@pytest.mark.timeout(STARTS_RAY_S)
def test_a_step_under_ray_train_stands_beside_a_plain_loop(tmp_path):
    pytest.importorskip("transformers")
    a_language_task(tmp_path, n_train=18)
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert run.returncode == 0, run.stderr
    rows = [line.split("|") for line in run.stdout.splitlines() if line.count("|") == 4]
    assert [row[0] for row in rows] == ["plain torch loop", "under Ray Train"]
    assert {(per, rounds, positive) for _, per, rounds, positive, _ in rows} == {("step", "8", "True")}
    # On so small a model a checkpoint may be lost in the noise.
    assert re.fullmatch(f"{PAIRS}; ({COST}|{UNSEEN}); {SHARE}", rows[1][4])


def test_a_checkpoint_s_cost_is_what_its_pair_took_longer_than_the_others():
    ratios = np.array([[1.0, 1.02, 1.08, 1.0], [1.01, 1.0, 1.06, 1.0]])
    told = train._cost_of_a_checkpoint(ratios, 10.0, 2)
    assert told == "a checkpoint takes 0.7 s: 3 % where there is one every 23 s"
    assert re.fullmatch(COST, told)
    assert train._cost_of_a_checkpoint(ratios, 10.0, 3) == UNSEEN


def test_turns_are_told_and_taken(tmp_path):
    turns = train._Turns(tmp_path)
    assert turns.measured() == turns.resumed() == []
    turns.hand_over(1)
    assert turns(None, SimpleNamespace(evaluation_s=0.25)) is False
    assert turns.measured()[0][1] == 0.25
    assert turns.resumed()[0] >= turns.measured()[0][0]
    turns.hand_over(train._EPOCHS)  # the plain loop is over: nobody waits for it
    assert turns(None, SimpleNamespace(evaluation_s=0.5)) is False
    assert len(turns.measured()) == len(turns.resumed()) == 2


def test_an_epoch_is_without_the_turn_of_the_other_and_without_evaluation(tmp_path):
    (tmp_path / "measured").write_text("10.0 1.0\n25.0 3.0\n40.0 6.5\n")  # evaluation is counted over all epochs
    (tmp_path / "resumed").write_text("20.0\n30.0\n41.0\n")
    assert train._Turns(tmp_path).epochs_s() == [3.0, 6.5]
