"""GGUF files to plain transformers folders: config, weights and tokenizer, converted once.

gguf's own reader parses the file and dequantises its tensors; what is here is the spelling: llama.cpp's names, its
order of the rotary halves, its metadata. Architectures: Llama (Mistral among them), Qwen2 and Qwen3.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from numpy.typing import NDArray
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from longspan.errors import LongspanError

# GGUF architecture -> (transformers model type, class, whether llama.cpp reordered the rows of Q and K for its rotary)
ARCHITECTURES = {
    "llama": ("llama", "LlamaForCausalLM", True),
    "qwen2": ("qwen2", "Qwen2ForCausalLM", False),
    "qwen3": ("qwen3", "Qwen3ForCausalLM", False),
}

_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}

# `tokenizer.ggml.pre` -> the pattern that cuts text into words before byte-pair merging (None: GPT-2's own).
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_PATTERNS: dict[str, str | None] = {
    "default": None,
    "gpt-2": None,
    "smollm": None,
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "qwen2": _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}"),
}
_DIGITS_ALONE = {"smollm"}  # these put every digit by itself before GPT-2's pattern sees the text
_CONTROL, _USER_DEFINED = 3, 4  # gguf token types

# What Llama 3.1 and later did to their rotary frequencies; GGUF keeps only the outcome, as `rope_freqs.weight`.
_LLAMA3_ROPE = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def convert(source: Path, target: Path) -> None:
    """Write `source` (a .gguf file) into the folder `target`: config.json, model.safetensors (bf16), tokenizer.

    Raises LongspanError for a file that cannot be converted, OSError where nothing can be written.
    """
    try:
        reader = GGUFReader(source)
        metadata = {name: field.contents() for name, field in reader.fields.items()}
    except OSError:
        raise
    except Exception as error:
        raise damaged(source, str(error)) from error
    architecture = metadata.get("general.architecture")
    if architecture not in ARCHITECTURES:
        raise LongspanError(
            f"{source} holds a model of architecture {architecture!r}; longspan reads GGUF files of "
            f"{', '.join(ARCHITECTURES)}. Use the model's folder of safetensors or its hub id instead."
        )
    try:
        config = model_config(metadata, reader)
        weights = read_weights(reader, config, architecture)
        tokenizer = read_tokenizer(metadata)
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise damaged(source, f"{type(error).__name__} {error}") from error
    target.mkdir(parents=True, exist_ok=True)
    (target / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    try:
        save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
        tokenizer.save_pretrained(str(target))
    except OSError:
        raise
    except Exception as error:  # both libraries have kinds of their own for a full disk
        raise OSError(str(error)) from error


def tokenizer_of(source: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a .gguf file, without its weights."""
    try:
        return read_tokenizer({name: field.contents() for name, field in GGUFReader(source).fields.items()})
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise damaged(source, f"{type(error).__name__} {error}") from error


def damaged(source: Path, detail: str) -> LongspanError:
    return LongspanError(f"{source} is not a whole GGUF file ({detail}). Download it again or name another model.")


def model_config(metadata: dict[str, Any], reader: GGUFReader) -> dict[str, Any]:
    """The transformers config, as the dictionary of config.json."""
    architecture = metadata["general.architecture"]
    model_type, class_name, _ = ARCHITECTURES[architecture]

    def get(key: str, default: Any = None) -> Any:
        return metadata.get(f"{architecture}.{key}", default)

    hidden, heads = get("embedding_length"), get("attention.head_count")
    kv_heads = get("attention.head_count_kv", heads)
    head_dim = get("attention.key_length") or get("rope.dimension_count") or hidden // heads
    names = {tensor.name for tensor in reader.tensors}
    return {
        "model_type": model_type,
        "architectures": [class_name],
        "dtype": "bfloat16",
        "hidden_size": hidden,
        "num_hidden_layers": get("block_count"),
        "intermediate_size": get("feed_forward_length"),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": get("attention.layer_norm_rms_epsilon"),
        "max_position_embeddings": get("context_length"),
        "vocab_size": len(metadata["tokenizer.ggml.tokens"]),
        "attention_bias": "blk.0.attn_q.bias" in names,
        "tie_word_embeddings": "output.weight" not in names,
        "rope_parameters": rope_parameters(metadata, reader, head_dim),
        "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": metadata.get("tokenizer.ggml.eos_token_id"),
        "pad_token_id": metadata.get("tokenizer.ggml.padding_token_id"),
    }


def rope_parameters(metadata: dict[str, Any], reader: GGUFReader, head_dim: int) -> dict[str, Any]:
    """Rotary base and scaling. Scaling that cannot be told for certain is an error, not a guess."""
    prefix = f"{metadata['general.architecture']}.rope."
    theta = metadata.get(prefix + "freq_base", 10000.0)
    kind = metadata.get(prefix + "scaling.type", "none")
    factors = next((tensor.data for tensor in reader.tensors if tensor.name == "rope_freqs.weight"), None)
    if factors is not None:
        llama3 = {"rope_type": "llama3", "rope_theta": theta, "factor": float(np.max(factors)), **_LLAMA3_ROPE}
        if not np.allclose(llama3_factors(llama3, head_dim), factors, rtol=1e-3):
            raise LongspanError(
                "This GGUF file scales its rotary positions in a way that longspan cannot convert; "
                "use the model's folder of safetensors or its hub id instead."
            )
        return llama3
    if kind in ("linear", "yarn"):
        parameters = {"rope_type": kind, "rope_theta": theta, "factor": metadata[prefix + "scaling.factor"]}
        if original := metadata.get(prefix + "scaling.original_context_length"):
            parameters["original_max_position_embeddings"] = original
        return parameters
    return {"rope_type": "default", "rope_theta": theta}


def llama3_factors(parameters: dict[str, Any], head_dim: int) -> NDArray[np.float64]:
    """What each of the head_dim / 2 rotary frequencies is divided by, after Llama 3.1."""
    wavelength = 2 * np.pi * parameters["rope_theta"] ** (np.arange(0, head_dim, 2) / head_dim)
    low, high = parameters["low_freq_factor"], parameters["high_freq_factor"]
    turns = parameters["original_max_position_embeddings"] / wavelength
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    factors: NDArray[np.float64] = 1 / ((1 - smooth) / parameters["factor"] + smooth)
    return factors


def read_weights(reader: GGUFReader, config: dict[str, Any], architecture: str) -> dict[str, torch.Tensor]:
    """All tensors in bf16 under transformers' names."""
    names = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    for layer in range(config["num_hidden_layers"]):
        names |= {f"blk.{layer}.{theirs}": f"model.layers.{layer}.{ours}" for theirs, ours in _LAYER_NAMES.items()}
    reorder = ARCHITECTURES[architecture][2]
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    weights: dict[str, torch.Tensor] = {}
    for tensor in reader.tensors:
        if tensor.name == "rope_freqs.weight":
            continue
        stem, _, suffix = tensor.name.rpartition(".")
        array = dequantize(tensor.data, tensor.tensor_type)
        part = stem.rpartition(".")[2]
        if reorder and part in heads:
            array = rotary_halves(array, heads[part])
        if not np.isfinite(array).all():
            raise ValueError(f"{tensor.name} holds numbers that are not finite")
        weights[f"{names[stem]}.{suffix}"] = torch.tensor(array, dtype=torch.bfloat16)
    return weights


def rotary_halves(array: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """From llama.cpp's interleaved pairs (heads * dim/2 * 2 rows) to transformers' two halves (heads * 2 * dim/2)."""
    split = array.reshape(heads, array.shape[0] // heads // 2, 2, *array.shape[1:])
    return split.swapaxes(1, 2).reshape(array.shape)


def read_tokenizer(metadata: dict[str, Any]) -> PreTrainedTokenizerFast:
    """The byte-level BPE tokenizer, with its control tokens and chat template."""
    pre = metadata.get("tokenizer.ggml.pre", "default")
    if metadata["tokenizer.ggml.model"] != "gpt2" or pre not in _PATTERNS:
        raise LongspanError(
            f"This GGUF file has a tokenizer ({metadata['tokenizer.ggml.model']}, {pre}) that longspan cannot rebuild "
            "exactly; use the model's folder of safetensors or its hub id instead."
        )
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ", 1)) for merge in metadata["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizer(pre)
    if pre == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    kinds = zip(tokens, metadata["tokenizer.ggml.token_type"], strict=True)
    tokenizer.add_tokens(
        [
            AddedToken(token, special=kind == _CONTROL, normalized=False)
            for token, kind in kinds
            if kind in (_CONTROL, _USER_DEFINED)
        ]
    )

    def named(role: str) -> str | None:
        index = metadata.get(f"tokenizer.ggml.{role}_token_id")
        return None if index is None else tokens[index]

    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=named("bos"),
        eos_token=named("eos"),
        unk_token=named("unknown"),
        pad_token=named("padding"),
        model_max_length=metadata[f"{metadata['general.architecture']}.context_length"],
        clean_up_tokenization_spaces=False,
    )
    if metadata.get("tokenizer.ggml.add_bos_token") and named("bos") is not None:
        bos = (str(named("bos")), int(metadata["tokenizer.ggml.bos_token_id"]))
        fast.backend_tokenizer.post_processor = TemplateProcessing(f"{bos[0]} $A", f"{bos[0]} $A $B:1", [bos])
    fast.chat_template = metadata.get("tokenizer.chat_template")
    return fast


def pre_tokenizer(name: str) -> pre_tokenizers.PreTokenizer:
    pattern = _PATTERNS[name]
    if pattern is not None:
        return pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if name in _DIGITS_ALONE:
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), words])
    return words
