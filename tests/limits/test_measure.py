"""Every kind of curve is measured at small sizes: the right columns, the right answers, and nothing twice."""

import math

import pytest
import torch
from support.synthetic_limits import PROVENANCE, a_limits

from qsgd_ray.circuits.errors import CircuitMemoryError
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.circuits.statevector.simulate import expectations
from qsgd_ray.config import CircuitCurve, NoiseSettings, OptimizerCurve, SignalCurve, TextTask, TrainingCurve
from qsgd_ray.limits import _timing as measure
from qsgd_ray.limits._measure_training import EPS, trained
from qsgd_ray.limits.rows import _SIZES, LimitsResults
from qsgd_ray.limits.run import _measured_rows, run_limits
from qsgd_ray.optimizer.signals import circuit_angles
from qsgd_ray.workloads import make_workload

LIMITS = a_limits(budget_s=1e-3)


def rows(curve):
    return dict(_measured_rows(LIMITS, curve, list(curve.sizes)))


@pytest.mark.parametrize(
    "curve",
    [
        CircuitCurve(name="x", engine="torch", entangle="ring", sizes=(2, 3, 4, 5)),
        CircuitCurve(name="x", engine="chain", along="depth", batch=3, sizes=(1, 2, 3, 4)),
        CircuitCurve(name="x", engine="shots", along="shots", sizes=(10, 20, 30, 40)),
        OptimizerCurve(name="x", source=None, sizes=(64, 128, 256, 512)),
        OptimizerCurve(name="x", source="circuit", scope="all", sizes=(64, 128, 256, 512)),
        TrainingCurve(name="x", sizes=(8, 9, 10, 11)),
    ],
    ids=lambda curve: f"{curve.kind}-{getattr(curve, 'engine', getattr(curve, 'source', ''))}",
)
def test_times_come_with_their_spread(curve):
    found = rows(curve)
    assert list(found) == list(curve.sizes)
    for row in found.values():
        assert set(row) <= set(_SIZES.names)
        assert 0 < row["low_s"] <= row["median_s"] <= row["high_s"]
        assert row["rounds"] >= 1
        assert row["per"] in ("call", "step")


def test_a_size_is_what_the_curve_is_along():
    found = rows(CircuitCurve(name="x", engine="torch", along="depth", n_qubits=3, sizes=(1, 2, 3, 4)))
    assert [(row["n_qubits"], row["depth"]) for row in found.values()] == [(3, d) for d in (1, 2, 3, 4)]


def test_an_optimizers_circuits_are_counted():
    found = rows(OptimizerCurve(name="x", source="circuit", scope="all", n_tensors=4, sizes=(64, 128, 250, 512)))
    assert [row["n_circuits"] for row in found.values()] == [16, 32, 63, 128]
    assert [row["n_parameters"] for row in found.values()] == [64, 128, 250, 512]
    assert all(row["beside_s"] > 0 for row in found.values())


def test_shots_miss_the_exact_answer_by_less_the_more_there_are():
    found = rows(CircuitCurve(name="x", engine="shots", along="shots", batch=4, sizes=(16, 64, 256, 4096)))
    errors = [row["error"] for row in found.values()]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] == pytest.approx(4096**-0.5, rel=0.5)


def test_noise_leaves_less_the_deeper_the_circuit():
    pytest.importorskip("qiskit_aer")
    noise = NoiseSettings(depolarizing_1q=0.01, depolarizing_2q=0.05)
    found = rows(CircuitCurve(name="x", engine="noise", along="depth", noise=noise, sizes=(1, 2, 4, 8)))
    kept = [row["kept"] for row in found.values()]
    assert kept == sorted(kept, reverse=True)
    assert 0 < kept[-1] < kept[0] < 1


def test_the_signal_is_that_of_the_circuit():
    curve = SignalCurve(name="x", theta=0.5, n_qubits=6, draws=33, depth=2, entangle="ring", sizes=(1, 2, 3, 5))
    theta = torch.randn(33, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.5
    spec = CircuitSpec(6, 2, "ring")
    z = expectations(spec, circuit_angles(spec, theta)).abs()
    for k, row in rows(curve).items():
        assert row["signal"] == pytest.approx(float(z[:, k].median()), rel=1e-9)
        assert row["signal_low"] <= row["signal"] <= row["signal_high"]
        assert "step_ratio" not in row


def test_at_depth_one_the_signal_of_trained_weights_is_a_product_of_sines(monkeypatch):
    monkeypatch.setattr("qsgd_ray.limits._measure_signal.MODELS", 1)
    curve = SignalCurve(name="x", theta="trained", depth=1, n_qubits=8, steps=2, sizes=(0 + 1, 2, 3, 7))
    own = trained(LIMITS.seed, 2)
    sines = torch.sin(math.pi * own.theta[: len(own.theta) // 8 * 8].view(-1, 8)).cumprod(1)
    gradient, adam = (part[: len(sines) * 8].view(-1, 8) for part in (own.gradient, own.adam))
    for k, row in rows(curve).items():
        assert row["batch"] == len(sines)
        assert row["signal"] == pytest.approx(float(sines[:, k].abs().quantile(0.5)), rel=1e-9)
        moved = adam[:, k] != 0
        ratio = (sines[:, k] * gradient[:, k]).abs()[moved] / adam[:, k].abs()[moved]
        assert row["step_ratio"] == pytest.approx(float(ratio.median()), rel=1e-9)


def test_adams_direction_after_one_step_is_the_sign_of_the_gradient():
    own = trained(3, 0)
    seen = own.gradient.abs() > 1e3 * EPS
    assert torch.allclose(own.adam[seen], own.gradient[seen].sign(), atol=1e-2)


def test_trained_weights_are_those_after_so_many_steps():
    workload = make_workload(TextTask(), device="cpu")
    with torch.random.fork_rng(devices=[]):
        model = workload.make_model(LIMITS.seed)
        batches = list(workload.batches(LIMITS.seed, 1, 0, 1))
        optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
        for batch in batches[:3]:
            optimizer.zero_grad()
            workload.backward(model, batch, world_size=1)
            optimizer.step()
    after = torch.cat([p.detach().double().reshape(-1) for p in model.parameters() if p.ndim > 1])
    assert torch.allclose(trained(LIMITS.seed, 3).theta, after, atol=1e-6)
    assert not torch.allclose(trained(LIMITS.seed, 2).theta, after, atol=1e-6)


def test_what_is_measured_is_not_measured_again(tmp_path):
    curve = CircuitCurve(name="x", engine="torch", sizes=(2, 3, 4, 5))
    limits = a_limits(curves=(curve,), budget_s=1e-3)
    results = LimitsResults(tmp_path)
    results.open(limits, PROVENANCE)
    assert [(done.n_now, done.n_before) for done in run_limits(limits, results)] == [(4, 0)]
    first = results.read().sizes
    more = a_limits(curves=(curve.model_copy(update={"sizes": (2, 3, 4, 5, 6)}),), budget_s=1e-3)
    results.open(more, PROVENANCE)
    assert [(done.n_now, done.n_before) for done in run_limits(more, results)] == [(1, 4)]
    assert results.read().sizes.slice(0, 4) == first


def test_a_study_that_is_killed_keeps_the_curves_before(tmp_path, monkeypatch):
    curves = tuple(CircuitCurve(name=f"depth-{d}", engine="torch", depth=d, sizes=(2, 3, 4, 5)) for d in (1, 2))
    limits = a_limits(curves=curves, budget_s=1e-3)
    results = LimitsResults(tmp_path)
    results.open(limits, PROVENANCE)
    done = run_limits(limits, results)
    next(done)
    done.close()
    assert [len(results.missing(limits, curve)) for curve in curves] == [0, 4]


def test_the_memory_of_a_call_is_what_its_tensors_held_at_a_time():
    def three_then_two():
        first, second, third = (torch.ones(2**20) for _ in range(3))
        del first, second
        return third + 1

    assert measure.peak_bytes(three_then_two) == 3 * 4 * 2**20
    assert measure.peak_bytes(lambda: None) == 0


def test_a_call_that_raises_is_no_longer_recorded():
    with pytest.raises(ZeroDivisionError):
        measure.peak_bytes(lambda: 1 / 0)
    assert measure.peak_bytes(lambda: torch.ones(4)) == 16


def test_quick_calls_get_their_rounds_though_slow_ones_are_beside():
    calls = {"quick": lambda: None, "slow": lambda: torch.randn(2**22).sort()}
    found = measure.in_turns(calls, 0.05)
    assert len(found["quick"]) == measure.PASSES * measure.MOST_ROUNDS > len(found["slow"]) >= measure.PASSES


def test_parameters_that_do_not_fit_into_memory_are_one_line_before_any_is_made(monkeypatch):
    from qsgd_ray.limits import _measure_optimizer

    monkeypatch.setattr(_measure_optimizer, "available_bytes", lambda: 8000)
    with pytest.raises(
        CircuitMemoryError, match=r"sizes: got 512 parameters, which need 8,192 bytes .*; allowed: what"
    ):
        rows(OptimizerCurve(name="x", source=None, sizes=(64, 128, 256, 512)))
