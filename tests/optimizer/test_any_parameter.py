"""Parameters of any kind: with lambda 0 all that AdamW takes, to its bits; else one line."""

import pytest
import torch

from qsgd_ray.optimizer import SuperpositionalAdamW


def convolutions():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(4, 2, 3)).to(
        memory_format=torch.channels_last
    )
    x = torch.linspace(-1, 1, 384).view(2, 3, 8, 8)
    return model, lambda: model(x).square().sum()


def transposed():
    model = torch.nn.ParameterList([torch.randn(4, 6).t(), torch.randn(5)])
    x = torch.linspace(-1, 1, 24).view(4, 6).t()
    return model, lambda: (model[0] * x).square().sum() + model[1].square().sum()


def complex_ones():
    model = torch.nn.ParameterList([torch.randn(4, dtype=torch.complex64), torch.randn(5)])
    return model, lambda: model[0].abs().square().sum() + model[1].square().sum()


def lazy():
    model = torch.nn.Sequential(torch.nn.LazyLinear(4), torch.nn.Linear(4, 2))

    def loss():
        torch.manual_seed(5)
        return model(torch.linspace(-1, 1, 15).view(3, 5)).square().sum()

    return model, loss


KINDS = [convolutions, transposed, complex_ones, lazy]
# torch 2.13 warns of lazy modules that they are new.
pytestmark = pytest.mark.filterwarnings("ignore:Lazy modules are a new feature:UserWarning")


def made(kind, cls, **options):
    torch.manual_seed(0)
    model, loss = kind()
    return model, loss, cls(model.parameters(), lr=1e-2, **options)


def stepped(model, loss, optimizer, n=4):
    for _ in range(n):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    return [parameter.detach() for parameter in model.parameters()]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("adamw", [{}, {"fused": True}, {"foreach": True}, {"amsgrad": True}])
@pytest.mark.parametrize("own", [{"lambda_": 0.0}, {"source": "zero"}, {"lambda_": 0.0, "scope": "all"}])
def test_with_lambda_0_it_is_adamw_to_the_bit(kind, adamw, own):
    if kind is complex_ones and "fused" in adamw:
        pytest.skip("torch's fused AdamW takes no complex parameters")
    theirs = stepped(*made(kind, torch.optim.AdamW, **adamw))
    model, loss, optimizer = made(kind, SuperpositionalAdamW, telemetry_every=2, **adamw, **own)
    assert all(map(torch.equal, stepped(model, loss, optimizer), theirs))
    report = optimizer.telemetry()
    assert report.adam_step_norm > 0
    assert report.perturbation_norm == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_state_goes_on_to_the_same_bits(kind):
    theirs = stepped(*made(kind, torch.optim.AdamW), n=4)
    model, loss, optimizer = made(kind, SuperpositionalAdamW, lambda_=0.0)
    stepped(model, loss, optimizer, n=2)
    other = SuperpositionalAdamW(model.parameters(), lr=1e-2, lambda_=0.0)
    other.load_state_dict(optimizer.state_dict())
    assert all(map(torch.equal, stepped(model, loss, other, n=2), theirs))


def test_the_norm_of_complex_steps_is_that_of_their_parts():
    values = torch.randn(2, 4)
    whole = torch.nn.Parameter(torch.complex(*values))
    parts = torch.nn.Parameter(torch.view_as_real(torch.complex(*values)).clone())
    norms = []
    for parameter in (whole, parts):
        optimizer = SuperpositionalAdamW([parameter], lambda_=0.0, telemetry_every=1)
        parameter.grad = torch.ones_like(parameter) if parameter is parts else torch.complex(*torch.ones(2, 4))
        optimizer.step()
        norms.append(optimizer.telemetry().adam_step_norm)
    assert norms[0] == pytest.approx(norms[1])


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (convolutions, r"parameter 0 of shape .*: got strides .*; allowed: contiguous parameters"),
        (transposed, r"parameter 0 of shape .*: got strides .*; allowed: contiguous parameters"),
        (complex_ones, r"parameter 0 of shape .*: got torch.complex64; allowed: real parameters"),
        (lazy, r"parameter 0: got a lazy one; allowed: initialised, by a forward pass"),
    ],
)
@pytest.mark.parametrize(
    "own", [{"lambda_": 0.5}, {"lambda_": 0.5, "scope": "all"}, {"lambda_": 0.0, "formula": "paper"}]
)
def test_else_they_are_refused_in_one_line(kind, message, own):
    with pytest.raises(ValueError, match=f"^{message}$"):
        made(kind, SuperpositionalAdamW, **own)


def test_a_lambda_that_is_raised_later_is_refused_then():
    model, loss, optimizer = made(convolutions, SuperpositionalAdamW, lambda_=0.0)
    before = stepped(model, loss, optimizer, n=1)[0].clone()
    optimizer.param_groups[0]["lambda_"] = 0.5
    with pytest.raises(ValueError, match="allowed: contiguous parameters"):
        optimizer.step()
    assert torch.equal(model[0].weight, before)


@pytest.mark.parametrize("lambda_", [0.0, 0.5])
def test_sparse_gradients_are_refused_in_torchs_words(lambda_):
    errors = []
    for cls, own in ((torch.optim.AdamW, {}), (SuperpositionalAdamW, {"lambda_": lambda_})):
        parameter = torch.nn.Parameter(torch.ones(3, 2))
        parameter.grad = torch.ones(3, 2).to_sparse()
        with pytest.raises(RuntimeError) as raised:
            cls([parameter], **own).step()
        errors.append((type(raised.value), str(raised.value)))
    assert errors[0] == errors[1]
