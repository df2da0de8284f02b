"""Circuits submitted a step ahead: exact, never stale."""

import copy
import math

import pytest
import torch
from support.fake_backends import FlakyBackend, LateBackend
from support.optimizers import flat, parameters_of, run, set_gradients

from qsgd_ray.circuits.errors import CircuitError
from qsgd_ray.optimizer import SuperpositionalAdamW


class Straight:
    """The same optimizer, made to discard what it submitted ahead."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    def step(self):
        self.optimizer._engine._prefetch.discard()
        self.optimizer.step()


@pytest.mark.parametrize("scope", ["model", "tensor", "all"])
def test_prefetch_changes_no_bit(scope):
    ahead, straight = parameters_of(), parameters_of()
    prefetching = SuperpositionalAdamW(ahead, source="circuit", scope=scope, circuits=LateBackend())
    direct = Straight(SuperpositionalAdamW(straight, source="circuit", scope=scope))
    assert torch.equal(run(prefetching, ahead, 6), run(direct, straight, 6))


def test_prefetch_asks_each_circuit_once():
    backend = LateBackend()
    parameters = parameters_of(((4,), (6,)))
    optimizer = SuperpositionalAdamW(parameters, source="circuit", circuits=backend)
    run(optimizer, parameters, 5)
    assert backend.submissions == 6  # the first step's, and after each step the next one's
    assert optimizer.telemetry().n_circuits == 12


def edit_in_place(parameters, _):
    with torch.no_grad():
        parameters[0].mul_(1.5)


def edit_data(parameters, _):
    parameters[1].data[0] = 0.123


def edit_one_ulp(parameters, _):
    parameters[0].data.view(-1)[0] = torch.nextafter(parameters[0].data.view(-1)[0], torch.tensor(9.0).double())


def replace_memory(parameters, _):
    parameters[1].data = torch.full_like(parameters[1].data, 0.3)


def reload_state(_, optimizer):
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))


@pytest.mark.parametrize("edit", [edit_in_place, edit_data, edit_one_ulp, replace_memory, reload_state])
def test_parameters_edited_between_steps_are_never_met_with_a_stale_signal(edit):
    ahead, straight = parameters_of(), parameters_of()
    prefetching = SuperpositionalAdamW(ahead, source="circuit", circuits=LateBackend())
    direct = Straight(SuperpositionalAdamW(straight, source="circuit"))
    for step in range(5):
        if step in (2, 3):
            edit(ahead, prefetching)
            edit(straight, direct.optimizer)
        run(prefetching, ahead, 1, step)
        run(direct, straight, 1, step)
        assert torch.equal(flat(ahead), flat(straight))


def test_load_state_dict_discards_what_was_asked_ahead():
    parameters = parameters_of()
    optimizer = SuperpositionalAdamW(parameters, source="circuit", circuits=LateBackend())
    run(optimizer, parameters, 1)
    assert optimizer._engine._prefetch.under_way
    optimizer.load_state_dict(optimizer.state_dict())
    assert not optimizer._engine._prefetch.under_way


def test_a_prefetch_that_fails_is_asked_again_and_only_then_raises():
    def trained(backend, steps):
        parameters = parameters_of(((4,),))
        return run(SuperpositionalAdamW(parameters, source="circuit", circuits=backend), parameters, steps)

    assert torch.equal(trained(FlakyBackend(fail_on=3), 5), trained(FlakyBackend(fail_on=99), 5))
    with pytest.raises(CircuitError, match="submission 1 failed"):
        trained(FlakyBackend(fail_on=1), 1)
    with pytest.raises(CircuitError, match="submission 2 failed"):
        trained(FlakyBackend(fail_on=2, at="result"), 2)


def test_a_diverged_parameter_is_nan_and_not_an_error():
    parameters = parameters_of(((4,), (4,)))
    optimizer = SuperpositionalAdamW(parameters, source="circuit")
    set_gradients(parameters, 0)
    parameters[0].grad[1] = math.nan
    optimizer.step()
    run(optimizer, parameters, 2)
    assert parameters[0].isnan().any()
    assert parameters[1].isfinite().all()
