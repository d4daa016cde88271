"""The kernels inside transformers models: the same logits as transformers' own attention."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import transformers

import longspan.kernels.interface  # noqa: F401  registers the name
from longspan import kernels
from longspan.models import load

SIZES = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
}
CONFIGS: dict[str, Callable[[], transformers.PretrainedConfig]] = {
    "llama": lambda: transformers.LlamaConfig(**SIZES),
    "qwen3": lambda: transformers.Qwen3Config(**SIZES, head_dim=32),
    "gemma2": lambda: transformers.Gemma2Config(**SIZES, head_dim=32, sliding_window=16),
    "gemma3": lambda: transformers.Gemma3TextConfig(**SIZES, head_dim=32, sliding_window=16),
    "mistral": lambda: transformers.MistralConfig(**SIZES, sliding_window=16),
    "phi3": lambda: transformers.Phi3Config(**SIZES, sliding_window=None),
    "gpt-oss": lambda: transformers.GptOssConfig(
        **SIZES, head_dim=32, sliding_window=16, num_local_experts=2, num_experts_per_tok=1
    ),
}


def tiny(name: str) -> transformers.PreTrainedModel:
    torch.manual_seed(7)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[name]()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3 if parameter.ndim > 1 else 1)
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))  # sinks among them
    return model


@torch.inference_mode()
def both(model: transformers.PreTrainedModel, **inputs: object) -> tuple[torch.Tensor, torch.Tensor]:
    logits = []
    for name in ("eager", "longspan"):
        model.set_attn_implementation(name)
        logits.append(model(**inputs).logits)
    return logits[0], logits[1]


def close(theirs: torch.Tensor, ours: torch.Tensor) -> bool:
    return bool((theirs - ours).abs().max() <= 1e-4 * theirs.abs().max())


@pytest.mark.parametrize("name", CONFIGS)
def test_logits(name: str) -> None:
    model = tiny(name)
    ids = torch.randint(1, 300, (2, 90))
    assert close(*both(model, input_ids=ids))
    left = torch.ones(2, 90, dtype=torch.long)
    left[0, :33] = 0
    theirs, ours = both(model, input_ids=ids, attention_mask=left)
    assert close(theirs[0, 33:], ours[0, 33:]) and close(theirs[1], ours[1])
    assert ours.isfinite().all()
    theirs, ours = both(model, input_ids=ids, attention_mask=left.flip(1))
    assert close(theirs[0, :57], ours[0, :57]) and close(theirs[1], ours[1])
    left[1, 40:44] = 0  # holes: transformers' own attention runs
    theirs, ours = both(model, input_ids=ids, attention_mask=left)
    assert close(theirs[0, 33:], ours[0, 33:]) and close(theirs[1], ours[1])


@pytest.mark.parametrize("name", CONFIGS)
def test_generation_with_a_cache(name: str) -> None:
    """Prefill and steps, left-padded: the same tokens."""
    model = tiny(name)
    ids = torch.randint(1, 300, (2, 40))
    mask = torch.ones_like(ids)
    mask[0, :11] = 0
    tokens = []
    for attention in ("eager", "longspan"):
        model.set_attn_implementation(attention)
        tokens.append(model.generate(ids, attention_mask=mask, max_new_tokens=24, do_sample=False, eos_token_id=299))
    assert torch.equal(*tokens)


def test_static_cache_and_packed_sequences() -> None:
    model = tiny("llama")
    ids = torch.randint(1, 300, (1, 40))
    tokens = []
    for attention in ("sdpa", "longspan"):
        model.set_attn_implementation(attention)
        tokens.append(model.generate(ids, max_new_tokens=8, do_sample=False, cache_implementation="static"))
    assert torch.equal(*tokens)
    positions = torch.cat([torch.arange(15), torch.arange(25)])[None]
    assert close(*both(model, input_ids=ids, position_ids=positions, use_cache=False))


def test_without_kernels() -> None:
    with kernels.using("torch"):
        for name in ("llama", "gemma2"):
            assert close(*both(tiny(name), input_ids=torch.randint(1, 300, (2, 50))))


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_embedded_model(dtype: str) -> None:
    """bf16 is compared by what it is for: next to fp32, it may not be further away than SDPA's bf16."""
    ids = torch.randint(100, 40000, (1, 400))
    loaded = load("smollm2", dtype=dtype).model
    with torch.inference_mode():
        logits = {}
        for name in ("sdpa", "longspan"):
            loaded.set_attn_implementation(name)
            logits[name] = loaded(ids).logits.float().log_softmax(-1)
        if dtype == "fp32":
            assert (logits["sdpa"] - logits["longspan"]).abs().max() < 1e-3
            return
        truth = load("smollm2", dtype="fp32").model(ids).logits.log_softmax(-1)
    errors = {name: (truth - x).abs().mean() for name, x in logits.items()}
    assert errors["longspan"] < 1.2 * errors["sdpa"]
