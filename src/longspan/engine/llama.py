"""Models of Llama's build on the native kernels: Llama, Mistral, Qwen2/3, SmolLM2/3, Phi-3, Gemma 2/3.

RMSNorm, attention with rotary positions, SwiGLU; in Phi-3 the matrices over the same vectors are one, and Gemma has
GeGLU, norms behind attention and MLP, too, scaled embeddings, and caps of scores and logits. A few tokens go through
all layers in one call of `native/step.cpp`, which reads the weights where torch keeps them; many go layer by layer
through torch's products and the native attention. Both write the same cache. The model itself is not changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, silu
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from longspan.engine.cache import BufferLayer, Int8Layer
from longspan.kernels import attention, native
from longspan.kernels.quantized import QuantizedMatrix, QuantizedProduct, Weights

FAMILIES = {
    f"{name}ForCausalLM" for name in ("Llama", "Mistral", "Qwen2", "Qwen3", "SmolLM3", "Phi3", "Gemma2", "Gemma3")
}
ANGLES = slice(-3, -1)  # where the native `Block` has the addresses of cos and sin
STEP_TOKENS = 16  # as many go through the native step; its products take one vector after the other
PRODUCTS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
JOINED = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")  # Phi-3's
OWN_WINDOW = {"MistralDecoderLayer", "Phi3DecoderLayer"}  # all their layers have the configuration's
SILU, GELU = "silu", "gelu_pytorch_tanh"


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
        and activation(config) in (SILU, GELU)
        and not getattr(config, "use_bidirectional_attention", False)
        and head_dim(config) <= native.MAX_DIM
        # These change their angles with the length of the text.
        and not any(each["rope_type"] in ("dynamic", "longrope") for each in rotary_parameters(config))
    )


def paths(layer: nn.Module) -> list[str]:
    """The names of a layer's matrices."""
    names = PRODUCTS if hasattr(layer.self_attn, "q_proj") else JOINED
    return [f"self_attn.{name}" if hasattr(layer.self_attn, name) else f"mlp.{name}" for name in names]


def matrices(layer: nn.Module, config: Any) -> list[nn.Linear]:
    """A layer's seven matrices, in the order of `PRODUCTS`; of joined ones their parts, where they lie."""
    linears = [cast(nn.Linear, layer.get_submodule(name)) for name in paths(layer)]
    if len(linears) == len(PRODUCTS):
        return linears
    qkv, o, gate_up, down = linears
    queries, keys = (heads * head_dim(config) for heads in (config.num_attention_heads, config.num_key_value_heads))
    return [*parts(qkv, [queries, keys, keys]), o, *parts(gate_up, [config.intermediate_size] * 2), down]


def parts(linear: nn.Linear, sizes: list[int]) -> list[nn.Linear]:
    """Linear layers of so many rows each, with views of a larger one's weights."""
    made = []
    for weight in torch.split(linear.weight.detach(), sizes):
        part = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
        part.weight = nn.Parameter(weight, requires_grad=False)
        made.append(part)
    return made


def activation(config: Any) -> str:
    return str(getattr(config, "hidden_activation", None) or config.hidden_act)


def rotary_parameters(config: Any) -> list[dict[str, Any]]:
    """One set for all layers, or one for each type of layer."""
    given = config.rope_parameters
    return [given] if "rope_type" in given else [each for each in given.values() if each]


def norms_of(layer: nn.Module) -> tuple[nn.Module, nn.Module | None, nn.Module, nn.Module | None]:
    """Before attention and behind it, before the MLP and behind it."""
    own: Any = layer
    if hasattr(layer, "pre_feedforward_layernorm"):
        return (
            own.input_layernorm,
            own.post_attention_layernorm,
            own.pre_feedforward_layernorm,
            own.post_feedforward_layernorm,
        )
    return own.input_layernorm, None, own.post_attention_layernorm, None


def head_dim(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def window_of(layer: nn.Module, config: Any) -> int | None:
    """How many keys a layer's queries see, or None for all."""
    if hasattr(layer.self_attn, "sliding_window"):
        return cast("int | None", layer.self_attn.sliding_window)
    return getattr(config, "sliding_window", None) if type(layer).__name__ in OWN_WINDOW else None


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
        # By which angles a layer rotates, if at all: types of layers may have their own (Gemma 3).
        self._typed = "rope_type" not in config.rope_parameters
        self.angles = [
            (str(layer.self_attn.layer_type) if self._typed else "all")
            if getattr(layer.self_attn, "use_rope", True)
            else None
            for layer in self.layers
        ]
        family = type(model).__name__
        self._gelu = activation(config) == GELU
        self._norm_from = 1 if family.startswith("Gemma") else 0  # Gemma's norms add it to their weights
        # Gemma 3's attention has the setting and does not use it.
        self._softcap = config.attn_logit_softcapping if family == "Gemma2ForCausalLM" else None
        self._logit_softcap = getattr(config, "final_logit_softcapping", None)
        scale = getattr(model.model.embed_tokens, "embed_scale", None)
        self._embedding_scale = 1.0 if scale is None else float(scale.to(model.dtype))
        self.weights = weights
        self.cached = torch.int8 if weights else model.dtype  # type of keys and values
        self._kept: list[
            Tensor | QuantizedMatrix
        ] = []  # whatever the addresses below point to and the model does not own
        self._positions = self._rotary = 0
        self._tables: dict[str, tuple[Tensor, Tensor]] = {}  # cos and sin [positions, rotary] of each set of angles
        self.products: list[Products] = []
        rows = []
        for layer, window in zip(self.layers, self.windows, strict=True):
            linears = matrices(layer, config)
            natives = [self._linear(linear, weights) for linear in linears]
            self.products.append(Products(linears, natives if weights else None))
            row = [number for linear in natives for number in linear]
            before_attention, after_attention, before_mlp, after_mlp = norms_of(layer)
            heads = (getattr(layer.self_attn, name, None) for name in ("q_norm", "k_norm"))
            row += map(self._norm_of, (before_attention, before_mlp, after_attention, after_mlp, *heads))
            rows.append([*row, 0, 0, window or 0])  # `_reach` fills ANGLES in
        self._blocks = torch.tensor(rows, dtype=torch.int64)
        self._head = torch.tensor(self._linear(model.lm_head, "int8" if weights else None), dtype=torch.int64)
        self._norm = self._norm_of(model.model.norm)

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
            (self._blocks.data_ptr(), self._norm, self.model.model.embed_tokens.weight.data_ptr()),
            (
                len(self.layers),
                config.hidden_size,
                config.num_attention_heads,
                config.num_key_value_heads,
                self.dim,
                config.intermediate_size,
                self._rotary,
                int(self._gelu),
            ),
            (config.rms_norm_eps, self.layers[0].self_attn.scaling, self._softcap or 0.0, self._embedding_scale),
            self._head.data_ptr(),
            cached.data_ptr(),
            (ids.data_ptr(), 0 if starts is None else starts.data_ptr(), logits.data_ptr()),
            (batch, tokens, past, keep),
        )
        return self._capped(logits)

    def _prefill(self, ids: Tensor, cache: Cache, starts: Tensor | None, keep: int) -> Tensor:
        """Layer by layer: the model's own modules, and the native attention."""
        batch, tokens = ids.shape
        past = cache.get_seq_length()
        columns = torch.arange(past, past + tokens)
        positions = (columns[None] - (0 if starts is None else starts[:, None])).clamp(min=0)
        dtype = self.model.dtype
        angles = {
            kind: (cos[positions].to(dtype)[:, None], sin[positions].to(dtype)[:, None])
            for kind, (cos, sin) in self._tables.items()
        }
        x = self.model.model.embed_tokens(ids)
        layers = zip(self.layers, self.products, self.windows, self.angles, cache.layers, strict=True)
        for layer, products, window, kind, held in layers:
            own = layer.self_attn
            before_attention, after_attention, before_mlp, after_mlp = norms_of(layer)
            q, k, v = (y.view(batch, tokens, -1, self.dim) for y in products.qkv(before_attention(x)))
            if hasattr(own, "q_norm"):
                q, k = own.q_norm(q), own.k_norm(k)
            q, k = q.transpose(1, 2), k.transpose(1, 2)
            if kind is not None:
                q, k = rotated(q, *angles[kind]), rotated(k, *angles[kind])
            keys, values, *scales = held.update(k, v.transpose(1, 2))
            rounding = dict(zip(("k_scale", "v_scale"), scales, strict=False))
            out, _ = attention(
                q, keys, values, **rounding, window=window, scale=own.scaling, softcap=self._softcap, starts=starts
            )
            out = products.o(out.transpose(1, 2).reshape(batch, tokens, -1))[0]
            x = x + (out if after_attention is None else after_attention(out))
            gate, up = products.gate_up(before_mlp(x))
            gate = gelu(gate, approximate="tanh") if self._gelu else silu(gate)
            out = products.down(gate.mul_(up))[0]
            x = x + (out if after_mlp is None else after_mlp(out))
        return self._capped(self.model.lm_head(self.model.model.norm(x[:, -keep:])))

    def _capped(self, logits: Tensor) -> Tensor:
        cap = self._logit_softcap
        return logits if cap is None else logits.div_(cap).tanh_().mul_(cap)

    def _reach(self, positions: int) -> None:
        """Make the angles' tables long enough; cos and sin are rounded as the model rounds them."""
        if positions <= self._positions:
            return
        self._positions = max(positions, 2 * self._positions, 1024)
        ids, like = torch.arange(self._positions)[None], torch.empty(1, dtype=self.model.dtype)
        for kind in {kind for kind in self.angles if kind is not None}:
            told = (kind,) if self._typed else ()
            cos, sin = self.model.model.rotary_emb(like, ids, *told)
            self._tables[kind] = cos[0].float().contiguous(), sin[0].float().contiguous()
            self._rotary = cos.shape[-1]
        for row, used in zip(self._blocks, self.angles, strict=True):
            if used is not None:
                row[ANGLES] = torch.tensor([table.data_ptr() for table in self._tables[used]])

    def _linear(self, linear: nn.Linear, weights: Weights | None) -> list[int]:
        """The native `Linear`: addresses of weights, scales and bias, the shape and the type."""
        if weights:
            matrix = QuantizedMatrix(linear, weights)
            self._kept.append(matrix)
            return matrix.row
        bias = 0 if linear.bias is None else self._float(linear.bias)
        return [linear.weight.data_ptr(), 0, bias, *linear.weight.shape, native.TYPES[self.model.dtype]]

    def _norm_of(self, norm: nn.Module | None) -> int:
        return 0 if norm is None else self._float(cast(Tensor, norm.weight).float() + self._norm_from)

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
    """Heads x [..., dim], of which the first numbers, as many as have angles [..., rotary], are turned in halves."""
    half = cos.shape[-1] // 2
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    turned = (
        first * cos[..., :half] - second * sin[..., :half],
        second * cos[..., half:] + first * sin[..., half:],
    )
    return torch.cat((*turned, rest), dim=-1)
