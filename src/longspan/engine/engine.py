"""The engine: one model, many requests. How the model runs is a `Runner`: native where it can be, else transformers.

Prefill goes chunk by chunk into a preallocated cache, each prompt alone, so that a prefix seen before is reused.
Decoding joins the prompts into one left-padded batch; a request that comes while others are decoded is read between
their steps and joins them. One that is alone guesses several tokens a step by prompt look-up. Scoring runs short texts
in batches of similar length.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from longspan.allocator import give_back
from longspan.engine.cache import free_bytes, joined, trim
from longspan.engine.grammar import Constraint, Grammar
from longspan.engine.llama import STEP_TOKENS, Llama, fits
from longspan.engine.lookup import Lookup
from longspan.engine.plain import Plain, Runner
from longspan.engine.prefixes import Prefixes, PrefixFiles, append, common_prefix, cut_out, fingerprint
from longspan.engine.sampler import Sampler
from longspan.engine.sampling import Sampling
from longspan.engine.text import TextStream
from longspan.errors import LongspanError
from longspan.kernels.quantized import Weights
from longspan.models.loading import LoadedModel

CHUNK = 512  # tokens a prefill step
PREFIX_CACHE_BYTES = 512 << 20
DECODE_ROWS = 8  # requests decoded together
SURELY_THERE = 64 << 20  # bytes that are not asked after
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
    `decode_seconds` passed for all that were decoded together, `seconds` is what fell to this one. `steps` is how often
    the model ran to decode.
    """

    tokens: tuple[int, ...]
    text: str
    logprobs: tuple[float, ...]
    finish_reason: str
    prompt_tokens: int
    cached_tokens: int
    prefill_seconds: float
    decode_seconds: float
    seconds: float
    steps: int


@dataclass(slots=True, eq=False)
class Request:
    """One prompt (token ids) to be continued by up to `max_tokens` tokens.

    `on_text` gets whole characters as they come. `on_end` is called once: with what came of it, or with `Cancelled`
    after `cancel` was set.
    """

    prompt: list[int]
    max_tokens: int
    sampling: Sampling = Sampling()  # noqa: RUF009  it is frozen
    stop: Sequence[str] = ()
    grammar: Grammar | None = None
    on_text: Callable[[str], None] | None = None
    on_end: Callable[[Generation | Cancelled], None] | None = None
    cancel: threading.Event | None = None


@dataclass(slots=True, eq=False)
class _Row:
    """A request on its way."""

    asked: Request
    sampler: Sampler
    stream: TextStream
    constraint: Constraint | None
    cache: Cache
    lookup: Lookup | None
    cached_tokens: int = 0
    read: int = 0  # tokens of the prompt that are in the cache
    prefill_seconds: float = 0.0
    began: float = 0.0  # to be decoded
    shared_seconds: float = 0.0
    steps: int = 0
    ended: bool = False
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: str | None = None

    @property
    def cancelled(self) -> bool:
        return self.asked.cancel is not None and self.asked.cancel.is_set()

    @property
    def left(self) -> int:
        return self.asked.max_tokens - len(self.tokens)


class Engine:
    """Generates and scores with one loaded model. Safe to call from several threads; calls take turns."""

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        chunk: int = CHUNK,
        prefix_cache_bytes: int = PREFIX_CACHE_BYTES,
        prefix_folder: Path | None = None,
        beyond_window: bool = False,
        weights: Weights | None = None,
        guess: bool = True,
    ) -> None:
        """`beyond_window` lets texts exceed the model's window: what it then says is the caller's question. `weights`
        runs on matrices in int8 or int4, and keys and values in int8, where the model can run natively
        (`Engine.native`); it is ignored elsewhere. With `prefix_folder`, long prompts are kept on disk, too, for the
        next process. `guess` is prompt look-up, which only the native steps have: their arithmetic is the same for one
        token and for several."""
        self.loaded = loaded
        self.model = loaded.model
        self.chunk = max(1, chunk)
        self.native = fits(loaded.model)
        self.weights = weights if self.native else None
        self.guess = guess and self.native
        self.runner: Runner = Llama(loaded.model, weights=weights) if self.native else Plain(loaded.model)
        self.plain = self.runner.plain
        self.prefixes = Prefixes(prefix_cache_bytes if self.plain else 0)
        self.files: PrefixFiles | None = None
        if prefix_folder is not None and self.plain:
            key = fingerprint(loaded.model, loaded.name, self.native, self.weights or "")
            self.files = PrefixFiles(prefix_folder, key)
        self.window = math.inf if beyond_window else loaded.window
        self._lock = threading.Lock()

    def release(self) -> None:
        """Let go of weights of which there are packed copies. The model computes nothing by itself after that."""
        self.runner.release()
        give_back()

    # --- Generating -----------------------------------------------------------------------------------------------

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
        ended: dict[int, Generation | Cancelled] = {}

        def request(i: int) -> Request:
            say = None if on_text is None else lambda piece: on_text(i, piece)
            end = lambda came: ended.__setitem__(i, came)  # noqa: E731
            return Request(list(prompts[i]), max_tokens, each[i], stop, grammar, say, end, cancel)

        self.serve(sorted(map(request, range(len(prompts))), key=lambda asked: len(asked.prompt)))
        found = [ended[i] for i in range(len(prompts))]
        generations = [one for one in found if isinstance(one, Generation)]
        if len(generations) < len(found):
            raise Cancelled
        return generations

    @torch.inference_mode()
    def serve(self, requests: Sequence[Request], more: Callable[[int], Sequence[Request]] = lambda room: ()) -> None:
        """Answer the requests, and those that `more` gives while they are answered: it is asked before every step for
        at most `room` of them. Raises LongspanError for a prompt that does not fit, before anything else."""
        for asked in requests:
            self.check(asked)
        with self._lock:
            self._serve(deque(requests), more)

    def check(self, asked: Request) -> None:
        """Raises LongspanError for a request that does not fit."""
        if not asked.prompt:
            raise LongspanError("The prompt is empty: there is nothing to continue.")
        if asked.max_tokens < 1:
            raise LongspanError(f"At least one token must be allowed for the answer, not {asked.max_tokens}.")
        if len(asked.prompt) + asked.max_tokens > self.window:
            raise LongspanError(
                f"The prompt has {len(asked.prompt)} tokens and the answer up to {asked.max_tokens}, but the window of "
                f"{self.loaded.name} is {self.loaded.window}: shorten one of them or read the text in parts."
            )
        tokens = len(asked.prompt) + asked.max_tokens
        needed = tokens * self.runner.token_bytes
        if needed > SURELY_THERE and needed > (free := free_bytes() + self.prefixes.nbytes):
            raise LongspanError(
                f"{tokens} tokens need {needed / 1e9:.1f} GB for their keys and values, and {free / 1e9:.1f} GB are "
                f"free: about {int(0.9 * free / self.runner.token_bytes)} tokens would fit. Read the text in parts."
            )

    def _serve(self, waiting: deque[Request], more: Callable[[int], Sequence[Request]]) -> None:
        """Between two steps of those that are decoded, one chunk of a prompt is read."""
        size = DECODE_ROWS if self.plain else 1
        reading: _Row | None = None  # its prompt is not read to the end
        ready: list[_Row] = []  # read, about to join
        active: list[_Row] = []  # decoded together in `cache`, from the columns `starts` on
        cache: Cache | None = None
        starts: list[int] = []
        while True:
            room = size - len(active) - len(ready) - (reading is not None)
            if room > len(waiting):
                waiting.extend(more(room - len(waiting)))
            if reading is None and waiting and room > 0:
                reading = self._begin(waiting.popleft())
            if reading is not None and self._read(reading):
                if not reading.ended:
                    ready.append(reading)
                reading = None
            if ready and (active or not (reading or waiting) or len(ready) == size):
                rows = [(cache, i, start) for i, start in enumerate(starts) if cache is not None]
                rows += [(row.cache, 0, 0) for row in ready]
                active, ready = active + ready, []
                longest = max(begun.get_seq_length() - start for begun, _, start in rows)
                cache, starts = joined(rows, longest + max(row.left for row in active))
            if active and cache is not None:
                self._decode(active, cache, starts)
                active, starts = self._leave(active, cache, starts)
            elif reading is None and not waiting and not ready:
                return

    def _begin(self, asked: Request) -> _Row:
        """A request with an empty cache, but for what is known of its prompt."""
        guesses = self.guess and asked.sampling.temperature <= 0 and asked.grammar is None
        row = _Row(
            asked,
            Sampler(asked.sampling, self.model.device),
            TextStream(self.loaded.tokenizer, asked.stop),
            asked.grammar.start() if asked.grammar else None,
            self.runner.new_cache(len(asked.prompt) + asked.max_tokens),
            Lookup(asked.prompt) if guesses else None,
            began=time.perf_counter(),
        )
        most = len(asked.prompt) - 1  # the last token must run, for its scores
        needed = len(asked.prompt) * self.runner.token_bytes
        if needed > SURELY_THERE and needed > free_bytes():
            self.prefixes.clear()  # what is being asked is worth more
        if self.files:
            row.read = self.files.fill(row.cache, asked.prompt, most, self.prefixes.shared(asked.prompt))
        if not row.read:
            row.read = self.prefixes.fill(row.cache, asked.prompt, most)
        row.cached_tokens = row.read
        row.prefill_seconds = time.perf_counter() - row.began
        return row

    def _read(self, row: _Row) -> bool:
        """Read one chunk of the prompt; at its end choose the first token. Whether the row is read to the end."""
        begin = time.perf_counter()
        prompt = row.asked.prompt
        if row.cancelled:
            self._end(row)
            return True
        ids = torch.tensor([prompt[row.read : row.read + self.chunk]], device=self.model.device)
        logits = self.runner.run(ids, row.cache)
        row.read += ids.shape[1]
        if row.read == len(prompt) and self.plain:
            self.prefixes.add(row.cache, 0, 0, prompt)
            if self.files:
                self.files.add(row.cache, prompt)
        row.prefill_seconds += time.perf_counter() - begin
        if row.read < len(prompt):
            return False
        row.began = time.perf_counter()
        self._take(row, logits[0, -1])
        if row.finish_reason:
            self._end(row)
        return True

    def _decode(self, rows: list[_Row], cache: Cache, starts: list[int]) -> None:
        """One step: a token for every row, and where a row is alone those of its guess that are right."""
        begin = time.perf_counter()
        lookup = rows[0].lookup if len(rows) == 1 else None
        guess = lookup.guess(min(rows[0].left - 1, STEP_TOKENS - 1)) if lookup else []
        ids = torch.tensor([[row.tokens[-1], *guess] for row in rows], device=self.model.device)
        logits = self.runner.run(ids, cache, starts=starts, keep=1 + len(guess))
        for row, scores in zip(rows, logits, strict=True):
            row.steps += 1
            self._take(row, scores[0])
        right = 0
        while right < len(guess) and not rows[0].finish_reason and rows[0].tokens[-1] == guess[right]:
            right += 1
            self._take(rows[0], logits[0, right])
        if lookup and guess:
            trim(cache, len(guess) - right)
            lookup.learn(len(guess), right)
        for row in rows:
            row.shared_seconds += (time.perf_counter() - begin) / len(rows)

    def _leave(self, rows: list[_Row], cache: Cache, starts: list[int]) -> tuple[list[_Row], list[int]]:
        """Let those that are finished or cancelled go; the others and where they begin."""
        going = [i for i, row in enumerate(rows) if row.finish_reason is None and not row.cancelled]
        if len(going) == len(rows):
            return rows, starts
        for i, row in enumerate(rows):
            if i not in going:
                if row.finish_reason and self.plain:  # its last token was chosen but never ran
                    self.prefixes.add(cache, i, starts[i], row.asked.prompt + row.tokens[:-1])
                self._end(row)
        if self.plain and going:
            keep = torch.tensor(going, device=self.model.device)
            for layer in cache.layers:
                layer.keep_rows(keep)
        return [rows[i] for i in going], [starts[i] for i in going]

    def _take(self, row: _Row, logits: Tensor) -> None:
        """Choose the row's next token, show its text, and see whether the row is finished."""
        allowed = row.constraint.allowed(logits.numel()).to(logits.device) if row.constraint else None
        token, logprob = row.sampler.choose(logits, allowed)
        row.tokens.append(token)
        row.logprobs.append(logprob)
        if row.lookup:
            row.lookup.push(token)
        complete = row.constraint.advance(token) if row.constraint else False
        if token in self.loaded.stop_ids:
            row.finish_reason = "stop"
            piece = ""
        else:
            piece = row.stream.push(token)
            if row.stream.stopped or complete:
                row.finish_reason = "stop"
            elif not row.left:
                row.finish_reason = "length"
        if row.finish_reason:
            piece += row.stream.finish()
        if piece and row.asked.on_text:
            row.asked.on_text(piece)

    def _end(self, row: _Row) -> None:
        row.ended = True
        if row.asked.on_end is None:
            return
        if row.finish_reason is None:
            row.asked.on_end(Cancelled())
            return
        row.asked.on_end(
            Generation(
                tokens=tuple(row.tokens),
                text=row.stream.text,
                logprobs=tuple(row.logprobs),
                finish_reason=row.finish_reason,
                prompt_tokens=len(row.asked.prompt),
                cached_tokens=row.cached_tokens,
                prefill_seconds=row.prefill_seconds,
                decode_seconds=time.perf_counter() - row.began,
                seconds=row.prefill_seconds + row.shared_seconds,
                steps=row.steps,
            )
        )

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
            known = cut_out(head, 0, 0, shared)
            append(cache, tuple(tuple(x.expand(len(pairs), *x.shape[1:]) for x in layer) for layer in known))
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
    """Cut `order` (by length, ascending) into runs whose padded size stays within `tokens`, and whose longest is at
    most twice as long as the shortest: from where that one's scores begin, all are computed. At least one each."""
    runs: list[list[int]] = []
    for i in order:
        if runs and lengths[i] * (len(runs[-1]) + 1) <= tokens and lengths[i] <= 2 * lengths[runs[-1][0]]:
            runs[-1].append(i)
        else:
            runs.append([i])
    return runs


def check(cancel: threading.Event | None) -> None:
    if cancel is not None and cancel.is_set():
        raise Cancelled
