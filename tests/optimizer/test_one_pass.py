"""Adam's step and its perturbation in one kernel: a naive step in float64, whatever the cut and the threads."""

import itertools
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.optimizers import NEEDS_COMPILER

from qsgd_ray.native import compiler as native
from qsgd_ray.optimizer._adam import Piece
from qsgd_ray.optimizer._one_pass import Rule, _Squares, direction_squares, is_native_piece, one_pass_step

pytestmark = NEEDS_COMPILER

SINE = Rule("sine")
FAR = Rule("sine", "adamw", "moments", "preconditioned")
PLACEMENTS = list(itertools.product(("update", "moments"), ("gradient", "preconditioned")))
RULES = [Rule(s, "adamw", *options) for s in ("sine", "gradient", "given") for options in PLACEMENTS]
RULES += [Rule("sine", "paper", *options) for options in PLACEMENTS]
GROUP = {
    "betas": (0.9, 0.99),
    "lr": 1e-2,
    "eps": 1e-3,
    "weight_decay": 0.1,
    "maximize": False,
    "lambda_": 0.7,
}
N = 100_003


def arrays_of(n, seed=0):
    """theta, gradient, m, v and s; v as of gradients a little larger than these."""
    generator = torch.Generator().manual_seed(seed)
    theta, gradient, m, v, s = torch.randn(5, n, generator=generator)
    return [theta, gradient, 0.1 * m, v.square() + 0.01, s]


def piece_of(arrays, age=3, **group):
    return Piece(*arrays[:4], age, {**GROUP, **group})


def copied(arrays):
    return [x.clone() for x in arrays]


def direction_of(m, v, age, group, formula):
    if formula == "paper":
        return m / (v + group["eps"]).sqrt()
    beta1, beta2 = group["betas"]
    return m / (1 - beta1**age) / ((v / (1 - beta2**age)).sqrt() + group["eps"])


def naive(piece, s, rule):
    """theta, m, v after the step, and both sums of squares: float64."""
    theta, gradient, m, v = (x.double() for x in piece[:4])
    group, age = piece.group, piece.n_steps + 1
    beta1, beta2 = group["betas"]
    g = -gradient if group["maximize"] else gradient
    s = {"sine": torch.sin(torch.pi * theta), "gradient": torch.ones_like(theta), "given": s.double()}[rule.s]

    def moments(g):
        return beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g

    q = s * (g if rule.direction == "gradient" else direction_of(*moments(g), age, group, rule.formula))
    m, v = moments(g + group["lambda_"] * q if rule.placement == "moments" else g)
    direction = direction_of(m, v, age, group, rule.formula)
    theta = theta * (1 - group["lr"] * group["weight_decay"]) - group["lr"] * direction
    if rule.placement == "update":
        theta = theta - group["lr"] * group["lambda_"] * q
    return theta, m, v, q.square().sum(), direction.square().sum()


def given_of(rule, *s):
    return list(s) if rule.s == "given" else None


@pytest.mark.parametrize("rule", RULES, ids="-".join)
@pytest.mark.parametrize("maximize", [False, True])
def test_a_step_is_the_naive_one(rule, maximize):
    arrays = arrays_of(N)
    piece = piece_of(arrays, maximize=maximize)
    theta, m, v, q, adam = naive(piece, arrays[4], rule)
    sums = one_pass_step([piece], rule, given_of(rule, arrays[4]), norms=True)
    for ours, exact in ((piece.theta, theta), (piece.m, m), (piece.v, v)):
        assert ((ours - exact).abs() <= 1e-6 * (1 + exact.abs())).all()
    torch.testing.assert_close(sums, _Squares(q[None], adam[None]), rtol=1e-6, atol=0)
    assert torch.equal(piece.gradient, arrays_of(N)[1])


@pytest.mark.parametrize("rule", [SINE, FAR], ids="-".join)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("norms", [False, True])
def test_neither_cuts_nor_threads_nor_norms_change_a_bit(rule, threads, norms):
    n = 1_000_003
    whole, parts = arrays_of(n), arrays_of(n)
    squares = one_pass_step([piece_of(whole)], rule, norms=True)
    group, cuts = {**GROUP}, (0, 0, 1, 8, 24, 1_000, 33_768, n)  # most begin where no vector of 64 bytes does
    pieces = [Piece(*(x[a:b] for x in parts[:4]), 3, group) for a, b in itertools.pairwise(cuts)]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        sums = one_pass_step(pieces, rule, norms=norms)
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, whole, parts))
    if norms:
        torch.testing.assert_close(torch.stack(sums).sum(1), torch.cat(squares), rtol=1e-6, atol=0)
        assert sums.q[0] == sums.adam[0] == 0
    else:
        assert sums.q.shape == sums.adam.shape == (0,)


def test_each_piece_has_its_groups_settings_and_its_age():
    groups = [GROUP, {**GROUP, "lr": torch.tensor(0.5), "betas": (0.5, 0.9)}, {**GROUP, "lambda_": -3.0, "eps": 0.1}]
    pieces = [Piece(*arrays_of(77, seed)[:4], seed, groups[seed % 3]) for seed in range(6)]
    expected = [naive(piece, piece.theta, SINE)[0] for piece in pieces]
    one_pass_step(pieces, SINE)
    for piece, exact in zip(pieces, expected, strict=True):
        torch.testing.assert_close(piece.theta.double(), exact, rtol=1e-6, atol=1e-6)


def test_without_lambda_it_is_torchs_adamw_within_rounding():
    ours, torchs = arrays_of(N), torch.nn.Parameter(arrays_of(N)[0])
    ours[2].zero_(), ours[3].zero_()
    settings = {name: GROUP[name] for name in ("lr", "betas", "eps", "weight_decay")}
    optimizer = torch.optim.AdamW([torchs], **settings, fused=True)
    torchs.grad = ours[1].clone()
    for age in range(5):
        optimizer.step()
        assert one_pass_step([piece_of(ours, age, lambda_=0.0)], SINE)
    torch.testing.assert_close(ours[0], torchs.detach(), rtol=1e-6, atol=1e-6)


@given(st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=50))
def test_the_sine_is_within_2e_7(x):
    # Adam's step is 1 of 1, so that theta - 1 - 2^20 sin(pi theta) is left.
    group = {**GROUP, "lr": 1.0, "weight_decay": 0.0, "eps": 0.0, "lambda_": 2.0**20}
    theta = torch.tensor(x, dtype=torch.float32)
    moved, one = theta.clone(), torch.ones_like(theta)
    assert one_pass_step([Piece(moved, one, 0 * one, 0 * one, 0, group)], SINE)
    sines = (theta.double() - 1 - moved.double()) / 2**20
    exact = np.sin(np.pi * (theta.double().numpy() % 2))
    assert np.abs(sines.numpy() - exact).max() < 2e-7


@pytest.mark.parametrize("rule", [SINE, FAR], ids="-".join)
def test_nan_and_infinity_stay_where_they_are(rule):
    arrays = arrays_of(100)
    arrays[0][3], arrays[1][50] = torch.inf, torch.nan
    one_pass_step([piece_of(arrays)], rule)
    assert (~arrays[0].isfinite()).nonzero().flatten().tolist() == [3, 50]


def test_no_gradient_so_far_is_no_step():
    theta, none = torch.ones(20), torch.zeros(20)
    one_pass_step([Piece(theta, none, none.clone(), none.clone(), 0, {**GROUP, "weight_decay": 0.0, "eps": 1e-8})], FAR)
    assert torch.equal(theta, torch.ones(20))


@pytest.mark.parametrize("formula", ["adamw", "paper"])
def test_direction_squares_are_those_of_m_and_v(formula):
    pieces = [piece_of(arrays_of(n, n), age=4) for n in (N, 1, 0)]
    before = [copied(piece[:4]) for piece in pieces]
    expected = [direction_of(p.m.double(), p.v.double(), 4, GROUP, formula).square().sum() for p in pieces]
    torch.testing.assert_close(direction_squares(pieces, formula), torch.stack(expected), rtol=1e-6, atol=0)
    assert all(map(torch.equal, itertools.chain(*before), itertools.chain(*(piece[:4] for piece in pieces))))


def test_a_rule_is_compiled_once(monkeypatch):
    one_pass_step([piece_of(arrays_of(5))], SINE)
    monkeypatch.setattr(native, "_compiled", lambda *_: pytest.fail("compiled again"))
    for n, age, lr, lambda_ in itertools.product((1, 1000), (1, 2), (1e-3, 1e-2), (0.1, 0.2)):
        assert one_pass_step([piece_of(arrays_of(n), age, lr=lr, lambda_=lambda_)], SINE, norms=n == 1)


def test_autograd_learns_that_theta_changed():
    parameter = torch.nn.Parameter(torch.ones(4))
    loss = parameter.square().sum()
    one_pass_step([piece_of([parameter.detach().view(-1), *arrays_of(4)[1:]])], SINE)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


class Own(torch.Tensor):
    """Of a class that may keep its numbers elsewhere."""


def refused(index, other):
    arrays = arrays_of(8)
    arrays[index] = other(arrays[index])
    return arrays


@pytest.mark.parametrize("index", range(5))
@pytest.mark.parametrize(
    "other",
    [
        torch.Tensor.double,
        torch.Tensor.bfloat16,
        lambda x: torch.stack((x, x), 1)[:, 0],
        lambda x: x[:1].expand(8),
        lambda x: x[:7],
        lambda x: x.as_subclass(Own),
        lambda x: x.to("meta"),
        torch._neg_view,
        lambda x: torch._efficientzerotensor(len(x)),
    ],
    ids=["float64", "bfloat16", "strided", "expanded", "shorter", "subclass", "meta", "negated", "zeros"],
)
def test_what_has_no_kernel_is_left_as_it_is(index, other):
    arrays = refused(index, other)
    good = arrays_of(8)
    pieces = [piece_of(good), piece_of(arrays)]
    assert one_pass_step(pieces, Rule("given"), [good[4], arrays[4]]) is None
    assert [is_native_piece(piece, s) for piece, s in zip(pieces, (good[4], arrays[4]), strict=True)] == [True, False]
    assert all(map(torch.equal, good, arrays_of(8)))
    if index < 4:
        assert direction_squares(pieces, "adamw") is None


def test_s_comes_with_the_rule_that_asks_for_it():
    arrays = arrays_of(8)
    with pytest.raises(ValueError, match="given: got none for s = given"):
        one_pass_step([piece_of(arrays)], Rule("given"))
    with pytest.raises(ValueError, match="given: got tensors for s = sine"):
        one_pass_step([piece_of(arrays)], SINE, [arrays[4]])


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("CXX", "c++ '", "No closing quotation"),
        ("CXX", "/no/such/compiler", "No such file"),
        ("CXX", "false", "exit status 1"),
        ("PATH", "", "none of c++, g++"),
    ],
)
def test_without_a_compiler_nothing_is_done_and_one_line_said(monkeypatch, caplog, variable, value, said):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(native, "_libraries", {})
    false = shutil.which("false")
    monkeypatch.setenv(variable, false if value == "false" else value)
    arrays = arrays_of(8)
    for _ in range(2):
        assert one_pass_step([piece_of(arrays)], SINE) is None
    assert all(map(torch.equal, arrays, arrays_of(8)))
    [line] = [record.message for record in caplog.records]
    assert line.startswith("no C++ kernel, done without it: ")
    assert said in line
