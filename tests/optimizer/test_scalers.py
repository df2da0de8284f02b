"""SuperpositionalAdamW under gradient scalers, autocast, clipping and accumulation."""

import numpy as np
import pytest
import torch
from support.client_training import (
    KERNELS,
    PERTURBATIONS,
    QUIET_DYNAMO,
    Twin,
    a_model,
    flat,
    in_two_groups,
    loss_of,
    named,
    some_batches,
)

from qsgd_ray.optimizer import SuperpositionalAdamW

pytestmark = QUIET_DYNAMO


def scaled_training(model, optimizer, batches, scaler, dtype, max_norm=None):
    for batch in batches:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=dtype):
            loss = loss_of(model, batch)
        scaler.scale(loss).backward()
        if max_norm is not None:
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        scaler.step(optimizer)
        scaler.update()


@pytest.mark.parametrize("kernel", KERNELS, ids=named)
@pytest.mark.parametrize("max_norm", [None, 0.1])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scope", ["tensor", "all"])
def test_a_scaler_under_autocast_hands_it_the_gradients_of_the_loss(scope, dtype, max_norm, kernel):
    model = a_model(torch.float32)
    optimizer = SuperpositionalAdamW(in_two_groups(model), lr=1e-2, lambda_=2.0, scope=scope, **kernel)
    twin = Twin(optimizer, scope=scope)
    scaled_training(model, optimizer, some_batches(8, torch.float32), torch.amp.GradScaler("cpu"), dtype, max_norm)
    assert 4 <= twin.steps <= 8
    assert all(np.abs(group.perturbation).max() < 1 for group in twin.groups)
    assert twin.distance() < 1e-6


@pytest.mark.parametrize("kernel", KERNELS, ids=named)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_scaler_without_perturbation_is_adamw_bit_for_bit(dtype, kernel):
    ends = []
    for make in (lambda *own, **kw: SuperpositionalAdamW(*own, **kw, lambda_=0.0), torch.optim.AdamW):
        model = a_model(torch.float32)
        optimizer = make(in_two_groups(model), 1e-2, **kernel)
        scaled_training(model, optimizer, some_batches(8, torch.float32), torch.amp.GradScaler("cpu"), dtype)
        ends.append(flat(model.parameters()))
    assert torch.equal(*ends)


@pytest.mark.parametrize("own", PERTURBATIONS, ids=named)
@pytest.mark.parametrize("kernel", KERNELS, ids=named)
def test_a_step_that_overflowed_is_skipped_whole(kernel, own):
    model = a_model(torch.float32)
    before = flat(model.parameters())
    optimizer = SuperpositionalAdamW(model.parameters(), lambda_=2.0, **own, **kernel)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for sound in (False, True):
        optimizer.zero_grad()
        scaler.scale(loss_of(model, some_batches(1, torch.float32)[0]) * (1.0 if sound else float("inf"))).backward()
        scaler.step(optimizer)
        scaler.update()
        assert torch.equal(flat(model.parameters()), before) != sound
    assert scaler.get_scale() == 2.0**9


@pytest.mark.parametrize("own", PERTURBATIONS, ids=named)
def test_two_micro_batches_make_one_batch_s_step(own):
    whole, halves = a_model(), a_model()
    for model, n_parts in ((whole, 1), (halves, 2)):
        optimizer = SuperpositionalAdamW(model.parameters(), lr=1e-2, **own)
        for batch in some_batches(5):
            optimizer.zero_grad()
            for part in batch.chunk(n_parts):
                (loss_of(model, part) / n_parts).backward()
            optimizer.step()
    assert (flat(whole.parameters()) - flat(halves.parameters())).abs().max() < 1e-12


@pytest.mark.parametrize("foreach", [False, True])
def test_it_perturbs_by_the_clipped_gradient(foreach):
    model = a_model()
    optimizer = SuperpositionalAdamW(model.parameters(), lr=1e-2, foreach=foreach)
    twin = Twin(optimizer)
    for batch in some_batches(5):
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        assert torch.nn.utils.clip_grad_norm_(model.parameters(), 0.01, foreach=foreach) > 0.01
        optimizer.step()
    assert twin.distance() < 1e-12
