"""The cost of a step: torch's own counter of the same products, and the arithmetic of adapters."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from qsgd_ray.config.workload import Lora
from qsgd_ray.models.flops import StepFlops, step_flops
from qsgd_ray.models.pretrained import load_pretrained

pytest.importorskip("transformers")


@pytest.mark.parametrize("length", [5, 40])
def test_it_is_what_torch_counts(length):
    """Forward and backward of one sequence, attention as products of its own."""
    model = load_pretrained("tiny").model
    model.set_attn_implementation("eager")
    ids = torch.randint(0, 256, (1, length))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, use_cache=False).logits.sum().backward()
    # The first layer's input, looked up in a table, has a gradient as well; so nothing is left out.
    assert step_flops(model).count([length], length) == counter.get_total_flops()


def test_sequences_add_up_and_a_frozen_weight_costs_no_gradient():
    pytest.importorskip("peft")
    whole = step_flops(load_pretrained("tiny").model)
    assert whole.frozen == 0
    assert whole.count([3, 4], 5) == whole.count([3], 2) + whole.count([4], 3)
    adapted = step_flops(load_pretrained("tiny", lora=Lora(r=2, target_modules=("q_proj",))).model)
    assert adapted.frozen == whole.trained
    assert (whole.head, adapted.head) == (6 * 259 * 32, 4 * 259 * 32)
    assert adapted.trained == 2 * (32 * 2 + 2 * 32)
    assert adapted.attention == whole.attention == 2 * 32
    assert StepFlops(10, 100, 7, 0).count([1], 3) == 60 + 400 + 21
