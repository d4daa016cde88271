"""Models of this machine for inspect_ai: `--model longspan/smollm2`.

Model arguments name methods: `-M positions=yarn:factor=4 -M cache=snapkv:keep=0.125` is the spec
`smollm2+yarn:factor=4+snapkv:keep=0.125`.
"""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    GenerateConfig,
    Model,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    modelapi,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from longspan.engine.sampling import Sampling
from longspan.errors import LongspanError
from longspan.llm import LocalLLM, Message, open_local

METHODS = ("positions", "attention", "cache")  # model arguments that name a method each
DEFAULT_MAX_TOKENS = 256
TOGETHER = 4  # samples in flight: what waits together is decoded as one batch


class LongspanAPI(ModelAPI):
    """A transformers model run by longspan's engine; the name is a longspan spec, `MODEL[+METHOD...]`."""

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008 - inspect's own convention
        **model_args: Any,
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config)
        workers = model_args.pop("workers", None)
        methods = [str(model_args.pop(kind)) for kind in METHODS if kind in model_args]
        if model_args:
            raise LongspanError(
                f"Unknown model arguments: {', '.join(model_args)}; longspan models take {', '.join(METHODS)}, workers."
            )
        spec = "+".join([model_name, *methods])
        self.spec = spec
        self.llm: LocalLLM = shared_llm(spec)
        self.workers = None
        if workers:
            from longspan.evaluation.workers import Workers

            self.workers = Workers(spec, str(workers))

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        messages: list[Message] = [{"role": message.role, "content": message.text} for message in input]
        chat = self.workers.chat if self.workers is not None else self.llm.chat
        completion = await chat(
            messages,
            max_tokens=config.max_tokens or DEFAULT_MAX_TOKENS,
            sampling=sampling_of(config),
            stop=config.stop_seqs or (),
        )
        usage = completion.usage
        return ModelOutput(
            model=self.model_name,
            choices=[
                ChatCompletionChoice(
                    message=ChatMessageAssistant(content=completion.text, model=self.model_name, source="generate"),
                    stop_reason="max_tokens" if completion.finish_reason == "length" else "stop",
                )
            ],
            usage=ModelUsage(
                input_tokens=usage.prompt_tokens - usage.cached_tokens,
                input_tokens_cache_read=usage.cached_tokens,
                output_tokens=usage.completion_tokens,
                total_tokens=usage.prompt_tokens + usage.completion_tokens,
            ),
            input_context_tokens=usage.prompt_tokens,
            time=usage.seconds,
            metadata={
                "seconds": usage.seconds,  # without the wait for other samples
                "prefill_seconds": completion.prefill_seconds,
                "decode_seconds": completion.decode_seconds,
                "cache_bytes": self.llm.bytes_per_token * (usage.prompt_tokens + usage.completion_tokens),
                "peak_bytes": peak_bytes(),
            },
        )

    async def count_text_tokens(self, text: str) -> int:
        return self.llm.count_tokens(text)

    def max_connections(self) -> int:
        return self.workers.count if self.workers is not None else TOGETHER

    def connection_key(self) -> str:
        return self.spec


@modelapi(name="longspan")
def longspan() -> type[ModelAPI]:
    """The provider's name for inspect."""
    return LongspanAPI


@lru_cache(maxsize=1)
def shared_llm(spec: str) -> LocalLLM:
    """The model of this machine named by `spec`: once in memory for counting, evaluating and workflows.

    Only the last one asked for is held, so that several specs in turn do not fill the memory.
    """
    return open_local(spec, beyond_window=True)


def sampling_of(config: GenerateConfig) -> Sampling:
    """Greedy unless a temperature is given."""
    return Sampling(
        temperature=config.temperature or 0.0,
        top_p=config.top_p if config.top_p is not None else 1.0,
        top_k=config.top_k or 0,
        seed=config.seed,
    )


def local_llm(model: Model) -> LocalLLM | None:
    """The model of this machine behind an inspect model, or None for an endpoint."""
    return model.api.llm if isinstance(model.api, LongspanAPI) else None


def active_llm() -> LocalLLM | None:
    """The model of this machine that is being evaluated, or None: it is an endpoint, or no evaluation is under way."""
    from inspect_ai.model._model import active_model  # inspect's public get_model() would make one from the environment

    model = active_model()
    return local_llm(model) if model is not None else None


def peak_bytes() -> int:
    """The most memory that this process has held since `forget_peak`, where the system can forget, or ever."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    except (OSError, IndexError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def forget_peak() -> None:
    """Begin to measure the peak of memory anew (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
