"""The engine: one model, many requests. How the model runs is a `Runner`: native where it can be, else transformers.

Prefill goes chunk by chunk into a preallocated cache, each prompt alone, so that a prefix seen before is reused.
Decoding joins the prompts into one left-padded batch. Scoring runs short texts in batches of similar length.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from longspan.engine.cache import PrefixStore, common_prefix, cut_out, fill, merge
from longspan.engine.grammar import Constraint, Grammar
from longspan.engine.llama import Llama, fits
from longspan.engine.plain import Plain, Runner
from longspan.engine.sampler import Sampler
from longspan.engine.sampling import Sampling
from longspan.engine.text import TextStream
from longspan.errors import LongspanError
from longspan.models.loading import LoadedModel

CHUNK = 512  # tokens a prefill step
PREFIX_CACHE_BYTES = 512 << 20
DECODE_ROWS = 8  # requests decoded together
SCORE_TOKENS = 1024  # padded tokens a scoring batch: larger ones pad more and leave the caches

OnText = Callable[[int, str], None]


class Cancelled(LongspanError):
    """The caller's `cancel` event was set."""

    exit_code = 130

    def __init__(self) -> None:
        super().__init__("Cancelled.")


@dataclass(frozen=True, slots=True)
class Generation:
    """What one prompt gave.

    `tokens` holds every generated id, the end-of-turn token included, with `logprobs` (nats, of the model's own
    distribution) beside it; `text` has neither end-of-turn token nor stop string. `finish_reason` is "stop" or
    "length". `cached_tokens` of the `prompt_tokens` were not computed again. Seconds are wall time;
    `decode_seconds` is shared by the requests that were decoded together.
    """

    tokens: tuple[int, ...]
    text: str
    logprobs: tuple[float, ...]
    finish_reason: str
    prompt_tokens: int
    cached_tokens: int
    prefill_seconds: float
    decode_seconds: float


@dataclass(slots=True)
class _Row:
    """One request on its way."""

    index: int
    prompt: list[int]
    sampler: Sampler
    stream: TextStream
    constraint: Constraint | None
    cache: Cache | None = None
    cached_tokens: int = 0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: str | None = None


class Engine:
    """Generates and scores with one loaded model. Safe to call from several threads; calls take turns."""

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        chunk: int = CHUNK,
        prefix_cache_bytes: int = PREFIX_CACHE_BYTES,
        beyond_window: bool = False,
        int8: bool = False,
    ) -> None:
        """`beyond_window` lets texts exceed the model's window: what it then says is the caller's question. `int8`
        decodes with weights in int8, where the model can run natively (`Engine.native`); it is ignored elsewhere."""
        self.loaded = loaded
        self.model = loaded.model
        self.chunk = max(1, chunk)
        self.native = fits(loaded.model)
        self.int8 = int8 and self.native
        self.runner: Runner = Llama(loaded.model, int8=int8) if self.native else Plain(loaded.model)
        self.plain = self.runner.plain
        self.prefixes = PrefixStore(prefix_cache_bytes if self.plain else 0)
        self.window = math.inf if beyond_window else loaded.window
        self._lock = threading.Lock()

    # --- Generating -----------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_tokens: int,
        sampling: Sampling | Sequence[Sampling] = Sampling(),  # noqa: B008  it is frozen
        stop: Sequence[str] = (),
        grammar: Grammar | None = None,
        on_text: OnText | None = None,
        cancel: threading.Event | None = None,
    ) -> list[Generation]:
        """Continue every prompt (token ids) by up to `max_tokens` tokens.

        `on_text(index, piece)` is called with whole characters as they come. Raises `Cancelled` once `cancel` is set,
        and LongspanError for a prompt that does not fit.
        """
        each = [sampling] * len(prompts) if isinstance(sampling, Sampling) else list(sampling)
        if len(each) != len(prompts):
            raise ValueError(f"{len(each)} samplings for {len(prompts)} prompts")
        for prompt in prompts:
            self._check_fits(prompt, max_tokens)
        rows = [
            _Row(
                index=i,
                prompt=list(prompt),
                sampler=Sampler(each[i], self.model.device),
                stream=TextStream(self.loaded.tokenizer, stop),
                constraint=grammar.start() if grammar else None,
            )
            for i, prompt in enumerate(prompts)
        ]
        size = DECODE_ROWS if self.plain else 1
        by_length = sorted(rows, key=lambda row: len(row.prompt))
        with self._lock:
            for begin in range(0, len(rows), size):
                self._run(by_length[begin : begin + size], max_tokens, on_text, cancel)
        return [
            Generation(
                tokens=tuple(row.tokens),
                text=row.stream.text,
                logprobs=tuple(row.logprobs),
                finish_reason=row.finish_reason or "length",
                prompt_tokens=len(row.prompt),
                cached_tokens=row.cached_tokens,
                prefill_seconds=row.prefill_seconds,
                decode_seconds=row.decode_seconds,
            )
            for row in rows
        ]

    def _check_fits(self, prompt: Sequence[int], max_tokens: int) -> None:
        if not prompt:
            raise LongspanError("The prompt is empty: there is nothing to continue.")
        if max_tokens < 1:
            raise LongspanError(f"At least one token must be allowed for the answer, not {max_tokens}.")
        if len(prompt) + max_tokens > self.window:
            raise LongspanError(
                f"The prompt has {len(prompt)} tokens and the answer up to {max_tokens}, but the window of "
                f"{self.loaded.name} is {self.loaded.window}: shorten one of them or read the text in parts."
            )

    def _run(self, rows: list[_Row], max_tokens: int, on_text: OnText | None, cancel: threading.Event | None) -> None:
        """Prefill each row, then decode them together; rows leave the batch as they finish."""
        for row in rows:
            begin = time.perf_counter()
            logits = self._prefill(row, max_tokens, cancel)
            row.prefill_seconds = time.perf_counter() - begin
            self._take(row, logits, max_tokens, on_text)
        begin = time.perf_counter()
        active = [row for row in rows if row.finish_reason is None]
        if active:
            lengths = [len(row.prompt) for row in active]
            cache = merge([row.cache for row in active if row.cache is not None], max(lengths) + max_tokens)
            starts = [max(lengths) - length for length in lengths]  # the column where each row begins
        while active:
            check(cancel)
            logits = self._step(active, cache, starts)
            for row, scores in zip(active, logits, strict=True):
                self._take(row, scores, max_tokens, on_text)
            going = [i for i, row in enumerate(active) if row.finish_reason is None]
            if len(going) == len(active):
                continue
            for i, row in enumerate(active):
                if row.finish_reason is not None:
                    row.decode_seconds = time.perf_counter() - begin
                    self._remember(row, cache, i, starts[i])
            active, starts = [active[i] for i in going], [starts[i] for i in going]
            if self.plain and active:
                keep = torch.tensor(going, device=self.model.device)
                for layer in cache.layers:
                    layer.keep_rows(keep)

    def _prefill(self, row: _Row, max_tokens: int, cancel: threading.Event | None) -> Tensor:
        """Fill the row's cache with its prompt; the scores `[vocabulary]` after its last token."""
        prompt = row.prompt
        row.cache = self.runner.new_cache(len(prompt) + max_tokens)
        segment, shared = self.prefixes.longest(prompt)
        row.cached_tokens = min(shared, len(prompt) - 1)  # the last token must run, for its scores
        if segment is not None and row.cached_tokens:
            fill(row.cache, segment, row.cached_tokens)
        for begin in range(row.cached_tokens, len(prompt), self.chunk):
            check(cancel)
            ids = torch.tensor([prompt[begin : begin + self.chunk]], device=self.model.device)
            logits = self.runner.run(ids, row.cache)
        if self.plain:
            self.prefixes.add(cut_out(row.cache, 0, 0, prompt))
        return logits[0, -1]

    def _step(self, rows: list[_Row], cache: Cache, starts: list[int]) -> Tensor:
        """One token for every row: scores `[rows, vocabulary]`."""
        ids = torch.tensor([[row.tokens[-1]] for row in rows], device=self.model.device)
        return self.runner.run(ids, cache, starts=starts)[:, -1]

    def _take(self, row: _Row, logits: Tensor, max_tokens: int, on_text: OnText | None) -> None:
        """Choose the row's next token, show its text, and see whether the row is finished."""
        allowed = row.constraint.allowed(logits.numel()).to(logits.device) if row.constraint else None
        token, logprob = row.sampler.choose(logits, allowed)
        row.tokens.append(token)
        row.logprobs.append(logprob)
        complete = row.constraint.advance(token) if row.constraint else False
        if token in self.loaded.stop_ids:
            row.finish_reason = "stop"
            piece = ""
        else:
            piece = row.stream.push(token)
            if row.stream.stopped or complete:
                row.finish_reason = "stop"
            elif len(row.tokens) >= max_tokens:
                row.finish_reason = "length"
        if row.finish_reason:
            piece += row.stream.finish()
        if piece and on_text:
            on_text(row.index, piece)

    def _remember(self, row: _Row, cache: Cache, i: int, start: int) -> None:
        """Keep what was computed for a finished row; its last token was chosen but never ran."""
        if self.plain:
            self.prefixes.add(cut_out(cache, i, start, row.prompt + row.tokens[:-1]))

    # --- Scoring --------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def loglikelihood(
        self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], cancel: threading.Event | None = None
    ) -> list[tuple[float, ...]]:
        """For each (context, continuation): the log probability (nats) of every token of the continuation."""
        results: list[tuple[float, ...]] = [()] * len(pairs)
        for context, continuation in pairs:
            if not context:
                raise LongspanError("A context to score from is empty: give at least one token.")
            if len(context) + len(continuation) > self.window:
                raise LongspanError(
                    f"A text of {len(context) + len(continuation)} tokens cannot be scored: the window of "
                    f"{self.loaded.name} is {self.loaded.window}."
                )
        wanted = [i for i, (_, continuation) in enumerate(pairs) if continuation]
        wanted.sort(key=lambda i: len(pairs[i][0]) + len(pairs[i][1]))
        with self._lock:
            for batch in batches(wanted, [len(c) + len(t) for c, t in pairs], SCORE_TOKENS if self.plain else 1):
                check(cancel)
                for i, scores in zip(batch, self._score([pairs[i] for i in batch]), strict=True):
                    results[i] = scores
        return results

    def _score(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[tuple[float, ...]]:
        """One batch: a shared beginning runs once, the rest padded on the right; scores from where they are wanted.

        What stands behind a text is never seen by it, so padding there needs no mask.
        """
        device = self.model.device
        inputs = [[*context, *continuation][:-1] for context, continuation in pairs]
        shared = self._shared_prefix(pairs, inputs)
        width = max(len(ids) for ids in inputs) - shared
        cache = self.runner.new_cache(shared + width)
        if shared:
            head = self.runner.new_cache(shared)
            self.runner.run(torch.tensor([inputs[0][:shared]], device=device), head)
            fill(cache, cut_out(head, 0, 0, inputs[0][:shared]), shared, rows=len(pairs))
        ids = torch.zeros(len(pairs), width, dtype=torch.long)
        for row, tokens in enumerate(inputs):
            ids[row, : len(tokens) - shared] = torch.tensor(tokens[shared:])
        begins = [len(context) - 1 - shared for context, _ in pairs]  # the column of each row's first wanted score
        first = min(begins)
        logits = self.runner.run(ids.to(device), cache, keep=width - first)
        results = []
        for row, (_, continuation) in enumerate(pairs):
            scores = logits[row, begins[row] - first :][: len(continuation)].float()
            chosen = scores.gather(1, torch.tensor(continuation, device=device)[:, None])[:, 0]
            results.append(tuple((chosen - scores.logsumexp(dim=1)).tolist()))
        return results

    def _shared_prefix(
        self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], inputs: Sequence[Sequence[int]]
    ) -> int:
        """How many leading tokens all inputs of a batch have in common, before the first scored position."""
        if not self.plain or len(inputs) < 2:
            return 0
        shared = min(common_prefix(inputs[0], ids) for ids in inputs)
        return min(shared, *(len(context) - 1 for context, _ in pairs))


def batches(order: Sequence[int], lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Cut `order` (by length, ascending) into runs whose padded size stays within `tokens`; at least one each."""
    runs: list[list[int]] = []
    for i in order:
        if runs and lengths[i] * (len(runs[-1]) + 1) <= tokens:
            runs[-1].append(i)
        else:
            runs.append([i])
    return runs


def check(cancel: threading.Event | None) -> None:
    if cancel is not None and cancel.is_set():
        raise Cancelled
