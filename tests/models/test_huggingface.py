"""Quantum attention in transformers models: logits, masks, caches, and what it refuses."""

import doctest

import pytest
import torch
from torch import nn

from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.models import huggingface
from qsgd_ray.models.attention import QuantumAttention
from qsgd_ray.models.huggingface import _attend, _register, add_quantum_attention

transformers = pytest.importorskip("transformers")
SMALL = CircuitSpec(2, 1)


def a_llama(attn_implementation="sdpa", **fields):
    config = transformers.LlamaConfig(
        vocab_size=20,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32,
        attn_implementation=attn_implementation,
        **fields,
    )
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(config).eval()


def a_quantum_llama(spec=SMALL, **fields):
    model = a_llama()
    for attention in add_quantum_attention(model, spec, **fields):
        if attention.phi:
            nn.init.normal_(attention.angles)
    return model


def some_tokens(n=2, length=6, seed=1):
    return torch.randint(20, (n, length), generator=torch.Generator().manual_seed(seed))


def test_every_layer_has_angles_of_its_own_that_belong_to_the_model():
    model = a_llama()
    added = add_quantum_attention(model, per_head=True)
    names = [name for name, _ in model.named_parameters() if "angles" in name]
    assert names == [f"model.layers.{i}.self_attn.quantum_attention.angles" for i in range(2)]
    assert [attention.angles.shape for attention in added] == [(4, 2, 4, 2)] * 2
    assert not torch.equal(added[0].angles, added[1].angles)


def test_phi_changes_the_logits_and_every_angle_has_a_gradient():
    model, tokens = a_quantum_llama(), some_tokens()
    output = model(tokens, labels=tokens)
    output.loss.backward()
    assert not torch.allclose(output.logits, a_llama()(tokens).logits, atol=1e-3)
    angles = [p for name, p in model.named_parameters() if "angles" in name]
    assert all((p.grad != 0).all() for p in angles)


def test_with_phi_off_the_logits_are_those_of_sdpa():
    mask = torch.ones(2, 6, dtype=torch.int64)
    mask[1, :2] = 0
    for attention_mask in (None, mask):
        theirs = a_llama()(some_tokens(), attention_mask=attention_mask).logits
        ours = a_quantum_llama(phi=False)(some_tokens(), attention_mask=attention_mask).logits
        kept = mask.bool() if attention_mask is not None else torch.ones(2, 6, dtype=torch.bool)
        torch.testing.assert_close(ours[kept], theirs[kept], rtol=0, atol=1e-6)


@pytest.mark.parametrize("token", [1, 3, 5])
def test_a_token_changes_no_logits_before_it(token):
    model, tokens = a_quantum_llama(), some_tokens()
    other = tokens.clone()
    other[:, token] = (other[:, token] + 1) % 20
    before, after = model(tokens).logits, model(other).logits
    torch.testing.assert_close(before[:, :token], after[:, :token], rtol=0, atol=1e-6)
    assert not torch.allclose(before[:, token:], after[:, token:], atol=1e-3)


def test_padding_on_the_left_is_silent():
    model, tokens = a_quantum_llama(), some_tokens(1)
    padded = torch.cat((torch.full((1, 3), 7), tokens), 1)
    mask = (torch.arange(9) >= 3)[None].long()
    positions = (torch.arange(9) - 3).clamp(min=0)[None]
    logits = model(padded, attention_mask=mask, position_ids=positions).logits[:, 3:]
    torch.testing.assert_close(logits, model(tokens).logits, rtol=0, atol=1e-5)


@torch.no_grad()
def test_generation_with_a_cache_has_the_logits_of_the_whole_sequence():
    model, tokens = a_quantum_llama(), some_tokens()
    options = {"max_new_tokens": 5, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    options |= {"attention_mask": torch.ones_like(tokens), "pad_token_id": 0, "eos_token_id": None}
    cached = model.generate(tokens, use_cache=True, **options)
    whole = model.generate(tokens, use_cache=False, **options)
    assert torch.equal(cached.sequences, whole.sequences)
    torch.testing.assert_close(cached.logits, whole.logits, rtol=0, atol=1e-5)


def test_weights_and_angles_survive_a_round_trip():
    model, other = a_quantum_llama(), a_quantum_llama()
    with torch.no_grad():
        for p in other.parameters():
            p.normal_()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(some_tokens()).logits, model(some_tokens()).logits)


def test_an_encoder_gets_it_in_its_innermost_attention_layers():
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24
    )
    torch.manual_seed(0)
    model = transformers.BertModel(config).eval()
    plain = model(some_tokens()).last_hidden_state
    layers = huggingface._attention_layers(model)
    assert [type(layer).__name__ for layer in layers] == ["BertSelfAttention"] * 2
    add_quantum_attention(model, SMALL)
    assert not torch.allclose(model(some_tokens()).last_hidden_state, plain, atol=1e-3)


def test_a_model_without_circuits_says_what_to_call():
    _register("quantum")
    with pytest.raises(ValueError, match=r"LlamaAttention has no quantum attention: call add_quantum_attention"):
        a_llama("quantum")(some_tokens())


def test_a_model_without_attention_is_refused():
    with pytest.raises(ValueError, match="model: got Linear without attention layers"):
        add_quantum_attention(nn.Linear(2, 2))


def test_what_it_cannot_do_is_refused():
    layer = nn.Module()
    layer.quantum_attention = QuantumAttention(SMALL)
    heads = [torch.randn(1, 2, 3, 4)] * 3
    with pytest.raises(ValueError, match="Module asks for softcap; quantum attention has none of it"):
        _attend(layer, *heads, None, softcap=30.0)


def test_a_fixed_cache_that_is_empty_behind_the_prompt_is_cut_off():
    layer = nn.Module()
    layer.quantum_attention = QuantumAttention(SMALL)
    query, key, value = torch.randn(3, 1, 2, 6, 4).unbind(0)
    cut, _ = _attend(layer, query[:, :, :3], key, value, None)
    whole, _ = _attend(layer, query[:, :, :3], key[:, :, :3], value[:, :, :3], None)
    assert cut.shape == (1, 3, 2, 4)
    assert torch.equal(cut, whole)


def test_a_single_new_token_sees_all_of_the_cache():
    layer = nn.Module()
    layer.quantum_attention = QuantumAttention(SMALL)
    query, key, value = torch.randn(3, 1, 2, 6, 4).unbind(0)
    one, _ = _attend(layer, query[:, :, -1:], key, value, None)
    every, _ = _attend(layer, query, key, value, None)
    torch.testing.assert_close(one, every[:, -1:])


def test_the_example_runs():
    results = doctest.testmod(huggingface)
    assert (results.failed, results.attempted > 0) == (0, True)
