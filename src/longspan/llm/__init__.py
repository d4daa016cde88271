"""One protocol for whatever answers: a model on this machine, or an endpoint."""

from __future__ import annotations

import re
from pathlib import Path

from longspan.errors import UsageError
from longspan.llm.endpoint import EndpointLLM, Prices
from longspan.llm.local import LocalLLM, weights_of
from longspan.llm.protocol import LLM, Call, Completion, Message, OffSchema, Sampling, Scorer
from longspan.llm.simulated import SimulatedLLM

__all__ = [
    "LLM",
    "Call",
    "Completion",
    "EndpointLLM",
    "LocalLLM",
    "Message",
    "OffSchema",
    "Prices",
    "Sampling",
    "Scorer",
    "SimulatedLLM",
    "open_llm",
    "open_local",
]


def open_llm(
    spec: str,
    *,
    base_url: str | None = None,
    prices: str | None = None,
    window: int | None = None,
    asking: bool = False,
) -> LLM:
    """The model named by `spec`: `openai:NAME` is an endpoint, `simulated:NAME` the simulated reader, anything else a
    model on this machine.

    Nothing is loaded or asked yet. `prices` are currency units per million tokens, "INPUT,OUTPUT[,CACHED]"; `window`
    is an endpoint's, in tokens, where the server does not tell. `asking` is `open_local`'s.
    """
    cost = Prices.parse(prices) if prices is not None else None
    if window is not None and window < 1:
        raise UsageError(f"A window of {window} tokens holds nothing: give at least 512, or leave --window out.")
    if spec.startswith("openai:"):
        name = spec.removeprefix("openai:").strip()
        if not name:
            raise UsageError("Name the endpoint's model, as in openai:gpt-5-mini.")
        return EndpointLLM(name, base_url=base_url, prices=cost, window=window)
    if window is not None:
        raise UsageError(f"--window is for endpoints: that of {spec} is known.")
    if cost is not None:
        raise UsageError(f"--prices is for endpoints: {spec} runs on this machine.")
    if base_url:
        raise UsageError(f"--base-url goes with an endpoint's model: write --model openai:{spec}.")
    if spec.startswith("simulated:"):
        return SimulatedLLM.parse(spec.removeprefix("simulated:"))
    return open_local(spec, asking=asking)


def open_local(spec: str, *, beyond_window: bool = False, asking: bool = False) -> LocalLLM:
    """The model on this machine named by `spec`, not loaded yet; `beyond_window` lets prompts exceed its window.
    `asking` is for questions about texts: what was computed for long prompts stays on disk, and the embedded model runs
    in int8 where the processor multiplies that: its reader then chose right quotes as often (docs/quality.md)."""
    if spec.startswith(("http://", "https://")):
        raise UsageError(f"{spec} is an address: write --model openai:NAME --base-url {spec}.")
    if re.match(r"[a-z]{2,}:", spec, re.IGNORECASE):
        raise UsageError(f"{spec!r} names no kind of model: write openai:NAME, or a hub id, folder or .gguf file.")
    model, _ = weights_of(spec)
    if "+" in Path(model).name and not Path(model).expanduser().exists():
        raise UsageError(
            f"There is no method {model.rpartition('+')[2]!r} yet, only int8 and int4: name the model alone."
        )
    return LocalLLM(spec, beyond_window=beyond_window, asking=asking)
