"""The native runner computes what transformers does: every family, odd sizes, both types, any cut of the text."""

from __future__ import annotations

from functools import cache

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel

from longspan.engine.llama import Llama, fits
from longspan.engine.plain import Plain, Runner
from longspan.kernels import native
from longspan.kernels.int8 import GROUP, Int8Linear, packed
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
}
OTHERS = {
    "gemma2": lambda: transformers.Gemma2Config(**{**WIDE, "head_dim": 32, "sliding_window": 24}),
    "gemma3": lambda: transformers.Gemma3TextConfig(**{**WIDE, "head_dim": 32, "sliding_window": 24}),
    "phi3": lambda: transformers.Phi3Config(**WIDE),
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


@pytest.mark.parametrize("family", ["llama, odd sizes", "qwen3", "mistral, window"])
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
    for family in ("llama, odd sizes", "mistral, window"):
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


def test_four_thousand_tokens() -> None:
    needs_native()
    model = model_of("llama, odd sizes")
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


# -- int8 --------------------------------------------------------------------------------------------------------------


def rounded(weight: Tensor) -> Tensor:
    """A matrix as int8 keeps it: in the comparison's own words, a scale for each row and 64 columns."""
    out = weight.detach().float().clone()
    for begin in range(0, out.shape[1], GROUP):
        part = out[:, begin : begin + GROUP]
        scale = part.abs().amax(dim=1, keepdim=True) / 127
        part.copy_((part / scale.clamp(min=1e-30)).round() * scale)
    return out


def test_packed_matrices_hold_the_rounded_ones() -> None:
    weight = torch.randn(37, 100)
    values, scales = packed(weight)
    back = (values.float() - 128).transpose(1, 2).reshape(48, 128)
    back = back * scales.transpose(1, 2).reshape(48, 2).repeat_interleave(GROUP, dim=1)
    torch.testing.assert_close(back[:37, :100], rounded(weight))
    assert not back[37:].any() and not back[:, 100:].any()


@pytest.mark.parametrize("family", ["llama, odd sizes", "llama, biases", "qwen3"])
def test_int8_steps_follow_a_model_with_rounded_weights(family: str) -> None:
    """The vectors are rounded too, by at most half a step of 127 a group; so near, not equal."""
    needs_native()
    model = model_of(family)
    rounded_model = transformers.AutoModelForCausalLM.from_config(model.config).eval()
    rounded_model.load_state_dict(model.state_dict())
    with torch.no_grad():
        for module in rounded_model.modules():
            if isinstance(module, nn.Linear):
                module.weight = nn.Parameter(rounded(module.weight))
    ids = tokens(12)
    with torch.inference_mode():
        wanted = rounded_model(ids).logits
    found = all_logits(Llama(model, int8=True), ids, list(range(1, 12)))
    error = (found - wanted).norm() / wanted.norm()
    assert float(error) < 0.03


@pytest.mark.parametrize("family", ["llama, biases", "qwen2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_int8_reads_long_texts_as_it_steps(family: str, dtype: torch.dtype) -> None:
    """At any cut: the same matrices, the same cache. Only the head is int8 in steps, the model's in long runs."""
    needs_native()
    model = model_of(family, dtype)
    ids = tokens(60)
    with torch.inference_mode():
        wanted = model_of(family)(ids).logits
    whole, *others = (all_logits(Llama(model, int8=True), ids, cuts) for cuts in ([], [40], [20, 40, *range(41, 60)]))
    assert float((whole - wanted).norm() / wanted.norm()) < 0.05
    for found in others:
        assert float((found - whole).norm() / whole.norm()) < (0.02 if dtype == torch.float32 else 0.05)


def test_many_vectors_times_int8_matrices() -> None:
    """One product for all tokens is what torch computes of the rounded numbers, for odd sizes, too."""
    needs_native()
    torch.manual_seed(0)
    for out, into, count in ((37, 100, 1), (64, 64, 50), (130, 72, 600)):
        linear, x = nn.Linear(into, out), torch.randn(count, into) * 3
        with torch.inference_mode():
            found = Int8Linear(linear)(x)
            wanted = rounded(x).double() @ rounded(linear.weight).double().T + linear.bias
        assert (
            float((found - wanted).abs().max()) < 0.02 * into**0.5 / 8
        )  # a number between two integers may go either way
        assert float((found - wanted).abs().median()) < 1e-4


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
