"""Conversations to token ids.

Control tokens come from the chat template alone: what documents and users write is always encoded as ordinary text,
whatever it spells.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from longspan.errors import LongspanError
from longspan.models.loading import LoadedModel
from longspan.surrogates import replace_surrogates


def encode(text: str, loaded: LoadedModel) -> list[int]:
    """Ordinary text to token ids: nothing added, and no control token whatever the text spells."""
    return encode_plain(text, loaded.tokenizer)


def render(messages: Sequence[Mapping[str, str]], loaded: LoadedModel) -> list[int]:
    """The whole prompt of a conversation as token ids, up to where the assistant's answer begins."""
    tokenizer = loaded.tokenizer
    if loaded.has_chat_template:
        return encode_pieces(template_pieces(messages, tokenizer), tokenizer)
    turns = "".join(f"{message['role']}: {message['content'].strip()}\n" for message in messages)
    return [*leading_tokens(tokenizer), *encode_plain(turns + "assistant:", tokenizer)]


def template_pieces(
    messages: Sequence[Mapping[str, str]], tokenizer: PreTrainedTokenizerBase
) -> list[tuple[str, bool]]:
    """The rendered template as (text, trusted) pieces; contents are not trusted.

    The template is rendered over placeholders. Blanks around a content stay outside of its placeholder, so that a
    template which trims them still does.
    """
    nonce = secrets.token_hex(8)
    contents: dict[str, str] = {}
    shown: list[dict[str, str]] = []
    for i, message in enumerate(messages):
        text = replace_surrogates(message["content"])
        core = text.strip()
        mark = f"[{nonce}-{i}]"
        contents[mark] = core
        before, after = (text, "") if not core else (text[: text.index(core)], text[text.index(core) + len(core) :])
        shown.append({"role": message["role"], "content": f"{before}{mark}{after}" if core else text})
    rendered = apply_template(shown, tokenizer)
    parts = re.split(rf"(\[{nonce}-\d+\])", rendered)
    return [(contents.get(part, part), part not in contents) for part in parts if part]


def apply_template(messages: list[dict[str, str]], tokenizer: PreTrainedTokenizerBase) -> str:
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    except TemplateError as error:
        if len(messages) > 1 and messages[0]["role"] == "system":  # a template without that role, such as Gemma's
            system, first, *rest = messages
            merged = {"role": first["role"], "content": f"{system['content']}\n\n{first['content']}"}
            return apply_template([merged, *rest], tokenizer)
        raise LongspanError(f"The model's chat template refuses this conversation: {error}.") from error


def encode_pieces(pieces: Sequence[tuple[str, bool]], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Encode the joined text; where a content spells a control token, only the template's own are kept as such."""
    whole = "".join(text for text, _ in pieces)
    pattern = added_tokens(tokenizer)
    if pattern is None:
        return encode_plain(whole, tokenizer)
    trusted = [flag for text, flag in pieces for _ in text]
    matches = list(pattern.finditer(whole))
    if all(all(trusted[m.start() : m.end()]) for m in matches):
        return list(tokenizer.encode(whole, add_special_tokens=False))
    ids: list[int] = []
    begin = 0
    for match in matches:
        if all(trusted[match.start() : match.end()]):
            ids += encode_plain(whole[begin : match.start()], tokenizer)
            ids += tokenizer.encode(match.group(), add_special_tokens=False)
            begin = match.end()
    return ids + encode_plain(whole[begin:], tokenizer)


def encode_plain(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids of ordinary text; what spells an added token is cut after its first character until none is left."""
    text = replace_surrogates(text)
    if not text:
        return []
    ids = list(tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))
    added = tokenizer.added_tokens_decoder
    if not any(i in added for i in ids):
        return ids
    pattern = added_tokens(tokenizer)
    match = pattern.search(text) if pattern else None
    if match is None or len(match.group()) < 2:
        return ids
    cut = match.start() + 1
    return [*encode_plain(text[:cut], tokenizer), *encode_plain(text[cut:], tokenizer)]


def added_tokens(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str] | None:
    """Matches the text of any added token, the longest first."""
    texts = sorted((str(token) for token in tokenizer.added_tokens_decoder.values()), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, texts))) if texts else None


def leading_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What the tokenizer itself puts before a text: the beginning-of-sequence token, or nothing."""
    ids = tokenizer.encode("", add_special_tokens=True)
    return [tokenizer.bos_token_id] if ids and ids[0] == tokenizer.bos_token_id else []
