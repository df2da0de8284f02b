"""Quantum attention: its naive twin, the meaning of masks, gradients, and what it refuses."""

import copy
import doctest

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fake_backends import CountingBackend
from support.reference_attention import naive_quantum_attention
from torch.nn import functional as F

from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.models import attention as attention_module
from qsgd_ray.models.attention import QuantumAttention

READOUTS = ("amplitude", "probability")
SMALL = CircuitSpec(2, 2)


def heads(*shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape or (2, 2, 5, 4), generator=generator, dtype=torch.float64).to(dtype) for _ in range(3)]


def an_attention(spec=SMALL, **fields):
    torch.manual_seed(1)
    attention = QuantumAttention(spec, **fields).double()
    if attention.phi:
        torch.nn.init.normal_(attention.angles)
    return attention


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("n_heads", [None, 2])
@pytest.mark.parametrize("causal", [False, True])
def test_it_equals_its_naive_twin(readout, n_heads, causal):
    attention = an_attention(readout=readout, n_heads=n_heads)
    twin = naive_quantum_attention(*heads(), lambda i, j: j <= i or not causal, SMALL, attention.angles, readout)
    torch.testing.assert_close(attention(*heads(), is_causal=causal), twin)


def test_without_a_spec_it_is_the_papers_circuit():
    assert QuantumAttention().spec == CircuitSpec(n_qubits=4, depth=2, entangle="chain", rotations=("ry", "rz"))


@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"scale": 0.3}, {"dropout_p": 0.4}])
def test_with_phi_off_it_is_torchs_function_bit_for_bit(options):
    attention = an_attention(phi=False)
    assert list(attention.parameters()) == []
    torch.manual_seed(2)
    ours = attention(*heads(), **options)
    torch.manual_seed(2)
    assert torch.equal(ours, F.scaled_dot_product_attention(*heads(), **options))


def silenced(**fields):
    """With Phi = 0, but by the path that computes it."""
    attention = an_attention(**fields)
    attention.series = lambda: lambda scores, scale, compiled: torch.zeros_like(scores)
    return attention


masks = {
    "bool": torch.tensor([[True, False, True, True, False]] * 5),
    "float": torch.tensor([[0.5, -1.0, 0.0, 2.0, -float("inf")]] * 5, dtype=torch.float64),
    "lowest": torch.tensor([[0.0, torch.finfo(torch.float64).min, 0.0, 0.0, 0.0]] * 5, dtype=torch.float64),
    "a head": torch.rand(2, 1, 5, 5, generator=torch.Generator().manual_seed(0)) > 0.3,
}


@pytest.mark.parametrize(
    "options", [*({"attn_mask": mask} for mask in masks.values()), {"is_causal": True}, {"scale": 0.7}]
)
def test_without_phi_masks_and_scale_mean_what_they_mean_to_torch(options):
    expected = F.scaled_dot_product_attention(*heads(), **options)
    torch.testing.assert_close(silenced()(*heads(), **options), expected)


def test_scale_enters_the_softmax_only():
    attention, (query, key, value) = an_attention(), heads()
    difference = attention(query, key, value, scale=0.1) - attention(query, key, value, scale=0.9)
    plain = [F.scaled_dot_product_attention(query, key, value, scale=scale) for scale in (0.1, 0.9)]
    torch.testing.assert_close(difference, plain[0] - plain[1])


def test_grouped_heads_share_keys_and_values_as_in_torch():
    query, (key, value) = heads(2, 4, 5, 3)[0], heads(2, 2, 5, 3)[1:]
    attention = an_attention(n_heads=4)
    repeated = [x.repeat_interleave(2, 1) for x in (key, value)]
    assert torch.equal(attention(query, key, value, enable_gqa=True), attention(query, *repeated))
    expected = F.scaled_dot_product_attention(query, key, value, enable_gqa=True)
    torch.testing.assert_close(silenced()(query, key, value, enable_gqa=True), expected)


@pytest.mark.parametrize("shape", [(5, 4), (2, 5, 4), (2, 3, 2, 5, 4)])
def test_any_leading_dimensions_do(shape):
    query, key, value = heads(*shape)
    mixed = an_attention()(query, key, value)
    flat = an_attention()(*(x.reshape(-1, 1, 5, 4) for x in (query, key, value)))
    torch.testing.assert_close(mixed, flat.view(shape))


def test_values_may_be_of_another_width_and_keys_of_another_length():
    query, key, value = torch.randn(2, 2, 3, 4), torch.randn(2, 2, 7, 4), torch.randn(2, 2, 7, 5)
    assert QuantumAttention(SMALL)(query, key, value).shape == (2, 2, 3, 5)


def causal_float_mask(low, dtype=torch.float64, length=5):
    later = torch.ones(length, length, dtype=torch.bool).triu(1)
    return torch.zeros(length, length, dtype=dtype).masked_fill(later, low)


@pytest.mark.parametrize("low", [-200.0, -1e4, -1e9, -1e30, -float("inf"), torch.finfo(torch.float32).min])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_float_mask_that_silences_the_softmax_silences_phi(low, dtype):
    attention, inputs = an_attention(), heads(dtype=dtype)
    masked = attention(*inputs, causal_float_mask(low, dtype))
    torch.testing.assert_close(masked, attention(*inputs, is_causal=True), rtol=0, atol=1e-6)


@pytest.mark.parametrize("low", [-1e4, -65_504.0])
def test_a_mask_in_half_precision_silences_phi_too(low):
    attention, inputs = an_attention(), heads(dtype=torch.float16)
    masked = attention(*inputs, causal_float_mask(low, torch.float16))
    assert torch.equal(masked, attention(*inputs, is_causal=True))


def test_a_soft_bias_leaves_phi_as_it_is():
    attention, (query, key, value) = an_attention(), heads()
    slopes = torch.tensor([0.5, 0.25], dtype=torch.float64)[:, None, None]
    positions = torch.arange(5.0, dtype=torch.float64)
    alibi = slopes * 40 * (positions - positions[:, None])  # down to -80, and above 0 for later tokens
    difference = attention(query, key, value, alibi) - attention(query, key, value)
    plain = [F.scaled_dot_product_attention(query, key, value, mask) for mask in (alibi, None)]
    torch.testing.assert_close(difference, plain[0] - plain[1])


@pytest.mark.parametrize("low", [-50.0, -1e4])
def test_one_number_added_to_a_row_of_a_mask_changes_nothing(low):
    attention, inputs = an_attention(), heads()
    mask = causal_float_mask(low)
    torch.testing.assert_close(attention(*inputs, mask - 1e4), attention(*inputs, mask))


def test_104_below_the_largest_of_its_row_is_where_float32_has_no_weight():
    weight = torch.softmax(torch.tensor([0.0, -103.9, -104.0]), 0)
    assert (weight != 0).tolist() == [True, True, False]


@pytest.mark.parametrize("readout", READOUTS)
@given(token=st.integers(0, 5), seed=st.integers(0, 99))
@settings(max_examples=25)
def test_causal_no_output_depends_on_a_later_token(readout, token, seed):
    attention, before = an_attention(readout=readout), heads(1, 2, 6, 4, seed=seed)
    after = [x.clone() for x in before]
    for x, other in zip(after, heads(1, 2, 6, 4, seed=seed + 100), strict=True):
        x[:, :, token:] = other[:, :, token:]
    first, second = attention(*before, is_causal=True), attention(*after, is_causal=True)
    assert torch.equal(first[:, :, :token], second[:, :, :token])
    assert not torch.equal(first[:, :, token:], second[:, :, token:])


@given(kept=st.lists(st.booleans(), min_size=6, max_size=6).filter(any), seed=st.integers(0, 99))
@settings(max_examples=25)
def test_padding_is_silent_whatever_stands_there(kept, seed):
    attention, (query, key, value) = an_attention(), heads(1, 2, 6, 4, seed=seed)
    mask = torch.tensor(kept)[None, None, None].expand(1, 1, 6, 6)
    other_key, other_value = (x.masked_fill(~mask[..., 0, :, None], 7.0) for x in (key, value))
    first, second = attention(query, key, value, mask), attention(query, other_key, other_value, mask)
    assert torch.equal(first, second)
    without = attention(query, key[:, :, kept], value[:, :, kept])
    torch.testing.assert_close(first, without)


@pytest.mark.parametrize("mask", [torch.zeros(5, 5, dtype=torch.bool), torch.full((5, 5), -float("inf")).double()])
def test_a_query_that_may_attend_nowhere_gets_zeros_and_finite_gradients(mask):
    query, key, value = (x.requires_grad_() for x in heads())
    mixed = an_attention()(query, key, value, mask)
    mixed.sum().backward()
    assert not mixed.any()
    assert all(x.grad.isfinite().all() for x in (query, key, value))


def test_a_float_mask_is_differentiable_too():
    bias = torch.randn(5, 5, dtype=torch.float64, requires_grad=True)
    attention, (query, key, value) = an_attention(), heads()
    assert torch.autograd.gradcheck(lambda bias: attention(query, key, value, bias), bias)


@pytest.mark.parametrize("n_heads", [None, 2])
def test_gradients_are_the_finite_differences(n_heads):
    attention = an_attention(n_heads=n_heads)
    inputs = [x.requires_grad_() for x in heads(1, 2, 3, 2)]

    def mixed(angles, *inputs):
        return torch.func.functional_call(attention, {"angles": angles}, inputs, {"is_causal": True})

    assert torch.autograd.gradcheck(mixed, (attention.angles.detach().requires_grad_(), *inputs))


def test_dropout_drops_the_sum_of_softmax_and_phi():
    seen = []

    def all_but_the_first_key(weights, p):
        seen.append((weights.clone(), p))
        return weights * torch.tensor([1.0, 0, 0, 0, 0], dtype=weights.dtype)

    attention, (query, key, value) = an_attention(dropout=all_but_the_first_key), heads()
    mixed = attention(query, key, value, dropout_p=0.25)
    ((weights, p),) = seen
    assert p == 0.25
    torch.testing.assert_close(weights @ value, attention(query, key, value))
    torch.testing.assert_close(mixed, weights[..., :1] * value[..., :1, :])


def test_dropout_keeps_the_mean():
    torch.manual_seed(0)
    attention, (query, key, value) = an_attention(), heads(1, 1, 4, 4)
    many = [x.expand(40_000, 1, 4, 4) for x in (query, key, value)]
    mean, spread = (f(attention(*many, dropout_p=0.3), 0) for f in (torch.mean, torch.std))
    # Five standard errors of each of 16 means: a false alarm in 100,000 runs, were the seed not fixed.
    assert ((mean - attention(query, key, value)[0]).abs() < 5 * spread / 200).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_comes_back_as_such_and_close(dtype):
    attention = an_attention()
    half = attention(*heads(dtype=dtype))
    assert half.dtype == dtype
    torch.testing.assert_close(
        half.double(), attention(*heads()), rtol=0, atol=0.3 if dtype == torch.bfloat16 else 0.04
    )


def test_half_precision_is_finite_beyond_the_largest_float16():
    large = [torch.full((1, 1, 4, 64), 40.0, dtype=torch.float16)] * 3  # scores of 102,400
    mixed = QuantumAttention()(*large)
    assert mixed.dtype == torch.float16
    assert mixed.isfinite().all()


@pytest.mark.parametrize(("dtype", "within"), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("autocast", [False, True])
def test_scores_are_not_rounded_to_half_precision(dtype, within, autocast):
    attention, inputs = an_attention(), [8 * x for x in heads(dtype=dtype)]  # scores of some hundreds
    assert (inputs[0].float() @ inputs[1].mT.float()).abs().max() > 250
    twin = attention(*(x.double() for x in inputs))
    with torch.autocast("cpu", dtype, enabled=autocast):
        mixed = attention(*inputs)
    assert ((mixed.double() - twin).abs().max() / twin.abs().max()) < within


def test_it_runs_and_learns_under_autocast():
    attention = QuantumAttention(SMALL)
    inputs = [x.requires_grad_() for x in heads(dtype=torch.float32)]
    with torch.autocast("cpu", torch.bfloat16):
        attention(*inputs, is_causal=True).float().sum().backward()
    assert attention.angles.grad.any()
    assert all(x.grad.isfinite().all() for x in inputs)


def test_longer_sequences_and_larger_batches_ask_no_more_circuits():
    backend = CountingBackend()
    attention = an_attention(readout="probability", n_heads=2, backend=backend)
    for shape in ((1, 2, 5, 4), (3, 2, 5, 4), (1, 2, 10, 4)):
        with torch.no_grad():
            attention(*heads(*shape))
    assert [len(angles) for _, angles in backend.submitted] == [2 * 9] * 3


def test_a_backend_gives_what_the_simulation_gives_and_trains():
    by_backend = an_attention(CircuitSpec(1, 1), readout="probability", backend=CountingBackend())
    exact = an_attention(CircuitSpec(1, 1), readout="probability")
    for attention in (by_backend, exact):
        attention(*heads()).square().sum().backward()
    torch.testing.assert_close(by_backend(*heads()), exact(*heads()))
    torch.testing.assert_close(by_backend.angles.grad, exact.angles.grad)


def test_angles_start_small_from_torchs_generator():
    torch.manual_seed(5)
    angles = QuantumAttention(n_heads=64).angles.detach()
    torch.manual_seed(5)
    assert torch.equal(QuantumAttention(n_heads=64).angles, angles)
    # 1,024 draws: five standard errors of the standard deviation.
    assert abs(angles.std() - 0.1) < 5 * 0.1 / (2 * 1024) ** 0.5


def test_it_can_be_copied_and_saved():
    attention = an_attention()
    other = QuantumAttention(SMALL).double()
    other.load_state_dict(copy.deepcopy(attention).state_dict())
    assert torch.equal(other(*heads()), attention(*heads()))


def test_a_mask_together_with_is_causal_is_refused():
    with pytest.raises(ValueError, match="is_causal: got True with an attn_mask"):
        an_attention()(*heads(), attn_mask=masks["bool"], is_causal=True)


def test_heads_that_are_not_its_own_are_refused():
    with pytest.raises(ValueError, match=r"allowed: \(..., 3, i, j\)"):
        an_attention(n_heads=3)(*heads())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"readout": "z"}, "readout: got 'z'"),
        ({"n_heads": 0}, "n_heads: got 0"),
        ({"backend": CountingBackend()}, "readout: got 'amplitude' with a backend"),
    ],
)
def test_settings_that_mean_nothing_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        QuantumAttention(**fields)


def test_the_example_runs():
    results = doctest.testmod(attention_module)
    assert (results.failed, results.attempted > 0) == (0, True)
