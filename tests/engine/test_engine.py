"""Generation equals transformers' own, whatever the chunks, the batch and what was cached."""

from __future__ import annotations

import functools
import itertools
import math
import random
import threading
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.cache_utils import Cache

from longspan.engine import Cancelled, Engine, Request, Sampling, prefixes
from longspan.engine.cache import BufferLayer
from longspan.engine.engine import batches
from longspan.errors import LongspanError
from longspan.models import LoadedModel, encode, render

NO_REUSE = {"prefix_cache_bytes": 0}


def prompt(length: int, seed: int = 0) -> list[int]:
    return random.Random(seed).choices(range(256), k=length)


def reference(loaded: LoadedModel, ids: list[int], max_tokens: int) -> tuple[int, ...]:
    """transformers' greedy continuation."""
    x = torch.tensor([ids])
    out = loaded.model.generate(x, attention_mask=torch.ones_like(x), max_new_tokens=max_tokens, do_sample=False)
    return tuple(out[0, len(ids) :].tolist())


def test_greedy_is_transformers(any_tiny: LoadedModel) -> None:
    engine = Engine(any_tiny, chunk=16)
    for length in (1, 15, 16, 17, 70):
        ids = prompt(length, seed=length)
        result = engine.generate([ids], max_tokens=24)[0]
        assert result.tokens == reference(any_tiny, ids, 24)
        assert result.prompt_tokens == length
        assert result.finish_reason == ("stop" if result.tokens[-1] in any_tiny.stop_ids else "length")


def test_batch_is_single(any_tiny: LoadedModel) -> None:
    prompts = [prompt(length, seed=length) for length in (40, 3, 17, 17, 60, 1, 9, 33, 21, 5)]
    together = Engine(any_tiny, chunk=16).generate(prompts, max_tokens=20)
    for ids, result in zip(prompts, together, strict=True):
        assert result.tokens == reference(any_tiny, ids, 20)
        alone = Engine(any_tiny, **NO_REUSE).generate([ids], max_tokens=20)[0]
        assert result.text == alone.text
        assert result.logprobs == pytest.approx(alone.logprobs, abs=1e-4)


@settings(max_examples=25, deadline=None)
@given(length=st.integers(1, 90), chunk=st.integers(1, 100), seed=st.integers(0, 9))
def test_chunks_change_nothing(llama: LoadedModel, length: int, chunk: int, seed: int) -> None:
    ids = prompt(length, seed)
    whole = Engine(llama, chunk=512, **NO_REUSE).generate([ids], max_tokens=8)[0]
    cut = Engine(llama, chunk=chunk, **NO_REUSE).generate([ids], max_tokens=8)[0]
    assert cut.tokens == whole.tokens
    assert cut.logprobs == pytest.approx(whole.logprobs, abs=1e-4)


@settings(max_examples=25, deadline=None)
@given(shared=st.integers(0, 50), rest=st.lists(st.integers(1, 40), min_size=2, max_size=5))
def test_reuse_changes_nothing(llama: LoadedModel, shared: int, rest: list[int]) -> None:
    engine = Engine(llama, chunk=16)
    head = prompt(shared, seed=99)
    for call, length in enumerate(rest):
        ids = head + prompt(length, seed=call)
        result = engine.generate([ids], max_tokens=6)[0]
        assert result.tokens == reference(llama, ids, 6)
        assert result.cached_tokens >= (min(shared, len(ids) - 1) if call else 0)
        assert result.cached_tokens < len(ids)


def test_a_follow_up_reuses_the_whole_conversation(llama: LoadedModel) -> None:
    engine = Engine(llama)
    first = engine.generate([prompt(40)], max_tokens=10)[0]
    again = engine.generate([[*prompt(40), *first.tokens, 65, 66]], max_tokens=4)[0]
    assert again.cached_tokens == 40 + len(first.tokens) - 1


def test_the_prefix_store_is_bounded(llama: LoadedModel) -> None:
    engine = Engine(llama, prefix_cache_bytes=100 * llama.bytes_per_token)
    for seed in range(8):
        engine.generate([prompt(30, seed)], max_tokens=4)
        assert 0 < engine.prefixes.nbytes <= engine.prefixes.max_bytes
    assert engine.generate([prompt(30, 7)], max_tokens=1)[0].cached_tokens == 29
    assert engine.generate([prompt(30, 0)], max_tokens=1)[0].cached_tokens < 29


@settings(max_examples=40, deadline=None)
@given(
    words=st.lists(st.lists(st.integers(0, 255), min_size=1, max_size=6), min_size=1, max_size=3),
    seed=st.integers(0, 9),
)
def test_guessing_changes_nothing(llama: LoadedModel, words: list[list[int]], seed: int) -> None:
    ids = [token for number in random.Random(seed).choices(range(len(words)), k=20) for token in words[number]]
    plain = Engine(llama, guess=False, **NO_REUSE).generate([ids], max_tokens=30)[0]
    guessed = Engine(llama, **NO_REUSE).generate([ids], max_tokens=30)[0]
    assert guessed.tokens == plain.tokens
    assert guessed.logprobs == pytest.approx(plain.logprobs, abs=1e-4)
    assert guessed.steps <= plain.steps == len(plain.tokens) - 1


def test_guesses_save_steps(smollm2: LoadedModel) -> None:
    text = "Repeat: the mill by the river, the mill by the river, the mill by the river, the mill"
    result = Engine(smollm2, **NO_REUSE).generate([encode(text, smollm2)], max_tokens=24)[0]
    assert result.steps < len(result.tokens) / 2


def test_requests_that_come_later_join(llama: LoadedModel) -> None:
    prompts = [prompt(length, seed=length) for length in (30, 7, 45)]
    limits = (24, 10, 5)
    ended: dict[int, Any] = {}
    requests = [
        Request(ids, most, on_end=functools.partial(ended.__setitem__, i))
        for i, (ids, most) in enumerate(zip(prompts, limits, strict=True))
    ]
    engine, asked, rows = Engine(llama, chunk=8), itertools.count(), list[int]()
    decode = engine._decode

    def noted(active: Any, *state: Any) -> None:
        rows.append(len(active))
        decode(active, *state)

    engine._decode = noted  # type: ignore[method-assign]
    engine.serve(requests[:1], lambda room: {9: [requests[1]], 12: [requests[2]]}.get(next(asked), []))
    assert rows[0] == 1 and max(rows) == 3
    for i, (ids, most) in enumerate(zip(prompts, limits, strict=True)):
        assert ended[i].tokens == reference(llama, ids, most)


def test_a_long_text_is_kept_on_disk(llama: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefixes, "LEAST", 32)
    document = prompt(60)

    def ask(question: int, **options: Any) -> Any:
        engine = Engine(llama, prefix_folder=tmp_path, **options)
        return engine.generate([document + prompt(5, question)], max_tokens=8)[0]

    first = ask(1)
    [file] = tmp_path.glob("*/*.safetensors")
    assert first.cached_tokens == 0
    second = ask(2)
    assert second.cached_tokens >= 60
    assert second.tokens == reference(llama, document + prompt(5, 2), 8)
    assert list(tmp_path.glob("*/*.safetensors")) == [file]  # what is new in it is too short for a file
    data = bytearray(file.read_bytes())
    data[-100] ^= 1
    file.write_bytes(data)
    damaged = ask(2)
    assert (damaged.cached_tokens, damaged.tokens) == (0, second.tokens)
    assert ask(2).cached_tokens >= 60  # written anew
    assert ask(1, weights="int8").cached_tokens == 0  # computes something else
    assert ask(1, weights="int4").cached_tokens == 0


def test_files_keep_to_their_budget(llama: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefixes, "LEAST", 32)
    engine = Engine(llama, prefix_folder=tmp_path)
    assert engine.files is not None
    engine.files.max_bytes = 130 * llama.bytes_per_token
    for seed in range(4):
        engine.generate([prompt(50, seed)], max_tokens=2)
        assert sum(file.stat().st_size for file in tmp_path.glob("*/*.safetensors")) <= engine.files.max_bytes
    fresh = Engine(llama, prefix_folder=tmp_path)
    assert [fresh.generate([prompt(50, seed)], max_tokens=2)[0].cached_tokens for seed in (3, 0)] == [49, 0]


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=12),
    most=st.integers(4, 40),
)
def test_the_tree_knows_the_longest_beginning(texts: list[list[int]], most: int) -> None:
    size = 2 * 4 * 2 * 3  # keys and values of one token: two heads of three
    tree, roomy = prefixes.Prefixes(most * size), prefixes.Prefixes(1 << 30)
    for number, text in enumerate(texts):
        cache = cache_of(text)
        for each in (tree, roomy):
            each.add(cache, 0, 0, text)
        assert roomy.shared(text) == len(text)
        assert tree.nbytes <= tree.max_bytes
        assert tree.nbytes == sum(node.nbytes for node in tree.nodes())
        assert roomy.nbytes == size * len({tuple(t[:n]) for t in texts[: number + 1] for n in range(1, len(t) + 1)})
    for text in texts:
        for each in (tree, roomy):
            empty = Cache(layers=[BufferLayer(1)])
            filled = each.fill(empty, text, len(text))
            assert filled == each.shared(text)
            if filled:
                assert empty.layers[0].held[0][0, 0, :filled, 0].tolist() == [
                    hash_of(text[: n + 1]) for n in range(filled)
                ]


def hash_of(text: list[int]) -> float:
    """A key that depends on all tokens so far, as a model's does."""
    return float(zlib.crc32(bytes(text)) % 65536)


def cache_of(text: list[int]) -> Cache:
    cache = Cache(layers=[BufferLayer(len(text))])
    keys = torch.tensor([hash_of(text[: n + 1]) for n in range(len(text))])[None, None, :, None].expand(1, 2, -1, 3)
    cache.layers[0].update(keys, -keys)
    return cache


def test_a_bounded_window_is_kept(llama: LoadedModel) -> None:
    with pytest.raises(LongspanError, match=r"500 tokens.*up to 13.*512"):
        Engine(llama).generate([prompt(500)], max_tokens=13)
    assert len(Engine(llama).generate([prompt(508)], max_tokens=4)[0].tokens) <= 4
    with pytest.raises(LongspanError, match=r"600 tokens.*512"):
        Engine(llama).loglikelihood([(prompt(590), prompt(10))])
    with pytest.raises(LongspanError, match="empty"):
        Engine(llama).generate([[]], max_tokens=1)
    with pytest.raises(LongspanError, match="empty"):
        Engine(llama).loglikelihood([([], [1])])


def test_a_text_that_memory_cannot_hold_is_told_before(llama: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(llama)
    monkeypatch.setattr("longspan.engine.engine.SURELY_THERE", 0)
    monkeypatch.setattr("longspan.engine.engine.free_bytes", lambda: 100.0 * llama.bytes_per_token)
    with pytest.raises(LongspanError, match=r"120 tokens need .* about 90 tokens would fit"):
        engine.generate([prompt(110)], max_tokens=10)
    assert engine.generate([prompt(80)], max_tokens=10)[0].tokens == reference(llama, prompt(80), 10)


SAMPLINGS = [
    Sampling(temperature=1.0, seed=1),
    Sampling(temperature=0.7, top_k=5, seed=2),
    Sampling(temperature=1.3, top_p=0.5, min_p=0.05, seed=3),
    Sampling(),
]


def test_sampling_does_not_see_the_batch(llama: LoadedModel) -> None:
    prompts = [prompt(n, seed=n) for n in (30, 7, 19, 12)]
    together = Engine(llama).generate(prompts, max_tokens=16, sampling=SAMPLINGS)
    for ids, sampling, result in zip(prompts, SAMPLINGS, together, strict=True):
        assert result.tokens == Engine(llama).generate([ids], max_tokens=16, sampling=sampling)[0].tokens
    other = Engine(llama).generate([prompts[0]], max_tokens=16, sampling=Sampling(temperature=1.0, seed=5))[0]
    assert other.tokens != together[0].tokens


def test_logprobs_are_the_models_own(any_tiny: LoadedModel) -> None:
    ids = prompt(25)
    hot = Sampling(temperature=2.0, top_k=40, seed=4)
    result = Engine(any_tiny, chunk=8).generate([ids], max_tokens=12, sampling=hot)[0]
    with torch.inference_mode():
        logits = any_tiny.model(torch.tensor([ids + list(result.tokens)])).logits[0]
    expected = logits.log_softmax(-1)[len(ids) - 1 : -1]
    wanted = [float(row[token]) for row, token in zip(expected, result.tokens, strict=True)]
    assert result.logprobs == pytest.approx(wanted, abs=1e-3)


def test_loglikelihood_is_the_models_own(any_tiny: LoadedModel) -> None:
    head = prompt(12, seed=1)
    pairs = [(head + prompt(n, seed=n), prompt(m, seed=m)) for n, m in ((1, 5), (30, 1), (9, 9), (9, 0), (50, 20))]
    pairs += [(prompt(1, seed=3), prompt(4)), (head, prompt(2))]
    expected = []
    with torch.inference_mode():
        for context, continuation in pairs:
            rows = any_tiny.model(torch.tensor([context + continuation])).logits[0].log_softmax(-1)
            rows = rows[len(context) - 1 : -1]
            expected.append([float(row[token]) for row, token in zip(rows, continuation, strict=True)])
    for got, wanted in zip(Engine(any_tiny).loglikelihood(pairs), expected, strict=True):
        assert got == pytest.approx(wanted, abs=1e-3)
    assert Engine(any_tiny).loglikelihood([]) == []


def test_streamed_pieces_are_the_text(llama: LoadedModel) -> None:
    pieces: dict[int, str] = {0: "", 1: "", 2: ""}

    def collect(index: int, piece: str) -> None:
        pieces[index] += piece

    results = Engine(llama).generate([prompt(9, 1), prompt(30, 2), prompt(5, 3)], max_tokens=40, on_text=collect)
    assert [pieces[i] for i in range(3)] == [result.text for result in results]


def test_stop_strings(llama: LoadedModel) -> None:
    full = Engine(llama).generate([prompt(20)], max_tokens=40)[0]
    assert len(full.text) > 8
    stop = full.text[4:7]
    shown: list[str] = []
    cut = Engine(llama).generate(
        [prompt(20)], max_tokens=40, stop=["never this one", stop], on_text=lambda _, piece: shown.append(piece)
    )[0]
    assert cut.text == "".join(shown) == full.text[: full.text.index(stop)]
    assert cut.finish_reason == "stop"
    assert cut.tokens == full.tokens[: len(cut.tokens)]
    assert len(cut.tokens) < len(full.tokens)


def test_cancelling_leaves_the_engine_usable(llama: LoadedModel) -> None:
    engine = Engine(llama, chunk=8)
    cancel = threading.Event()
    with pytest.raises(Cancelled):
        engine.generate([prompt(50)], max_tokens=50, cancel=cancel, on_text=lambda *_: cancel.set())
    with pytest.raises(Cancelled):
        engine.generate([prompt(90)], max_tokens=5, cancel=cancel)
    with pytest.raises(Cancelled):
        engine.loglikelihood([(prompt(5), prompt(2))], cancel=cancel)
    cancel.clear()
    with pytest.MonkeyPatch.context() as patch:  # in the middle of a prompt: no chunk is read after it
        run, chunks = engine.runner.run, list[int]()

        def cancelled_at_the_third(ids: torch.Tensor, cache: Cache, **how: Any) -> torch.Tensor:
            chunks.append(ids.shape[1])
            if len(chunks) == 3:
                cancel.set()
            return run(ids, cache, **how)

        patch.setattr(engine.runner, "run", cancelled_at_the_third)
        with pytest.raises(Cancelled):
            engine.generate([list(range(40, 130))], max_tokens=5, cancel=cancel)
        assert chunks == [8, 8, 8]
    with pytest.raises(ZeroDivisionError):
        engine.generate([prompt(50)], max_tokens=50, on_text=lambda *_: 1 // 0)
    assert engine.generate([prompt(50)], max_tokens=9)[0].tokens == reference(llama, prompt(50), 9)


def test_threads_take_turns(llama: LoadedModel) -> None:
    engine = Engine(llama)
    results: dict[int, tuple[int, ...]] = {}

    def work(seed: int) -> None:
        results[seed] = engine.generate([prompt(20 + seed, seed)], max_tokens=8)[0].tokens

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {seed: reference(llama, prompt(20 + seed, seed), 8) for seed in range(4)}


@given(lengths=st.lists(st.integers(1, 50), max_size=30), limit=st.integers(1, 200))
def test_batches_hold_everything_once_within_the_limit(lengths: list[int], limit: int) -> None:
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    runs = batches(order, lengths, limit)
    assert [i for run in runs for i in run] == order
    assert all(len(run) == 1 or len(run) * max(lengths[i] for i in run) <= limit for run in runs)


def test_smollm2_answers_as_transformers_does(smollm2: LoadedModel) -> None:
    chat = [render([{"role": "user", "content": question}], smollm2) for question in QUESTIONS]
    engine = Engine(smollm2, chunk=16)
    results = engine.generate(chat, max_tokens=12)
    assert "Paris" in results[0].text
    for ids, result in zip(chat, results, strict=True):
        assert result.tokens == reference(smollm2, ids, 12)
    again = engine.generate(chat[:1], max_tokens=12)[0]
    assert (again.tokens, again.cached_tokens) == (results[0].tokens, len(chat[0]) - 1)


QUESTIONS = ["What is the capital of France?", "Name three rivers.", "What is 2 + 2? Answer with a number."]


def test_smollm2_finds_the_right_sentence_likelier(smollm2: LoadedModel) -> None:
    question = encode(" Question: Who painted the ceiling?", smollm2)
    contexts = ["Michelangelo painted the chapel's ceiling.", "The train leaves at nine."]
    right, wrong = Engine(smollm2).loglikelihood([(encode(text, smollm2), question) for text in contexts])
    assert math.fsum(right) > math.fsum(wrong)
