"""The native runner computes what transformers does: every family, odd sizes, both types, any cut of the text."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
import transformers
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import PreTrainedModel

from longspan.engine.llama import Llama, fits
from longspan.engine.plain import Plain, Runner
from longspan.kernels import native
from longspan.kernels.quantized import GROUP, QuantizedLinear, Weights, packed_int4, packed_int8
from longspan.models import LoadedModel

VOCABULARY = 131
COMMON = {
    "vocab_size": VOCABULARY,
    "num_hidden_layers": 3,
    "max_position_embeddings": 8192,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
ODD = {**COMMON, "hidden_size": 72, "intermediate_size": 100, "num_attention_heads": 6, "num_key_value_heads": 2}
WIDE = {**COMMON, "hidden_size": 192, "intermediate_size": 160, "num_attention_heads": 3, "num_key_value_heads": 3}
FITTING = {
    "llama, odd sizes": lambda: transformers.LlamaConfig(**ODD, rope_theta=5e5, tie_word_embeddings=True),
    "llama, biases": lambda: transformers.LlamaConfig(**WIDE, attention_bias=True, mlp_bias=True),
    "llama, heads of 80": lambda: transformers.LlamaConfig(**{**ODD, "head_dim": 80}),
    "llama, scaled positions": lambda: transformers.LlamaConfig(
        **WIDE,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 1e4,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    ),
    "mistral, window": lambda: transformers.MistralConfig(**WIDE, sliding_window=24),
    "qwen2": lambda: transformers.Qwen2Config(**ODD),
    "qwen3": lambda: transformers.Qwen3Config(**{**ODD, "head_dim": 128}),
    "smollm3": lambda: transformers.SmolLM3Config(**{**WIDE, "num_hidden_layers": 4}, no_rope_layer_interval=2),
    "phi3": lambda: transformers.Phi3Config(**WIDE),
    "phi3, window": lambda: transformers.Phi3Config(
        **ODD,
        sliding_window=24,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
    ),
    "gemma2": lambda: transformers.Gemma2Config(
        **{**WIDE, "head_dim": 32, "sliding_window": 24, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}
    ),
    "gemma3": lambda: transformers.Gemma3TextConfig(
        **{**ODD, "num_hidden_layers": 4, "head_dim": 32, "sliding_window": 24},
        layer_types=["sliding_attention", "full_attention"] * 2,
        rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e3},
            "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e6},
        },
    ),
}
OTHERS = {
    "gpt2": lambda: transformers.GPT2Config(vocab_size=VOCABULARY, n_embd=64, n_layer=2, n_head=4, n_positions=512),
}


@cache
def model_of(family: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    torch.manual_seed(11)
    config = (FITTING | OTHERS)[family]()
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
            elif "norm" in name:
                parameter.add_(torch.randn_like(parameter) / 4)
            else:
                parameter.normal_()
    return model.to(dtype).eval()


def needs_native() -> None:
    if native.level() is None:
        pytest.skip("the kernels are not built")


def tokens(count: int, rows: int = 1, seed: int = 0) -> Tensor:
    return torch.randint(3, VOCABULARY, (rows, count), generator=torch.Generator().manual_seed(seed))


def close(found: Tensor, wanted: Tensor, dtype: torch.dtype = torch.float32) -> None:
    """Within what the order of additions does (fp32), or within bf16's rounding over a few layers."""
    scale = float(wanted.float().abs().max())
    allowed = 2e-5 if dtype == torch.float32 else 6e-2
    assert float((found.float() - wanted.float()).abs().max()) <= allowed * scale


@torch.inference_mode()
def all_logits(runner: Runner, ids: Tensor, cuts: list[int]) -> Tensor:
    """The scores of every position, the text given in pieces that end at `cuts`."""
    held = runner.new_cache(4)  # too small on purpose: it grows
    out = []
    for begin, end in zip([0, *cuts], [*cuts, ids.shape[1]], strict=True):
        if begin < end:
            out.append(runner.run(ids[:, begin:end], held, keep=end - begin))
    return torch.cat(out, dim=1)


@pytest.mark.parametrize("family", FITTING)
@pytest.mark.parametrize("cuts", [[], [1, 2, 3], [30, 31, 47], [5, 20, 36, 37]])
def test_every_cut_of_a_text_gives_transformers_scores(family: str, cuts: list[int]) -> None:
    needs_native()
    model = model_of(family)
    assert fits(model)
    ids = tokens(50, rows=2)
    with torch.inference_mode():
        wanted = model(ids).logits
    close(all_logits(Llama(model), ids, cuts), wanted)


@pytest.mark.parametrize("family", ["llama, odd sizes", "qwen3", "mistral, window", "phi3", "gemma2", "gemma3"])
def test_bf16_is_as_near_to_fp32_as_transformers_is(family: str) -> None:
    needs_native()
    ids = tokens(40)
    with torch.inference_mode():
        exact = model_of(family)(ids).logits
    model = model_of(family, torch.bfloat16)
    with torch.inference_mode():
        theirs = model(ids).logits.float()
    for cuts in ([], list(range(20, 40))):
        ours = all_logits(Llama(model), ids, cuts).float()
        assert float((ours - exact).abs().mean()) <= 1.25 * float((theirs - exact).abs().mean()) + 1e-3


def test_rows_that_begin_at_different_columns() -> None:
    needs_native()
    for family in ("llama, odd sizes", "mistral, window", "gemma2", "gemma3"):
        model = model_of(family)
        lengths, width = [40, 33, 1], 40
        texts = [tokens(length, seed=length)[0] for length in lengths]
        ids = torch.zeros(3, width, dtype=torch.long)
        for row, text in enumerate(texts):
            ids[row, width - len(text) :] = text
        starts = [width - length for length in lengths]
        runner = Llama(model)
        with torch.inference_mode():
            held = runner.new_cache(width + 4)
            first = runner.run(ids, held, starts=starts)[:, -1]
            following = tokens(1, rows=3, seed=5)
            second = runner.run(following, held, starts=starts)[:, -1]
            for row, text in enumerate(texts):
                close(first[row], model(text[None]).logits[0, -1])
                close(second[row], model(torch.cat([text, following[row]])[None]).logits[0, -1])


@pytest.mark.parametrize("family", FITTING)
def test_four_thousand_tokens(family: str) -> None:
    needs_native()
    model = model_of(family)
    ids = tokens(4000)
    with torch.inference_mode():
        wanted = model(ids, logits_to_keep=1).logits[0, -1]
        runner = Llama(model)
        held = runner.new_cache(4000)
        for begin in range(0, 3990, 570):
            runner.run(ids[:, begin : begin + 570], held)
        close(runner.run(ids[:, 3990:], held)[0, -1], wanted)


def test_what_does_not_fit_is_left_to_transformers() -> None:
    for family in OTHERS:
        assert not fits(model_of(family))
    if native.level() is not None:
        adapted = model_of("qwen2", torch.float32)
        assert fits(adapted)
        dynamic = transformers.LlamaConfig(
            **ODD, rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
        )
        assert not fits(transformers.AutoModelForCausalLM.from_config(dynamic))


@pytest.mark.parametrize("family", [*FITTING, *OTHERS])
def test_the_plain_path_takes_every_family(family: str) -> None:
    model = model_of(family)
    ids = tokens(50, rows=1)
    with torch.inference_mode():
        wanted = model(ids).logits
    close(all_logits(Plain(model), ids, [20, 21, 22]), wanted)


# -- int8 and int4 -----------------------------------------------------------------------------------------------------


def rounded(weight: Tensor, weights: Weights = "int8") -> Tensor:
    """A matrix as int8 keeps it: in the comparison's own words, a scale for each row and 64 columns; or as int4 does,
    read from what it packs."""
    if weights == "int4":
        return unpacked_int4(weight)
    out = weight.detach().float().clone()
    for begin in range(0, out.shape[1], GROUP["int8"]):
        part = out[:, begin : begin + GROUP["int8"]]
        scale = part.abs().amax(dim=1, keepdim=True) / 127
        part.copy_((part / scale.clamp(min=1e-30)).round() * scale)
    return out


def unpacked_int4(weight: Tensor) -> Tensor:
    values, both = packed_int4(weight)
    blocks, groups = values.shape[:2]
    scale, least = (
        x.reshape(blocks, groups, 2, 16) for x in both.view(torch.float16).float().unflatten(-1, (16, 2)).unbind(-1)
    )
    out = torch.empty(blocks * 16, groups * 64)
    for half, part in enumerate((values & 15, values >> 4)):
        for column in range(32):
            found = part[:, :, column // 4, :, column % 4] * scale[:, :, half] + least[:, :, half]
            out.view(blocks, 16, -1)[:, :, half * 32 + column :: 64] = found.transpose(1, 2)
    return out[: weight.shape[0], : weight.shape[1]]


def test_packed_matrices_hold_the_rounded_ones() -> None:
    weight = torch.randn(37, 100)
    values, scales = packed_int8(weight)
    back = (values.float() - 128).transpose(1, 2).reshape(48, 128)
    back = back * scales.transpose(1, 2).reshape(48, 2).repeat_interleave(GROUP["int8"], dim=1)
    torch.testing.assert_close(back[:37, :100], rounded(weight))
    assert not back[37:].any() and not back[:, 100:].any()


@given(
    st.integers(1, 40), st.integers(1, 150), st.sampled_from([1e-4, 1.0, 300.0]), st.booleans(), st.integers(0, 2**31)
)
def test_int4_is_within_half_a_step_of_any_matrix(out: int, into: int, size: float, shifted: bool, seed: int) -> None:
    """A step is a fifteenth of what a group spans; fp16 rounds it and where it begins."""
    generator = torch.Generator().manual_seed(seed)
    weight = size * (torch.randn(out, into, generator=generator) + 3 * shifted)
    error = (unpacked_int4(weight) - weight).abs()
    for begin in range(0, into, GROUP["int4"]):
        part = weight[:, begin : begin + GROUP["int4"]]
        step = (part.amax(1) - part.amin(1)) / 15
        # The best fit of all may leave one of them, the outermost, a little farther.
        assert (error[:, begin : begin + GROUP["int4"]].amax(1) <= step + 2e-3 * part.abs().amax(1) + 1e-6).all()
        assert (
            error[:, begin : begin + GROUP["int4"]].square().mean(1).sqrt()
            <= 0.5 * step + 1e-3 * part.abs().amax(1) + 1e-6
        ).all()


@given(st.integers(1, 3), st.integers(1, 4), st.integers(0, 2**31))
def test_int4_keeps_what_was_int4(blocks: int, groups: int, seed: int) -> None:
    """Q4_1's numbers, as a GGUF file has them, come back to the last bit."""
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(16 * blocks, 64 * groups)).astype(np.float32)
    told = torch.from_numpy(dequantize(quantize(weight, GGMLQuantizationType.Q4_1), GGMLQuantizationType.Q4_1).copy())
    assert torch.equal(unpacked_int4(told), told)


@pytest.mark.parametrize("family", ["llama, odd sizes", "llama, biases", "qwen3"])
@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_steps_follow_a_model_with_rounded_weights(family: str, weights: Weights) -> None:
    """The vectors are rounded too, by at most half a step of 127 a group; so near, not equal."""
    needs_native()
    model = model_of(family)
    rounded_model = transformers.AutoModelForCausalLM.from_config(model.config).eval()
    rounded_model.load_state_dict(model.state_dict())
    with torch.no_grad():
        for name, module in rounded_model.named_modules():
            if isinstance(module, nn.Linear):
                module.weight = nn.Parameter(rounded(module.weight, "int8" if name == "lm_head" else weights))
    ids = tokens(12)
    with torch.inference_mode():
        wanted = rounded_model(ids).logits
    found = all_logits(Llama(model, weights=weights), ids, list(range(1, 12)))
    error = (found - wanted).norm() / wanted.norm()
    assert float(error) < 0.03


@pytest.mark.parametrize("family", ["llama, biases", "qwen2", "phi3", "gemma3"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("weights", "far"), [("int8", 0.05), ("int4", 0.4)])
def test_quantized_reads_long_texts_as_it_steps(family: str, dtype: torch.dtype, weights: Weights, far: float) -> None:
    """At any cut: the same matrices, the same cache. Only the head is int8 in steps, the model's in long runs."""
    needs_native()
    model = model_of(family, dtype)
    ids = tokens(60)
    with torch.inference_mode():
        wanted = model_of(family)(ids).logits
    cuts = ([], [40], [20, 40, *range(41, 60)])
    whole, *others = (all_logits(Llama(model, weights=weights), ids, cut) for cut in cuts)
    assert float((whole - wanted).norm() / wanted.norm()) < far
    for found in others:
        assert float((found - whole).norm() / whole.norm()) < (0.02 if dtype == torch.float32 else 0.05)


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_many_vectors_times_quantized_matrices(weights: Weights) -> None:
    """One product for all tokens is what torch computes of the rounded numbers, for odd sizes, too; and each of them
    gets the very numbers that it would have got alone."""
    needs_native()
    torch.manual_seed(0)
    for out, into, count in ((37, 100, 1), (64, 64, 50), (130, 72, 600), (40, 1600, 20)):
        linear, x = nn.Linear(into, out), torch.randn(count, into) * 3
        many = QuantizedLinear(linear, weights)
        with torch.inference_mode():
            found = many(x)
            vectors = torch.cat([rounded(part) for part in x.split(GROUP[weights], dim=1)], dim=1)
            wanted = vectors.double() @ rounded(linear.weight, weights).double().T + linear.bias
            # a number between two integers may go either way
            assert float((found - wanted).abs().max()) < 0.02 * into**0.5 / 8
            assert float((found - wanted).abs().median()) < 1e-4
            assert torch.equal(found, torch.cat([many(row[None]) for row in x]))


def test_smollm2_decodes_greedily_as_transformers_does(smollm2: LoadedModel) -> None:
    needs_native()
    model = smollm2.model
    ids = torch.tensor([smollm2.tokenizer("The history of the mill begins in the year")["input_ids"]])
    theirs = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=48, do_sample=False)[0].tolist()
    runner: Runner = Llama(model) if fits(model) else Plain(model)
    with torch.inference_mode():
        held = runner.new_cache(128)
        ours = ids[0].tolist()
        scores = runner.run(ids, held)
        while len(ours) < len(theirs):
            ours.append(int(scores[0, -1].argmax()))
            scores = runner.run(torch.tensor([[ours[-1]]]), held)
    assert ours == theirs
