import logging
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.circuits import angles_of, specs

from qsgd_ray.circuits.aer.backend import AerBackend
from qsgd_ray.circuits.aer.noise import Noise
from qsgd_ray.circuits.backends.estimator import EstimatorBackend
from qsgd_ray.circuits.backends.in_process import ChainBackend, TorchBackend
from qsgd_ray.circuits.backends.shots import ShotsBackend
from qsgd_ray.circuits.chain import expectations as chain
from qsgd_ray.circuits.errors import CircuitError, CircuitMemoryError
from qsgd_ray.circuits.select import auto as auto_module
from qsgd_ray.circuits.select._costs import COSTS, Cost, Costs, fit_cost, measure_costs, predicted_us
from qsgd_ray.circuits.select.auto import AutoBackend, make_backend
from qsgd_ray.circuits.select.work import EngineWork, engine_work
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.circuits.statevector.simulate import expectations, weight_of_first

SPEC = CircuitSpec(3)
EXACT = {"z": expectations, "probability": weight_of_first}
FREE, DEAR = Cost(0, 0, 0), Cost(1e9, 1e9, 1e9)


def only(name):
    """Costs by which everything but this engine is dear."""
    ways = {"torch": ("statevector",), "chain": ("chain",), "aer": ("aer",)}[name]
    return Costs(**{way: FREE if way in ways else DEAR for way in vars(COSTS)})


def angles(spec=SPEC, batch=5, seed=0):
    return angles_of(spec, batch, seed)


@given(
    spec=specs(5, 3),
    readout=st.sampled_from(["z", "probability"]),
    engine=st.sampled_from(["torch", "chain", "aer", None]),
    seed=st.integers(0, 99),
)
@settings(max_examples=60)
def test_answers_are_those_of_qiskits_statevector(spec, readout, engine, seed):
    from qiskit.quantum_info import Pauli, Statevector

    if engine == "aer":
        pytest.importorskip("qiskit_aer")
    n, theta = spec.n_qubits, angles(spec, 2, seed)
    twin = []
    for one in theta:
        state = Statevector(spec.to_qiskit(one))
        z = [state.expectation_value(Pauli("Z"), [qubit]).real for qubit in range(n)]
        twin.append(z if readout == "z" else [state.probabilities()[:n].sum()])
    backend = AutoBackend(costs=COSTS if engine is None else only(engine))
    answer = backend.submit(spec, theta, readout).result()
    assert answer.dtype == torch.float64
    torch.testing.assert_close(answer, torch.tensor(twin, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("engine", ["torch", "chain", "aer"])
def test_batched_is_unbatched_is_permuted_on_one_engine(engine):
    if engine == "aer":
        pytest.importorskip("qiskit_aer")
    backend = AutoBackend(costs=only(engine))
    whole = backend.submit(SPEC, angles()).result()
    assert torch.equal(torch.cat([backend.submit(SPEC, one[None]).result() for one in angles()]), whole)
    order = [4, 2, 0, 3, 1]
    assert torch.equal(backend.submit(SPEC, angles()[order]).result(), whole[order])


@pytest.mark.parametrize("engine", ["torch", "chain"])
@pytest.mark.parametrize("readout", ["z", "probability"])
def test_what_it_picked_is_followed_by_autograd(engine, readout):
    backend, theta = AutoBackend(costs=only(engine)), angles().requires_grad_()
    backend.differentiate(SPEC, theta, readout).sum().backward()
    (twin,) = torch.autograd.grad(EXACT[readout](SPEC, theta).sum(), theta)
    torch.testing.assert_close(theta.grad, twin)
    assert backend.submit(SPEC, theta, readout).result().requires_grad is False


def test_where_aer_is_the_quickest_autograd_goes_elsewhere():
    backend = AutoBackend(costs=only("aer"))
    torch.testing.assert_close(backend.differentiate(SPEC, angles()), expectations(SPEC, angles()))


def test_the_quickest_is_picked_and_says_why():
    pick = AutoBackend(costs=only("chain")).pick(SPEC, 7)
    assert pick.name == "chain"
    assert pick.predicted_us["chain"] == 0.0
    assert pick.predicted_us["torch"] > 0
    assert pick.reason.startswith("predicted a circuit at batch 7: chain 0 us, ")
    assert AutoBackend().pick(SPEC, 7).predicted_us["torch"] == predicted_us("torch", SPEC, 7)


def test_wide_chains_are_swept_and_small_batches_of_small_circuits_simulated():
    auto = AutoBackend()
    assert auto.pick(CircuitSpec(20, 2), 64).name == "chain"
    assert auto.pick(CircuitSpec(1000, 2), 64).name == "chain"
    assert auto.pick(CircuitSpec(4, 4, "ring"), 256).name == "torch"
    # Deep ones are not: 4**depth, and from a depth on without the kernel.
    assert auto.pick(CircuitSpec(12, 9), 64).name == "torch"
    assert auto.pick(CircuitSpec(12, 6, "all"), 64).name == "torch"


def test_only_the_statevector_knows_a_probability():
    pick = AutoBackend(costs=only("chain")).pick(CircuitSpec(20), 1, "probability")
    assert "chain" not in pick.predicted_us
    assert pick.reason.endswith("chain no such readout")


def test_what_does_not_fit_is_not_picked(monkeypatch):
    wide = AutoBackend(costs=only("torch"), memory_bytes=2**20).pick(CircuitSpec(30), 1)
    assert wide.name == "chain"
    assert "torch needs 42,949,672,960 bytes with 1,048,576 there" in wide.reason
    deep = AutoBackend(costs=only("chain"), memory_bytes=2**20).pick(CircuitSpec(4, 6, "ring"), 1)
    assert deep.name == "torch"
    monkeypatch.setattr(auto_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CircuitMemoryError) as error:
        AutoBackend(memory_bytes=2**20).submit(CircuitSpec(30, 1), angles(CircuitSpec(30, 1)), "probability")
    assert str(error.value) == (
        "n_qubits: got 30 at depth 1, entangle chain, readout probability; "
        "no engine fits: chain no such readout, torch needs 42,949,672,960 bytes with 1,048,576 there"
    )


def test_aer_that_is_not_installed_is_not_picked(monkeypatch):
    monkeypatch.setattr(auto_module.importlib.util, "find_spec", lambda name: None)
    pick = AutoBackend(costs=only("aer")).pick(SPEC, 1)
    assert pick.name != "aer"
    assert sorted(pick.predicted_us) == ["chain", "torch"]


def test_a_pick_is_logged_once_a_circuit(caplog):
    caplog.set_level(logging.INFO, "qsgd_ray.circuits.select.auto")
    backend = AutoBackend(costs=only("torch"))
    for spec in (SPEC, SPEC, CircuitSpec(2)):
        backend.submit(spec, angles(spec))
    assert [record.message.split(" (predicted")[0] for record in caplog.records] == [
        f"{SPEC}, readout z: torch",
        f"{CircuitSpec(2)}, readout z: torch",
    ]


def test_shots_and_noise_are_picked_where_they_were_asked_for():
    keys = torch.arange(5)
    sampled = AutoBackend(shots=50, seed=3)
    assert sampled.pick(SPEC, 1).name == "shots"
    assert not sampled.differentiable
    expected = ShotsBackend(50, 3).submit(SPEC, angles(), "z", keys).result()
    assert torch.equal(sampled.submit(SPEC, angles(), "z", keys).result(), expected)
    pytest.importorskip("qiskit_aer")
    for shots in (None, 50):
        noisy = AutoBackend(shots, Noise(p01=0.1), seed=3)
        assert noisy.pick(SPEC, 1).reason == "noise was asked for"
        expected = AerBackend(noise=Noise(p01=0.1), shots=shots, seed=3).submit(SPEC, angles(), "z", keys).result()
        assert torch.equal(noisy.submit(SPEC, angles(), "z", keys).result(), expected)
    with pytest.raises(CircuitError, match=r"^backend auto: got a derivative of noise; allowed: of exact answers$"):
        noisy.differentiate(SPEC, angles())


def test_an_empty_batch_is_answered():
    for engine in ("torch", "chain"):
        assert AutoBackend(costs=only(engine)).submit(SPEC, angles()[:0]).result().shape == (0, 3)


def test_chain_refuses_what_it_does_not_have():
    with pytest.raises(CircuitError, match=r"^backend chain: got readout 'probability'; allowed: z$"):
        ChainBackend().submit(SPEC, angles(), "probability")
    deep = CircuitSpec(4, 8, "ring")
    with pytest.raises(CircuitMemoryError, match=r"^depth: got 8, a chain that needs [\d,]+ bytes with 1,073,741,824"):
        ChainBackend().submit(deep, angles(deep))
    with pytest.raises(CircuitError, match=r"^angles: got shape"):
        ChainBackend().submit(SPEC, angles(CircuitSpec(4)))
    assert chain.needed_bytes(CircuitSpec(1000, 9, "none")) == 0


def test_answers_of_chain_are_tensors_like_any_other():
    answer = ChainBackend().submit(SPEC, angles().requires_grad_()).result()
    (torch.ones(3, dtype=torch.float64, requires_grad=True) * answer).sum().backward()


@given(n=st.integers(1, 20), depth=st.integers(1, 6), entangle=st.sampled_from(["chain", "ring", "all", "none"]))
def test_predictions_are_positive_and_fall_with_the_batch(n, depth, entangle):
    spec = CircuitSpec(n, depth, entangle)
    for name in ("torch", "chain", "aer"):
        alone, together = predicted_us(name, spec, 1), predicted_us(name, spec, 64)
        assert 0 < together <= alone < math.inf


def test_a_fit_finds_the_costs_that_made_the_times():
    cost = Cost(200.0, 7.0, 3e-4)
    works = [engine_work("torch", CircuitSpec(n, 2, "ring"), batch) for n in (2, 4, 8, 12) for batch in (1, 16, 256)]
    fitted = fit_cost([(work, cost.predict_us(work)) for work in works])
    assert fitted == pytest.approx(cost, rel=1e-6)
    assert fit_cost([(EngineWork("statevector", 1, 0, 0), 5.0)]) == pytest.approx((5.0, 0, 0))


def test_costs_can_be_measured_here():
    costs = measure_costs(seconds=1.0)
    for cost in vars(costs).values():
        assert min(cost) >= 0 < max(cost)


def test_costs_of_what_is_not_there_stay_those_shipped(monkeypatch):
    monkeypatch.setattr(auto_module.importlib.util, "find_spec", lambda name: None)
    assert measure_costs(seconds=0.2).aer == COSTS.aer
    assert measure_costs(seconds=0.0) == COSTS


def test_backends_are_made_by_name():
    assert isinstance(make_backend("auto"), AutoBackend)
    assert isinstance(make_backend("torch", memory_bytes=10), TorchBackend)
    assert isinstance(make_backend("chain"), ChainBackend)
    assert make_backend("shots", shots=7, seed=2).shots == 7
    pytest.importorskip("qiskit_aer")
    assert make_backend("aer", method="density_matrix").method == "density_matrix"
    assert make_backend("noise", noise=Noise(p01=0.1), shots=3).shots == 3
    assert isinstance(make_backend("aer"), AerBackend)


def test_an_estimator_is_made_by_name():
    from qiskit.primitives import StatevectorEstimator

    backend = make_backend("estimator", estimator=StatevectorEstimator())
    assert isinstance(backend, EstimatorBackend)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("x", {}, "backend: got 'x'; allowed: auto, torch, chain, aer, shots, noise, estimator"),
        ("torch", {"shots": 5}, "backend torch: got the option 'shots'; allowed: memory_bytes"),
        (
            "shots",
            {"noise": Noise(), "shots": 5},
            "backend shots: got the option 'noise'; allowed: shots, seed, memory_bytes",
        ),
        ("chain", {"depth": 5}, "backend chain: got the option 'depth'; allowed: memory_bytes"),
        ("shots", {}, "backend shots: got no shots; it needs: shots"),
        ("noise", {"shots": 5}, "backend noise: got no noise; it needs: noise"),
        ("estimator", {}, "backend estimator: got no estimator; it needs: estimator"),
    ],
)
def test_a_name_or_an_option_that_is_none_is_refused(name, options, message):
    with pytest.raises(ValueError) as error:
        make_backend(name, **options)
    assert str(error.value) == message
