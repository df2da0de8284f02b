import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qsgd_ray.circuits.backends.shots import KeyCounter, ShotsBackend, draw_counts, parts, readout_of
from qsgd_ray.circuits.errors import CircuitError, CircuitMemoryError
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.circuits.statevector.simulate import expectations, probabilities, weight_of_first

SPEC = CircuitSpec(3)


def angles(spec=SPEC, batch=6, seed=0):
    return torch.rand(spec.angles_shape(batch), generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 6


def keys(batch=6, first=100):
    return torch.arange(first, first + batch)


def sample_counts(spec, angles_bdnr, shots, seed=0, keys_b=None):
    """How often each basis state was measured, without readout and chunks."""
    keys, stream = KeyCounter().next(len(angles_bdnr), keys_b)
    return draw_counts(probabilities(spec, angles_bdnr), shots, seed, keys, stream)


def within(answer, exact, shots):
    """Each mean of `shots` draws of +-1 or 0/1 misses by 6 standard errors with odds below 2e-9 (normal tail)."""
    return bool(((answer - exact).abs() <= 6 / math.sqrt(shots) + 1e-12).all())


@pytest.mark.parametrize("entangle", ["chain", "ring", "all", "none"])
@pytest.mark.parametrize("shots", [3, 20_000])
def test_means_are_those_of_the_circuit(entangle, shots):
    # 24 answers a case: false alarms below 5e-8.
    spec = CircuitSpec(3, 2, entangle, ("rx", "rz", "ry"))
    for readout, exact in (("z", expectations), ("probability", weight_of_first)):
        answer = ShotsBackend(shots).submit(spec, angles(spec), readout).result()
        assert answer.dtype == torch.float64
        assert within(answer, exact(spec, angles(spec)), shots)


@pytest.mark.parametrize("shots", [10, 100_000])  # the inverted distribution, and the multinomial
def test_counts_follow_the_probabilities(shots):
    # Pearson's chi-square of all counts together, 63 states of 200 keys: 6 standard deviations, odds below 1e-8.
    spec = CircuitSpec(6)
    p = probabilities(spec, angles(spec, 1))[0].numpy()
    counts = sample_counts(spec, angles(spec, 1).expand(200, -1, -1, -1), shots).numpy().sum(0)
    expected = 200 * shots * p
    kept = expected > 5
    chi2 = ((counts - expected)[kept] ** 2 / expected[kept]).sum()
    assert abs(chi2 - kept.sum()) < 6 * math.sqrt(2 * kept.sum())


def test_counts_are_whole_and_sum_to_the_shots():
    counts = sample_counts(SPEC, angles(), 1000)
    assert counts.dtype == torch.int64
    assert counts.shape == (6, 8)
    assert (counts.sum(1) == 1000).all()


@given(st.permutations(range(6)), st.integers(1, 5))
@settings(max_examples=20)
def test_a_draw_depends_on_its_key_alone(order, split):
    whole = sample_counts(SPEC, angles(), 50, seed=3, keys_b=keys())
    permuted = sample_counts(SPEC, angles()[order], 50, seed=3, keys_b=keys()[order])
    assert torch.equal(permuted, whole[order])
    apart = [sample_counts(SPEC, a, 50, 3, k) for a, k in zip(angles().split(split), keys().split(split), strict=True)]
    assert torch.equal(torch.cat(apart), whole)


def test_chunks_do_not_change_the_draws(monkeypatch):
    whole = ShotsBackend(50).submit(SPEC, angles(), "z", keys()).result()
    monkeypatch.setattr(parts, "__defaults__", (0,))
    assert len(parts(SPEC, 6)) == 6
    assert torch.equal(ShotsBackend(50).submit(SPEC, angles(), "z", keys()).result(), whole)


def test_seeds_and_keys_draw_otherwise():
    same = angles(batch=1).expand(6, -1, -1, -1)
    counts = sample_counts(SPEC, same, 1000, keys_b=keys())
    assert len(counts.unique(dim=0)) == 6
    assert not torch.equal(sample_counts(SPEC, same, 1000, seed=1, keys_b=keys()), counts)
    assert torch.equal(sample_counts(SPEC, same, 1000, keys_b=keys()), counts)
    assert sample_counts(SPEC, same, 1000, keys_b=-keys()).sum() == 6000


def test_without_keys_asking_again_draws_again_and_a_new_backend_repeats():
    first, second = (ShotsBackend(1000, seed=5) for _ in range(2))
    answers = [first.submit(SPEC, angles()).result() for _ in range(2)]
    assert not torch.equal(*answers)
    # The count runs over circuits, so it does not matter how they were submitted.
    together = second.submit(SPEC, torch.cat((angles(), angles()))).result()
    assert torch.equal(torch.cat(answers), together)


def test_counted_and_given_keys_never_meet():
    counted = sample_counts(SPEC, angles(), 1000)
    given_ = sample_counts(SPEC, angles(), 1000, keys_b=torch.arange(6))
    assert not (counted == given_).all(1).any()


def test_states_without_weight_are_never_measured():
    p = torch.tensor([[0.0, 0.25, 0.0, 0.75, 0.0, 0.0, 0.0, 0.0]] * 500, dtype=torch.float64)
    for shots in (1, 1000):
        counts = draw_counts(p, shots, 0, np.arange(500, dtype=np.uint64), 0)
        assert counts[:, [0, 2, 4, 5, 6, 7]].sum() == 0
        assert (counts.sum(1) == shots).all()


def test_rounding_below_zero_is_no_weight():
    assert draw_counts(torch.tensor([[-1e-18, 1.0]]), 7, 0, np.zeros(1, dtype=np.uint64), 0).tolist() == [[0, 7]]


def test_an_empty_batch_is_answered():
    assert ShotsBackend(5).submit(SPEC, angles(batch=6)[:0]).result().shape == (0, 3)
    assert sample_counts(SPEC, angles()[:0], 5).shape == (0, 8)


@given(st.integers(1, 6), st.integers(0, 1000))
@settings(max_examples=20)
def test_readouts_of_weights_are_those_of_each_state(n, seed):
    weights = torch.rand(2, 2**n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    signs = torch.tensor([[1 - 2 * (y >> i & 1) for i in range(n)] for y in range(2**n)], dtype=torch.float64)
    spec = CircuitSpec(n)
    torch.testing.assert_close(readout_of(weights, spec, "z"), weights @ signs)
    torch.testing.assert_close(readout_of(weights, spec, "probability"), weights[:, :n].sum(1, keepdim=True))


@pytest.mark.parametrize("shots", [0, -1, 1.5, True])
def test_shots_that_are_none_are_refused(shots):
    with pytest.raises(ValueError, match=r"^shots: got .*; allowed: a whole number >= 1$"):
        ShotsBackend(shots)


@pytest.mark.parametrize("seed", [-1, 2**64, 0.0, False])
def test_a_seed_that_64_bits_do_not_hold_is_refused(seed):
    with pytest.raises(ValueError, match=r"^seed: got .*; allowed: a whole number from 0 to 2\*\*64 - 1$"):
        ShotsBackend(1, seed)


def test_keys_of_another_shape_or_type_are_refused():
    for wrong, described in ((keys(5), r"\(5,\) torch.int64"), (keys().float(), r"\(6,\) torch.float32")):
        with pytest.raises(CircuitError, match=rf"^keys: got {described}; allowed: \(6,\) torch.int64$"):
            ShotsBackend(1).submit(SPEC, angles(), "z", wrong)


def test_a_state_that_does_not_fit_is_refused():
    with pytest.raises(CircuitMemoryError, match=r"^n_qubits: got 3"):
        ShotsBackend(1, memory_bytes=300).submit(SPEC, angles())


def test_angles_of_another_shape_are_refused():
    with pytest.raises(CircuitError, match=r"^angles: got shape"):
        ShotsBackend(1).submit(SPEC, angles(CircuitSpec(4)))
