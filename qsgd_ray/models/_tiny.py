"""A language model for tests, made in milliseconds without a download: a seed comes in, a two-layer Llama goes out.

Its tokenizer splits text into bytes, so every text has tokens, and decoding them gives the text back.
"""

from __future__ import annotations

from typing import Any

import torch

from qsgd_ray.random_keys import named_seed

_PAD, _START, _END = "<|pad|>", "<|im_start|>", "<|im_end|>"
_CONTEXT = 4096
_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def tiny_tokenizer() -> Any:
    """Make a transformers tokenizer of 256 bytes and three special tokens, with the chat template of ChatML."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: n for n, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=_PAD,
        bos_token=_START,
        eos_token=_END,
        chat_template=_CHAT_TEMPLATE,
        model_max_length=_CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def tiny_model(tokenizer: Any, seed: int, n_classes: int | None = None) -> Any:
    """Make a Llama with tied embeddings, float32, on the CPU; its weights depend on the seed alone.

    Args:
        tokenizer: its vocabulary decides the size of the embeddings.
        seed: of the weights.
        n_classes: of a head that classifies sequences. None: a causal language model.
    """
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=_CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(named_seed("weights of the tiny language model", seed))
        if n_classes is None:
            return LlamaForCausalLM(config)
        config.num_labels = n_classes
        return LlamaForSequenceClassification(config)
