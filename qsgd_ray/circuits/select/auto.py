"""The choice of an engine: the quickest one that fits, by a cost model, and every backend by its name.

The choice follows from constants shipped here, so the same study picks the same engine on every machine, fast or slow.
Exact engines agree to about 1e-14, not in every bit, and the choice may change with the batch: where bits must not
depend on the size of a batch, name the engine.

Letters of shapes: b circuits, d layers, n qubits, r rotations a layer.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor

from qsgd_ray.circuits.aer.backend import AerBackend
from qsgd_ray.circuits.aer.noise import DeviceNoise, Noise
from qsgd_ray.circuits.backends.estimator import EstimatorBackend
from qsgd_ray.circuits.backends.in_process import ChainBackend, InProcess, TorchBackend
from qsgd_ray.circuits.backends.protocol import CircuitBackend, Pending, Sampling, checked_angles
from qsgd_ray.circuits.backends.shots import ShotsBackend, checked_seed
from qsgd_ray.circuits.chain import expectations as chain
from qsgd_ray.circuits.errors import CircuitError, CircuitMemoryError
from qsgd_ray.circuits.memory import format_bytes, needed_bytes
from qsgd_ray.circuits.plain_numbers import whole_number, whole_number_or_none
from qsgd_ray.circuits.select._costs import COSTS, Costs, predicted_us
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.config.circuit import Readout

_log = logging.getLogger(__name__)

# Picks that a backend remembers: those of a training are a handful.
_MOST_PICKS = 1000


class Pick(NamedTuple):
    """The engine that was picked, and why.

    Attributes:
        name: the engine.
        predicted_us: microseconds a circuit, of each engine that could have answered.
        reason: one line for the log.
    """

    name: str
    predicted_us: dict[str, float]
    reason: str


class AutoBackend:
    """A backend that uses the quickest engine for each submission.

    Exact answers come from torch, chain or Aer, as `pick` chooses; with `noise` from Aer; with `shots` and no noise
    they are sampled from torch's.

    Args:
        shots: measurements a circuit, >= 1; None: exact answers.
        noise: as `AerBackend` takes it; None: no noise.
        seed: seed of the draws, from 0 to 2**64 - 1.
        threads: threads of Aer; None: Aer's choice.
        memory_bytes: memory that one circuit may take; the same on every machine, so that the choice is the same.
        costs: constants of the cost model.

    Raises:
        CircuitError: from `submit`: as the engine.
        CircuitMemoryError: from `submit`: no engine can answer in this memory.

    Example:
        >>> AutoBackend().pick(CircuitSpec(1000, depth=2), batch=64).name
        'chain'
    """

    def __init__(
        self,
        shots: int | None = None,
        noise: Noise | DeviceNoise | None = None,
        seed: int = 0,
        threads: int | None = None,
        memory_bytes: int = 2**30,
        costs: Costs = COSTS,
    ) -> None:
        memory_bytes, seed = whole_number("memory_bytes", memory_bytes, 0), checked_seed(seed)
        threads = whole_number_or_none("threads", threads, 1)
        self.memory_bytes, self.costs, self._threads, self._seed = memory_bytes, costs, threads, seed
        self._exact: dict[str, InProcess] = {"torch": TorchBackend(memory_bytes), "chain": ChainBackend(memory_bytes)}
        # Made when it is picked: importing Aer takes a second.
        self._aer = partial(AerBackend, "statevector", threads=threads, memory_bytes=memory_bytes)
        self._engines: dict[str, CircuitBackend] = dict(self._exact)
        self._sampler: str | None = None
        if noise is not None:
            self._sampler = "noise"
            self._engines["noise"] = AerBackend(
                noise=noise, shots=shots, seed=seed, threads=threads, memory_bytes=memory_bytes
            )
        elif shots is not None:
            self._sampler = "shots"
            self._engines["shots"] = ShotsBackend(shots, seed, memory_bytes)
        self._logged: set[tuple[CircuitSpec, Readout]] = set()
        self._picks: dict[tuple[object, ...], Pick] = {}  # a small batch takes less time than picking its engine

    @property
    def differentiable(self) -> bool:
        """True while answers are exact: then `differentiate` follows them by autograd."""
        return self._sampler is None

    def submit(
        self,
        spec: CircuitSpec,
        angles_bdnr: Tensor,
        readout: Readout = "z",
        keys_b: Tensor | None = None,
        batch_size: int | None = None,
    ) -> Pending:
        """Submit circuits to the quickest engine.

        Args:
            spec: the circuit.
            angles_bdnr: any real dtype and device, shape (b, d, n, r); radians.
            readout: "z" or "probability", as of `CircuitBackend.submit`.
            keys_b: int64, shape (b,): names of the circuits' draws; exact engines do not read them.
            batch_size: circuits of the whole batch of which these are a part: the engine is chosen by it, so that the
                bits do not depend on how a batch is cut. None: these are all.

        Returns:
            The pending answer.
        """
        angles_bdnr = checked_angles(spec, angles_bdnr)
        name = self._picked(spec, angles_bdnr.shape[0] if batch_size is None else batch_size, readout).name
        if name == "aer" and name not in self._engines:
            self._engines[name] = self._aer()
        return self._engines[name].submit(spec, angles_bdnr, readout, keys_b)

    def sampled(self, sampling: Sampling) -> AutoBackend:
        """Return a backend like this one, its seed too, that samples or simulates noise.

        CircuitError: noise, and no Aer here.
        """
        noise = None if sampling.noise is None else Noise(**sampling.noise.model_dump())
        return AutoBackend(
            sampling.shots,
            noise,
            seed=self._seed,
            threads=self._threads,
            memory_bytes=self.memory_bytes,
            costs=self.costs,
        )

    def differentiate(self, spec: CircuitSpec, angles_bdnr: Tensor, readout: Readout = "z") -> Tensor:
        """Return exact answers that autograd follows back to the angles.

        Args:
            spec: the circuit.
            angles_bdnr: float64, shape (b, d, n, r), on the CPU; radians.
            readout: "z" or "probability".

        Returns:
            Of the dtype of the angles, shape (b, spec.answer_width(readout)).

        Raises:
            CircuitError: the answers are sampled or noisy.
        """
        if not self.differentiable:
            raise CircuitError(f"backend auto: got a derivative of {self._sampler}; allowed: of exact answers")
        # Without Aer, which autograd cannot follow.
        engine = self._exact[self._picked(spec, angles_bdnr.shape[0], readout, self._exact).name]
        return engine.differentiate(spec, angles_bdnr, readout)

    def pick(self, spec: CircuitSpec, batch: int, readout: Readout = "z", among: Iterable[str] | None = None) -> Pick:
        """Pick the engine for a batch.

        Args:
            spec: the circuit.
            batch: number of circuits.
            readout: "z" or "probability".
            among: names of the engines to choose from; None: all that are installed.

        Returns:
            The pick.

        Raises:
            CircuitMemoryError: no engine fits in `memory_bytes`.
        """
        if self._sampler is not None:
            return Pick(self._sampler, {}, f"{self._sampler} was asked for")
        names = {"torch", "chain"} | ({"aer"} if importlib.util.find_spec("qiskit_aer") else set())
        names &= names if among is None else set(among)
        excluded = {
            "torch": _too_large(needed_bytes(spec.n_qubits), self.memory_bytes),
            "chain": _too_large(chain.needed_bytes(spec), self.memory_bytes) if readout == "z" else "no such readout",
            "aer": _too_large(needed_bytes(spec.n_qubits), self.memory_bytes),
        }
        left_out = [f"{name} {excluded[name]}" for name in sorted(names) if excluded[name]]
        predicted = {name: predicted_us(name, spec, batch, self.costs) for name in sorted(names) if not excluded[name]}
        if not predicted:
            raise CircuitMemoryError(
                f"n_qubits: got {spec.n_qubits} at depth {spec.depth}, entangle {spec.entangle}, readout {readout}; "
                f"no engine fits: {', '.join(left_out)}"
            )
        ordered = sorted(predicted, key=predicted.__getitem__)
        times = ", ".join(f"{name} {predicted[name]:.3g} us" for name in ordered)
        return Pick(ordered[0], predicted, "; ".join((f"predicted a circuit at batch {batch}: {times}", *left_out)))

    def _picked(self, spec: CircuitSpec, batch: int, readout: Readout, among: Iterable[str] | None = None) -> Pick:
        key = (spec, batch, readout, among is None)
        if (pick := self._picks.get(key)) is not None:
            return pick
        pick = self.pick(spec, batch, readout, among)
        if len(self._picks) < _MOST_PICKS:
            self._picks[key] = pick
        if (spec, readout) not in self._logged:
            self._logged.add((spec, readout))
            _log.info("%s, readout %s: %s (%s)", spec, readout, pick.name, pick.reason)
        return pick


def _too_large(needed: int, available: int) -> str:
    """Return why a circuit does not fit in memory, or nothing."""
    return f"needs {format_bytes(needed)} with {available:,} there" if needed > available else ""


class _Kind(NamedTuple):
    """A backend's class and the options that its name takes."""

    make: Callable[..., CircuitBackend]
    options: tuple[str, ...]
    required: tuple[str, ...] = ()


_KINDS = {
    "auto": _Kind(AutoBackend, ("shots", "noise", "seed", "threads", "memory_bytes")),
    "torch": _Kind(TorchBackend, ("memory_bytes",)),
    "chain": _Kind(ChainBackend, ("memory_bytes",)),
    "aer": _Kind(AerBackend, ("method", "device", "noise", "shots", "seed", "threads", "memory_bytes")),
    "shots": _Kind(ShotsBackend, ("shots", "seed", "memory_bytes"), ("shots",)),
    "noise": _Kind(AerBackend, ("noise", "shots", "seed", "method", "device", "threads", "memory_bytes"), ("noise",)),
    "estimator": _Kind(EstimatorBackend, ("estimator", "precision", "backend", "pass_manager"), ("estimator",)),
}


def make_backend(
    name: str, *, shots: int | None = None, noise: Noise | DeviceNoise | None = None, **options: Any
) -> CircuitBackend:
    """Make a backend by its name.

    | name | answers | options |
    |---|---|---|
    | `auto` | by the quickest engine that fits (`AutoBackend`) | shots, noise, seed, threads, memory_bytes |
    | `torch` | exact statevectors, in batches (`TorchBackend`) | memory_bytes |
    | `chain` | exact <Z_i> of shallow circuits in linear time (`ChainBackend`) | memory_bytes |
    | `aer`, `noise` | Qiskit Aer (`AerBackend`) | those of auto, method, device |
    | `shots` | sampled from exact probabilities (`ShotsBackend`) | shots, seed, memory_bytes |
    | `estimator` | any Qiskit V2 estimator (`EstimatorBackend`) | estimator, precision, backend, pass_manager |

    Args:
        name: one of the names above; `noise` is `aer` that insists on noise.
        shots: measurements a circuit, >= 1, for auto, aer, shots (required) and noise; None: exact answers.
        noise: for auto, aer and noise (required): a `Noise` of circuits/aer/noise.py, or what its `of_backend` or
            `of_model` made; plain `NoiseSettings` are refused. None: no noise.
        options: the other options of the table. What is left out has the default of the class: seed 0, threads as Aer
            chooses, method "automatic", device "CPU"; memory_bytes for one circuit 2**30, with aer and noise what is
            available. `estimator` needs its estimator.

    Returns:
        The backend. Whichever it is, `answer` makes what it answers differentiable. Its class lists the errors of its
        `submit`.

    Raises:
        ValueError: in one line: no such name; an option that it does not take, or lacks; a value that its class
            refuses.
        CircuitError: qiskit-aer is needed and not installed: for aer, for noise, and for auto with noise.

    Example:
        >>> import torch
        >>> spec = CircuitSpec(4, depth=2)
        >>> make_backend("torch").submit(spec, torch.zeros(1, 2, 4, 2)).result().abs().max() < 1e-12
        tensor(True)
        >>> make_backend("shots", shots=1000).submit(spec, torch.zeros(1, 2, 4, 2)).result().shape
        torch.Size([1, 4])
        >>> make_backend("torch", shots=1000)
        Traceback (most recent call last):
            ...
        ValueError: backend torch: got the option 'shots'; allowed: memory_bytes
    """
    if not isinstance(name, str) or name not in _KINDS:
        raise ValueError(f"backend: got {name!r}; allowed: {', '.join(_KINDS)}")
    given = options | {key: value for key, value in (("shots", shots), ("noise", noise)) if value is not None}
    kind = _KINDS[name]
    for option in given:
        if option not in kind.options:
            raise ValueError(f"backend {name}: got the option {option!r}; allowed: {', '.join(kind.options)}")
    for option in kind.required:
        if option not in given:
            raise ValueError(f"backend {name}: got no {option}; it needs: {', '.join(kind.required)}")
    return kind.make(**given)
