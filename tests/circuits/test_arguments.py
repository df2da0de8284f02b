"""Arguments of the constructors: numpy's numbers are taken as Python's, what is no number is one line."""

import numpy as np
import pytest
import torch

from qsgd_ray.circuits.backends.protocol import Sampling
from qsgd_ray.circuits.plain_numbers import plain, whole_number
from qsgd_ray.circuits.select._costs import COSTS
from qsgd_ray.circuits.select.auto import AutoBackend, make_backend
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.models.attention import QuantumAttention
from qsgd_ray.optimizer import LambdaSchedule, SuperpositionalAdamW

INTEGERS = [np.int64, np.int32, np.uint8, int]
NO_WHOLE_NUMBER = [3.0, True, np.True_, np.float64(3), "3", float("nan"), torch.tensor(3), [3]]


def optimizer(**options):
    made = SuperpositionalAdamW([torch.nn.Parameter(torch.linspace(-1, 1, 8))], **options)
    made.param_groups[0]["params"][0].grad = torch.ones(8)
    made.step()
    return made


MAKERS = {
    "CircuitSpec.n_qubits": lambda n: CircuitSpec(n),
    "CircuitSpec.depth": lambda n: CircuitSpec(2, n),
    "n_heads": lambda n: QuantumAttention(n_heads=n),
    "total_steps": lambda n: LambdaSchedule(optimizer(), "linear", n),
    "seed of an optimizer": lambda n: optimizer(source="random_sign", seed=n),
    "telemetry_every": lambda n: optimizer(telemetry_every=n),
    "shots": lambda n: make_backend("shots", shots=n),
    "seed": lambda n: make_backend("shots", shots=3, seed=n),
    "seed of auto": lambda n: make_backend("auto", seed=n),
    "threads": lambda n: make_backend("auto", threads=n),
    **{
        f"memory_bytes of {name}": lambda n, name=name: make_backend(name, memory_bytes=n)
        for name in ("torch", "chain", "auto")
    },
}


@pytest.mark.parametrize("kind", INTEGERS)
@pytest.mark.parametrize("name", MAKERS)
def test_whole_numbers_of_numpy_are_taken(name, kind):
    MAKERS[name](kind(3))


@pytest.mark.parametrize("value", NO_WHOLE_NUMBER, ids=repr)
@pytest.mark.parametrize("name", MAKERS)
def test_what_is_no_whole_number_is_refused_in_one_line(name, value):
    with pytest.raises(ValueError, match=rf"^{name.split(' of ')[0]}: got .*; allowed: a whole number") as raised:
        MAKERS[name](value)
    assert len(str(raised.value).splitlines()) == 1
    assert len(str(raised.value)) <= 300


def test_what_is_taken_is_pythons():
    spec = CircuitSpec(np.int64(3), np.int64(2), np.True_, np.array(["ry", "rz"]))
    assert spec == CircuitSpec(3, 2, "chain", ("ry", "rz"))
    assert [type(value) for value in (spec.n_qubits, spec.depth, spec.rotations[0])] == [int, int, str]
    assert QuantumAttention(n_heads=np.int64(2)).angles.shape[0] == 2
    assert plain([np.float32(0.5), (np.int64(1),), None]) == (0.5, (1,), None)
    assert type(whole_number("n", np.uint64(2**64 - 1))) is int


def test_a_seed_of_numpy_draws_what_pythons_draws():
    steps = [optimizer(source="random_sign", seed=kind(3)).param_groups[0]["params"][0] for kind in (int, np.int64)]
    assert torch.equal(*steps)


@pytest.mark.parametrize(
    "options",
    [
        {"lr": np.float64(1e-3)},
        {"betas": (np.float32(0.9), np.float64(0.99))},
        {"betas": np.array([0.9, 0.99])},
        {"eps": np.float32(1e-8), "weight_decay": np.float32(0.01)},
        {"lambda_": np.float32(0.5), "n_qubits": np.int64(3), "depth": np.int64(1), "source": "circuit"},
        {"shots": np.int64(10), "source": "sampled"},
        {"entangle": np.True_, "rotations": np.array(["ry"])},
        {"amsgrad": np.False_, "maximize": np.True_},
    ],
)
def test_numbers_of_numpy_make_the_optimizer_that_pythons_make(options):
    ours, theirs = optimizer(**options), optimizer(**{name: plain(value) for name, value in options.items()})
    assert torch.equal(ours.param_groups[0]["params"][0], theirs.param_groups[0]["params"][0])
    assert not any(isinstance(value, np.generic) for value in ours.param_groups[0].values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spec": "x"}, "spec: got 'x'; allowed: a CircuitSpec"),
        ({"phi": "no"}, "phi: got 'no'; allowed: True or False"),
        ({"compiled": 1}, "compiled: got 1; allowed: True or False"),
        ({"backend": 3, "readout": "probability"}, "backend: got 3; allowed: a backend"),
        ({"n_heads": 0}, "n_heads: got 0; allowed: a whole number >= 1, or None"),
    ],
)
def test_attention_refuses_what_is_not_its_own(options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        QuantumAttention(**options)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_auto_checks_its_seed_as_every_backend_does(seed):
    with pytest.raises(ValueError, match=r"^seed: got .*; allowed: a whole number from 0 to 2\*\*64 - 1$"):
        make_backend("auto", seed=seed)


def test_a_name_that_is_no_text_is_refused():
    with pytest.raises(ValueError, match=r"^backend: got \['torch'\]; allowed: auto"):
        make_backend(["torch"])


def test_a_sampling_auto_has_the_seed_and_the_costs_of_its_own():
    spec, costs = CircuitSpec(2), COSTS._replace() if hasattr(COSTS, "_replace") else COSTS
    angles, keys = torch.full(spec.angles_shape(4), 0.3), torch.arange(4)
    answers = {}
    for seed in (0, 7):
        sampled = AutoBackend(seed=seed, costs=costs).sampled(Sampling(50, None))
        assert sampled.costs is costs
        expected = make_backend("shots", shots=50, seed=seed).submit(spec, angles, keys_b=keys).result()
        answers[seed] = sampled.submit(spec, angles, keys_b=keys).result()
        assert torch.equal(answers[seed], expected)
    assert not torch.equal(answers[0], answers[7])
