"""What a cluster would take: a model, a circuit and nodes in; step time, memory, nodes and money, from fits, out.

    circuits of a step, all actors:  calls, steps and multiplications of the engine (_frontier.py) / actors
    asking, in the training process: a + b actors + c circuits, c in proportion to the numbers sent (the pool's curve)
    a step:                          training + asking + what of the circuits is not over when the training step is

Every figure says whether it was measured, lies between measured sizes, or beyond which.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from qsgd_ray.circuits.chain import expectations as chain
from qsgd_ray.circuits.errors import CircuitMemoryError
from qsgd_ray.circuits.memory import needed_bytes
from qsgd_ray.circuits.select.auto import AutoBackend
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.circuits.statevector import simulate as statevector
from qsgd_ray.config import Scope, StudyError
from qsgd_ray.config.circuit import Entangle
from qsgd_ray.limits._curves import FittedCurve, fitted_curves
from qsgd_ray.limits._fits import Prediction, ScalingError
from qsgd_ray.limits._frontier import CircuitCosts, Engine, Standing, circuit_costs
from qsgd_ray.limits.rows import LimitsTables

MOST_ACTORS = 2**20


@dataclass(frozen=True)
class PlannedRun:
    """What is planned. `training_s`: a step without circuits; `training_told`: where that is from."""

    qubits: int
    parameters: int
    scope: Scope
    training_s: float
    training_told: str
    nodes: int = 1
    actors_per_node: int = 1
    depth: int = 2
    entangle: Entangle = "chain"
    tensors: int = 146
    overhead: float = 0.35
    memory_per_node: int = 2**34
    price_per_node_hour: float | None = None
    steps: int = 1000

    @property
    def n_circuits(self) -> int:
        """A step's."""
        match self.scope:
            case "model":
                return 1
            case "tensor":
                return self.tensors
            case "all":
                return math.ceil(self.parameters / self.qubits)


@dataclass(frozen=True)
class Plan:
    """`circuits_s`: until the slowest actor is done. `asking_s`: the training process's own part. `nodes_needed`: for
    at most the overhead that was asked for; None: no number of nodes is enough. `cost`: None without a price."""

    asked: PlannedRun
    engine: Engine
    actors: int
    circuits_s: Prediction
    asking_s: Prediction
    memory_bytes: int
    nodes_needed: int | None
    standing: Standing
    asking_standing: Standing

    @property
    def exposed_s(self) -> float:
        """By how much a step gets longer."""
        return self.asking_s.value + max(0.0, self.circuits_s.value - self.asked.training_s)

    @property
    def step_s(self) -> float:
        return self.asked.training_s + self.exposed_s

    @property
    def overhead(self) -> float:
        return self.exposed_s / self.asked.training_s

    @property
    def hidden(self) -> float:
        """The part of circuits and asking that runs during the training step."""
        every = self.circuits_s.value + self.asking_s.value
        return 1 - self.exposed_s / every if every else 1.0

    @property
    def node_hours(self) -> float:
        return self.asked.nodes * self.step_s * self.asked.steps / 3600

    @property
    def cost(self) -> float | None:
        price = self.asked.price_per_node_hour
        return None if price is None else self.node_hours * price


def plan(asked: PlannedRun, tables: LimitsTables) -> Plan:
    """StudyError in one line: circuits that no node could hold; rows from which nothing can be predicted."""
    costs, pool = circuit_costs(tables), _pool(tables)
    try:
        spec = CircuitSpec(asked.qubits, asked.depth, asked.entangle)
    except ValueError as error:
        raise StudyError(f"plan: {error}") from None

    def answering(actors: int) -> tuple[Engine, Prediction, Standing]:
        batch = math.ceil(asked.n_circuits / actors)
        engine = _engine(spec, batch, asked.memory_per_node // asked.actors_per_node)
        return engine, *_circuits(costs, engine, spec, batch)

    def exposed(actors: int) -> float:
        _, circuits_s, _ = answering(actors)
        asking_s, _ = _asking(pool, spec, asked.n_circuits, actors)
        return asking_s.value + max(0.0, circuits_s.value - asked.training_s)

    actors = asked.nodes * asked.actors_per_node
    engine, circuits_s, standing = answering(actors)
    asking_s, asking_standing = _asking(pool, spec, asked.n_circuits, actors)
    enough = _fewest(lambda n: exposed(n * asked.actors_per_node) <= asked.overhead * asked.training_s)
    memory = _memory(engine, spec, math.ceil(asked.n_circuits / actors))
    return Plan(asked, engine, actors, circuits_s, asking_s, memory, enough, standing, asking_standing)


def _engine(spec: CircuitSpec, batch: int, memory_bytes: int) -> Engine:
    """What `auto` takes on a node, Aer aside: its costs are not among the curves."""
    try:
        return cast(Engine, AutoBackend(memory_bytes=memory_bytes).pick(spec, batch, among=("torch", "chain")).name)
    except CircuitMemoryError as error:
        raise StudyError(f"plan: {error}") from None


def _circuits(costs: CircuitCosts, engine: Engine, spec: CircuitSpec, batch: int) -> tuple[Prediction, Standing]:
    """Of one actor. An engine works through a batch chunk by chunk, so no more than a chunk has to be measured."""
    chunk = min(batch, chain.CHUNK_CIRCUITS if engine == "chain" else statevector.circuits_per_chunk(spec.n_qubits))
    try:
        of_chunk = costs.seconds(engine, spec, chunk)
    except ScalingError as error:
        raise StudyError(f"plan: {error}; allowed: a study of limits with more curves of circuits") from None
    return Prediction(*(edge * batch / chunk for edge in of_chunk)), costs.standing(engine, spec, chunk)


def _asking(pool: FittedCurve, spec: CircuitSpec, n_circuits: int, actors: int) -> tuple[Prediction, Standing]:
    """What no actor takes off the training process. The numbers that travel count, not the circuits."""
    assert pool.fit is not None
    measured = pool.rows[-1]
    travels = spec.n_qubits * (2 * spec.depth + 1) / (measured["n_qubits"] * (2 * measured["depth"] + 1))
    asked = n_circuits * travels
    found = pool.fit.predict((1.0, actors, asked, 0.0))
    most_actors, most = (max(row[name] for row in pool.rows) for name in ("n_actors", "batch"))
    beyond = [f"{most_actors:,} actors"] if actors > most_actors else []
    beyond += [f"{most:,} circuits of {measured['n_qubits']} qubits"] if asked > most else []
    return found, Standing("extrapolated", " and ".join(beyond)) if beyond else Standing("interpolated")


def _pool(tables: LimitsTables) -> FittedCurve:
    for fitted in fitted_curves(tables):
        if fitted.curve.kind == "pool" and fitted.fit is not None:
            return fitted
    raise StudyError("plan: got results without a measured pool; allowed: those of studies/scaling_limits.py")


def _memory(engine: Engine, spec: CircuitSpec, batch: int) -> int:
    """Bytes of an actor beside its process: what the engine works in, angles and answers."""
    working = needed_bytes(spec.n_qubits) if engine == "torch" else chain.needed_bytes(spec)
    chunk = statevector.CHUNK_BYTES if engine == "torch" else chain.CHUNK_BYTES
    return max(working, chunk) + 8 * batch * spec.n_qubits * (2 * spec.depth + 1)


def _fewest(enough: Callable[[int], bool]) -> int | None:
    """The fewest for which `enough`, by doubling and then halving; None: not up to `MOST_ACTORS`."""
    high = 1
    while not enough(high):
        high *= 2
        if high > MOST_ACTORS:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def parameters_of(told: str) -> int:
    """1.2B, 135M, 50k or a plain number. StudyError in one line."""
    factor = {"k": 1e3, "m": 1e6, "b": 1e9}.get(told[-1:].lower(), 1.0)
    try:
        number = float(told[:-1] if factor > 1 else told) * factor
    except ValueError:
        number = math.nan
    if not 1 <= number < 1e15:
        raise StudyError(f"--model: got {told!r}; allowed: a number of parameters such as 1.2B, 135M or 50000")
    return round(number)


def training_seconds(parameters: int, tokens: int, flops_per_s: float, utilisation: float) -> float:
    """A step by 6 FLOP a parameter and token (PaLM, arXiv 2204.02311, appendix B), attention left out."""
    return 6 * parameters * tokens / (flops_per_s * utilisation)


def lines(found: Plan) -> list[tuple[str, str, str]]:
    """The plan as rows of a table: what, how much, and how that is known."""
    asked, own = found.asked, "counted"
    cost = "give --price-per-node-hour" if found.cost is None else f"{found.cost:,.2f}"
    enough = found.nodes_needed
    needed = "no number of nodes: asking alone takes too long" if enough is None else f"{enough:,}"
    rows: list[tuple[str, str, Any]] = [
        ("circuits a step", f"{asked.n_circuits:,} of {asked.qubits} qubits, depth {asked.depth}", own),
        ("engine that auto takes", found.engine, own),
        ("training step without circuits", _seconds(asked.training_s), asked.training_told),
        (f"circuits on {found.actors:,} actors", _interval(found.circuits_s), found.standing),
        ("asking, in the training process", _interval(found.asking_s), found.asking_standing),
        ("hidden behind the training step", f"{100 * found.hidden:.0f} %", "from the three above"),
        ("step with circuits", f"{_seconds(found.step_s)} ({100 * found.overhead:+.0f} %)", "from the three above"),
        ("memory of an actor", f"{_bytes(found.memory_bytes)} beside its process", own),
        (f"nodes for at most {100 * asked.overhead:g} % more", needed, "from the three above"),
        (f"node-hours of {asked.steps:,} steps", f"{found.node_hours:,.3g}", f"{asked.nodes:,} nodes for circuits"),
        ("money", cost, "at the price given" if found.cost is not None else "no price is known here"),
    ]
    return [(what, much, str(known)) for what, much, known in rows]


def is_extrapolated(found: Plan) -> bool:
    return "extrapolated" in (found.standing.word, found.asking_standing.word)


def _interval(p: Prediction) -> str:
    return f"{_seconds(p.value)} ({_seconds(p.low)} to {_seconds(p.high)})"


def _seconds(s: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if s * factor >= 1:
            return f"{s * factor:,.3g} {unit}" if s * factor < 1000 else f"{s * factor:,.0f} {unit}"
    return f"{s * 1e6:,.3g} µs"


def _bytes(n: int) -> str:
    return f"{n / 2**30:,.3g} GiB" if n >= 2**30 else f"{n / 2**20:,.3g} MiB"
