"""Studies as data: frozen settings, checked when constructed, refused in one line, equal to themselves through JSON.

`from qsgd_ray.config import *` brings the words that a study file is written in, and nothing else: `__all__`.
"""

from qsgd_ray.config._numbers import Seed as Seed
from qsgd_ray.config._searchable import Direction as Direction
from qsgd_ray.config._searchable import Formula as Formula
from qsgd_ray.config._searchable import LambdaShape as LambdaShape
from qsgd_ray.config._searchable import Placement as Placement
from qsgd_ray.config._searchable import Scope as Scope
from qsgd_ray.config._searchable import Source as Source
from qsgd_ray.config.arm import Arm, Perturbation
from qsgd_ray.config.base import Choice, LogUniform, Uniform
from qsgd_ray.config.base import Name as Name
from qsgd_ray.config.budget import Budget
from qsgd_ray.config.circuit import NoiseSettings
from qsgd_ray.config.claims import UNITS as UNITS
from qsgd_ray.config.claims import Claim, ClaimPart, Contrast, Expectation, Rung
from qsgd_ray.config.claims import Measure as Measure
from qsgd_ray.config.errors import InvalidSettings as InvalidSettings
from qsgd_ray.config.errors import StudyError as StudyError
from qsgd_ray.config.errors import validation_message as validation_message
from qsgd_ray.config.huggingface import HuggingFaceTask
from qsgd_ray.config.installed_tasks import workload_class as workload_class
from qsgd_ray.config.limits import CircuitCurve, Limits, OptimizerCurve, PoolCurve, SignalCurve, TrainingCurve
from qsgd_ray.config.limits import Curve as Curve
from qsgd_ray.config.metric import ACCURACY as ACCURACY
from qsgd_ray.config.metric import Metric
from qsgd_ray.config.metric import metric_label as metric_label
from qsgd_ray.config.metric import metrics_of as metrics_of
from qsgd_ray.config.objective import ObjectiveTask
from qsgd_ray.config.optimizer import Groups, Optimizer
from qsgd_ray.config.own_task import OwnTask, Splits
from qsgd_ray.config.resources import SHARE_OF_NODE as SHARE_OF_NODE
from qsgd_ray.config.resources import Resources
from qsgd_ray.config.resources import Sharding as Sharding
from qsgd_ray.config.sequence import GenerativeTask, SequenceTask
from qsgd_ray.config.stages import STAGES as STAGES
from qsgd_ray.config.stages import Confirm, Decision, Map, Search
from qsgd_ray.config.stages import Stage as Stage
from qsgd_ray.config.study import Study
from qsgd_ray.config.study import settings_from_tree as settings_from_tree
from qsgd_ray.config.study import study_from_tree as study_from_tree
from qsgd_ray.config.supervised import SupervisedTask
from qsgd_ray.config.task import StoredTask as StoredTask
from qsgd_ray.config.task import Task as Task
from qsgd_ray.config.worker_resources import WorkerResources
from qsgd_ray.config.workload import (
    ChatFormat,
    LanguageTask,
    Lora,
    QuantumAttention,
    TextTask,
    Transformer,
    WordProblems,
)

__all__ = [
    "Arm",
    "Budget",
    "ChatFormat",
    "Choice",
    "CircuitCurve",
    "Claim",
    "ClaimPart",
    "Confirm",
    "Contrast",
    "Decision",
    "Expectation",
    "GenerativeTask",
    "Groups",
    "HuggingFaceTask",
    "LanguageTask",
    "Limits",
    "LogUniform",
    "Lora",
    "Map",
    "Metric",
    "NoiseSettings",
    "ObjectiveTask",
    "Optimizer",
    "OptimizerCurve",
    "OwnTask",
    "Perturbation",
    "PoolCurve",
    "QuantumAttention",
    "Resources",
    "Rung",
    "Search",
    "SequenceTask",
    "SignalCurve",
    "Splits",
    "Study",
    "SupervisedTask",
    "TextTask",
    "TrainingCurve",
    "Transformer",
    "Uniform",
    "WordProblems",
    "WorkerResources",
]
