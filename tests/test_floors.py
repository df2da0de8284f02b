"""The house: imports run strictly downwards, the mathematics never imports Ray, importing does nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "qsgd_ray"
# A module may import modules of a lower floor, and of its own floor only what FAMILY names.
FLOORS = [
    {
        "",
        "spaces",
        "outcome",
        "dotted",
        "circuits",
        "circuits.kinds",
        "peak_memory",
        "matmul_speed",
        "models.flops",
        "circuits.errors",
        "draws",
        "circuits.compiled",
        "optimizer.native",
        "optimizer.adam_kernel",
    },
    {"circuits.noise_settings", "language_settings"},
    {"workload_settings"},
    {"refusal"},
    {"arm_settings", "resource_settings", "stage_settings"},
    {"limits_settings", "map_design"},
    {"config"},
    {
        "cache",
        "hub",
        "models.tiny",
        "workloads.problem",
        "trial",
        "samplers",
        "storage",
        "scratch",
        "study_file",
        "overrides",
        "circuits.spec",
        "circuits.memory",
        "circuits.carries",
        "circuits.wave_bases",
    },
    {
        "models.smollm2",
        "workloads.chat",
        "workloads.gsm8k",
        "workloads.gsm_symbolic",
        "circuits.gates",
        "circuits.dense_series",
        "circuits.fused_waves",
        "circuits.contraction",
        "circuits.influence",
        "circuits.chain_blocks",
        "rows",
        "limits_rows",
        "provenance",
        "belonging",
        "versions",
    },
    {"row_files"},
    {
        "results",
        "tracking",
        "checkpoint_files",
        "checkpoint_index",
        "training_state",
        "replica",
        "circuits.statevector",
        "circuits.chain",
        "circuits.chain_amplitudes",
        "circuits.waves",
        "workloads.word_problems",
        "workloads.token_batches",
        "workloads.generation",
    },
    {
        "tracking.tracker",
        "circuits.backends",
        "workloads.token_loss",
        "analysis",
        "analysis.statistics",
        "analysis.throughput",
        "arm_search",
        "analysis.scaling",
    },
    {"analysis.costs", "analysis.importance"},
    {
        "tracking.tensorboard",
        "tracking.mlflow",
        "analysis.improvement",
        "analysis.profile",
        "analysis.time_to_target",
        "judging",
    },
    {"tracking.asked", "circuits.shots", "circuits.gradients", "circuits.in_process", "circuits.replicated", "tried"},
    {"circuits.aer_import", "circuits.series", "search_view"},
    {"circuits.noise", "circuits.aer_assembled"},
    {"circuits.aer_programs"},
    {"circuits.aer"},
    {"circuits.estimator", "circuits.costs"},
    {"circuits.auto", "optimizer.coordinates", "analysis.curves"},
    {"optimizer.scattered", "analysis.frontier"},
    {"optimizer.shards", "plan"},
    {
        "optimizer.perturbation",
        "optimizer.telemetry",
        "optimizer.adam_steps",
        "optimizer.schedules",
        "models",
        "models.attention",
        "analysis.summary",
        "response_plot",
    },
    {"models.transformer", "models.huggingface", "optimizer.one_pass", "optimizer.layout"},
    {"optimizer.at_once", "optimizer.by_runs", "optimizer.quick_step", "models.pretrained"},
    {"optimizer.adamw", "analysis.verdict", "analysis.comparison", "drawing", "workloads.text", "workloads.llm"},
    {"analysis.effect_map", "analysis.ladder", "optimizer.of_arm"},
    {"analysis.claims"},
    {
        "optimizer",
        "workloads",
        "curve_figures",
        "search_figure",
        "cost_figure",
        "words",
        "pages",
        "evidence",
        "pool",
        "pool.presence",
        "pool.pool_size",
        "pool.asked",
    },
    {"figures", "terminal", "map_figure"},
    {"workloads.calibrate", "report", "limits_figures", "checkpoints", "pool.door", "pool.answer_cache"},
    {"training", "limits_report"},
    {"bench", "bench.timing"},
    {"bench.rows", "bench.peers", "limits", "limits.measure"},
    {"limits.circuits", "limits.optimizer", "limits.training"},
    {"limits.signal"},
    {"bench.circuits", "bench.attention", "bench.optimizer", "bench.large_study"},
    {"bench.report"},
    {"bulletin", "connection", "one_node", "rung", "pool.metrics", "pool.roster"},
    {"pool.keeper", "pool.actor", "pool.switchboard"},
    {"pool.part"},
    {"pool.backend"},
    {"pool.circuit_pool"},
    {"bench.pool", "limits.pool"},
    {"limits.run"},
    {"distributed"},
    {"trainable", "progress", "bench.train", "replay", "tracking.beside"},
    {"search", "listed"},
    {"study", "bench.engine"},
    {
        "commands",
        "commands.complaint",
        "commands.report",
        "commands.compare",
        "commands.replay",
        "commands.track",
        "commands.circuit",
        "commands.bench",
        "commands.plan",
    },
    {"commands.run", "commands.dashboard"},
    {"cli"},
]
FIRST_FLOOR_WITH_RAY = next(n for n, floor in enumerate(FLOORS) if "pool.metrics" in floor)


def modules() -> dict[str, Path]:
    def name(path: Path) -> str:
        words = path.relative_to(PACKAGE).with_suffix("").parts
        return ".".join(words[:-1] if words[-1] == "__init__" else words)

    return {name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported(path: Path) -> set[str]:
    """Every dotted name that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def floor_of(module: str) -> int:
    return next(n for n, floor in enumerate(FLOORS) if module in floor)


def test_every_module_lives_on_one_floor():
    placed = [module for floor in FLOORS for module in floor]
    assert sorted(placed) == sorted(modules())


@pytest.mark.parametrize("module", modules())
def test_imports_run_strictly_downwards(module):
    known = modules()
    for name in imported(known[module]):
        if not name.startswith("qsgd_ray"):
            continue
        target = name.removeprefix("qsgd_ray").lstrip(".")
        if target in known and target != "":
            assert floor_of(target) < floor_of(module), f"{module} imports {target}, which is not below it"


@pytest.mark.parametrize("module", [m for m in modules() if floor_of(m) < FIRST_FLOOR_WITH_RAY])
def test_the_mathematics_knows_no_ray(module):
    assert not {name for name in imported(modules()[module]) if name.split(".")[0] == "ray"}


def test_importing_the_package_and_its_mathematics_loads_nothing_heavy():
    script = (
        "import sys, qsgd_ray, qsgd_ray.config, qsgd_ray.cli\n"
        "assert not {'torch', 'ray', 'qiskit', 'transformers', 'plotly'} & set(sys.modules), sorted(sys.modules)\n"
        "import qsgd_ray.optimizer, qsgd_ray.training.loop\n"
        "assert not {'ray', 'qiskit', 'transformers', 'plotly'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
