"""Where an arm pays: the rows of a study's map in, the effect at every setting out.

Each setting is judged as an arm is (verdict.py), by validation accuracy, with Holm's correction over all settings.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass

from qsgd_ray.analysis.summary import Row, median, seconds_a_step, step_ratio
from qsgd_ray.analysis.verdict import ArmVerdict, decide, pair
from qsgd_ray.config.stages import Setting, baseline_setting, setting_name
from qsgd_ray.results import StudyTables

METRIC = "validation_accuracy"


@dataclass(frozen=True)
class MapCell:
    """One setting. `effect`: what the seeds say of it against the baseline; `significant`: a difference beyond chance.

    `overhead`: seconds a step over the baseline's at the same seed, less one, the median; `step_ratio`: |lambda * Q| /
    |Adam step|, the median. None where no run tells.
    """

    setting: Setting
    effect: ArmVerdict
    significant: bool
    overhead: float | None
    step_ratio: float | None


@dataclass(frozen=True)
class EffectMap:
    """`axes`: the paths of the fields that are varied, in the study's order."""

    arm: str
    baseline: str
    axes: tuple[str, ...]
    cells: tuple[MapCell, ...]


def effect_map(tables: StudyTables) -> EffectMap | None:
    """None where the study has no map."""
    study = tables.study
    if study.map is None:
        return None
    rows: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for name in (study.map.arm, study.baseline):
        for row in tables.rows("map", name):
            rows[name, _normal(row["setting"])].append(row)
    here = study.map_settings(study.map.arm)
    arm = {setting_name(setting): rows[study.map.arm, setting_name(setting)] for setting in here}
    baseline = {
        setting_name(setting): rows[study.baseline, setting_name(baseline_setting(setting))] for setting in here
    }
    pairs = {name: pair(arm[name], baseline[name], study.map.seeds, METRIC) for name in arm}
    effects = decide(pairs, study.decision, study.baseline)
    return EffectMap(
        study.map.arm,
        study.baseline,
        tuple(study.map.axes),
        tuple(
            MapCell(
                setting,
                effect,
                effect.p_difference is not None and effect.p_difference < study.decision.alpha,
                _overhead(arm[effect.arm], baseline[effect.arm]),
                median([ratio for row in arm[effect.arm] if (ratio := step_ratio(row)) is not None]),
            )
            for setting, effect in zip(here, effects, strict=True)
        ),
    )


def _normal(setting: str) -> str:
    """As `setting_name` writes it, whoever wrote it."""
    return setting_name(json.loads(setting))


def _overhead(arm: list[Row], baseline: list[Row]) -> float | None:
    base = {row["seed"]: seconds_a_step(row) for row in baseline}
    ratios = []
    for row in arm:
        mine, its = seconds_a_step(row), base.get(row["seed"])
        if mine is not None and its:
            ratios.append(mine / its - 1)
    return median(ratios)
