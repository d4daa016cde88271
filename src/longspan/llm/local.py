"""A model on this machine, behind the LLM protocol."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Any

from longspan.errors import LongspanError
from longspan.llm.protocol import Call, Completion, Message, Sampling, note, scoring_key
from longspan.paths import cache_home
from longspan.surrogates import replace_surrogates
from longspan.trace import Usage, span

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from longspan.engine import Engine, Request
    from longspan.kernels.quantized import Weights
    from longspan.models import LoadedModel


PIECE = 8192  # characters that are encoded together
_BLANK = re.compile(r"(?<=\S) (?=\S)")
EMBEDDED = "smollm2"  # the model that comes with longspan


def weights_of(name: str) -> tuple[str, Weights | None]:
    """A model's name without `+int8` or `+int4`, and which of them was there."""
    model, plus, method = name.rpartition("+")
    return (model, method) if plus and method in ("int8", "int4") else (name, None)  # type: ignore[return-value]


class LocalLLM:
    """Runs a model with the engine, in one worker thread, so that the event loop stays free.

    The weights are loaded on first use; `warm()` begins loading at once, beside other work. Chats are generated
    together: one that comes while others are answered joins them.
    """

    def __init__(self, name: str, *, beyond_window: bool = False, asking: bool = False) -> None:
        """`name` is a model's, or with `+int8` or `+int4` that model on such weights, and keys and values in int8,
        where the engine has it. `beyond_window` lets prompts exceed the window, as evaluations do to see what happens
        there. `asking` is `open_local`'s."""
        self.name = name
        self._asking = asking
        self._beyond_window = beyond_window
        self._engine: Future[Engine] | None = None
        self._lock = threading.Lock()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="longspan-engine")
        self._waiting: list[_Chat] = []
        self._scores = 0  # texts to be scored that wait for the worker

    def warm(self) -> None:
        """Begin to load the model in the background."""
        with self._lock:
            if self._engine is None:
                self._engine = self._worker.submit(self._load)

    def _load(self) -> Engine:
        from longspan.engine import Engine
        from longspan.kernels import native
        from longspan.models import load

        name, weights = weights_of(self.name)
        folder = cache_home() / "prefixes" if self._asking else None
        fast = self._asking and name == EMBEDDED and native.multiplies_int8()
        engine = Engine(
            load(name),
            beyond_window=self._beyond_window,
            weights=weights or ("int8" if fast else None),
            prefix_folder=folder,
        )
        if weights and not engine.native:
            raise LongspanError(
                f"{name} cannot run in {weights} here: that takes a model of Llama's build (Llama, Mistral, Qwen2/3, "
                "Phi-3, Gemma 2/3, SmolLM) on a CPU with the native kernels (`longspan doctor`)."
            )
        engine.release()
        return engine

    @property
    def engine(self) -> Engine:
        self.warm()
        assert self._engine is not None
        return self._engine.result()

    @property
    def loaded(self) -> LoadedModel:
        return self.engine.loaded

    @property
    def window(self) -> int:
        return self.loaded.window

    @property
    def effective_window(self) -> int:
        return self.loaded.effective_window

    @property
    def reader(self) -> str:
        return self.loaded.reader

    @property
    def tokenizer_name(self) -> str:
        return weights_of(self.name)[0]

    def count_tokens(self, text: str) -> int:
        return self.count_batch([text])[0]

    def count_batch(self, texts: list[str]) -> list[int]:
        encodings = self._counter.encode_batch_fast(
            [replace_surrogates(text) for text in texts], add_special_tokens=False
        )
        return [len(encoding.ids) for encoding in encodings]

    def token_starts(self, text: str) -> list[int]:
        """The character at which each token of a text begins.

        Long texts are encoded in pieces, several at once, that begin with the single blank between two words, where
        tokens begin, too.
        """
        text = replace_surrogates(text)
        begins = [0]
        while begins[-1] + PIECE < len(text) and (cut := _BLANK.search(text, begins[-1] + PIECE)):
            begins.append(cut.start())
        pieces = [text[begin:end] for begin, end in zip(begins, [*begins[1:], len(text)], strict=True)]
        encodings = self._counter.encode_batch(pieces, add_special_tokens=False)
        return [
            begin + start for begin, encoding in zip(begins, encodings, strict=True) for start, _ in encoding.offsets
        ]

    @cached_property
    def template_tokens(self) -> int:
        """How many tokens the chat template puts around one user message."""
        from longspan.models import render

        return len(render([{"role": "user", "content": ""}], self.loaded))

    @property
    def bytes_per_token(self) -> int:
        """What the keys and values of one token take in the cache."""
        return self.engine.runner.token_bytes

    def close(self) -> None:
        """Let go of the worker and the weights."""
        self._worker.shutdown(wait=False, cancel_futures=True)
        self._engine = None

    @cached_property
    def _counter(self) -> Tokenizer:
        from longspan.models import plain_tokenizer

        return plain_tokenizer(self.loaded.tokenizer, self.tokenizer_name)

    async def chat(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        sampling: Sampling = Sampling(),  # noqa: B008 - frozen
        stop: Sequence[str] = (),
        schema: dict[str, Any] | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Completion:
        """Answer the conversation; see `LLM.chat`.

        Cancelling the task stops the generation at the next token.
        """
        chat = _Chat(list(messages), max_tokens, sampling, tuple(stop), schema, on_text)
        with Call.of(messages, max_tokens, sampling, stop, schema).recorded(self.name) as step:
            self.warm()
            with self._lock:
                self._waiting.append(chat)
            self._worker.submit(self._serve)
            try:
                completion = await asyncio.wrap_future(chat.result)
            except asyncio.CancelledError:
                chat.cancel.set()
                raise
            note(step, completion)
        return completion

    def _serve(self) -> None:
        """Answer the chats that wait, and those that come meanwhile: they join the batch that is under way."""
        under_way: list[_Chat] = []

        def more(room: int) -> list[Request]:
            with self._lock:
                room = 0 if self._scores and under_way else room  # a text that is to be scored has its turn, too
                chosen, self._waiting = self._waiting[:room], self._waiting[room:]
            requests = []
            for chat in chosen:
                if not chat.result.set_running_or_notify_cancel():
                    continue
                try:
                    requests.append(self._request(chat))
                except Exception as error:  # noqa: BLE001 - handed to the one who waits
                    chat.result.set_exception(error)
                else:
                    under_way.append(chat)
            return requests

        try:
            engine = self.engine
            engine.serve((), more)
        except BaseException as error:  # noqa: BLE001 - handed to those who wait
            with self._lock:
                lost, self._waiting = [*under_way, *self._waiting], []
            for chat in lost:
                if not chat.result.done():
                    chat.result.set_exception(error)

    def _request(self, chat: _Chat) -> Request:
        from longspan.engine import Generation, Grammar, Request
        from longspan.models import render

        engine = self.engine

        def end(came: Generation | LongspanError) -> None:
            if chat.failed or not isinstance(came, Generation):
                chat.result.set_exception(chat.failed or came)  # type: ignore[arg-type]  # what came is an error then
                return
            usage = Usage(1, came.prompt_tokens, len(came.tokens), came.cached_tokens, came.seconds)
            times = came.prefill_seconds, came.decode_seconds
            chat.result.set_result(Completion(came.text, usage, came.finish_reason, came.logprobs, *times))

        asked = Request(
            render(chat.messages, engine.loaded),
            chat.max_tokens,
            chat.sampling,
            (*chat.stop, *engine.loaded.stop),
            Grammar(chat.schema, engine.loaded) if chat.schema is not None else None,
            chat.say,
            end,
            chat.cancel,
        )
        engine.check(asked)
        return asked

    async def loglikelihood(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, ...]]:
        """For each (context, continuation): the log probability (nats) of each continuation token."""
        cancel = threading.Event()
        with span(f"score {self.name}", "llm", {"pairs": [list(pair) for pair in pairs]}) as step:
            step.attributes = {"key": scoring_key(self.name, pairs), "model": self.name}
            self.warm()
            with self._lock:
                self._scores += 1
            work = self._worker.submit(self._score, list(pairs), cancel)
            try:
                scores, tokens, seconds = await asyncio.wrap_future(work)
            except asyncio.CancelledError:
                cancel.set()
                raise
            finally:
                with self._lock:
                    self._scores -= 1
            step.output, step.usage = [list(scored) for scored in scores], Usage(1, tokens, 0, 0, seconds)
        return scores

    def _score(
        self, pairs: list[tuple[str, str]], cancel: threading.Event
    ) -> tuple[list[tuple[float, ...]], int, float]:
        from longspan.models import encode

        engine = self.engine
        begin = time.perf_counter()
        ids = [(encode(context, engine.loaded), encode(continuation, engine.loaded)) for context, continuation in pairs]
        scores = engine.loglikelihood(ids, cancel)
        return scores, sum(len(context) + len(rest) for context, rest in ids), time.perf_counter() - begin


class _Chat:
    """A chat that waits for the worker."""

    def __init__(
        self,
        messages: list[Message],
        max_tokens: int,
        sampling: Sampling,
        stop: tuple[str, ...],
        schema: dict[str, Any] | None,
        on_text: Callable[[str], None] | None,
    ) -> None:
        self.messages = [{"role": message["role"], "content": message["content"]} for message in messages]
        self.max_tokens = max_tokens
        self.sampling = sampling
        self.stop = stop
        self.schema = schema
        self.on_text = on_text
        self.result: Future[Completion] = Future()
        self.cancel = threading.Event()
        self.failed: BaseException | None = None  # what its listener raised: the others' answers go on

    def say(self, piece: str) -> None:
        if self.on_text is None or self.failed:
            return
        try:
            self.on_text(piece)
        except BaseException as error:  # noqa: BLE001 - handed to the one who listens
            self.failed = error
            self.cancel.set()
