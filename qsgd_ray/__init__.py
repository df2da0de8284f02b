"""Studies of quantum-circuit perturbations of AdamW that end in a verdict, and the parts they are made of.

Every public name is imported from here. Importing the package loads nothing heavy: a name loads its module when it is
used for the first time (PEP 562).

- A study is stated with `Study`, `Arm`, `Perturbation`, `Search`, `Confirm`, `Decision`, `Map`, `Resources`, `TextTask`
  and the other settings of `qsgd_ray.config`; a wrong one is a `StudyError` of one line.
- `run` runs it; `read_results` reads one that has run. Both return a `StudyResult`, of a study of several workloads a
  `WorkloadsResult` with one for each; `analyse` analyses a result's tables.
- `judge` gives the verdicts of a study's rule on any table of (arm, seed, score), a `Judgement`.
- A training loop of your own takes the optimizer: `SuperpositionalAdamW`, `LambdaSchedule`.
- Circuits are simulated by `CircuitSpec`, `make_backend` and `answer`. Any circuit is a `Circuit` of gates whose angles
  are made of `inputs` and `weights`; `from_qiskit` and `from_qasm` import one.
- A model gets quantum attention from `QuantumAttention` or `add_quantum_attention`.

`QuantumAttention` is here the torch module, a drop-in for `scaled_dot_product_attention` (models/attention.py). The
settings of the same name, which switch it on in a study's model, are `qsgd_ray.config.QuantumAttention`.

Example:
    >>> import qsgd_ray as q
    >>> q.Arm(name="sine", perturbation=q.Perturbation(source="sine", lambda_=0.5)).perturbation.source
    'sine'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qsgd_ray.analysis.study_analysis import StudyAnalysis, analyse
    from qsgd_ray.analysis.verdict import ArmVerdict, Verdict
    from qsgd_ray.circuits.angles import inputs, weights
    from qsgd_ray.circuits.backends.gradients import answer
    from qsgd_ray.circuits.circuit import Circuit
    from qsgd_ray.circuits.errors import CircuitError
    from qsgd_ray.circuits.qiskit_circuits import from_qasm, from_qiskit
    from qsgd_ray.circuits.select.auto import make_backend
    from qsgd_ray.circuits.spec import CircuitSpec
    from qsgd_ray.config import (
        Arm,
        Budget,
        ChatFormat,
        Choice,
        CircuitCurve,
        Claim,
        ClaimPart,
        Confirm,
        Contrast,
        Decision,
        Expectation,
        GenerativeTask,
        Groups,
        HuggingFaceTask,
        LanguageTask,
        Limits,
        LogUniform,
        Lora,
        Map,
        Metric,
        NoiseSettings,
        ObjectiveTask,
        Optimizer,
        OptimizerCurve,
        OwnTask,
        Perturbation,
        PoolCurve,
        Resources,
        Rung,
        Search,
        SequenceTask,
        SignalCurve,
        Splits,
        Study,
        StudyError,
        SupervisedTask,
        TextTask,
        TrainingCurve,
        Transformer,
        Uniform,
        WordProblems,
        WorkerResources,
        workload_class,
    )
    from qsgd_ray.config.loading import load_study
    from qsgd_ray.models.attention import QuantumAttention
    from qsgd_ray.models.huggingface import add_quantum_attention
    from qsgd_ray.optimizer import LambdaSchedule, SuperpositionalAdamW
    from qsgd_ray.scores.judge import Judgement, judge
    from qsgd_ray.storage import StorageError
    from qsgd_ray.study.reading import read_results
    from qsgd_ray.study.result import StudyResult
    from qsgd_ray.study.run import run
    from qsgd_ray.study.workloads_result import WorkloadsResult

__version__ = "0.1.0"

# Each public name and the module that it is loaded from; in the order of the imports above, which mypy reads.
_MODULES = {
    "StudyAnalysis": "qsgd_ray.analysis.study_analysis",
    "analyse": "qsgd_ray.analysis.study_analysis",
    "ArmVerdict": "qsgd_ray.analysis.verdict",
    "Verdict": "qsgd_ray.analysis.verdict",
    "inputs": "qsgd_ray.circuits.angles",
    "weights": "qsgd_ray.circuits.angles",
    "answer": "qsgd_ray.circuits.backends.gradients",
    "Circuit": "qsgd_ray.circuits.circuit",
    "CircuitError": "qsgd_ray.circuits.errors",
    "from_qasm": "qsgd_ray.circuits.qiskit_circuits",
    "from_qiskit": "qsgd_ray.circuits.qiskit_circuits",
    "make_backend": "qsgd_ray.circuits.select.auto",
    "CircuitSpec": "qsgd_ray.circuits.spec",
    "Arm": "qsgd_ray.config",
    "Budget": "qsgd_ray.config",
    "ChatFormat": "qsgd_ray.config",
    "Choice": "qsgd_ray.config",
    "CircuitCurve": "qsgd_ray.config",
    "Claim": "qsgd_ray.config",
    "ClaimPart": "qsgd_ray.config",
    "Confirm": "qsgd_ray.config",
    "Contrast": "qsgd_ray.config",
    "Decision": "qsgd_ray.config",
    "Expectation": "qsgd_ray.config",
    "GenerativeTask": "qsgd_ray.config",
    "Groups": "qsgd_ray.config",
    "HuggingFaceTask": "qsgd_ray.config",
    "LanguageTask": "qsgd_ray.config",
    "Limits": "qsgd_ray.config",
    "LogUniform": "qsgd_ray.config",
    "Lora": "qsgd_ray.config",
    "Map": "qsgd_ray.config",
    "Metric": "qsgd_ray.config",
    "NoiseSettings": "qsgd_ray.config",
    "ObjectiveTask": "qsgd_ray.config",
    "Optimizer": "qsgd_ray.config",
    "OptimizerCurve": "qsgd_ray.config",
    "OwnTask": "qsgd_ray.config",
    "Perturbation": "qsgd_ray.config",
    "PoolCurve": "qsgd_ray.config",
    "Resources": "qsgd_ray.config",
    "Rung": "qsgd_ray.config",
    "Search": "qsgd_ray.config",
    "SequenceTask": "qsgd_ray.config",
    "SignalCurve": "qsgd_ray.config",
    "Splits": "qsgd_ray.config",
    "Study": "qsgd_ray.config",
    "StudyError": "qsgd_ray.config",
    "SupervisedTask": "qsgd_ray.config",
    "TextTask": "qsgd_ray.config",
    "TrainingCurve": "qsgd_ray.config",
    "Transformer": "qsgd_ray.config",
    "Uniform": "qsgd_ray.config",
    "WordProblems": "qsgd_ray.config",
    "WorkerResources": "qsgd_ray.config",
    "workload_class": "qsgd_ray.config",
    "load_study": "qsgd_ray.config.loading",
    "QuantumAttention": "qsgd_ray.models.attention",
    "add_quantum_attention": "qsgd_ray.models.huggingface",
    "LambdaSchedule": "qsgd_ray.optimizer",
    "SuperpositionalAdamW": "qsgd_ray.optimizer",
    "Judgement": "qsgd_ray.scores.judge",
    "judge": "qsgd_ray.scores.judge",
    "StorageError": "qsgd_ray.storage",
    "read_results": "qsgd_ray.study.reading",
    "StudyResult": "qsgd_ray.study.result",
    "run": "qsgd_ray.study.run",
    "WorkloadsResult": "qsgd_ray.study.workloads_result",
}

__all__ = [
    "Arm",
    "ArmVerdict",
    "Budget",
    "ChatFormat",
    "Choice",
    "Circuit",
    "CircuitCurve",
    "CircuitError",
    "CircuitSpec",
    "Claim",
    "ClaimPart",
    "Confirm",
    "Contrast",
    "Decision",
    "Expectation",
    "GenerativeTask",
    "Groups",
    "HuggingFaceTask",
    "Judgement",
    "LambdaSchedule",
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
    "StorageError",
    "Study",
    "StudyAnalysis",
    "StudyError",
    "StudyResult",
    "SuperpositionalAdamW",
    "SupervisedTask",
    "TextTask",
    "TrainingCurve",
    "Transformer",
    "Uniform",
    "Verdict",
    "WordProblems",
    "WorkerResources",
    "WorkloadsResult",
    "add_quantum_attention",
    "analyse",
    "answer",
    "from_qasm",
    "from_qiskit",
    "inputs",
    "judge",
    "load_study",
    "make_backend",
    "read_results",
    "run",
    "weights",
    "workload_class",
]


if not TYPE_CHECKING:  # a type checker would take every name for one of the module's

    def __getattr__(name: str) -> Any:
        """Load a public name from its module, once."""
        if name not in _MODULES:
            raise AttributeError(f"module 'qsgd_ray' has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_MODULES[name]), name)
        return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})
