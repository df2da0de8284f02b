"""Second derivatives and forward mode, on every engine: right, or an error of one line; never zeros without a word."""

import pytest
import torch
from torch.autograd import forward_ad
from torch.autograd.functional import hessian

from qsgd_ray.circuits.backends.gradients import answer
from qsgd_ray.circuits.chain import expectations as chain
from qsgd_ray.circuits.chain._amplitudes import amplitudes
from qsgd_ray.circuits.fourier.series import FourierSeries, fourier_series
from qsgd_ray.circuits.select.auto import make_backend
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.circuits.statevector import simulate
from qsgd_ray.config import Perturbation
from qsgd_ray.models.attention import QuantumAttention
from qsgd_ray.optimizer.signals import circuit_angles, make_signal

# torch 2.13's own forward mode and compiler import torch.jit.script, which warns of itself.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

F64 = torch.float64
ENTANGLED = ("chain", "ring", "all", "none")
READOUTS = ("expectations", "weight_of_first", "probabilities", "first_amplitudes", "statevector")
GATES, SHALLOW, SMALL = CircuitSpec(3, 2, "ring"), CircuitSpec(4, 2), CircuitSpec(2, 1)
CASES = {}


def case(name, argument):
    """Register a scalar function of one argument, by name."""

    def register(function):
        CASES[name] = function, argument
        return function

    return register


def normal(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=F64)


def one_number(y):
    return (y.real if y.is_complex() else y).flatten()[-1]


def add_cases():
    x = torch.tensor([0.3, 1.1], dtype=F64)
    for spec in (GATES, SHALLOW):
        for readout in READOUTS:
            simulated = getattr(simulate, readout)
            case(f"state {spec.entangle} {readout}", normal(*spec.angles_shape(1)))(
                lambda a, spec=spec, simulated=simulated: one_number(simulated(spec, a))
            )
    for entangle in ENTANGLED:
        spec = CircuitSpec(3, 2, entangle)
        for memory_bytes in (chain.CHUNK_BYTES, 256):
            case(f"chain {entangle} in {memory_bytes} bytes", normal(*spec.angles_shape(1)))(
                lambda a, spec=spec, m=memory_bytes: chain.expectations(spec, a, memory_bytes=m)[0, -1]
            )
    for name, options in {"torch": {}, "chain": {}, "auto": {}, "shots": {"shots": 10_000}}.items():
        backend = make_backend(name, **options)
        for spec in (SHALLOW, GATES):
            case(f"answer {name} {spec.entangle}", normal(*spec.angles_shape(1)))(
                lambda a, backend=backend, spec=spec: answer(backend, spec, a, keys_b=torch.arange(1))[0, -1]
            )
    for readout in ("amplitude", "probability"):
        for spec in (SMALL, CircuitSpec(8, 2), CircuitSpec(7, 2, "ring")):
            case(f"series {readout} of {spec.n_qubits}", normal(*spec.angles_shape(1)))(
                lambda a, spec=spec, readout=readout: fourier_series(spec, a, readout)(x).sum()
            )
    fixed = FourierSeries(normal(1, 5))
    case("series at x", x)(lambda x: fixed(x).sum())
    case("series at x, compiled", x)(lambda x: fixed(x, compiled=True).sum())
    case("series of coefficients", normal(1, 5))(lambda c: FourierSeries(c)(x).sum())
    case("series of both", torch.cat((normal(5), x)))(lambda cx: FourierSeries(cx[None, :5])(cx[5:]).sum())
    attention = QuantumAttention(SMALL).double()
    query, key, value = normal(3, 1, 1, 2, 2)
    case("attention to queries", query)(lambda query: attention(query, key, value).sum())
    case("attention to values", value)(lambda value: attention(query, key, value).square().sum())
    case("attention to angles", normal(*attention.angles.shape))(
        lambda a: torch.func.functional_call(attention, {"angles": a}, (query, key, value)).sum()
    )


add_cases()
NAMES = [pytest.param(name, marks=pytest.mark.slow) if "compiled" in name else name for name in CASES]
RIGHT = {name for name in CASES if name.startswith(("state", "chain", "answer chain", "answer torch", "answer auto"))}
RIGHT |= {f"series {readout} of {n}" for readout in ("amplitude", "probability") for n in (2, 7, 8)}
RIGHT |= {"series of coefficients", "attention to values", "attention to angles"}


def gradient(function, x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(function(x), x)[0]


def hessian_by_differences(function, x, step=1e-4):
    """The slow twin: central differences of first derivatives, (x.numel(), x.numel())."""
    steps = step * torch.eye(x.numel(), dtype=F64).view(-1, *x.shape)
    columns = [gradient(function, x + one) - gradient(function, x - one) for one in steps]
    return torch.stack(columns).view(x.numel(), -1) / (2 * step)


def is_one_line(error):
    return len(str(error).splitlines()) == 1 and len(str(error)) <= 300


@pytest.mark.parametrize("name", NAMES)
def test_a_hessian_is_right_or_an_error(name):
    function, x = CASES[name]
    if name not in RIGHT:
        with pytest.raises(RuntimeError, match="got a second derivative; allowed: first derivatives") as raised:
            hessian(function, x)
        assert is_one_line(raised.value)
        return
    twin = hessian_by_differences(function, x)
    torch.testing.assert_close(hessian(function, x).view_as(twin), twin, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_gradient_penalty_is_right_or_an_error(name):
    function, x = CASES[name]
    x = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(function(x), x, create_graph=True)
    torch.testing.assert_close(slope, gradient(function, x.detach()))
    if name not in RIGHT:
        with pytest.raises(RuntimeError, match="got a second derivative"):
            slope.square().sum().backward()
        return
    if not slope.requires_grad:  # linear
        return
    slope.square().sum().backward()
    twin = 2 * hessian_by_differences(function, x.detach()) @ slope.detach().flatten()
    torch.testing.assert_close(x.grad.flatten(), twin, rtol=0, atol=1e-5)


@pytest.mark.parametrize("way", ["dual numbers", "jvp", "jacfwd", "hessian", "grad", "vmap"])
@pytest.mark.parametrize("name", NAMES)
def test_forward_mode_and_functional_transforms_are_right_or_an_error(name, way):
    function, x = CASES[name]
    if way == "hessian" and x.numel() > 16:
        pytest.skip("takes long")
    direction = torch.ones_like(x)
    slope = gradient(function, x)
    try:
        match way:
            case "dual numbers":
                with forward_ad.dual_level():
                    dual = forward_ad.unpack_dual(function(forward_ad.make_dual(x, direction))).tangent
                    got, right = torch.zeros(()) if dual is None else dual, (slope * direction).sum()
            case "jvp":
                got, right = torch.func.jvp(function, (x,), (direction,))[1], (slope * direction).sum()
            case "jacfwd":
                got, right = torch.func.jacfwd(function)(x), slope
            case "hessian":
                right = hessian_by_differences(function, x)
                got = torch.func.hessian(function)(x).view_as(right)
            case "grad":
                got, right = torch.func.grad(function)(x), slope
            case "vmap":
                got, right = torch.func.vmap(function)(torch.stack((x, -x)))[0], function(x)
    except RuntimeError as error:
        assert is_one_line(error)  # noqa: PT017
        return
    torch.testing.assert_close(got, right, rtol=0, atol=1e-6, check_dtype=False)


@pytest.mark.parametrize("name", sorted(RIGHT - {"series of coefficients", "attention to values"}))
def test_second_derivatives_that_exist_pass_torchs_own_check(name):
    function, x = CASES[name]
    if "in 256 bytes" in name or x.numel() > 16:
        pytest.skip("takes long")
    if name.startswith(("series", "attention")):
        pytest.skip("it differentiates in the gradient of the answer too, which the series at x is not")
    assert torch.autograd.gradgradcheck(function, x.clone().requires_grad_(), atol=1e-5)


@pytest.mark.parametrize("entangle", ENTANGLED)
def test_amplitudes_have_right_second_derivatives(entangle):
    spec = CircuitSpec(3, 2, entangle)
    function = lambda a: amplitudes(spec, a, torch.tensor([[0, 1, 1]]))[0, 0].real  # noqa: E731
    x = normal(*spec.angles_shape(1))
    twin = hessian_by_differences(function, x)
    torch.testing.assert_close(hessian(function, x).view_as(twin), twin, rtol=0, atol=1e-6)


def test_a_first_derivative_keeps_no_second_copy_of_x():
    x = normal(1000).requires_grad_()
    stored = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: stored.append(t.numel()) or t, lambda t: t):
        FourierSeries(normal(1, 5))(x)
    assert sum(stored) < 2_100  # cos and sin


@pytest.mark.parametrize("source", ["sine", "gradient", "random_sign", "shuffled", "zero", "circuit"])
def test_signals_refuse_coordinates_whose_derivative_is_wanted(source):
    signal = make_signal(Perturbation(source=source), None)
    theta = normal(2, 4)
    keys = torch.arange(2).to(torch.uint64)
    submit = lambda theta: signal.submit(theta, keys if signal.keyed else None).result()  # noqa: E731
    expected = submit(theta)
    with pytest.raises(RuntimeError, match=r"theta: got a derivative .*; allowed: ") as raised:
        submit(theta.clone().requires_grad_())
    assert is_one_line(raised.value)
    with pytest.raises(RuntimeError, match="theta: got a derivative"), forward_ad.dual_level():
        submit(forward_ad.make_dual(theta, theta))
    with torch.no_grad():
        assert torch.equal(submit(theta.clone().requires_grad_()), expected)
    assert torch.equal(submit(theta.clone().requires_grad_().detach()), expected)


def test_the_angles_of_blocks_refuse_so_too():
    with pytest.raises(RuntimeError, match="theta: got a derivative"):
        circuit_angles(SMALL, normal(1, 2).requires_grad_())
