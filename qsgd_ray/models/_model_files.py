"""Files of a model, from a folder or the hub: they are read as data, and no code in them or named by them is run.

transformers runs code of a model's repository where it is told to (`trust_remote_code`), asks on the terminal where it
is told nothing, and takes kernels from the hub where a model's config.json names one. Weights come from safetensors
files alone: a `.bin` file is a pickle.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from qsgd_ray.config import StudyError
from qsgd_ray.config.errors import one_line
from qsgd_ray.models._presence import SUBMODULE
from qsgd_ray.models._quiet_loading import quiet_loading
from qsgd_ray.random_keys import named_seed


class Head(NamedTuple):
    """A model's head, and where its weights come from.

    Attributes:
        n_classes: classes of a sequence. None: a causal language model's, which predicts tokens.
        fresh: True: no weights are read, all are drawn.
    """

    n_classes: int | None = None
    fresh: bool = False


CAUSAL = Head()
_DATA_ALONE = {"trust_remote_code": False}
_log = logging.getLogger(__name__)
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


def read_model(
    name: str, source: Path | str, dtype: torch.dtype, head: Head = CAUSAL, seed: int = 0, **where: Any
) -> Any:
    """Return a model on the CPU. What is drawn as the files lack it is said once a process.

    Args:
        name: the model's name, for errors.
        source: a folder or an id of the hub.
        dtype: type of its weights.
        head: a causal language model's, or one that classifies sequences; what the files lack of the latter is drawn.
        seed: of what is drawn.
        where: `revision` and `local_files_only`, as transformers has them.

    Raises:
        StudyError: one line: the files are broken, lack weights or have others than config.json says, want code to be
            run, or have angles.
        OSError: the hub does not give them.
    """
    from transformers import PreTrainedConfig

    kind, options = _kind_of(head)
    try:
        config, _ = PreTrainedConfig.get_config_dict(source, **where)
        for key, value in _named_implementations(config):
            raise ValueError(f"{key} names code, {value!r:.60}")
        if head.fresh:
            return _drawn(kind, source, dtype, seed, options, where)
        with quiet_loading():
            model, info = kind.from_pretrained(  # nosec B615 # the study names the revision
                source,
                output_loading_info=True,
                dtype=dtype,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # they are refused below, with their shapes
                **options,
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
    if mismatched := sorted(info["mismatched_keys"]):
        key, stored, wanted = mismatched[0]
        raise StudyError(
            f"model: got {name!r}, whose {key} has the shape {_shape(stored)}, and {_shape(wanted)} by config.json and "
            f"the task{_and_others(mismatched)}; allowed: files that fit"
        )
    missing = sorted(info["missing_keys"])
    if head.n_classes is not None:
        prefix = f"{model.base_model_prefix}."
        drawn = [key for key in missing if not key.startswith(prefix)]
        _draw_head(model, drawn, seed)
        _say_once(name, tuple(drawn))
        missing = [key for key in missing if key.startswith(prefix)]
    if missing:
        # transformers would draw them at random.
        raise StudyError(
            f"model: got {name!r}, whose files lack {len(missing)} weights, {missing[0]} among them; "
            "allowed: all of the model's"
        )
    return model


def _kind_of(head: Head) -> tuple[Any, dict[str, Any]]:
    """Return the class of transformers that makes models with a head, and its options."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    if head.n_classes is None:
        return AutoModelForCausalLM, {"attn_implementation": "sdpa"}
    return AutoModelForSequenceClassification, {"num_labels": head.n_classes}


def _drawn(
    kind: Any, source: Path | str, dtype: torch.dtype, seed: int, options: dict[str, Any], where: dict[str, Any]
) -> Any:
    """Return a model of a configuration whose weights depend on the seed alone; no global generator moves."""
    from transformers import AutoConfig

    own = {key: value for key, value in options.items() if key != "attn_implementation"}
    config = AutoConfig.from_pretrained(source, **own, **where, **_DATA_ALONE)  # nosec B615 # the study names the revision
    made = {key: value for key, value in options.items() if key == "attn_implementation"}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(named_seed("weights of a fresh model", seed))
        return kind.from_config(config, dtype=dtype, **made, **_DATA_ALONE)


def _draw_head(model: Any, keys: list[str], seed: int) -> None:
    """Draw the weights of a head, each by its name: normal ones as the model's own, biases zero, other vectors one."""
    std = getattr(model.config, "initializer_range", 0.02)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for key in keys:
            weight = parameters[key]
            if weight.ndim > 1:
                weight.normal_(0.0, std, generator=torch.Generator().manual_seed(named_seed("head", key, seed)))
            else:
                weight.fill_(0.0 if key.endswith("bias") else 1.0)


@lru_cache(maxsize=256)
def _say_once(name: str, drawn: tuple[str, ...]) -> None:
    if drawn:
        _log.warning("%s: its files lack %s%s; each trial draws it from its seed", name, drawn[0], _and_others(drawn))


def _and_others(keys: Sequence[Any]) -> str:
    return f", and {len(keys) - 1} more" if len(keys) > 1 else ""


def _shape(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes))


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
