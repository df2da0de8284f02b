"""Files of a model, from a folder or the hub: they are read as data, and no code in them or named by them is run.

transformers runs code of a model's repository where it is told to (`trust_remote_code`), asks on the terminal where it
is told nothing, and takes kernels from the hub where a model's config.json names one. Weights come from safetensors
files alone: a `.bin` file is a pickle.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from qsgd_ray.config import StudyError
from qsgd_ray.config.errors import one_line
from qsgd_ray.models._presence import SUBMODULE

_DATA_ALONE = {"trust_remote_code": False}
_ALLOWED = "what save_pretrained writes: config.json, *.safetensors and tokenizer.json, without code"


def read_tokenizer(name: str, source: Path | str, **where: Any) -> Any:
    """Return a tokenizer.

    Args:
        name: the model's name, for errors.
        source: a folder or an id of the hub.
        where: `revision` and `local_files_only`, as transformers has them.

    Raises:
        StudyError: one line: the files are broken, or want code to be run.
        OSError: the hub does not give them.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(source, **where, **_DATA_ALONE)  # nosec B615 # the study names the revision
    except Exception as error:
        if _is_of_the_hub(source, error):
            raise
        raise _refusal(name, error) from error


def read_model(name: str, source: Path | str, dtype: torch.dtype, **where: Any) -> Any:
    """Return a causal language model on the CPU.

    Args:
        name: the model's name, for errors.
        source: a folder or an id of the hub.
        dtype: type of its weights.
        where: `revision` and `local_files_only`, as transformers has them.

    Raises:
        StudyError: one line: the files are broken, lack weights, want code to be run, or have angles.
        OSError: the hub does not give them.
    """
    from transformers import AutoModelForCausalLM, PreTrainedConfig

    try:
        config, _ = PreTrainedConfig.get_config_dict(source, **where)
        for key, value in _named_implementations(config):
            raise ValueError(f"{key} names code, {value!r:.60}")
        model, info = AutoModelForCausalLM.from_pretrained(  # nosec B615 # the study names the revision
            source,
            output_loading_info=True,
            dtype=dtype,
            attn_implementation="sdpa",
            use_safetensors=True,
            **where,
            **_DATA_ALONE,
        )
    except Exception as error:
        if _is_of_the_hub(source, error):
            raise
        raise _refusal(name, error) from error
    if any(f".{SUBMODULE}." in key for key in info["unexpected_keys"]):
        raise StudyError(
            f"model: got {name!r}, whose file has angles of quantum attention, which no study starts from; "
            "allowed: a model without them"
        )
    if missing := sorted(info["missing_keys"]):
        # transformers would draw them at random.
        raise StudyError(
            f"model: got {name!r}, whose files lack {len(missing)} weights, {missing[0]} among them; "
            "allowed: all of the model's"
        )
    return model


def _named_implementations(config: Any) -> Iterator[tuple[str, str]]:
    """Yield the keys of a configuration, and of those within, that name a repository of kernels."""
    for key, value in config.items() if isinstance(config, dict) else ():
        if key.endswith("_implementation") and "/" in str(value):
            yield key, str(value)
        yield from _named_implementations(value)


def _is_of_the_hub(source: Path | str, error: Exception) -> bool:
    """Return True where the hub does not give the files: its error says more than ours could."""
    return isinstance(error, OSError) and not isinstance(source, Path)


def _refusal(name: str, error: Exception) -> StudyError:
    return StudyError(
        f"model: got {name!r:.80}, which cannot be read ({one_line(error, limit=110)}); allowed: {_ALLOWED}"
    )
