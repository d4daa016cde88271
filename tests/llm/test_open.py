"""Models by name: what opens as what, and one sentence for each name or option that cannot be meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from longspan.errors import LongspanError, UsageError
from longspan.llm import EndpointLLM, LocalLLM, Prices, open_llm, open_local

OWN = "http://127.0.0.1:1/v1"


def test_an_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    llm = open_llm("openai:a/model:tag+1", base_url=f" {OWN} ", prices="1, 2,0.5", window=3000)
    assert isinstance(llm, EndpointLLM)
    assert (llm.name, llm.model, llm.base_url) == ("openai:a/model:tag+1", "a/model:tag+1", OWN)
    assert (llm.prices, llm.window, llm.effective_window, llm.reader) == (Prices(1, 2, 0.5), 3000, 1500, "generate")
    plain = open_llm("openai:gpt")
    assert isinstance(plain, EndpointLLM)
    assert (plain.base_url, plain.prices, plain.window) == (None, None, 32_768)
    monkeypatch.setenv("OPENAI_BASE_URL", OWN)
    assert EndpointLLM("gpt").base_url == OWN


def test_a_model_of_ones_own_by_each_kind_of_name(tmp_path: Path) -> None:
    named = tmp_path / "c++ model.gguf"
    named.touch()
    for name in ("smollm2", "owner/name", str(tmp_path), str(named), "C:\\models\\m.gguf", "c:/models/m.gguf"):
        llm = open_llm(name)
        assert isinstance(llm, LocalLLM)
        assert llm.name == llm.tokenizer_name == name


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("openai:", {}, "Name the endpoint's model, as in openai:"),
        ("openai: ", {}, "Name the endpoint's model, as in openai:"),
        ("smollm2", {"base_url": OWN}, "write --model openai:smollm2"),
        ("smollm2", {"window": 4096}, "--window is for endpoints"),
        ("smollm2", {"prices": "1,2"}, "--prices is for endpoints"),
        ("smollm2", {"prices": "cheap"}, "are no prices: write INPUT,OUTPUT"),
        ("openai:x", {"prices": "1"}, "are no prices: write INPUT,OUTPUT"),
        ("openai:x", {"prices": ""}, "are no prices: write INPUT,OUTPUT"),
        ("openai:x", {"window": 0}, "window of 0 tokens .* at least"),
        ("openai:x", {"window": -5}, "window of -5 tokens .* at least"),
        ("anthropic:claude", {}, "names no kind of model: write openai:NAME"),
        ("OpenAI:gpt", {}, "names no kind of model: write openai:NAME"),
        ("http://127.0.0.1:8080/v1", {}, "is an address: write --model openai:NAME --base-url http://127"),
        ("smollm2+yarn", {}, "no method 'yarn' yet"),
    ],
)
def test_what_cannot_be_meant(spec: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        open_llm(spec, **options)
    assert "\n" not in str(raised.value)


BAD = ["127.0.0.1:8080/v1", "ftp://x/v1", "http://", "http://x:port/v1", "http://[::1/v1", "x", "http://1.2.3.999/v1"]


@pytest.mark.parametrize("url", [*BAD, "http://x/\x01", "http://☃.invalid", "me:hidden@x/v1?key=hidden"])
def test_what_is_no_address(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="is no server's address: write --base-url http://HOST:PORT/v1") as raised:
        open_llm("openai:x", base_url=url)
    assert "hidden" not in str(raised.value)
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    with pytest.raises(UsageError, match="is no server's address"):
        open_llm("openai:x")


@pytest.mark.parametrize("name", ["smolm2", "", "no-such-folder/model.gguf", "a/b/c"])
def test_a_wrong_name_says_which_there_are(name: str) -> None:
    llm = open_llm(name)  # nothing is loaded yet
    with pytest.raises(LongspanError, match="`smollm2`, a hub id"):
        _ = llm.window


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_weights_are_a_method_of_the_spec(weights: str) -> None:
    llm = open_local(f"smollm2+{weights}")
    assert (llm.name, llm.tokenizer_name) == (f"smollm2+{weights}", "smollm2")
    with pytest.raises(UsageError, match="no method 'yarn'"):
        open_local("smollm2+yarn")
