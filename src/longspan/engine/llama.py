"""Models of Llama's build on the native kernels: Llama, Mistral, Qwen2, Qwen3, SmolLM2, SmolLM3.

RMSNorm, attention with rotary positions, SwiGLU: a few tokens go through all layers in one call of `native/step.cpp`,
which reads the weights where torch keeps them; many go layer by layer through torch's products and the native
attention. Both write the same cache. The model itself is not changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import silu
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from longspan.engine.cache import BufferLayer, Int8Layer
from longspan.kernels import attention, native
from longspan.kernels.quantized import QuantizedMatrix, QuantizedProduct, Weights

FAMILIES = {"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "SmolLM3ForCausalLM"}
STEP_TOKENS = 16  # as many go through the native step; its products take one vector after the other
PRODUCTS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def fits(model: PreTrainedModel) -> bool:
    """Whether `Llama` computes what this model does, on this machine."""
    if type(model).__name__ not in FAMILIES or native.level() is None:
        return False
    config = model.config
    parameters = list(model.parameters())
    linears = [model.lm_head, *(layer.get_submodule(name) for layer in model.model.layers for name in paths(layer))]
    return (
        all(p.device.type == "cpu" and p.dtype == model.dtype and p.is_contiguous() for p in parameters)
        and model.dtype in (torch.float32, torch.bfloat16)
        and all(type(linear) is nn.Linear for linear in linears)  # not quantized, no adapters
        and config.hidden_act == "silu"
        and head_dim(config) <= native.MAX_DIM
        # These change their angles with the length of the text.
        and config.rope_parameters["rope_type"] not in ("dynamic", "longrope")
    )


def paths(layer: nn.Module) -> list[str]:
    return [f"self_attn.{name}" if hasattr(layer.self_attn, name) else f"mlp.{name}" for name in PRODUCTS]


def head_dim(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def window_of(layer: nn.Module, config: Any) -> int | None:
    """How many keys a layer's queries see, or None for all."""
    if hasattr(layer.self_attn, "sliding_window"):
        return cast("int | None", layer.self_attn.sliding_window)
    return getattr(config, "sliding_window", None) if type(layer).__name__ == "MistralDecoderLayer" else None


class Llama:
    """A `Runner`. `weights` runs on copies of the layers' matrices in int8 or int4 (`kernels.quantized`), and keeps
    keys and values in int8, with one scale for each. The vectors that meet them are rounded to int8. The scores are
    near the model's, not equal. The head of int4 steps is int8, as GGUF files keep theirs in more bits, too.
    """

    plain = True

    def __init__(self, model: PreTrainedModel, *, weights: Weights | None = None) -> None:
        self.model = model
        config = model.config
        self.layers = list(model.model.layers)
        self.dim = head_dim(config)
        self.windows = [window_of(layer, config) for layer in self.layers]
        self.rotates = [bool(getattr(layer.self_attn, "use_rope", True)) for layer in self.layers]
        self.weights = weights
        self.cached = torch.int8 if weights else model.dtype  # type of keys and values
        self._kept: list[
            Tensor | QuantizedMatrix
        ] = []  # whatever the addresses below point to and the model does not own
        self._cos = self._sin = torch.empty(0)
        self.products: list[Products] = []
        rows = []
        for layer, window, rotates in zip(self.layers, self.windows, self.rotates, strict=True):
            linears = [layer.get_submodule(name) for name in paths(layer)]
            natives = [self._linear(linear, weights) for linear in linears]
            self.products.append(Products(linears, natives if weights else None))
            row = [number for linear in natives for number in linear]
            for norm in (
                layer.input_layernorm,
                layer.post_attention_layernorm,
                getattr(layer.self_attn, "q_norm", None),
                getattr(layer.self_attn, "k_norm", None),
            ):
                row.append(0 if norm is None else self._float(norm.weight))
            rows.append([*row, window or 0, int(rotates)])
        self._blocks = torch.tensor(rows, dtype=torch.int64)
        self._head = torch.tensor(self._linear(model.lm_head, "int8" if weights else None), dtype=torch.int64)
        self._norm = self._float(model.model.norm.weight)

    @property
    def nbytes(self) -> int:
        """Bytes held besides the model's own."""
        return sum(kept.nbytes for kept in self._kept)

    def release(self) -> None:
        """Let go of the layers' own matrices, where steps and long runs read packed copies of them."""
        for layer in self.layers if self.weights else ():
            for name in paths(layer):
                layer.get_submodule(name).weight = nn.Parameter(torch.empty(0), requires_grad=False)

    @property
    def token_bytes(self) -> int:
        """Bytes of the keys and values of one token, with their scales."""
        return len(self.layers) * sum(x.nbytes for x in self._empty(1, 1))

    def _empty(self, batch: int, tokens: int) -> tuple[Tensor, ...]:
        """What a layer's cache holds of so many tokens."""
        shape = (batch, self.model.config.num_key_value_heads, tokens)
        held = (torch.empty(*shape, self.dim, dtype=self.cached),) * 2
        return (*held, *(torch.empty(shape),) * 2) if self.weights else held

    def new_cache(self, capacity: int) -> Cache:
        return Cache(layers=[(Int8Layer if self.weights else BufferLayer)(capacity) for _ in self.layers])

    def run(self, ids: Tensor, cache: Cache, *, starts: Sequence[int] | None = None, keep: int = 1) -> Tensor:
        if starts is not None and not any(starts):
            starts = None
        self._reach(cache.get_seq_length() + ids.shape[1])
        begins = None if starts is None else torch.tensor(starts)
        if ids.numel() <= STEP_TOKENS:
            return self._step(ids, cache, begins, keep)
        return self._prefill(ids, cache, begins, keep)

    def _step(self, ids: Tensor, cache: Cache, starts: Tensor | None, keep: int) -> Tensor:
        """All layers in one native call."""
        config = self.model.config
        batch, tokens = ids.shape
        past = cache.get_seq_length()
        table, like = [], self._empty(batch, 0)
        for layer in cache.layers:
            keys, values, *scales = layer.reserve(tokens, like)
            row = [keys.data_ptr(), values.data_ptr(), *keys.stride()[:3]]
            row += [*(x.data_ptr() for x in scales), *scales[0].stride()[:2]] if scales else [0] * 4
            table.append(row)
        cached = torch.tensor(table, dtype=torch.int64)
        ids = ids.contiguous()
        logits = torch.empty(batch, keep, self.model.lm_head.out_features, dtype=torch.float32)
        native.step(
            (native.TYPES[self.model.dtype], native.TYPES[self.cached]),
            (
                self._blocks.data_ptr(),
                self._norm,
                self.model.model.embed_tokens.weight.data_ptr(),
                self._cos.data_ptr(),
                self._sin.data_ptr(),
            ),
            (
                len(self.layers),
                config.hidden_size,
                config.num_attention_heads,
                config.num_key_value_heads,
                self.dim,
                config.intermediate_size,
                self._cos.shape[1],
            ),
            config.rms_norm_eps,
            self.layers[0].self_attn.scaling,
            self._head.data_ptr(),
            cached.data_ptr(),
            (ids.data_ptr(), 0 if starts is None else starts.data_ptr(), logits.data_ptr()),
            (batch, tokens, past, keep),
        )
        return logits

    def _prefill(self, ids: Tensor, cache: Cache, starts: Tensor | None, keep: int) -> Tensor:
        """Layer by layer: the model's own modules, and the native attention."""
        batch, tokens = ids.shape
        past = cache.get_seq_length()
        columns = torch.arange(past, past + tokens)
        positions = (columns[None] - (0 if starts is None else starts[:, None])).clamp(min=0)
        dtype = self.model.dtype
        cos, sin = self._cos[positions].to(dtype)[:, None], self._sin[positions].to(dtype)[:, None]
        x = self.model.model.embed_tokens(ids)
        layers = zip(self.layers, self.products, self.windows, self.rotates, cache.layers, strict=True)
        for layer, products, window, rotates, held in layers:
            own = layer.self_attn
            q, k, v = (y.view(batch, tokens, -1, self.dim) for y in products.qkv(layer.input_layernorm(x)))
            if hasattr(own, "q_norm"):
                q, k = own.q_norm(q), own.k_norm(k)
            q, k = q.transpose(1, 2), k.transpose(1, 2)
            if rotates:
                q, k = rotated(q, cos, sin), rotated(k, cos, sin)
            keys, values, *scales = held.update(k, v.transpose(1, 2))
            rounding = dict(zip(("k_scale", "v_scale"), scales, strict=False))
            out, _ = attention(q, keys, values, **rounding, window=window, scale=own.scaling, starts=starts)
            x = x + products.o(out.transpose(1, 2).reshape(batch, tokens, -1))[0]
            gate, up = products.gate_up(layer.post_attention_layernorm(x))
            x = x + products.down(silu(gate).mul_(up))[0]
        logits: Tensor = self.model.lm_head(self.model.model.norm(x[:, -keep:]))
        return logits

    def _reach(self, positions: int) -> None:
        """Make the angles' table long enough; cos and sin are rounded as the model rounds them."""
        if positions <= len(self._cos):
            return
        ids = torch.arange(max(positions, 2 * len(self._cos), 1024))[None]
        cos, sin = self.model.model.rotary_emb(torch.empty(1, dtype=self.model.dtype), ids)
        self._cos, self._sin = cos[0].float().contiguous(), sin[0].float().contiguous()

    def _linear(self, linear: nn.Linear, weights: Weights | None) -> list[int]:
        """The native `Linear`: addresses of weights, scales and bias, the shape and the type."""
        if weights:
            matrix = QuantizedMatrix(linear, weights)
            self._kept.append(matrix)
            return matrix.row
        bias = 0 if linear.bias is None else self._float(linear.bias)
        return [linear.weight.data_ptr(), 0, bias, *linear.weight.shape, native.TYPES[self.model.dtype]]

    def _float(self, x: Tensor) -> int:
        x = x.detach().float().contiguous()
        self._kept.append(x)
        return x.data_ptr()


Product = Callable[[Tensor], Sequence[Tensor]]


class Products:
    """The matrices of a layer for many vectors at once, those over the same vectors together: torch's own products, or
    those of packed ones."""

    def __init__(self, linears: Sequence[nn.Module], rows: Sequence[list[int]] | None) -> None:
        def make(part: slice) -> Product:
            return plain_product(linears[part]) if rows is None else QuantizedProduct(rows[part])

        self.qkv, self.o, self.gate_up, self.down = map(make, (slice(0, 3), slice(3, 4), slice(4, 6), slice(6, 7)))


def plain_product(linears: Sequence[nn.Module]) -> Product:
    """The modules' own products."""
    return lambda x: [linear(x) for linear in linears]


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin
