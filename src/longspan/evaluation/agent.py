"""Workflows as inspect_ai agents: `inspect eval longspan/ruler --solver longspan/workflow -S name=retrieve`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from inspect_ai.agent import Agent, AgentState, agent
from inspect_ai.model import (
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    GenerateConfig,
    Model,
    ModelOutput,
    ResponseSchema,
    get_model,
)
from inspect_ai.solver._task_state import sample_state
from inspect_ai.util import JSONSchema

from longspan.corpus import Corpus
from longspan.errors import LongspanError
from longspan.evaluation.provider import local_llm, peak_bytes
from longspan.llm import Call, Completion, LocalLLM, Message, Sampling
from longspan.llm.local import EMBEDDED
from longspan.llm.protocol import note
from longspan.trace import Usage
from longspan.workflows import Settings, run

ENDPOINT_WINDOW = 32_768  # taken where neither inspect nor the caller knows it


@agent(name="workflow")
def workflow(name: str = "auto", window: int | None = None, max_tokens: int = 256) -> Agent:
    """Answer a sample's question from its context by the workflow `name`, with the model being evaluated.

    Tasks of longspan say which part of the prompt is the text and what is asked of it; a sample of another's task is
    read as a question without a text and refused. `window` is an endpoint's, in tokens.
    """

    async def execute(state: AgentState) -> AgentState:
        sample = sample_state()
        metadata = sample.metadata if sample is not None else {}
        if "context" not in metadata or "question" not in metadata:
            raise LongspanError(
                "This task does not say which part of its prompt is the text, so a workflow cannot read it: "
                "take a task of longspan, or evaluate the model alone."
            )
        assert sample is not None
        begin, end = metadata["context"]
        prompt = sample.input_text
        llm = InspectLLM(get_model(), window)
        answer = await run(
            metadata["question"],
            Corpus.from_texts({"text": prompt[begin:end]}),
            llm,
            name,
            Settings(max_tokens=max_tokens),
        )
        state.output = ModelOutput.from_content(llm.name, answer.text)
        state.output.metadata = {
            "refused": answer.refused,
            "note": answer.note,
            "citations": [[citation.start, citation.end] for citation in answer.citations],
            "calls": answer.usage.calls,
            "seconds": answer.usage.seconds,
            "input_tokens": answer.usage.prompt_tokens,
            "output_tokens": answer.usage.completion_tokens,
            "peak_bytes": peak_bytes(),
            **llm.spent,
        }
        state.messages.append(ChatMessageAssistant(content=answer.text, model=llm.name))
        return state

    return execute


class InspectLLM:
    """An inspect model behind longspan's LLM protocol, so that inspect counts, limits, caches and logs its calls."""

    def __init__(self, model: Model, window: int | None = None) -> None:
        self.model = model
        self.name = model.name
        self._local = local_llm(model)
        self._window = window
        self._tokens = self._local or LocalLLM(EMBEDDED)
        self.spent = {"prefill_seconds": 0.0, "decode_seconds": 0.0}
        if self._local is not None:
            self.loglikelihood = self._local.loglikelihood

    @property
    def window(self) -> int:
        return self._local.window if self._local is not None else self._window or ENDPOINT_WINDOW

    @property
    def effective_window(self) -> int:
        return self._local.effective_window if self._local is not None else self.window // 2

    @property
    def reader(self) -> str:
        return self._local.reader if self._local is not None else "generate"

    @property
    def tokenizer_name(self) -> str:
        return self._tokens.tokenizer_name

    def count_tokens(self, text: str) -> int:
        return self._tokens.count_tokens(text)

    def count_batch(self, texts: list[str]) -> list[int]:
        return self._tokens.count_batch(texts)

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
        kinds = {"system": ChatMessageSystem, "user": ChatMessageUser, "assistant": ChatMessageAssistant}
        config = GenerateConfig(
            max_tokens=max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p if sampling.top_p < 1 else None,
            top_k=sampling.top_k or None,
            seed=sampling.seed,
            stop_seqs=list(stop) or None,
            response_schema=ResponseSchema(name="answer", json_schema=JSONSchema(**schema)) if schema else None,
        )
        with Call.of(messages, max_tokens, sampling, stop, schema).recorded(self.name) as step:
            begin = time.perf_counter()
            output = await self.model.generate(
                [kinds[message["role"]](content=message["content"]) for message in messages], config=config
            )
            step.children.clear()  # what a model of this machine noted below is this same call
            used = output.usage
            cached = (used.input_tokens_cache_read or 0) if used else 0
            usage = Usage(
                1,
                (used.input_tokens + cached) if used else 0,
                used.output_tokens if used else 0,
                cached,
                time.perf_counter() - begin,
                used.total_cost if used else None,
            )
            reason = "length" if output.stop_reason in ("max_tokens", "model_length") else "stop"
            completion = Completion(output.completion, usage, reason)
            note(step, completion)
        for name in self.spent.keys() & (output.metadata or {}).keys():
            self.spent[name] += (output.metadata or {})[name] or 0.0
        if on_text:
            on_text(output.completion)
        return completion
