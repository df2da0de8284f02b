"""Quantum attention in transformers models: logits, masks, caches, and what it refuses."""

import copy
import doctest
import warnings
from functools import partial

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


SIZES = {"vocab_size": 20, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 32}


@pytest.mark.parametrize(
    ("kind", "fields"), [("gptj", {"rotary_dim": 4}), ("codegen", {"rotary_dim": 4}), ("xlnet", {})]
)
def test_a_model_that_keeps_its_own_attention_is_refused_as_it_was(kind, fields):
    if kind == "xlnet":
        fields = {"d_model": 16, "d_inner": 16}
    config = transformers.AutoConfig.for_model(kind, **SIZES, **fields)
    model = transformers.AutoModelForCausalLM.from_config(config)
    before, implementation = set(model.state_dict()), model.config._attn_implementation
    with pytest.raises(
        ValueError, match=r"model: got \w+, whose \w+ has an attention of its own; allowed: "
    ) as refusal:
        add_quantum_attention(model)
    assert len(str(refusal.value)) <= 300
    assert (set(model.state_dict()), model.config._attn_implementation) == (before, implementation)


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox", "opt", "qwen2", "bart"])
def test_models_that_take_an_attention_call_it_in_every_layer(kind):
    small = {"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    small |= {"intermediate_size": 16, "max_position_embeddings": 32, "num_key_value_heads": 2}
    fields = {
        "gpt2": SIZES,
        "opt": small | {"ffn_dim": 16, "word_embed_proj_dim": 16},
        "bart": {"vocab_size": 20, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16}
        | {"decoder_ffn_dim": 16, "encoder_attention_heads": 2, "decoder_attention_heads": 2},
    }.get(kind, small)
    model = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(kind, **fields))
    assert add_quantum_attention(model, SMALL)
    model(some_tokens())
    layers = [part for part in model.modules() if hasattr(part, "quantum_attention_called")]
    assert layers
    assert all(layer.quantum_attention_called for layer in layers)


def test_layers_that_never_call_it_are_an_error_after_the_first_pass():
    model = a_quantum_llama()
    model.model.layers[1].self_attn.forward = lambda hidden_states, **_: (hidden_states, None)
    with pytest.raises(
        RuntimeError, match=r"quantum attention: 1 of 2 layers of LlamaModel did not call it .* layers.1"
    ):
        model(some_tokens())


def test_another_attention_set_later_is_an_error_in_the_first_pass():
    model = a_quantum_llama()
    model.set_attn_implementation("sdpa")
    with pytest.raises(RuntimeError, match="quantum attention: 2 of 2 layers of LlamaModel did not call it"):
        model(some_tokens())
    model.set_attn_implementation("quantum")
    model(some_tokens())


def test_layers_that_training_drops_at_random_are_no_error():
    fields = {"vocab_size": 20, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16}
    fields |= {"decoder_ffn_dim": 16, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    model = transformers.BartModel(transformers.BartConfig(**fields, encoder_layerdrop=1.0))
    add_quantum_attention(model, SMALL)
    model.train()(some_tokens())
    model.eval()(some_tokens())


def angles_of(state):
    return {name.rpartition("layers.")[2]: value for name, value in state.items() if name.endswith("angles")}


def saved(folder):
    from safetensors.torch import load_file

    (file,) = folder.glob("*.safetensors")
    return angles_of(load_file(file))


class Holder(nn.Module):
    """A module that holds a model."""

    def __init__(self, model):
        super().__init__()
        self.inner = model


@pytest.mark.parametrize(
    "held",
    [
        lambda model: model,
        partial(torch.compile, backend="eager"),
        nn.DataParallel,
        copy.deepcopy,
        lambda model: Holder(model).inner,
    ],
    ids=["whole", "compiled", "data parallel", "copied", "within a module"],
)
def test_save_pretrained_keeps_the_angles(tmp_path, held):
    model = a_quantum_llama()
    holder = held(model)
    getattr(holder, "module", holder).save_pretrained(tmp_path)
    files = saved(tmp_path)
    assert len(files) == 2
    assert all(torch.equal(files[name], value) for name, value in angles_of(model.state_dict()).items())


@pytest.mark.parametrize("first", ["adapters", "circuits", "add_adapter"])
def test_adapters_say_that_they_leave_the_angles_out(tmp_path, first):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["q_proj"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        if first == "adapters":
            model = peft.get_peft_model(a_llama(), config)
            add_quantum_attention(model.get_base_model(), SMALL)
        else:
            model = a_quantum_llama()
            model.add_adapter(config) if first == "add_adapter" else None
            model = model if first == "add_adapter" else peft.get_peft_model(model, config)
    with pytest.warns(UserWarning, match="leaves out the angles of quantum attention; save them by") as said:
        model.save_pretrained(tmp_path)
    assert {len(str(warning.message).splitlines()) for warning in said} == {1}
    assert saved(tmp_path) == {}


def test_adapters_keep_the_angles_that_they_are_told_to_save(tmp_path):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["quantum_attention"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model = peft.get_peft_model(a_quantum_llama(), config)
    model(input_ids=some_tokens())
    model.save_pretrained(tmp_path)
    assert len(saved(tmp_path)) == 2


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
