"""Which engine answers: a circuit, its batch and what is asked of it in; the quickest engine that fits, and why, out.

The choice follows from constants shipped here, so the same study picks the same engine on every machine, fast or slow.
Exact engines agree to about 1e-14, not in every bit, and the choice may change with the batch: where bits must not
depend on the size of a batch, name the engine.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor

from qsgd_ray.circuits.aer.backend import AerBackend, NoisyBackend
from qsgd_ray.circuits.aer.noise import DeviceNoise, Noise
from qsgd_ray.circuits.backends.estimator import EstimatorBackend
from qsgd_ray.circuits.backends.in_process import ChainBackend, InProcess, TorchBackend
from qsgd_ray.circuits.backends.protocol import CircuitBackend, Pending, Sampling, checked_angles
from qsgd_ray.circuits.backends.shots import ShotsBackend
from qsgd_ray.circuits.chain import expectations as chain
from qsgd_ray.circuits.errors import CircuitError, CircuitMemoryError
from qsgd_ray.circuits.memory import format_bytes, needed_bytes
from qsgd_ray.circuits.select.costs import COSTS, Costs, predicted_us
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.config.circuit import Readout

log = logging.getLogger(__name__)


class Pick(NamedTuple):
    """`name`: the engine. `predicted_us`: microseconds a circuit of each engine that could have answered."""

    name: str
    predicted_us: dict[str, float]
    reason: str


class AutoBackend:
    """The quickest engine for each submission: exact ones by `pick`; Aer with `noise`; torch sampled with `shots`.

    Arguments as of NoisyBackend and ShotsBackend. `memory_bytes`: what one circuit may take, the same for every machine
    so that the choice is. CircuitError, CircuitMemoryError: as the engine; no engine can answer.
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
        self.memory_bytes, self.costs, self._threads = memory_bytes, costs, threads
        self._exact: dict[str, InProcess] = {"torch": TorchBackend(memory_bytes), "chain": ChainBackend(memory_bytes)}
        # Made when it is picked: importing Aer takes a second.
        self._aer = partial(AerBackend, "statevector", threads=threads, memory_bytes=memory_bytes)
        self._engines: dict[str, CircuitBackend] = dict(self._exact)
        self._sampler: str | None = None
        if noise is not None:
            self._sampler = "noise"
            self._engines["noise"] = NoisyBackend(noise, shots, seed, threads=threads, memory_bytes=memory_bytes)
        elif shots is not None:
            self._sampler = "shots"
            self._engines["shots"] = ShotsBackend(shots, seed, memory_bytes)
        self._told: set[tuple[CircuitSpec, Readout]] = set()

    @property
    def differentiable(self) -> bool:
        """Can autograd look into it? Yes, while it is exact."""
        return self._sampler is None

    def submit(
        self,
        spec: CircuitSpec,
        angles_bdnr: Tensor,
        readout: Readout = "z",
        keys_b: Tensor | None = None,
        batch_size: int | None = None,
    ) -> Pending:
        angles_bdnr = checked_angles(spec, angles_bdnr)
        name = self._picked(spec, angles_bdnr.shape[0] if batch_size is None else batch_size, readout).name
        if name == "aer" and name not in self._engines:
            self._engines[name] = self._aer()
        return self._engines[name].submit(spec, angles_bdnr, readout, keys_b)

    def sampled(self, sampling: Sampling) -> AutoBackend:
        """One like this that answers by measurements, or under noise. CircuitError: Aer is not there for the noise."""
        noise = None if sampling.noise is None else Noise(**sampling.noise.model_dump())
        return AutoBackend(sampling.shots, noise, threads=self._threads, memory_bytes=self.memory_bytes)

    def differentiate(self, spec: CircuitSpec, angles_bdnr: Tensor, readout: Readout = "z") -> Tensor:
        """The answers, followed by autograd, of the dtype of the angles. CircuitError: they are sampled or noisy."""
        if not self.differentiable:
            raise CircuitError(f"backend auto: got a derivative of {self._sampler}; allowed: of exact answers")
        # Where Aer is the quickest, nobody looks into it.
        engine = self._exact[self._picked(spec, angles_bdnr.shape[0], readout, self._exact).name]
        return engine.differentiate(spec, angles_bdnr, readout)

    def pick(self, spec: CircuitSpec, batch: int, readout: Readout = "z", among: Iterable[str] | None = None) -> Pick:
        """Which engine answers so many circuits. `among`: only these. CircuitMemoryError: none fits."""
        if self._sampler is not None:
            return Pick(self._sampler, {}, f"{self._sampler} was asked for")
        here = {"torch", "chain"} | ({"aer"} if importlib.util.find_spec("qiskit_aer") else set())
        here &= here if among is None else set(among)
        why = {
            "torch": _too_large(needed_bytes(spec.n_qubits), self.memory_bytes),
            "chain": _too_large(chain.needed_bytes(spec), self.memory_bytes) if readout == "z" else "no such readout",
            "aer": _too_large(needed_bytes(spec.n_qubits), self.memory_bytes),
        }
        left_out = [f"{name} {why[name]}" for name in sorted(here) if why[name]]
        predicted = {name: predicted_us(name, spec, batch, self.costs) for name in sorted(here) if not why[name]}
        if not predicted:
            raise CircuitMemoryError(
                f"n_qubits: got {spec.n_qubits} at depth {spec.depth}, entangle {spec.entangle}, readout {readout}; "
                f"no engine fits: {', '.join(left_out)}"
            )
        ordered = sorted(predicted, key=predicted.__getitem__)
        told = ", ".join(f"{name} {predicted[name]:.3g} us" for name in ordered)
        return Pick(ordered[0], predicted, "; ".join((f"predicted a circuit at batch {batch}: {told}", *left_out)))

    def _picked(self, spec: CircuitSpec, batch: int, readout: Readout, among: Iterable[str] | None = None) -> Pick:
        pick = self.pick(spec, batch, readout, among)
        if (spec, readout) not in self._told:
            self._told.add((spec, readout))
            log.info("%s, readout %s: %s (%s)", spec, readout, pick.name, pick.reason)
        return pick


def _too_large(needed: int, there: int) -> str:
    return f"needs {format_bytes(needed)} with {there:,} there" if needed > there else ""


class _Kind(NamedTuple):
    make: Callable[..., CircuitBackend]
    options: tuple[str, ...]
    required: tuple[str, ...] = ()


_KINDS = {
    "auto": _Kind(AutoBackend, ("shots", "noise", "seed", "threads", "memory_bytes")),
    "torch": _Kind(TorchBackend, ("memory_bytes",)),
    "chain": _Kind(ChainBackend, ("memory_bytes",)),
    "aer": _Kind(AerBackend, ("method", "device", "noise", "shots", "seed", "threads", "memory_bytes")),
    "shots": _Kind(ShotsBackend, ("shots", "seed", "memory_bytes"), ("shots",)),
    "noise": _Kind(NoisyBackend, ("noise", "shots", "seed", "method", "device", "threads", "memory_bytes"), ("noise",)),
    "estimator": _Kind(EstimatorBackend, ("estimator", "precision", "backend", "pass_manager"), ("estimator",)),
}


def make_backend(
    name: str, *, shots: int | None = None, noise: Noise | DeviceNoise | None = None, **options: Any
) -> CircuitBackend:
    """The backend of this name: auto, torch, chain, aer, shots, noise or estimator; options as of its class.

    ValueError in one line: no such name, an option that it does not take, or lacks; what its class refuses.
    CircuitError: qiskit-aer is missing.
    """
    if name not in _KINDS:
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
