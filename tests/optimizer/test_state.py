"""State saved, loaded, copied and pickled, with circuits under way."""

import copy
import io

import pytest
import torch
from support.fake_backends import LateBackend
from support.optimizers import flat, parameters_of, run

from qsgd_ray.optimizer import SuperpositionalAdamW


@pytest.mark.parametrize("source", ["sine", "circuit"])
def test_state_dict_is_adamw_s_and_resumes_bit_for_bit(source):
    parameters, plain = parameters_of(), parameters_of()
    optimizer, adamw = SuperpositionalAdamW(parameters, source=source), torch.optim.AdamW(plain)
    run(optimizer, parameters, 3)
    run(adamw, plain, 3)
    saved = optimizer.state_dict()
    assert saved["state"].keys() == adamw.state_dict()["state"].keys()
    assert saved["param_groups"][0].keys() - adamw.state_dict()["param_groups"][0].keys() == {
        "lambda_",
        "perturbation_steps",
    }
    file = io.BytesIO()
    torch.save((saved, [parameter.detach() for parameter in parameters]), file)
    file.seek(0)
    loaded, values = torch.load(file)
    resumed = [torch.nn.Parameter(value) for value in values]
    other = SuperpositionalAdamW(resumed, source=source, lambda_=9.0)
    other.load_state_dict(loaded)
    assert torch.equal(run(optimizer, parameters, 4, 3), run(other, resumed, 4, 3))


def test_a_plain_adamw_state_dict_loads_and_keeps_lambda():
    plain, parameters = parameters_of(), parameters_of()
    adamw = torch.optim.AdamW(plain)
    run(adamw, plain, 2)
    optimizer = SuperpositionalAdamW(parameters, lambda_=0.3)
    optimizer.load_state_dict(adamw.state_dict())
    assert optimizer.param_groups[0]["lambda_"] == 0.3
    run(optimizer, parameters, 1)


@pytest.mark.parametrize("source", ["sine", "circuit"])
def test_a_deep_copy_with_circuits_under_way_goes_on_alone_bit_for_bit(source):
    parameters = parameters_of()
    optimizer = SuperpositionalAdamW(parameters, source=source, circuits=LateBackend())
    run(optimizer, parameters, 2)
    copied_parameters, copied = copy.deepcopy((parameters, optimizer))
    theirs = run(copied, copied_parameters, 3, 2)
    assert not torch.equal(theirs, flat(parameters))
    assert torch.equal(run(optimizer, parameters, 3, 2), theirs)


def test_a_pickled_optimizer_with_circuits_under_way_goes_on_bit_for_bit():
    parameters = parameters_of()
    optimizer = SuperpositionalAdamW(parameters, source="circuit", circuits=LateBackend())
    run(optimizer, parameters, 2)
    file = io.BytesIO()
    torch.save((parameters, optimizer), file)
    file.seek(0)
    loaded_parameters, loaded = torch.load(file, weights_only=False)
    assert torch.equal(run(loaded, loaded_parameters, 3, 2), run(optimizer, parameters, 3, 2))
