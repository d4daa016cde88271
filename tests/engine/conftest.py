"""Models for the engine's tests: tiny random ones, and the embedded one, loaded once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from longspan.models import LoadedModel, describe, load

VOCABULARY = 300  # 256 bytes, 3 control tokens, and rows that no text uses
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 257,
    "eos_token_id": 258,
    "pad_token_id": 258,
}
CONFIGS: dict[str, Callable[[], transformers.PretrainedConfig]] = {
    "llama": lambda: transformers.LlamaConfig(**SIZES),
    "qwen2": lambda: transformers.Qwen2Config(**SIZES),
    "mistral": lambda: transformers.MistralConfig(**SIZES, sliding_window=16),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=VOCABULARY, n_embd=64, n_layer=3, n_head=4, n_positions=512, bos_token_id=257, eos_token_id=258
    ),
}


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny products gain nothing from threads, and on a busy machine threads that wait for each other cost much."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    alphabet = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<unk>", "<s>", "</s>"]
    backend = Tokenizer(BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )


@cache
def tiny(architecture: str) -> LoadedModel:
    """A random fp32 model of this architecture over single bytes."""
    torch.manual_seed(7)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[architecture]())
    with torch.no_grad():  # wider scores, so that greedy choices are not ties
        for parameter in model.parameters():
            parameter.mul_(3 if parameter.ndim > 1 else 1)
    return describe(f"tiny-{architecture}", model, byte_tokenizer())


@pytest.fixture(scope="session", params=list(CONFIGS))
def any_tiny(request: pytest.FixtureRequest) -> LoadedModel:
    return tiny(request.param)


@pytest.fixture(scope="session")
def llama() -> LoadedModel:
    return tiny("llama")


@pytest.fixture(scope="session")
def smollm2() -> LoadedModel:
    return load("smollm2", dtype="fp32")
