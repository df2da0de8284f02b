"""Plan a run on a cluster from measured limits: step time, memory, nodes and money.

    circuits of a step, all actors:     calls, steps and multiplications of the engine (_frontier.py) / actors requests,
    in the training process:  a + b actors + c circuits, c in proportion to the numbers sent (the pool's curve) a step:
    training + requests + the part of the circuits beyond the training step

Every figure says whether it was measured, lies between measured sizes, or beyond which.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from qsgd_ray.circuits.chain import expectations as chain
from qsgd_ray.circuits.errors import CircuitMemoryError
from qsgd_ray.circuits.memory import needed_bytes, statevector_bytes
from qsgd_ray.circuits.select.auto import AutoBackend
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.config import Scope, StudyError
from qsgd_ray.config.circuit import Entangle
from qsgd_ray.limits._curves import FittedCurve, fitted_curves
from qsgd_ray.limits._fits import Prediction, ScalingError
from qsgd_ray.limits._frontier import CircuitCosts, Engine, Standing, circuit_costs
from qsgd_ray.limits.rows import LimitsTables

_MOST_ACTORS = 2**20


@dataclass(frozen=True)
class PlannedRun:
    """A run to plan.

    Attributes:
        qubits: qubits of a circuit.
        parameters: parameters of the model.
        scope: which coordinates are perturbed: `model`, `tensor` or `all`.
        training_s: seconds of a step without circuits.
        training_source: where that number comes from, in words.
        nodes: nodes for circuits.
        actors_per_node: circuit actors on each, one core each.
        depth: layers of a circuit.
        entangle: its entanglement.
        tensors: tensors of the model.
        overhead: largest share that a step may get longer by.
        memory_per_node: bytes.
        price_per_node_hour: in any currency; None: unknown.
        steps: steps of the run.
    """

    qubits: int
    parameters: int
    scope: Scope
    training_s: float
    training_source: str
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
        """Circuits of a step."""
        match self.scope:
            case "model":
                return 1
            case "tensor":
                return self.tensors
            case "all":
                return math.ceil(self.parameters / self.qubits)


@dataclass(frozen=True)
class Plan:
    """A planned run with its predictions.

    Attributes:
        run: what was asked for.
        engine: the engine that `auto` picks, `torch` or `chain`.
        actors: circuit actors on all nodes.
        circuits_s: seconds until the slowest actor is done.
        requests_s: seconds of the training process for its requests.
        memory_bytes: memory of an actor beside its process.
        nodes_needed: nodes for at most the overhead asked for; None: no number of nodes is enough.
        standing: how far `circuits_s` can be relied on.
        requests_standing: how far `requests_s` can be relied on.
    """

    run: PlannedRun
    engine: Engine
    actors: int
    circuits_s: Prediction
    requests_s: Prediction
    memory_bytes: int
    nodes_needed: int | None
    standing: Standing
    requests_standing: Standing

    @property
    def exposed_s(self) -> float:
        """Seconds by which a step gets longer."""
        return self.requests_s.value + max(0.0, self.circuits_s.value - self.run.training_s)

    @property
    def step_s(self) -> float:
        """Seconds of a step with its circuits."""
        return self.run.training_s + self.exposed_s

    @property
    def overhead(self) -> float:
        """Share by which a step gets longer."""
        return self.exposed_s / self.run.training_s

    @property
    def hidden(self) -> float:
        """Share of circuits and requests that runs during the training step."""
        every = self.circuits_s.value + self.requests_s.value
        return 1 - self.exposed_s / every if every else 1.0

    @property
    def node_hours(self) -> float:
        """Node-hours of the run."""
        return self.run.nodes * self.step_s * self.run.steps / 3600

    @property
    def cost(self) -> float | None:
        """Money of the run; None without a price."""
        price = self.run.price_per_node_hour
        return None if price is None else self.node_hours * price


def plan(run: PlannedRun, tables: LimitsTables) -> Plan:
    """Return the plan of a run.

    Args:
        run: what to plan.
        tables: the rows of a study of limits.

    Raises:
        StudyError: circuits that no node could hold; rows from which nothing can be predicted.
    """
    costs, pool = circuit_costs(tables), _pool(tables)
    try:
        spec = CircuitSpec(run.qubits, run.depth, run.entangle)
    except ValueError as error:
        raise StudyError(f"plan: {error}") from None

    def answering(actors: int) -> tuple[Engine, Prediction, Standing]:
        batch = math.ceil(run.n_circuits / actors)
        engine = _engine(spec, batch, run.memory_per_node // run.actors_per_node)
        return engine, *_circuits(costs, engine, spec, batch)

    def exposed(actors: int) -> float:
        _, circuits_s, _ = answering(actors)
        requests_s, _ = _requests(pool, spec, run.n_circuits, actors)
        return requests_s.value + max(0.0, circuits_s.value - run.training_s)

    actors = run.nodes * run.actors_per_node
    engine, circuits_s, standing = answering(actors)
    requests_s, requests_standing = _requests(pool, spec, run.n_circuits, actors)
    enough = _fewest(lambda n: exposed(n * run.actors_per_node) <= run.overhead * run.training_s)
    memory = _memory(engine, spec, math.ceil(run.n_circuits / actors))
    return Plan(run, engine, actors, circuits_s, requests_s, memory, enough, standing, requests_standing)


def _engine(spec: CircuitSpec, batch: int, memory_bytes: int) -> Engine:
    """Return the engine that `auto` picks on a node, without Aer: its costs are not among the curves."""
    try:
        return cast(Engine, AutoBackend(memory_bytes=memory_bytes).pick(spec, batch, among=("torch", "chain")).name)
    except CircuitMemoryError as error:
        raise StudyError(f"plan: {error}") from None


def _circuits(costs: CircuitCosts, engine: Engine, spec: CircuitSpec, batch: int) -> tuple[Prediction, Standing]:
    """Predict the seconds of one actor. Large batches take their size in time, so a measured one is enough."""
    chunk = min(batch, chain.CHUNK_CIRCUITS if engine == "chain" else _enough_states(spec))
    try:
        of_chunk = costs.seconds(engine, spec, chunk)
    except ScalingError as error:
        raise StudyError(f"plan: {error}; allowed: a study of limits with more curves of circuits") from None
    return Prediction(*(edge * batch / chunk for edge in of_chunk)), costs.standing(engine, spec, chunk)


def _enough_states(spec: CircuitSpec) -> int:
    """Return the number of circuits of a batch that is large: its states take 4 MiB."""
    return max(1, 2**22 // statevector_bytes(spec.n_qubits))


def _requests(pool: FittedCurve, spec: CircuitSpec, n_circuits: int, actors: int) -> tuple[Prediction, Standing]:
    """Predict the part that stays with the training process; it grows with the numbers sent, not the circuits."""
    assert pool.fit is not None
    measured = pool.rows[-1]
    travels = spec.n_qubits * (2 * spec.depth + 1) / (measured["n_qubits"] * (2 * measured["depth"] + 1))
    equivalent = n_circuits * travels
    prediction = pool.fit.predict((1.0, actors, equivalent, 0.0))
    most_actors, most = (max(row[name] for row in pool.rows) for name in ("n_actors", "batch"))
    beyond = [f"{most_actors:,} actors"] if actors > most_actors else []
    beyond += [f"{most:,} circuits of {measured['n_qubits']} qubits"] if equivalent > most else []
    return prediction, Standing("extrapolated", " and ".join(beyond)) if beyond else Standing("interpolated")


def _pool(tables: LimitsTables) -> FittedCurve:
    for fitted in fitted_curves(tables):
        if fitted.curve.kind == "pool" and fitted.fit is not None:
            return fitted
    raise StudyError("plan: got results without a measured pool; allowed: those of studies/scaling_limits.py")


def _memory(engine: Engine, spec: CircuitSpec, batch: int) -> int:
    """Return the bytes of an actor beside its process: the working memory of the engine, angles and answers."""
    working = needed_bytes(spec.n_qubits) if engine == "torch" else chain.needed_bytes(spec)
    chunk = 0 if engine == "torch" else chain.CHUNK_BYTES
    return max(working, chunk) + 8 * batch * spec.n_qubits * (2 * spec.depth + 1)


def _fewest(enough: Callable[[int], bool]) -> int | None:
    """Return the fewest for which `enough`, by doubling and then halving; None: not up to the most actors."""
    high = 1
    while not enough(high):
        high *= 2
        if high > _MOST_ACTORS:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def parameters_of(text: str) -> int:
    """Return the number in 1.2B, 135M, 50k or plain digits. StudyError in one line."""
    factor = {"k": 1e3, "m": 1e6, "b": 1e9}.get(text[-1:].lower(), 1.0)
    try:
        number = float(text[:-1] if factor > 1 else text) * factor
    except ValueError:
        number = math.nan
    if not 1 <= number < 1e15:
        raise StudyError(f"--model: got {text!r}; allowed: a number of parameters such as 1.2B, 135M or 50000")
    return round(number)


def training_seconds(parameters: int, tokens: int, flops_per_s: float, utilisation: float) -> float:
    """Return the seconds of a step by 6 FLOP a parameter and token, attention left out.

    Source: PaLM, arXiv 2204.02311, appendix B.

    Args:
        parameters: parameters of the model.
        tokens: tokens of a step.
        flops_per_s: peak floating point operations a second of the hardware.
        utilisation: share of the peak that training reaches, 0 to 1.
    """
    return 6 * parameters * tokens / (flops_per_s * utilisation)


def lines(found: Plan) -> list[tuple[str, str, str]]:
    """Return the plan as rows of a table: what, how much, and how that is known."""
    run, counted = found.run, "counted"
    cost = "give --price-per-node-hour" if found.cost is None else f"{found.cost:,.2f}"
    enough = found.nodes_needed
    needed = "no number of nodes: asking alone takes too long" if enough is None else f"{enough:,}"
    rows: list[tuple[str, str, Any]] = [
        ("circuits a step", f"{run.n_circuits:,} of {run.qubits} qubits, depth {run.depth}", counted),
        ("engine that auto takes", found.engine, counted),
        ("training step without circuits", _seconds(run.training_s), run.training_source),
        (f"circuits on {found.actors:,} actors", _interval(found.circuits_s), found.standing),
        ("asking, in the training process", _interval(found.requests_s), found.requests_standing),
        ("hidden behind the training step", f"{100 * found.hidden:.0f} %", "from the three above"),
        ("step with circuits", f"{_seconds(found.step_s)} ({100 * found.overhead:+.0f} %)", "from the three above"),
        ("memory of an actor", f"{_bytes(found.memory_bytes)} beside its process", counted),
        (f"nodes for at most {100 * run.overhead:g} % more", needed, "from the three above"),
        (f"node-hours of {run.steps:,} steps", f"{found.node_hours:,.3g}", f"{run.nodes:,} nodes for circuits"),
        ("money", cost, "at the price given" if found.cost is not None else "no price is known here"),
    ]
    return [(what, much, str(known)) for what, much, known in rows]


def is_extrapolated(found: Plan) -> bool:
    """Return whether a figure of the plan lies beyond what was measured."""
    return "extrapolated" in (found.standing.word, found.requests_standing.word)


def _interval(p: Prediction) -> str:
    return f"{_seconds(p.value)} ({_seconds(p.low)} to {_seconds(p.high)})"


def _seconds(s: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if s * factor >= 1:
            return f"{s * factor:,.3g} {unit}" if s * factor < 1000 else f"{s * factor:,.0f} {unit}"
    return f"{s * 1e6:,.3g} µs"


def _bytes(n: int) -> str:
    return f"{n / 2**30:,.3g} GiB" if n >= 2**30 else f"{n / 2**20:,.3g} MiB"
