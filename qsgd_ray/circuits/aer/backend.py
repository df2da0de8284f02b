"""Circuits on Qiskit Aer: exact, noisy or sampled answers.

The runs of one `submit` go on in Aer's thread until `result()` is called; small ones on one thread are done before
`submit` returns (_assembled.py).

Letters of shapes: b circuits, d layers, n qubits, r rotations a layer, p = d * n * r angles, s basis states.
"""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

from torch import Tensor

from qsgd_ray.circuits.aer._placement import place
from qsgd_ray.circuits.aer._programs import Program, Saves, compile_program
from qsgd_ray.circuits.aer._runs import ExactRuns, Trajectories
from qsgd_ray.circuits.aer.executor import import_aer
from qsgd_ray.circuits.aer.noise import DeviceNoise, Noise
from qsgd_ray.circuits.backends.protocol import Pending, checked_angles
from qsgd_ray.circuits.backends.shots import KeyCounter, checked_seed, checked_shots, draw_counts, parts, readout_of
from qsgd_ray.circuits.errors import CircuitMemoryError
from qsgd_ray.circuits.memory import available_bytes, format_bytes, needed_bytes, require_memory
from qsgd_ray.circuits.plain_numbers import whole_number_or_none
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.config.circuit import Readout

Method = Literal["automatic", "statevector", "density_matrix", "matrix_product_state"]
Device = Literal["CPU", "GPU"]
# Gates of density matrices are fused beyond so many qubits. Left to itself Aer fuses from 8 on: those of 6 and 7 take
# 0.8 and half as long fused, those of 5 and fewer a little longer (Aer 0.18.2, 2026-11-27).
_FUSED_BEYOND = 5
# Results of one run, in bytes: Aer hands all probabilities of a batch over at once.
_RESULT_BYTES = 2**26


class AerBackend:
    """Circuits simulated by Qiskit Aer.

    Exact answers are those of the torch engine up to rounding. Sampled ones are drawn by (seed, key), as in
    circuits/backends/shots.py.

    Args:
        method: "statevector"; "density_matrix", exact with noise; "matrix_product_state"; or "automatic". Without
            noise, automatic is the statevector where it fits in memory, else the matrix-product state. With noise it is
            the density matrix where it fits and, with shots, is no more work than one noisy statevector a shot.
        device: "CPU", or "GPU" with qiskit-aer-gpu.
        noise: `Noise`, or what `Noise.of_backend` or `Noise.of_model` made; None: no noise.
        shots: measurements a circuit, >= 1; None: exact answers.
        seed: seed of the draws, from 0 to 2**64 - 1.
        threads: threads of Aer, >= 1; None: Aer's choice.
        memory_bytes: memory that one circuit may take; None: what is available.

    Raises:
        ValueError: an argument outside of its range; noise without shots on a method that cannot hold it.
        CircuitError: Aer or its GPU is not installed. From `submit` and `result`: angles or keys of the wrong shape;
            angles that are not finite; more qubits than a noisy device has; noise at measurement that is no readout
            error of single qubits, where Aer does not measure itself; a run that failed.
        CircuitMemoryError: from `submit`: one state or density matrix does not fit.

    Example:
        >>> spec = CircuitSpec(2, depth=1)  # doctest: +SKIP
        >>> AerBackend(noise=Noise(p01=0.1)).submit(spec, torch.zeros(1, 1, 2, 2)).result()  # doctest: +SKIP
        tensor([[-0.1000, -0.1000]], dtype=torch.float64)
    """

    differentiable = False

    def __init__(
        self,
        method: Method = "automatic",
        device: Device = "CPU",
        noise: Noise | DeviceNoise | None = None,
        shots: int | None = None,
        seed: int = 0,
        threads: int | None = None,
        memory_bytes: int | None = None,
    ) -> None:
        for name, value, allowed in (("method", method, get_args(Method)), ("device", device, get_args(Device))):
            if value not in allowed:
                raise ValueError(f"backend aer: got {name} {value!r}; allowed: {', '.join(allowed)}")
        threads = whole_number_or_none("threads", threads, 1)
        if not isinstance(noise, Noise | DeviceNoise | None):
            raise ValueError(f"backend aer: got noise {noise!r}; allowed: Noise, Noise.of_backend or Noise.of_model")
        if noise is not None and shots is None and method not in ("automatic", "density_matrix"):
            raise ValueError(
                f"backend aer: got noise without shots and method {method!r}; allowed: density_matrix, or shots"
            )
        import_aer()
        self.method, self.device, self.noise = method, device, noise
        self.shots = None if shots is None else checked_shots(shots)
        self.seed = checked_seed(seed)
        self.threads = threads
        self.memory_bytes = whole_number_or_none("memory_bytes", memory_bytes, 0)
        self._keys = KeyCounter()
        self._programs: dict[tuple[CircuitSpec, str, str], Program] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_programs": {}}  # compiled again in the process that it is sent to

    def submit(
        self, spec: CircuitSpec, angles_bdnr: Tensor, readout: Readout = "z", keys_b: Tensor | None = None
    ) -> Pending:
        angles_bdnr = checked_angles(spec, angles_bdnr)
        keys, stream = self._keys.next(angles_bdnr.shape[0], keys_b)
        program = self._program(spec, readout)
        flat_bp = angles_bdnr.flatten(1).numpy()
        if program.saves == "counts":
            return Trajectories(program, spec, readout, flat_bp, self.shots or 0, self.seed, keys, stream)

        def read(saved_bs: Tensor, part: slice) -> Tensor:
            if program.saves == "answer":
                return saved_bs if readout == "z" else readout_of(saved_bs, spec, readout)
            weights_bs = program.apply_readout_errors(saved_bs)
            if self.shots is None:
                return readout_of(weights_bs, spec, readout)
            counts_bs = draw_counts(weights_bs, self.shots, self.seed, keys[part], stream)
            return readout_of(counts_bs, spec, readout).double() / self.shots

        batch = len(flat_bp)
        chunks = parts(spec, batch, _RESULT_BYTES) if program.saves == "weights" else [slice(0, batch)][:batch]
        return ExactRuns(program, flat_bp, chunks, spec.answer_width(readout), read)

    def method_for(self, spec: CircuitSpec) -> Method:
        """Return the method that answers `spec`.

        CircuitMemoryError: none fits. CircuitError: more qubits than the device has.
        """
        width = len(place(spec, self.noise).used)
        method, available = self.method, self._available()
        if method == "automatic" and self.noise is None:
            method = "statevector" if needed_bytes(width) <= available else "matrix_product_state"
        elif method == "automatic":
            # A gate of a density matrix takes 4**n numbers; of each shot, 2**n and what drawing its noise costs besides
            # (6 us where a number takes 7 ns, 2 to 8 qubits, 2026-11-22).
            less_work = self.shots is None or 4**width <= self.shots * (1000 + 2**width / 2)
            small = needed_bytes(2 * width) <= available and less_work
            method = "density_matrix" if small or self.shots is None else "statevector"
        if method == "density_matrix":
            require_density_matrix(width, available)
        elif method == "statevector":
            require_memory(width, available)
        return method

    def _available(self) -> int:
        return available_bytes() if self.memory_bytes is None else self.memory_bytes

    def _program(self, spec: CircuitSpec, readout: Readout) -> Program:
        method = self.method_for(spec)
        saves: Saves = "weights"
        if method == "matrix_product_state" or (self.noise is not None and method == "statevector"):
            saves = "answer" if self.shots is None else "counts"
            if saves == "answer" and readout == "probability" and not _amplitudes_in_order(spec):
                require_memory(spec.n_qubits, self._available())
                saves = "weights"
        elif readout == "probability" and self.shots is None and self.noise is None:
            saves = "answer"
        key = (spec, readout if saves == "answer" else "", method)
        if key not in self._programs:
            options = {"method": method, "device": self.device, "max_parallel_threads": self.threads or 0}
            if method == "density_matrix":
                options["fusion_threshold"] = _FUSED_BEYOND
            placed = place(spec, self.noise)
            self._programs[key] = compile_program(spec, readout, placed, self.noise, saves, options)
        return self._programs[key]


def require_density_matrix(n_qubits: int, available: int) -> None:
    """Raise CircuitMemoryError unless a density matrix, 4**n_qubits complex numbers, fits in memory.

    Args:
        n_qubits: number of qubits, >= 1.
        available: memory in bytes.
    """
    needed = needed_bytes(2 * n_qubits)
    if needed > available:
        largest = max(0, math.floor(math.log2(max(1, available / needed_bytes(0))) / 2))
        raise CircuitMemoryError(
            f"n_qubits: got {n_qubits}, a density matrix that needs {format_bytes(needed)} with {available:,} there; "
            f"allowed: at most {largest}"
        )


def _amplitudes_in_order(spec: CircuitSpec) -> bool:
    """Return True if Aer's matrix-product state gives the amplitudes of basis states in their right order.

    Gates between distant qubits leave them permuted (qiskit-aer issue 2235), and so do more than 64 qubits (issue
    2410). Probabilities, expectation values and measurements are right.
    """
    return spec.n_qubits <= 64 and all(abs(control - target) == 1 for control, target in spec.cnots())
