"""The effect map: the rows of a study's map in; the arm's effect against the baseline at every setting out.

Each setting is judged as an arm is (verdict.py), by validation data, with Holm's correction over all settings.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from dataclasses import dataclass

from qsgd_ray.analysis._rows import Row, median, seconds_per_step, step_ratio
from qsgd_ray.analysis.pairs import pair_by_seed
from qsgd_ray.analysis.verdict import ArmVerdict, Verdict, decide
from qsgd_ray.config import ACCURACY, Metric
from qsgd_ray.config.stages import Setting, Value, baseline_setting, setting_name
from qsgd_ray.results import StudyTables


@dataclass(frozen=True)
class MapCell:
    """One setting of a map.

    Attributes:
        setting: value by the path of its field.
        effect: the verdict on the arm against the baseline here, by validation data.
        significant: the difference is beyond chance at the study's alpha, corrected for the number of settings.
        overhead: seconds a step over the baseline's at the same seed, less one; median, None where no run has it.
        step_ratio: |lambda * Q| / |Adam step|; median, None where no run has it.
    """

    setting: Setting
    effect: ArmVerdict
    significant: bool
    overhead: float | None
    step_ratio: float | None


@dataclass(frozen=True)
class EffectMap:
    """The effect of an arm at every setting of a study's map.

    Attributes:
        arm: its name.
        baseline: the name of the arm that it is compared with.
        axes: paths of the fields that are varied, in the study's order.
        cells: one a setting, in the study's order.
        metric: of the decision.
    """

    arm: str
    baseline: str
    axes: tuple[str, ...]
    cells: tuple[MapCell, ...]
    metric: Metric = ACCURACY

    @property
    def is_grid(self) -> bool:
        """Every combination of the axes' values is there, so that cells leave no hole."""
        return math.prod(len(self.values(axis)) for axis in self.axes) == len(self.cells)

    @property
    def verdict_counts(self) -> dict[Verdict, int]:
        """Settings by their verdict, in the order in which the verdicts occur."""
        return dict(Counter(cell.effect.verdict for cell in self.cells))

    def values(self, axis: str) -> list[Value]:
        """Return the values of an axis in the order in which they stand in the study."""
        return list(dict.fromkeys(cell.setting[axis] for cell in self.cells))


def map_effects(tables: StudyTables) -> EffectMap | None:
    """Return the effect at every setting of the study's map, whether its runs have ended or not; None without a map."""
    study = tables.study
    if study.map is None:
        return None
    rows: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for name in (study.map.arm, study.baseline):
        for row in tables.rows("map", name):
            rows[name, _canonical(row["setting"])].append(row)
    settings = study.map_settings(study.map.arm)
    arm = {setting_name(setting): rows[study.map.arm, setting_name(setting)] for setting in settings}
    baseline = {
        setting_name(setting): rows[study.baseline, setting_name(baseline_setting(setting))] for setting in settings
    }
    metric = study.metric
    pairs = {name: pair_by_seed(arm[name], baseline[name], study.map.seeds, metric, "validation") for name in arm}
    effects = decide(pairs, study.decision, study.baseline, metric)
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
            for setting, effect in zip(settings, effects, strict=True)
        ),
        metric,
    )


def _canonical(setting: str) -> str:
    """Return a setting as `setting_name` writes it: rows of other versions may have other spaces."""
    return setting_name(json.loads(setting))


def _overhead(arm: list[Row], baseline: list[Row]) -> float | None:
    baseline_by_seed = {row["seed"]: seconds_per_step(row) for row in baseline}
    ratios = []
    for row in arm:
        arm_s, baseline_s = seconds_per_step(row), baseline_by_seed.get(row["seed"])
        if arm_s is not None and baseline_s:
            ratios.append(arm_s / baseline_s - 1)
    return median(ratios)
