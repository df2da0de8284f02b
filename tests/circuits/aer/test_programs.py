"""Aer's circuits kept assembled, bound at run time or beforehand: the same bits, or another way is gone."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from support.aer_answers import EVERYTHING, METHODS, READOUTS, SPEC, angles, exact

pytest.importorskip("qiskit_aer")

from qiskit.providers.fake_provider import GenericBackendV2
from qiskit_aer import AerSimulator

from qsgd_ray.circuits.aer import _programs as aer_programs
from qsgd_ray.circuits.aer._assembled import AssembledCircuit
from qsgd_ray.circuits.aer.backend import AerBackend
from qsgd_ray.circuits.aer.noise import Noise
from qsgd_ray.circuits.errors import CircuitError
from qsgd_ray.circuits.spec import CircuitSpec


class Wrong(aer_programs.Program):
    """Loses the angles of every circuit but the first, or of all from the second run on, where they come by `lost`."""

    lost: tuple[str, ...] = ()
    wears_out = False

    def run(self, flat_bp, binding, **options):
        if binding in self.lost:
            self.runs = getattr(self, "runs", 0) + 1
            if not self.wears_out:
                flat_bp = flat_bp[:1].repeat(len(flat_bp), 0)
            elif self.runs > 1:
                flat_bp = 0 * flat_bp
        return super().run(flat_bp, binding, **options)


def logged_bindings(caplog):
    start, middle, end = "Aer answers a batch ", " otherwise than one circuit alone; angles are ", " from now on"
    return [record.message.removeprefix(start).removesuffix(end).split(middle) for record in caplog.records]


@pytest.mark.parametrize("lost", [["assembled"], ["bound at run time"], ["assembled", "bound at run time"]])
def test_a_batch_that_differs_from_its_circuits_is_run_another_way(monkeypatch, caplog, lost):
    bindings = ["assembled", "bound at run time", "bound beforehand"]
    monkeypatch.setattr(Wrong, "lost", lost)
    monkeypatch.setattr(aer_programs, "Program", Wrong)
    if "assembled" not in lost:
        monkeypatch.setattr(aer_programs, "assemble", lambda *_: None)
    backend = AerBackend()
    under_way = [backend.submit(SPEC, angles(seed=seed)) for seed in range(2)]
    for seed in range(3):
        pending = under_way[seed] if seed < 2 else backend.submit(SPEC, angles(seed=seed))
        torch.testing.assert_close(pending.result(), exact(SPEC, angles(seed=seed)), rtol=0, atol=1e-12)
    assert logged_bindings(caplog) == [[binding, bindings[bindings.index(binding) + 1]] for binding in lost]


@pytest.mark.parametrize("batch", [1, 5])
def test_a_circuit_that_its_first_run_changes_is_kept_no_longer(monkeypatch, caplog, batch):
    monkeypatch.setattr(Wrong, "lost", ("assembled",))
    monkeypatch.setattr(Wrong, "wears_out", True)
    monkeypatch.setattr(aer_programs, "Program", Wrong)
    backend = AerBackend()
    for seed in range(2):
        answer = backend.submit(SPEC, angles(batch=batch, seed=seed)).result()
        torch.testing.assert_close(answer, exact(SPEC, angles(batch=batch, seed=seed)), rtol=0, atol=1e-12)
    assert logged_bindings(caplog) == [["assembled", "bound at run time"]]


def test_counts_that_differ_are_taken_again(monkeypatch, caplog):
    keys = torch.arange(5)
    expected = AerBackend(noise=EVERYTHING, shots=200, method="statevector").submit(SPEC, angles(), "z", keys).result()
    monkeypatch.setattr(Wrong, "lost", ("assembled",))
    monkeypatch.setattr(Wrong, "wears_out", True)
    monkeypatch.setattr(aer_programs, "Program", Wrong)
    backend = AerBackend(noise=EVERYTHING, shots=200, method="statevector")
    under_way = [backend.submit(SPEC, angles(), "z", keys) for _ in range(2)]
    for pending in (*under_way, backend.submit(SPEC, angles(), "z", keys)):
        assert torch.equal(pending.result(), expected)
    assert logged_bindings(caplog) == [["assembled", "bound beforehand"]]


@pytest.mark.parametrize("threads", [None, 1])  # with one, it runs during submit
@pytest.mark.parametrize("noise", [None, EVERYTHING])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shots", [None, 100])
@pytest.mark.parametrize("readout", READOUTS)
def test_kept_assembled_a_circuit_gives_the_bits_of_aers_own_run(monkeypatch, noise, method, shots, readout, threads):
    if noise is not None and shots is None and method not in ("automatic", "density_matrix"):
        return
    spec = CircuitSpec(4, 2, "ring", ("rx", "ry", "rz"))
    batches = [(angles(spec, batch, seed=batch), torch.arange(batch)) for batch in (3, 1, 7, 3)]
    kept = AerBackend(method, noise=noise, shots=shots, threads=threads)
    answers = [kept.submit(spec, theta, readout, keys).result() for theta, keys in batches]
    assert [program.bindings[0] for program in kept._programs.values()] == ["assembled"]
    monkeypatch.setattr(aer_programs, "assemble", lambda *_: None)
    anew = AerBackend(method, noise=noise, shots=shots)
    for (theta, keys), answer in zip(batches, answers, strict=True):
        assert torch.equal(answer, anew.submit(spec, theta, readout, keys).result())
    assert all("assembled" not in program.bindings for program in anew._programs.values())


def test_threads_that_ask_at_once_each_have_their_own_answers():
    backend = AerBackend(threads=1)
    backend.submit(SPEC, angles()).result()
    with ThreadPoolExecutor(4) as threads:
        theta = [angles(seed=seed) for seed in range(40)]
        answers = list(threads.map(lambda some: backend.submit(SPEC, some).result(), theta))
    for some, answer in zip(theta, answers, strict=True):
        assert torch.equal(answer, backend.submit(SPEC, some).result())


def test_what_fails_at_once_is_told_when_it_is_collected(monkeypatch):
    backend = AerBackend(threads=1)
    backend.submit(SPEC, angles()).result()

    def fails(*_):
        raise RuntimeError("no room\nat all")

    monkeypatch.setattr(AssembledCircuit, "_run", fails)
    pending = backend.submit(SPEC, angles())
    with pytest.raises(CircuitError, match=r"^backend aer: RuntimeError: no room$"):
        pending.result()


def test_circuits_are_kept_assembled_where_that_is_known_to_be_the_same():
    device = Noise.of_backend(GenericBackendV2(5, seed=3))
    # Transpiled to a device, gates take sums of angles and numbers; of many qubits it saves next to nothing.
    for backend, spec, kept in (
        (AerBackend(), SPEC, True),
        (AerBackend(noise=EVERYTHING), SPEC, True),
        (AerBackend(noise=EVERYTHING), CircuitSpec(8, 1), False),
        (AerBackend(noise=device), SPEC, False),
        (AerBackend(), CircuitSpec(15, 1), False),
    ):
        backend.submit(spec, angles(spec, 1)).result()
        assert [program.bindings[0] == "assembled" for program in backend._programs.values()] == [kept]


def test_another_aer_whose_circuits_cannot_be_kept_answers_all_the_same(monkeypatch):
    def another_way(self, circuits, parameter_binds, run_options, job_id="", format_result=True):
        raise AttributeError("no such thing here")

    with monkeypatch.context() as patched:
        patched.setattr(AerSimulator, "_execute_circuits_job", another_way)
        program = AerBackend()._program(SPEC, "z")
    assert program.bindings == ["bound at run time", "bound beforehand"]
    flat_bp = angles().flatten(1).numpy()
    weights = program.collect(program.run(flat_bp, program.bindings[0]), 5)
    torch.testing.assert_close(weights.sum(1), torch.ones(5, dtype=torch.float64))


def test_binding_at_run_time_keeps_the_noise(monkeypatch):
    # qiskit-aer issue 2207: not so with the Aer that is installed here, or AerBackend would have to bind beforehand.
    monkeypatch.setattr(aer_programs, "assemble", lambda *_: None)
    backend = AerBackend(noise=EVERYTHING)
    backend.submit(SPEC, angles()).result()
    assert [program.bindings[0] for program in backend._programs.values()] == ["bound at run time"]
