"""Studies: arms, workload, stages and resources, checked together when constructed, equal to themselves through JSON.

In: values from a study file, from JSON or from `--set`. Out: a `Study`, or one line that says which field is wrong.
`None` means off.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, TypeVar

from pydantic import (
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from qsgd_ray.config._claim_checks import check_claims, check_ladder
from qsgd_ray.config._map_settings import WORKLOAD, map_settings, with_setting
from qsgd_ray.config._numbers import MOST_ITEMS, Seed
from qsgd_ray.config._old_claims import NUMBERS, claims_by_number
from qsgd_ray.config._problems import refusal
from qsgd_ray.config._settings import ALL_FIELDS, Settings
from qsgd_ray.config._several import StudyName, Workloads, check_parts, parts_of, without_unused
from qsgd_ray.config._workload_fields import examples, with_fields
from qsgd_ray.config.arm import Arm
from qsgd_ray.config.base import options
from qsgd_ray.config.budget import Budget
from qsgd_ray.config.claims import Claim, Rung
from qsgd_ray.config.errors import StudyError, _shown, validation_message
from qsgd_ray.config.json_text import _require_usable
from qsgd_ray.config.known_points import _check_known_points
from qsgd_ray.config.metric import Metric, metrics_of
from qsgd_ray.config.resources import Resources
from qsgd_ray.config.stages import (
    Confirm,
    Decision,
    Map,
    Search,
    Setting,
    Stage,
    baseline_setting,
    setting_name,
)
from qsgd_ray.config.task import Task

S = TypeVar("S", bound=Settings)

_MOST_CLAIMS = 256


class Study(Settings):
    """One question, asked of several arms under one budget.

    Fields are checked together: the baseline is an arm, seeds of search and confirmation are disjoint, workers divide
    the batch, every setting of the map can be trained. A study is equal to itself through JSON (`model_dump_json`,
    `study_from_tree`).

    Attributes:
        name: lower-case letters, digits, `-` and `_`, 40 at most; the folder of its results. A part of a study with
            `workloads` is named STUDY/WORKLOAD.
        question: the question in words.
        workload: the training task, a `TextTask`, a `LanguageTask` or a task of one's own (`SupervisedTask`). Of a
            study with `workloads` the first of them.
        workloads: several tasks by name, in place of `workload`: every arm is searched and confirmed on each, which
            gives a verdict each and one over all. None: there is one task.
        arms: the ways to train that are compared, at least one, each name once.
        baseline: name of the arm that the others are compared with.
        search: how each arm's settings are searched.
        confirm: on which seeds, and how long, the best points are confirmed.
        decision: the rule of the verdict.
        map: where to follow an arm over settings. None: no map.
        claims: what somebody says of the arms, each with the finding that the report comes to. Of studies that were
            stored earlier also an arm by each of the numbers `C1` to `C7`.
        ladder: controls from the lowest, and what each would explain of a gain. None: those arms whose perturbation
            has less of a circuit in it than the arm's (analysis/ladder.py). Empty: no ladder.
        resources: what Ray is asked for.
        budget: hours and money that all runs together may take; of several workloads each has an equal share. None: no
            limit.
        seed: of the search's samplers, 0 to 2^32 - 1.

    Raises:
        InvalidSettings: a field is wrong, or does not go with another; a `StudyError` of one line.

    Example:
        >>> from qsgd_ray.config import *
        >>> study = Study(
        ...     name="small",
        ...     question="Does the sine help?",
        ...     workload=TextTask(),
        ...     arms=(Arm(name="adamw"), Arm(name="sine", perturbation=Perturbation(source="sine"))),
        ...     baseline="adamw",
        ...     search=Search(trials_per_arm=1, epochs=2),
        ...     confirm=Confirm(seeds=(101, 102, 103), epochs=10),
        ...     decision=Decision(margin=0.01),
        ... )
        >>> study.planned("confirm", study.arm("sine"))
        3
        >>> Study.model_validate_json(study.model_dump_json()) == study
        True
    """

    name: StudyName
    question: str = Field(min_length=1)
    workload: Task = Field(default=None)  # type: ignore[assignment]  # `_consistent` sees that there is one
    workloads: Workloads | None = None
    arms: tuple[Arm, ...] = Field(min_length=1, max_length=MOST_ITEMS)
    baseline: str
    search: Search
    confirm: Confirm
    decision: Decision
    map: Map | None = None
    claims: tuple[Claim, ...] = Field(default=(), max_length=_MOST_CLAIMS)
    ladder: Annotated[tuple[Rung, ...], Field(max_length=MOST_ITEMS)] | None = None
    resources: Resources = Resources()
    seed: Seed = 0
    budget: Budget | None = None

    @model_serializer(mode="wrap")
    def _without_later_defaults(
        self, as_tree: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        """Leave out what is not set and came later: a study of before is then stored as it was."""
        tree = without_unused(as_tree(self))
        if self.budget is None and info.context != ALL_FIELDS:
            tree.pop("budget", None)
        return tree

    @field_validator("claims", mode="before")
    @classmethod
    def _claims_of_old_studies(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, dict):
            return value
        if odd := [number for number in value if number not in NUMBERS]:
            raise refusal(f"a list of claims, or an arm by number, {NUMBERS[0]} to {NUMBERS[-1]}; got {_shown(odd[0])}")
        if no_names := [name for name in value.values() if not isinstance(name, str)]:
            raise refusal(f"a list of claims, or the name of an arm by number; got {_shown(no_names[0])}")
        if not {"arms", "workload"} <= info.data.keys():  # refused already
            return ()
        workload = info.data["workload"]
        if workload is None:
            raise refusal("a list of claims, as numbers are of studies of one workload; got claims by number")
        return claims_by_number(value, info.data["arms"], workload)

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        if self.workloads is not None:
            check_parts(self)
            object.__setattr__(self, "workload", next(iter(self.workloads.values())))
            return self
        if self.workload is None:
            raise refusal("workload: got nothing; allowed: a task, or several by name in workloads")
        if self.decision.margins:
            raise refusal(f"decision.margins: none without workloads; got {', '.join(self.decision.margins)}")
        names = [arm.name for arm in self.arms]
        if len(set(names)) != len(names):
            raise refusal(f"arms: each name once; got {', '.join(names)}")
        if self.baseline not in names:
            raise refusal(f"baseline: one of the arms ({', '.join(names)}); got {_shown(self.baseline)}")
        if both := sorted({*self.search.seeds} & {*self.confirm.seeds}):
            raise refusal(f"confirm.seeds: disjoint from search.seeds; got {', '.join(map(str, both))} in both")
        if self.search.grace_epochs > self.search.epochs:
            raise refusal(
                f"search.grace_epochs: at most search.epochs ({self.search.epochs}); got {self.search.grace_epochs}"
            )
        _check_known_points(self.search, self.arms)
        if self.resources.circuit_engine != "auto":
            for arm in self.arms:
                sources = options(arm.perturbation.source) if arm.perturbation is not None else ()
                if drawing := [source for source in sources if source in ("sampled", "noisy")]:
                    raise refusal(
                        f"resources.circuit_engine: auto with the source {drawing[0]} of arm {arm.name}; "
                        f"got {self.resources.circuit_engine!r}"
                    )
        tasks = [self.workload, *(task for arm in self.arms for task in self.tasks_of(arm))]
        self._check_decision()
        workers_of = {"search": self.search.workers, "confirm": self.confirm.workers}
        if self.map is not None:
            self._check_map(self.map)
            workers_of["map"] = self.map.workers
        check_claims(self.claims, self.arms, self.baseline, self.workload, self.map, self.metric)
        check_ladder(self.ladder or (), self.arms, self.baseline)
        if self.resources.sharding == "fsdp" and max(workers_of.values()) > 1:
            for arm in self.arms:
                if arm.optimizer is not None and not arm.optimizer.is_elementwise:
                    raise refusal(
                        f"resources.sharding: ddp with the optimizer {arm.optimizer.name} of arm {arm.name}, which "
                        "looks at whole tensors; got 'fsdp'"
                    )
        for stage, workers in workers_of.items():
            if odd := [task.batch_size for task in tasks if task.batch_size % workers]:
                raise refusal(f"{stage}.workers: a divisor of workload.batch_size ({odd[0]}); got {workers}")
        return self

    def parts(self) -> dict[str, Study]:
        """Return the studies of one workload each that this one consists of, by the workload's name.

        A part is a study like any other, named STUDY/WORKLOAD, with the margin of its workload. A study of one workload
        is its own part, by its own name.
        """
        return {self.name: self} if self.workloads is None else parts_of(self)

    @property
    def all_workloads(self) -> tuple[Task, ...]:
        """The tasks of the study, one or several."""
        return (self.workload,) if self.workloads is None else tuple(self.workloads.values())

    def tasks_of(self, arm: Arm) -> list[Task]:
        """Return the tasks of an arm with its own fields, at the edges of what is searched of them; none without.

        Args:
            arm: an arm of this study.
        """
        if not arm.workload:
            return []
        try:
            return [with_fields(self.workload, fields) for fields in examples(arm.workload)]
        except KeyError as error:
            known = [name for name in self.workload.model_dump() if name not in ("kind", "code", "measured")]
            allowed = f"fields of the workload ({', '.join(known)})"
            raise refusal(f"arms.{arm.name}.workload: {allowed}; got {_shown(error.args[0])}") from None
        except ValidationError as error:
            problem = validation_message(error).partition(".")[2] or validation_message(error)
            raise refusal(f"arms.{arm.name}.workload: values that a task can have; {problem}") from None

    def _check_decision(self) -> None:
        measured = [metric.name for metric in metrics_of(self.workload)]
        if self.decision.metric not in (None, *measured):
            raise refusal(
                f"decision.metric: a metric of the workload ({', '.join(measured)}); got {self.decision.metric!r}"
            )
        if self.metric.kind == "share":
            for field, value in (
                ("decision.margin", self.decision.margin),
                ("search.tolerance", self.search.tolerance),
            ):
                if value >= 1:
                    raise refusal(f"{field}: below 1, as {self.metric.name} is a share; got {value:g}")

    def _check_map(self, design: Map) -> None:
        others = [arm.name for arm in self.arms if arm.name != self.baseline]
        if design.arm not in others:
            raise refusal(f"map.arm: an arm beside the baseline ({', '.join(others)}); got {_shown(design.arm)}")
        if "name" in design.axes:
            raise refusal(
                f"map.axes: fields that a trial depends on; got 'name', by which the arm {design.arm} is known"
            )
        if shared := set(self.search.seeds) & set(design.seeds):
            raise refusal(f"map.seeds: disjoint from search.seeds; got {min(shared)} in both")
        for setting in map_settings(design):
            try:
                _, workload = with_setting(self.arm(design.arm), self.workload, setting)
                with_setting(self.arm(self.baseline), self.workload, baseline_setting(setting))
            except KeyError as error:
                raise refusal(
                    f"map.axes: fields of the arm {design.arm} or, below {WORKLOAD[:-1]}, of the workload; "
                    f"got {error.args[0]}"
                ) from None
            except ValidationError as error:
                raise refusal(
                    f"map.axes: settings that a trial can have; of {setting} {validation_message(error)}"
                ) from None
            if workload.batch_size % design.workers:
                raise refusal(f"map.workers: a divisor of every batch size; got {design.workers} for {setting}")

    def workload_of(self, arm: Arm) -> Task:
        """Return the task that an arm trains on: the study's, with the fields that the arm has otherwise.

        Args:
            arm: an arm without spaces in its workload.
        """
        return with_fields(self.workload, arm.workload)

    @property
    def metric(self) -> Metric:
        """The metric that decides: the one that the decision names, else the workload's first."""
        name = self.decision.metric
        return next(metric for metric in metrics_of(self.workload) if name in (None, metric.name))

    def arm(self, name: str) -> Arm:
        """Return the arm of this name; StopIteration where there is none."""
        return next(arm for arm in self.arms if arm.name == name)

    def map_settings(self, arm: str) -> tuple[Setting, ...]:
        """Return the settings at which the map trains an arm, each once; none for an arm that is not of the map.

        The baseline has fewer: it lacks the axes of a perturbation.
        """
        if self.map is None or arm not in (self.map.arm, self.baseline):
            return ()
        settings = map_settings(self.map)
        if arm == self.map.arm:
            return settings
        return tuple({setting_name(setting): setting for setting in map(baseline_setting, settings)}.values())

    def planned(self, stage: Stage, arm: Arm) -> int:
        """Return the number of trials that a stage plans for an arm, one a seed.

        Args:
            stage: `search`, `confirm` or `map`.
            arm: an arm of this study. One without a space is not searched.
        """
        if stage == "confirm":
            return len(self.confirm.seeds)
        if stage == "map":
            return len(self.map_settings(arm.name)) * len(self.map.seeds) if self.map is not None else 0
        return self.points(arm) * len(self.search.seeds)

    def points(self, arm: Arm) -> int:
        """Return the number of points that the search tries for an arm; 0 for an arm without a space."""
        return self.search.trials_per_arm if arm.spaces() else 0


def study_from_tree(tree: Any) -> Study:
    """Return the study of plain JSON data; StudyError in one line, with arms by their names, where it is none."""
    return settings_from_tree(tree, Study)


def settings_from_tree(tree: Any, kind: type[S]) -> S:
    """Return settings of plain JSON data.

    Args:
        tree: nested dicts and lists.
        kind: their class, such as `Study` or `Limits`.

    Raises:
        StudyError: they cannot be; one line, in which items of lists go by their names.
    """
    _require_usable(tree)
    try:
        return kind.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        raise StudyError(validation_message(error, tree)) from None
