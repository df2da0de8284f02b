"""The bench of Ray Train: each engine once, on a Ray of its own, so in a process of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from problems_made import a_language_task

from qsgd_ray.bench import train

COST = r"a checkpoint takes \S+ s: 3 % where there is one every \d+ s"
UNSEEN = "a checkpoint takes less than these rounds differ by"

SCRIPT = """
import sys
from qsgd_ray.connection import settle
settle()
from qsgd_ray.config import WordProblems
from qsgd_ray.bench.train import training_step
data = WordProblems(source="gsm8k", path=sys.argv[1], train_size=None, validation_size=1, test_size=1)
for row in training_step("tiny", 2, 1, data):
    print(row.engine, row.per, row.rounds, row.median_us > 0, row.note, sep="|")
"""


def test_a_step_under_ray_train_stands_beside_a_plain_loop(tmp_path):
    pytest.importorskip("transformers")
    a_language_task(tmp_path, n_train=12)
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert run.returncode == 0, run.stderr
    rows = [line.split("|") for line in run.stdout.splitlines() if line.count("|") == 4]
    assert [row[0] for row in rows] == [
        "plain torch loop",
        "under Ray Train",
        "under Ray Train, one checkpoint",
        "plain torch loop, again",
    ]
    assert {(per, rounds, positive) for _, per, rounds, positive, _ in rows} == {("step", "1", "True")}
    # On so small a model either may come out.
    assert re.fullmatch(rf"{COST}|{UNSEEN}", rows[2][4])


def test_a_checkpoint_s_cost_is_told_where_the_rounds_show_one():
    told = train._cost_of_a_checkpoint({train.UNDER: [10.0, 10.2, 9.9], train.KEPT: [10.6, 10.9, 10.6]})
    assert told == "a checkpoint takes 0.6 s: 3 % where there is one every 20 s"
    assert re.fullmatch(COST, told)
    assert train._cost_of_a_checkpoint({train.UNDER: [10.2], train.KEPT: [10.1]}) == UNSEEN
