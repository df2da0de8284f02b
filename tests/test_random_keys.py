"""Draws are named: by a purpose, or by seed, step and coordinate, and by nothing else."""

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import reference_optimizer as reference
from support.fake_backends import CountingBackend

from qsgd_ray.circuits.backends.protocol import Sampling
from qsgd_ray.circuits.backends.replicated import ReplicatedBackend
from qsgd_ray.circuits.errors import CircuitError
from qsgd_ray.circuits.select.auto import AutoBackend
from qsgd_ray.config import NoiseSettings, Perturbation
from qsgd_ray.optimizer import SuperpositionalAdamW
from qsgd_ray.optimizer.signals import make_signal
from qsgd_ray.random_keys import block_keys, derived_keys, named_entropy, named_seed, random_words, text_seed

whole = st.integers(0, 2**62)
NOISE = NoiseSettings(depolarizing_1q=0.01, depolarizing_2q=0.02, p01=0.01)


purposes = st.lists(st.text() | st.integers(), max_size=4)
keys = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20, unique=True)


def sha256_bits(text: str) -> str:
    return "".join(f"{byte:08b}" for byte in hashlib.sha256(text.encode("utf-8")).digest())


@given(purposes)
def test_a_purpose_names_the_first_bits_of_its_digest(purpose):
    bits = sha256_bits(repr(tuple(purpose)))
    assert named_seed(*purpose) == int(bits[:63], 2)
    assert named_entropy(*purpose) == int(bits, 2)


@given(st.text())
def test_a_text_names_the_first_bits_of_its_digest(text):
    assert text_seed(text) == int(sha256_bits(text)[:63], 2)


def test_named_seeds_are_those_of_all_studies_so_far():
    """Other ones would void every stored result: weights, data order, dropout and searches follow from them."""
    assert named_seed("order of training", 7, 0) == 3166853914397160647
    assert named_entropy("initial weights", 7) % 2**63 == 4953847600990661746
    assert text_seed("dropout 7 0") == 5730353107937121732


@given(st.integers(0, 2**64 - 1), whole, st.lists(whole, min_size=1, max_size=20), st.integers(1, 7))
def test_words_are_those_of_the_naive_twin(seed, step, starts, n):
    keys_b = block_keys(seed, step, np.array(starts))
    assert random_words(keys_b, n).tolist() == [reference.keyed_words(seed, step, start, n) for start in starts]


@given(keys, st.integers(1, 50))
def test_derived_keys_are_those_of_the_naive_twin(keys, n):
    twins = [
        reference.splitmix64((reference.splitmix64(key % 2**64) + index) % 2**64)
        for key in keys
        for index in range(1, n + 1)
    ]
    assert [key % 2**64 for key in derived_keys(torch.tensor(keys), n).tolist()] == twins


@given(keys, st.integers(1, 50))
def test_derived_keys_are_all_different_and_each_key_s_own(keys, n):
    together = derived_keys(torch.tensor(keys), n)
    assert together.dtype == torch.int64
    assert len({*together.tolist(), *keys}) == len(keys) * (n + 1)
    apart = [derived_keys(torch.tensor([key]), n) for key in keys]
    assert torch.equal(torch.cat(apart), together)
    assert torch.equal(derived_keys(torch.tensor(keys), n + 1).view(len(keys), -1)[:, :-1].reshape(-1), together)


def test_signs_are_even_and_no_two_steps_alike():
    keys = [block_keys(3, step, np.arange(0, 40_000, 4)) for step in range(2)]
    signs = [random_words(keys_b, 4) >> np.uint64(63) for keys_b in keys]
    assert abs(signs[0].mean() - 0.5) < 0.01
    assert abs((signs[0] == signs[1]).mean() - 0.5) < 0.01
    assert abs((signs[0][1:] == signs[0][:-1]).mean() - 0.5) < 0.01


def step_through(optimizer, parameters, first, last):
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        optimizer.step()
    return torch.cat([parameter.detach().reshape(-1) for parameter in parameters])


def some_parameters():
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(n, generator=generator, dtype=torch.float64)) for n in (6, 3)]


DRAWN = [
    {"source": "random_sign"},
    {"source": "random_sign", "scope": "all"},
    {"source": "shuffled", "scope": "all"},
    {"source": "sampled", "shots": 7},
    {"source": "noisy", "noise": NOISE, "shots": 7},
]


@pytest.mark.parametrize("options", DRAWN, ids=lambda options: "-".join(map(str, options.values()))[:30])
def test_a_resumed_run_draws_what_it_would_have_drawn(options):
    if options["source"] == "noisy":
        pytest.importorskip("qiskit_aer")
    straight = some_parameters()
    expected = step_through(SuperpositionalAdamW(straight, seed=5, **options), straight, 0, 6)
    parameters = some_parameters()
    optimizer = SuperpositionalAdamW(parameters, seed=5, **options)
    step_through(optimizer, parameters, 0, 3)
    resumed = [torch.nn.Parameter(parameter.detach().clone()) for parameter in parameters]
    other = SuperpositionalAdamW(resumed, seed=5, **options)
    other.load_state_dict(optimizer.state_dict())
    assert torch.equal(step_through(other, resumed, 3, 6), expected)
    another = some_parameters()
    assert not torch.equal(step_through(SuperpositionalAdamW(another, seed=6, **options), another, 0, 6), expected)


def test_many_shots_come_near_the_exact_circuit():
    theta = torch.rand(20, 3, dtype=torch.float64)
    keys_b = block_keys(0, 0, np.arange(20))
    exact = make_signal(Perturbation(source="circuit"), None).submit(theta).result()
    sampled = make_signal(Perturbation(source="sampled", shots=100_000), None).submit(theta, keys_b).result()
    assert 0 < (sampled - exact).abs().max() < 0.02


def test_noise_without_shots_is_exact_and_shrinks_the_answer():
    pytest.importorskip("qiskit_aer")
    theta = torch.rand(5, 2, dtype=torch.float64)
    signal = make_signal(Perturbation(source="noisy", noise=NOISE), None)
    assert not signal.keyed
    exact = make_signal(Perturbation(source="circuit"), None).submit(theta).result()
    noisy = signal.submit(theta).result()
    assert torch.equal(noisy, signal.submit(theta).result())
    assert 1e-3 < (noisy - exact).abs().max() < 0.3


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"source": "sampled"}, "shots, with source sampled"),
        ({"source": "circuit", "shots": 5}, "shots with the sources sampled and noisy only"),
        ({"source": "sampled", "shots": 0}, "shots: got 0"),
        ({"source": "noisy"}, "noise with the source noisy"),
        ({"source": "sine", "noise": NOISE}, "noise with the source noisy"),
    ],
)
def test_shots_and_noise_belong_to_their_sources(settings, told):
    with pytest.raises(ValueError, match=told) as caught:
        SuperpositionalAdamW(some_parameters(), **settings)
    assert "\n" not in str(caught.value)


def test_a_backend_that_does_not_sample_is_refused_in_one_line():
    with pytest.raises(ValueError, match=r"^circuits: got CountingBackend for source sampled; allowed: a backend that"):
        SuperpositionalAdamW(some_parameters(), source="sampled", shots=3, circuits=CountingBackend())
    with pytest.raises(CircuitError, match="CountingBackend, which does not sample"):
        ReplicatedBackend(CountingBackend()).sampled(Sampling(3, None))


def test_replicas_sample_what_one_process_does():
    parameters, others = some_parameters(), some_parameters()
    options = {"source": "sampled", "shots": 9, "seed": 2}
    alone = SuperpositionalAdamW(parameters, **options)
    replicated = SuperpositionalAdamW(others, **options, circuits=ReplicatedBackend(AutoBackend()))
    assert torch.equal(step_through(alone, parameters, 0, 4), step_through(replicated, others, 0, 4))
